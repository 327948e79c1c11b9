# SPDX-License-Identifier: GPL-2.0-only
"""How time and memory grow with history: synthetic repositories, made by `git fast-import`.

Upstream is a line of N commits of which a quarter carry Fixes: tags; its last commits change real
files, and a branch picks 1000 of them onto a tree with lines of its own in every file.
"""
from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

assert __package__
TOOL = [sys.executable, "-m", __package__]
ABOVE = Path(__file__).resolve().parents[1 + __package__.count(".")]    # where the package can be named from
SIZES = (10_000, 100_000, 1_000_000, 1_300_000)
PICKS = 1000
FILES, LINES = 200, 1500
WHO = "A Developer <dev@up.example>"
SIGNED = f"Signed-off-by: {WHO}\n"
PICKED = "Signed-off-by: Bob <bob@distro.example>\n"
BODY = ("The queue is drained before the device is told, so a request that arrives in between is lost\n"
        "and its owner waits for ever.  Take the lock first, as the other callers do, and say why.\n\n"
        "Seen on a board with %d queues after some hours of traffic.\n\n")
# what the tool promises, in seconds and MiB
LIMITS = {"lint 1000": 60, "fixes cold": 120, "fixes warm": 5, "lint MiB": 1024, "fixes MiB": 1024}


def feed(repo: Path, commits: Iterable[str]) -> None:
    """Write commits to a repository as they come."""
    with subprocess.Popen(["git", "-C", str(repo), "fast-import", "--quiet", "--force", "--depth=5"],
                          stdin=subprocess.PIPE) as p:
        assert p.stdin
        for text in commits:
            p.stdin.write(text.encode("ascii"))
    if p.returncode:
        raise SystemExit("error: git fast-import failed; next: look at the free disk space")


def commit(branch: str, when: int, text: str, files: dict[str, str], start: str = "") -> str:
    """One commit for fast-import."""
    return (f"commit refs/heads/{branch}\n{people(when)}data {len(text)}\n{text}\n"
            + (f"from {start}\n" if start else "")
            + "".join(f"M 100644 inline {path}\ndata {len(data)}\n{data}\n" for path, data in files.items()))


def people(when: int) -> str:
    return f"author {WHO} {when} +0000\ncommitter {WHO} {when} +0000\n"


def source(n: int) -> list[str]:
    """The lines of one file."""
    rng = random.Random(n)
    lines = [f"/* file {n} */\n"]
    while len(lines) < LINES:
        k = len(lines)
        lines += [f"static int f{n}_{k}(struct dev *d)\n", "{\n", "\tint ret;\n", "\n",
                  f"\tret = step_{rng.randrange(99)}(d);\n", "\tif (ret)\n", "\t\treturn ret;\n", "\n",
                  f"\td->count += {rng.randrange(9)};\n", "\treturn 0;\n", "}\n", "\n"]
    return lines


def git(repo: Path, *args: str, data: str = "") -> str:
    return subprocess.run(["git", "-C", str(repo), *args], check=True, input=data, text=True,
                          stdout=subprocess.PIPE).stdout.strip()


class Change(NamedTuple):
    path: str
    line: int
    new: str
    text: str


def upstream(up: Path, size: int, changes: list[Change]) -> list[tuple[str, str]]:
    """Write upstream's history: (name, subject) of the commits that change nothing, then the changes."""
    start = 1_000_000_000
    files = {path_of(n): source(n) for n in range(FILES)}
    feed(up, [commit("master", start, f"start\n\n{SIGNED}", {p: "".join(x) for p, x in files.items()})])
    root, tree = git(up, "rev-parse", "master", "master^{tree}").split()
    names: list[tuple[str, str]] = []

    def history() -> Iterator[str]:
        rng = random.Random(size)
        parent, when = root, start
        for n in range(size - len(changes) - 1):
            when += 60
            subject = f"area{n % 97}: Handle case {n} of the drain"
            text = f"{subject}\n\n" + BODY % (n % 7)
            if names and n % 4 == 0:
                target, title = names[-1 - min(int(rng.expovariate(1 / 2000)), len(names) - 1)]
                text += f'Fixes: {target[:12]} ("{title}")\n'
            text += SIGNED
            yield commit("master", when, text, {}, parent if not n else "")
            # the tree stays, so the name of the commit is known here and can be fixed later
            raw = f"tree {tree}\nparent {parent}\n{people(when)}\n{text}"
            parent = hashlib.sha1(f"commit {len(raw)}\0{raw}".encode()).hexdigest()
            names.append((parent, subject))
        for n, c in enumerate(changes):
            files[c.path][c.line] = c.new
            yield commit("master", when + 60 * n, c.text, {c.path: "".join(files[c.path])})
    feed(up, history())
    tags = "".join(f"create refs/tags/v{n + 1}.0 {oid}\n" for n, (oid, _) in enumerate(names[::15000]))
    git(up, "update-ref", "--stdin", data=tags)
    last = git(up, "rev-parse", f"master~{len(changes)}")
    assert last == names[-1][0], "the names of the commits were computed wrongly"
    return names


def path_of(n: int) -> str:
    return f"drivers/d{n % 20}/f{n}.c"


