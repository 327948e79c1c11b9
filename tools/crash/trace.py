# SPDX-License-Identifier: GPL-2.0-only
"""Read QEMU's SMMUv3 trace once and count what happened to each StreamID and to the control registers.

Decided here, as it takes the single access: in which phase of the run it stands, whether it is
DMA for the crashed kernel, whether it can be an NVMe completion entry, whether it goes into the
crash kernel's memory or past it when it must not. Of a register write it is decided whether the
SMMU was on. All of that is counted, and each access once more in its slot of time, for the picture.
What the counts mean, which device a StreamID is, and which StreamIDs a rule watches is the judge's
business (judge.py).

A line of the trace is "PID@SECONDS.MICROSECONDS:EVENT text" (QEMU 10) or
"YYYY-MM-DDTHH:MM:SS.MICROSECONDSZ EVENT text" (QEMU 11). Fields of the text are found by their
name ("sid=0x8", "addr: 0x20", "streamid= 0x8"), as order and company of fields differ between
versions. The other lines are QEMU's guest errors; those without a time (QEMU 10) belong where
they stand. Anything that looks like a trace line and is not understood is an error, and so is a
cut-off last line.

Memory is constant: counters for at most MAX_SIDS StreamIDs, and one line. It is plain Python, so
that the judge just calls it: nothing is compiled, no JSON lies in between, and there is one
language. A trace of 30 MB takes about a second.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

MAX_SIDS = 64
CFGI_ALL = 0xffffffff           # the last StreamID of a range that is all: no take-over
DRAIN_US = 20_000               # a reset finishes what is in flight at once
DOORBELL = 0x8090040            # GITS_TRANSLATER of QEMU's virt machine; interrupts are written to it
PAGE_SHIFT = 12
SLOT_US = 50_000                # accesses are also counted by slots of time, from the panic on
LEAD = 4                        # and in so many before it

# Register offsets within page 0, to which QEMU folds page 1
CR0, GBPA, CMDQ_BASE = 0x20, 0x44, 0x90
# CR1, CR2; STRTAB_BASE, its upper half, STRTAB_BASE_CFG: not to be written while the SMMU is on
FIXED = {0x28: "wrote_cr1", 0x2c: "wrote_cr2", **dict.fromkeys((0x80, 0x84, 0x88), "wrote_strtab")}
CR0_SMMUEN, GBPA_ABORT, GBPA_UPDATE = 1, 1 << 20, 1 << 31

# Where in the run a line stands, for its StreamID: before the panic, before the crash kernel's first
# write to one of these registers, before the take-over, before the shutdown, after it.
PHASES = BEFORE, WINDOW, ADOPTED, TAKEN, END = "before", "window", "adopted", "taken", "end"
COUNTS = TRANSLATED, ABORTED, BYPASSED, DISABLED, EVENTS, FAULTS, MISDIRECTED = (
    "translated", "aborted", "bypassed", "disabled", "events", "faults", "misdirected")

# Every event, without "smmuv3_": these, those in Reader.event(), and those that are skipped.
ACCESSES = {b"translate_success": TRANSLATED, b"translate_abort": ABORTED,
            b"translate_bypass": BYPASSED, b"translate_disable": DISABLED}
SKIPPED = set(b"""
    accel_install_ste accel_set_iommu_device accel_translate_ste accel_unset_iommu_device
    cmdq_cfgi_cd cmdq_consume cmdq_consume_error cmdq_consume_out cmdq_opcode cmdq_tlbi_nh
    cmdq_tlbi_nh_asid cmdq_tlbi_nsnh cmdq_tlbi_s12_vmid config_cache_hit config_cache_inv
    config_cache_miss decode_cd decode_cd_tt find_ste find_ste_2lvl get_cd get_ste
    inv_notifiers_iova inv_notifiers_vmid notify_flag_add notify_flag_del range_inval read_mmio
    s1_range_inval trigger_irq unhandled_cmd write_gerror write_gerrorn
