# SPDX-License-Identifier: GPL-2.0-only
"""./kit check: is this machine one on which the crash would prove something, and survive it?

One line for each finding, with the next step. All of it is read; nothing is changed.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...common import ENVIRONMENT, PASS
from ...crash.workload import READ_SIZE
from .dump import ELF, USER_PAGES

GIB, MIB = 1 << 30, 1 << 20
SMALL = 256 * MIB               # a crash kernel of a distribution wants more
OK, NOTE, BAD = "ok", "note", "BAD"
STATE = "/var/lib/smmu-kdump-kit"
KDUMP_TOOLS = "/etc/default/kdump-tools"
MAKEDUMPFILE = ("/usr/bin/makedumpfile", "/usr/sbin/makedumpfile")
HEST_SIZES = {2: 20, 6: 48, 7: 44, 8: 56, 9: 64, 10: 92}      # of ACPI's HEST; 0, 1 and 11 vary
AER_SOURCES = (6, 7, 8)
IORT_SMMUV3 = 4


@dataclass(frozen=True)
class Finding:
    level: str
    text: str
    next_step: str = ""

    def __str__(self) -> str:
        return f"{self.level:<5}{self.text}" + (f"\n     next: {self.next_step}" if self.next_step else "")


@dataclass(frozen=True)
class Server:
    """The files of a machine, this one's or below a root; what is to be read there."""
    root: Path
    reads: int = 0
    disk: str = STATE           # the directory of the file that is read
    card: str = ""              # the network card that hears the stream

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def text(self, name: str, fallback: str = "") -> str:
        try:
            return self.path(name).read_text(errors="replace").strip()
        except OSError:
            return fallback

    def data(self, name: str) -> bytes:
        try:
            return self.path(name).read_bytes()
        except OSError:
            return b""

    def glob(self, pattern: str) -> list[Path]:
        return sorted(self.root.glob(pattern.lstrip("/")))

    @property
    def host(self) -> str:
        return self.text("/proc/sys/kernel/hostname", "unknown")

    @property
    def release(self) -> str:
        return self.text("/proc/sys/kernel/osrelease", "unknown")

    def free(self, name: str) -> int:
        """Bytes, where this directory is or would be."""
        found = os.statvfs(self.there(name))
        return found.f_bavail * found.f_frsize

    def there(self, name: str) -> Path:
        """This directory, or the nearest one above it that there is."""
        path = self.path(name)
        while not path.exists():
            path = path.parent
        return path

    def memory(self) -> int:
        match = re.search(r"MemTotal:\s*(\d+) kB", self.text("/proc/meminfo"))
        return int(match[1]) << 10 if match else 0


def architecture(server: Server) -> Iterator[Finding]:
    arch = server.text("/proc/sys/kernel/arch") or os.uname().machine
    if arch != "aarch64":
        yield Finding(BAD, f"this is a machine of {arch}", "run the kit on an arm64 server")
    else:
        yield Finding(OK, f"arm64, kernel {server.release}")


def _iort(table: bytes) -> list[int]:
    """The types of the nodes in ACPI's IORT."""
    found: list[int] = []
    if len(table) >= 44:
        count, at = struct.unpack_from("<II", table, 36)
        while len(found) < count and at + 3 <= len(table):
            kind, length = struct.unpack_from("<BH", table, at)
            found.append(kind)
            at += max(length, 1)
    return found


def smmu(server: Server) -> Iterator[Finding]:
    found = server.glob("/sys/class/iommu/smmu3*")
    behind = sum(len(list(path.glob("devices/*"))) for path in found)
    if found and behind:
        yield Finding(OK, f"{len(found)} SMMUv3 on, with {behind} devices behind them")
    elif found:
        yield Finding(BAD, f"{len(found)} SMMUv3 and no device behind them",
                      "look for iommu in the kernel's log; the firmware's IORT may map no device")
    elif IORT_SMMUV3 in _iort(server.data("/sys/firmware/acpi/tables/IORT")):
        yield Finding(BAD, "the firmware tells of an SMMUv3 and the kernel does not use it",
                      "look for arm-smmu-v3 in the kernel's log: is CONFIG_ARM_SMMU_V3 set, is it bound?")
    elif server.glob("/sys/class/iommu/*"):
        yield Finding(BAD, "the IOMMU of this machine is no SMMUv3", "the series is for SMMUv3 alone")
    else:
        yield Finding(BAD, "no SMMU: this machine has none, or its firmware has turned it off",
                      "look for SMMU or IOMMU in the firmware's setup and turn it on")


def domains(server: Server) -> Iterator[Finding]:
    types = [server.text(str(path.relative_to(server.root)))
             for path in server.glob("/sys/kernel/iommu_groups/*/type")]
    said = ", ".join(f"{types.count(kind)} {kind}" for kind in sorted(set(types)))
    if types and set(types) == {"identity"}:
        yield Finding(NOTE, f"IOMMU domains: {said}: DMA bypasses, by stream-table entries that are adopted",
                      "for translated DMA boot without iommu.passthrough=1")
    elif types:
        yield Finding(OK, f"IOMMU domains: {said}")
    else:
        yield Finding(NOTE, "no IOMMU group tells its default domain")


