# SPDX-License-Identifier: GPL-2.0-only
"""./kit crash: crash this machine on purpose, while reads are in flight.

It writes a directory of its own below STATE, and one unit of systemd, which keeps the crash
kernel's log there: kdump-tools saves only that of the crashed kernel. `collect` takes it away.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

from ...common import USAGE, Err, say, write
from ...crash.workload import expected_block
from . import stream
from .server import BAD, STATE, Server, findings

UNIT = "smmu-kdump-kit.service"
UNITS = "/etc/systemd/system"
WANTS = f"{UNITS}/kdump-tools-dump.service.wants"
RTC = "/sys/class/rtc/rtc0/since_epoch"
CRASH_LOG, RUN = "crash-kernel.log", "run.json"
CLOCK, ALIVE, BEAT_S = "smmu-kdump-kit: clock", "smmu-kdump-kit: alive", 5
# First the time, and that since the start; then each record as it comes. There is no end to wait for, the
# reboot ends it; a line every few seconds shows whether something had ended it before.
UNIT_TEXT = """\
[Unit]
Description=Keep the crash kernel's log for the repro kit
DefaultDependencies=no
After=local-fs.target
Before=kdump-tools-dump.service
ConditionPathExists=/proc/vmcore

[Service]
Type=exec
ExecStart=/bin/sh -c 'echo "{clock} $$(date +%%s.%%N) $$(cat /proc/uptime)" >>{log}; \
  while sleep {beat}; do echo "<7>{alive}" >/dev/kmsg; done & exec cat /dev/kmsg >>{log}'
"""


def dumps(server: Server) -> list[str]:
    """The dumps that are there: kdump-tools' dump.<date> and vmcore.<date>, or others' vmcore."""
    return [f"/{path.relative_to(server.root)}" for pattern in ("dump.*", "vmcore*", "*incomplete*")
            for path in server.glob(f"/var/crash/*/{pattern}") if "dmesg" not in path.name]


def blocks(nonce: int, path: Path, reads: int) -> None:
    """The file that is read."""
    with open(path, "xb") as file:
        for index in range(reads):
            file.write(expected_block(nonce, index))
        file.flush()
        os.fsync(file.fileno())


def confirmed(server: Server, told: bool, confirm: str) -> None:
    """Told twice: by the option, and by the machine's name."""
    if not told:
        raise Err(f"this crashes {server.host}, and was not told so", "add --crash-this-machine", USAGE)
    if not confirm:
        print(f"This crashes {server.host} now; all that is not saved is lost. Its name, to confirm: ",
              end="", flush=True)
        try:
            confirm = input()
        except EOFError:
            confirm = ""
    if confirm != server.host:
        raise Err(f"not confirmed: {confirm or 'nothing'!r} is not the name of this machine, {server.host}",
                  f"--confirm {server.host}", USAGE)


def watch_crash_kernel(server: Server, where: str) -> None:
    unit = server.path(f"{UNITS}/{UNIT}")
    unit.parent.mkdir(parents=True, exist_ok=True)
    unit.write_text(UNIT_TEXT.format(log=f"{where}/{CRASH_LOG}", clock=CLOCK, alive=ALIVE, beat=BEAT_S))
    link = server.path(f"{WANTS}/{UNIT}")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(f"../{UNIT}")


def unwatch(server: Server) -> None:
    server.path(f"{WANTS}/{UNIT}").unlink(missing_ok=True)
    server.path(f"{UNITS}/{UNIT}").unlink(missing_ok=True)


def prepare(server: Server, heard: stream.Stream | None) -> tuple[Path, list[str], str]:
    """The directory of this crash, the workload's command line, and what to say of it in the log."""
    nonce = random.SystemRandom().getrandbits(30) | 1
    name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{nonce:08x}"
    here, disk = server.path(f"{STATE}/{name}"), server.path(server.disk)
    here.mkdir(parents=True)
    here.parent.chmod(0o700)
    (here / "facts").touch()
    file = disk / f"smmu-kdump-kit-{name}"
    marker = f"smmu-kdump-kit: crash {name}"
    told = {"id": name, "nonce": nonce, "marker": marker, "host": server.host, "release": server.release,
            "boot": server.text("/proc/sys/kernel/random/boot_id"), "reads": server.reads,
            "file": f"{server.disk}/{file.name}", "when": time.time(), "before": dumps(server)}
    if heard:
        told["frames"] = {**heard.told(), "ahead": ahead(server)}
    try:
        write(here / RUN, json.dumps(told, indent=2) + "\n")
        blocks(nonce, file, server.reads)
    except BaseException:
        file.unlink(missing_ok=True)
        shutil.rmtree(here)
        raise
    return here, ["server", str(file), str(server.reads), str(here / "facts"), str(nonce)], marker


def ahead(server: Server) -> float:
    """Seconds of the real-time clock before the system's: the crash kernel sets its own by that.

    It has whole seconds: wait until the next one begins. 0 if there is none."""
    begin, first = time.monotonic(), server.text(RTC)
    while (now := server.text(RTC)) == first and time.monotonic() < begin + 1.5:
        time.sleep(0.005)
    return int(now) - time.time() if now.isdecimal() and now != first else 0.0


def mark(server: Server, marker: str) -> None:
    """Name the crash in the kernel's log."""
    log = os.open(server.path("/dev/kmsg"), os.O_WRONLY | os.O_APPEND)
    os.write(log, f"<2>{marker}\n".encode())
    os.close(log)


def crash(server: Server, workload: Path, told: bool, confirm: str, rehearse: bool) -> int:
    if not rehearse:
        bad = [finding for finding in findings(server) if finding.level == BAD]
        if bad:
            raise Err(f"this machine is not ready: {bad[0].text}", bad[0].next_step)
        confirmed(server, told, confirm)
    if not os.access(workload, os.X_OK):
        raise Err(f"{workload} is not there", "unpack the kit again")
    here: Path | None = None
    try:
        heard = stream.Stream(stream.opened(server.card), server.card) if server.card else None
        here, argv, marker = prepare(server, heard)
        if not rehearse:
            watch_crash_kernel(server, f"{STATE}/{here.name}")
            say(f"crash {here.name}: after the reboot run ./kit collect")
        os.sync()
        if heard:
            heard.still_there()
        if not rehearse:
            mark(server, marker)
        done = subprocess.run([workload, *argv, *["rehearse"] * rehearse])
    finally:
        # Only a rehearsal, or a crash that did not come about, gets here.
        unwatch(server)
        if here:
            server.path(f"{server.disk}/smmu-kdump-kit-{here.name}").unlink(missing_ok=True)
            shutil.rmtree(here)
    if done.returncode:
        raise Err("the workload could not do its reads", "it says why above; fewer --reads may help")
    return 0
