# SPDX-License-Identifier: GPL-2.0-only
"""Repositories for the tests of tools/lint, written object by object: fast, and with any content."""
from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
# From any directory: the package is found by PYTHONPATH alone, -P keeps modules of the directory out.
TOOL = [sys.executable, "-P", "-m", "tools.lint"]
FILE, EXEC, LINK, MODULE = 0o100644, 0o100755, 0o120000, 0o160000

File = tuple[int, bytes]            # mode, content (a hash in hex for a submodule)
Tree = dict[str, File]
Edit = Callable[[Tree], None]

ALICE = "Alice Adler <alice@up.example>"
MIKE = "Mike Maintainer <mike@up.example>"
BOB = "Bob Backporter <bob@distro.example>"


def text(value: str | bytes) -> bytes:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


class Repo:
    """A bare-bones writer of git repositories."""

    def __init__(self, path: Path):
        self.path = path
        self.dir = path / ".git"
        for d in ("objects", "refs/heads", "refs/tags"):
            (self.dir / d).mkdir(parents=True, exist_ok=True)
        (self.dir / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = false\n")
        self.head("master")
        self.clock = 1_700_000_000
        self.trees: dict[str, Tree] = {}

    def head(self, branch: str) -> None:
        (self.dir / "HEAD").write_text(f"ref: refs/heads/{branch}\n")

    def write(self, kind: str, data: bytes) -> str:
        raw = b"%s %d\0" % (kind.encode(), len(data)) + data
        oid = hashlib.sha1(raw).hexdigest()
        path = self.dir / "objects" / oid[:2] / oid[2:]
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(zlib.compress(raw, 1))
        return oid

    def tree(self, files: Tree) -> str:
        here: dict[bytes, tuple[int, str]] = {}
        below: dict[str, Tree] = {}
        for path, (mode, data) in files.items():
            first, slash, rest = path.partition("/")
            if slash:
                below.setdefault(first, {})[rest] = (mode, data)
            else:
                here[text(first)] = (mode, data.decode() if mode == MODULE else self.write("blob", data))
        for name, part in below.items():
            here[text(name)] = (0o40000, self.tree(part))
        rows = sorted(here.items(), key=lambda kv: kv[0] + (b"/" if kv[1][0] == 0o40000 else b""))
        return self.write("tree", b"".join(b"%o %s\0" % (m, n) + bytes.fromhex(o) for n, (m, o) in rows))

    def commit(self, files: Tree, message: str | bytes, parents: list[str], author: str | bytes = ALICE,
               committer: str = MIKE, encoding: str = "", step: int = 60) -> str:
        self.clock += step
        head = b"tree " + self.tree(files).encode() + b"\n" + b"".join(b"parent %s\n" % p.encode()
                                                                       for p in parents)
        head += b"author %s %d +0000\n" % (text(author), self.clock - 3600)
        head += b"committer %s %d +0000\n" % (text(committer), self.clock)
        head += b"encoding %s\n" % encoding.encode() if encoding else b""
        oid = self.write("commit", head + b"\n" + text(message))
        self.trees[oid] = dict(files)
        return oid

    def ref(self, name: str, oid: str) -> None:
        path = self.dir / "refs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(oid + "\n")

    def git(self, *args: str, data: bytes = b"") -> bytes:
        # on a fresh machine git knows nobody
        who = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
        return subprocess.run(["git", "-C", str(self.path), *who, *args], input=data, check=True,
                              capture_output=True).stdout


def put(path: str, data: str | bytes, mode: int = FILE) -> Edit:
    def edit(tree: Tree) -> None:
        tree[path] = (mode, text(data))
    return edit


def sub(path: str, old: str, new: str, nth: int = 0, times: int = 1) -> Edit:
    """Replace the nth occurrence; it must be there."""
    def edit(tree: Tree) -> None:
        mode, data = tree[path]
        body, a, b = data, text(old), text(new)
        at = -1
        for _ in range(nth + 1):
            at = body.index(a, at + 1)
        tree[path] = (mode, body[:at] + b + body[at + len(a):])
    return edit


def within(path: str, head: str, old: str, new: str) -> Edit:
    """Replace the first occurrence below a heading."""
    def edit(tree: Tree) -> None:
        mode, data = tree[path]
        start = data.index(text(head))
        at = data.index(text(old), start)
        tree[path] = (mode, data[:at] + text(new) + data[at + len(text(old)):])
    return edit


def drop(path: str) -> Edit:
    def edit(tree: Tree) -> None:
        del tree[path]
    return edit


def both(*edits: Edit) -> Edit:
    def edit(tree: Tree) -> None:
        for e in edits:
            e(tree)
    return edit


@dataclass
class Result:
    code: int
    out: str
    err: str
    data: dict[str, Any] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, str, str]]:
        return [(r["patch_id"], r["subject"], r["sob"]) for r in self.data["rows"]]

    def statuses(self) -> list[str]:
        return [r["patch_id"] for r in self.data["rows"]]

    def kinds(self, level: str = "") -> list[str]:
        return sorted({f["kind"] for f in self.data["findings"] if not level or f["level"] == level})


def run(*args: str, cwd: Path | None = None, stdin: bytes = b"", env: dict[str, str] | None = None,
        form: str = "json") -> Result:
    """The tool as its user runs it."""
    full = {k: v for k, v in os.environ.items() if k not in ("LINUX_GIT", "COLUMNS", "NO_COLOR")}
    full.update({"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "PYTHONPATH": str(TOP)})
    full.update(env or {})
    argv = [*TOOL, *args]
    if form and args[0] in ("compare", "fixes"):
        argv += ["--format", form]
    p = subprocess.run(argv, cwd=cwd, input=stdin, capture_output=True, env=full, timeout=300)
    r = Result(p.returncode, p.stdout.decode("utf-8", "replace"), p.stderr.decode("utf-8", "replace"))
    if form == "json" and r.out.startswith("{"):
        r.data = json.loads(r.out)
    return r


def message(subject: str, body: str = "", signed: tuple[str, ...] = (ALICE, MIKE)) -> str:
    why = body or "The hardware may still be busy when this runs, see section 4.2."
    return f"{subject}\n\n{why}\n\n" + "".join(f"Signed-off-by: {s}\n" for s in signed)


def fake_git(where: Path, script: str) -> dict[str, str]:
    """A `git` in front of the real one; `script` is shell that may fall through to it."""
    real = subprocess.run(["sh", "-c", "command -v git"], capture_output=True, text=True,
                          check=True).stdout.strip()
    where.mkdir(parents=True, exist_ok=True)
    tool = where / "git"
    tool.write_text(f"#!/bin/sh\nREAL={real}\n{script}\nexec $REAL \"$@\"\n")
    tool.chmod(0o755)
    return {"PATH": f"{where}:{os.environ['PATH']}"}
