# SPDX-License-Identifier: GPL-2.0-only
"""Many crashes: as many at once as the host can carry, a live table, one report.

Each job is a crash test in a process of its own, so that no run holds up another's frames. Its result
is written into the matrix's directory at once, with a key of all that it was made with. A matrix that
did not come to its end goes on there, and takes none of the results whose key is another now.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..common import USAGE, Err, cache_dir, lock, say
from ..queue.config import Value
from ..results import PLAN, Report, Result, Status, count, counted, hold, release, run_directory

ROWS = "rows.jsonl"
# What a matrix that goes on need not run again. A rate of failures is of all that ran: what was lost
# counts, and where chance is judged, what proved nothing does too.
KEPT = frozenset({Status.PASS, Status.FAIL, Status.LOST})
KEPT_OF_CHANCE = KEPT | {Status.INVALID}
MEMORY = 3 << 20                # KiB that a run may need: the machine's, its trace, the vmcore's pages
SHOW_S = 0.5                    # between two drawings of the table
LOG_S = 60.0                    # between two lines about how far it is, in a log


@dataclass(frozen=True)
class Job:
    name: str                   # of its row
    conf: str                   # a file of configs/
    again: str                  # the command that repeats just this one
    changed: Mapping[str, Value] = field(default_factory=dict)     # comes before the configuration's values
    kernels: Sequence[str] = ("unpatched", "patched")
    built: Sequence[str] = ()   # their keys, as planned: of the one that crashes and the crash kernel


Run = Callable[[Job, Path], Result]


def at_once() -> int:
    """Runs that the host carries at the same time; JOBS= says otherwise."""
    text = os.environ.get("JOBS", "")
    if text and not (text.isdecimal() and int(text)):
        raise Err(f"JOBS={text}: not a number above 0", code=USAGE)
    free = re.search(r"(?m)^MemAvailable: +(\d+)", Path("/proc/meminfo").read_text())
    return int(text) if text else max(1, min(os.cpu_count() or 1, int(free[1]) // MEMORY if free else 1))


class Matrix:
    """The jobs of one verb on one base. `keys`: what the result of each depends on."""

    def __init__(self, verb: str, base: str, jobs: Sequence[Job], keys: Mapping[str, str],
                 kept: Collection[Status] = KEPT) -> None:
        self.verb, self.base, self.keys, self.kept = verb, base, keys, kept
        self.jobs = {job.name: job for job in jobs}
        self.done: dict[str, Result] = {}
        self.running: dict[str, float] = {}     # since when
        self.said = time.monotonic()            # when a log was told last how far it is
        plan = json.dumps([verb, base, *(job.again for job in jobs)])
        self.directory = self._unfinished(plan) or run_directory(verb, base)
        (self.directory / PLAN).write_text(plan)

    def _unfinished(self, plan: str) -> Path | None:
        """The directory of the newest matrix like this one, if it did not come to its end."""
        same = [path for path in cache_dir("runs", self.verb, self.base).glob(f"[0-9]*/{PLAN}")
                if path.read_text() == plan]
        newest = max(same, key=lambda path: path.stat().st_mtime_ns, default=None)
        if not newest or (newest.parent / "result.json").exists():
            return None
        with lock(newest.parent.parent / ".lock"):
            if not hold(newest.parent):
                say(f"the same goes on in {newest.parent}; this one is another")
                return None
        rows = read(newest.parent / ROWS)
        fresh = [row for row in rows if row.figures["key"] == self.keys[row.name]]
        self.done = {row.name: row for row in fresh if row.status in self.kept}
        stale = len(rows) - len(fresh)
        say(f"going on in {newest.parent}: {len(self.done)} of {len(self.jobs)} are there"
            + f"; {stale} are of other kernels or tools and run again" * bool(stale))
        return newest.parent

    def skip(self, name: str, why: str) -> None:
        """One that cannot be run here: it is told, and counts as nothing."""
        self.done[name] = Result("crash", name, Status.SKIPPED, f"{name:<24} SKIPPED     {why}",
                                 {"key": self.keys[name], "again": self.jobs[name].again})

    def run(self, run: Run) -> None:
        """All that is not there yet."""
        number = at_once()
        for result in self.done.values():
            print(result.detail, flush=True)
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(number, context, initializer=_die_with_parent) as pool:
            try:
                self._all(pool, number, run)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in multiprocessing.active_children():
                    process.terminate()
                say(f"{self.verb}: stopped with {len(self.done)} of {len(self.jobs)}; "
                    "the same command goes on from there")
                release(self.directory)
                raise

    def _all(self, pool: ProcessPoolExecutor, number: int, run: Run) -> None:
        waiting = [job for name, job in self.jobs.items() if name not in self.done]
        futures: dict[Future[Result], str] = {}
        while waiting or futures:
            while waiting and len(futures) < number:
                job = waiting.pop(0)
                self.running[job.name] = time.monotonic()
                futures[pool.submit(_one, run, job, self.directory)] = job.name
            with self._shown():
                over = wait(futures, SHOW_S, FIRST_COMPLETED).done
            for future in over:
                self._finish(futures.pop(future), future.result())

    def _finish(self, name: str, result: Result) -> None:
        job = self.jobs[name]
        figures = {**result.figures, "key": self.keys[name], "again": job.again}
        result = dataclasses.replace(result, figures=figures,
                                     seconds=time.monotonic() - self.running.pop(name))
        head = f"{name:<24} {result.status:<11} {result.seconds:5.0f} s   {job.again}"
        result = dataclasses.replace(result, detail=f"{head}\n{result.detail}".rstrip())
        self.done[name] = result
        append(self.directory / ROWS, json.dumps(dataclasses.asdict(result), default=str))
        print(result.detail, flush=True)

    # The live table: what is over is above it, in lines that stay.

    @contextlib.contextmanager
    def _shown(self) -> Iterator[None]:
        """The table is on the terminal while this lasts; a log gets a line now and then."""
        lines = self.table()
        if sys.stderr.isatty():
            print("\n".join(lines), end="", file=sys.stderr, flush=True)
            yield
            print("\r\033[K" + "\033[A\033[K" * (len(lines) - 1), end="", file=sys.stderr, flush=True)
            return
        if time.monotonic() - self.said >= LOG_S:
            self.said = time.monotonic()
            say(lines[-1])
        yield

    def table(self) -> list[str]:
        """A line for each job that runs, and one about all."""
        now = time.monotonic()
        lines = [f"{name:<24} running     {now - begin:5.0f} s" for name, begin in self.running.items()]
        found = count(self.done.values())
        rest = len(self.jobs) - len(self.done)
        past = [result.seconds for result in self.done.values() if result.seconds]
        end = "unknown"
        if past:
            each = sum(past) / len(past)
            spent = sum(min(now - begin, each) for begin in self.running.values())
            left = (each * rest - spent) / max(len(self.running), 1)
            end = time.strftime("%H:%M:%S", time.localtime(time.time() + left))
        other = len(self.done) - found[Status.PASS] - found[Status.FAIL] - found[Status.SKIPPED]
        return [*lines, f"{self.verb} {self.base}: {rest - len(self.running)} queued, "
                        f"{len(self.running)} running, {found[Status.PASS]} passed, "
                        f"{found[Status.FAIL]} failed, {other} neither; expected end {end}"]

    def report(self) -> Report:
        """Of all results, in the order of the jobs."""
        rows = [self.done[name] for name in self.jobs]
        found = Report(self.verb, self.base, rows)
        body = "\n".join(row.detail for row in rows)
        found.text = f"{self.verb} on {self.base}\n\n{counted(rows)}\n\n{body}\n\n{found.verdict}\n"
        return found


def read(path: Path) -> list[Result]:
    """The results that a matrix has written; a last line that was cut off is none."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            values: dict[str, Any] = json.loads(line)
            values["status"] = Status(values["status"])
            found.append(Result(**values))
    return found


def append(path: Path, line: str) -> None:
    """A line of its own, whatever the last one lacks: it may have been cut off."""
    with open(path, "a+b") as rows:
        end = rows.seek(0, os.SEEK_END)
        rows.seek(max(end - 1, 0))
        cut = rows.read(1) not in (b"", b"\n")
        rows.write(b"\n" * cut + line.encode() + b"\n")


def _die_with_parent() -> None:
    """No job outlives the matrix. Ctrl-C ends the matrix, which ends its jobs."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)     # PR_SET_PDEATHSIG
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _one(run: Run, job: Job, directory: Path) -> Result:
    """In the job's process: what it says of its steps goes into a file of its own."""
    with open(directory / f"{job.name}.log", "w") as log:
        os.dup2(log.fileno(), 2)
        return run(job, directory)