def _devices(path: Path) -> list[Path]:
    """A block device, or what it is made of (LVM, RAID, dm-crypt), or the controllers of its NVMe subsystem.

    An NVMe disk that may have several paths is a child of none of its controllers."""
    below = sorted(path.glob("slaves/*")) or sorted(path.parent.glob("slaves/*"))
    if not below:
        above = next((up for up in path.parents if up.name.startswith("nvme-subsys")), path)
        return [link.resolve() for link in sorted(above.glob("nvme*")) if link.is_symlink()] or [path]
    return [device for slave in below for device in _devices(slave.resolve())]


def disk(server: Server) -> Iterator[Finding]:
    where = server.there(server.disk)
    number = where.stat().st_dev
    block = server.path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not block.exists():
        yield Finding(BAD, f"{server.disk} is on no disk of this machine",
                      "--on DIRECTORY, one that is on an NVMe disk of this machine")
        return
    for path in _devices(block.resolve()):
        behind = next((above for above in path.parents if (above / "iommu_group").exists()), None)
        if behind:
            yield Finding(OK, f"{server.disk} is on {path.name}, which is behind the SMMU ({behind.name})")
        else:
            yield Finding(BAD, f"{server.disk} is on {path.name}, which is not behind an SMMU",
                          "--on DIRECTORY, one that is on another disk")


def card(server: Server) -> Iterator[Finding]:
    if not server.card:
        return
    path = server.path(f"/sys/class/net/{server.card}/device")
    if not path.exists():
        yield Finding(BAD, f"{server.card} is no network card of this machine", "--frames CARD; ip link")
    elif not (path / "iommu_group").exists():
        yield Finding(BAD, f"{server.card} is not behind an SMMU", "--frames CARD, another one")
    elif not int(server.text(f"/sys/class/net/{server.card}/flags", "0"), 0) & 1:
        yield Finding(BAD, f"{server.card} is down", f"ip link set {server.card} up")
    else:
        yield Finding(OK, f"{server.card} is behind the SMMU ({path.resolve().name})")


def kdump(server: Server) -> Iterator[Finding]:
    size = int(server.text("/sys/kernel/kexec_crash_size", "0"))
    cmdline = server.text("/proc/cmdline")
    if not size:
        yield Finding(BAD, "no memory is reserved for a crash kernel",
                      "put crashkernel=512M into GRUB_CMDLINE_LINUX of /etc/default/grub, then: "
                      "update-grub; reboot")
    elif size < SMALL:
        yield Finding(NOTE, f"crashkernel: {size // MIB} MiB, which is little", "crashkernel=512M")
    else:
        yield Finding(OK, f"crashkernel: {size // MIB} MiB")
    if re.search(r"\bcrashkernel=\S+,cma", cmdline):
        yield Finding(BAD, "crashkernel=…,cma: with it nothing is adopted", "reserve without ,cma")
    if server.text("/sys/kernel/kexec_crash_loaded") == "1":
        yield Finding(OK, "kdump: a crash kernel is loaded")
    else:
        yield Finding(BAD, "kdump: no crash kernel is loaded",
                      "install kdump-tools, then: kdump-config load; kdump-config show")


def level(server: Server) -> Iterator[Finding]:
    """The reads land in user pages, which kdump-tools' own level (31) leaves out."""
    lines = re.findall(r"""(?m)^\s*MAKEDUMP_ARGS=["']?(.*?)["']?\s*$""", server.text(KDUMP_TOOLS))
    lines += re.findall(r"(?m)^\s*core_collector\s+(.*)$", server.text("/etc/kdump.conf"))
    told = re.search(r"-d\s*([\d,]+)", lines[-1] if lines else "-d 31")
    levels = [int(word) for word in told[1].split(",") if word] if told else [0]
    if any(number & USER_PAGES for number in levels):
        yield Finding(BAD, f"makedumpfile leaves user pages out (-d {told[1] if told else 0}): the dump "
                      "would not have what the reads bring",
                      'set MAKEDUMP_ARGS="-c -d 17" in /etc/default/kdump-tools, then: kdump-config reload')
    else:
        yield Finding(OK, f"makedumpfile keeps user pages (-d {told[1] if told else 0})")
    if "CONFIG_ARM64_VA_BITS=52" in server.text(f"/boot/config-{server.release}") and any(
            server.data(name).startswith(ELF) for name in MAKEDUMPFILE):
        yield Finding(BAD, "this kernel has virtual addresses of 52 bits, which makedumpfile refuses (1.7.6; "
                      "no other was tried): the dump would be empty",
                      "copy all of the memory in its place: README, step 1")


