# SPDX-License-Identifier: GPL-2.0-only
"""make check and .ci/run: what they count, with stand-ins for the unit tests and the crash test."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .. import check
from ..queue import bases
from .conftest import PYTHON, TOP, Project

GOOD, BAD, NOTHING = "PASS PASS", "PASS FAIL", ""
# In place of a verb: a report with these statuses, or an error.
VERB = """
import dataclasses
from ..common import Err
from ..results import Report, Result, Status, run_directory
def report():
    if {error!r}:
        raise Err({error!r}, "", {code})
    words = enumerate({statuses!r}.split())
    found = [Result("s", f"case {{number}}", Status(word), "too few") for number, word in words]
    return Report("stub", "9.8", found), run_directory("stub", "9.8")
"""
KUNIT = "def kunit(base):\n    return report()\ndef main():\n    return 0\n"
TEST = """
@dataclasses.dataclass
class Crash:
    report: Report
    directory: object
def crash_test(conf, kernels, **changed):
    return Crash(*report())
def damaged(seed):
    return {"chaos": seed}
main = scenarios = chaos = soak = memory = None
"""
HOST = "import pytest\ndef test_one(): pass\n{more}\n@pytest.mark.skip\ndef test_two(): pass\n"


def set_up(
    project: Project,
    statuses: str,
    error: str = "",
    code: int = 3,
    more: str = "",
    unit: str = "PASS",
    unit_error: str = "",
) -> None:
    tools = project.top / "tools"
    (project.top / "README.md").write_text("")
    (tools / "crash" / "test.py").write_text(VERB.format(error=error, code=code, statuses=statuses) + TEST)
    stub = VERB.format(error=unit_error, code=code, statuses=unit) + KUNIT
    (tools / "kernel" / "kunit.py").write_text(stub)
    for other in ("bench", "gate"):  # they use what the stub has not
        (tools / "kernel" / f"{other}.py").write_text("main = None\n")
    (tools / "tests").mkdir()
    (tools / "tests" / "test_host.py").write_text(HOST.format(more=more))


@pytest.mark.parametrize(
    "statuses, error, code, more, ends, last, cause",
    [
        (GOOD, "", 0, "", 0, "11 passed, 0 failed, 1 skipped", ""),
        (BAD, "", 0, "", 1, "7 passed, 4 failed, 1 skipped", ""),
        (GOOD, "", 0, "def test_bad(): assert 0", 1, "11 passed, 1 failed, 1 skipped", ""),
        (GOOD, "", 0, "syntax error", 1, "10 passed, 1 failed", ""),
        (
            NOTHING,
            "the archive cannot be reached",
            3,
            "",
            3,
            "3 passed, 0 failed, 1 skipped",
            "ENVIRONMENT: crash-test: the archive",
        ),
        (
            NOTHING,
            "a kernel does not build",
            1,
            "",
            1,
            "3 passed, 4 failed, 1 skipped",
            "a kernel does not build",
        ),
        (
            "PASS INVALID",
            "",
            0,
            "",
            4,
            "3 passed, 0 failed, 1 skipped",
            "INVALID: crash-test: case 1: too few",
        ),
        ("FAIL LOST", "", 0, "", 5, "3 passed, 0 failed, 1 skipped", "LOST: crash-test: case 1: too few"),
        (NOTHING, "", 0, "", 4, "3 passed, 0 failed, 1 skipped", "INVALID: crash-test: nothing was judged"),
        ("SKIPPED", "", 0, "", 4, "3 passed, 0 failed, 1 skipped", "INVALID"),
    ],
)
def test_counts(
    project: Project, statuses: str, error: str, code: int, more: str, ends: int, last: str, cause: str
) -> None:
    set_up(project, statuses, error, code, more)
    done = project.verb("check", code=ends)
    assert done.stdout.splitlines()[-1] == last
    assert cause in done.stdout + done.stderr


@pytest.mark.parametrize(
    "error, last", [("", "11 passed, 0 failed, 1 skipped"), ("no network", "3 passed, 0 failed, 1 skipped")]
)
def test_ci_ends_with_the_counts(project: Project, error: str, last: str) -> None:
    set_up(project, GOOD, error)
    shutil.copytree(TOP / ".ci", project.top / ".ci")
    done = project.run("bash", "-c", "exec bash .ci/run 2>&1", code=None, PYTHON=PYTHON)
    assert done.stdout.splitlines()[-1] == last
    assert (done.returncode == 0) == (not error)


@pytest.mark.parametrize(
    "unit, error, code, ends, last",
    [
        (BAD, "", 0, 1, "11 passed, 1 failed, 1 skipped"),
        ("", "no such base", 3, 3, "10 passed, 0 failed, 1 skipped"),
        ("PASS LOST", "", 0, 5, "10 passed, 0 failed, 1 skipped"),
    ],
)
def test_unit_tests_count(project: Project, unit: str, error: str, code: int, ends: int, last: str) -> None:
    set_up(project, GOOD, code=code, unit=unit, unit_error=error)
    assert project.verb("check", code=ends).stdout.splitlines()[-1] == last


def test_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every verb once for each base; one that fails or cannot run is told with its command."""
    ran = []

    def run(words: list[str], cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        chosen = " ".join(env.get(name, "") for name in ("WITHOUT", "SUITE", "KIT"))
        ran.append((words[-1], env.get("BASE", ""), chosen))
        return subprocess.CompletedProcess(words, {"bench": 1, "gate": 3}.get(words[-1], 0))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("BASE", raising=False)
    monkeypatch.setattr(subprocess, "run", run)
    assert check.everything() == 1
    assert len(ran) == len(set(ran))
    carried = {base.name for base in bases.read().values() if base.status != "best-effort"}
    assert {base for verb, base, _ in ran if verb == "gate"} == set(bases.read()) > carried
    assert {base for verb, base, _ in ran if verb == "chaos"} == carried
    assert len([base for _, base, _ in ran if base == "6.12"]) == len(check.EVERYTHING)
    said = capsys.readouterr().out.splitlines()
    bad = len(bases.read()) + len(carried)
    assert said[-1] == f"{len(ran) - bad} passed, {bad} failed"
    assert any(re.match(r"ENVIRONMENT +0.0 min +make gate BASE=6.12", line) for line in said)
    monkeypatch.setenv("BASE", "7.3")
    ran.clear()
    check.everything()
    assert {base for _, base, _ in ran[1:]} == {"7.3"}


def test_every_verb_that_judges_is_in_it() -> None:
    """But for those that ask for something, and those of other machines."""
    names = {verb for verb, _ in check.EVERYTHING} | {"check"}
    makefile = (TOP / "Makefile").read_text().partition("\nVERBS :=")[0]
    verbs = set(re.findall(r"(?m)^([a-z-]+):.*## ", makefile))
    assert verbs - names == {"check-all", "check-fresh", "status", "tree", "refresh",
                             "rebase", "lore", "stable", "branch", "deb", "distro-image",
                             "repro-kit", "lava-job", "fixes", "bench-lint", "menuconfig",
                             "defconfig"}
