# SPDX-License-Identifier: GPL-2.0-only
"""make kunit: what is read out of a console, and what becomes of a machine that dies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ..common import ENVIRONMENT, Err
from ..kernel import kunit
from ..queue import bases
from ..queue.store import Store
from ..results import Status, worst
from .conftest import PYTHON, Project

PASS, FAIL, SKIPPED = Status.PASS, Status.FAIL, Status.SKIPPED

BOOT = "Booting Linux on physical CPU 0x0\nMemory: 1016452K/1048576K available\n"
GOOD = """\
KTAP version 1
1..2
    KTAP version 1
    # Subtest: arm-smmu-v3-kunit-test
    # module: arm_smmu_v3_test
    1..3
    ok 1 write_ste
    # adopt: initializing
arm-smmu-v3: kdump: adopted 3 live StreamIDs
    ok 2 adopt
        KTAP version 1
        # Subtest: geometry
        ok 1 linear
        ok 2 two-level # SKIP no memory for it
        # geometry: pass:1 fail:0 skip:1 total:2
    ok 3 geometry
# arm-smmu-v3-kunit-test: pass:3 fail:0 skip:0 total:3
# Totals: pass:3 fail:0 skip:0 total:3
ok 1 arm-smmu-v3-kunit-test
    KTAP version 1
    # Subtest: arm-smmu-v3-kdump
    1..1
    ok 1 ats # SKIP no ATS here
# arm-smmu-v3-kdump: pass:0 fail:0 skip:1 total:1
ok 2 arm-smmu-v3-kdump # SKIP
"""
OFF = "reboot: Power down\n"

# Another file's lines, a warning in the middle of a case, as the kernel prints them
FAILURE = """\
    # adopt: EXPECTATION FAILED at drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3-test.c:700
    Expected live == 3, but
        live == 2 (0x2)
    not ok 2 adopt
"""
PARAMETER = """\
    # geometry: EXPECTATION FAILED at x.c:1
        not ok 2 two-level
        # geometry: pass:1 fail:1 skip:0 total:2
    not ok 3 geometry
