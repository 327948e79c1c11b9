# SPDX-License-Identifier: GPL-2.0-only
"""What every verb shares: errors, the cache directory, progress, commands, locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

PASS, FAIL, USAGE, ENVIRONMENT, INVALID, LOST = range(6)
INTERRUPTED = 130

WATCH_S = 0.2
DISK_FULL = re.compile(r"No space left on device|Out of diskspace|Disk quota exceeded")
GIT_LOCK = re.compile(r"Unable to create '(.+\.lock)': File exists")
NOT_TRUSTED = re.compile(r"dubious ownership in repository at '(.+)'")

TOP = Path(__file__).resolve().parent.parent


def flag(name: str) -> bool:
    """A switch of the command line (`make V=1`), which make hands on in the environment."""
    return os.environ.get(name, "") not in ("", "0")


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """The environment with these values, for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


VERBOSE = flag("V")


class Err(Exception):
    """One clear error: the cause, the next step, the exit code."""

    def __init__(self, cause: str, next_step: str = "", code: int = ENVIRONMENT) -> None:
        super().__init__(cause)
        self.cause = cause
        self.next_step = next_step
        self.code = code

    @property
    def line(self) -> str:
        """Cause and next step, for a table."""
        return self.cause + (f"; next: {self.next_step}" if self.next_step else "")

    def show(self) -> None:
        say(f"error: {self.cause}" + (f"\n  next: {self.next_step}" if self.next_step else ""))


def full(where: str) -> Err:
    """The error of a disk without space, wherever it shows."""
    return Err(f"the disk is full: {where}", "free some space, or set XDG_CACHE_HOME to a directory on a "
               "larger disk, and run the same command again")


def _of_git(said: str) -> Err | None:
    """What is the same for every git command, and nothing that it was asked for."""
    if found := GIT_LOCK.search(said):
        return Err(f"{found[1]} is there: another git command runs, or one was killed",
                   f"wait for it; if none runs: rm {shlex.quote(found[1])}, and run the same command again")
    if found := NOT_TRUSTED.search(said):
        return Err(f"git does not trust {found[1]}: it belongs to somebody else",
                   f"git config --global --add safe.directory {shlex.quote(found[1])}")
    return None


def say(text: str) -> None:
    """Talk goes to stderr; stdout is for what a script may want to read."""
    print(text, file=sys.stderr, flush=True)


def _of_system(err: OSError) -> Err:
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return full(err.filename or "a file could not be written")
    if err.errno is None:
        raise err
    return Err(os.strerror(err.errno) + (f": {err.filename}" if err.filename else ""),
               "mend that and run the same command again")


def main(func: Callable[[], int | None]) -> None:
    """Run a verb and turn what it raises into one line and an exit code."""
    try:
        code = func() or PASS
    except KeyboardInterrupt:
        say("interrupted")
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAIL
    except (Err, OSError) as caught:
        err = caught if isinstance(caught, Err) else _of_system(caught)
        err.show()
        code = err.code
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
            holder = handle.read().strip() or "unknown"
            say(f"waiting for another run (process {holder}) that uses {path.parent}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        handle.seek(0)
        handle.truncate()
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield


def remove(path: Path) -> None:
    """A file or a directory with all in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A name to make a file or directory under, which is then renamed to `path`: whole or not at all.

    For who holds a lock; a rest of a run that was killed is removed first.
    """
    new = path.with_name(f".{path.name}.new")
    remove(new)
    try:
        yield new
        new.rename(path)
    finally:
        remove(new)


def made(path: Path, make: Callable[[Path], object]) -> Path:
    """`path` of the cache; if it is not there, make(name) makes it, under a name beside it."""
    if not path.exists():
        with lock(path.with_name(f".{path.name}.lock")):
            if not path.exists():
                with beside(path) as new:
                    make(new)
    return path


def write(path: Path, content: str | bytes) -> None:
    """Write a file anew, whole or not at all."""
    with beside(path) as new:
        new.write_bytes(content.encode() if isinstance(content, str) else content)


def tail(text: str, lines: int = 12) -> str:
    return "\n".join("    " + line for line in text.rstrip().splitlines()[-lines:])


def _captured(words: Sequence[str], cwd: Path | None, env: Mapping[str, str], data: bytes | None,
              watch: Callable[[], None] | None) -> subprocess.CompletedProcess[str]:
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=cwd, env=env, stdin=subprocess.DEVNULL if data is None else pipe,
                          stdout=pipe, stderr=pipe) as process:
        try:
            while True:
                try:
                    out, err = process.communicate(data, timeout=WATCH_S if watch else None)
                    break
                except subprocess.TimeoutExpired:
                    assert watch
                    watch()
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(words, process.returncode, out.decode(errors="replace"),
                                       err.decode(errors="replace"))


def run(cmd: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str | None] | None = None,
        data: bytes | None = None, check: bool = True, next_step: str = "",
        watch: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command, its output captured as text. `env` is added to ours; None takes out.

    `watch` is called every WATCH_S while it runs, to show how far it is.
    """
    words = [str(word) for word in cmd]
    both: dict[str, str | None] = {**os.environ, **(env or {})}
    merged = {name: value for name, value in both.items() if value is not None}
    if VERBOSE:
        say("+ " + shlex.join(words))
    try:
        done = _captured(words, cwd, merged, data, watch)
    except FileNotFoundError as err:
        if cwd and not cwd.exists():
            raise Err(f"{cwd} is not there", "run the same command again") from err
        raise Err(f"{words[0]} is not installed") from err
    if done.returncode and DISK_FULL.search(done.stderr + done.stdout):
        raise full(f"`{shlex.join(words[:3])} …`")
    if done.returncode and (of_git := _of_git(done.stderr)):
        raise of_git
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
        self.begin = self.drawn = time.monotonic()
        self.tty = sys.stderr.isatty()
        self.note = ""
        self._draw(f"{name} …")

    def _draw(self, text: str) -> None:
        before, after = ("\r\033[K", "") if self.tty else ("", "\n")
        print(before + text, end=after, file=sys.stderr, flush=True)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begin

    def update(self, note: str) -> None:
        """Show how far it is ("123/456"); cheap enough to call for each line of output."""
        self.note = note
        now = time.monotonic()
        if now - self.drawn >= (self.DRAW_EVERY if self.tty else self.LOG_EVERY):
            self.drawn = now
            self._draw(f"{self.name} … {note}  {self.seconds:.0f} s")

    def end(self, how: str) -> None:
        note = f" ({self.note})" if self.note and how == "done" else ""
        say(("\r\033[K" if self.tty else "") + f"{self.name}: {how}{note}, {self.seconds:.1f} s")


STAGES: list[tuple[str, float]] = []
"""(name, seconds) of every stage of this process, for a table at the end."""


@contextlib.contextmanager
def stage(name: str) -> Iterator[Stage]:
    step = Stage(name)
    try:
        yield step
    except BaseException:
        step.end("stopped")
        raise
    step.end("done")
    STAGES.append((name, step.seconds))


def stages() -> str:
    """What has taken how long, for the end of a report."""
    return "\nstages\n" + "".join(f"  {seconds:8.1f} s  {name}\n" for name, seconds in STAGES)
