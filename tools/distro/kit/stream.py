# SPDX-License-Identifier: GPL-2.0-only
"""The network stream: ./kit send on a second machine, and what hears it on the one that is crashed.

Numbered Ethernet broadcasts of the local experimental type (crash/workload.py has their form), so that no
address is needed, at a rate at which the card's ring lasts through the crash kernel's boot. The number that
was heard last is kept in memory, in a record that can be found in the vmcore; the frames that came later
are there, too, wherever the card has put them.
"""

from __future__ import annotations

import mmap
import random
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator

from ...common import Err, say
from ...crash.workload import ETH_SIZE, FRAME_HEAD, FRAME_MAGIC, FRAME_SIZE, frame

RATE = 5                        # frames a second ...
RING = 240                      # ... that find a place, 48 s: rings have 256 descriptors and more
WARM_UP = 30                    # frames that show the rate
SILENT_S = 10.0
STOPPED_S = 2.0
ETH_P_802_EX1 = 0x88B5          # IEEE 802's local experimental EtherType
BODY = FRAME_SIZE - ETH_SIZE    # bytes, with the checksum
RECORD_MAGIC = b"SMMUHEAR"
RECORD = struct.Struct("<8sQQd")        # magic, its crash's nonce, the number, the time; a checksum follows
NEXT = "on a second machine of this network: ./kit send CARD"


def opened(card: str) -> socket.socket:
    """A raw socket for the frames of this network card alone."""
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_802_EX1))
        sock.bind((card, ETH_P_802_EX1))
    except OSError as err:
        raise Err(f"network card {card}: {err.strerror}", "as root, the name of a card: ip link") from err
    return sock


def send(card: str) -> int:
    """./kit send: until it is interrupted."""
    nonce, number, wrong = random.SystemRandom().getrandbits(31) | 1, 0, ""
    with opened(card) as sock:
        say(f"{RATE} frames a second by {card}; Ctrl-C ends it")
        due = time.monotonic()
        while True:
            try:
                sock.send(frame(nonce, number))
                why = ""
            except OSError as err:          # it goes on when the link is there again
                why = f"{card}: {err.strerror}"
            if why != wrong:
                say(why or f"{card} sends again")
            wrong = why
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


def record(nonce: int, number: int, when: float) -> bytes:
    body = RECORD.pack(RECORD_MAGIC, nonce, number, when)
    return body + struct.pack("<I", zlib.crc32(body))


def last(data: bytes, nonce: int) -> tuple[int, float]:
    """The number that was heard last, by the records in some memory, and when; (-1, 0), if there is none."""
    found, size = (-1, 0.0), RECORD.size
    needle = RECORD_MAGIC + struct.pack("<Q", nonce)
    at = data.find(needle)
    while at >= 0:
        body, check = data[at:at + size], data[at + size:at + size + 4]
        if check == struct.pack("<I", zlib.crc32(body)):
            number, when = RECORD.unpack(body)[2:]
            found = max(found, (number, when))
        at = data.find(needle, at + 1)
    return found


class Stream:
    """Hears the frames until the machine dies. `nonce` tells its record from others."""

    def __init__(self, sock: socket.socket, card: str = "") -> None:
        self.sock, self.card = sock, card
        self.nonce = random.SystemRandom().getrandbits(63) | 1
        self.number = -1
        # Of this process alone: makedumpfile takes what is shared for the page cache.
        self.page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.sender = self._warm_up()
        threading.Thread(target=self._follow, daemon=True).start()

    def told(self) -> dict[str, int]:
        """What run.json has of it."""
        return {"sender": self.sender, "record": self.nonce}

    def _heard(self, deadline: float) -> tuple[int, int]:
        while True:
            try:
                self.sock.settimeout(max(deadline - time.monotonic(), 0.001))
                found = next(numbers(self.sock.recv(2048)), None)
            except TimeoutError:
                raise Err(f"no frame came for {SILENT_S:.0f} s", NEXT) from None
            except OSError as err:
                raise Err(f"network card {self.card}: {err.strerror}", f"ip link set {self.card} up") from err
            if found:
                return found

    def _keep(self, number: int) -> None:
        """In turn at two places: the panic may come while it writes."""
        self.page.seek(number % 2 * 64)
        self.page.write(record(self.nonce, number, time.time()))
        self.number = number

    def _warm_up(self) -> int:
        """The sender's nonce; it must be the only one, and send as the verdict takes for granted."""
        sender, first = self._heard(time.monotonic() + SILENT_S)
        begin = time.monotonic()
        for _ in range(WARM_UP):
            other, number = self._heard(time.monotonic() + SILENT_S)
            if other != sender:
                raise Err("two machines send, or one has begun anew", "let one ./kit send run, and again")
            self._keep(number)
        rate = (number - first) / (time.monotonic() - begin)
        if not 0.9 * RATE <= rate <= 1.1 * RATE:
            raise Err(f"{rate:.1f} frames came a second, not {RATE}", "is the network busy? Try again")
        return sender

    def _follow(self) -> None:
        self.sock.settimeout(None)
        try:
            while True:
                for _, number in numbers(self.sock.recv(2048), self.sender):
                    self._keep(number)
        except OSError:         # still_there() tells
            return

    def still_there(self) -> None:
        number, end = self.number, time.monotonic() + STOPPED_S
        while self.number == number:
            if time.monotonic() > end:
                raise Err("the frames have stopped", NEXT)
            time.sleep(0.05)