def build(where: Path, size: int) -> None:
    """Upstream and the distribution's repository; made once."""
    if (where / "bases").exists():
        return
    shutil.rmtree(where, ignore_errors=True)
    up, local = where / "up", where / "local"
    for r in (up, local):
        r.mkdir(parents=True)
        git(r, "init", "-q", "-b", "master")
    places = random.Random(size).sample([(n, k) for n in range(FILES) for k in range(40, LINES - 40)],
                                        min(2 * PICKS, size // 2))
    changes = [Change(path_of(file), line, f"\t/* upstream {n} */\n",
                      f"area: Change {n} of {path_of(file)}\n\n{BODY % 3}{SIGNED}")
               for n, (file, line) in enumerate(places)]
    names = upstream(up, size, changes)
    oids = git(up, "rev-list", "--reverse", f"-{len(changes)}", "master").split()
    parent = names[-1][0]
    (local / ".git/objects/info/alternates").write_text(f"{up}/.git/objects\n")
    # the branch: every file has lines of its own, then the picks
    own = ["/* downstream */\n", "\n"]
    mine = {path_of(n): own + source(n) for n in range(FILES)}
    start = 1_900_000_000
    old = names[-4000][0]           # where a branch began before what it carries: commits that have fixes

    def picks() -> Iterator[str]:
        yield commit("master", start, f"SAUCE: own lines\n\n{SIGNED}",
                     {p: "".join(x) for p, x in mine.items()},
                     parent)
        for n, (c, oid) in enumerate(zip(changes[:PICKS], oids)):
            mine[c.path][c.line + len(own)] = c.new
            yield commit("master", start + n, f"{c.text}(cherry picked from commit {oid})\n{PICKED}",
                         {c.path: "".join(mine[c.path])})
        for k, (oid, subject) in enumerate(names[-3000::10]):
            yield commit("carried", start + k,
                         f"{subject}\n\nWhy.\n\n(cherry picked from commit {oid})\n{SIGNED}",
                         {f"c{k}": "x\n"}, old if not k else "")
    feed(local, picks())
    (where / "bases").write_text(f"{parent} {old}")


def memory(pid: str) -> int:
    """KiB of a process and its children; pages of a mapped pack are the page cache's and do not count."""
    here = Path("/proc", pid)
    try:
        own = sum(int(line.split()[1]) for line in (here / "status").read_text().splitlines()
                  if line.startswith(("RssAnon:", "RssShmem:")))
        children = " ".join(f.read_text() for f in here.glob("task/*/children")).split()
    except OSError:
        return 0
    return own + sum(map(memory, children))


def measure(cache: Path, *args: str, want: int) -> tuple[float, float]:
    """Seconds and MiB of one run of the tool."""
    start = time.monotonic()
    peak = 0
    with tempfile.TemporaryFile() as out:
        p = subprocess.Popen([*TOOL, *args, "--format", "json"], stdout=out, cwd=ABOVE,
                             env={**os.environ, "XDG_CACHE_HOME": str(cache)})
        while p.poll() is None:
            peak = max(peak, memory(str(p.pid)))
            time.sleep(.03)
        took = time.monotonic() - start
        if p.returncode != want:
            out.seek(0)
            raise SystemExit(f"error: {' '.join(args)} ended with {p.returncode}, not {want}; next: run it "
                             f"by hand\n"
                             + out.read().decode()[-800:])
    return took, peak / 1024


def figures(where: Path) -> dict[str, float]:
    """Seconds, and MiB, of every kind of run."""
    up = where / "up"
    parent, old_base = (where / "bases").read_text().split()
    both = ("-C", str(where / "local"), "--reference", str(up))
    fixes = ("fixes", *both, f"{old_base}..carried")
    with tempfile.TemporaryDirectory() as tmp:
        cache = Path(tmp)
        cold, mem1 = measure(cache, *fixes, want=1)
        warm, mem2 = measure(cache, *fixes, want=1)
        old = git(up, "rev-parse", "master")
        feed(up, [commit("master", 2_000_000_000 + n, f'more {n}\n\nFixes: {parent[:12]} ("x")\n', {},
                         old if not n else "") for n in range(100)])
        more, _ = measure(cache, *fixes, want=1)
        git(up, "update-ref", "refs/heads/master", old)
        few, _ = measure(cache, "compare", *both, f"{parent}..master~{PICKS - 99}", want=0)
        many, mem3 = measure(cache, "compare", *both, f"{parent}..master", want=0)
    return {"fixes cold": cold, "fixes warm": warm, "fixes +100": more, "fixes MiB": max(mem1, mem2),
            "lint 100": few, "lint 1000": many, "lint MiB": mem3}


def main(argv: Sequence[str]) -> int:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("sizes", nargs="*", type=int, default=list(SIZES),
                    help=f"numbers of commits (default: {SIZES})")
    ap.add_argument("--keep", metavar="DIR", help="where the repositories are made and kept",
                    default=(os.environ.get("XDG_CACHE_HOME") or f"{Path.home()}/.cache")
                    + "/smmuv3-kdump/lint/speed")
    a = ap.parse_args(argv)
    bad: list[str] = []
    for size in a.sizes:
        where = Path(a.keep, str(size))
        build(where, size)
        got = figures(where)
        row = {"commits": size, **got, "cold us/commit": got["fixes cold"] / size * 1e6}
        if size == a.sizes[0]:
            print("  ".join(f"{name:>14}" for name in row))
        print("  ".join(f"{value:14.6g}" for value in row.values()), flush=True)
        bad += [f"{size} commits: {name} {got[name]:.1f}, the limit is {limit}"
                for name, limit in LIMITS.items() if got[name] > limit]
    print("\n".join(bad) or "all within the limits: " + ", ".join(f"{k} {v}" for k, v in LIMITS.items()))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
