# SPDX-License-Identifier: GPL-2.0-only
"""make check-fresh: .ci/run in a new minimal root of each distribution, so that a missing install step shows.

The root has what a minimal installation has, the committed HEAD, and apt as this machine has it.
Handed in are downloads and ccache only; nothing that was built here. Mounts and processes are in
namespaces of their own and end with this process; the root is removed at the end.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from . import deps
from .check import UNTRIED
from .common import DISK_FULL, ENVIRONMENT, TOP, USAGE, Err, cache_dir, full, lock, remove, run, say, stage
from .queue import archive
from .results import Report, Result, Status, counted, run_directory, table

SUITES = ("bookworm", "trixie")     # Debian 12 and 13, which the README promises
SPACE = 10 << 30                    # bytes: what one run leaves at its end, and some more
KEPT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "CI=true")
PROXIES = ("http_proxy", "https_proxy", "no_proxy")
CACHE = "root/.cache/smmuv3-kdump"  # in the root
INSIDE = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--")
# $1: the root; then pairs of a directory and where it is seen in the root. The root becomes a mount
# point, as whoever makes namespaces in it needs one.
ENTER = """
set -e
mount --bind "$1" "$1"
cd "$1"
shift
mount -t proc proc proc
mount --rbind /dev dev
while [ $# != 0 ]; do
    mkdir -p "./$2"
    mount --bind "$1" "./$2"
    shift 2
done
exec chroot . /bin/bash /checkout/.ci/run
"""


def _bootstrap(suite: str, root: Path) -> None:
    """A root whose apt has the machine's own entries, for this suite in place of the machine's."""
    entries = [{**entry, "suites": suite + end} for end, own in archive.machine().items() for entry in own]
    sources = root.with_name("archive.sources")
    sources.write_text(archive.sources(entries, archive.native()))
    # How apt fetches, but for what it is to fetch.
    options = re.findall(r'^(Acquire::(?:https?|ftp|Check-|Max-|Retries|Force)\S* ".+");$',
                         run(["apt-config", "dump"]).stdout, re.MULTILINE)
    # An archive on https needs it before anything can be installed.
    https = any(entry["uris"].startswith("https:") for entry in entries)
    tls = ["--include=ca-certificates"] if https else []
    with stage(f"making a minimal {suite}"):
        done = run(["mmdebstrap", "--mode=root", "--variant=minbase", *tls,
                    *(f"--aptopt={option}" for option in options), suite, root, sources], check=False)
        if done.returncode:
            raise archive.explain(f"making a minimal {suite}", done)
    for key in {path for entry in entries for path in entry.get("signed-by", "").split()}:
        if key.startswith("/") and not (root / key[1:]).exists():
            (root / key[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(key, root / key[1:])
    for name in ("resolv.conf", "hosts"):
        shutil.copy(f"/etc/{name}", root / "etc" / name)


def _clean(root: Path, cache: Path) -> None:
    """Of the root's cache the downloads stay."""
    for path in (root, *(path for path in cache.iterdir() if path.name != "debs")):
        remove(path)


def _seed(cache: Path, native: bool) -> None:
    """What this machine has downloaded, but for what is of its own suites if the root's are others."""
    for deb in cache_dir("debs").glob("*/*.deb"):
        there = cache / "debs" / deb.parent.name / deb.name
        if (native or archive.OWN not in deb.parent.name.split("+")) and not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            os.link(deb, there)


def _run(argv: list[str], log: Path) -> tuple[int, str]:
    """The exit code of the verb in there, and its output, which is shown and logged."""
    given = [f"{name}={os.environ[name]}" for name in PROXIES if name in os.environ]
    with open(log, "w") as out, subprocess.Popen(
            ["env", "-i", *KEPT, *given, *argv], text=True, errors="replace", stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        assert child.stdout
        try:
            for line in child.stdout:
                print(line, end="", flush=True)
                out.write(line)
        except BaseException:
            child.kill()
            raise
    text = log.read_text()
    # make ends with 2 whatever its command ended with, and says that.
    said = re.findall(r"^make: \*\*\* .* Error (\d+)$", text, re.MULTILINE)
    return int(said[-1]) if said and child.returncode else child.returncode, text


def _judge(code: int, text: str, runs: Path) -> tuple[Status, str]:
    """What happened, and its counts or cause.

    In a new root nothing but the archive and the disk is the environment's: the rest is ours to install."""
    report = runs / "check" / "all" / "latest" / "result.json"
    counts = ""
    if report.is_file():
        found = json.loads(report.read_text())
        verdict, cause = Status(found["verdict"]), found["why"]
        results = [Result(one["suite"], one["name"], Status(one["status"]), one["detail"])
                   for one in found["results"]]
        counts = counted([one for one in results if one.status not in UNTRIED])
        text = "\n".join(one.detail for one in results if one.status is Status.ENVIRONMENT)
    else:
        causes = re.findall(r"^(?:error|E): (.+)", text, re.MULTILINE) or text.splitlines() or ["no output"]
        verdict = Status.ENVIRONMENT if code == ENVIRONMENT else Status.FAIL
        cause = f"ended with {code}: {causes[-1]}"
    outside = "|".join([DISK_FULL.pattern, "disk is full", *(pattern for pattern, _, _ in archive.MEANINGS)])
    if verdict is Status.ENVIRONMENT and not re.search(outside, text):
        verdict = Status.FAIL
    if verdict is Status.PASS and code:
        verdict, cause = Status.FAIL, f"ended with {code}"
    return verdict, "; ".join(filter(None, [counts, cause]))


def fresh(suite: str) -> Result:
    """The run in one suite's root, as one result."""
    begin = time.monotonic()
    here = cache_dir("fresh", suite)
    root, cache = here / "root", cache_dir("fresh", suite, "cache")
    where = run_directory("check-fresh", suite)
    mounts = {cache_dir("fresh", suite, "packages"): "var/cache/apt/archives", cache: CACHE,
              cache_dir("ccache"): f"{CACHE}/ccache"}
    with lock(here / "lock"):
        _clean(root, cache)     # what a run left that was killed
        if (free := shutil.disk_usage(here).free) < SPACE:
            raise full(f"{here} has {free >> 20} MiB, a new root needs {SPACE >> 20}")
        try:
            _bootstrap(suite, root)
            run(["git", "clone", "--quiet", TOP, root / "checkout"], next_step="run it in a git checkout")
            _seed(cache, suite == archive.codename())
            pairs = [str(path) for pair in mounts.items() for path in pair]
            code, text = _run([*INSIDE, "sh", "-c", ENTER, "enter", str(root), *pairs], where / "log.txt")
            status, detail = _judge(code, text, cache / "runs")
            if status is not Status.PASS and (cache / "runs").is_dir():
                (cache / "runs").rename(where / "runs")
        finally:
            _clean(root, cache)
    return Result("check-fresh", suite, status, detail, seconds=time.monotonic() - begin)


def main() -> int:
    """make check-fresh"""
    if os.geteuid() != 0:
        raise Err("check-fresh mounts and changes the root: only root can", "sudo make check-fresh", USAGE)
    deps.need("archive", "fresh")
    changed = run(["git", "-C", TOP, "status", "--porcelain"], next_step="run it in a git checkout").stdout
    if changed:
        say(f"note: uncommitted changes are not in the run, which takes HEAD:\n{changed.rstrip()}")
    found = []
    for suite in [os.environ["SUITE"]] if os.environ.get("SUITE") else SUITES:
        try:
            found.append(fresh(suite))
        except Err as err:
            err.show()
            found.append(Result("check-fresh", suite, Status.ENVIRONMENT, err.cause.splitlines()[0]))
    report = Report("check-fresh", "all", found)
    report.text = table([[result.name, result.status, f"{result.seconds / 60:.1f} min", result.detail]
                         for result in found], left=4)
    return report.show(run_directory("check-fresh", "all"), "../../<suite>/latest/log.txt")
