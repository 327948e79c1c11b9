# SPDX-License-Identifier: GPL-2.0-only
"""make distro-test KIT=1: the repro kit, used in the image by its README, judged beside QEMU's trace.

Both kernels have the kit's test-only delay. The kit's verdict, which knows what it collected alone,
must be that of the trace of the same crashes. Then it is lied to, and must not believe it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import re
import socket
import struct
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import common, deps, machine
from ..common import FAIL, Err, flag, run, stage
from ..crash import judge, workload
from ..crash.scenario import SLOW, TRACE
from ..crash.trace import read_trace
from ..queue import config
from ..results import Report, Result, Status, run_directory, table, worst
from . import bmc as bmcs
from . import image as images
from . import kdump
from .bmc import PCIE, Bmc, Change
from .kit import pack
from .kit.collect import THIS_BOOT, VMCORE
from .kit.provoke import RUN
from .kit.server import STATE
from .kit.stream import RATE

# A disk that is not slow; in the crash kernel an AER error, and a CPER record that firmware makes.
LIES = ("fast", "aer", "cper")
SLOW_DISK = 65 << 20            # 64 MiB in sectors of 512 bytes, and 8 more for each
# Of the disk: the 128 reads, of two accesses each, take 43 s. They must outlast the start of the crash
# kernel, not its wait (guest/kit-test): QEMU 10.0 died when such a disk was reset while it read, and 11.1
# stood still.
IOPS = 6
WAIT_S = 5                      # for an answer of a BMC
RULES = (1, 2, 3, 4)            # of the trace; the others look at what the kit does not have
# QEMU finds the memory of a plain read before it waits for the disk; with protection information it
# does so when the data is there, as hardware does.
PROTECTED = ("-device", f"nvme,id=slow-controller,serial=slow,addr={SLOW >> 3:x}",
             "-device", "nvme-ns,drive=slow,bus=slow-controller,ms=8,pi=3")
# A root port that can be given an AER error, and the monitor for that. An error of a card below it is not
# told: in its Device Control the reports of errors are off.
AER = ("-device", "pcie-root-port,id=root-port,addr=8",
       "-chardev", "socket,id=monitor,path=monitor.sock,server=on,wait=off",
       "-mon", "chardev=monitor,mode=control")
# Firmware that makes CPER records. The command for them came with the same QEMU as this device, 10.2.
RAS = ("-machine", "ras=on")
INJECTS = "arm-smmuv3"
PCIE_SECTION = uuid.UUID("d995e954-bbc1-430f-ad91-b44dcb3c6f35")    # UEFI's CPER section of a PCIe error
FILES = ("\n  unpatched/, patched/, …: console.log  trace.log  collected/  after/console.log  "
         "verdict*/ (the kit's reports)")


@dataclass
class Crash:
    """One crash with the kit: what it collected, and what the trace says."""
    collected: Path
    rules: list[Result] = field(default_factory=list)

    @property
    def trace(self) -> Status:
        return worst(self.rules)


def watch(where: Path, argv: Sequence[str], limit: float, patterns: dict[str, str],
          seen: Callable[[machine.Machine, str], None], send: bool = False) -> dict[str, float]:
    """Run a machine to its end; when its console had each pattern, in their order. `send`: what ./kit send
    does on a second machine."""
    found: dict[str, float] = {}
    left = list(patterns.items())
    with machine.Machine(where, argv, limit) as vm, contextlib.ExitStack() as ends:
        vm.bind("host.sock")
        if send:
            nic = vm.connect("nic.sock", socket.SOCK_DGRAM)
            sender = workload.Sender(nic, random.getrandbits(31) | 1, RATE)
            sender.start()
            ends.callback(sender.finish)
        console, at = where / machine.CONSOLE, 0
        while vm.running(0.005):
            if left and console.stat().st_size > at:
                text = console.read_bytes()[at:].decode("latin-1")      # a letter is a byte
                while left and (match := re.search(left[0][1], text)):
                    found[left[0][0]] = time.time()
                    seen(vm, left.pop(0)[0])
                    at, text = at + match.end(), text[match.end():]
        if vm.lost:
            raise Err(f"the machine was given up: {vm.lost}", f"its console: {console}", FAIL)
        if vm.process.returncode:
            raise vm.refused()
    return found


def machine_of(setup: kdump.Distribution, qemu: Sequence[str], name: str) -> list[str]:
    """QEMU's command, with the disk that is read and the root port that errs."""
    speed = "" if name == "fast" else f",throttling.iops-read={IOPS}"
    argv = [re.sub(r",throttling\S*", speed, word) for word in setup.machine(qemu)]
    at = next(number for number, word in enumerate(argv) if word.startswith("nvme,drive=slow"))
    return [*argv[:at - 1], *argv[at + 1:], *PROTECTED, *AER, *(RAS if name == "cper" else ())]


