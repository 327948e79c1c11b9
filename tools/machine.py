# SPDX-License-Identifier: GPL-2.0-only
"""The virtual machine: which QEMU, its start, its deadline, its end with ours, its sockets and console.

What QEMU opens is named relative to the run's directory, so that the saved command can be run
again as it is. No network port is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import select
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import deps
from .common import Err, cache_dir, made, run
from .queue import archive

CONSOLE = "console.log"
FIRMWARE = "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"
CPU = "cortex-a57"              # emulated faster than newer ones
MIN_QEMU = (10, 0)              # the first that models GBPA
# What of the newer QEMU is unpacked; its libraries are those that the system's QEMU needs.
QEMU_PACKAGES = ("qemu-system-arm", "qemu-system-data", "qemu-system-common")

# What no kernel may say ...
COMPLAINTS = re.compile(
    r"WARNING:|\bBUG\b|\bOops\b|Internal error|Unable to handle kernel|------------\[ cut here \]|"
    r"\bK[AC]SAN\b|\bKFENCE\b|\bUBSAN\b|soft lockup|hard LOCKUP|hung_task|blocked for more than|"
    r"detected stalls?|self-detected stall|possible (circular|recursive) locking|inconsistent lock state|"
    r"suspicious RCU usage|bad unlock balance|scheduling while atomic|sleeping function called|"
    r"DEBUG_LOCKS_WARN_ON")
# ... but for these: (pattern, reason)
ALLOWED: tuple[tuple[str, str], ...] = (
    (r"kasan: KernelAddressSanitizer initialized", "the sanitizer says that it is there"),
)


def complaints(console: str) -> list[str]:
    """The lines in which a kernel complains."""
    return [line.strip() for line in console.splitlines()
            if COMPLAINTS.search(line) and not any(re.search(pattern, line) for pattern, _ in ALLOWED)]


def _version(command: list[str]) -> tuple[int, ...]:
    said = run([*command, "--version"]).stdout
    match = re.search(r"version (\d+)\.(\d+)\.(\d+)", said)
    if not match:
        raise Err(f"{command[0]} does not tell its version: {said.strip()[:80]}")
    return tuple(map(int, match.groups()))


def _name(version: tuple[int, ...]) -> str:
    return "QEMU " + ".".join(map(str, version))


class NoDevice(Err):
    """There is a QEMU, but it cannot be such a machine."""


def find(device: str = "") -> tuple[list[str], str]:
    """The command and name of the system's QEMU if it models GBPA, else of the backports suite's.

    With `device` it must have that one, too."""
    deps.need("qemu")
    own = ["qemu-system-aarch64"]
    if _version(own) >= MIN_QEMU and has(own, device):
        return own, _name(_version(own))
    command = _of_backports()
    found = _version(command)
    if found < MIN_QEMU:
        raise Err(f"{_backports()} has {_name(found)}, and GBPA needs 10.0", "install a QEMU that is newer")
    if not has(command, device):
        raise NoDevice(f"{_name(found)} has no device {device}",
                       f"use a distribution whose QEMU has {device}")
    return command, _name(found)


def has(command: Sequence[str], device: str) -> bool:
    """Can a machine be given such a device? QEMU does not start: the second one is none at all.

    Not by the list of all devices: for that an unpacked QEMU would load the system's modules."""
    if not device:
        return True
    tried = run([*command, "-M", "virt", "-nodefaults", "-display", "none", "-device", device,
                 "-device", "none"], check=False).stderr.partition("\n")[0]
    return not re.search("expects a pluggable device type|is not a valid device model name", tried)


def _backports() -> str:
    return platform.freedesktop_os_release()["VERSION_CODENAME"] + "-backports"


def _of_backports() -> list[str]:
    debs = [archive.fetch(name, arch=archive.native(), suites=[_backports()]) for name in QEMU_PACKAGES]
    trees = [archive.unpack(deb) for deb in debs]

    def merge(new: Path) -> None:
        # One directory with the files of all, as the packages refer to each other.
        for tree in trees:
            shutil.copytree(tree, new, symlinks=True, dirs_exist_ok=True)

    key = hashlib.sha256(" ".join(tree.name for tree in trees).encode()).hexdigest()[:16]
    top = made(cache_dir("crash", "tools") / f"qemu-{key}", merge)
    return [str(top / "usr/bin/qemu-system-aarch64"), "-L", str(top / "usr/share/qemu")]


