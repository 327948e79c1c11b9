# SPDX-License-Identifier: GPL-2.0-only
"""What every verb shares: errors, the cache directory, progress, commands, locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

PASS, FAIL, USAGE, ENVIRONMENT, INVALID, LOST = range(6)
INTERRUPTED = 130

DISK_FULL = re.compile(r"No space left on device|Out of diskspace|Disk quota exceeded")

TOP = Path(__file__).resolve().parent.parent


def flag(name: str) -> bool:
    """A switch of the command line (`make V=1`), which make hands on in the environment."""
    return os.environ.get(name, "") not in ("", "0")


VERBOSE = flag("V")


class Err(Exception):
    """One clear error: the cause, the next step, the exit code."""

    def __init__(self, cause: str, next_step: str = "", code: int = ENVIRONMENT) -> None:
        super().__init__(cause)
        self.cause = cause
        self.next_step = next_step
        self.code = code


def say(text: str) -> None:
    """Talk goes to stderr; stdout is for what a script may want to read."""
    print(text, file=sys.stderr, flush=True)


def main(func: Callable[[], int | None]) -> None:
    """Run a verb and turn what it raises into one line and an exit code."""
    try:
        code = func() or PASS
    except Err as err:
        say(f"error: {err.cause}" + (f"\n  next: {err.next_step}" if err.next_step else ""))
        code = err.code
    except KeyboardInterrupt:
        say("interrupted")
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAIL
    except OSError as err:
        if err.errno is None:
            raise
        name = f": {err.filename}" if err.filename else ""
        say(f"error: {os.strerror(err.errno)}{name}\n  next: mend that and run the same command again")
        code = ENVIRONMENT
    sys.exit(code)


def cache_dir(*parts: str) -> Path:
    """A directory of ours under the user's cache; made if it is not there."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(root).joinpath("smmuv3-kdump", *parts).absolute()
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold `path` locked; say so when another run has it. Released when the process ends."""
    with open(path, "a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            say(f"waiting for another run (process {handle.read().strip() or 'unknown'}) that uses {path.parent}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        handle.seek(0)
        handle.truncate()
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield


def tail(text: str, lines: int = 12) -> str:
    return "\n".join("    " + line for line in text.rstrip().splitlines()[-lines:])


def run(cmd: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str | None] | None = None,
        data: bytes | None = None, check: bool = True, next_step: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command, its output captured as text. `env` is added to ours; None takes out."""
    words = [str(word) for word in cmd]
    merged = {**os.environ, **(env or {})}
    if VERBOSE:
        say("+ " + shlex.join(words))
    try:
        raw = subprocess.run(words, cwd=cwd, input=data,
                             env={name: value for name, value in merged.items() if value is not None},
                             stdin=subprocess.DEVNULL if data is None else None, capture_output=True)
    except FileNotFoundError as err:
        if cwd and not cwd.exists():
            raise Err(f"{cwd} is not there", "run the same command again") from err
        raise Err(f"{words[0]} is not installed") from err
    done = subprocess.CompletedProcess(words, raw.returncode, raw.stdout.decode(errors="replace"),
                                       raw.stderr.decode(errors="replace"))
    if done.returncode and DISK_FULL.search(done.stderr + done.stdout):
        raise Err(f"the disk is full: `{shlex.join(words[:3])} …`", "free some space, or set XDG_CACHE_HOME "
                  "to a directory on a larger disk, and run the same command again")
    if check and done.returncode:
        raise Err(f"`{shlex.join(words[:4])}{' …' if len(words) > 4 else ''}` failed "
                  f"({done.returncode}):\n{tail(done.stderr or done.stdout)}", next_step)
    return done


class Stage:
    """A long step: a redrawn line on a terminal, plain lines in a log, its time at the end."""

    LOG_EVERY = 15.0
    DRAW_EVERY = 0.1

    def __init__(self, name: str) -> None:
        self.name = name
        self.begin = time.monotonic()
        self.drawn = self.begin
        self.tty = sys.stderr.isatty()
        self.note = ""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begin

    def update(self, note: str) -> None:
        """Show how far it is ("123/456"); cheap enough to call for each line of output."""
        self.note = note
        now = time.monotonic()
        if now - self.drawn < (self.DRAW_EVERY if self.tty else self.LOG_EVERY):
            return
        self.drawn = now
        if self.tty:
            print(f"\r\033[K{self.name} … {note}  {self.seconds:.0f} s", end="", file=sys.stderr, flush=True)
        else:
            say(f"{self.name} … {note}  {self.seconds:.0f} s")

    def start(self) -> None:
        if self.tty:
            print(f"{self.name} …", end="", file=sys.stderr, flush=True)
        else:
            say(f"{self.name} …")

    def end(self, how: str) -> None:
        note = f" ({self.note})" if self.note and how == "done" else ""
        say(("\r\033[K" if self.tty else "") + f"{self.name}: {how}{note}, {self.seconds:.1f} s")


STAGES: list[tuple[str, float]] = []
"""(name, seconds) of every stage of this process, for a table at the end."""


@contextlib.contextmanager
def stage(name: str) -> Iterator[Stage]:
    step = Stage(name)
    step.start()
    try:
        yield step
    except BaseException:
        step.end("stopped")
        raise
    step.end("done")
    STAGES.append((name, step.seconds))
