# SPDX-License-Identifier: GPL-2.0-only
"""What is in a vmcore that a distribution's kdump saved, be it a copy of /proc/vmcore or makedumpfile's.

    python3 -m tools.distro.kit.dump FILE NONCE <FACTS

prints, as JSON, the crashed kernel's log in the order of time, the ledger and which reads' buffers hold
what the file does.
FACTS are the lines that the workload wrote (tools/crash/guest/init.c), and, if there was a stream,
"frames SENDER RECORD" with the nonces of its frames and of what was heard. A program of its own, as
crash/vmcore.py is.
"""

from __future__ import annotations

import array
import json
import os
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ...crash import vmcore
from ...crash.workload import expected_block
from . import stream

PAGE = 4096
CHUNK = 1 << 20                 # bytes of memory that are searched at once
ELF, KDUMP, FLAT = b"\x7fELF", b"KDUMP   ", b"makedumpfile\0"
PT_LOAD = 1
USER_PAGES = 8                  # the bit of makedumpfile's level that leaves them out
EMPTY = "it is empty"
INCOMPLETE = 8                  # in the status of a header: makedumpfile ran out of space


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def rearrange(path: Path, new: Path) -> None:
    """makedumpfile's flattened form, which kdump-tools saves, as a file that can be read anywhere."""
    with open(path, "rb") as flat, open(new, "wb", opener=_private) as out:
        flat.seek(PAGE)
        while len(head := flat.read(16)) == 16:
            at, size = struct.unpack(">qq", head)
            if at < 0:          # the end
                return
            data = flat.read(size) if 0 <= size <= 1 << 30 else b""
            if len(data) != size:
                break
            out.seek(at)
            out.write(data)
    raise ValueError("it is cut short: the end of the flattened file is missing")


def _end_of_elf(file: BinaryIO) -> int:
    head = file.read(64)
    if len(head) < 64:
        return 64
    offset, (size, count) = int.from_bytes(head[32:40], "little"), struct.unpack_from("<HH", head, 54)
    file.seek(offset)
    table = file.read(size * count)
    if len(table) < size * count or size < 56:
        return offset + 56 * int(count)
    found = (struct.unpack_from("<IIQQQQ", table, number * size) for number in range(count))
    ends: list[int] = [at + length for kind, _, at, _, _, length in found if kind == PT_LOAD]
    return max(ends, default=64)


