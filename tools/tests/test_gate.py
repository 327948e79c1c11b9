# SPDX-License-Identifier: GPL-2.0-only
"""make gate: seeded faults are caught, what was there before is not, silence is not success.

The driver is a file of its own here, its make one that prints what grep finds in it, and the
base's checkpatch.pl a script of three lines; the real ones have the gate's own control.
"""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from ..kernel import gate
from .conftest import Project, git, kernel_tree

DRIVER = "drivers/iommu/arm/arm-smmu-v3"
C = f"{DRIVER}/arm-smmu-v3.c"

# "Compiles" the driver: each kind of seed has its message, in the checks that would find it.
MAKE = r"""
src= obj= target= w= c=
for word in "$@"; do
    case $word in
        O=*) obj=${word#O=};; W=1) w=1;; C=2) c=1;; allnoconfig) target=config;; drivers/*) target=$word;;
    esac
done
while [ "$1" != -C ]; do shift; done; src=$2
[ "$target" = config ] && { cp "$KCONFIG_ALLCONFIG" "$obj/.config"; exit 0; }
file=$src/${target}arm-smmu-v3.c
grep -n "BROKEN" "$file" | sed "s|^|$file:|;s|int.*| error: expected ;|" | grep . && exit 2
dir=$obj/drivers/iommu/arm/arm-smmu-v3; mkdir -p "$dir"; : >"$dir/arm-smmu-v3.o"
say() { grep -n "$1" "$file" | sed "s|^\([0-9]*\):.*|$file:\1:2: warning: $2|"; }
if [ -n "$c" ]; then
    [ -e "$HOME/no-sparse" ] && exit 0
    echo "  CHECK   $target"
    say "__iomem\|SPARSE" "cast removes address space"
else
    echo "  CC      $target"
    [ -n "$w" ] && say "only_set;\|W1" "variable 'only_set' set but not used [-Wunused]"
    grep -q CRASH_DUMP=n "$obj/.config" && say "NODUMP" "something without CONFIG_CRASH_DUMP"
    say "gate_unused" "'gate_unused' defined but not used"
    cp "$file" "$dir/arm-smmu-v3.o"
fi
exit 0
"""
NM = r"""for file in "$@"; do :; done
grep -q 'start_kernel\|SYMBOL' "$file" && echo "                 U start_kernel"
echo "                 U kfree"; exit 0"""
CHECKPATCH = r"""#!/usr/bin/perl
my $f = *STDIN; my $n = 0;
while (<$f>) { $n++;
    print "-:$n: WARNING:AVOID_EXTERNS: externs should be avoided\n" if /^\+.*(extern|STYLE)/;
}
print "-:$n: ERROR:MISSING_SIGN_OFF: Missing Signed-off-by: line(s)\n";
exit 1;
"""
SPATCH = r"""case $* in *--version*) echo "spatch version 1.1.1 compiled"; exit 0;; esac
[ -e "$HOME/fault-spatch" ] && { echo "Fatal error" >&2; exit 1; }
for word; do case $word in *.c) [ -e "$word" ] || { echo "no $word" >&2; exit 1; };; esac; done
said="WARNING: NULL check before some freeing functions is not needed."
file=drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c
grep -n "kfree\|COCCI" $file | sed "s|^\([0-9]*\):.*|$file:\1:2-7: $said|"
exit 0"""
OLD = "int old; /* W1 SPARSE COCCI */\n"


