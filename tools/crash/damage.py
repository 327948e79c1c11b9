# SPDX-License-Identifier: GPL-2.0-only
"""What chance has damaged (make chaos), and what the crash kernel has to make of it.

The test driver's log has each word that it has written. From it, from the machine's memory and from
the SMMU's ID registers it follows here which damage must be found and cut off (design.rst, "What is
trusted, what is checked"), and why another one need not. No code of the driver under test is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

RAM_START = 1 << 30             # of QEMU's virt machine
UNITS = {"M": 1 << 20, "G": 1 << 30}

# IHI0070 5.1, 5.2, 5.4
TABLE_PTR = (1 << 56) - (1 << 6)
L2_TABLE = 16 << 10             # bytes: 256 STEs
L1_GOOD = 9                     # all of a good L1 descriptor but its pointer: the Span of 256 STEs
L1_SPAN = 0x1f
STE_LIVE = 0b1001               # V, and the top bit of Config
STE_WORD_0 = ("Config", "S1CDMax", "S1Fmt", "S1ContextPtr")
CD_WORD_0 = ("CD with V", "ASID")
CD_SIZE = 64
CD_V = 1 << 31
# IHI0070 6.3.1, 6.3.2
S2P, S1P, ASID16, VMID16 = 1 << 0, 1 << 1, 1 << 12, 1 << 18

PREFIX = "smmu_kdump_test: chaos: "
DAMAGE = re.compile(PREFIX + r"(.*?) (?:of|for) StreamIDs (0x\w+)-(0x\w+)(?:: (0x\w+) becomes (0x\w+))?")
NOISE = re.compile(PREFIX + r"noise in StreamID (0x\w+): (0x\w+), word 2 (0x\w+)")
ID_REGISTERS = re.compile(PREFIX + r"IDR0 (0x\w+), IDR1 (0x\w+)")
KEPT_BY_UEFI = re.compile(PREFIX + r"UEFI keeps (0x\w+)-(0x\w+)")
BAD = re.compile(r"kdump: bad (STE|L1 descriptor) for StreamID (0x\w+): (0x\w+)")

# What becomes of a damage
NAMED, MISSED, UNKNOWN = "named", "not named", "not understood"
ENDS = "end their streams"
BELOW, AGAIN = "below another damage", "overwritten"
MEMORY = "lead to memory of the crashed kernel"
BYPASS, VMID, CD = "bypass", "with a VMID that there can be", "with a CD that there can be"
UNCHECKED = "in words that nobody checks"

Place = tuple[str, int, int]    # "L1", "STE" or "CD"; L1 index or StreamID; word


def memory(size: str) -> range:
    """Of a machine with -m SIZE."""
    return range(RAM_START, RAM_START + int(size[:-1]) * UNITS[size[-1]])


@dataclass
class Damage:
    text: str
    sids: range
    writes: dict[Place, int | None]     # what is where now; None: noise that is not told
    fate: str = UNKNOWN


def struck(log: str) -> list[Damage]:
    """The damages that the crashed kernel's log tells, in their order. One that is not understood
    writes nothing."""
    found = []
    lines = list(DAMAGE.finditer(log))
    ends = [line.start() for line in lines[1:]] + [len(log)]
    for line, end in zip(lines, ends):
        what, first, last, _, value = line.groups()
        sids = range(int(first, 0), int(last, 0) + 1)
        word = re.fullmatch(r"bit of word (\d) of the (STE|CD)", what)
        place: Place | None = None
        if "L1" in what:
            place = ("L1", sids.start >> 8, 0)
        elif what in STE_WORD_0 or what in CD_WORD_0:
            place = ("STE" if what in STE_WORD_0 else "CD", sids.start, 0)
        elif word:
            place = (word[2], sids.start, int(word[1]))
        if what == "noise":         # its entries follow; the same StreamIDs may be struck twice
            noise = {int(sid, 0): (int(word0, 0), int(word2, 0))
                     for sid, word0, word2 in NOISE.findall(log, line.end(), end)}
            writes: dict[Place, int | None] = {("STE", sid, n): None for sid in sids for n in range(8)}
            for sid in sids:
                writes["STE", sid, 0], writes["STE", sid, 2] = noise.get(sid, (0, None))
            found.append(Damage(f"noise for {_named(sids)}", sids, writes))
        else:
            writes = {place: int(value, 0)} if place and value else {}
            found.append(Damage(f"{what} of {_named(sids)}: {value}", sids, writes))
    return found


def _named(sids: range) -> str:
    return f"StreamIDs {sids.start:#x}-{sids.stop - 1:#x}"


class Table:
    """The damaged stream table, and what the crash kernel said of it."""

    def __init__(self, damages: Sequence[Damage], log: str, crash: str, ram: range,
                 crash_memory: Sequence[tuple[int, int]]) -> None:
        self.ram = ram
        self.kept = [*crash_memory,
                     *((int(first, 0), int(last, 0)) for first, last in KEPT_BY_UEFI.findall(log))]
        self.values: dict[Place, int | None] = {}
        self.last: dict[Place, Damage] = {}
        for damage in damages:
            self.values |= damage.writes
            self.last |= dict.fromkeys(damage.writes, damage)
        self.whole = {int(first, 0) >> 8: int(old, 0)       # L1 descriptors, as they were
                      for what, first, _, old, _ in reversed(DAMAGE.findall(log)) if "L1" in what}
        self.bad = [(kind, int(sid, 0), int(value, 0)) for kind, sid, value in BAD.findall(crash)]
        registers = ID_REGISTERS.search(log)
        self.known = bool(registers)
        idr0, idr1 = (int(value, 0) for value in registers.groups()) if registers else (0, 0)
        self.stages = bool(idr0 & S1P) | bool(idr0 & S2P) << 1
        self.ssid_bits = idr1 >> 6 & 0x1f
        self.asid_bits, self.vmid_bits = 16 if idr0 & ASID16 else 8, 16 if idr0 & VMID16 else 8

    def no_table(self, address: int, size: int) -> bool:
        """Can no table of the crashed kernel be there? What its memory is used for is not known here."""
        end = address + size - 1
        return (not address or bool(address % size) or address not in self.ram or end not in self.ram
                or any(address <= last and first <= end for first, last in self.kept))

    def _l1(self, index: int) -> tuple[str, bool]:
        value = self.values["L1", index, 0] or 0
        named = any(kind != "STE" and sid >> 8 == index and said == value for kind, sid, said in self.bad)
        if not value & L1_SPAN:
            return ENDS, named
        bad = value & ~TABLE_PTR != L1_GOOD or self.no_table(value & TABLE_PTR, L2_TABLE)
        return MISSED if bad else MEMORY, named

    def _ste(self, sid: int) -> tuple[str, bool]:
        word0 = self.values.get(("STE", sid, 0))
        if word0 is None:           # the crashed kernel's own: stage 1, or it aborts
            return UNCHECKED, False
        # Two L1 descriptors can lead to one table.
        named = any(kind == "STE" and (other ^ sid) & 0xff == 0 and said == word0
                    for kind, other, said in self.bad)
        if word0 & STE_LIVE != STE_LIVE:
            return ENDS, named
        stages = word0 >> 1 & 3
        cdmax = word0 >> 59
        if stages & ~self.stages:
            fate = MISSED
        elif stages & 2:
            word2 = self.values.get(("STE", sid, 2), 0)     # Linux has VMID 0 in a stage 1 STE
            vmid = 1 if word2 is None else word2 & 0xffff
            fate = VMID if vmid and not vmid >> self.vmid_bits else MISSED
        elif stages:
            bad = (cdmax > self.ssid_bits or cdmax and word0 >> 4 & 3 == 3
                   or self.no_table(word0 & TABLE_PTR, CD_SIZE))
            fate = MISSED if bad else MEMORY
        else:
            fate = BYPASS
        return fate, named

    def _cd(self, sid: int) -> tuple[str, bool]:
        if self.values.get(("STE", sid, 0)) is not None:
            return BELOW, False
        word0 = self.values.get(("CD", sid, 0))
        if word0 is None:
            return UNCHECKED, False
        named = any(kind == "STE" and other == sid for kind, other, _ in self.bad)
        if not word0 & CD_V:
            return ENDS, named
        return MISSED if word0 >> 48 >> self.asid_bits else CD, named

    def _entry(self, kind: str, number: int) -> str:
        if kind != "L1":
            index = number >> 8
            if self.values.get(("L1", index, 0), self.whole.get(index)) != self.whole.get(index):
                return BELOW
        fate, named = {"L1": self._l1, "STE": self._ste, "CD": self._cd}[kind](number)
        return NAMED if named else fate

    def fates(self, damage: Damage) -> Iterator[str]:
        """Of each entry that it has written."""
        for kind, number, word in damage.writes:
            if len(damage.writes) > 1 and word:     # of noise the first words tell
                continue
            if self.last[kind, number, word] is not damage:
                yield AGAIN
            elif word and kind == "STE" and word != 2 or word and kind == "CD":
                yield UNCHECKED
            else:
                yield self._entry(kind, number)


def judged(log: str, crash: str, ram: range, crash_memory: Sequence[tuple[int, int]]) -> list[Damage]:
    """The damages, each with its fate. Of noise the worst one counts, and the streams that end count last."""
    damages = struck(log)
    table = Table(damages, log, crash, ram, crash_memory)
    for damage in damages:
        fates = set(table.fates(damage)) if table.known else set()
        order = [MISSED, NAMED, MEMORY, BYPASS, VMID, CD, UNCHECKED, BELOW, ENDS, AGAIN]
        damage.fate = next((fate for fate in order if fate in fates), UNKNOWN)
    return damages
