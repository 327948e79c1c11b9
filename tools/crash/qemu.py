# SPDX-License-Identifier: GPL-2.0-only
"""One virtual machine: its command, its frames, its verdict channel, its end.

Everything QEMU opens is named relative to the run's directory, so that the saved command
can be run again as it is. No network port is used: the network card and the verdict
channel are Unix sockets in that directory.
"""

from __future__ import annotations

import array
import fcntl
import os
import random
import select
import shlex
import socket
import struct
import subprocess
import termios
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from common import Err

READ_SIZE = 128 << 10           # as in guest/init.c
BLOCKS = 64                     # of the slow disk at least; the guest reads the first of them
FRAME_MAGIC = b"SMMUFRAM"
FRAME_SIZE = 512
ETH_SIZE = 14
FRAME_HEAD = struct.Struct("<8sII")     # magic, nonce, sequence number
DUMP_DISK = 2 << 30             # sparse; holds the memory of the machine
TRACE = "trace.log"
CONSOLE = "console.log"
CRASH_MEMORY = "crash-memory"
L1_INDEX, L1_SPAN = 5, 9        # the descriptor that is damaged: StreamIDs 0x500 to 0x5ff, unused

# StreamID -> (what it is in the table, how QEMU is told): bus 0, device = StreamID / 8
DEVICES = {0x8: "NIC", 0x10: "slow NVMe", 0x18: "dump NVMe"}


@dataclass
class Scenario:
    frame_rate: int = 1000
    read_iops: int = 8
    reads: int = 16
    delay_ms: int = 0           # that the crash kernel is held before the SMMU's probe
    settle_ms: int = 100        # and after it, so that some frames fall in between
    timeout: int = 180
    memory: str = "512M"
    crash_memory: str = "160M"
    first_cmdline: str = ""
    crash_cmdline: str = ""
    need_reads: bool = False    # some must be in flight when their disk is taken over
    damage: str = ""            # where an L1 descriptor is made to point: an address or CRASH_MEMORY

    def cmdlines(self) -> tuple[str, str]:
        first = f"console=ttyAMA0 crashkernel={self.crash_memory} panic=20"
        crash = ("console=ttyAMA0 earlycon=pl011,0x9000000 ignore_loglevel nr_cpus=1 "
                 "reset_devices")
        if self.delay_ms:
            crash += f" smmu_kdump_test.delay_ms={self.delay_ms}"
        if self.settle_ms:
            crash += f" smmu_kdump_test.settle_ms={self.settle_ms}"
        return (f"{first} {self.first_cmdline}".rstrip(), f"{crash} {self.crash_cmdline}".rstrip())


    def descriptor(self, crash_memory: list[list[str]]) -> int:
        """The damaged L1 descriptor: a full L2 table at that address."""
        start = crash_memory[0][0] if self.damage == CRASH_MEMORY else self.damage
        return int(start, 0) | L1_SPAN


def expected_block(nonce: int, index: int) -> bytes:
    """What block `index` of the slow disk holds: each 64-bit word says where it belongs."""
    base = nonce << 32 | index << 16
    return array.array("Q", range(base, base + READ_SIZE // 8)).tobytes()


def frame(nonce: int, number: int) -> bytes:
    """An Ethernet broadcast of the local experimental type, numbered, with a checksum."""
    body = FRAME_HEAD.pack(FRAME_MAGIC, nonce, number)
    body += bytes((number + i) & 0xff for i in range(FRAME_SIZE - ETH_SIZE - len(body) - 4))
    return (b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb5" + body
            + struct.pack("<I", zlib.crc32(body)))


class Sender(threading.Thread):
    """Numbered frames at a constant rate; `sent[number]` is when each was sent.

    The next frame waits until QEMU has taken the last one out of the socket, so none is lost
    on the way to the network card and none is held up in between.
    """

    def __init__(self, sock: socket.socket, nonce: int, rate: int) -> None:
        super().__init__(daemon=True)
        self.sock, self.nonce, self.rate = sock, nonce, rate
        self.sent: list[float] = []
        self.stop = threading.Event()

    def _taken(self) -> bool:
        waiting = fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4))
        return not any(waiting)

    def run(self) -> None:
        self.sock.settimeout(0.2)
        due = time.monotonic()
        while not self.stop.is_set():
            due += 1 / self.rate
            try:
                begin = time.time()
                self.sock.send(frame(self.nonce, len(self.sent)))
                self.sent.append(begin)
            except TimeoutError:
                continue
            except OSError:         # QEMU is gone
                return
            time.sleep(max(due - time.monotonic(), 0))
            while not self._taken() and not self.stop.is_set():
                time.sleep(0.001)
            due = max(due, time.monotonic())