def _end_of_kdump(file: BinaryIO, limit: int) -> int:
    """Where the last page's data ends; what has no place in the file is far past its end."""
    head = file.read(464).ljust(464, b"\0")
    status, block, sub_blocks, bitmap_blocks = struct.unpack_from("<IiiI", head, 424)
    if status & INCOMPLETE or not 0 < block <= 1 << 20 or sub_blocks < 1:
        return 1 << 62
    start = (1 + sub_blocks) * block
    if start + bitmap_blocks * block > limit:
        return 1 << 62
    file.seek(start + bitmap_blocks * block // 2)
    count = int.from_bytes(file.read(bitmap_blocks * block // 2), "little").bit_count()
    file.seek(start + bitmap_blocks * block)
    table = file.read(24 * count)
    if len(table) < 24 * count:
        return 1 << 62
    words = array.array("Q", table)
    return max((at + (size & 0xffffffff) for at, size in zip(words[::3], words[1::3])), default=start)


def wrong(path: Path) -> str:
    """What can be seen without reading memory: an empty file, another format, an end that is missing."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(16)
        file.seek(0)
        if not size:
            return EMPTY
        try:
            end = _end_of_elf(file) if head.startswith(ELF) else _end_of_kdump(file, size)
        except (OSError, ValueError, OverflowError, struct.error) as err:
            return f"it is damaged: {err}"
        if not head.startswith((ELF, KDUMP)):
            return "it is neither a copy of /proc/vmcore nor makedumpfile's; if it is compressed, unpack it"
    return f"it is cut short: {size} bytes, its headers tell of more" if end > size else ""


def memory(path: Path) -> Iterator[range]:
    """The physical memory that a whole dump has, in pieces of at most CHUNK bytes."""
    with open(path, "rb") as file:
        head = file.read(464)
        if head.startswith(ELF):
            offset, (size, count) = int.from_bytes(head[32:40], "little"), struct.unpack_from("<HH", head, 54)
            file.seek(offset)
            table = file.read(size * count)
            found = (struct.unpack_from("<IIQQQQ", table, number * size) for number in range(count))
            pieces = [(at, at + length) for kind, _, _, _, at, length in found if kind == PT_LOAD and length]
        else:
            block, sub_blocks, bitmap_blocks = struct.unpack_from("<iiI", head, 428)
            file.seek((1 + sub_blocks) * block + bitmap_blocks * block // 2)
            pieces = [(first * block, end * block)
                      for first, end in _runs(file.read(bitmap_blocks * block // 2))]
    for first, end in pieces:
        yield from (range(at, min(at + CHUNK, end)) for at in range(first, end, CHUNK))


def _runs(bits: bytes) -> Iterator[tuple[int, int]]:
    """The runs of bits that are set: first, end."""
    begin = -1
    for number, byte in enumerate(bits):
        if byte == (0xff if begin >= 0 else 0):
            continue
        for bit in range(8):
            at, there = number * 8 + bit, byte >> bit & 1
            if there and begin < 0:
                begin = at
            elif not there and begin >= 0:
                yield begin, at
                begin = -1
    if begin >= 0:
        yield begin, len(bits) * 8


def log(program: Any, path: Path) -> str:
    """The crashed kernel's log, a line for each record, from the oldest on.

    The buffer is a ring: what is later in it may be older. VMCOREINFO tells of the descriptors, which are
    in order; the ids in them have 62 bits, and two for the state."""
    info = vmcore._info(path)

    def offset(name: str) -> int:
        return int(info[f"OFFSET({name})"])

    ring = program.read_u64(int(info["SYMBOL(prb)"], 16))
    text = ring + offset("printk_ringbuffer.text_data_ring")
    size = 1 << program.read_u32(text + offset("prb_data_ring.size_bits"))
    data = bytes(program.read(program.read_u64(text + offset("prb_data_ring.data")), size))
    ring += offset("printk_ringbuffer.desc_ring")
    count = 1 << program.read_u32(ring + offset("prb_desc_ring.count_bits"))
    tables = []
    for name, each in (("descs", "prb_desc"), ("infos", "printk_info")):
        step = int(info[f"SIZE({each})"])
        table = bytes(program.read(program.read_u64(ring + offset(f"prb_desc_ring.{name}")), count * step))
        tables.append([table[at:at + step] for at in range(0, count * step, step)])
    head, tail = (program.read_u64(ring + offset(f"prb_desc_ring.{end}_id")) for end in ("head", "tail"))
    block = offset("prb_desc.text_blk_lpos")
    found = []
    for number in range((head - tail) % (1 << 62) + 1):
        identity = (tail + number) % (1 << 62)
        desc, about = (table[identity % count] for table in tables)
        state, begin, end = (struct.unpack_from("<Q", desc, at)[0] for at in (
            offset("prb_desc.state_var"), block + offset("prb_data_blk_lpos.begin"),
            block + offset("prb_data_blk_lpos.next")))
        if state % (1 << 62) != identity or state >> 62 not in (1, 2) or begin & 1:
            continue            # not written, used again, or without text
        length = struct.unpack_from("<H", about, offset("printk_info.text_len"))[0]
        # A block that would pass the end of the buffer is at its begin. Its id comes first.
        at = begin % size if begin // size == (end - 1) // size else 0
        found.append(re.sub(rb"[^\t -~]+", b"\n", data[at + 8:at + 8 + length]))
    return b"\n".join(found).decode()


def frames(program: Any, path: Path, sender: int, record: int) -> dict[str, Any]:
    """The number that was heard last (-1: unknown), when; the later ones that are anywhere in memory."""
    last, found = (-1, 0.0), set()
    for piece in memory(path):
        data = vmcore.memory(program, [f"{piece.start:#x}:{len(piece):#x}"])
        found |= {number for _, number in stream.numbers(data, sender)}
        last = max(last, stream.last(data, record))
    later = sorted(number for number in found if number > last[0])
    return {"last": last[0], "when": last[1], "later": later}


def level(path: Path) -> int | None:
    """makedumpfile's -d, if it is told."""
    with open(path, "rb") as file:
        if file.read(8) != KDUMP:
            return None
        file.seek(428)
        block = struct.unpack("<i", file.read(4))[0]
        file.seek(block + 8)
        return int(struct.unpack("<i", file.read(4))[0])


def main(path: Path, nonce: int, facts: str) -> dict[str, Any]:
    import drgn
    found: dict[str, Any] = {"log": "", "ledger": "", "landed": [], "frames": {}, "error": ""}
    try:
        program = drgn.Program()
        program.set_core_dump(str(path))
        found["log"] = log(program, path)
        for line in facts.splitlines():
            what, *pieces = line.split()
            if what == "ledger":
                ledger = vmcore.memory(program, pieces)
                found["ledger"] = ledger[8:].hex() if ledger[:8] == struct.pack("<Q", nonce) else ""
            elif what == "frames":
                found["frames"] = frames(program, path, *map(int, pieces))
            elif vmcore.memory(program, pieces[1:]) == expected_block(nonce, int(pieces[0])):
                found["landed"].append(int(pieces[0]))
    except Exception as error:          # whatever drgn raises, the vmcore is no good
        found["error"] = f"{type(error).__name__}: {error}"
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), sys.stdin.read())))