def cper() -> bytes:
    """A generic error status block (ACPI 18.3.2.7.1) of one PCIe error that could be recovered from.

    Its section (UEFI N.2.7) tells of the root port, 0000:00:08.0; it has no AER registers, so that the
    kernel tells of it and resets nothing."""
    port, version, device = 1 << 0, 1 << 1, 1 << 3
    uncorrected, one, recoverable = 1 << 0, 1 << 4, 0
    section = struct.pack("<QIBB2xHH4x", port | version | device, 4, 0, 3, 0, 0)
    section += struct.pack("<HH3sBBHBBHx", 0x1b36, 0x000c, bytes((0, 4, 6)), 0, 8, 0, 0, 0, 0)
    section = section.ljust(208, b"\0")
    entry = PCIE_SECTION.bytes_le + struct.pack("<IHBBI", recoverable, 0x300, 0, 0, len(section)) + bytes(44)
    return struct.pack("<5I", uncorrected | one, 0, 0, len(entry + section), recoverable) + entry + section


def inject(vm: machine.Machine, name: str) -> None:
    """The error of this lie, by QEMU's monitor."""
    commands: dict[str, tuple[str, dict[str, str]]] = {
        "aer": ("human-monitor-command", {"command-line": "pcie_aer_inject_error root-port COMP_TIME"}),
        "cper": ("inject-ghes-v2-error", {"cper": base64.b64encode(cper()).decode()})}
    if name not in commands:
        return
    with vm.connect("monitor.sock", socket.SOCK_STREAM).makefile("rw") as monitor:
        for command, given in (("qmp_capabilities", {}), commands[name]):
            monitor.write(json.dumps({"execute": command, "arguments": given}) + "\n")
            monitor.flush()
            answers = (json.loads(line) for line in monitor)        # and the greeting, and events
            answer = next(one for one in answers if "return" in one or "error" in one)
            if "error" in answer or "rror" in str(answer["return"]):
                raise Err(f"QEMU's monitor does not take {command}: {answer}", code=FAIL)


def crash(where: Path, qemu: Sequence[str], image: images.Image, which: str, kit: Path,
          progress: Callable[[str], None]) -> Crash:
    """The README's steps with one kernel, and with the lie that the directory is named by."""
    setup = kdump.Distribution(config.load("default_defconfig").starting("CRASH_"))
    where.mkdir()
    kdump.disks(where, image, which)
    run(["debugfs", "-w", "-R", f"write {kit} /root/{kit.name}", f"{where}/root.raw?offset={images.OFFSET}"])
    with open(where / "slow.raw", "wb") as disk:
        disk.truncate(SLOW_DISK)

    def seen(vm: machine.Machine, mark: str) -> None:
        progress(mark)
        if mark == "saving":
            inject(vm, where.name)

    argv = machine_of(setup, qemu, where.name)
    marks = watch(where, argv, setup.timeout_s, {"panic": judge.PANIC_TEXT, **kdump.FOLLOW}, seen, True)
    console = (where / machine.CONSOLE).read_text(errors="replace")
    if "shutdown" not in marks:
        raise Err(f"the kit did not crash {image.releases[which]}, or kdump-tools saved nothing",
                  f"its console: {where / machine.CONSOLE}", FAIL)
    memory = [(int(start, 16), int(end, 16)) for start, end in
              re.findall(r"([0-9a-f]{6,})-([0-9a-f]{6,}) : Crash kernel", console)]
    trace = read_trace(where / TRACE, marks["panic"], marks["shutdown"], memory)
    evidence = judge.Evidence(setup, trace, which)
    rules = [Result(which, f"rule {rule.number}: {rule.name}", *rule.judge(evidence)[:2])
             for rule in judge.RULES if rule.number in RULES]
    return Crash(collect(where, qemu, setup, progress), rules)


