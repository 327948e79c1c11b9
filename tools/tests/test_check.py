# SPDX-License-Identifier: GPL-2.0-only
"""make check and .ci/run: what they count, with stand-ins for the unit tests and the crash test."""

from __future__ import annotations

import shutil

import pytest
from .conftest import PYTHON, TOP, Project

GOOD = "<testsuite><testcase name='a'/><testcase name='b'/></testsuite>"
BAD = "<testsuite><testcase name='a'/><testcase name='b'><failure/></testcase></testsuite>"
CRASH = """
import pathlib, sys
if {junit!r}:
    pathlib.Path("junit.xml").write_text({junit!r})
    print("reports in", pathlib.Path.cwd())
print({says!r}, file=sys.stderr)
sys.exit({code})
"""
ONE = "<testsuite><testcase name='k'/></testsuite>"
HOST = "import pytest\ndef test_one(): pass\n{more}\n@pytest.mark.skip\ndef test_two(): pass\n"


def set_up(project: Project, code: int, junit: str, says: str = "", more: str = "") -> None:
    shutil.rmtree(project.top / "tools" / "crash", ignore_errors=True)
    (project.top / "tools" / "crash").mkdir()
    (project.top / "tools" / "crash" / "__main__.py").write_text(CRASH.format(code=code, junit=junit, says=says))
    (project.top / "tools" / "kunit.py").write_text(CRASH.format(code=0, junit=ONE, says=""))
    (project.top / "tools" / "tests").mkdir()
    (project.top / "tools" / "tests" / "test_host.py").write_text(HOST.format(more=more))


@pytest.mark.parametrize("code, junit, says, more, ends, last, cause", [
    (0, GOOD, "", "", 0, "4 passed, 0 failed, 1 skipped", ""),
    (1, BAD, "", "", 1, "3 passed, 1 failed, 1 skipped", ""),
    (0, GOOD, "", "def test_bad(): assert 0", 1, "4 passed, 1 failed, 1 skipped", ""),
    (0, GOOD, "", "syntax error", 1, "3 passed, 1 failed", ""),
    (3, "", "error: the archive cannot be reached", "", 3, "2 passed, 0 failed, 1 skipped", "ENVIRONMENT: the archive"),
    (4, GOOD, "INVALID: too few translations", "", 4, "2 passed, 0 failed, 1 skipped", "INVALID: too few"),
    (5, BAD, "LOST: no sign of life", "", 5, "2 passed, 0 failed, 1 skipped", "LOST: no sign"),
    (0, "", "", "", 1, "2 passed, 1 failed, 1 skipped", ""),      # no report: not to be believed
    (0, BAD, "", "", 1, "3 passed, 2 failed, 1 skipped", ""),     # nor one that says something else
    (1, GOOD, "", "", 1, "4 passed, 1 failed, 1 skipped", ""),
    (77, "", "", "", 1, "2 passed, 1 failed, 1 skipped", ""),
])
def test_counts(project: Project, code: int, junit: str, says: str, more: str, ends: int, last: str, cause: str) -> None:
    set_up(project, code, junit, says, more)
    done = project.tool("check", code=ends)
    assert done.stdout.splitlines()[-1] == last
    assert cause in done.stdout


@pytest.mark.parametrize("code, last", [(0, "4 passed, 0 failed, 1 skipped"), (3, "2 passed, 0 failed, 1 skipped")])
def test_ci_ends_with_the_counts(project: Project, code: int, last: str) -> None:
    set_up(project, code, GOOD)
    shutil.copytree(TOP / ".ci", project.top / ".ci")
    done = project.run("bash", "-c", "exec bash .ci/run 2>&1", code=None, PYTHON=PYTHON)
    assert done.stdout.splitlines()[-1] == last
    assert (done.returncode == 0) == (code == 0)


@pytest.mark.parametrize("code, junit, ends, last", [
    (1, BAD, 1, "4 passed, 1 failed, 1 skipped"),
    (3, "", 3, "3 passed, 0 failed, 1 skipped"),
    (5, "", 5, "3 passed, 0 failed, 1 skipped"),
])
def test_unit_tests_count(project: Project, code: int, junit: str, ends: int, last: str) -> None:
    set_up(project, 0, GOOD)
    (project.top / "tools" / "kunit.py").write_text(CRASH.format(code=code, junit=junit, says="error: no such base"))
    done = project.tool("check", code=ends)
    assert done.stdout.splitlines()[-1] == last