@dataclass
class Run:
    directory: Path
    nonce: int
    marks: list[tuple[float, str]] = field(default_factory=list)    # time, line
    sent: list[float] = field(default_factory=list)                 # index = frame number
    need_reads: bool = False    # as the scenario says
    damage: int | None = None   # the L1 descriptor that the guest was told to write
    lost: str = ""              # why the machine was given up, or ""
    begin: float = 0.0
    end: float = 0.0

    def mark(self, word: str) -> float | None:
        """When the guest said `word` first."""
        return next((when for when, line in self.marks if line.split()[0] == word), None)

    def facts(self, word: str) -> list[list[str]]:
        return [line.split()[1:] for _, line in self.marks if line.split()[0] == word]


def command(qemu: list[str], image: Path, initrd: Path, scenario: Scenario) -> list[str]:
    return [
        *qemu, "-M", "virt,iommu=smmuv3,gic-version=3,its=on", "-cpu", "cortex-a57",
        "-smp", "2", "-m", scenario.memory, "-nodefaults", "-display", "none",
        "-monitor", "none", "-no-reboot", "-msg", "timestamp=on",
        "-serial", f"file:{CONSOLE}", "-D", TRACE, "-d", "guest_errors,trace:smmuv3_*",
        "-kernel", str(image), "-initrd", str(initrd), "-append", scenario.cmdlines()[0],
        "-netdev", "dgram,id=n0,local.type=unix,local.path=nic.sock,"
                   "remote.type=unix,remote.path=host.sock",
        "-device", "e1000e,netdev=n0,addr=1,romfile=",
        "-drive", "file=slow.raw,if=none,id=d0,format=raw,cache=none,"
                  f"throttling.iops-read={scenario.read_iops}",
        "-device", "nvme,drive=d0,serial=slow,addr=2",
        "-drive", "file=vmcore,if=none,id=d1,format=raw,cache=unsafe",
        "-device", "nvme,drive=d1,serial=dump,addr=3",
        "-chardev", "socket,id=verdict,path=verdict.sock,server=on,wait=off",
        "-global", "virtio-mmio.force-legacy=false", "-device", "virtio-serial-device",
        "-device", "virtserialport,chardev=verdict,name=verdict",
    ]


def _script(argv: list[str]) -> str:
    """The command as a script: options one a line."""
    lines, line = [], shlex.quote(argv[0])
    for word in argv[1:]:
        if word.startswith("-"):
            lines.append(line)
            line = "    " + word
        else:
            line += " " + shlex.quote(word)
    lines.append(line)
    return ("#!/bin/sh\n# The run's QEMU. The sockets are its own; nothing needs to listen:\n"
            "# the guest goes on by itself, without frames to its network card.\n"
            'cd "$(dirname "$0")" || exit\nexec ' + " \\\n".join(lines) + "\n")


def _connect(directory: int, name: str, kind: int, alive: Callable[[], bool]) -> socket.socket:
    """Connect to a socket that QEMU is about to make. By way of /proc, as its full name may
    be longer than a socket address holds."""
    sock = socket.socket(socket.AF_UNIX, kind)
    while True:
        try:
            sock.connect(f"/proc/self/fd/{directory}/{name}")
            return sock
        except (FileNotFoundError, ConnectionRefusedError):
            if not alive():
                sock.close()
                raise
            time.sleep(0.01)


