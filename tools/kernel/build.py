# SPDX-License-Identifier: GPL-2.0-only
"""The test kernels: a base with our test driver, without and with the series.

Both come from one work tree and one object directory, so that the second build compiles
only what the series changes. A finished kernel is kept under a key of everything that it
is made from; while that does not change, nothing is built.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import deps
from ..common import DISK_FULL, FAIL, TOP, VERBOSE, Err, Stage, beside, cache_dir, full, remove, run, say
from ..common import stage, tail
from ..queue.store import Store, digest, series

ARCH = "arm64"
CROSS = "aarch64-linux-gnu-"
FRAGMENTS = TOP / "configs" / "kernel"
FLAVOURS = FRAGMENTS / "flavours"   # what only some kernels have; each with an object directory of its own
OVERLAYS = ("drivers", "include")
KEEP = 24                   # kernels of one base that are kept, some 15 MB each
STEPS = 1700                # steps of a build from nothing, until one has been counted

# So that equal sources give equal images, wherever and whenever.
FIXED = {"KBUILD_BUILD_TIMESTAMP": "2000-01-01", "KBUILD_BUILD_USER": "test", "KBUILD_BUILD_HOST": "test",
         "KBUILD_BUILD_VERSION": "1"}

# Their versions would come into the configuration, and so into each object's key in ccache, unused.
UNUSED = ("RUSTC=none", "PAHOLE=none")


@dataclass(frozen=True)
class Kernel:
    image: Path
    release: str
    key: str                    # of everything that it is made from


Change = Callable[[Store, str], str]


def overlay() -> dict[str, bytes]:
    files = (path for top in OVERLAYS for path in (TOP / top).rglob("*"))
    return {str(path.relative_to(TOP)): path.read_bytes()
            for path in files if path.is_file() and path.suffix not in (".o", ".cmd")}


def _commit(store: Store, patches: Sequence[Path]) -> str:
    """Base, test patches and overlay; patches on top."""
    source = store.source()
    own = TOP / "patches" / "test" / store.base.name
    commit = store.apply(source, series(own if own.is_dir() else TOP / "patches" / "test"))
    commit = store.overlay(commit, overlay(), "The test driver and its headers")
    return store.apply(commit, patches)


def fragments(flavour: str = "", changed: Sequence[str] = ()) -> str:
    """The test kernels' configuration, with the lines `changed` in place of those of the same symbols."""
    more = [FLAVOURS / f"{flavour}.config"] if flavour else []
    text = "".join(path.read_text() for path in [*sorted(FRAGMENTS.glob("*.config")), *more])
    mine = {line.split("=")[0] for line in changed}
    kept = [line for line in text.splitlines() if line.split("=")[0] not in mine]
    return "\n".join([*kept, *changed]) + "\n"


def make(store: Store, obj: Path, *targets: str,
         tree: Path | None = None) -> tuple[list[str], dict[str, str]]:
    """The command and environment of a make in a work tree, whatever make we were started by."""
    env = {name: value for name, value in os.environ.items()
           if not name.startswith(("KBUILD_", "KCONFIG_", "CCACHE_", "GIT_", "MAKE", "KC", "LD"))
           and name not in ("MFLAGS", "ARCH", "CROSS_COMPILE", "V", "W", "C", "O", "M", "BASE", "KSRC",
                            "LLVM", "LOCALVERSION")}
    env |= FIXED | {"LC_ALL": "C", "CCACHE_DIR": str(cache_dir("ccache")), "CCACHE_CONFIGPATH": os.devnull,
                    "CCACHE_BASEDIR": str(store.here), "CCACHE_NOHASHDIR": "1", "CCACHE_MAXSIZE": "4G",
                    "CCACHE_DEPEND": "1"}
    cmd = ["make", "-C", str(tree or store.test), f"O={obj}", f"ARCH={ARCH}", f"CROSS_COMPILE={CROSS}",
           f"CC=ccache {CROSS}gcc", "HOSTCC=ccache gcc", *UNUSED, f"-j{os.cpu_count() or 1}",
           "--no-print-directory"]
    return [*cmd, *targets, *(["V=1"] if VERBOSE else [])], env


