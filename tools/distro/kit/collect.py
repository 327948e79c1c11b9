# SPDX-License-Identifier: GPL-2.0-only
"""./kit collect: after the reboot, all that tells of the crash, into the crash's directory.

Nothing is taken away from where it was but the kit's own file and unit.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from ...common import USAGE, Err, write
from . import redfish
from .provoke import CRASH_LOG, RUN, dumps, unwatch
from .server import STATE, Server

VMCORE, THIS_BOOT, CONSOLE, BMC = "vmcore", "this-boot.log", "console.log", "bmc.json"


def latest(server: Server, name: str) -> Path:
    """The directory of a crash: the last one, if none is named."""
    found = {path.parent.name: path.parent for path in server.glob(f"{STATE}/*/{RUN}")}
    if name and name not in found:
        raise Err(f"no crash of the name {name} in {STATE}", f"one of: {' '.join(found) or 'none'}", USAGE)
    if not found:
        raise Err(f"no crash to collect in {STATE}", "./kit crash", USAGE)
    return found[name or max(found)]


def read_log(path: Path) -> str:
    """What /dev/kmsg has now, without waiting for more."""
    out = bytearray()
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            with contextlib.suppress(BrokenPipeError):      # a record was gone before it could be read
                if not (data := os.read(handle, 1 << 16)):
                    break
                out += data
    except BlockingIOError:             # that was the last record
        pass
    finally:
        os.close(handle)
    return out.decode(errors="replace")


def counters(server: Server) -> dict[str, dict[str, int]]:
    """AER's counters of this boot that are not 0."""
    found: dict[str, dict[str, int]] = {}
    for path in server.glob("/sys/bus/pci/devices/*/aer_dev_*"):
        lines = re.findall(r"(?m)^(\w+) (\d+)$", path.read_text(errors="replace"))
        some = {name: int(number) for name, number in lines if int(number)}
        if some:
            found[f"{path.parent.name} {path.name.removeprefix('aer_dev_')}"] = some
    return found


def take(source: Path, target: Path) -> None:
    """The same file, or a copy if it is on another disk."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError as err:
        if shutil.disk_usage(target.parent).free < source.stat().st_size:
            raise Err(f"{target.parent} has no room for {source}, {source.stat().st_size >> 20} MiB",
                      "free some space there, then ./kit collect again: the rest is collected") from err
        shutil.copyfile(source, target)


def take_dumps(server: Server, run: dict[str, Any], here: Path) -> list[str]:
    """The dumps since the crash; the first whole one is that to judge, or the first of all."""
    new = [name for name in dumps(server) if name not in run["before"]]
    new.sort(key=lambda name: ("incomplete" in name, server.path(name).stat().st_mtime))
    if new:
        take(server.path(new[0]), here / VMCORE)
        for path in server.path(new[0]).parent.glob("*dmesg*"):
            shutil.copyfile(path, here / path.name)
    return new


def take_pstore(server: Server, run: dict[str, Any], here: Path) -> None:
    """What is in pstore, or what systemd has moved out of it since."""
    moved = [path for path in server.glob("/var/lib/systemd/pstore/**/*")
             if path.is_file() and path.stat().st_mtime >= run["when"]]
    for number, path in enumerate([*server.glob("/sys/fs/pstore/*"), *moved]):
        shutil.copyfile(path, here / f"pstore-{number}-{path.name}")


def collect(server: Server, name: str, console: Path | None, bmc: redfish.Service | None) -> int:
    here = latest(server, name)
    run = json.loads((here / RUN).read_text())
    earlier = run.get("collected", {})
    boot = server.text("/proc/sys/kernel/random/boot_id")
    if boot == run["boot"]:
        raise Err("this is still the boot that was to be crashed", "./kit crash", USAGE)
    if console and not console.is_file():
        raise Err(f"--console {console}: no such file", code=USAGE)
    if console:
        shutil.copyfile(console, here / CONSOLE)
    told = redfish.read(bmc) if bmc else {}
    before = json.loads((here / BMC).read_text()) if (here / BMC).exists() else None
    if before is None or told and ("entries" in told or "entries" not in before):
        write(here / BMC, json.dumps(told, indent=1) + "\n")    # no answer is not better than one
    if boot == earlier.get("boot", boot):       # a later one would have nothing to tell
        write(here / THIS_BOOT, read_log(server.path("/dev/kmsg")))
        take_pstore(server, run, here)
        earlier = {**earlier, "boot": boot, "release": server.release, "when": time.time(),
                   "aer": counters(server)}
        if (log := here / CRASH_LOG).exists():
            earlier["logged"] = log.stat().st_mtime
    run["collected"] = {"dumps": [], **earlier}
    write(here / RUN, json.dumps(run, indent=2) + "\n")
    server.path(run["file"]).unlink(missing_ok=True)
    unwatch(server)
    new = earlier.get("dumps", [])
    if not new or "incomplete" in new[0] or not (here / VMCORE).exists():
        new = take_dumps(server, run, here)
        if new and new != earlier.get("dumps"):
            run["collected"] |= {"dumps": new, "saved": server.path(new[0]).stat().st_mtime}
            write(here / RUN, json.dumps(run, indent=2) + "\n")
    print(here, *(f"{path.stat().st_size:>16}  {path.name}" for path in sorted(here.iterdir())), sep="\n")
    if not new:
        print("no dump was saved since the crash")
    return 0
