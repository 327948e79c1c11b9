# SPDX-License-Identifier: GPL-2.0-only
"""A small project of its own for each test: our tools, a fake kernel tree, a private cache.

The tools are run as the Makefile runs them, as commands.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ..crash.scenario import Scenario
from ..queue import config

TOP = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
A_C = "drivers/iommu/a.c"
LINES = [f"line {number} of a\n" for number in range(1, 61)]

# A job in the background ignores SIGINT, and so would what the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The tests' own git: nobody's configuration, a fixed person.
GIT = {
    "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C",
    "GIT_AUTHOR_NAME": "A Üser", "GIT_AUTHOR_EMAIL": "user@example.com",
    "GIT_AUTHOR_DATE": "2001-02-03T04:05:06+0100",
    "GIT_COMMITTER_NAME": "C", "GIT_COMMITTER_EMAIL": "c@example.com",
    "GIT_COMMITTER_DATE": "2002-02-03T04:05:06+0100",
}

COVER = """\
Subject: [PATCH 0/2] a: Make it so

Problem
=======

None.

 - an indented item
"""


def clean_env() -> dict[str, str]:
    return {name: value for name, value in os.environ.items()
            if not name.startswith("GIT_") and name not in ("BASE", "CONFIG", "KSRC", "V", "FORCE", "UPDATE",
                                                            "MAKEFLAGS", "MAKELEVEL", "MFLAGS")}


def git(where: Path, *args: str, data: str | None = None, check: bool = True) -> str:
    done = subprocess.run(["git", "-C", str(where), *args], env={**clean_env(), **GIT}, text=True,
                          capture_output=True, input=data)
    if check and done.returncode:
        raise AssertionError(f"git {args}: {done.stderr}")
    return done.stdout.strip()


def show(what: str) -> list[str]:
    """The command that prints the value of an expression of our modules, as main() runs a verb."""
    return [PYTHON, "-c", "import pathlib; from tools import common; from tools.kernel import build; "
            f"from tools.queue import archive, bases, config; common.main(lambda: print({what}))"]


def errors(done: subprocess.CompletedProcess[str]) -> int:
    return sum(line.startswith("error: ") for line in done.stderr.splitlines())


def snapshot(path: Path) -> dict[str, tuple[int, int, str]]:
    """Every file: mode, modification time, content."""
    found = {}
    for name in sorted(path.rglob("*")):
        info = name.lstat()
        content = hashlib.sha256(name.read_bytes()).hexdigest() if stat.S_ISREG(info.st_mode) else ""
        found[str(name.relative_to(path))] = (info.st_mode, info.st_mtime_ns, content)
    return found


def kernel_tree(where: Path, version: str = "9.8.7") -> Path:
    """A few files that look like a kernel. Like the archive's, it has a .gitignore of `*`."""
    major, minor, patch = version.split(".")
    files = {
        "Makefile": f"VERSION = {major}\nPATCHLEVEL = {minor}\nSUBLEVEL = {patch}\n",
        A_C: "".join(LINES),
        "drivers/iommu/b.c": "".join(LINES),
        ".gitignore": "*\n",
        ".gitattributes": "*.c diff=cpp\n* text=auto\n",
        "crlf.txt": "one\r\ntwo\r\n",
    }
    for name, text in files.items():
        path = where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    (where / "script").write_text("#!/bin/sh\n")
    (where / "script").chmod(0o755)
    (where / "link").symlink_to("Makefile")
    return where


