# SPDX-License-Identifier: GPL-2.0-only
"""The repro kit, unpacked, on a server that is a tree of files: honest crashes, and lies.

The workload is a script that crashes by killing the kit; the test then plays the crash kernel.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tarfile
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .. import deps
from ..common import ENVIRONMENT, FAIL, INVALID, PASS, USAGE, Err
from ..crash import vmcore as crash_vmcore
from ..crash.workload import READ_SIZE, expected_block, frame
from ..distro import bmc as bmcs
from ..distro.kit import collect, dump, pack, provoke, stream, verdict
from ..distro.kit import server as kit_server
from ..distro.kit.provoke import CLOCK
from ..queue.store import Store
from .conftest import TOP, Project, kernel_tree, snapshot
from .test_distro import Usage
from .test_judge import AT, EHDR, a_vmcore

HOST, READS = "crashme", 3
BUFFERS = AT + 8192             # of a_vmcore
LEDGER = BUFFERS + READS * READ_SIZE
STATE = "var/lib/smmu-kdump-kit"
STREAM = 0x1234567              # the nonce of the frames
HEARD = 1.7e9                   # when number 0 of them was sent
BOOT = "6,0,0,-;Booting Linux on physical CPU 0x0000000000 [0x411fd070]\n"
HELD = "6,1,100,-;smmu_kdump_test: holding the crash kernel for 5000 ms, after the SMMU\n"
ADOPTED = ("6,2,90,-;arm-smmu-v3 arm-smmu-v3.0.auto: kdump: adopted the crashed kernel's two-level stream "
           "table: 4 live StreamIDs\n SUBSYSTEM=platform\n")
RESET = "6,2,90,-;arm-smmu-v3 arm-smmu-v3.0.auto: SMMU currently enabled! Resetting...\n"
AER = ("3,9,900,-;pcieport 0000:00:00.0: AER: Uncorrectable (Fatal) error message received from 0000:01:00.0"
       "\n3,9,901,-;nvme 0000:01:00.0: PCIe Bus Error: severity=Uncorrectable (Fatal), type=Transaction "
       "Layer\n")
CPER = ("2,9,900,-;{1}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 1\n"
        "2,9,901,-;{1}[Hardware Error]: event severity: %s\n"
        "2,9,902,-;{1}[Hardware Error]:   section_type: PCIe error\n")
ACPI = b"\0" * 36                # the head of a table
SMMU_V3, NO_SMMU = (struct.pack("<IIBH", 1, 44, kind, 99) for kind in (4, 0))
PANIC = b"Kernel panic - not syncing: sysrq triggered crash"
WORKLOAD = f"""#!/usr/bin/python3
import os, signal, sys
_, file, reads, facts = sys.argv[1:5]
assert os.path.getsize(file) == int(reads) * {READ_SIZE}
with open(facts, "w") as out:
    print("ledger {LEDGER:#x}:0x1000", file=out)
    for index in range(int(reads)):
        at = {BUFFERS} + index * {READ_SIZE}
        print(f"buffer {{index}} {{at:#x}}:0x10000 {{at + 65536:#x}}:0x10000", file=out)
if sys.argv[6:] != ["rehearse"]:
    os.kill(os.getppid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(where))
        return pack.repro_kit("6.12")