""".split())

LINE = re.compile(rb"(?:\d+@(\d+)\.(\d{6}):|(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{6}))?Z )?"
                  rb"(?:smmuv3_([^ \n]*) ?)?")
NUMBER = rb"(0x[0-9a-fA-F]+|(?!0x)[0-9]+)"
# name=1, name:1, name: 1 and name= 1 are all in use.
FIELDS = {name: re.compile(rb"(?<!\w)%b[=:] *%b" % (name.encode(), NUMBER))
          for name in ("sid", "iova", "translated", "addr", "val", "streamid", "start", "end")}
# A memory region's name ends in "-DEVFN-INDEX"; on bus 0 DEVFN is the StreamID.
DEVFN = re.compile(rb"-%b[^-]*-[^-]*\Z" % NUMBER)


def _value(number: bytes) -> int:
    return int(number, 16 if number.startswith(b"0x") else 10)


def _shown(text: bytes) -> str:
    return text[:80].decode(errors="replace").rstrip("\n")


def _need(text: bytes, name: str) -> int:
    found = FIELDS[name].search(text)
    if not found:
        raise ValueError(f"no field `{name}' in `{_shown(text)}'")
    return _value(found[1])


def _seconds(micros: int) -> float | None:
    return micros / 1e6 if micros else None


@dataclass(slots=True)
class Stream:
    """A StreamID. Times are microseconds; 0 is never."""
    sid: int
    region: bytes = b""         # QEMU's name of its memory region
    counts: dict[str, dict[str, int]] = field(
        default_factory=lambda: {phase: dict.fromkeys(COUNTS, 0) for phase in PHASES})
    slots: Counter[tuple[str, str, int]] = field(default_factory=Counter)   # (phase, count, slot)
    completions: int = 0        # completion entries of an NVMe disk, panic to take-over
    drained: int = 0            # of them, less than DRAIN_US after the one before
    last_completion: int = 0
    first_dma: int = 0          # of the crashed kernel, after the panic
    last_dma: int = 0
    late: int = 0               # of it, what failed after the take-over
    own: bool = False           # the crash kernel has used it
    take_over: int = 0
    example: dict[str, int] | None = None       # of a misdirected access

    def found(self) -> dict[str, Any]:
        slots: dict[str, dict[str, dict[int, int]]] = {}
        for (phase, which, slot), number in sorted(self.slots.items()):
            if number:
                slots.setdefault(phase, {}).setdefault(which, {})[slot] = number
        return {"sid": self.sid, "identity": self.identity, "take_over": _seconds(self.take_over),
                "first_dma": _seconds(self.first_dma), "last_dma": _seconds(self.last_dma),
                "late": self.late, "completions": self.completions, "drained": self.drained, "slots": slots,
                **({"example": self.example} if self.example else {}), **self.counts}

    @property
    def identity(self) -> bool:
        """The crashed kernel let it bypass by its STE: that it goes on so is survival."""
        return bool(self.counts[BEFORE][BYPASSED]) and not self.counts[BEFORE][TRANSLATED]

    def completed(self, now: int) -> None:
        self.completions += 1
        # Several threads write the trace, so that a time may be before the last one.
        self.drained += 0 <= now - self.last_completion < DRAIN_US
        self.last_completion = now


class Reader:
    """What the lines so far have told."""

    def __init__(self, panic: float, shutdown: float, crash_memory: list[tuple[int, int]]) -> None:
        self.panic, self.shutdown = round(panic * 1e6), round(shutdown * 1e6)
        if any(end <= start for start, end in crash_memory):
            raise ValueError(f"the crash kernel's memory is no range: {crash_memory}")
        self.crash_memory = crash_memory
        self.streams: dict[int, Stream] = {}
        self.now = self.probe = 0
        self.date, self.date_micros = b"", 0    # the last whole second of QEMU 11
        self.events = self.enabled = False      # there were SMMU events; SMMUEN
        self.gbpa = 0
        self.ended = self.ended_aborting = False        # SMMUEN was cleared at the shutdown
        self.wrong = dict.fromkeys(("cleared_smmuen", "wrote_strtab", "wrote_cr1", "wrote_cr2"), 0)

    def found(self) -> dict[str, Any]:
        return {"probe": _seconds(self.probe), "ended": self.ended, "ended_aborting": self.ended_aborting,
                **self.wrong, "streams": [stream.found() for stream in self.streams.values()]}

    def line(self, line: bytes) -> None:
        match = LINE.match(line)
        assert match                # everything in it is optional
        seconds, micros, date, fraction, event = match.groups()
        if seconds:
            self.now = int(seconds + micros)
        elif date:
            if date != self.date:
                self.date = date
                self.date_micros = int(datetime.fromisoformat(f"{date.decode()}Z").timestamp()) * 1_000_000
            # Microseconds that happen to be 0 are left out.
            self.now = self.date_micros + int(fraction or 0)
        elif event is not None:
            raise ValueError(f"a trace line without a time; QEMU needs -msg timestamp=on: `{_shown(line)}'")
        elif line[:1].isdigit():
            raise ValueError(f"not a trace line: `{_shown(line)}'")
        if event is None and not seconds:
            self.guest_error(line[match.end():])
            return
        self.events = True
        if event not in SKIPPED:
            self.event(event, line[match.end():])

    def event(self, event: bytes | None, text: bytes) -> None:
        if event in ACCESSES:
            self.access(ACCESSES[event], text)
        elif event == b"write_mmio":
            self.write(_need(text, "addr"), _need(text, "val"))
        elif event == b"cmdq_cfgi_ste":
            self.take_over(self.stream(_need(text, "streamid")))
        elif event == b"cmdq_cfgi_ste_range":
            start, end = _need(text, "start"), _need(text, "end")
            for stream in self.streams.values():
                if start <= stream.sid <= end < CFGI_ALL:
                    self.take_over(stream)
        elif event in (b"record_event", b"propagate_event"):    # of QEMU 10, of QEMU 11
            self.count(self.stream(_need(text, "sid")), EVENTS)
        else:
            name = text.split(b" ")[0] if event is None else b"smmuv3_" + event
            raise ValueError(f"unknown event `{_shown(name)}'; this reader has to learn it")

    def stream(self, sid: int) -> Stream:
        if sid not in self.streams:
            if len(self.streams) == MAX_SIDS:
                raise ValueError(f"more than {MAX_SIDS} StreamIDs")
            self.streams[sid] = Stream(sid)
        return self.streams[sid]

    @property
    def slot(self) -> int:
        return (self.now - self.panic) // SLOT_US

    def phase(self, stream: Stream) -> str:
        if self.now < self.panic:
            return BEFORE
        if self.now >= self.shutdown:
            return END
        if stream.take_over:
            return TAKEN
        return ADOPTED if self.probe else WINDOW

    def count(self, stream: Stream, which: str, data: bool = True) -> str:
        """DMA is for the crashed kernel until the take-over, and so is what fails after it until the
        first that succeeds, which is the crash kernel's own."""
        phase = self.phase(stream)
        stream.counts[phase][which] += 1
        if self.slot >= -LEAD:
            stream.slots[phase, which, self.slot] += 1
        if phase is TAKEN and which in (TRANSLATED, BYPASSED):
            stream.own = True
        if phase is not BEFORE and phase is not END and not stream.own:
            stream.first_dma = stream.first_dma or self.now
            if data:            # a device that has been reset may still send an interrupt
                stream.last_dma = self.now
            stream.late += phase is TAKEN
        return phase

    def access(self, which: str, text: bytes) -> None:
        stream = self.stream(_need(text, "sid"))
        if not stream.region and b" " in text:
            stream.region = text.split(b" ")[0]
        if which is ABORTED:
            self.count(stream, which)
            return
        iova = _need(text, "iova")
        addr = _need(text, "translated") if which is TRANSLATED else iova
        doorbell = addr >> PAGE_SHIFT == DOORBELL >> PAGE_SHIFT
        if which is BYPASSED and self.probe and stream.identity and self.ours(addr):
            # From one bypass STE to another nothing is written. Only the crash kernel can have named this
            # address: the crashed one knew its memory as reserved.
            self.take_over(stream)
        phase = self.count(stream, which, not doorbell)
        # A bypass of an identity domain must not go astray, either.
        if phase is BEFORE or phase is END or doorbell or which is DISABLED and phase is not TAKEN:
            return
        # What an NVMe controller still does once the CPU is silent: completion entries, 16 bytes each,
        # and the completion queue's shadow doorbells, which lie at odd multiples of 4.
        if phase is not TAKEN and iova % 16 == 0:
            stream.completed(self.now)
        # Old accesses stay out of the crash kernel's memory, new ones in it.
        if self.ours(addr) is not (phase is TAKEN):
            stream.counts[phase][MISDIRECTED] += 1
            stream.slots[phase, which, self.slot] -= 1      # there an access stands once
            stream.slots[phase, MISDIRECTED, self.slot] += 1
            stream.example = stream.example or {"iova": iova, "addr": addr}

    def ours(self, addr: int) -> bool:
        """Is this the crash kernel's memory?"""
        return any(start <= addr <= end for start, end in self.crash_memory)

    def take_over(self, stream: Stream) -> None:
        if self.panic <= self.now < self.shutdown and not stream.take_over:
            stream.take_over = self.now

    def write(self, register: int, value: int) -> None:
        forbidden = self.now >= self.panic and self.enabled
        if register == CR0:
            if forbidden and not value & CR0_SMMUEN:
                if self.now < self.shutdown:
                    self.wrong["cleared_smmuen"] += 1
                elif not self.ended:
                    self.ended, self.ended_aborting = True, bool(self.gbpa & GBPA_ABORT)
            self.enabled = bool(value & CR0_SMMUEN)
        elif register == GBPA:
            self.gbpa = value if value & GBPA_UPDATE else self.gbpa
        elif register in FIXED:
            self.wrong[FIXED[register]] += forbidden
        elif register != CMDQ_BASE:
            return
        if self.now >= self.panic:
            self.probe = self.probe or self.now

    def guest_error(self, text: bytes) -> None:
        """Those of the SMMU's translations count; while EVENTQEN is 0 they are all that tells of a fault."""
        region, failed, _ = text.partition(b" translation failed for iova")
        if not failed:
            return
        stream = next((one for one in self.streams.values() if one.region == region), None)
        if not stream:
            devfn = DEVFN.search(region)
            if not devfn:
                raise ValueError(f"whose translation failed? `{_shown(text)}'")
            stream = self.stream(_value(devfn[1]))
        self.count(stream, FAULTS)


def read_trace(path: Path, panic: float, shutdown: float,
               crash_memory: list[tuple[int, int]]) -> dict[str, Any]:
    """What a trace says; ValueError when it is not understood. Ranges of memory are inclusive."""
    reader = Reader(panic, shutdown, crash_memory)
    number = 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    raise ValueError(f"the last line is cut off: `{_shown(line)}'")
                if b"\0" in line:
                    raise ValueError(f"a zero byte in `{_shown(line)}'")
                reader.line(line)
        if not reader.events:
            raise ValueError("no SMMUv3 trace in it")
    except (OSError, ValueError) as err:
        raise ValueError(f"{path}:{number}: {err}") from err
    return reader.found()