"""
PANIC = """\
Unable to handle kernel NULL pointer dereference at virtual address 0000000000000010
Internal error: Oops: 0000000096000004 [#1] SMP
Kernel panic - not syncing: Oops: Fatal exception
"""


def stamped(text: str) -> str:
    """As the console has it: a time before each line, CRs."""
    return "".join(
        f"[    {1 + number / 1000:.6f}] {line}\r\n" for number, line in enumerate(text.splitlines())
    )


@pytest.fixture(scope="session")
def there() -> Path:
    """The parser of the default base."""
    try:
        return kunit.reader(Store(bases.default().name, ""))
    except Err as err:
        if err.code != ENVIRONMENT:
            raise
        pytest.skip(err.cause)


Parse = Callable[[str], kunit.Found]


@pytest.fixture
def parse(there: Path) -> Parse:
    return lambda text: kunit.parse(text, there)


def statuses(found: kunit.Found) -> list[Status]:
    return [case.status for case in found.cases]


def passed(found: kunit.Found) -> bool:
    return worst(found.results()) is PASS


@pytest.mark.parametrize("form", [str, stamped, lambda text: stamped(text).replace("] ", "][    T1] ")])
def test_pass_and_skip(form: Callable[[str], str], parse: Parse) -> None:
    found = parse(form(BOOT + GOOD + OFF))
    assert [(case.name, case.status) for case in found.cases] == [
        ("write_ste", PASS),
        ("adopt", PASS),
        ("geometry", PASS),
        ("ats", SKIPPED),
    ]
    assert found.cases[3].suite == "arm-smmu-v3-kdump"
    assert not found.problems and passed(found)


def test_a_case_that_failed(parse: Parse) -> None:
    text = GOOD.replace("    ok 2 adopt\n", FAILURE).replace("ok 1 arm-smmu-v3-k", "not ok 1 arm-smmu-v3-k")
    found = parse(stamped(text))
    assert statuses(found) == [PASS, FAIL, PASS, SKIPPED] and not found.problems
    assert "live == 2 (0x2)" in found.cases[1].detail and found.cases[1].seconds > 0


def test_a_parameter_that_failed(parse: Parse) -> None:
    text = GOOD.replace(
        "        ok 2 two-level # SKIP no memory for it\n"
        "        # geometry: pass:1 fail:0 skip:1 total:2\n    ok 3 geometry\n",
        PARAMETER,
    )
    found = parse(text.replace("ok 1 arm-smmu-v3-k", "not ok 1 arm-smmu-v3-k"))
    assert statuses(found)[2] is FAIL and not found.problems
    assert "two-level" in found.cases[2].detail and "EXPECTATION" in found.cases[2].detail
    # What says ok although something inside it did not is not believed.
    found = parse(text.replace("    not ok 3 geometry", "    ok 3 geometry"))
    assert statuses(found)[2] is FAIL and "failed inside: two-level" in found.cases[2].detail


@pytest.mark.parametrize("lines", range(1, GOOD.count("\n")))
def test_no_part_of_a_good_log_passes(lines: int, parse: Parse) -> None:
    """Whether the log ends early or the first lines of the tests are missing."""
    text = stamped(GOOD).splitlines(keepends=True)
    assert not passed(parse("".join(text[:lines])))
    assert not passed(parse("".join(text[lines:])))


# All but a case's last parameter: how many there are is told nowhere.
@pytest.mark.parametrize(
    "line",
    [
        line
        for line in GOOD.splitlines(keepends=True)
        if ("ok" in line.split() or "1.." in line) and "two-level" not in line
    ],
)
def test_no_log_that_lost_a_line_passes(line: str, parse: Parse) -> None:
    assert not passed(parse(stamped(GOOD.replace(line, "", 1))))


def test_a_second_list_of_suites(parse: Parse) -> None:
    assert not passed(parse(stamped(GOOD + GOOD + OFF)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        BOOT + OFF,
        "KTAP version 1\n1..0\n" + OFF,
        "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..0\nok 1 s\n",
        "KTAP version 1\n1..1\nok 1 arm-smmu-v3\n",
        "1..1\nok 1 a\n",
    ],
)
def test_nothing_ran(text: str, parse: Parse) -> None:
    assert not passed(parse(text))


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: CPU: 0 PID: 12 at drivers/iommu/x.c:12 f+0x1/0x2",
        "BUG: KASAN: slab-out-of-bounds in f+0x1/0x2",
        "UBSAN: shift-out-of-bounds in x.c:1:2",
        "WARNING: possible circular locking dependency detected",
        "BUG: sleeping function called from invalid context at mm/slab.h:1",
        "WARNING: suspicious RCU usage",
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        "watchdog: BUG: soft lockup - CPU#0 stuck for 26s!",
    ],
)
@pytest.mark.parametrize("before", ["    ok 2 adopt", "KTAP version 1\n1..2", "reboot"])
def test_what_the_kernel_complains_of(line: str, before: str, parse: Parse) -> None:
    found = parse(stamped((GOOD + OFF).replace(before, f"{line}\n{before}", 1)))
    assert not passed(found) and line in found.problems[0] and statuses(found).count(PASS) == 3


def test_a_crash(parse: Parse) -> None:
    found = parse(stamped(GOOD.split("    ok 2 adopt")[0] + PANIC))
    assert found.cases[1].status is FAIL and "NULL pointer" in found.cases[1].detail
    assert "never came to its end" in found.cases[1].detail and any(
        "missing" in problem for problem in found.problems
    )


QEMU = """case $* in *--version*) echo "QEMU emulator version 10.0.0"; exit 0;; esac
cat "$HOME/console" >console.log; echo "$*" >>"$HOME/calls"; sh "$HOME/fault" """


@pytest.fixture
def machine(project: Project, there: Path) -> Project:
    """make kunit with a machine that only prints, on a base that has the parser."""
    project.fake("qemu-system-aarch64", QEMU)
    (project.top / "tools" / "kernel" / "build.py").write_text(
        "import types, pathlib\nARCH = CROSS = ''\nFLAVOURS = pathlib.Path('configs/kernel/flavours')\n"
        "def build(base, count=None, flavour=''):\n"
        "    return types.SimpleNamespace(image=pathlib.Path('Image'), release='9.8.7', key='k')\n"
    )
    for other in ("kernel/bench.py", "kernel/gate.py", "distro/deb.py", "distro/image.py", "distro/kdump.py"):
        (project.top / "tools" / other).write_text("main = None\n")
    shutil.copytree(there, project.ksrc / "tools" / "testing" / "kunit")
    (project.top.parent / "fault").write_text("")
    return project


def boot(project: Project, console: str, code: int, fault: str = "", **env: str) -> tuple[str, Path]:
    (project.top.parent / "console").write_text(stamped(console))
    (project.top.parent / "fault").write_text(fault)
    done = project.verb("kunit", code=code, **env)
    return done.stdout, Path(done.stdout.split("reports in ")[1].splitlines()[0])


def test_the_tool(machine: Project) -> None:
    said, where = boot(
        machine, BOOT + GOOD + OFF, 0, ARGS="arm_smmu_v3_test.seed=7", FILTER="arm-smmu-v3-kdump*"
    )
    assert "kunit 9.8 (9.8.7): 3 passed, 0 failed, 1 skipped" in said and "\nPASS\n" in said
    assert {path.name for path in where.iterdir()} >= {
        "result.ktap",
        "junit.xml",
        "result.json",
        "console.log",
    }
    assert (where.parent / "latest").resolve() == where
    call = (machine.top.parent / "calls").read_text()
    assert "arm_smmu_v3_test.seed=7" in call and "kunit.filter_glob=arm-smmu-v3-kdump*" in call


@pytest.mark.parametrize(
    "console, code, cause",
    [
        (BOOT + GOOD.split("    ok 2 adopt")[0] + PANIC, 5, "NULL pointer"),
        (BOOT, 5, "Memory:"),
        (BOOT + OFF, 1, "Could not find any KTAP output"),
        (BOOT + GOOD, 5, "QEMU ended early; last said: ok 2"),
        (BOOT + GOOD.replace("    ok 2 adopt\n", FAILURE) + OFF, 1, "live == 2"),
    ],
)
def test_machines_that_end_badly(machine: Project, console: str, code: int, cause: str) -> None:
    said, where = boot(machine, console, code)
    assert cause in said
    assert ElementTree.parse(where / "junit.xml").findall("testcase/*")


def test_a_machine_that_hangs(machine: Project) -> None:
    (machine.top.parent / "console").write_text(stamped(BOOT))
    (machine.top.parent / "fault").write_text("exec sleep 60")
    code = (
        "from tools.kernel import kunit; from tools.queue.store import Store; from pathlib import Path;"
        "found = kunit.boot(Path('Image'), Path('.'), kunit.reader(Store('9.8')), limit=1.0);"
        "print(found.lost)"
    )
    assert "no end after 1 s" in machine.run(PYTHON, "-c", code).stdout


def test_qemu_that_does_not_start(machine: Project) -> None:
    (machine.top.parent / "console").write_text("")
    (machine.top.parent / "fault").write_text("echo 'could not open Image' >&2; exit 1")
    done = machine.verb("kunit", code=3)
    assert "could not open Image" in done.stderr


def test_a_flavour_that_is_not_there(machine: Project) -> None:
    assert "sanitize" in machine.verb("kunit", code=2, FLAVOUR="salty").stderr