@pytest.fixture(scope="module")
def kit(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpacked, with the workload of this test."""
    where = tmp_path_factory.mktemp("kit")
    with tarfile.open(tarball) as tar:
        tar.extractall(where)
    (where / pack.NAME / "workload").write_text(WORKLOAD)
    return where / pack.NAME


def run(kit: Path, *words: str | Path, code: int = 0, typed: str = "") -> str:
    """./kit, from elsewhere and with nothing of the checkout in its environment."""
    done = subprocess.run([kit / "kit", *words], cwd=kit.parent, input=typed, text=True, capture_output=True,
                          env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"})
    said = done.stdout + done.stderr
    assert done.returncode == code, f"{done.returncode}, not {code}: {said}"
    assert "Traceback" not in said
    return said


def as_kdump(elf: bytes, level: int = 17) -> bytes:
    """A vmcore of a_vmcore's as makedumpfile compresses it (its IMPLEMENTATION file has the format)."""
    size, offset = struct.unpack_from("<Q", elf, 64 + 32)[0], EHDR.size + 2 * 56
    note, data, page = elf[offset:offset + size], elf[4096:-4096], 4096
    first, count = AT // page, len(data) // page
    bits = bytearray(-(-(first + count) // (8 * page)) * page)
    for number in range(first, first + count):
        bits[number // 8] |= 1 << number % 8
    head, sub = bytearray(page), bytearray(page)
    head[:8], head[8:12] = b"KDUMP   ", struct.pack("<i", 6)
    for number, word in enumerate((b"Linux", b"crashme", b"6.12.0", b"#1", b"aarch64")):
        struct.pack_into("65s", head, 12 + 65 * number, word)
    last = first + count
    struct.pack_into("<IiiIIIIIIi", head, 424, 0, page, 1, 2 * len(bits) // page, last, 0, 0, 0, 0, 1)
    struct.pack_into("<Qii", sub, 0, 0, level, 0)
    struct.pack_into("<11Q", sub, 16, 0, 0, page + 136, size - 24, page + 112, size, 0, 0, 0, 0, last)
    sub[112:112 + size] = note
    table, pages, at = b"", b"", 2 * page + 2 * len(bits) + 24 * count
    for number in range(count):
        packed = zlib.compress(data[number * page:(number + 1) * page])
        table += struct.pack("<QIIQ", at + len(pages), len(packed), 1, 0)
        pages += packed
    return bytes(head + sub + bits + bits) + table + pages


def flat(data: bytes) -> bytes:
    """As kdump-tools gets it from makedumpfile -F, through a pipe: pieces, and an end."""
    out = b"makedumpfile".ljust(16, b"\0") + struct.pack(">qq", 1, 1)
    out = out.ljust(4096, b"\0")
    for at in range(0, len(data), 1 << 16):
        piece = data[at:at + (1 << 16)]
        out += struct.pack(">qq", at, len(piece)) + piece
    return out + struct.pack(">qq", -1, -1)


def vmcore(run_: dict[str, Any], where: Path, landed: list[int], before: list[int] = [0],
           marker: str = "", frames: range = range(0), before_it: list[bytes] = [],
           after_it: list[bytes] = [], start: int = 4096) -> bytes:
    """Of this crash: these reads had come before the panic, these have come in the end; so have these
    frames, of which number 40 was heard last. In the log these lines come before and after the panic."""
    blocks = [expected_block(run_["nonce"], index) if index in landed else b"\xaa" * READ_SIZE
              for index in range(READS)]
    ledger = struct.pack("<Q", run_["nonce"]) + bytes(index in before for index in range(READS))
    log = b"\n".join((*before_it, (marker or run_["marker"]).encode(), PANIC, *after_it))
    heard = b"".join(stream.record(run_["nonce"], number, HEARD + number / 5) for number in (40, 39))
    buffers = b"".join(frame(STREAM, number).rjust(700, b"x").ljust(2048, b"x") for number in frames)
    a_vmcore(where, b"".join(blocks) + ledger.ljust(4096, b"\0") + heard.ljust(4096, b"\0") + buffers, log,
             start)
    data = where.read_bytes()
    where.unlink()
    return data


class Server:
    """A machine as a tree of files; it is ready."""

    def __init__(self, root: Path, kit: Path) -> None:
        self.root, self.kit, self.boots = root, kit, 0
        files: dict[str, str | bytes] = {
                "proc/sys/kernel/arch": "aarch64\n", "proc/sys/kernel/hostname": f"{HOST}\n",
                "proc/sys/kernel/osrelease": "6.12.1-arm64\n", "proc/cmdline": "crashkernel=512M\n",
                "proc/meminfo": "MemTotal:   1024 kB\n", "proc/kallsyms": "0 t arm_smmu_device_reset\n",
                "sys/kernel/kexec_crash_loaded": "1\n", "sys/kernel/kexec_crash_size": f"{512 << 20}\n",
                "sys/kernel/iommu_groups/3/type": "DMA-FQ\n", "sys/module/smmu_kdump_test/uevent": "",
                "sys/module/pstore/parameters/backend": "efi_pstore\n",
                "sys/class/iommu/smmu3.0x0000000009050000/devices/0000:01:00.0": "",
                "etc/default/kdump-tools": 'USE_KDUMP=1\nMAKEDUMP_ARGS="-c -d 17"\n'
                                           'KDUMP_CMDLINE_APPEND="smmu_kdump_test.settle_ms=5000"\n',
                "dev/kmsg": BOOT, "sys/devices/0000:01:00.0/iommu_group": "",
                "sys/devices/0000:01:00.0/nvme/nvme0n1/size": "",
                "sys/firmware/acpi/tables/HEST": ACPI + struct.pack("<IHHHBB", 1, 6, 0, 0, 1, 1) + bytes(40),
                "sys/firmware/acpi/tables/IORT": ACPI + SMMU_V3}
        for name, content in files.items():
            self.put(name, content)
        number = root.stat().st_dev
        block = root / f"sys/dev/block/{os.major(number)}:{os.minor(number)}"
        block.parent.mkdir(parents=True)
        block.symlink_to("../../devices/0000:01:00.0/nvme/nvme0n1")
        (root / "var/crash").mkdir(parents=True)
        self.boot()

    def put(self, name: str, content: str | bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def boot(self) -> None:
        self.boots += 1
        self.put("proc/sys/kernel/random/boot_id", f"boot-{self.boots}\n")

    def __call__(self, verb: str, *words: str | Path, code: int = 0, typed: str = "") -> str:
        reads = ["--reads", str(READS)] if verb in ("check", "crash") else []
        return run(self.kit, verb, "--root", self.root, *reads, *words, code=code, typed=typed)

    def crashes(self) -> list[Path]:
        return sorted((self.root / STATE).glob("2*"))

    def crash(self) -> Path:
        self("crash", "--crash-this-machine", "--confirm", HOST, code=-signal.SIGKILL)
        return self.crashes()[-1]

    def dumped(self, here: Path, landed: list[int], log: str, form: Callable[[bytes], bytes] = bytes) -> None:
        """What the crash kernel does, and the boot after it."""
        wants = self.root / "etc/systemd/system/kdump-tools-dump.service.wants"
        unit = (wants / "smmu-kdump-kit.service").read_text()
        assert f"cat /dev/kmsg >>/{STATE}/{here.name}/crash-kernel.log'" in unit
        (here / "crash-kernel.log").write_text(f"{CLOCK} {time.time() - 3:.9f} 3.00 5.50\n{log}")
        told = json.loads((here / "run.json").read_text())
        stamp = f"20261127010{self.boots}"
        self.put(f"var/crash/{stamp}/dump.{stamp}", form(vmcore(told, self.root / "tmp", landed)))
        self.put(f"var/crash/{stamp}/dmesg.{stamp}", "the crashed kernel's log\n")
        self.boot()


@pytest.fixture
def server(tmp_path: Path, kit: Path) -> Server:
    return Server(tmp_path / "root", kit)


Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, kit: Path) -> Pair:
    """Both crashes of an honest server, collected: the control's reads are lost, the series' are not."""
    server = Server(tmp_path_factory.mktemp("server") / "root", kit)
    control = server.crash()
    assert f"<2>smmu-kdump-kit: crash {control.name}\n" in (server.root / "dev/kmsg").read_text()
    server.dumped(control, [0], BOOT + RESET + HELD, lambda data: flat(as_kdump(data)))
    server("collect")
    time.sleep(1.1)     # a crash is named by its second
    patched = server.crash()
    server.dumped(patched, [0, 1, 2], BOOT + ADOPTED + HELD)
    said = server("collect")
    assert "vmcore" in said and f"{patched}" in said
    # The kit leaves nothing behind but its directories.
    assert not list((server.root / "etc/systemd/system").rglob("*.service"))
    assert not list((server.root / STATE).glob("smmu-kdump-kit-*"))
    return control, patched


def judged(kit: Path, pair: Pair, out: Path, code: int) -> dict[str, tuple[str, str]]:
    control, patched = pair
    run(kit, "verdict", "--control", control, patched, "--out", out, code=code)
    found = json.loads((out / "result.json").read_text())
    return {result["name"]: (result["status"], result["detail"]) for result in found["results"]}


def bad(rules: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {name: status for name, (status, _) in rules.items() if status not in ("PASS", "SKIPPED")}


def test_an_honest_server(kit: Path, honest: Pair, tmp_path: Path) -> None:
    rules = judged(kit, honest, tmp_path, PASS)
    assert rules["reads were in flight"] == ("PASS", "2 of 3 reads were in flight at the panic")
    assert rules["data lands"] == ("PASS", "2 of 2 reads in flight")
    assert rules["the control fails"] == ("PASS", "without the series: data lands: 0 of 2 reads in flight")
    assert bad(rules) == {}
    text = (tmp_path / "table.txt").read_text()
    assert text.endswith("9 passed, 0 failed, 2 skipped\nPASS\n") and "unpatched" in text
    assert {path.name for path in tmp_path.iterdir()} == {"table.txt", "result.json", "result.ktap",
                                                          "junit.xml", "report.html"}


def test_directories_by_relative_names(kit: Path, honest: Pair, tmp_path: Path) -> None:
    control, patched = (Path(os.path.relpath(path, kit.parent)) for path in honest)
    assert not bad(judged(kit, (control, patched), tmp_path / "verdict", PASS))


def test_every_form_of_a_dump(kit: Path, honest: Pair, tmp_path: Path) -> None:
    """A copy of /proc/vmcore, makedumpfile's, flattened: the same verdict. Cut short: each is seen to be."""
    elf = (honest[1] / "vmcore").read_bytes()
    forms = {"elf": elf, "kdump": as_kdump(elf), "flat": flat(as_kdump(elf)), "flat elf": flat(elf)}
    for name, data in forms.items():
        pair = copy(honest, tmp_path / name)
        (pair[1] / "vmcore").unlink()
        (pair[1] / "vmcore").write_bytes(data)
        assert bad(judged(kit, pair, tmp_path / name / "out", PASS)) == {}, name
        (pair[1] / "vmcore").write_bytes(data[:-5000])
        rules = judged(kit, pair, tmp_path / name / "out", FAIL)
        assert rules["a vmcore was saved"][0] == "FAIL" and "cut short" in rules["a vmcore was saved"][1]
    for data in (b"", b"\x7fELF", b"KDUMP   ", os.urandom(5000), flat(b"")):
        (pair[1] / "vmcore").write_bytes(data)
        assert judged(kit, pair, tmp_path / name / "out", FAIL)["a vmcore was saved"][0] == "FAIL"


def copy(honest: Pair, where: Path) -> Pair:
    where.mkdir(exist_ok=True)
    control, patched = (Path(shutil.copytree(path, where / path.name)) for path in honest)
    return control, patched


def told(here: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((here / "run.json").read_text())
    return found


def tell(here: Path, **changed: Any) -> None:
    run_ = told(here)
    run_["collected"].update(changed)
    (here / "run.json").write_text(json.dumps(run_))


def redump(here: Path, landed: list[int], form: Callable[[bytes], bytes] = bytes, **changed: Any) -> bool:
    (here / "vmcore").unlink()
    (here / "vmcore").write_bytes(form(vmcore(told(here), here / "tmp", landed, **changed)))
    return False


def log(here: Path, text: str, name: str = "crash-kernel.log") -> int:
    with open(here / name, "a") as file:
        return file.write(text)


def relog(here: Path, text: str) -> int:
    clock = (here / "crash-kernel.log").read_text().partition("\n")[0]
    return (here / "crash-kernel.log").write_text(f"{clock}\n{text}")


def died(here: Path) -> bool:
    """There is no dump, and no log."""
    tell(here, dumps=[])
    for name in ("vmcore", "crash-kernel.log"):
        (here / name).unlink()
    return False


def truncated(elf: bytes) -> bytes:
    """makedumpfile has left the user pages out, as it does at -d 31."""
    begin, size = 4096 + 8192, READS * READ_SIZE + 4096
    return as_kdump(elf[:begin] + bytes(size) + elf[begin + size:], 31)


Lie = Callable[[Path, Path], object]
FLIGHT = {"reads were in flight": "INVALID", "data lands": "INVALID"}
OTHER = {"the vmcore is of this crash": "INVALID", **FLIGHT}
NONE = {"a vmcore was saved": "FAIL", "the vmcore opens": "INVALID", **OTHER}
CUT = {"clean logs": "INVALID", "no error record": "INVALID"}
RECORD, CONTROL = {"no error record": "FAIL"}, {"the control fails": "INVALID"}
ADOPTS = "the crash kernel adopts"
EARLIER = "smmu-kdump-kit: crash 20200101-000000-00000001"
TIME_OUT = "3,9,9,-;nvme 0000:01:00.0:    [14] CmpltTO\n"
DROPPED = "3,9,9,-;kdump: adopted stream table dropped, resetting\n"
REFUSED = "3,9,9,-;arm-smmu-v3 arm-smmu-v3.1.auto: kdump: stream table not adopted: out of memory\n"
TOLD = b"pcieport 0000:00:00.0: AER: Uncorrectable (Fatal) error message received from 0000:01:00.0"


def part(here: Path, number: int, text: str) -> int:
    """Of a log in efi_pstore."""
    name = f"pstore-{9 - number}-dmesg-efi_pstore-17645432100{number}001"
    return log(here, f"Panic#1 Part{number}\n{text}\n", name)


# What is changed in what was collected of (control c, patched p); the rules that must not pass then.
LIES: dict[str, tuple[Lie, dict[str, str]]] = {
    "the reads were never in flight": (lambda c, p: redump(p, [0, 1, 2], before=[0, 1, 2]), FLIGHT),
    "the vmcore is an earlier crash's": (lambda c, p: redump(p, [0, 1, 2], marker=EARLIER), OTHER),
    "the control's vmcore": (lambda c, p: shutil.copy(c / "vmcore", p / "vmcore"), OTHER),
    "a read did not land": (lambda c, p: redump(p, [0, 1]), {"data lands": "FAIL"}),
    "a read that its driver may have ended": (
        lambda c, p: redump(p, [0, 1]) or relog(p, BOOT + ADOPTED), {"data lands": "INVALID"}),
    "a read that had come is damaged": (lambda c, p: redump(p, [1, 2]), {"data lands": "FAIL"}),
    "no user pages": (lambda c, p: redump(p, [0, 1, 2], truncated), FLIGHT),
    "an AER error": (lambda c, p: log(p, AER), RECORD),
    "a completion time-out": (lambda c, p: log(p, TIME_OUT), RECORD),
    "a CPER record": (lambda c, p: log(p, CPER % "fatal"), RECORD),
    "a CPER record of the next boot": (lambda c, p: log(p, CPER % "recoverable", "this-boot.log"), RECORD),
    "a CPER record that was corrected": (lambda c, p: log(p, CPER % "corrected"), {}),
    "AER's counters": (lambda c, p: tell(p, aer={"0000:01:00.0 fatal": {"TLP": 1}}), RECORD),
    "corrected ones": (lambda c, p: tell(p, aer={"0000:01:00.0 correctable": {"RxErr": 1}}), {}),
    "an error in pstore": (
        lambda c, p: log(p, f"{told(p)['marker']}\n{AER}", "pstore-dmesg-1"), RECORD),
    "an earlier error in pstore": (lambda c, p: log(p, AER, "pstore-dmesg-1"), {}),
    "a warning": (lambda c, p: log(p, "4,9,9,-;WARNING: CPU: 0 at a.c\n"), {"clean logs": "FAIL"}),
    "it does not adopt": (lambda c, p: relog(p, BOOT + RESET + HELD), {ADOPTS: "FAIL"}),
    "one of two SMMUs is not adopted": (lambda c, p: log(p, REFUSED), {ADOPTS: "FAIL"}),
    "the adoption is dropped": (lambda c, p: log(p, DROPPED), {ADOPTS: "FAIL"}),
    "no log of the crash kernel": (
        lambda c, p: (p / "crash-kernel.log").unlink(),
        {ADOPTS: "INVALID", "clean logs": "INVALID", "no error record": "INVALID"}),
    "a second crash": (lambda c, p: log(p, BOOT + ADOPTED), {ADOPTS: "INVALID"}),
    "a dump that was not finished": (lambda c, p: tell(p, dumps=["/var/crash/1/dump-incomplete"]), NONE),
    "no dump": (lambda c, p: tell(p, dumps=[]), NONE),
    "an AER error after the panic": (lambda c, p: redump(p, [0, 1, 2], after_it=[TOLD]), RECORD),
    "one, and the log's ring begins anew between": (
        lambda c, p: redump(p, [0, 1, 2], start=4096 - 120, after_it=[TOLD]), RECORD),
    "an AER error long before": (
        lambda c, p: redump(p, [0, 1, 2], start=4096 - 120, before_it=[TOLD]), {}),
    "the control's AER error long before": (
        lambda c, p: redump(c, [0, 1, 2], start=4096 - 120, before_it=[TOLD]), CONTROL),
    "a containment event": (lambda c, p: log(
        p, "3,9,9,-;pcieport 0000:00:01.0: DPC: containment event, status:0x1f01 source:0x0000\n"), RECORD),
    "an error in pstore's next part": (lambda c, p: part(p, 2, told(p)["marker"]) + part(p, 1, AER), RECORD),
    "an error in pstore's part before": (lambda c, p: part(p, 2, AER) + part(p, 1, told(p)["marker"]), {}),
    "an error in pstore before it in one part": (
        lambda c, p: log(p, f"{AER}{told(p)['marker']}\n", "pstore-0-dmesg-ramoops-0"), {}),
    "no log of the next boot": (lambda c, p: (p / "this-boot.log").unlink(), {"no error record": "INVALID"}),
    "the end of the next boot's log": (
        lambda c, p: (p / "this-boot.log").write_text("6,900,9,-;late\n"), {"no error record": "INVALID"}),
    "the crash kernel's log is cut short": (
        lambda c, p: tell(p, saved=told(p)["collected"]["saved"] + 20), CUT),
    "and the saving took an hour": (lambda c, p: tell(p, saved=told(p)["collected"]["saved"] + 3600), CUT),
    "its log's last beats": (lambda c, p: tell(p, saved=told(p)["collected"]["saved"] + 10), {}),
    "only the control's frames": (lambda c, p: hear(c, range(41, 111)), CONTROL),
    "the control's dump is empty": (lambda c, p: (c / "vmcore").write_bytes(b""), CONTROL),
    "and its disk was gone": (lambda c, p: (c / "vmcore").write_bytes(b"") * 0 or log(
        c, "3,9,9,-;nvme nvme0: I/O tag 5 timeout, aborting\n"), {}),
    "and its console says so": (lambda c, p: (c / "vmcore").write_bytes(b"") * 0 or log(
        c, "[ 9.0] nvme nvme0: Device not ready; aborting reset, CSTS=0x1\n", "console.log"), {}),
    "and its disk was there": (lambda c, p: (c / "vmcore").write_bytes(b"") * 0 or log(
        c, "6,9,9,-;nvme nvme0: Shutdown timeout set to 10 seconds\n"
           "4,9,9,-;nvme nvme0: I/O 5 QID 1 timeout, completion polled\n"), CONTROL),
    "the control's dump was never finished": (
        lambda c, p: tell(c, dumps=["/var/crash/1/dump-incomplete"]), {}),
    "the control's dump is missing": (lambda c, p: tell(c, dumps=[]), {}),
    "most had come before the panic": (
        lambda c, p: redump(p, [0, 1, 2], before=[0, 1]) or redump(c, [], before=[]), CONTROL),
    "the control loses nothing": (lambda c, p: redump(c, [0, 1, 2]), CONTROL),
    "the control's driver may have ended it": (lambda c, p: relog(c, BOOT + RESET), CONTROL),
    "the control's error record": (lambda c, p: redump(c, [0, 1, 2]) or log(c, AER), {}),
    "the control's crash kernel lost its disk": (lambda c, p: died(c), CONTROL),
    "and its console tells": (lambda c, p: died(c) or log(
        c, f"{BOOT}{told(c)['marker']}\n{BOOT}{RESET}", "console.log"), {}),
    "the control has the series": (lambda c, p: relog(c, BOOT + ADOPTED), CONTROL),
    "the control cannot be read": (
        lambda c, p: redump(c, [0], lambda elf: elf.replace(b"SYMBOL(prb)", b"SYMBOL(prc)")), CONTROL),
    "another machine's control": (lambda c, p: (c / "run.json").write_text(
        json.dumps({**told(c), "host": "another"})), CONTROL),
}


@pytest.mark.parametrize(("lie", "wrong"), LIES.values(), ids=LIES.keys())
def test_lies(kit: Path, honest: Pair, tmp_path: Path, lie: Lie, wrong: dict[str, str]) -> None:
    pair = copy(honest, tmp_path)
    lie(*pair)
    code = FAIL if "FAIL" in wrong.values() else INVALID if wrong else PASS
    assert bad(judged(kit, pair, tmp_path / "out", code)) == wrong


def hear(here: Path, frames: range, form: Callable[[bytes], bytes] = bytes, after: float = 10) -> None:
    """There was a stream, of five frames a second; the crash kernel starts ten seconds after the panic, by a
    clock that is an hour ahead, and waits from its second 2 to 12."""
    run_ = told(here)
    run_["frames"] = {"sender": STREAM, "record": run_["nonce"], "ahead": 3600.0}
    (here / "run.json").write_text(json.dumps(run_))
    redump(here, [0, 1, 2], form, frames=frames)
    text = re.sub(r"(?m)^smmu-kdump-kit: clock .*\n", "", (here / "crash-kernel.log").read_text())
    text = text.replace("6,1,100,-", "6,1,2000000,-").replace("5000 ms", "10000 ms")
    clock = f"{CLOCK} {HEARD + 40 / 5 + after + 3600 + 6.5:.9f} 6.50 9.00\n"
    (here / "crash-kernel.log").write_text(clock + text)


# Due are 41 + 5 * (10 + 2 + 1) = 106 and those up to 41 + 5 * (10 + 12 - 1) = 146.
@pytest.mark.parametrize(("frames", "form", "status", "said"), [
    (range(170), bytes, "PASS", "40 of 40"), (range(20, 170), as_kdump, "PASS", "40 of 40"),
    (range(41, 143), bytes, "PASS", "37 of 40"),    # a network may lose some
    (range(41, 112), bytes, "FAIL", "6 of 40"),     # the SMMU was reset
    (range(41, 106), bytes, "FAIL", "0 of 40"),     # before the wait began
    (range(41), bytes, "INVALID", "0 of 40")])      # the sender had stopped
def test_frames(kit: Path, honest: Pair, tmp_path: Path, frames: range,
                form: Callable[[bytes], bytes], status: str, said: str) -> None:
    """Those that were sent while the crash kernel waited, and no earlier ones."""
    control, patched = copy(honest, tmp_path)
    hear(patched, frames, form)
    hear(control, range(41, 111))       # all its reads have landed: its frames have not
    code = {"PASS": PASS, "FAIL": FAIL, "INVALID": INVALID}[status]
    found = judged(kit, (control, patched), tmp_path / "out", code)
    assert found["frames land"][0] == status
    assert found["frames land"][1].startswith(f"{said} frames that were due after the SMMU's probe")
    assert re.search(rf"frames landed +5 of 40 +{said}\n", (tmp_path / "out/table.txt").read_text())
    assert "without the series: frames land: 5 of 40" in found["the control fails"][1]
    text = (patched / "crash-kernel.log").read_text()
    for old, new in (("smmu_kdump_test", "nothing"), ("6,1,2000000,-;", ""), ("clock 17", "clock 19"),
                     ("clock 17", "clock 16"), ("clock 17", "o'clock 17")):
        (patched / "crash-kernel.log").write_text(text.replace(old, new))
        why = "was not held" if new == "nothing" else "not known when"
        found = judged(kit, (control, patched), tmp_path / "out", INVALID)
        assert found["frames land"][0] == "INVALID" and why in found["frames land"][1]


def test_the_real_time_clock(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """How far it is ahead, to a fraction of its seconds; without one, or if it stands still, 0."""
    here = kit_server.Server(server.root)
    assert provoke.ahead(here) == 0
    server.put(provoke.RTC[1:], "1700000000\n")
    assert provoke.ahead(here) == 0

    with monkeypatch.context() as patch:
        patch.setattr(kit_server.Server, "text", lambda *_: str(int(time.time() + 3600.4)))
        assert abs(provoke.ahead(here) - 3600.4) < 0.3


def test_a_ledger_of_the_stream_that_is_gone(kit: Path, honest: Pair, tmp_path: Path) -> None:
    pair = copy(honest, tmp_path)
    hear(pair[1], range(170), lambda elf: elf.replace(stream.RECORD_MAGIC, bytes(8)))
    assert bad(judged(kit, pair, tmp_path / "out", INVALID)) == {"frames land": "INVALID"}


class Ring:
    """printk's ring as drgn reads it: text of 64 bytes at 1024, four descriptors at 512, their infos at 768.

    A record is (id, state, begin, end, text)."""
    INFO = {"SYMBOL(prb)": "0", "OFFSET(printk_ringbuffer.desc_ring)": "64", "SIZE(prb_desc)": "24",
            "OFFSET(printk_ringbuffer.text_data_ring)": "8", "OFFSET(prb_data_ring.size_bits)": "0",
            "OFFSET(prb_data_ring.data)": "8", "OFFSET(prb_desc_ring.count_bits)": "0",
            "OFFSET(prb_desc_ring.descs)": "8", "OFFSET(prb_desc_ring.infos)": "16",
            "OFFSET(prb_desc_ring.head_id)": "24", "OFFSET(prb_desc_ring.tail_id)": "32",
            "OFFSET(prb_desc.state_var)": "0", "OFFSET(prb_desc.text_blk_lpos)": "8",
            "OFFSET(prb_data_blk_lpos.begin)": "0", "OFFSET(prb_data_blk_lpos.next)": "8",
            "SIZE(printk_info)": "24", "OFFSET(printk_info.text_len)": "16"}

    def __init__(self, head: int, tail: int, *records: tuple[int, int, int, int, bytes]) -> None:
        self.data = bytearray(2048)
        struct.pack_into("<QQ", self.data, 16, 6, 1024)
        struct.pack_into("<5Q", self.data, 72, 2, 512, 768, head, tail)
        struct.pack_into("<Q", self.data, 0, 8)
        for slot, (number, state, begin, end, text) in enumerate(records):
            struct.pack_into("<QQQ", self.data, 512 + 24 * slot, state << 62 | number, begin, end)
            struct.pack_into("<H", self.data, 768 + 24 * slot + 16, len(text))
            place = 0 if begin // 64 != (end - 1) // 64 else begin % 64
            self.data[1032 + place:1032 + place + len(text)] = text

    def read(self, at: int, size: int) -> bytes:
        return bytes(self.data[at:at + size])

    def read_u64(self, at: int) -> int:
        return int.from_bytes(self.read(at, 8), "little")

    def read_u32(self, at: int) -> int:
        return int.from_bytes(self.read(at, 4), "little")


LAST = (1 << 62) - 1            # the greatest id; after it comes 0


@pytest.mark.parametrize(("ring", "said"), [
    # Slots are by id: of four, the last id's is 3 and that of 0 is 0. The oldest comes first.
    (Ring(1, LAST, (0, 2, 80, 96, b"b"), (1, 1, 96, 112, b"c"), (0, 0, 0, 0, b""), (LAST, 2, 64, 80, b"a")),
     "a\nb\nc"),
    # Being written, or to be used again.
    (Ring(3, 0, (0, 0, 64, 80, b"a"), (1, 3, 80, 96, b"b"), (2, 2, 96, 112, b"c"), (3, 1, 112, 128, b"d")),
     "c\nd"),
    # The slot is another record's by now; no text.
    (Ring(2, 0, (4, 2, 64, 80, b"a"), (1, 2, 1, 1, b"bb"), (2, 2, 96, 112, b"c")), "c"),
    # It ends with the buffer; it does not fit in there and is at its begin.
    (Ring(1, 0, (0, 2, 112, 128, b"a"), (1, 2, 128, 144, b"b")), "a\nb"),
    (Ring(0, 0, (0, 2, 112, 152, b"wrapped")), "wrapped")])
def test_the_ring_of_the_log(ring: Ring, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(crash_vmcore, "_info", lambda path: ring.INFO)
    assert dump.log(ring, tmp_path) == said


@pytest.mark.parametrize("form", [bytes, as_kdump])
def test_the_memory_of_a_dump(tmp_path: Path, form: Callable[[bytes], bytes]) -> None:
    a_vmcore(tmp_path / "vmcore", bytes(dump.CHUNK + 5000), b"")
    (tmp_path / "vmcore").write_bytes(form((tmp_path / "vmcore").read_bytes()))
    pieces = list(dump.memory(tmp_path / "vmcore"))
    assert [len(piece) for piece in pieces] == [dump.CHUNK, 6 * 4096]
    assert pieces[0].start == AT and pieces[0].stop == pieces[1].start


def test_runs_of_bits() -> None:
    bits = "1" * 3 + "0" * 9 + "1" * 20 + "0" * 16 + "1" * 8
    data = bytes(int(bits[at:at + 8][::-1], 2) for at in range(0, len(bits), 8))
    assert list(dump._runs(data)) == [(0, 3), (12, 32), (48, 56)]


def test_a_full_ring(kit: Path, honest: Pair, tmp_path: Path) -> None:
    """What it has no place for is not due."""
    control, patched = copy(honest, tmp_path)
    hear(control, range(41, 111))
    for after, wait, status, said in (
            (10, 60, "PASS", "175 of 175"), (0.1, 2, "INVALID", "0 frames were due"),
            (44, 10, "PASS", "5 of 5"),
            (45, 10, "INVALID", "0 frames were due: the crash kernel started 45 s after")):
        hear(patched, range(41, 41 + 250), after=after)
        held = HELD.partition(";")[2].replace("5000", f"{wait}000")
        relog(patched, f"{BOOT}{ADOPTED}6,1,2000000,-;{held}")
        found = judged(kit, (control, patched), tmp_path / "out", PASS if status == "PASS" else INVALID)
        assert found["frames land"][0] == status and said in found["frames land"][1]


class Sender(threading.Thread):
    """./kit send, by a socket."""

    def __init__(self, sock: socket.socket, nonce: int, rate: float) -> None:
        super().__init__(daemon=True)
        self.sock, self.nonce, self.rate, self.stop = sock, nonce, rate, threading.Event()
        self.start()

    def run(self) -> None:
        number, due = 100, time.monotonic()
        while not self.stop.is_set():
            with contextlib.suppress(OSError):      # nobody listens any more
                self.sock.send(b"\xff" * 60)        # of somebody else
                self.sock.send(frame(self.nonce, number))
            number, due = number + 1, due + 1 / self.rate
            time.sleep(max(due - time.monotonic(), 0))


def test_the_stream_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the record is what was heard last; what else is on the network does not count."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    monkeypatch.setattr(stream, "RATE", 100)
    monkeypatch.setattr(stream, "SILENT_S", 0.5)
    monkeypatch.setattr(stream, "STOPPED_S", 0.3)
    with pytest.raises(Err, match=r"no frame came") as silent:
        stream.Stream(ours)
    assert "./kit send" in silent.value.next_step
    sender = Sender(theirs, STREAM, 100)
    heard = stream.Stream(ours)
    assert heard.told() == {"sender": STREAM, "record": heard.nonce}
    heard.still_there()
    theirs.send(frame(STREAM + 2, 9000))
    sender.stop.set()
    sender.join()
    with pytest.raises(Err, match="the frames have stopped"):
        heard.still_there()
    number, when = stream.last(heard.page[:], heard.nonce)
    assert number == heard.number > 100 + stream.WARM_UP and time.time() - 30 < when <= time.time()
    assert stream.last(heard.page[:], 7) == (-1, 0)


def test_a_stream_that_is_not_as_it_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    monkeypatch.setattr(stream, "RATE", 100)
    fast = Sender(theirs, STREAM, 300)
    with pytest.raises(Err, match="frames came a second, not 100"):
        stream.Stream(ours)
    with pytest.raises(Err, match="two machines send, or one has begun anew"):
        Sender(theirs, STREAM + 2, 300)
        stream.Stream(ours)
    fast.stop.set()
    ours.close()
    with pytest.raises(Err, match="network card eth7"):
        stream.Stream(ours, "eth7")


def test_nothing_is_left_where_nothing_is_heard(server: Server) -> None:
    before = snapshot(server.root)
    server.put("sys/class/net/lo2/flags", "0x1")
    assert "network card lo2" in server("crash", "--rehearse", "--frames", "lo2", code=ENVIRONMENT)
    shutil.rmtree(server.root / "sys/class")
    assert {name for name in snapshot(server.root) if STATE in str(name)} == {
        name for name in before if STATE in str(name)}


def test_a_card(server: Server) -> None:
    assert "eth9 is no network card" in server("check", "--frames", "eth9", code=ENVIRONMENT)
    (server.root / "sys/class/net/eth0").mkdir(parents=True)
    (server.root / "sys/class/net/eth0/device").symlink_to("../../../devices/0000:02:00.0")
    server.put("sys/devices/0000:02:00.0/uevent", "")
    assert "eth0 is not behind an SMMU" in server("check", "--frames", "eth0", code=ENVIRONMENT)
    server.put("sys/devices/0000:02:00.0/iommu_group", "")
    server.put("sys/class/net/eth0/flags", "0x1002")
    assert "eth0 is down" in server("check", "--frames", "eth0", code=ENVIRONMENT)
    server.put("sys/class/net/eth0/flags", "0x1003")
    assert "eth0 is behind the SMMU (0000:02:00.0)" in server("check", "--frames", "eth0")
    assert "network card nocard" in run(server.kit, "send", "nocard", code=ENVIRONMENT)


def test_without_a_control(kit: Path, honest: Pair, tmp_path: Path) -> None:
    said = run(kit, "verdict", honest[1], "--out", tmp_path, code=INVALID)
    assert "the control was not run" in said
    said = run(kit, "verdict", "--control", honest[1], honest[1], "--out", tmp_path, code=INVALID)
    assert "the same crash" in said
    said = run(kit, "verdict", tmp_path, "--out", tmp_path / "out", code=USAGE)
    assert "no directory that ./kit collect has filled" in said


GONE: bytes | None = None       # the file is not there
# What is wrong with a server: (file, its content), and what check says, with the next step.
SERVERS: dict[str, tuple[dict[str, str | bytes | None], str]] = {
    "x86": ({"proc/sys/kernel/arch": "x86_64"}, "this is a machine of x86_64"),
    "no SMMU": ({"sys/class/iommu": GONE, "sys/firmware/acpi/tables/IORT": ACPI + NO_SMMU},
                "no SMMU: this machine has none, or its firmware has turned it off"),
    "an SMMU that is off": ({"sys/class/iommu": GONE}, "tells of an SMMUv3 and the kernel does not use it"),
    "an SMMU for nothing": ({"sys/class/iommu/smmu3.0x0000000009050000/devices/0000:01:00.0": GONE},
                            "1 SMMUv3 and no device behind them"),
    "another IOMMU": ({"sys/class/iommu/smmu3.0x0000000009050000": GONE, "sys/class/iommu/smmu.1/a": "",
                       "sys/firmware/acpi/tables/IORT": GONE}, "is no SMMUv3"),
    "another disk": ({"sys/devices/0000:01:00.0/iommu_group": GONE}, "which is not behind an SMMU"),
    "no disk": ({"sys/dev/block": GONE}, "is on no disk of this machine"),
    "no crashkernel": ({"sys/kernel/kexec_crash_size": "0"}, "no memory is reserved"),
    "CMA": ({"proc/cmdline": "crashkernel=1G,cma"}, "with it nothing is adopted"),
    "no kdump": ({"sys/kernel/kexec_crash_loaded": "0"}, "no crash kernel is loaded"),
    "no user pages": ({"etc/default/kdump-tools": "USE_KDUMP=1"}, "leaves user pages out (-d 31)"),
    "no user pages in kdump.conf": ({"etc/kdump.conf": "core_collector makedumpfile -l -d 31"}, "(-d 31)"),
    "52 bits": ({"boot/config-6.12.1-arm64": "CONFIG_ARM64_VA_BITS=52\n",
                 "usr/bin/makedumpfile": "\x7fELF"}, "which makedumpfile refuses"),
    "a small disk": ({"proc/meminfo": f"MemTotal: {1 << 52} kB"}, "free some space in /var/crash"),
}
NOTES: dict[str, tuple[dict[str, str | bytes | None], str]] = {
    "small": ({"sys/kernel/kexec_crash_size": "1048576"}, "crashkernel: 1 MiB, which is little"),
    "identity": ({"sys/kernel/iommu_groups/3/type": "identity"}, "boot without iommu.passthrough=1"),
    "HEST": ({"sys/firmware/acpi/tables/HEST": ACPI + b"\2\0\0\0"}, "could not be read to its end"),
    "pstore": ({"sys/module/pstore/parameters/backend": "(null)"}, "pstore has no backend"),
    "old pstore": ({"sys/fs/pstore/dmesg-1": ""}, "pstore has 1 old files"),
    "no delay": ({"sys/module/smmu_kdump_test": GONE}, "no test-only delay"),
    "a wait of no time": (
        {"etc/default/kdump-tools": 'MAKEDUMP_ARGS="-d 17"\nKDUMP_CMDLINE_APPEND="a.settle_ms=0"'},
        "is not told to wait"),
    "52 bits, and a script": ({"boot/config-6.12.1-arm64": "CONFIG_ARM64_VA_BITS=52\n",
                               "usr/bin/makedumpfile": "#!/bin/sh\n"}, "crashme: ready"),
    "no wait": ({"etc/default/kdump-tools": 'MAKEDUMP_ARGS="-d 17"'}, "is not told to wait"),
}


def change(server: Server, files: dict[str, str | bytes | None]) -> None:
    for name, content in files.items():
        path = server.root / name
        if content is not None:
            server.put(name, content)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def test_a_server_that_is_ready(server: Server) -> None:
    said = server("check")
    assert said.endswith(f"\n{HOST}: ready\n") and "BAD" not in said
    assert "go to the firmware first (1 sources" in said and "it is the control" in said
    assert "which is behind the SMMU (0000:01:00.0)" in said
    server.put("proc/kallsyms", "0 t arm_smmu_is_attach_deferred\n0 T iommu_dma_request_msi\n")
    assert "has the series: it is the one to try" in server("check")


def test_a_disk_with_several_paths(server: Server) -> None:
    """It is a child of its subsystem, which names its controllers."""
    devices, subsystem = server.root / "sys/devices", "sys/devices/virtual/nvme-subsystem/nvme-subsys0"
    server.put(f"{subsystem}/nvme0n1/nvme0n1p2/size", "")
    for number in (1, 2):
        server.put(f"sys/devices/0000:0{number}:00.0/nvme/nvme{number}/model", "")
        controller = devices / f"0000:0{number}:00.0/nvme/nvme{number}"
        (server.root / subsystem / f"nvme{number}").symlink_to(controller)
    block = next((server.root / "sys/dev/block").iterdir())
    block.unlink()
    block.symlink_to("../../devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1/nvme0n1p2")
    said = server("check", code=ENVIRONMENT)
    assert "is on nvme1, which is behind the SMMU (0000:01:00.0)" in said
    assert "is on nvme2, which is not behind an SMMU" in said
    server.put("sys/devices/0000:02:00.0/iommu_group", "")
    assert "is on nvme2, which is behind the SMMU (0000:02:00.0)" in server("check")


@pytest.mark.parametrize(("files", "said"), SERVERS.values(), ids=SERVERS.keys())
def test_a_server_that_is_not(server: Server, files: dict[str, str | bytes | None], said: str) -> None:
    """One line, the next step; and it is not crashed, and nothing is written."""
    change(server, files)
    lines = server("check", code=ENVIRONMENT).splitlines()
    found = [number for number, line in enumerate(lines) if line.startswith("BAD")]
    assert len(found) == 1 and lines[-1] == f"{HOST}: not ready: 1 of these must be mended"
    assert said in lines[found[0]] + lines[found[0] + 1] and lines[found[0] + 1].startswith("     next: ")
    before = snapshot(server.root)
    refused = server("crash", "--crash-this-machine", "--confirm", HOST, code=ENVIRONMENT)
    assert "error: this machine is not ready: " in refused and snapshot(server.root) == before


@pytest.mark.parametrize(("files", "said"), NOTES.values(), ids=NOTES.keys())
def test_a_server_that_is_told_of(server: Server, files: dict[str, str | bytes | None], said: str) -> None:
    change(server, files)
    assert said in server("check")


def test_it_must_be_told_twice(server: Server) -> None:
    before = snapshot(server.root)
    for words, typed, said in (
            ("", "", "was not told so"), (f"--confirm {HOST}", "", "was not told so"),
            ("--crash-this-machine", "", "nothing"),
            ("--crash-this-machine", "yes\n", "'yes' is not the name"),
            ("--crash-this-machine --confirm another", HOST, "'another' is not the name"),
            ("--crash", HOST, "unrecognized arguments")):
        assert said in server("crash", *words.split(), typed=typed, code=USAGE)
        assert snapshot(server.root) == before
    server("crash", "--crash-this-machine", typed=f"{HOST}\n", code=-signal.SIGKILL)
    assert len(server.crashes()) == 1


def test_the_readme(server: Server, tmp_path: Path) -> None:
    """Its commands, in their order, on two kernels; what is said of them comes."""
    text = (server.kit / "README.rst").read_text()
    lines = [line.split()[1:] for line in text.splitlines() if line.startswith("       ./kit ")]
    check, check_on, rehearse, crash, *collect, judge = lines
    (tmp_path / "console.log").write_text("nothing")
    here = {"login": str(bmcs.login(tmp_path / "login")), "console.log": str(tmp_path / "console.log")}
    for landed, log_ in (([0], BOOT + RESET + HELD), ([0, 1, 2], BOOT + ADOPTED + HELD)):
        for words in (check, check_on, rehearse):
            server(*words)
        server(*crash, typed=f"{HOST}\n", code=-signal.SIGKILL)
        last = server.crashes()[-1]
        server.dumped(last, landed, log_)
        with bmcs.Bmc(told(last)["when"]) as bmc:
            here["https://bmc.example.org"] = bmc.url
            for words in collect:
                assert server(*(here.get(word, word) for word in words)).splitlines()[0] == str(last)
        time.sleep(1.1)
    names = dict(zip(("<first>", "<second>"), (path.name for path in server.crashes())))
    for what, name in names.items():
        judge = [word.replace(f"/var/lib/smmu-kdump-kit/{what}", f"{server.root}/{STATE}/{name}")
                 for word in judge]
    assert "\nPASS\n" in run(server.kit, *judge, "--out", tmp_path / "out")


def test_the_rules_of_the_readme(kit: Path) -> None:
    table = (kit / "README.rst").read_text().partition("The rules\n")[2].partition("What it cannot")[0]
    named = [line[:27].strip() for line in table.splitlines() if line[:1].isalpha()]
    assert named == ["Rule", *(name for name, _ in verdict.RULES), "the control fails"]


def test_nothing_to_collect(server: Server) -> None:
    assert "no crash to collect" in server("collect", code=USAGE)
    server.crash()
    assert "this is still the boot that was to be crashed" in server("collect", code=USAGE)
    server.boot()
    assert "no crash of the name x" in server("collect", "x", code=USAGE)
    assert "no dump was saved since the crash" in server("collect")


def test_what_was_there_before(server: Server, tmp_path: Path) -> None:
    """An earlier dump is not taken for this crash's; collected twice, it is the same."""
    server.put("var/crash/202001010101/dump.202001010101", "old")
    here = server.crash()
    server.put("var/crash/202611270102/dump-incomplete", "new")
    server.put("sys/fs/pstore/dmesg-1", "a log")
    server.put("var/lib/systemd/pstore/1700000000/dmesg.txt", "moved")
    server.put("var/lib/systemd/pstore/1600000000/dmesg.txt", "an older one")
    os.utime(server.root / "var/lib/systemd/pstore/1600000000/dmesg.txt", (9, 9))
    server.put("sys/bus/pci/devices/0000:01:00.0/aer_dev_fatal", "TLP 2\nDLP 0\nTOTAL_ERR_FATAL 2\n")
    (tmp_path / "console").write_text("a console")
    server.boot()
    for _ in range(2):
        server("collect", "--console", tmp_path / "console")
        run_ = told(here)
        assert run_["collected"]["dumps"] == ["/var/crash/202611270102/dump-incomplete"]
        assert run_["collected"]["aer"] == {"0000:01:00.0 fatal": {"TLP": 2, "TOTAL_ERR_FATAL": 2}}
        assert (here / "vmcore").read_text() == "new"
        assert {path.name: path.read_text() for path in here.glob("pstore-*")} == {
            "pstore-0-dmesg-1": "a log", "pstore-1-dmesg.txt": "moved"}
        assert (here / "console.log").read_text() == "a console" and (here / "this-boot.log").exists()
    assert "cut short: /var/crash" in run(server.kit, "verdict", here, "--out", tmp_path / "out", code=FAIL)


def test_a_console_in_place_of_the_unit(kit: Path, honest: Pair, tmp_path: Path) -> None:
    """Of a kdump that is not kdump-tools: the serial console has all three kernels."""
    pair = copy(honest, tmp_path)
    for here in pair:
        text = (here / "crash-kernel.log").read_text()
        (here / "crash-kernel.log").unlink()
        (here / "console.log").write_text(f"{BOOT}{AER}{told(here)['marker']}\n{text}{BOOT}{AER}")
    assert bad(judged(kit, pair, tmp_path / "out", PASS)) == {}


def test_collected_again(server: Server, tmp_path: Path) -> None:
    """In a later boot, and when the dump is no more: what was there stays."""
    here = server.crash()
    server.dumped(here, [0, 1, 2], BOOT + ADOPTED + HELD)
    server.put("dev/kmsg", BOOT + AER)
    server("collect")
    (here / "bmc.json").write_text('{"error": "once"}')
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    server.put("dev/kmsg", BOOT)
    server.boot()
    shutil.rmtree(server.root / "var/crash")
    (server.root / "var/crash").mkdir()
    server("collect")
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before
    server.put("var/crash/203001010101/dump.203001010101", "a later crash's")
    server("collect")
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


def test_a_disk_that_is_full(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The dump cannot be copied: the rest is there, and it can be collected again."""
    (tmp_path / "source").write_text("x" * 100)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(18, "another disk")))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 30, 0, 50))
    with pytest.raises(Err, match="has no room for .*source") as caught:
        collect.take(tmp_path / "source", tmp_path / "target")
    assert "./kit collect again" in caught.value.next_step and not (tmp_path / "target").exists()
    # What else there was is collected, and not again in a later boot.
    here = server.crash()
    server.dumped(here, [0, 1, 2], BOOT + ADOPTED + HELD)
    server.put("dev/kmsg", BOOT + AER)
    server.put("sys/bus/pci/devices/0000:01:00.0/aer_dev_fatal", "TLP 1\n")
    machine = kit_server.Server(server.root)
    with pytest.raises(Err, match="has no room for"):
        collect.collect(machine, "", None, None)
    monkeypatch.undo()
    server.put("dev/kmsg", BOOT)
    server.put("sys/bus/pci/devices/0000:01:00.0/aer_dev_fatal", "TLP 0\n")
    server.boot()
    server("collect")
    assert "AER" in (here / "this-boot.log").read_text() and (here / "vmcore").exists()
    assert told(here)["collected"]["aer"] == {"0000:01:00.0 fatal": {"TLP": 1}}


def test_modules_of_the_current_directory(kit: Path, tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("print('another module')\n")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/__init__.py").write_text("print('another module')\n")
    done = subprocess.run([kit / "kit", "verdict", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert not done.returncode and "another module" not in done.stdout


def test_dumps_that_are_damaged(kit: Path, honest: Pair, tmp_path: Path) -> None:
    pair = copy(honest, tmp_path)
    (pair[1] / "vmcore").unlink()
    for head in (b"\x7fELF" + b"\xff" * 5000, b"KDUMP   " + bytes(416) + struct.pack(
            "<IiiIIIIIIi", 0, 1 << 20, 1, 0xffffffff, 0, 0, 0, 0, 0, 1) + b"\1" * 5000):
        (pair[1] / "vmcore").write_bytes(head)
        assert dump.wrong(pair[1] / "vmcore").startswith("it is ")
        assert judged(kit, pair, tmp_path / "out", FAIL)["a vmcore was saved"][0] == "FAIL"


@pytest.fixture(scope="module")
def native(kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit with its own workload, compiled for this machine."""
    if os.geteuid():
        pytest.skip("only root sees physical addresses")
    own = Path(shutil.copytree(kit, tmp_path_factory.mktemp("native") / "kit"))
    subprocess.run(["gcc", "-static", "-Wall", "-Werror", "-I", TOP / "include", "-o", own / "workload",
                    own / "source/init.c"], check=True)
    return own


def test_rehearsal(server: Server, native: Path, tmp_path: Path) -> None:
    """Nothing is left of it."""
    before = snapshot(server.root)
    words = ["crash", "--root", str(server.root), "--on", "/var", "--rehearse", "--reads"]
    said = run(native, *words, "40")
    assert " of 40 reads were in flight; " in said and said.endswith(" milliseconds later 0 still were\n")
    run(native, *words, "0", code=USAGE)
    (native / "workload").rename(tmp_path / "workload")
    assert "unpack the kit again" in run(native, *words, "40", code=ENVIRONMENT)
    (tmp_path / "workload").rename(native / "workload")
    assert {name for name in snapshot(server.root) if name not in before} == {STATE, STATE.rpartition("/")[0]}


def facts(native: Path, where: Path, reads: int, code: int = 0) -> tuple[list[list[str]], str]:
    (where / "blocks").write_bytes(b"".join(expected_block(5, index) for index in range(9)))
    (where / "facts").write_text("")
    argv = [str(native / "workload"), "server", "blocks", str(reads), "facts", "5", "rehearse"]
    done = subprocess.run(argv, cwd=where, capture_output=True, text=True)
    assert done.returncode == code
    return [line.split() for line in (where / "facts").read_text().splitlines()], done.stderr


def test_the_facts_of_the_workload(native: Path, tmp_path: Path) -> None:
    lines, _ = facts(native, tmp_path, 9)
    assert [words[0] for words in lines] == ["ledger"] + ["buffer"] * 9
    assert [words[1] for words in lines[1:]] == [str(index) for index in range(9)]
    pages: list[int] = []
    for words in lines:
        buffer = words[0] == "buffer"
        pieces = [[int(word, 16) for word in piece.split(":")] for piece in words[1 + buffer:]]
        assert sum(size for _, size in pieces) == (READ_SIZE if buffer else os.sysconf("SC_PAGESIZE"))
        pages += [page for at, size in pieces for page in range(at, at + size, 4096)]
    assert len(pages) == len(set(pages)) and 0 not in pages
    # More than the file has, and more than the queues take.
    _, said = facts(native, tmp_path, 1000 * (os.cpu_count() or 1) + 1, code=1)
    assert "reads are too many: at most 1000 for each processor" in said


def test_the_tarball(tarball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes, wherever; without room there is none."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert pack.repro_kit("6.12").read_bytes() == tarball.read_bytes()
    debs = tmp_path / "smmuv3-kdump/build/6.12"
    made = ("linux-image-6.12.1+kdump.2_1_arm64.deb", "linux-image-6.12.1+kdump.delay.control_1_arm64.deb",
            "linux-image-6.12.1+kdump.delay.series_1_arm64.deb")
    # Of make deb, with DELAY=1, too. An older one, another series' and an image's are not for a server.
    for number, (where, name, series) in enumerate((
            ("debs/a", "linux-image-6.12.1+kdump.1_1_arm64.deb", Store("6.12").series_hash()),
            ("debs/b", made[0], Store("6.12").series_hash()),
            ("debs/c", "linux-image-3_1_arm64.deb", "another"),
            ("debs-delay/a", made[1], "none"),
            ("debs-delay/b", made[2], Store("6.12").series_hash()),
            ("image-debs/a", "linux-image-4_1_arm64.deb", Store("6.12").series_hash()))):
        there = debs / where
        there.mkdir(parents=True)
        for file, text in ((name, ""), (name.replace("_1", "-dbg_1"), ""), ("series", f"{series}\n")):
            (there / file).write_text(text)
        os.utime(there, (number, number))
    with tarfile.open(pack.repro_kit("6.12")) as tar:
        names = tar.getnames()
    assert {name.rpartition("/")[2] for name in names if "/packages/" in name} == set(made)
    old = snapshot(tmp_path / "smmuv3-kdump/distro")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 40, 0, 1 << 20))
    with pytest.raises(Err, match="the disk is full") as caught:
        pack.repro_kit("6.12")
    assert caught.value.code == ENVIRONMENT and snapshot(tmp_path / "smmuv3-kdump/distro") == old


def test_the_delay_is_a_patch(kit: Path, tmp_path: Path) -> None:
    """It makes of a tree what the overlay of the test kernels makes of it."""
    tree = kernel_tree(tmp_path / "tree")
    makefile = tree / "drivers/iommu/arm/Makefile"
    makefile.parent.mkdir(parents=True, exist_ok=True)
    makefile.write_text("# SPDX-License-Identifier: GPL-2.0\nobj-y += arm-smmu/ arm-smmu-v3/\n")
    for command in (["git", "apply"], ["patch", "-sRp1", "-i"], ["patch", "-sp1", "-i"]):
        subprocess.run([*command, kit / "delay.patch"], cwd=tree, check=True)
    assert makefile.read_text().endswith("arm-smmu-v3/ kdump-test/\n")
    for top in ("drivers", "include"):
        for path in (TOP / top).rglob("*"):
            if path.is_file():
                assert (tree / path.relative_to(TOP)).read_bytes() == path.read_bytes()


LAVA = {"DEVICE": "a-server", "KIT": "https://example.org/kit.tar.gz", "UNPATCHED": "6.12.1-arm64",
        "PATCHED": "6.12.1+kdump.0123456789ab-arm64"}


def test_a_job_for_lava() -> None:
    """LAVA's own schema takes it, and sees what is wrong with another."""
    try:
        deps.need("lava")
    except Err as err:          # Debian 13 has it in its backports alone
        pytest.skip(f"ENVIRONMENT: lava-common: {err.cause}")
    import yaml
    text = yaml.safe_dump(pack.job(*LAVA.values()))
    pack.validate(text)
    assert text.count("--crash-this-machine --confirm") == 2 and LAVA["KIT"] in text
    args = "--on /srv/nvme --reads 16000"
    text = yaml.safe_dump(pack.job(*LAVA.values(), args=args), width=1000)
    pack.validate(text)
    assert text.count(f"kit check {args}") == 2 and text.count(f"kit crash {args} --crash-this-machine") == 2
    for old, new in (("to: overlay", "to: nowhere"), ("method: minimal", "method: none"),
                     ("minutes: 30", "minutes: 0"), ("device_type:", "device:")):
        with pytest.raises(Err, match="LAVA's schema refuses the job"):
            pack.validate(text.replace(old, new))


def test_the_steps_of_the_job_are_shell(tmp_path: Path) -> None:
    steps = [step for action in pack.job(*LAVA.values())["actions"] if "definitions" in action.get("test", {})
             for step in action["test"]["definitions"][0]["repository"]["run"]["steps"]]
    (tmp_path / "steps").write_text("#!/bin/sh\n" + "\n".join(steps))
    subprocess.run(["sh", "-n", tmp_path / "steps"], check=True)
    # Each rule is a case of LAVA's.
    (tmp_path / "verdict").mkdir()
    (tmp_path / "verdict/result.ktap").write_text(
        "1..3\nok 1 a.data lands\nnot ok 2 a.clean logs\nok 3 a.frames land # SKIP no stream\n")
    (tmp_path / "lava-test-case").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "lava-test-case").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", pack.CASES], cwd=tmp_path, env=env, capture_output=True, text=True,
                          check=True)
    assert done.stdout == ("a.data_lands --result pass\na.clean_logs --result fail\n"
                           "a.frames_land --result skip\n")


def test_bad_variables(project: Project) -> None:
    for missing in LAVA:
        said = project.verb("lava-job", code=USAGE, **{**LAVA, missing: "a b"}).stderr
        assert f"error: {missing}=a b is no good" in said and "next: make lava-job DEVICE=" in said
    for args in ("--reads many", "--on srv", "--reads 1; reboot", "--rehearse"):
        said = project.verb("lava-job", code=USAGE, **LAVA, ARGS=args).stderr
        assert f"error: ARGS={args} is no good" in said
    assert "no such base" in project.verb("repro-kit", code=USAGE, BASE="1.2").stderr
