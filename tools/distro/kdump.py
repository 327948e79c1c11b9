# SPDX-License-Identifier: GPL-2.0-only
"""make distro-test: crash the image's kernels, the distribution's own beside the one with the series.

    SUITE=, BASE=, MODULES=     as for make distro-image

Each boots by UEFI, GRUB and systemd with its root, /var/crash and the disk that is read behind the
SMMU; kdump-tools saves the dump and reboots. That reboot is a new start of QEMU on the same disks,
without the trace, in which the distribution must find its dump. The judge is the crash test's.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .. import common, deps, machine
from ..common import TOP, Err, run, stage
from ..crash import judge, report, workload
from ..crash.scenario import DUMP, NIC, RESERVE, SLOW, TRACE, Scenario
from ..queue import archive, config
from ..results import Report, Result, Status, run_directory
from . import image as images
from .kit.dump import wrong

SPACE = 6 << 30
ROOT = 0x20                     # the StreamID of the root disk
CRASH_DISK = 4 << 30            # sparse; the dump is all of the memory
LIMIT_S = 2400
READS = 128                     # for half a minute; what is left at the reset holds up the disk's next reads
# What kdump-tools says: that it saves; the date, right before it reboots without more ado.
FOLLOW = {"saving": r"running (cp|makedumpfile -\w.*) /proc/vmcore",
          "shutdown": r"kdump-tools\[\d+\]: \w+, \d+ \w+ \d{4} "}
FILES = ("\n  unpatched/, patched/: console.log  trace.log  vmcore  after/console.log  "
         "qemu.sh (the exact command)")


class Distribution(Scenario):
    """The default crash, in a distribution: all takes longer, and so must the ring and the reads last."""

    def __init__(self, values: Mapping[str, config.Value]) -> None:
        super().__init__({**values, "uefi": True, "ram": "1G", "reserve": "", "read_iops": 4,
                          "frame_rate": 40, "timeout_s": LIMIT_S})
        self.reserve = RESERVE      # not asked for its free memory: the kernels' configurations differ

    def crash_cmdline(self) -> str:
        """kdump-tools makes it."""
        return ""

    @property
    def reads(self) -> int:
        return READS

    @property
    def frames(self) -> int:
        return int(self.frame_rate)

    def machine(self, qemu: Sequence[str], disks: str = "", trace: bool = True) -> list[str]:
        """QEMU's command; `disks` is the way to the directory that has them."""
        # Slow only where it matters: the firmware and udev read it, too.
        slow = f",throttling.iops-read={self.read_iops}" if trace else ""
        drives = (("root.raw", "root", ROOT, "cache=unsafe"),
                  ("crash.raw", "dump", DUMP, "cache=unsafe,discard=unmap,detect-zeroes=unmap"),
                  ("slow.raw", "slow", SLOW, f"cache=none{slow}"))
        return [
            *machine.command(qemu, None, machine="virt,iommu=smmuv3,gic-version=3,its=on", memory=self.ram),
            "-bios", machine.FIRMWARE,
            *(["-msg", "timestamp=on", "-D", TRACE, "-d", "guest_errors,trace:smmuv3_*"] if trace else []),
            *(word for file, name, sid, options in drives for word in (
                "-drive", f"file={disks}{file},if=none,id={name},format=raw,{options}",
                "-device", f"nvme,drive={name},serial={name},addr={sid >> 3:x}"
                           + ",bootindex=0" * (name == "root"))),
            "-netdev", "dgram,id=n0,local.type=unix,local.path=nic.sock,"
                       "remote.type=unix,remote.path=host.sock",
            "-device", f"e1000e,netdev=n0,addr={NIC >> 3:x},romfile=",
            "-chardev", "socket,id=verdict,path=verdict.sock,server=on,wait=off",
            "-global", "virtio-mmio.force-legacy=false", "-device", "virtio-serial-device",
            "-device", "virtserialport,chardev=verdict,name=verdict",
        ]


def choose(disk: Path, release: str) -> None:
    """Let GRUB boot this kernel: write its environment block, whose place debugfs knows."""
    said = run(["debugfs", "-R", "bmap /boot/grub/grubenv 0", f"{disk}?offset={images.OFFSET}"]).stdout
    if not said.strip().isdecimal() or not int(said):
        raise Err(f"{disk} has no /boot/grub/grubenv", "make distro-image UPDATE=1")
    head = f"# GRUB Environment Block\nsaved_entry=gnulinux-{release}-advanced-{images.UUID}\n"
    with open(disk, "r+b") as file:
        file.seek(images.OFFSET + int(said) * 4096)
        file.write(head.encode().ljust(1024, b"#"))


def disks(where: Path, image: images.Image, which: str) -> None:
    """The root, which boots this kernel, and an empty disk for the dump."""
    run(["cp", "--sparse=always", image.path, where / "root.raw"])
    choose(where / "root.raw", image.releases[which])
    with open(where / "crash.raw", "wb") as disk:
        disk.truncate(CRASH_DISK)
    run(["mke2fs", "-q", "-t", "ext4", "-L", "crash", where / "crash.raw"])


