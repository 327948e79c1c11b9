# SPDX-License-Identifier: GPL-2.0-only
"""make distro-test KIT=1: the repro kit, used in the image by its README, judged beside QEMU's trace.

Both kernels have the kit's test-only delay. The kit's verdict, which knows what it collected alone,
must be that of the trace of the same crashes. Then it is lied to, and must not believe it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import common, machine
from ..common import FAIL, Err, flag, run, stage
from ..crash import judge
from ..crash.scenario import SLOW, TRACE
from ..crash.trace import read_trace
from ..queue import config, deps
from ..results import Report, Result, Status, run_directory, table, worst
from . import image as images
from . import kdump
from .kit import pack

LIES = ("fast", "aer")          # a disk that is not slow; an AER error in the crash kernel
SLOW_DISK = 65 << 20            # 64 MiB in sectors of 512 bytes, and 8 more for each
RULES = (1, 2, 3, 4)            # of the trace; the others look at what the kit does not have
# QEMU finds the memory of a plain read before it waits for the disk; with protection information it
# does so when the data is there, as hardware does.
PROTECTED = ("-device", f"nvme,id=slow-controller,serial=slow,addr={SLOW >> 3:x}",
             "-device", "nvme-ns,drive=slow,bus=slow-controller,ms=8,pi=3")
# A network card that can be given an AER error, and the monitor for that.
AER = ("-device", "pcie-root-port,id=root-port,addr=8", "-device", "e1000e,id=card,bus=root-port,romfile=",
       "-chardev", "socket,id=monitor,path=monitor.sock,server=on,wait=off",
       "-mon", "chardev=monitor,mode=readline")
INJECT = b"pcie_aer_inject_error card COMP_TIME\n"
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
          seen: Callable[[machine.Machine, str], None]) -> dict[str, float]:
    """Run a machine to its end; when its console had each pattern, in their order."""
    found: dict[str, float] = {}
    left = list(patterns.items())
    with machine.Machine(where, argv, limit) as vm:
        vm.bind("host.sock")
        console, at = where / machine.CONSOLE, 0
        while vm.running(0.005):
            if left and console.stat().st_size > at:
                text = console.read_bytes()[at:].decode(errors="replace")
                while left and (match := re.search(left[0][1], text)):
                    found[left[0][0]] = time.time()
                    seen(vm, left.pop(0)[0])
                    at, text = at + len(text[:match.end()].encode()), text[match.end():]
        if vm.lost:
            raise Err(f"the machine was given up: {vm.lost}", f"its console: {console}", FAIL)
    return found


def machine_of(setup: kdump.Distribution, qemu: Sequence[str], fast: bool) -> list[str]:
    """QEMU's command, with the disk that is read and the card that errs."""
    argv = [re.sub(r",throttling\S*", "", word) if fast else word for word in setup.machine(qemu)]
    at = next(number for number, word in enumerate(argv) if word.startswith("nvme,drive=slow"))
    return [*argv[:at - 1], *argv[at + 1:], *PROTECTED, *AER]


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
        if mark == "saving" and where.name == "aer":
            vm.connect("monitor.sock", socket.SOCK_STREAM).sendall(INJECT)

    argv = machine_of(setup, qemu, where.name == "fast")
    marks = watch(where, argv, setup.timeout_s, {"panic": judge.PANIC_TEXT, **kdump.FOLLOW}, seen)
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


def status_of(found: dict[str, Any], key: str, name: str) -> Status:
    return next(Status(result["status"]) for result in found[key] if result["name"] == name)


def agreement(found: dict[str, Any], crashes: dict[str, Crash]) -> list[Result]:
    """The kit's verdict beside the trace's, of both kernels."""
    pairs = {"unpatched": status_of(found, "control", "data lands"), "patched": Status(found["verdict"])}
    return [Result(which, "the kit agrees with the trace",
                   Status.PASS if kit is wanted and crashes[which].trace is wanted else Status.FAIL,
                   f"{kit} by the kit, {crashes[which].trace} by the trace; it must be {wanted}")
            for (which, kit), wanted in zip(pairs.items(), (Status.FAIL, Status.PASS))]


def lie(name: str, found: dict[str, Any], rule: str, wanted: Status) -> Result:
    """It must not be believed, by the rule that is there for it."""
    status = status_of(found, "results", rule)
    good = status is wanted and found["verdict"] in (Status.FAIL, Status.INVALID)
    return Result("lies", name, Status.PASS if good else Status.FAIL,
                  f"{found['verdict']}; {rule}: {status}, it must be {wanted}")


def lies(top: Path, crashes: dict[str, Crash]) -> list[Result]:
    control, honest = crashes["unpatched"].collected, crashes["patched"].collected
    old = top / "old"
    run(["cp", "-al", honest, old])
    (old / "vmcore").unlink()
    (old / "vmcore").hardlink_to(control / "vmcore")
    told = ((old, "the vmcore of an earlier crash", "the vmcore is of this crash", Status.INVALID),
            (crashes["fast"].collected, "reads that never were in flight", "reads were in flight",
             Status.INVALID),
            (crashes["aer"].collected, "an AER error in the crash kernel", "no error record", Status.FAIL))
    return [lie(name, verdict(top, patched, control, top / f"verdict-{patched.parent.name}-{patched.name}"),
                rule, wanted) for patched, name, rule, wanted in told]


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
    crashes = {}
    for name in ("unpatched", "patched", *LIES):
        which = "unpatched" if name == "unpatched" else "patched"
        with stage(f"the kit on {image.releases[which]}, {name}") as step:
            crashes[name] = crash(top / name, qemu, image, which, plain, step.update)
    with stage("the kit's verdicts"):
        honest = verdict(top, crashes["patched"].collected, crashes["unpatched"].collected, top / "verdict")
        results = [*crashes["patched"].rules, *agreement(honest, crashes), *lies(top, crashes)]
    rows: list[list[str]] = [["", "the kit", "the trace"], []]
    rows += [[which, str(status), str(crashes[which].trace)] for which, status in (
        ("unpatched", status_of(honest, "control", "data lands")), ("patched", Status(honest["verdict"])))]
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
