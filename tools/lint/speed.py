# SPDX-License-Identifier: GPL-2.0-only
"""How time and memory grow with history: synthetic repositories, made by `git fast-import`.

Upstream is a line of N commits of which a quarter carry Fixes: tags; its last commits change real
files, and a branch picks 1000 of them onto a tree with changes of its own in every file.
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
import threading
import time
from pathlib import Path
from typing import IO

assert __package__
TOOL = [sys.executable, "-m", __package__]
ABOVE = Path(__file__).resolve().parents[1 + __package__.count(".")]    # where the package can be named from
SIZES = (10_000, 100_000, 1_000_000, 1_300_000)
PICKS = 1000
FILES, LINES = 200, 1500
WHO = "A Developer <dev@up.example>"
BODY = ("The queue is drained before the device is told, so a request that arrives in between is lost\n"
        "and its owner waits for ever.  Take the lock first, as the other callers do, and say why.\n\n"
        "Seen on a board with %d queues after some hours of traffic.\n\n")
# what the tool promises, in seconds and MiB
LIMITS = {"lint 1000": 60, "fixes cold": 120, "fixes warm": 5, "memory": 1024}


class Import:
    """The input side of one `git fast-import`, which also knows the names of what it writes."""

    def __init__(self, repo: Path):
        self.process = subprocess.Popen(["git", "-C", str(repo), "fast-import", "--quiet", "--force", "--depth=5"], stdin=subprocess.PIPE)
        assert self.process.stdin
        self.out: IO[bytes] = self.process.stdin

    def commit(self, branch: str, when: int, text: str, files: dict[str, bytes], start: str = "") -> None:
        raw = text.encode()
        parts = [f"commit refs/heads/{branch}\nauthor {WHO} {when} +0000\ncommitter {WHO} {when} +0000\ndata {len(raw)}\n".encode(), raw, b"\n"]
        if start:
            parts.append(f"from {start}\n".encode())
        for path, data in files.items():
            parts += [f"M 100644 inline {path}\ndata {len(data)}\n".encode(), data, b"\n"]
        self.out.write(b"".join(parts))

    def close(self) -> None:
        self.out.close()
        if self.process.wait():
            raise SystemExit("error: git fast-import failed; next: look at the free disk space")


def source(n: int) -> list[str]:
    rng = random.Random(n)
    lines = [f"/* file {n} */\n"]
    while len(lines) < LINES:
        k = len(lines)
        lines += [f"static int f{n}_{k}(struct dev *d)\n", "{\n", "\tint ret;\n", "\n", f"\tret = step_{rng.randrange(99)}(d);\n",
                  "\tif (ret)\n", "\t\treturn ret;\n", "\n", f"\td->count += {rng.randrange(9)};\n", "\treturn 0;\n", "}\n", "\n"]
    return lines


def git(repo: Path, *args: str) -> str:
    return subprocess.run(["git", "-C", str(repo), *args], check=True, capture_output=True, text=True).stdout.strip()


def build(where: Path, size: int) -> Path:
    """Upstream and the distribution's repository; made once."""
    done = where / "done"
    if done.exists():
        return where
    shutil.rmtree(where, ignore_errors=True)
    up, local = where / "up", where / "local"
    for r in (up, local):
        r.mkdir(parents=True)
        git(r, "init", "-q", "-b", "master")
    rng = random.Random(size)
    files = {f"drivers/d{n % 20}/f{n}.c": source(n) for n in range(FILES)}
    when = 1_000_000_000
    first = Import(up)
    first.commit("master", when, f"start\n\nSigned-off-by: {WHO}\n", {p: "".join(x).encode() for p, x in files.items()})
    first.close()
    parent = git(up, "rev-parse", "master")
    tree = git(up, "rev-parse", "master^{tree}")
    bulk = Import(up)
    names: list[tuple[str, str]] = []
    tags: list[str] = []
    real = min(2 * PICKS, size // 2)
    for n in range(size - real - 1):
        when += 60
        subject = f"area{n % 97}: Handle case {n} of the drain"
        text = f"{subject}\n\n" + BODY % (n % 7)
        if names and n % 4 == 0:
            target, title = names[-1 - min(int(rng.expovariate(1 / 2000)), len(names) - 1)]
            text += f'Fixes: {target[:12]} ("{title}")\n'
        text += f"Signed-off-by: {WHO}\n"
        bulk.commit("master", when, text, {}, parent if not n else "")
        # the tree stays, so the name of the commit is known here and can be fixed later
        raw = f"tree {tree}\nparent {parent}\nauthor {WHO} {when} +0000\ncommitter {WHO} {when} +0000\n\n{text}".encode()
        parent = hashlib.sha1(b"commit %d\0" % len(raw) + raw).hexdigest()
        names.append((parent, subject))
        if n % 15000 == 0:
            tags.append(f"create refs/tags/v{n // 15000 + 1}.0 {parent}\n")
    paths = sorted(files)
    changes = []
    for n in range(real):
        when += 60
        path = rng.choice(paths)
        at = rng.randrange(40, len(files[path]) - 40)
        files[path] = [*files[path][:at], f"\t/* upstream {n} */\n", *files[path][at:]]
        text = f"area: Change {n} of {path}\n\n" + BODY % 3 + f"Signed-off-by: {WHO}\n"
        changes.append((path, files[path][at - 1], text, n))
        bulk.commit("master", when, text, {path: "".join(files[path]).encode()})
    bulk.close()
    subprocess.run(["git", "-C", str(up), "update-ref", "--stdin"], input="".join(tags), text=True, check=True)
    assert git(up, "rev-parse", f"master~{real}") == parent, "the names of the commits were computed wrongly"
    oids = git(up, "rev-list", "--reverse", f"-{real}", "master").split()
    # the branch: every file has lines of its own, then the picks; some bulk commits are carried too
    (local / ".git/objects/info/alternates").write_text(f"{up}/.git/objects\n")
    mine = {f"drivers/d{n % 20}/f{n}.c": source(n) for n in range(FILES)}
    for p in paths:
        mine[p][1:1] = ["/* downstream */\n", "\n"]
    pick = Import(local)
    pick.commit("master", when, f"SAUCE: own lines\n\nSigned-off-by: {WHO}\n", {p: "".join(x).encode() for p, x in mine.items()}, parent)
    # upstream's edits are carried over by their neighbour lines, which grow the same way here
    upstream_now = {f"drivers/d{n % 20}/f{n}.c": source(n) for n in range(FILES)}
    count = 0
    for (path, _, text, n), oid in zip(changes, oids):
        new = f"\t/* upstream {n} */\n"
        at = shift_of(upstream_now[path], files[path], new)
        upstream_now[path].insert(at, new)
        mine[path].insert(at + 2, new)
        if count < PICKS:
            pick.commit("master", when + n, text + f"(cherry picked from commit {oid})\nSigned-off-by: Bob <bob@distro.example>\n",
                        {path: "".join(mine[path]).encode()})
            count += 1
    old = names[-4000][0]                       # this branch began before what it carries
    carried = names[-3000:][::10]
    for k, (oid, subject) in enumerate(carried[:300]):
        pick.commit("carried", when + k, f"{subject}\n\nWhy.\n\n(cherry picked from commit {oid})\nSigned-off-by: {WHO}\n", {f"c{k}": b"x\n"},
                    old if not k else "")
    pick.close()
    (where / "bases").write_text(f"{parent} {old}")
    done.touch()
    return where


def shift_of(now: list[str], final: list[str], new: str) -> int:
    """Where a line goes so that in the end the file is the final one."""
    place = final.index(new)
    have = set(now)
    return sum(1 for x in final[:place] if not x.startswith("\t/* upstream") or x in have)


class Watch(threading.Thread):
    """The largest sum of resident memory of a process and its children."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.pid, self.peak, self.over = pid, 0, False
        self.start()

    def run(self) -> None:
        while not self.over:
            self.peak = max(self.peak, sum(resident(p) for p in family(self.pid)))
            time.sleep(.03)


def family(pid: int) -> list[int]:
    out = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                out += family(int(child))
    except OSError:
        pass
    return out


def resident(pid: int) -> int:
    """Memory of its own: pages of a mapped pack are the page cache's."""
    try:
        fields = Path(f"/proc/{pid}/status").read_text()
        return sum(int(line.split()[1]) for line in fields.splitlines() if line.startswith(("RssAnon:", "RssShmem:")))
    except (OSError, ValueError):
        return 0


def measure(cache: Path, *args: str, want: int) -> tuple[float, float]:
    """Seconds and MiB of one run of the tool."""
    env = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    start = time.monotonic()
    p = subprocess.Popen([*TOOL, *args, "--format", "json"], stdout=subprocess.PIPE, env=env, cwd=ABOVE)
    watch = Watch(p.pid)
    out, _ = p.communicate()
    took = time.monotonic() - start
    watch.over = True
    if p.returncode != want:
        raise SystemExit(f"error: {' '.join(args)} ended with {p.returncode}, not {want}; next: run it by hand\n{out.decode()[-800:]}")
    return took, watch.peak / 1024


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("sizes", nargs="*", type=int, default=list(SIZES), help=f"numbers of commits (default: {SIZES})")
    ap.add_argument("--keep", metavar="DIR", default=os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")) + "/smmuv3-kdump/lint/bench",
                    help="where the repositories are made and kept")
    a = ap.parse_args()
    columns = ("commits", "built s", "size MB", "fixes cold s", "us/commit", "warm s", "+100 s", "MiB", "lint 100 s", "lint 1000 s", "MiB")
    print("  ".join(f"{c:>12}" for c in columns), flush=True)
    bad: list[str] = []
    last: tuple[int, float] | None = None
    for size in a.sizes:
        start = time.monotonic()
        where = build(Path(a.keep) / str(size), size)
        built = time.monotonic() - start
        du = sum(f.stat().st_size for f in where.rglob("*.pack")) / 1e6
        up, local = where / "up", where / "local"
        parent, old_base = (where / "bases").read_text().split()
        git(up, "update-ref", "refs/heads/master", git(up, "rev-parse", "master^{}"))
        with tempfile.TemporaryDirectory() as tmp:
            cache = Path(tmp)
            both = ("-C", str(local), "--reference", str(up))
            cold, mem1 = measure(cache, "fixes", *both, f"{old_base}..carried", want=1)
            warm, mem2 = measure(cache, "fixes", *both, f"{old_base}..carried", want=1)
            old = git(up, "rev-parse", "master")
            grow = Import(up)
            for n in range(100):
                grow.commit("master", 2_000_000_000 + n, f"more {n}\n\nFixes: {parent[:12]} (\"x\")\n", {}, old if not n else "")
            grow.close()
            more, _ = measure(cache, "fixes", *both, f"{old_base}..carried", want=1)
            git(up, "update-ref", "refs/heads/master", old)
            few, _ = measure(cache, "compare", *both, f"{parent}..master~{PICKS - 99}", want=0)
            many, mem3 = measure(cache, "compare", *both, f"{parent}..master", want=0)
        row = (f"{size}", f"{built:.1f}", f"{du:.0f}", f"{cold:.1f}", f"{cold / size * 1e6:.1f}", f"{warm:.2f}", f"{more:.2f}",
               f"{max(mem1, mem2):.0f}", f"{few:.1f}", f"{many:.1f}", f"{mem3:.0f}")
        print("  ".join(f"{c:>12}" for c in row), flush=True)
        if last:
            print(f"{'':>12}  {size / last[0]:.1f} times the commits: {cold / last[1]:.1f} times the time", flush=True)
        last = (size, cold)
        for name, got in (("lint 1000", many), ("fixes cold", cold), ("fixes warm", warm), ("memory", max(mem1, mem2, mem3))):
            if got > LIMITS[name]:
                bad.append(f"{size} commits: {name} {got:.1f}, the limit is {LIMITS[name]}")
    print("\n".join(bad) or "all within the limits: " + ", ".join(f"{k} {v}" for k, v in LIMITS.items()))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