def crash(where: Path, qemu: Sequence[str], image: images.Image, which: str, setup: Distribution,
          progress: Callable[[str], None]) -> workload.Run:
    """Crash one kernel; the reboot after it; the dump, taken out of its disk."""
    disks(where, image, which)
    ran = workload.boot(where, setup.machine(qemu), setup, progress, FOLLOW)
    (where / "vmcore").unlink()
    if ran.mark("saving") is not None and not ran.lost:
        after(where, qemu, setup, ran, progress)
    for name in ("root.raw", "crash.raw"):
        (where / name).unlink()
    return ran


def after(where: Path, qemu: Sequence[str], setup: Distribution, ran: workload.Run,
          progress: Callable[[str], None]) -> None:
    """The boot after the crash: what it says of its dump is among the run's marks."""
    (where / "after").mkdir()
    argv = setup.machine(qemu, "../", trace=False)
    with machine.Machine(where / "after", argv, setup.timeout_s) as vm:
        vm.bind("host.sock")
        channel = vm.connect("verdict.sock", socket.SOCK_STREAM)
        for line in vm.lines(channel):
            progress(f"after the reboot: {line[:40]}")
            if line.startswith("hello "):       # there is no dump: it would crash again
                break
            if line != "shutdown":
                ran.marks.append((time.time(), line))
    found = ran.facts("found")
    if found:
        name = found[0][2].removeprefix("/var/crash")
        run(["debugfs", "-R", f"dump {name} {where / 'vmcore'}", where / "crash.raw"], check=False)
        size = (where / "vmcore").stat().st_size if (where / "vmcore").exists() else 0
        said = f"{size} bytes of it could be taken out of the disk"
        whole = size == int(found[0][3])
        ran.marks.append((ran.end, f"taken {wrong(where / 'vmcore') if whole else said}"))
        run(["fallocate", "--dig-holes", where / "vmcore"], check=False)
        ran.marks.append((ran.end, f"vmcore 0 {found[0][3]} 0"))


def distribution(ran: workload.Run, which: str, image: images.Image) -> list[Result]:
    """What the crash test does not ask: the reboot, and that the symbols of our packages fit."""
    found, release = ran.facts("found"), image.releases[which]
    told = [words[1] for words in ran.facts("hello")]
    results = []

    def add(name: str, good: bool, said: str, bad: str) -> None:
        results.append(Result(which, name, Status.PASS if good else Status.FAIL, said if good else bad))

    add("the kernel", told == [release], f"{release} was booted by GRUB",
        f"{told or 'nothing'} was booted, not {release}")
    count = found[0][1] if found else "no"
    bad = " ".join(word for words in ran.facts("taken") for word in words)
    add("the reboot", count == "1" and not bad,
        " ".join(("the distribution finds", *found[0][2:])) if found else "",
        f"{count} dumps are found; {bad}" if found else
        "the distribution does not come back, or finds no dump")
    if which == "patched":
        vmlinux = archive.unpack(image.packages.get("image-dbg")) / "usr/lib/debug" / f"vmlinux-{release}"
        said = run([sys.executable, "-m", "tools.distro.symbols", ran.directory / "vmcore", vmlinux],
                   cwd=TOP, check=False)
        good = said.returncode == 0 and json.loads(said.stdout)["release"] == release
        add("the symbols", good, f"drgn with {vmlinux.name}: {said.stdout.strip()}",
            f"drgn: {common.tail(said.stderr, 1).strip() or said.stdout}")
    return results


def distro_test(suite: str, base: str, modules: Path) -> tuple[Report, Path]:
    deps.need("image", "vmcore", "kernel", "uefi")
    image = images.image(suite, base, modules)
    setup = Distribution(config.load("default_defconfig").starting("CRASH_"))
    qemu, name = machine.find()
    top = run_directory("distro-test", f"{base}-{suite}", SPACE)
    runs: dict[str, judge.Judgement] = {}
    for which, release in image.releases.items():
        (top / which).mkdir()
        with stage(f"crashing {suite} with {release}") as step:
            ran = crash(top / which, qemu, image, which, setup, step.update)
        with stage(f"judging {release}"):
            runs[which] = judge.judge_run(ran, which, runs.get("unpatched"))
            runs[which].results += distribution(ran, which, image)
    about = {"qemu": name, "suite": suite, "releases": image.releases, "scenario": setup.values,
             "runs": {which: dataclasses.asdict(judged) for which, judged in runs.items()}}
    found = Report("distro-test", f"{base}-{suite}", runs["patched"].results, about,
                   runs["unpatched"].results)
    found.text = report.page(f"{suite}, {' and '.join(image.releases.values())}", name, setup, runs,
                             found.verdict)
    found.text += common.stages()
    return found, top
