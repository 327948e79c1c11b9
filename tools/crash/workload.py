# SPDX-License-Identifier: GPL-2.0-only
"""The host's part of a run: the frames, the disks, and the conversation with the guest.

The network card and the verdict channel are Unix sockets in the run's directory; what the guest
says there is described in guest/init.c.
"""

from __future__ import annotations

import array
import fcntl
import random
import re
import socket
import struct
import termios
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import common
from ..machine import CONSOLE, Machine
from .scenario import DTB, L1_INDEX, Scenario

READ_SIZE = 128 << 10           # as in guest/init.c
BLOCKS = 64                     # of the slow disk at least; the guest reads the first of them
FRAME_MAGIC = b"SMMUFRAM"
FRAME_SIZE = 512
ETH_SIZE = 14
FRAME_HEAD = struct.Struct("<8sII")     # magic, nonce, sequence number
FOLLOW_S = 0.005
DEAD = {"dead": "Bye!|Booting Linux"}   # the last word of the crashed kernel, or the crash kernel's first
DUMP_DISK = 2 << 30             # sparse; holds the memory of the machine


def expected_block(nonce: int, index: int) -> bytes:
    """What block `index` of the slow disk holds: each 64-bit word says where it belongs."""
    base = nonce << 32 | index << 16
    return array.array("Q", range(base, base + READ_SIZE // 8)).tobytes()


def frame(nonce: int, number: int) -> bytes:
    """An Ethernet broadcast of the local experimental type, numbered, with a checksum."""
    body = FRAME_HEAD.pack(FRAME_MAGIC, nonce, number)
    body += bytes((number + i) & 0xff for i in range(FRAME_SIZE - ETH_SIZE - len(body) - 4))
    return b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb5" + body + struct.pack("<I", zlib.crc32(body))


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

    def finish(self) -> None:
        self.stop.set()
        self.join()


@dataclass
class Run:
    """What one machine did, beside the files in its directory."""
    directory: Path
    scenario: Scenario
    nonce: int
    marks: list[tuple[float, str]] = field(default_factory=list)    # time, line
    sent: list[float] = field(default_factory=list)                 # index = frame number
    images: dict[str, Path] = field(default_factory=dict)           # of the kernels "first" and "crash"
    damage: int | None = None   # the L1 descriptor that the guest was told to write
    lost: str = ""              # why the machine was given up, or ""
    end: float = 0.0
    seconds: float = 0.0

    def mark(self, word: str) -> float | None:
        """When the guest said `word` first."""
        return next((when for when, line in self.marks if line.split()[0] == word), None)

    def facts(self, word: str) -> list[list[str]]:
        return [line.split()[1:] for _, line in self.marks if line.split()[0] == word]


def not_coherent(directory: Path, argv: Sequence[str]) -> None:
    """QEMU's own device tree, but for the SMMU, whose table walks are not coherent."""
    board, kernel = argv.index("-M") + 1, argv.index("-kernel")
    common.run([*argv[:board], f"{argv[board]},dumpdtb={DTB}", *argv[board + 1:kernel]], cwd=directory)
    common.run(["fdtput", "-d", DTB, "/smmuv3@9050000", "dma-coherent"], cwd=directory)
    common.run(["fdtput", DTB, "/smmuv3@9050000", "dma-noncoherent"], cwd=directory)


class Follower(threading.Thread):
    """Marks that the console makes, where nobody tells the host: a pattern is seen first after the panic."""

    def __init__(self, run: Run, patterns: Mapping[str, str]) -> None:
        super().__init__(daemon=True)
        self.run_, self.patterns = run, dict(patterns)
        self.stop = threading.Event()

    def run(self) -> None:
        path, seen = self.run_.directory / CONSOLE, 0
        while self.patterns and not self.stop.wait(FOLLOW_S):
            if self.run_.mark("panic") is None or path.stat().st_size == seen:
                continue
            now, data = time.time(), path.read_bytes()
            text, seen = data.partition(b"sysrq triggered crash")[2].decode(errors="replace"), len(data)
            for word, pattern in list(self.patterns.items()):
                if re.search(pattern, text):
                    self.run_.marks.append((now, word))
                    del self.patterns[word]

    def finish(self) -> None:
        self.stop.set()
        self.join()


def boot(directory: Path, argv: Sequence[str], scenario: Scenario,
         progress: Callable[[str], None] = lambda text: None, follow: Mapping[str, str] = {}) -> Run:
    """Run the machine to its end. What QEMU itself refuses is an Err.

    `follow`: marks that the console gives after the panic, with a pattern for each."""
    run = Run(directory, scenario, random.getrandbits(31) | 1)
    with open(directory / "slow.raw", "wb") as disk:
        for index in range(max(BLOCKS, scenario.reads)):
            disk.write(expected_block(run.nonce, index))
    with open(directory / "vmcore", "wb") as disk:
        disk.truncate(DUMP_DISK)
    if scenario.not_coherent:
        not_coherent(directory, argv)
    with Machine(directory, argv, scenario.timeout_s) as vm:
        vm.bind("host.sock")
        channel = vm.connect("verdict.sock", socket.SOCK_STREAM)
        sender = Sender(vm.connect("nic.sock", socket.SOCK_DGRAM), run.nonce, scenario.frames)
        follower = Follower(run, {**DEAD, **follow})
        sender.start()
        follower.start()
        try:
            _converse(run, vm, channel, sender, progress)
        finally:
            sender.finish()
            follower.finish()
    run.sent = sender.sent
    run.end, run.seconds = vm.end, vm.seconds
    run.lost = _lost(run, vm)
    return run


def _converse(run: Run, vm: Machine, channel: socket.socket, sender: Sender,
              progress: Callable[[str], None]) -> None:
    """Follow the guest until QEMU ends, and answer it."""
    answers = {"hello": f"reads={run.scenario.reads} wait={run.scenario.panic_ms} "
                        f"moment={run.scenario.moment or 'none'} more={run.scenario.more} "
                        f"cmdline={run.scenario.crash_cmdline()}\n",
               "panic": "go\n", "shutdown": "go\n"}
    for line in vm.lines(channel):
        run.marks.append((time.time(), line))
        word = line.split()[0]
        progress(line if len(line) < 40 else word)
        if word == "panic":
            console = (run.directory / CONSOLE).read_text(errors="replace")
            run.damage = run.scenario.descriptor(run.facts("crash-memory"), console)
            count = run.scenario.damage_count
            answers[word] = "go\n" if run.damage is None else f"go {L1_INDEX} {run.damage:#x} {count}\n"
            if run.scenario.chaos:
                answers[word] = f"chaos {run.scenario.chaos} {run.scenario.damages}\n"
        if word == "shutdown":      # frames for the few milliseconds after the SMMU's
            sender.rate = max(sender.rate, 1000)
        if word in answers:
            channel.sendall(answers[word].encode())


def _lost(run: Run, vm: Machine) -> str:
    """Why the machine was given up, or ''."""
    last = run.marks[-1][1] if run.marks else "nothing"
    errors = run.facts("error")
    if vm.lost:
        return f"{vm.lost}, last said: {last}"
    if errors:
        return "the guest gave up: " + " ".join(errors[0])
    if run.mark("shutdown") is None:
        why = f"; QEMU: {vm.said.splitlines()[-1]}" if vm.said else ""
        return f"QEMU ended ({vm.process.returncode}) early, last said: {last}{why}"
    return ""