def collect(where: Path, qemu: Sequence[str], setup: kdump.Distribution,
            progress: Callable[[str], None]) -> Path:
    """The boot after the crash; what the kit has collected in it."""
    (where / "after").mkdir()
    argv = setup.machine(qemu, "../", trace=False)
    marks = watch(where / "after", argv, setup.timeout_s, {"collected": "kit-test: collected"},
                  lambda vm, mark: progress(mark))
    if not marks:
        raise Err("the kit collected nothing", f"its console: {where}/after/{machine.CONSOLE}", FAIL)
    run(["debugfs", "-R", f"rdump /kit {where}", where / "crash.raw"])
    for name in ("root.raw", "crash.raw", "slow.raw"):
        (where / name).unlink()
    (found,) = (where / "kit").glob("2*")
    found.rename(where / "collected")
    run(["fallocate", "--dig-holes", where / "collected/vmcore"], check=False)
    return where / "collected"


def verdict(top: Path, patched: Path, control: Path, out: Path) -> dict[str, Any]:
    """./kit verdict: its result.json."""
    run([top / pack.NAME / "kit", "verdict", "--control", control, "--out", out, patched], check=False)
    found: dict[str, Any] = json.loads((out / "result.json").read_text())
    return found


def said_of(found: dict[str, Any], key: str, name: str) -> tuple[Status, str]:
    result = next(result for result in found[key] if result["name"] == name)
    return Status(result["status"]), result["detail"]


def agreement(found: dict[str, Any], crashes: dict[str, Crash]) -> list[Result]:
    """The kit's verdict beside the trace's, of both kernels."""
    pairs = {"unpatched": said_of(found, "control", "data lands")[0], "patched": Status(found["verdict"])}
    results = []
    for (which, kit), key, wanted in zip(pairs.items(), ("control", "results"), (Status.FAIL, Status.PASS)):
        frames, why = said_of(found, key, "frames land")
        for name, good, said in (
                ("the kit agrees with the trace", kit is wanted and crashes[which].trace is wanted,
                 f"{kit} by the kit, {crashes[which].trace} by the trace"),
                ("frames land", frames is wanted, f"{frames} by the kit: {why}")):
            results.append(Result(which, name, Status.PASS if good else Status.FAIL,
                                  f"{said}; it must be {wanted}"))
    return results


def lie(name: str, found: dict[str, Any], rule: str, wanted: Status) -> Result:
    """The verdict must be as wanted, and by the rule that is there for it."""
    status, why = said_of(found, "results", rule)
    good = status is wanted and found["verdict"] == wanted
    return Result("lies", name, Status.PASS if good else Status.FAIL,
                  f"{found['verdict']}; {rule}: {status}, it must be {wanted}: {why}")


def earlier(top: Path, crashes: dict[str, Crash]) -> Path:
    """The second crash with the vmcore of the first."""
    old = top / "old"
    run(["cp", "-al", crashes["patched"].collected, old])
    (old / VMCORE).unlink()
    (old / VMCORE).hardlink_to(crashes["unpatched"].collected / VMCORE)
    return old


def with_bmc(top: Path, honest: Path, root: Path, change: Change) -> Path:
    """What ./kit collect makes of this crash with such a BMC, in a root that has what the server had."""
    told = json.loads((honest / RUN).read_text())
    here = root / STATE[1:] / str(told["id"])
    dump = root / str(told["collected"]["dumps"][0])[1:]
    files = {"proc/sys/kernel/random/boot_id": told["collected"]["boot"],
             "proc/sys/kernel/osrelease": told["collected"]["release"]}
    for path in (here.parent, dump.parent, root / "dev", *(root / Path(name).parent for name in files)):
        path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name).write_text(f"{text}\n")
    run(["cp", "-al", honest, here])
    (here / VMCORE).rename(dump)
    (here / THIS_BOOT).rename(root / "dev/kmsg")
    with Bmc(told["when"]) as bmc:
        change(bmc)
        run([top / pack.NAME / "kit", "collect", "--root", root, "--bmc", bmc.url, "--bmc-login",
             bmcs.login(root / "login"), "--bmc-wait", str(WAIT_S)])
    return here


