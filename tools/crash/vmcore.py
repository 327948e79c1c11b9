# SPDX-License-Identifier: GPL-2.0-only
"""The vmcore that the crash kernel saved: an ELF file at the start of its dump disk.

    vmcore.py FILE TEXT     exit 0 if drgn opens it and the crashed kernel's log has TEXT
"""

from __future__ import annotations

import mmap
import struct
import sys
import zlib
from pathlib import Path

import qemu

EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
PHDR = struct.Struct("<IIQQQQQQ")
PT_LOAD, PT_NOTE = 1, 4


class Vmcore:
    """Its segments; ValueError when it is not one."""

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as handle:
            self.data = mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ)
        header = EHDR.unpack_from(self.data, 0)
        if header[0][:5] != b"\x7fELF\x02":
            raise ValueError("no ELF file")
        self.segments: list[tuple[int, int, int]] = []      # physical address, size, offset
        self.info: dict[str, str] = {}
        try:
            for index in range(header[10]):
                kind, _, offset, _, phys, size, _, _ = PHDR.unpack_from(
                    self.data, header[5] + index * header[9])
                if kind == PT_LOAD and size:
                    self.segments.append((phys, size, offset))
                elif kind == PT_NOTE:
                    self._notes(self.data[offset:offset + size])
        except struct.error as err:
            raise ValueError(f"damaged ELF header: {err}") from err
        if not self.segments:
            raise ValueError("no memory in it")
        self.end = max(offset + size for _, size, offset in self.segments)

    def _notes(self, notes: bytes) -> None:
        at = 0
        while at + 12 <= len(notes):
            name, desc, _ = struct.unpack_from("<III", notes, at)
            start = at + 12 + (name + 3 & ~3)
            if notes[at + 12:at + 12 + name].rstrip(b"\0") == b"VMCOREINFO":
                text = notes[start:start + desc].decode(errors="replace")
                self.info = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
            at = start + (desc + 3 & ~3)

    def read(self, phys: int, size: int) -> bytes:
        """Physical memory; shorter where the vmcore does not have it."""
        out = b""
        while size:
            for start, length, offset in self.segments:
                if start <= phys < start + length:
                    take = min(size, start + length - phys)
                    break
            else:
                return out
            out += self.data[offset + phys - start:offset + phys - start + take]
            phys, size = phys + take, size - take
        return out

    def frames(self, nonce: int) -> set[int]:
        """The numbers of the frames that are in memory, whole and undamaged."""
        needle = qemu.FRAME_MAGIC + struct.pack("<I", nonce)
        size = qemu.FRAME_SIZE - qemu.ETH_SIZE - 4
        found = set()
        at = self.data.find(needle, 0, self.end)
        while at >= 0:
            body = self.data[at:at + size]
            checksum = self.data[at + size:at + size + 4]
            if checksum == struct.pack("<I", zlib.crc32(body)):
                found.add(qemu.FRAME_HEAD.unpack_from(body)[2])
            at = self.data.find(needle, at + 1, self.end)
        return found

    def read_landed(self, nonce: int, index: int, runs: list[str]) -> bool:
        """Whether the buffer of read `index`, at these "PHYS:LENGTH", holds what the disk does."""
        pieces = (run.split(":") for run in runs)
        data = b"".join(self.read(int(phys, 16), int(size, 16)) for phys, size in pieces)
        return data == qemu.expected_block(nonce, index)


def log_text(path: Path) -> bytes:
    """The crashed kernel's log buffer as drgn reads it, by the symbols of VMCOREINFO."""
    import drgn
    info = Vmcore(path).info
    program = drgn.Program()
    program.set_core_dump(str(path))
    ring = program.read_u64(int(info["SYMBOL(prb)"], 16))
    ring += int(info["OFFSET(printk_ringbuffer.text_data_ring)"])
    bits = program.read_u32(ring + int(info["OFFSET(prb_data_ring.size_bits)"]))
    data = program.read_u64(ring + int(info["OFFSET(prb_data_ring.data)"]))
    return program.read(data, 1 << bits)


if __name__ == "__main__":
    try:
        sys.exit(0 if sys.argv[2].encode() in log_text(Path(sys.argv[1])) else 1)
    except Exception as error:      # whatever drgn raises, the vmcore is no good
        sys.exit(f"{type(error).__name__}: {error}")