def run_make(step: Stage, cmd: list[str], env: dict[str, str], log: Path, total: int) -> int:
    """Run make, its output into the log, its progress on the screen; the number of steps it took.

    It is a group of processes of its own, all of which end with it."""
    if VERBOSE:
        say("+ " + " ".join(cmd))
    steps = 0
    with (open(log, "a") as out,
          subprocess.Popen(cmd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, errors="replace", process_group=0) as make):
        assert make.stdout
        try:
            for line in make.stdout:
                out.write(line)
                if VERBOSE:
                    say(line.rstrip())
                if re.match(r"  [A-Z]+ +\S", line):
                    steps += 1
                    step.update(f"{steps}/{max(total, steps)}" if total else str(steps))
        except BaseException:
            os.killpg(make.pid, signal.SIGTERM)
            raise
    if make.returncode:
        text = log.read_text(errors="replace")
        if DISK_FULL.search(text):
            raise full(step.name)
        if "Killed signal" in text:
            raise Err(f"the compiler was killed, most likely for want of memory ({step.name})",
                      "free some memory and run the same command again")
        errors = re.findall(r"(?m)^.*(?:\berror\b|\bError \d|undefined reference|\*\*\*).*$", text)
        raise Err(f"{step.name} failed:\n{tail(chr(10).join(errors) or text)}", f"the whole log: {log}", FAIL)
    return steps


def configure(step: Stage, store: Store, obj: Path, wanted: str, log: Path) -> None:
    lines = [line for line in wanted.splitlines() if re.match(r"CONFIG_|# CONFIG_.* is not set", line)]
    fragment = obj / "wanted.config"
    fragment.write_text("".join(line.split("  #")[0] + "\n" for line in lines))
    cmd, env = make(store, obj, "allnoconfig")
    run_make(step, cmd, env | {"KCONFIG_ALLCONFIG": str(fragment)}, log, 0)
    took = set((obj / ".config").read_text().splitlines())
    missing = [line for line in lines if line not in took and not line.endswith("  # optional")
               and not (line.endswith("=n") and not any(had.startswith(line[:-1]) for had in took))]
    if missing:
        raise Err(f"{store.version()} does not take this configuration: {', '.join(missing)}",
                  f"mend {FRAGMENTS.relative_to(TOP)} (a symbol's new name, a dependency not met)", FAIL)


@contextlib.contextmanager
def objects(obj: Path) -> Iterator[Path]:
    """The object directory; emptied if the last build did not come to its end by itself."""
    mark = obj.with_name(f"{obj.name}.broken")
    if mark.exists():
        say("the last build was cut off; starting from an empty object directory")
        remove(obj)
    obj.mkdir(exist_ok=True)
    mark.touch()
    try:
        yield obj
    except Err as err:
        if err.code == FAIL:
            mark.unlink()
        raise
    mark.unlink()


def compiler() -> str:
    return run([f"{CROSS}gcc", "--version"]).stdout.splitlines()[0]


def _identify(store: Store, count: int | None, flavour: str, change: Change | None = None) -> tuple[str, str]:
    """The kernel's commit, and the key of all that it is made from."""
    commit = _commit(store, store.queue()[:count])
    commit = change(store, commit) if change else commit
    return commit, digest(store.tree_of(commit), fragments(flavour), compiler(), repr(FIXED))[:16]


def identify(base: str, count: int | None = None, flavour: str = "") -> str:
    """The key that build() would give this kernel, without building it."""
    store = Store(base)
    with store.lock():
        return _identify(store, count, flavour)[1]


def build(base: str, count: int | None = None, flavour: str = "", change: Change | None = None) -> Kernel:
    """The test kernel of a base, from what is kept if that is still the same.

    `count` takes only so many patches of the queue; 0 is the unpatched kernel. `flavour` adds a
    fragment of configs/kernel/flavours; `change` makes another commit of that of the patches.
    """
    store = Store(base)
    deps.need("kernel")
    with store.lock():
        commit, key = _identify(store, count, flavour, change)
        images = store.here / "images"
        images.mkdir(exist_ok=True)
        there = images / key
        if not there.is_dir():
            what = {0: "unpatched", None: "patched"}.get(count, f"with {count} patches")
            with beside(there) as new:
                _build(store, commit, new, what, flavour)
        os.utime(there)
        for old in sorted(images.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEEP]:
            remove(old)
        return Kernel(there / "Image", (there / "release").read_text().strip(), key)


def _build(store: Store, commit: str, new: Path, name: str, flavour: str) -> None:
    end = f"-{flavour}" if flavour else ""
    log = store.here / f"build-{name.replace(' ', '-')}{end}.log"
    log.write_text("")
    with (objects(store.here / f"obj{end}") as obj,
          stage(f"building {store.base.name} {name} {flavour}".rstrip()) as step):
        store.check_out(commit)
        first = not (obj / "vmlinux").exists()
        configure(step, store, obj, fragments(flavour), log)
        counted = store.here / f"steps{end}"
        total = int(counted.read_text()) if counted.exists() else STEPS
        cmd, env = make(store, obj, "Image")
        steps = run_make(step, cmd, env, log, total if first else 0)
        if first:
            counted.write_text(f"{steps}\n")
        new.mkdir()
        files = {"Image": f"arch/{ARCH}/boot/Image", "vmlinux": "vmlinux", "config": ".config",
                 "System.map": "System.map", "release": "include/config/kernel.release"}
        for copy, path in files.items():
            shutil.copy(obj / path, new / copy)
