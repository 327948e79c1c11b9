# SPDX-License-Identifier: GPL-2.0-only
"""The test kernels, with a make that only pretends to compile."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from .conftest import A_C, PYTHON, Project, errors

# Notes each call, its variables and the version of a.c it saw; fails as $HOME/fault says.
MAKE = r"""
src= obj= target=
while [ $# -gt 0 ]; do
    case $1 in -C) src=$2; shift;; O=*) obj=${1#O=};; allnoconfig|Image) target=$1;; esac
    shift
done
echo "$target ${MAKEFLAGS-} ${V-} ${BASE-} ${KBUILD_OUTPUT-}" >>"$HOME/calls"
if [ $target = allnoconfig ]; then
    grep -v -x -F "$(cat "$HOME/refuse" 2>/dev/null || echo nothing)" "$KCONFIG_ALLCONFIG" >"$obj/.config"
    exit 0
fi
mkdir -p "$obj/arch/arm64/boot" "$obj/include/config"
echo "  CC      drivers/iommu/a.o"
[ -e "$obj/a.o" ] || echo fresh >>"$HOME/calls"
touch "$obj/a.o"
[ -e "$HOME/fault" ] && { sh "$HOME/fault"; exit 2; }
cat "$src/drivers/iommu/a.c" "$src/drivers/iommu/our.c" >"$obj/arch/arm64/boot/Image"
cp "$obj/arch/arm64/boot/Image" "$obj/vmlinux"
touch "$obj/System.map"
echo 9.8.7 >"$obj/include/config/kernel.release"
"""


@pytest.fixture
def kernels(project: Project) -> Project:
    project.fake("make", MAKE)
    for name in ("aarch64-linux-gnu-gcc", "ccache", "flex", "bison", "bc", "gcc"):
        project.fake(name, "echo fake 1.0")
    (project.top / "configs" / "kernel" / "test.config").write_text(
        "CONFIG_A=y\nCONFIG_B=y\nCONFIG_OLD=y  # optional\n")
    (project.top / "drivers" / "iommu").mkdir(parents=True)
    (project.top / "drivers" / "iommu" / "our.c").write_text("our driver\n")
    (project.top / "patches" / "test").mkdir()
    project.queue((10, "ten", "a: One"))
    return project


def home(project: Project) -> Path:
    return project.top.parent


def build(project: Project, which: str, code: int = 0) -> str:
    done = project.build(0 if which == "unpatched" else None, code)
    return Path(done.stdout.strip()).read_text() if code == 0 else done.stderr


def calls(project: Project) -> list[str]:
    path = home(project) / "calls"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def test_the_two_kernels(kernels: Project) -> None:
    plain, patched = build(kernels, "unpatched"), build(kernels, "patched")
    assert "line 10 of a" in plain and "our driver" in plain
    assert "ten\n" in patched and "line 10 of a" not in patched and "our driver" in patched


def test_nothing_changed_nothing_built(kernels: Project) -> None:
    build(kernels, "unpatched")
    build(kernels, "patched")
    made = [call.split()[0] for call in calls(kernels)]
    assert made == ["allnoconfig", "Image", "fresh", "allnoconfig", "Image"]
    build(kernels, "unpatched")
    build(kernels, "patched")
    assert calls(kernels) == []


@pytest.mark.parametrize("what, unpatched, patched", [
    ("patch", False, True), ("message of a patch", False, False), ("driver", True, True),
    ("configuration", True, True), ("compiler", True, True), ("base", True, True),
])
def test_what_is_built_again(kernels: Project, what: str, unpatched: bool, patched: bool) -> None:
    build(kernels, "unpatched")
    build(kernels, "patched")
    calls(kernels)
    patch = kernels.patches / "0001-a-One.patch"
    if what == "patch":
        patch.write_text(patch.read_text().replace("+ten", "+TEN"))
    elif what == "message of a patch":
        patch.write_text(patch.read_text().replace("Why: ", "Because: "))
    elif what == "driver":
        (kernels.top / "drivers" / "iommu" / "our.c").write_text("better\n")
    elif what == "configuration":
        (kernels.top / "configs" / "kernel" / "test.config").write_text("CONFIG_A=y\n")
    elif what == "compiler":
        kernels.fake("aarch64-linux-gnu-gcc", "echo fake 2.0")
    else:
        text = (kernels.ksrc / A_C).read_text()
        (kernels.ksrc / A_C).write_text(text.replace("line 60", "LINE 60"))
    build(kernels, "unpatched")
    assert bool(calls(kernels)) == unpatched
    after = build(kernels, "patched")
    assert bool(calls(kernels)) == patched
    assert ("TEN" in after) == (what == "patch") and ("better" in after) == (what == "driver")


def test_only_files_that_differ_are_written(kernels: Project) -> None:
    """What make takes for changed is what it compiles again."""
    build(kernels, "unpatched")
    test = next(kernels.cache.glob("smmuv3-kdump/build/*/test"))
    before = {path: path.stat().st_mtime_ns for path in test.rglob("*") if path.is_file()}
    time.sleep(0.02)
    build(kernels, "patched")
    after = {path: path.stat().st_mtime_ns for path in test.rglob("*") if path.is_file()}
    assert [str(path.relative_to(test)) for path in after if after[path] != before.get(path)] == [A_C]


def test_make_is_not_disturbed_by_the_make_around_it(kernels: Project) -> None:
    kernels.build(0, MAKEFLAGS="n -- BASE=9.8", KBUILD_OUTPUT="/nowhere", V="1")
    assert all(call.split() in (["allnoconfig"], ["Image"], ["fresh"]) for call in calls(kernels))


def test_a_line_of_the_configuration_that_did_not_take(kernels: Project) -> None:
    (home(kernels) / "refuse").write_text("CONFIG_OLD=y")
    build(kernels, "unpatched")
    shutil.rmtree(kernels.cache)
    (home(kernels) / "refuse").write_text("CONFIG_B=y")
    assert "CONFIG_B=y" in build(kernels, "unpatched", code=1)


def test_a_compiler_error(kernels: Project) -> None:
    (home(kernels) / "fault").write_text("echo 'a.c:5:1: error: expected ;' >&2")
    done = kernels.build(0, code=1)
    assert "expected ;" in done.stderr and ".log" in done.stderr and errors(done) == 1
    (home(kernels) / "fault").unlink()
    calls(kernels)
    build(kernels, "unpatched")
    assert "fresh" not in calls(kernels)        # what was compiled is used


@pytest.mark.parametrize("fault, code", [
    ("echo 'fatal error: a.o: No space left on device' >&2", 3),
    ("echo 'aarch64-linux-gnu-gcc: fatal error: Killed signal terminated program cc1' >&2", 3),
    ("kill -9 $VERB", -9),
])
def test_a_build_that_was_cut_off_starts_from_nothing(kernels: Project, fault: str, code: int) -> None:
    (home(kernels) / "fault").write_text(fault)
    kernels.build(0, code=code)
    (home(kernels) / "fault").unlink()
    calls(kernels)
    build(kernels, "unpatched")
    assert "fresh" in calls(kernels)


def test_a_patch_that_does_not_apply(kernels: Project) -> None:
    build(kernels, "unpatched")
    patch = kernels.patches / "0001-a-One.patch"
    patch.write_text(patch.read_text().replace("-line 10 of a", "-line ten of a"))
    said = build(kernels, "patched", code=1)
    assert patch.name in said and "make tree" in said
    build(kernels, "unpatched")


def test_our_file_must_not_hide_one_of_the_kernels(kernels: Project) -> None:
    (kernels.top / A_C).write_text("mine\n")
    assert A_C in build(kernels, "unpatched", code=1)


def test_no_more_than_some_kernels_are_kept(kernels: Project) -> None:
    patch = kernels.patches / "0001-a-One.patch"
    text = patch.read_text()
    for number in range(27):
        patch.write_text(text.replace("+ten", f"+ten{number}"))
        assert f"ten{number}" in build(kernels, "patched")
    assert len(list(kernels.cache.glob("smmuv3-kdump/build/*/images/*"))) == 24


def test_tools_that_are_not_installed(kernels: Project) -> None:
    (kernels.bin / "bison").unlink()
    tools = home(kernels) / "few"
    tools.mkdir()
    for name in ("git", "dpkg", "perl", "sh", "env", "make"):
        path = shutil.which(name)
        assert path
        (tools / name).symlink_to(path)
    # Not as root here: then what is missing would be installed.
    code = ("import os; os.geteuid = lambda: 1000; from tools import common; from tools.kernel import build;"
            "common.main(lambda: print(build.build('9.8')))")
    done = kernels.run(PYTHON, "-c", code, code=3, PATH=f"{kernels.bin}:{tools}")
    assert "not installed: bison" in done.stderr and "sudo apt-get install" in done.stderr


def test_test_patches_of_a_base_replace_the_common_ones(kernels: Project) -> None:
    common = kernels.top / "patches" / "test"
    for where, line, text in ((common, 20, "twenty"), (common / "9.8", 30, "thirty")):
        kernels.queue((line, text, "test: One"))
        where.mkdir(exist_ok=True)
        kernels.patches.joinpath("0001-test-One.patch").rename(where / "0001-test-One.patch")
    kernels.queue((10, "ten", "a: One"))
    text = build(kernels, "patched")
    assert "thirty" in text and "ten\n" in text and "twenty" not in text
    shutil.rmtree(common / "9.8")
    text = build(kernels, "patched")
    assert "twenty" in text and "ten\n" in text and "thirty" not in text