def room(server: Server) -> Iterator[Finding]:
    needs = [("the dump", "/var/crash", server.memory()),
             ("the file that is read", server.disk, server.reads * READ_SIZE)]
    if len({server.there(name).stat().st_dev for name in ("/var/crash", STATE)}) > 1:
        needs.append(("a copy of the dump", STATE, server.memory()))
    for what, where, need in needs:
        free = server.free(where)
        said = f"{where} has {free / GIB:.1f} GiB free"
        next_step = f"free some space in {where}"
        if "copy" in what:
            next_step = f"mkdir /var/crash/kit; ln -s /var/crash/kit {STATE}: on one disk none is made"
        if "dump" in what and need // 4 < free < need:
            yield Finding(NOTE, f"{said}; {what} may take as much as the memory, {need / GIB:.1f} GiB",
                          next_step)
        elif free < need:
            yield Finding(BAD, f"{said}, {what} takes {need / GIB:.1f} GiB", next_step)
        else:
            yield Finding(OK, f"{said} for {what}")


def hest(table: bytes) -> tuple[int, int, bool]:
    """ACPI's HEST: sources of AER that firmware handles first; generic sources; whether all was read."""
    first = generic = 0
    if len(table) < 40:
        return 0, 0, not table
    count, at = struct.unpack_from("<I", table, 36)[0], 40
    for _ in range(count):
        if at + 8 > len(table):
            return first, generic, False
        kind, _, _, flags = struct.unpack_from("<HHHB", table, at)
        if kind not in HEST_SIZES:
            return first, generic, False
        first += kind in AER_SOURCES and flags & 1
        generic += kind in (9, 10)
        at += HEST_SIZES[kind]
    return first, generic, True


def firmware_first(server: Server) -> Iterator[Finding]:
    table = "/sys/firmware/acpi/tables/HEST"
    first, generic, whole = hest(server.data(table))
    if server.path(table).exists() and not server.data(table):
        yield Finding(NOTE, "ACPI's HEST cannot be read", "run it as root")
        return
    if first:
        yield Finding(NOTE, f"PCIe errors go to the firmware first ({first} sources in ACPI's HEST): it may "
                      "reset the machine by itself, and tells by CPER records",
                      "if there is a BMC, let collect read its event log (--bmc)")
    elif generic:
        yield Finding(OK, f"PCIe errors go to the kernel (AER); HEST has {generic} sources of CPER records")
    else:
        yield Finding(OK, "PCIe errors go to the kernel (AER); no source of CPER records")
    if not whole:
        yield Finding(NOTE, "ACPI's HEST could not be read to its end")


def pstore(server: Server) -> Iterator[Finding]:
    backend = server.text("/sys/module/pstore/parameters/backend", "(null)")
    old = server.glob("/sys/fs/pstore/*")
    if backend in ("(null)", ""):
        yield Finding(NOTE, "pstore has no backend: if there is no dump, no log is left",
                      "modprobe efi_pstore, or ramoops")
    else:
        yield Finding(OK, f"pstore keeps logs in {backend}")
    if old:
        yield Finding(NOTE, f"pstore has {len(old)} old files", "move them away: there must be room")


def series(server: Server) -> Iterator[Finding]:
    symbols = server.text("/proc/kallsyms")
    has = all(name in symbols for name in (" arm_smmu_is_attach_deferred", " iommu_dma_request_msi"))
    yield Finding(OK, "the kernel that runs " + ("has the series: it is the one to try" if has else
                                                 "does not have the series: it is the control"))
    why = "a read that does not land may as well have been ended by its driver's reset, and proves nothing"
    if not server.path("/sys/module/smmu_kdump_test").exists():
        yield Finding(NOTE, f"the kernel that runs has no test-only delay: {why}", "README, \"The delay\"")
    elif not re.search(r"(?m)^\s*KDUMP_CMDLINE_APPEND=.*\bsettle_ms=0*[1-9]", server.text(KDUMP_TOOLS)):
        yield Finding(NOTE, f"the crash kernel is not told to wait: {why}",
                      f"smmu_kdump_test.settle_ms=5000 in KDUMP_CMDLINE_APPEND of {KDUMP_TOOLS}, then: "
                      "kdump-config reload")
    else:
        yield Finding(OK, "the crash kernel waits after the SMMU's probe")


CHECKS: tuple[Callable[[Server], Iterator[Finding]], ...] = (
    architecture, smmu, domains, disk, card, kdump, level, room, firmware_first, pstore, series)


def findings(server: Server) -> list[Finding]:
    return [finding for look in CHECKS for finding in look(server)]


def check(server: Server) -> int:
    found = findings(server)
    bad = sum(finding.level == BAD for finding in found)
    print("\n".join(map(str, found)))
    print(f"\n{server.host}: " + (f"not ready: {bad} of these must be mended" if bad else "ready"))
    return ENVIRONMENT if bad else PASS