# Of a BMC: what it does, and what the verdict must be.
BMCS: dict[str, tuple[Change, Status]] = {
    "a BMC with an old error and a boot since": (lambda bmc: None, Status.PASS),
    "a BMC that has nothing since the crash": (
        lambda bmc: bmc.records((bmc.crash - 60, "Critical", PCIE)), Status.INVALID),
    "a BMC that times out": (lambda bmc: bmc.slow(2 * WAIT_S, 0), Status.INVALID),
    "a BMC that refuses the login": (lambda bmc: bmc.locked(), Status.INVALID),
    "a BMC with an error since": (lambda bmc: bmc.records((bmc.crash + 1, "Critical", PCIE)), Status.FAIL),
}


def lies(top: Path, crashes: dict[str, Crash]) -> Iterator[Result]:
    record = "no error record"
    told = [(earlier(top, crashes), "the vmcore of an earlier crash", "the vmcore is of this crash",
             Status.INVALID)]
    told += [(crashes[name].collected, what, rule, wanted) for name, what, rule, wanted in (
        ("fast", "reads that never were in flight", "reads were in flight", Status.INVALID),
        ("aer", "an AER error in the crash kernel", record, Status.FAIL),
        ("cper", "a CPER record in the crash kernel", record, Status.FAIL)) if name in crashes]
    told += [(with_bmc(top, crashes["patched"].collected, top / f"bmc-{number}", change), name,
              "no event of the BMC", wanted) for number, (name, (change, wanted)) in enumerate(BMCS.items())]
    for number, (patched, name, rule, wanted) in enumerate(told):
        found = verdict(top, patched, crashes["unpatched"].collected, top / f"verdict-{number}")
        yield lie(name, found, rule, wanted)


def crash_all(top: Path, image: images.Image, kit: Path, qemu: Sequence[str]) -> dict[str, Crash]:
    """Both kernels, and a crash for each lie that this machine's QEMUs can tell."""
    crashes = {}
    for name in ("unpatched", "patched", *LIES):
        which = "unpatched" if name == "unpatched" else "patched"
        try:
            command = machine.find(INJECTS)[0] if name == "cper" else qemu
        except machine.NoDevice as err:
            common.say(f"no CPER record is injected: {err.line}")
            continue
        with stage(f"the kit on {image.releases[which]}, {name}") as step:
            crashes[name] = crash(top / name, command, image, which, kit, step.update)
    return crashes


def prove(suite: str, base: str, modules: Path) -> tuple[Report, Path]:
    deps.need("image", "vmcore", "kernel", "uefi")
    image = images.image(suite, base, modules, kit=True)
    qemu, qemu_name = machine.find()
    kit = pack.repro_kit(base)
    top = run_directory("distro-test", f"{base}-{suite}-kit", kdump.SPACE)
    with tarfile.open(kit) as tar:
        tar.extractall(top)
    plain = top / f"{pack.NAME}.tar.gz"
    plain.hardlink_to(kit)
    crashes = crash_all(top, image, plain, qemu)
    with stage("the kit's verdicts"):
        honest = verdict(top, crashes["patched"].collected, crashes["unpatched"].collected, top / "verdict")
        results = [*crashes["patched"].rules, *agreement(honest, crashes), *lies(top, crashes)]
    if "cper" not in crashes:
        results.append(Result("lies", "a CPER record in the crash kernel", Status.SKIPPED,
                              f"{qemu_name} cannot inject it"))
    rows: list[list[str]] = [["", "the kit", "the trace"], []]
    rows += [[which, str(status), str(crashes[which].trace)] for which, status in (
        ("unpatched", said_of(honest, "control", "data lands")[0]), ("patched", honest["verdict"]))]
    said = [f"{result.status:<8} {result.suite}: {result.name}: {result.detail}"
            for result in (*crashes["unpatched"].rules, *results)]
    report = Report("distro-test", f"{base}-{suite}-kit", results, {"qemu": qemu_name, "kit": honest},
                    crashes["unpatched"].rules)
    report.text = "\n".join([f"the repro kit in {suite}, {' and '.join(image.releases.values())}", "",
                             table(rows, left=3), *said, "", (top / "verdict/table.txt").read_text(),
                             str(report.verdict), common.stages()])
    return report, top


def main() -> int:
    """make distro-test"""
    given, kit = os.environ.get("MODULES"), flag("KIT")
    found, top = (prove if kit else kdump.distro_test)(
        images.suite_of(os.environ.get("SUITE", "")), os.environ.get("BASE") or config.load().base,
        Path(given).expanduser() if given else images.MODULES)
    return found.show(top, FILES if kit else kdump.FILES)