@pytest.fixture
def series(project: Project) -> Project:
    """A base whose driver has a message of every kind already, and tools that only pretend."""
    shutil.rmtree(project.ksrc)
    kernel_tree(project.ksrc)
    for name, text in (
        (C, OLD + "".join(f"int line{number};\n" for number in range(30))),
        (f"{DRIVER}/arm-smmu-v3.h", "int header;\n"),
        (f"{DRIVER}/arm-smmu-v3-test.c", "int test;\n"),
        ("mm/slab.c", "EXPORT_SYMBOL(kfree);\n"),
        ("scripts/checkpatch.pl", CHECKPATCH),
        ("scripts/coccinelle/free/ifnullfree.cocci", "virtual report\n// Options: --no-includes\n"),
    ):
        path = project.ksrc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name, script in (
        ("make", MAKE),
        ("aarch64-linux-gnu-nm", NM),
        ("spatch", SPATCH),
        ("sparse", "echo 0.6.5"),
        ("aarch64-linux-gnu-gcc", "echo fake 1.0"),
        ("ccache", ""),
        ("flex", ""),
        ("bison", ""),
        ("bc", ""),
    ):
        project.fake(name, script)
    (project.top / "configs" / "kernel" / "test.config").write_text(
        "CONFIG_ARM_SMMU_V3=y\nCONFIG_CRASH_DUMP=y\n"
    )
    return project


def queue(project: Project, *texts: str) -> None:
    """A patch for each text, which it adds to the driver in a place of its own."""
    scratch = project.top.parent / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(project.ksrc, scratch)
    git(scratch, "init", "-q")
    git(scratch, "add", "-f", ".")
    git(scratch, "commit", "-qm", "base")
    for number, text in enumerate(texts, 1):
        lines = (scratch / C).read_text().splitlines(keepends=True)
        lines.insert(5 * number, f"{text}\n")
        (scratch / C).write_text("".join(lines))
        git(scratch, "commit", "-qam", f"iommu: Number {number}\n\nWhy.\n")
    git(scratch, "format-patch", "-q", "-o", str(project.patches), f"HEAD~{len(texts)}")
    (project.patches / "series").write_text(
        "".join(f"{path.name}\n" for path in sorted(project.patches.glob("*.patch")))
    )


TEXT = "W=1,sparse,SMMU_V3=m,CRASH_DUMP=n,checkpatch,cocci"


def run(project: Project, code: int, checks: str = TEXT) -> tuple[str, dict[str, dict[str, Any]]]:
    done = project.verb("gate", code=code, CHECKS=checks)
    found = json.loads((project.cache / "smmuv3-kdump/runs/gate/9.8/latest/result.json").read_text())
    rows: dict[str, dict[str, Any]] = {}
    for result in found["results"]:
        rows.setdefault(result["suite"], {})[result["name"]] = result
    return done.stdout, rows


def test_a_clean_series(series: Project) -> None:
    queue(series, "int one;", "int two;")
    said, rows = run(series, 0)
    assert all(
        cell["status"] == "PASS" and not cell["detail"] for row in rows.values() for cell in row.values()
    )
    assert (
        rows["0001"]["W=1"]["figures"]["cell"] == "1>1"
        and "PASS" in said
        and list(rows) == ["control", "0001", "0002"]
    )


def test_a_base_without_unit_tests(series: Project) -> None:
    """6.1's driver has no file of them."""
    (series.ksrc / f"{DRIVER}/arm-smmu-v3-test.c").unlink()
    queue(series, "int one;")
    said, rows = run(series, 0)
    assert rows["0001"]["cocci"]["status"] == "PASS" and "PASS" in said
    # A patch of the series must bring some (there is no kernel to be built here); before it there are none.
    assert "9.8 with 1 patches: stopped" in series.verb("gate", code=3, CHECKS="kunit").stderr
    names = (series.patches / "series").read_text()
    (series.patches / "prereq").mkdir()
    (series.patches / names.strip()).rename(series.patches / "prereq" / names.strip())
    (series.patches / "series").write_text(f"prereq/{names}")
    said, rows = run(series, 4, "kunit")
    assert [row["kunit"]["status"] for row in rows.values()] == ["SKIPPED", "SKIPPED"]
    assert "SKIPPED kunit: before the series" in said and "INVALID" in said


