# SPDX-License-Identifier: GPL-2.0-only
"""What is crashed and how: the values of Kconfig's menu "Crash scenario", and what follows from them.

A Scenario goes whole from the configuration to whatever it acts on (the machine's command, the
kernels' command lines, the guest, the workload) and to the rule that needs it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import machine
from ..common import USAGE, Err
from ..queue.config import Value

SETTLE_MS = 100                 # that the crash kernel is held after the SMMU's probe: frames fall there
RING = 3500                     # frames that the network card's ring may be asked to hold
TRACE = "trace.log"
DTB = "machine.dtb"
SMMU_DEVICE = "arm-smmuv3"      # of which a machine can have several; without it the board has one
RESERVE = "160M"                # Kconfig's default
MAX_SEED = 1000000000           # Kconfig's range
DAMAGE_CRASH_MEMORY = "crash-memory"
# Of UEFI's memory map, as the kernel prints it with efi=debug
EFI_REGION = re.compile(r"efi:   (0x[0-9a-f]+)-0x[0-9a-f]+ \[([^|]*?) *\|")
# When the crashed kernel panics: smmu-kdump-test.c, and for the storm guest/init.c
MOMENTS = ("", "cr0", "cmdq_err", "cmdq_full", "storm", "interrupt", "nmi", "hang", "deaf", "oops",
           "suspend")
L1_INDEX, L1_SPAN = 5, 9        # the first that is damaged: StreamIDs 0x500 to 0x5ff, unused
NIC, SLOW, DUMP = 0x8, 0x10, 0x18
# StreamID -> what it is in the table: bus 0, device = StreamID / 8
DEVICES = {NIC: "NIC", SLOW: "slow NVMe", DUMP: "dump NVMe"}


class Scenario:
    """CONFIG_CRASH_X of Kconfig is `x`, with the type that it has there."""

    if TYPE_CHECKING:
        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, values: Mapping[str, Value]) -> None:
        self.values = dict(values)
        self.__dict__.update(values)
        damage = str(values["damage"])
        self.damage_region = bool(re.fullmatch(r"[A-Z][A-Za-z ]+", damage))
        if not (damage in ("", DAMAGE_CRASH_MEMORY) or self.damage_region
                or re.fullmatch(r"0x[0-9a-f]{1,10}[048c]000", damage)):
            raise Err(f"CONFIG_CRASH_DAMAGE={damage}: neither {DAMAGE_CRASH_MEMORY} nor an address at a "
                      "multiple of 0x4000 nor a type of UEFI's regions", "make menuconfig", USAGE)
        if self.damage_region and not self.uefi:
            raise Err(f"CONFIG_CRASH_DAMAGE={damage}: there are such regions with CONFIG_CRASH_UEFI=y alone",
                      "make menuconfig", USAGE)

        if self.not_coherent and self.uefi:
            raise Err("CONFIG_CRASH_NOT_COHERENT=y is of a device tree, and CONFIG_CRASH_UEFI=y has none",
                      "make menuconfig", USAGE)
        try:
            re.compile(str(values["seen"]))
        except re.error as err:
            raise Err(f"CONFIG_CRASH_SEEN={values['seen']}: no regular expression: {err}", "make menuconfig",
                      USAGE) from err
        if values["moment"] not in MOMENTS:
            raise Err(f"CONFIG_CRASH_MOMENT={values['moment']}: no such moment",
                      "one of: " + " ".join(MOMENTS[1:]), USAGE)

    @property
    def reads(self) -> int:
        """Reads for as long as the crash kernel takes to come to its disks, but not much longer:
        what is left over holds up its own first reads."""
        milliseconds = 2000 + 3000 * self.need_reads + 3000 * (self.moment == "hang") + self.delay_ms
        return int(min(max(self.read_iops * milliseconds // 1000, 4), 256))

    @property
    def frames(self) -> int:
        """Frames a second, no more than the ring holds until the crash kernel comes to the card:
        a full ring proves nothing."""
        return int(min(self.frame_rate, RING * 1000 // (2000 + self.delay_ms)))

    def first_cmdline(self) -> str:
        words = ["efi=debug"] if self.damage_region else []
        return " ".join([f"console=ttyAMA0 crashkernel={self.reserve} panic=20", *words,
                         self.cmdline_first]).rstrip()

    def crash_cmdline(self) -> str:
        words = ["console=ttyAMA0 earlycon=pl011,0x9000000 ignore_loglevel nr_cpus=1 reset_devices"]
        words += [f"smmu_kdump_test.delay_ms={self.delay_ms}"] if self.delay_ms else []
        words += ["smmu_kdump_test.die=1 panic=1"] if self.second_panic else []
        return " ".join([*words, f"smmu_kdump_test.settle_ms={SETTLE_MS}", self.cmdline_crash]).rstrip()

    def descriptor(self, crash_memory: Sequence[Sequence[str]], console: str) -> int | None:
        """The L1 descriptor that is written before the panic: a full L2 table at the damaged address."""
        start = crash_memory[0][0] if self.damage == DAMAGE_CRASH_MEMORY else self.damage
        if self.damage_region:
            regions = EFI_REGION.findall(console)
            start = next((where for where, kind in regions
                          if kind == self.damage and int(where, 0) % 0x4000 == 0), "")
            if not start:
                raise Err(f"CONFIG_CRASH_DAMAGE={self.damage}: the machine has no such region",
                          "choose one of: " + ", ".join(sorted({kind for _, kind in regions})), USAGE)
        return int(start, 0) | L1_SPAN if start else None

    @property
    def pages(self) -> dict[str, int]:
        """Bytes of a page, of each of the kernels, where they are not all like the default."""
        if not (self.first_kernel or self.flavour):
            return {}
        crash = "64k" if self.flavour == "64k" else "4k"
        first = "64k" if "64k" in self.first_kernel.split() else "4k" if self.first_kernel else crash
        return {which: int(size[:-1]) << 10 for which, size in (("first", first), ("crash", crash))}

    @property
    def more(self) -> int:
        """Other disks behind the SMMU, which are read, too."""
        return str(self.devices).count(",drive=")

    @property
    def more_past_smmu(self) -> bool:
        """Do they DMA past the SMMU? Then only interrupts go through it, and virtio sends few."""
        return "virtio-blk-pci" in self.devices and "iommu_platform=on" not in self.devices

    @property
    def more_mapped_early(self) -> bool:
        """QEMU's AHCI controller has the memory of a request translated when that begins, so before the
        panic: after it only interrupts go through the SMMU."""
        return "ide-hd" in self.devices

    @property
    def damages(self) -> int:
        """How often chance strikes."""
        return int(1 + self.chaos // 2 % 4)     # as often with each firmware

    def command(self, qemu: Sequence[str], image: Path, initrd: Path) -> list[str]:
        """QEMU's command; its disks and sockets are those of workload.py."""
        smmu = "" if self.needs == SMMU_DEVICE else ",iommu=smmuv3"
        board = f"virt{smmu},gic-version=3,its=on" + ",virtualization=on" * self.vhe
        return [
            *machine.command(qemu, image, self.first_cmdline(), machine=board, memory=self.ram,
                             cpu="max,pauth-impdef=on" if self.vhe else machine.CPU),
            *(["-bios", machine.FIRMWARE] if self.uefi else []),
            *(["-dtb", DTB] if self.not_coherent else []),
            "-msg", "timestamp=on", "-D", TRACE, "-d", "guest_errors,trace:smmuv3_*", "-initrd", str(initrd),
            "-netdev", "dgram,id=n0,local.type=unix,local.path=nic.sock,"
                       "remote.type=unix,remote.path=host.sock",
            "-device", f"e1000e,netdev=n0,addr={NIC >> 3:x},romfile=",
            "-drive", "file=slow.raw,if=none,id=d0,format=raw,cache=none,"
                      f"throttling.iops-read={self.read_iops}",
            "-device", f"nvme,drive=d0,serial=slow,addr={SLOW >> 3:x}",
            "-drive", "file=vmcore,if=none,id=d1,format=raw,cache=unsafe",
            "-device", f"nvme,drive=d1,serial=dump,addr={DUMP >> 3:x}",
            "-drive", "file=slow.raw,if=none,id=more,format=raw,snapshot=on,file.locking=off,"
                      f"throttling.iops-read={self.read_iops}",
            *shlex.split(self.devices),
            "-chardev", "socket,id=verdict,path=verdict.sock,server=on,wait=off",
            "-global", "virtio-mmio.force-legacy=false", "-device", "virtio-serial-device",
            "-device", "virtserialport,chardev=verdict,name=verdict",
        ]
