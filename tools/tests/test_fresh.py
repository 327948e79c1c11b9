# SPDX-License-Identifier: GPL-2.0-only
"""make check-fresh with real namespaces; a stand-in for mmdebstrap makes roots of little but a shell."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ..results import Result, Status
from .conftest import TOP, Project, errors, git

CODENAME = platform.freedesktop_os_release()["VERSION_CODENAME"]
TOOLS = ("bash", "mkdir", "cat", "sleep")

# Called as: mmdebstrap [options] suite root sources
MMDEBSTRAP = """
while [ $# -gt 3 ]; do shift; done
mkdir -p "$2/dev" "$2/etc" "$2/proc" "$2/bin"
for tool in TOOLS; do
    cp "$(command -v $tool)" "$2/bin/"
    for library in $(ldd "$(command -v $tool)" | grep -o '/[^ ]*'); do
        mkdir -p "$2/${library%/*}"
        cp "$library" "$2/$library"
    done
done
cp "$3" "$2/sources"
"""
REPORT = """
mkdir -p $HOME/.cache/smmuv3-kdump/runs/check/all/latest
cat >$HOME/.cache/smmuv3-kdump/runs/check/all/latest/result.json <<'END'
{report}
END
"""


pytestmark = pytest.mark.skipif(os.geteuid() != 0 or subprocess.run(
    ["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True).returncode != 0,
    reason="this user may not make namespaces")


@pytest.fixture
def fresh(project: Project) -> Project:
    project.fake("mmdebstrap", MMDEBSTRAP.replace("TOOLS", " ".join(TOOLS)))
    shutil.copy(TOP / ".gitignore", project.top)
    git(project.top, "init", "-q")
    return project


def check(project: Project, inner: str, code: int, verdict: str = "", detail: str = "", suite: str = "trixie",
          **env: str) -> subprocess.CompletedProcess[str]:
    """Run the verb with `inner` as .ci/run, which reports a verdict if one is given."""
    results = [Result("pytest", "a", Status.PASS), Result("x", "b", Status(verdict or "PASS"), detail)]
    report = {"verdict": verdict, "why": detail, "results": list(map(dataclasses.asdict, results))}
    script = (REPORT.format(report=json.dumps(report)) if verdict else "") + inner
    (project.top / ".ci").mkdir(exist_ok=True)
    (project.top / ".ci" / "run").write_text(script)
    git(project.top, "add", "-A", ".")
    git(project.top, "commit", "-q", "--allow-empty", "-m", "x")
    done = project.verb("check-fresh", code=code, SUITE=suite, **env)
    assert not list(project.cache.glob("smmuv3-kdump/fresh/*/root")), "the root is still there"
    assert str(project.cache) not in Path("/proc/self/mounts").read_text()
    return done


def row(done: subprocess.CompletedProcess[str], suite: str = "trixie") -> list[str]:
    return next(line.split(maxsplit=4) for line in done.stdout.splitlines() if line.startswith(f"{suite} "))


@pytest.mark.parametrize("inner, verdict, detail, code, shown, cause", [
    ("exit 0", "PASS", "", 0, "PASS", "2 passed, 0 failed"),
    ("exit 2", "FAIL", "test_x: bad", 1, "FAIL", "1 passed, 1 failed; test_x: bad"),
    ("exit 2", "LOST", "kunit: no sign", 5, "LOST", "1 passed, 0 failed; kunit: no"),
    ("exit 2", "ENVIRONMENT", "the archive: Err: Could not connect to x", 3, "ENVIRONMENT",
     "1 passed, 0 failed; the archive"),
    # What a new root lacks is what this verb is there to find.
    ("exit 2", "ENVIRONMENT", "sparse is not installed", 1, "FAIL",
     "1 passed, 0 failed; sparse is not installed"),
    ("exit 2", "PASS", "", 1, "FAIL", "2 passed, 0 failed; ended with 2"),
    # Without a report:
    ("exit 0", "", "", 1, "FAIL", "ended with 0: no output"),
    ("echo 5 passed, 0 failed", "", "", 1, "FAIL", "ended with 0: 5 passed, 0 failed"),
    ("echo 'E: Unable to locate package x'; echo 'make: *** [Makefile:9: check] Error 3'; exit 2", "", "",
     1, "FAIL", "ended with 3: Unable to locate package x"),
    ("echo 'E: Could not connect to y'; exit 3", "", "", 3, "ENVIRONMENT", "ended with 3: Could not connect"),
])
def test_verdicts(fresh: Project, inner: str, verdict: str, detail: str, code: int, shown: str,
                  cause: str) -> None:
    done = check(fresh, inner, code, verdict, detail)
    assert row(done)[1] == shown
    assert row(done)[4].startswith(cause)
    kept = fresh.cache / "smmuv3-kdump" / "runs" / "check-fresh" / "trixie" / "latest" / "runs" / "check"
    assert kept.is_dir() == bool(verdict and shown != "PASS")


def test_what_is_not_installed_there_fails(fresh: Project) -> None:
    assert shutil.which("git")
    done = check(fresh, "set -e\ngit --version\necho 1 passed, 0 failed", 1, "PASS")
    assert row(done)[1] == "FAIL"
    assert "git: command not found" in done.stdout


def test_both_distributions(fresh: Project) -> None:
    done = check(fresh, "echo 1 passed, 0 failed", 0, "PASS", suite="")
    assert row(done, "bookworm")[1] == row(done, "trixie")[1] == "PASS"


def test_one_failing_does_not_hide_the_other(fresh: Project) -> None:
    fresh.fake("mmdebstrap", 'case "$*" in *" bookworm "*) echo "E: Could not resolve x" >&2; exit 1;; esac'
               + MMDEBSTRAP.replace("TOOLS", " ".join(TOOLS)))
    done = check(fresh, "echo 1 passed, 0 failed", 3, "PASS", suite="")
    assert (row(done, "bookworm")[1], row(done, "trixie")[1]) == ("ENVIRONMENT", "PASS")
    assert errors(done) == 1
    assert "next: check the network" in done.stderr


def test_a_suite_that_is_not_there(fresh: Project) -> None:
    fresh.fake("mmdebstrap", """echo "E: The repository 'x' does not have a Release file." >&2; exit 1""")
    done = check(fresh, "", 3, suite="nosuch")
    assert errors(done) == 1 and "the archive does not have it" in done.stderr


def test_what_is_in_the_root(fresh: Project) -> None:
    (fresh.top / "committed").write_text("x")
    git(fresh.top, "add", ".")
    git(fresh.top, "commit", "-qm", "x")
    (fresh.top / ".ci").mkdir()
    (fresh.top / ".ci" / "run").write_text("")
    debs = fresh.cache / "smmuv3-kdump" / "debs"
    for where in ("own", "sid", "own+sid"):
        (debs / where).mkdir(parents=True)
        (debs / where / "x_1_all.deb").write_text("x")
    inner = """
        echo CI=$CI HOME=$HOME SECRET=$SECRET PROCESSES=$(echo /proc/[0-9]*)
        echo DEBS=$(echo ~/.cache/smmuv3-kdump/debs/*/*)
        while read line; do echo SUITES $line; done < <(cat /sources)
        cat && echo NOTHING ON STDIN
        [ -f /checkout/committed ] && echo COMMITTED
        [ -c /dev/null ] && echo DEVICES
        mkdir /var/cache/apt/archives/kept ~/.cache/smmuv3-kdump/{ccache,debs,built}/kept -p
        echo 1 passed, 0 failed"""
    done = check(fresh, inner, 0, "PASS", SECRET="s", suite="sid")
    assert re.search(r"^CI=true HOME=/root SECRET= PROCESSES=/proc/1( /proc/\d\d?)?$", done.stdout,
                     re.MULTILINE)
    assert "DEBS=/root/.cache/smmuv3-kdump/debs/sid/x_1_all.deb\n" in done.stdout
    assert "SUITES Suites: sid" in done.stdout and "SUITES Suites: sid-" in done.stdout
    assert CODENAME not in "".join(line for line in done.stdout.splitlines() if "SUITES" in line)
    for word in ("NOTHING ON STDIN", "COMMITTED", "DEVICES"):
        assert f"\n{word}\n" in done.stdout
    there = fresh.cache / "smmuv3-kdump"
    kept = {str(path.relative_to(there)) for path in there.rglob("kept")}
    assert kept == {"ccache/kept", "fresh/sid/packages/kept", "fresh/sid/cache/debs/kept"}
    done = check(fresh, inner.replace("mkdir", ": "), 0, "PASS", suite=CODENAME)
    assert done.stdout.count("/x_1_all.deb") == 3


def test_uncommitted_changes_are_told(fresh: Project) -> None:
    inner = "[ -e /checkout/new ] || echo 1 passed, 0 failed"
    assert "note:" not in check(fresh, inner, 0, "PASS").stderr
    (fresh.top / "new").write_text("x")
    done = fresh.verb("check-fresh", SUITE="trixie")
    assert "note: uncommitted changes" in done.stderr and "new" in done.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped(fresh: Project, how: signal.Signals) -> None:
    (fresh.top / ".ci").mkdir()
    (fresh.top / ".ci" / "run").write_text("trap '' INT TERM\nmkdir /root/.cache/smmuv3-kdump/ccache/begun\n"
                                           f"sleep 47{os.getpid()}")
    git(fresh.top, "add", "-A", ".")
    git(fresh.top, "commit", "-qm", "x")
    process = fresh.start("python3", "-m", "tools", "check-fresh", SUITE="trixie")
    begun = fresh.cache / "smmuv3-kdump" / "ccache" / "begun"
    end = time.monotonic() + 60
    while not begun.exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(how)
    process.communicate(timeout=60)
    while [path for path in Path("/proc").glob("[0-9]*/cmdline") if left(path, f"sleep\x0047{os.getpid()}")]:
        assert time.monotonic() < end
        time.sleep(0.05)
    if how == signal.SIGINT:
        assert not list(fresh.cache.glob("smmuv3-kdump/fresh/*/root"))
    check(fresh, "echo 1 passed, 0 failed", 0, "PASS")      # also what a killed one left is gone now


def left(cmdline: Path, words: str) -> bool:
    try:
        return cmdline.read_text().startswith(words)
    except OSError:
        return False