@pytest.mark.parametrize(
    "check, text",
    [
        ("W=1", "int x; /* W1 */"),
        ("sparse", "int x; /* SPARSE */"),
        ("SMMU_V3=m", "int x; /* SYMBOL */"),
        ("CRASH_DUMP=n", "int x; /* NODUMP */"),
        ("checkpatch", "int x; /* STYLE */"),
        ("cocci", "int x; /* COCCI */"),
    ],
)
def test_a_seeded_fault_is_caught(series: Project, check: str, text: str) -> None:
    queue(series, "int one;", text, "int three;")
    said, rows = run(series, 1)
    bad = [
        (row, name) for row, cells in rows.items() for name, cell in cells.items() if cell["status"] != "PASS"
    ]
    assert bad == [("0002", check)]
    assert rows["0002"][check]["detail"] and f"FAIL 0002 {check}: " in said
    assert ":5:" not in rows["0002"][check]["detail"]
    # And taken out again, which adds nothing.
    queue(series, "int one;", "int x;", "int three;")
    assert run(series, 0)[0]


def test_a_build_that_fails(series: Project) -> None:
    queue(series, "int one;", "int x /* BROKEN */")
    said, rows = run(series, 1, "W=1,CRASH_DUMP=n,checkpatch")
    assert [rows[name]["W=1"]["status"] for name in ("0001", "0002")] == [
        "PASS",
        "FAIL",
    ] and "expected ;" in said
    assert rows["0002"]["CRASH_DUMP=n"]["status"] == "FAIL"


@pytest.mark.parametrize("name, check", [("no-sparse", "sparse"), ("fault-spatch", "cocci")])
def test_a_check_that_does_not_run_is_not_ok(series: Project, name: str, check: str) -> None:
    queue(series, "int one;")
    (series.top.parent / name).write_text("")
    said, rows = run(series, 3)
    assert (
        rows["control"][check]["status"] == rows["0001"][check]["status"] == "ENVIRONMENT" and "ENV" in said
    )
    assert rows["0001"]["W=1"]["status"] == "PASS"
    # It is asked again when it can run, and nothing is kept of the time when it could not.
    (series.top.parent / name).unlink()
    assert run(series, 0)


def test_a_tool_that_finds_nothing_is_not_believed(series: Project) -> None:
    queue(series, "int one;")
    series.fake("spatch", 'case $* in *--version*) echo "spatch version 1.1.1";; esac; exit 0')
    said, rows = run(series, 3)
    assert rows["0001"]["cocci"]["status"] == "ENVIRONMENT" and "the control" in said


def test_what_was_found_is_kept(series: Project) -> None:
    queue(series, "int one;")
    run(series, 0)
    calls = series.top.parent / "calls"
    series.fake("make", 'echo "$*" >>"$HOME/calls"; exit 1')
    run(series, 0)
    assert not calls.exists()
    queue(series, "int other;")
    run(series, 1)
    assert calls.exists()


def test_a_series_that_does_not_apply(series: Project) -> None:
    queue(series, "int one;")
    patch = next(series.patches.glob("*.patch"))
    patch.write_text(patch.read_text().replace(" int line5;", " int line999;"))
    assert patch.name in series.verb("gate", code=1, CHECKS=TEXT).stderr


def test_words_that_are_not_checks(series: Project) -> None:
    assert "choose of" in series.verb("gate", code=2, CHECKS="W=2").stderr


@pytest.mark.parametrize(
    "line, same",
    [
        (
            "drivers/a.c:12:3: warning: unused variable 'x'",
            "drivers/a.c:112:30: warning: unused variable 'x'",
        ),
        ("../drivers/a.c:12: warning: x", "drivers/a.c:13: warning: x"),
        ("./drivers/a.c:12:5-9: WARNING: x on line 4", "./drivers/a.c:20:5-8: WARNING: x on line 80"),
    ],
)
def test_a_message_that_only_moved_is_the_same(line: str, same: str) -> None:
    assert gate.gist(line) == gate.gist(same)


def test_every_check_has_a_control() -> None:
    assert {name for name, check in gate.CHECKS.items() if not check.control} == {"kunit", "sanitize"}
    assert all(reason for reason in gate.EXCEPTIONS.values())