class Project:
    def __init__(self, root: Path) -> None:
        self.top = root / "project"
        self.cache = root / "cache"
        self.bin = root / "bin"
        self.bin.mkdir(parents=True)
        shutil.copytree(TOP / "tools", self.top / "tools",
                        ignore=shutil.ignore_patterns("__pycache__", "tests"))
        for name in ("Makefile", "Kconfig"):
            shutil.copy(TOP / name, self.top / name)
        shutil.copytree(TOP / "configs", self.top / "configs")
        (self.top / "patches" / "9.8").mkdir(parents=True)
        (self.top / "patches" / "bases").write_text("9.8 linux-source-9.8 own,later 9.8 default\n")
        self.patches = self.top / "patches" / "9.8"
        self.ksrc = kernel_tree(root / "ksrc")
        self.env = {**clean_env(), "XDG_CACHE_HOME": str(self.cache), "BASE": "9.8", "KSRC": str(self.ksrc),
                    "PATH": f"{self.bin}:{os.environ['PATH']}", "HOME": str(root),
                    "PYTHONDONTWRITEBYTECODE": "1"}     # tests compare what a verb has written

    def start(self, *command: str, **env: str) -> subprocess.Popen[str]:
        """`$VERB` is its process, for a fake that kills it. $PPID would not do: of a parent that is
        dead already the parent may be anyone, CI's own process among them."""
        merged = {name: value for name, value in {**self.env, **env}.items() if value}
        words = ["sh", "-c", 'VERB=$$ exec "$@"', "sh", *command]
        return subprocess.Popen(words, cwd=self.top, env=merged, text=True, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *command: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*command, **env)
        out, err = process.communicate()
        if code is not None:
            assert process.returncode == code, f"exit code {process.returncode}, not {code}:\n{out}{err}"
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def verb(self, name: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        """As `make` runs it."""
        return self.run(PYTHON, "-m", "tools", name, code=code, **env)

    def call(self, what: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        """Print the value of an expression of our modules, in place of a verb."""
        return self.run(*show(what), code=code, **env)

    def build(self, count: int | None = None, code: int | None = 0,
              **env: str) -> subprocess.CompletedProcess[str]:
        """Print the path of the test kernel with so many patches of the queue."""
        return self.call(f"build.build('9.8', {count}).image", code, **env)

    def tree(self, code: int | None = 0, **env: str) -> Path:
        return Path(self.verb("tree", code=code, **env).stdout.strip())

    def refresh(self, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        return self.verb("refresh", code=code, **env)

    def fake(self, name: str, script: str) -> Path:
        """A command that comes before the real one on PATH; `exec $REAL "$@"` goes on to that."""
        path = self.bin / name
        real = shutil.which(name, path=os.environ["PATH"]) or "/bin/false"
        path.write_text(f"#!/bin/sh\nREAL={real}\n{script}\n")
        path.chmod(0o755)
        return path

    def edit(self, tree: Path, line: int, text: str, subject: str, name: str = A_C) -> None:
        """One commit that changes one line."""
        lines = (tree / name).read_text().splitlines(keepends=True)
        lines[line - 1] = f"{text}\n"
        (tree / name).write_text("".join(lines))
        git(tree, "commit", "-qam", f"{subject}\n\nWhy: naïve.\n")

    def queue(self, *edits: tuple[int, str, str]) -> None:
        """Write a patch queue made by plain git format-patch in a scratch repository."""
        scratch = self.top.parent / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        kernel_tree(scratch)
        git(scratch, "init", "-q")
        git(scratch, "add", "-f", ".")
        git(scratch, "commit", "-qm", "base")
        for edit in edits:
            self.edit(scratch, *edit)
        for old in self.patches.glob("*"):
            old.unlink()
        git(scratch, "format-patch", "-q", "-o", str(self.patches), f"HEAD~{len(edits)}")
        names = sorted(patch.name for patch in self.patches.glob("*.patch"))
        (self.patches / "series").write_text("".join(f"{name}\n" for name in names))


def identify(project: Project, mail: str = "person@kernel.org", more: str = "") -> None:
    (project.cache.parent / ".gitconfig").write_text(f"[user]\nname = A Person\nemail = {mail}\n{more}")


def as_prereq(project: Project, number: int) -> Path:
    """Make a patch of the queue one of prereq/."""
    old = next(project.patches.glob(f"{number:04d}-*"))
    new = project.patches / "prereq" / old.name
    new.parent.mkdir(exist_ok=True)
    old.rename(new)
    series = project.patches / "series"
    series.write_text(series.read_text().replace(old.name, f"prereq/{old.name}"))
    return new


def latest(project: Project, verb: str) -> Path:
    return next((project.cache / "smmuv3-kdump" / "runs" / verb).glob("*/latest"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def a_scenario(**changed: str | int | bool) -> Scenario:
    """The default crash, but for these values."""
    return Scenario(config.load("default_defconfig").starting("CRASH_") | changed)
