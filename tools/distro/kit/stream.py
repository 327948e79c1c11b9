# SPDX-License-Identifier: GPL-2.0-only
"""The network stream: ./kit send on a second machine, and what hears it on the one that is crashed.

Numbered Ethernet broadcasts of the local experimental type (crash/workload.py has their form), so that no
address is needed, at a rate at which the card's ring lasts through the crash kernel's boot. The number that
was heard last is in a page whose physical address is told: the vmcore has that page, and in the card's
buffers the frames that came later.
"""

from __future__ import annotations

import ctypes
import mmap
import random
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

from ...common import USAGE, Err, say
from ...crash.workload import ETH_SIZE, FRAME_HEAD, FRAME_MAGIC, FRAME_SIZE, frame

RATE = 10                       # frames a second: rings have 256 descriptors and more
WARM_UP = 30                    # frames that tell the rate
SILENT_S = 10.0
ETH_P_802_EX1 = 0x88B5          # IEEE 802's local experimental EtherType
BODY = FRAME_SIZE - ETH_SIZE    # bytes, with the checksum
LEDGER = struct.Struct("<QQ")   # the crash's nonce; the number that was heard last


def opened(card: str) -> socket.socket:
    """A raw socket for the frames of this network card alone."""
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_802_EX1))
        sock.bind((card, ETH_P_802_EX1))
    except OSError as err:
        raise Err(f"network card {card}: {err.strerror}", "as root, with the name of a card: ip link",
                  USAGE) from err
    return sock


def send(card: str) -> int:
    """./kit send: until it is interrupted."""
    nonce, number = random.SystemRandom().getrandbits(31) | 1, 0
    with opened(card) as sock:
        say(f"{RATE} frames a second by {card}; Ctrl-C ends it")
        due = time.monotonic()
        while True:
            try:
                sock.send(frame(nonce, number))
            except OSError as err:          # it goes on when the link is there again
                say(f"frame {number}: {err.strerror}")
            number += 1
            due += 1 / RATE
            time.sleep(max(due - time.monotonic(), 0))


def numbers(data: bytes, nonce: int = 0) -> Iterator[tuple[int, int]]:
    """(nonce, number) of the frames in some memory that are whole; of this nonce, if one is given."""
    needle = FRAME_MAGIC + (struct.pack("<I", nonce) if nonce else b"")
    at = data.find(needle)
    while at >= 0:
        body, check = data[at:at + BODY - 4], data[at + BODY - 4:at + BODY]
        if check == struct.pack("<I", zlib.crc32(body)):
            _, found, number = FRAME_HEAD.unpack_from(body)
            yield found, number
        at = data.find(needle, at + 1)


def physical(page: mmap.mmap) -> int:
    """Where the first page of a mapping is, and stays."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    if ctypes.CDLL(None, use_errno=True).mlock(ctypes.c_void_p(address), ctypes.c_size_t(len(page))):
        raise Err("memory cannot be locked", "run it as root")
    with open("/proc/self/pagemap", "rb") as pagemap:
        pagemap.seek(address // mmap.PAGESIZE * 8)
        entry = int.from_bytes(pagemap.read(8), "little")
    number = entry & (1 << 55) - 1
    if not entry >> 63 or not number:
        raise Err("/proc/self/pagemap does not tell physical addresses", "run it as root")
    return number * mmap.PAGESIZE


class Stream:
    """Hears the frames until the machine dies."""

    def __init__(self, sock: socket.socket, nonce: int) -> None:
        self.sock, self.nonce = sock, nonce
        self.page = mmap.mmap(-1, mmap.PAGESIZE)
        LEDGER.pack_into(self.page, 0, nonce, 0)

    def _heard(self) -> tuple[int, int]:
        self.sock.settimeout(SILENT_S)
        while True:
            try:
                found = next(numbers(self.sock.recv(2048)), None)
            except TimeoutError:
                raise Err(f"no frame came for {SILENT_S:.0f} s",
                          "on a second machine of this network: ./kit send CARD") from None
            if found:
                return found

    def begin(self) -> dict[str, Any]:
        """What run.json has of it: the stream's nonce, its frames a second, and where the ledger is."""
        nonce, first = self._heard()
        begin = time.monotonic()
        number = first
        while number < first + WARM_UP:
            other, number = self._heard()
            if other != nonce:
                raise Err("two machines send", "end one ./kit send")
        rate = (number - first) / (time.monotonic() - begin)
        threading.Thread(target=self._follow, args=(nonce,), daemon=True).start()
        return {"nonce": nonce, "rate": round(rate, 2),
                "ledger": f"{physical(self.page):#x}:{LEDGER.size:#x}"}

    def _follow(self, wanted: int) -> None:
        self.sock.settimeout(None)
        while True:
            for nonce, number in numbers(self.sock.recv(2048), wanted):
                LEDGER.pack_into(self.page, 0, self.nonce, number)