def command(qemu: Sequence[str], image: Path | None, cmdline: str = "", *,
            machine: str = "virt,gic-version=3", memory: str = "1G", cpus: int = 2,
            cpu: str = CPU) -> list[str]:
    """What every machine has; its console is a file of the run's directory. No image: it boots a disk."""
    kernel = ["-kernel", str(image), "-append", cmdline] if image else []
    return [*qemu, "-M", machine, "-cpu", cpu, "-smp", str(cpus), "-m", memory, "-nodefaults",
            "-display", "none", "-monitor", "none", "-no-reboot", "-serial", f"file:{CONSOLE}",
            *kernel]


def _script(argv: Sequence[str]) -> str:
    return ("#!/bin/sh\n# The run's QEMU. Its sockets are its own; nothing needs to listen.\n"
            f'cd "$(dirname "$0")" || exit\nexec {shlex.join(argv)}\n')


class Machine:
    """A running QEMU, for a `with`: at its end, or when this process dies, QEMU is gone.

    `lost` says why it was given up, or ''. What QEMU itself refuses is an Err."""

    def __init__(self, directory: Path, argv: Sequence[str], limit: float) -> None:
        self.directory = directory
        self.limit = limit
        self.lost = ""
        self.begin = time.time()
        self.end = 0.0
        self._script = directory / "qemu.sh"
        self._script.write_text(_script(argv))
        self._script.chmod(0o755)
        (directory / CONSOLE).write_bytes(b"")
        self._deadline = time.monotonic() + limit
        self._stack = contextlib.ExitStack()
        self._handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self._stack.callback(os.close, self._handle)
        said = self._stack.enter_context(open(directory / "qemu.log", "w"))
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *argv], cwd=directory,
                                        stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                        start_new_session=True)
        self._stack.callback(self._kill)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *why: object) -> None:
        self._stack.close()
        self.end = time.time()
        for path in self.directory.glob("*.sock"):
            path.unlink()

    def _kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    def running(self, pause: float = 0.2) -> bool:
        """After at most `pause` seconds: has neither QEMU nor the time ended?"""
        if time.monotonic() >= self._deadline:
            self.lost = f"no end after {self.limit:.0f} s"
            return False
        try:
            self.process.wait(pause)
        except subprocess.TimeoutExpired:
            return True
        return False

    @property
    def said(self) -> str:
        """QEMU itself, not the guest."""
        return (self.directory / "qemu.log").read_text(errors="replace").strip()

    def refused(self) -> Err:
        """QEMU ended at once: why."""
        why = self.said or f"exit code {self.process.wait()}"
        return Err(f"QEMU does not start: {why}", f"try {self._script}")

    def place(self, name: str) -> str:
        """A socket of the run's directory: its full name may be longer than a socket address holds."""
        return f"/proc/self/fd/{self._handle}/{name}"

    def connect(self, name: str, kind: socket.SocketKind) -> socket.socket:
        """Connect to a socket that QEMU is about to make."""
        sock = self._stack.enter_context(socket.socket(socket.AF_UNIX, kind))
        while True:
            try:
                sock.connect(self.place(name))
                return sock
            except (FileNotFoundError, ConnectionRefusedError):
                if not self.running(0.01):
                    raise self.refused() from None

    def bind(self, name: str) -> socket.socket:
        """A datagram socket that QEMU sends to."""
        sock = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        sock.bind(self.place(name))
        return sock

    def lines(self, channel: socket.socket) -> Iterator[str]:
        """What the guest says on a stream socket, until QEMU or the time ends."""
        pending = b""
        while True:
            alive = self.running(0)
            if self.lost:
                return
            ready = select.select([channel], [], [], 0.2 if alive else 0)[0]
            try:
                data = channel.recv(65536) if ready else b""
            except ConnectionResetError:    # QEMU died
                data = b""
            if not data and (ready or not alive):
                break
            *lines, pending = (pending + data).split(b"\n")
            yield from (line.decode(errors="replace").strip() for line in lines if line.strip())
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.lost = "QEMU hung up and did not end"