def boot(directory: Path, argv: list[str], scenario: Scenario,
         progress: Callable[[str], None] = lambda text: None) -> Run:
    """Run the machine to its end. What QEMU itself refuses is an Err."""
    run = Run(directory, random.getrandbits(31) | 1, need_reads=scenario.need_reads)
    with open(directory / "slow.raw", "wb") as disk:
        for index in range(max(BLOCKS, scenario.reads)):
            disk.write(expected_block(run.nonce, index))
    with open(directory / "vmcore", "wb") as disk:
        disk.truncate(DUMP_DISK)
    script = directory / "qemu.sh"
    script.write_text(_script(argv))
    script.chmod(0o755)

    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    nic = channel = sender = None
    host = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    host.bind(f"/proc/self/fd/{handle}/host.sock")
    stderr = open(directory / "qemu.log", "w+")
    run.begin = time.time()
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *argv], cwd=directory,
                               stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr,
                               start_new_session=True)
    alive = lambda: process.poll() is None
    try:
        try:
            channel = _connect(handle, "verdict.sock", socket.SOCK_STREAM, alive)
            nic = _connect(handle, "nic.sock", socket.SOCK_DGRAM, alive)
        except OSError:
            process.wait()
            stderr.seek(0)
            why = stderr.read().strip() or f"exit code {process.returncode}"
            raise Err(f"QEMU does not start: {why}", f"try {script}") from None
        sender = Sender(nic, run.nonce, scenario.frame_rate)
        sender.start()
        run.lost = _converse(run, channel, process, scenario, sender, progress)
    finally:
        process.kill()
        process.wait()
        run.end = time.time()
        if sender:
            sender.stop.set()
            sender.join()
            run.sent = sender.sent
        for sock in (nic, channel, host):
            if sock:
                sock.close()
        os.close(handle)
        stderr.close()
        for name in ("nic.sock", "host.sock", "verdict.sock"):
            (directory / name).unlink(missing_ok=True)
    return run


def _converse(run: Run, channel: socket.socket, process: subprocess.Popen[bytes],
              scenario: Scenario, sender: Sender, progress: Callable[[str], None]) -> str:
    """Follow the guest until QEMU ends; why it was given up, or ''."""
    answers = {"hello": f"reads={scenario.reads} cmdline={scenario.cmdlines()[1]}\n",
               "panic": "go\n", "shutdown": "go\n"}
    deadline = time.monotonic() + scenario.timeout
    pending = b""
    while time.monotonic() < deadline:
        if not select.select([channel], [], [], 0.2)[0]:
            if process.poll() is not None:
                break
            continue
        data = channel.recv(65536)
        if not data:
            break
        *lines, pending = (pending + data).split(b"\n")
        for raw in lines:
            line = raw.decode(errors="replace").strip()
            if not line:
                continue
            run.marks.append((time.time(), line))
            word = line.split()[0]
            progress(line if len(line) < 40 else word)
            if word == "panic" and scenario.damage:
                run.damage = scenario.descriptor(run.facts("crash-memory"))
                answers[word] = f"go {L1_INDEX} {run.damage:#x}\n"
            if word == "shutdown":      # frames for the few milliseconds after the SMMU's
                sender.rate = max(sender.rate, 1000)
            if word in answers:
                channel.sendall(answers[word].encode())
    else:
        return f"no end after {scenario.timeout} s, last said: {_last(run)}"
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        return "QEMU hung up and did not end"
    errors = run.facts("error")
    if errors:
        return "the guest gave up: " + " ".join(errors[0])
    if run.mark("shutdown") is None:
        return f"QEMU ended ({process.returncode}) early, last said: {_last(run)}"
    return ""


def _last(run: Run) -> str:
    return run.marks[-1][1] if run.marks else "nothing"
