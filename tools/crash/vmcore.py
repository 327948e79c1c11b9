# SPDX-License-Identifier: GPL-2.0-only
"""What is in the vmcore that the crash kernel saved: an ELF file at the start of its dump disk.

    python3 -m tools.crash.vmcore FILE TEXT NONCE <BUFFERS

prints, as JSON, which of our frames are in memory whole, which of the reads' buffers hold what the
disk does, and whether the crashed kernel's log, as drgn reads it, has TEXT. BUFFERS is JSON: for
each read its pieces of physical memory, "PHYS:LENGTH". It is a program of its own, as drgn's C code
may end with a damaged file in ways that no exception catches.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .workload import ETH_SIZE, FRAME_HEAD, FRAME_MAGIC, FRAME_SIZE, expected_block


def _extents(path: Path) -> Iterator[bytes]:
    """The written parts of a file that is mostly holes."""
    with open(path, "rb") as handle:
        at, end = 0, os.fstat(handle.fileno()).st_size
        with mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ) as data:
            while at < end:
                try:
                    at = os.lseek(handle.fileno(), at, os.SEEK_DATA)
                except OSError:         # only a hole is left
                    return
                hole = os.lseek(handle.fileno(), at, os.SEEK_HOLE)
                yield data[at:hole]
                at = hole


def frames(path: Path, nonce: int) -> list[int]:
    """The numbers of the frames that are in memory, whole and undamaged."""
    needle = FRAME_MAGIC + struct.pack("<I", nonce)
    size = FRAME_SIZE - ETH_SIZE - 4
    found = set()
    for data in _extents(path):
        at = data.find(needle)
        while at >= 0:
            body = data[at:at + size]
            if data[at + size:at + size + 4] == struct.pack("<I", zlib.crc32(body)):
                found.add(int(FRAME_HEAD.unpack_from(body)[2]))
            at = data.find(needle, at + 1)
    return sorted(found)


def _info(path: Path) -> dict[str, str]:
    """The crashed kernel's VMCOREINFO, which is in an ELF note near the start of the file."""
    name = b"VMCOREINFO\0\0"
    with open(path, "rb") as handle:
        _, found, rest = handle.read(1 << 20).partition(name)
    if not found:
        raise ValueError("no VMCOREINFO")
    text = rest.partition(b"\0")[0].decode(errors="replace")
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def log(program: Any, path: Path) -> bytes:
    """The crashed kernel's log buffer, by the symbols of VMCOREINFO."""
    info = _info(path)
    ring = program.read_u64(int(info["SYMBOL(prb)"], 16))
    ring += int(info["OFFSET(printk_ringbuffer.text_data_ring)"])
    bits = program.read_u32(ring + int(info["OFFSET(prb_data_ring.size_bits)"]))
    data = program.read_u64(ring + int(info["OFFSET(prb_data_ring.data)"]))
    return bytes(program.read(data, 1 << bits))


def memory(program: Any, pieces: list[str]) -> bytes:
    """What is in these pieces of physical memory; nothing, if the vmcore does not have them."""
    import drgn
    try:
        return b"".join(program.read(int(phys, 16), int(size, 16), physical=True)
                        for phys, size in (piece.split(":") for piece in pieces))
    except drgn.FaultError:
        return b""


def main(path: Path, text: str, nonce: int, buffers: dict[str, list[str]]) -> dict[str, Any]:
    import drgn
    found: dict[str, Any] = {"frames": [], "reads": [], "error": ""}
    try:
        found["frames"] = frames(path, nonce)
        program = drgn.Program()
        program.set_core_dump(str(path))
        found["reads"] = [int(index) for index, pieces in buffers.items()
                          if memory(program, pieces) == expected_block(nonce, int(index))]
        found["error"] = "" if text.encode() in log(program, path) else "no panic message"
    except Exception as error:          # whatever drgn raises, the vmcore is no good
        found["error"] = f"{type(error).__name__}: {error}"
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), json.load(sys.stdin))))
