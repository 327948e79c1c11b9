# SPDX-License-Identifier: GPL-2.0-only
"""The rules (Documentation/crash-test.rst) over what one run left behind.

The judge reads QEMU's trace, the vmcore and the console. Of what the guest says it uses
only the times of the panic and of the shutdown, the addresses of its own buffers, its free
memory, and whether its own programs failed. In some scenarios a kernel's log must have a line,
and after chance damage it tells which StreamIDs need not survive.

The trace reader (trace.py) decides where each access stands: before the panic, in the window, on
the adopted table, after its StreamID's take-over, after the shutdown. It also decides what each
single access is: whether it is DMA for the crashed kernel, whether it can be a completion entry,
whether it goes into the crash kernel's memory or past it when it must not. Of a register write it
decides whether the SMMU was on. It counts. What the counts mean, which device a StreamID is, and
which StreamIDs a rule watches is decided here.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import machine
from ..common import TOP, run
from ..results import Result, Status, worst
from . import damage
from .scenario import DEVICES, DUMP, NIC, RESERVE, SLOW, TRACE, Scenario
from .trace import BEFORE, SLOT_US, TRANSLATED, WINDOW, read_trace
from .workload import Run

PANIC_TEXT = "sysrq triggered crash"
SMMU_OFF = "the SMMU is off"    # a refusal: DMA goes past it
DROPPED = "adopted stream table dropped"        # a refusal after the adoption
# A line that the panic has cut: the kernel prints it again, whole.
REPLAYED = re.compile(r"[^\n]*\n\*\* replaying previous printk message \*\*\r?\n")
MIN_TRANSLATIONS = 32
IN_FLIGHT = 2                   # frames that may not have reached the card; see workload.Sender
RING_MARGIN = 128               # descriptors that may have been used up since the guest looked
QUEUE_ENTRY = {"cmdq": 16, "evtq": 32, "priq": 16}     # bytes


@dataclass
class Row:
    """One device's transactions after the panic."""
    sid: int
    in_flight: bool
    translated: int             # until its take-over
    aborted: int                # these until the shutdown
    bypassed: int
    faulted: int
    misdirected: int


@dataclass
class Judgement:
    """One run: a result for each rule, or the one that says why there are none."""
    results: list[Result]
    seconds: float
    rows: list[Row] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)   # what the rules counted; memory()
    trace: dict[str, Any] = field(default_factory=dict)
    milestones: dict[str, float] = field(default_factory=dict)     # in their order, for the picture

    @property
    def verdict(self) -> Status:
        return worst(self.results)

    @property
    def why(self) -> str:
        """The rules that gave the verdict, or what happened to the machine."""
        bad = [result for result in self.results if result.status is self.verdict is not Status.PASS]
        rules = re.findall(r"^rule (\d+):", "\n".join(result.name for result in bad), re.MULTILINE)
        if rules:
            return f"rule{'s' * (len(rules) > 1)} {', '.join(rules)}"
        return bad[0].detail if bad else ""

    def rule(self, number: int) -> Result | None:
        return next((result for result in self.results if result.name.startswith(f"rule {number}:")), None)


@dataclass
class Evidence:
    """What the rules are judged on; the tests make these by hand."""
    scenario: Scenario
    trace: dict[str, Any]               # of the trace reader
    which: str = "patched"
    sent: list[float] = field(default_factory=list)     # frame number -> time
    panic: float = 0.0
    saving: float | None = None         # when makedumpfile was started
    ring: int = 4095                    # receive descriptors that were free at the panic
    frames: set[int] | None = None      # in the vmcore; None: there is no vmcore
    reads: set[int] | None = None       # whose data is in the vmcore and was not complete before
    crash_memory: Sequence[tuple[int, int]] = ()        # what is reserved; both ends belong to it
    damage: int | None = None           # the value of the L1 descriptor that was damaged
    vmcore: str = ""                    # what is wrong with the vmcore, or ""
    pages: Mapping[str, int | None] = field(default_factory=dict)   # of each kernel; None: not the one built
    dead: float = 0.0                   # when the crashed kernel was gone
    waited: int = 0                     # ms before the panic
    more: Sequence[int] = ()            # the StreamIDs of the other disks, but for bridges
    more_read: Sequence[int] = ()       # those that the crash kernel has read
    console: str = ""
    available_kib: int | None = None    # MemAvailable of the crash kernel
    lost: str = ""                      # why the machine was given up, or ""
    control: Judgement | None = None    # of the unpatched kernel, when the patched one is judged

    @property
    def hurt(self) -> list[range]:
        """The StreamIDs whose DMA is not judged: chance has damaged their entries."""
        found = re.findall(r"smmu_kdump_test: chaos: .* StreamIDs (0x\w+)-(0x\w+)",
                           self.console.partition(PANIC_TEXT)[0])
        return [range(int(first, 0), int(last, 0) + 1) for first, last in found]

    def whole(self, sid: int) -> bool:
        return not any(sid in sids for sids in self.hurt)

    @property
    def streams(self) -> list[dict[str, Any]]:
        """Of the trace, those that are not damaged."""
        return [stream for stream in self.trace["streams"] if self.whole(stream["sid"])]


Found = tuple[Status, str, Mapping[str, Any]]   # status, what to say, figures


def _total(stream: dict[str, Any], phases: str, *counts: str) -> int:
    return sum(int(stream[phase][count]) for phase in phases.split() for count in counts)


def _sid(stream: dict[str, Any]) -> int:
    return int(stream["sid"])


OLD, ALL = "window adopted", "window adopted taken"


def _faults(stream: dict[str, Any], phases: str) -> int:
    """A fault is an event, a guest error or both, depending on the event queue and QEMU."""
    return sum(max(stream[phase]["events"], stream[phase]["faults"]) for phase in phases.split())


def rows(trace: dict[str, Any]) -> list[Row]:
    found = []
    for stream in sorted(trace["streams"], key=_sid):
        row = Row(stream["sid"], stream["first_dma"] is not None,
                  _total(stream, OLD, "translated"), _total(stream, ALL, "aborted"),
                  _total(stream, ALL, "bypassed", "disabled"), _faults(stream, ALL),
                  _total(stream, ALL, "misdirected"))
        busy = row.in_flight or any((row.aborted, row.bypassed, row.faulted, row.misdirected))
        if busy or row.sid in DEVICES:
            found.append(row)
    return found


def _name(sid: int) -> str:
    return f"{DEVICES.get(sid, 'StreamID')} {sid:#x}"


def dma_was_in_flight(evidence: Evidence) -> Found:
    trace = evidence.trace
    past = ["disabled"] if evidence.scenario.refusal == SMMU_OFF else []
    each = {s["sid"]: _total(s, OLD, "bypassed" if s["identity"] else "translated", *past)
            for s in trace["streams"]}
    total = sum(each.values())
    said = ", ".join(f"{_name(sid)} {count}" for sid, count in sorted(each.items()) if count)
    bypasses = any(s["identity"] for s in trace["streams"])
    detail = f"{total} {'bypassed accesses' if bypasses else 'translations'} between panic and take-over"
    detail += f" ({said})" if said else ""
    if trace["probe"] is None:
        return Status.INVALID, detail + "; no crash kernel ever wrote the SMMU's registers", {}
    if total < MIN_TRANSLATIONS:
        return Status.INVALID, detail + f", fewer than {MIN_TRANSLATIONS}: nothing was proved", {}
    return Status.PASS, detail, {}


def in_flight_dma_survives(evidence: Evidence) -> Found:
    hurt = []
    watched = [s for s in evidence.streams if s["first_dma"] is not None]
    for stream in sorted(evidence.streams, key=_sid):
        aborted = _total(stream, OLD, "aborted")
        bypassed = _total(stream, OLD, *(("disabled",) if stream["identity"] else ("bypassed", "disabled")))
        faulted = _faults(stream, OLD)
        if aborted or bypassed or faulted:
            until = "its take-over" if stream["take_over"] else "the end, never taken over"
            hurt.append(f"{_name(stream['sid'])}: {aborted} aborted, {bypassed} bypassed, "
                        f"{faulted} faulted until {until}")
        elif stream["late"]:
            hurt.append(f"{_name(stream['sid'])}: taken over while it was busy, {stream['late']} "
                        "accesses failed before its driver came")
        elif failed := _total(stream, "taken", "aborted", "disabled") + _faults(stream, "taken"):
            hurt.append(f"{_name(stream['sid'])}: {failed} of the crash kernel's own accesses failed")
    if hurt:
        return Status.FAIL, "; ".join(hurt), {}
    count = len(watched)
    return Status.PASS, (f"no abort, bypass or event for {count} stream{'s' if count != 1 else ''} in flight"
                         + (", whose STEs are bypass" if any(s["identity"] for s in watched) else "")), {}


def nothing_is_misdirected(evidence: Evidence) -> Found:
    wrong = []
    for stream in sorted(evidence.streams, key=_sid):
        before, after = _total(stream, OLD, "misdirected"), stream["taken"]["misdirected"]
        for count, what in ((before, "old translations into the crash kernel's memory"),
                            (after, "new translations outside the crash kernel's memory")):
            if count:
                wrong.append(f"{_name(stream['sid'])}: {count} {what}")
        example = stream.get("example")
        if example:
            wrong[-1] += f", first {example['iova']:#x} -> {example['addr']:#x}"
    if wrong:
        return Status.FAIL, "; ".join(wrong), {}
    return Status.PASS, "old streams stay out of the crash kernel's memory, new ones in it", {}


def register_discipline(evidence: Evidence) -> Found:
    trace = evidence.trace
    wrong = []
    if trace["cleared_smmuen"]:
        wrong.append(f"SMMUEN cleared {trace['cleared_smmuen']} times before the shutdown")
    for key, register in (("wrote_strtab", "STRTAB_BASE(_CFG)"), ("wrote_cr1", "CR1"), ("wrote_cr2", "CR2")):
        if trace[key]:
            wrong.append(f"{register} written {trace[key]} times while SMMUEN = 1")
    if trace["ended"] and not trace["ended_aborting"]:
        wrong.append("GBPA did not say abort when the shutdown cleared SMMUEN")
    for stream in trace["streams"]:
        if stream["end"]["disabled"]:
            wrong.append(f"{_name(stream['sid'])}: {stream['end']['disabled']} raw accesses once the "
                         "shutdown had disabled the SMMU")
    if wrong:
        return Status.FAIL, "; ".join(wrong), {}
    if not trace["ended"]:
        return Status.INVALID, "the trace ends before the shutdown disables the SMMU", {}
    said = "SMMUEN kept, STRTAB_BASE, CR1, CR2 not written, GBPA aborts at the end"
    # A device without a driver is never stopped: its accesses must have met GBPA. One that only
    # sent a few interrupts has nothing left to abort.
    stray = [s for s in trace["streams"] if s["first_dma"] is not None and not s["take_over"]]
    if stray:
        aborted = sum(stream["end"]["aborted"] for stream in stray)
        names = ", ".join(_name(stream["sid"]) for stream in stray)
        said += f": {aborted} accesses of {names}, which no driver stopped"
        busy = any(_total(s, OLD, "translated", "bypassed") >= MIN_TRANSLATIONS for s in stray)
        if busy and not aborted:
            return Status.INVALID, said, {}
    return Status.PASS, said, {}


def expected_frames(evidence: Evidence) -> tuple[list[int], list[int]]:
    """Frames that must be in the crashed kernel's memory: (after the probe, after the panic).

    From the SMMU's probe to the card's last DMA for the crashed kernel, or to makedumpfile's
    start: of a page that it has read it does not see what comes later. Of those sent last,
    IN_FLIGHT may not have reached the card. A full ring takes no more. What a kernel receives that
    still lives, it takes out of the ring: nobody finds it again.
    """
    stream = next((s for s in evidence.trace["streams"] if s["sid"] == NIC), None)
    last = stream and stream["last_dma"]
    probe = evidence.trace["probe"]
    if not last or not probe:
        return [], []
    after = [number for number, when in enumerate(evidence.sent) if when > evidence.panic]
    after = after[:max(evidence.ring - RING_MARGIN, 0)]
    last = min(last, evidence.saving or last)
    due = [number for number in after if evidence.dead <= evidence.sent[number] <= last][:-IN_FLIGHT]
    return [number for number in due if evidence.sent[number] >= probe], due


def data_lands(evidence: Evidence) -> Found:
    if evidence.frames is None or evidence.reads is None:
        return Status.FAIL, f"no vmcore to look in: {evidence.vmcore}", {}
    probed, due = expected_frames(evidence)
    landed = [number for number in probed if number in evidence.frames]
    missing = [number for number in due if number not in evidence.frames]
    slow = next((s for s in evidence.trace["streams"] if s["sid"] == SLOW), None)
    completed, left = (slow["completions"], slow["drained"]) if slow else (0, 0)
    reads = len(evidence.reads)
    figures = {"frames_landed": len(due) - len(missing), "frames_due": len(due), "probed_landed": len(landed),
               "probed_due": len(probed), "reads_landed": reads, "completions": completed}
    detail = (f"{len(landed)} of {len(probed)} frames sent after the SMMU's probe, "
              f"{len(due) - len(missing)} of {len(due)} after the panic; "
              f"{reads} reads, {completed} completion entries")
    need_reads = evidence.scenario.need_reads
    if need_reads:
        detail += f", {left} of them at once when its driver reset the disk"
    suspended = evidence.scenario.moment == "suspend"
    nic, disk = evidence.whole(NIC) and not suspended, evidence.whole(SLOW)
    detail += "" if nic else f", the network card {'was suspended' if suspended else 'has a damaged entry'}"
    detail += "" if disk else ", the disk's entry was damaged"
    if missing and nic or reads < completed and disk:
        return Status.FAIL, detail, figures
    if need_reads and not left:
        return Status.INVALID, detail + ": none was in flight any more", figures
    if nic and not probed or disk and not completed:
        return Status.INVALID, detail + ": nothing was due", figures
    return Status.PASS, detail, figures


def the_vmcore_opens(evidence: Evidence) -> Found:
    if evidence.vmcore:
        return Status.FAIL, evidence.vmcore, {}
    return Status.PASS, "makedumpfile --dump-dmesg and drgn find the panic message", {}


def clean_logs(evidence: Evidence) -> Found:
    boots = len(re.findall(r"Booting Linux on physical CPU", evidence.console))
    if boots != 2:
        return Status.INVALID, f"the console has {boots} kernel logs, not 2", {}
    text = evidence.console
    if evidence.scenario.moment:        # the crashed kernel may complain of what has ended it
        crashed, _, rest = text.partition(PANIC_TEXT)
        text = crashed + rest[rest.find("Booting Linux"):]
    bad = machine.complaints(text)
    if bad:
        return Status.FAIL, f"{len(bad)} lines, first: {bad[0]}", {}
    return Status.PASS, "nothing in either kernel's log", {}


def the_control_fails(evidence: Evidence) -> Found:
    """A test that the unpatched kernel survives is broken."""
    assert evidence.control
    rule = evidence.control.rule(2)
    if rule and rule.status is Status.FAIL:
        return Status.PASS, "the unpatched kernel fails rule 2", {}
    what = f"the unpatched run was {evidence.control.verdict}: {evidence.control.why}" if not rule else \
        "the unpatched kernel does not fail rule 2"
    return Status.INVALID, f"{what}; this test is broken", {}


def the_damage_was_seen(evidence: Evidence) -> Found:
    """The run would prove nothing if the crash kernel had not met the damage."""
    text = f"0x{evidence.damage:016x}"
    crashed, _, crash = evidence.console.partition(PANIC_TEXT)
    if not re.search(rf"smmu_kdump_test: L1 descriptor \d+: 0x\w+ becomes {text}", crashed):
        return Status.INVALID, f"no L1 descriptor became {text} before the panic", {}
    if not re.search(rf"bad L1 descriptor for StreamID 0x\w+: {text}, cut off", crash):
        return Status.INVALID, f"the crash kernel does not say that it found L1 descriptor {text}", {}
    return Status.PASS, f"the crash kernel found L1 descriptor {text}", {}


def the_refusal_was_said(evidence: Evidence) -> Found:
    crash = evidence.console.partition(PANIC_TEXT)[2]
    said = re.findall(r"kdump: (?:stream table not adopted: |(?=adopted stream table dropped))(.*)", crash)
    off = evidence.scenario.refusal == SMMU_OFF
    adopted = "kdump: adopted the" in crash and not evidence.scenario.refusal.startswith(DROPPED)
    if adopted or not (evidence.trace["cleared_smmuen"] or off):
        return Status.FAIL, "the crash kernel adopts the table, or does not reset the SMMU", {}
    if not any(line.startswith(evidence.scenario.refusal) for line in said):
        return Status.FAIL, f"the crash kernel does not refuse, or for another reason: {said or 'none'}", {}
    return Status.PASS, evidence.scenario.refusal, {}


TOO_MUCH = "kdump: stream table not adopted: it has too many damaged entries"
MAX_DAMAGE = 64                 # KDUMP_MAX_DAMAGE of the driver: it tells so many of them


def adopts(evidence: Evidence) -> bool:
    """Is this kernel to keep DMA going? One that has to refuse resets the SMMU, as without the series."""
    given_up = bool(evidence.scenario.chaos) and TOO_MUCH in evidence.console
    return evidence.which == "unpatched" or not (evidence.scenario.refusal or given_up)


def chance_struck(evidence: Evidence) -> Found:
    """Each damage is named by the crash kernel, or it is known here why it need not be."""
    log, _, crash = evidence.console.partition(PANIC_TEXT)
    named = set(re.findall(r"kdump: (bad .* for StreamID (0x\w+): 0x\w+), cut off", crash))
    cut = len(named)
    sound = sorted({sid for _, sid in named if evidence.whole(int(sid, 0))})
    busy = [stream["sid"] for stream in evidence.streams if stream["first_dma"] is not None]
    whole = len(busy) if adopts(evidence) else 0
    damages = damage.judged(log, crash, damage.memory(str(evidence.scenario.ram)), evidence.crash_memory)
    kinds = Counter(each.fate for each in damages)
    told = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    said = (f"{len(damages)} damages ({told}), "
            f"{cut} entries cut off, {whole} streams in flight that were whole")
    figures = {"cut": cut, "whole": whole, **kinds}
    if len(damages) != evidence.scenario.damages or kinds[damage.UNKNOWN]:
        return Status.INVALID, said, figures
    if sound:
        return Status.FAIL, f"{said}; it calls {', '.join(sound)} bad, which nobody damaged", figures
    if TOO_MUCH in crash:
        if cut != MAX_DAMAGE:
            return Status.FAIL, said + f"; the adoption was given up before {MAX_DAMAGE} damages", figures
    elif kinds[damage.MISSED] and evidence.which == "patched":
        missed = "; ".join(each.text for each in damages if each.fate == damage.MISSED)
        return Status.FAIL, f"{said}; the crash kernel must find {missed}", figures
    return Status.PASS, said, figures


def _moment_failed(evidence: Evidence) -> str:
    """What the trace says against the moment, or ''."""
    moment = evidence.scenario.moment
    streams = {stream["sid"]: stream for stream in evidence.trace["streams"]}
    if moment == "storm":
        slots = streams.get(DUMP, {}).get("slots", {}).get(BEFORE, {}).get(TRANSLATED, {})
        if not slots.get(-1):
            return f"no DMA of {_name(DUMP)} in the {SLOT_US // 1000} ms before the panic: there was no storm"
    if moment == "suspend":
        nic = streams.get(NIC)
        if nic and nic["slots"].get(WINDOW):
            return f"{_name(NIC)} has accesses between panic and probe: it was not suspended"
        if evidence.which == "patched" and not (nic and nic["taken"]["translated"]):
            return f"{_name(NIC)} has no DMA for the crash kernel: it was not woken"
    return ""


UEFI_SAYS = ("efi: EFI v", "ACPI: IORT", "ACPI: APIC", "ACPI: SPCR: console")
VHE_SAYS = ("CPU.*started at EL2",)


def _console_lacks(evidence: Evidence) -> str:
    """What a kernel does not say that it must in this scenario, or ''."""
    scenario = evidence.scenario
    crashed, _, crash = evidence.console.partition(PANIC_TEXT)
    for pattern in UEFI_SAYS * bool(scenario.uefi) + VHE_SAYS * bool(scenario.vhe):
        for which, log in (("crashed", crashed), ("crash", crash)):
            if not re.search(pattern, log):
                return f"the {which} kernel's log does not show {pattern!r}"
    if scenario.seen and evidence.which == "patched" and not re.search(scenario.seen, evidence.console):
        return f"the console does not show {scenario.seen!r}"
    return ""


def the_scenario_took_effect(evidence: Evidence) -> Found:
    """What it asks for may be ignored by QEMU or by a kernel."""
    scenario = evidence.scenario
    if evidence.pages != (scenario.pages or evidence.pages):
        return Status.INVALID, f"pages of the kernels: {evidence.pages}, not {scenario.pages}", {}
    if len(evidence.more) != scenario.more:
        return Status.INVALID, f"{len(evidence.more)} more disks are read, not {scenario.more}", {}
    if lost := [f"{sid:#x}" for sid in evidence.more if sid not in evidence.more_read]:
        if evidence.which == "patched" and saves(evidence):
            return Status.FAIL, f"the crash kernel cannot read the disk {', '.join(lost)}", {}
    counts = []
    for sid in evidence.more:
        # Behind a PCI bridge a device has the bridge's StreamID.
        both = [stream for stream in evidence.trace["streams"] if stream["sid"] in (sid, sid & ~0xff)]
        counts.append(sum(_total(stream, OLD, "translated", "bypassed") for stream in both))
        needed = evidence.which == "patched" and evidence.whole(sid) and not scenario.more_past_smmu
        # Interrupts go through the SMMU, too, and are no data.
        if needed and not (counts[-1] if scenario.more_mapped_early else
                           any(stream["last_dma"] for stream in both)):
            return Status.INVALID, f"the disk {sid:#x} has no DMA between panic and take-over", {}
    missing = _moment_failed(evidence) or _console_lacks(evidence)
    if missing:
        return Status.INVALID, missing, {}
    busy = ", ".join(f"{sid:#x} {count}" for sid, count in zip(evidence.more, counts))
    return Status.PASS, "the console shows it" if not busy else f"accesses of the other disks: {busy}", {}


SECOND_PANIC = "the crash kernel panics, too"


def saves(evidence: Evidence) -> bool:
    """Does the crash kernel live to save the vmcore?"""
    return not evidence.scenario.second_panic


def the_second_panic_ends_it(evidence: Evidence) -> Found:
    if f"Kernel panic - not syncing: {SECOND_PANIC}" not in evidence.console:
        return Status.INVALID, "the crash kernel did not panic", {}
    if not evidence.lost.startswith("QEMU ended (0)"):      # any other code is of QEMU's own death
        return Status.FAIL, evidence.lost or "the machine went on to its shutdown", {}
    return Status.PASS, "the machine resets itself", {}


def it_has_no_less_memory(evidence: Evidence) -> Found:
    """No tolerance: the series saves 4 MiB of queues, and equal runs differ by a quarter of a MiB."""
    assert evidence.control
    old, new = evidence.control.figures.get("available_kib"), evidence.available_kib
    said = f"{new or 'unknown'} KiB are available in the crash kernel, unpatched {old or 'unknown'}"
    if old is None or new is None:
        return Status.INVALID, said, {}
    return Status.PASS if new >= old else Status.FAIL, said, {}


def the_guest_did_as_it_was_told(evidence: Evidence) -> Found:
    """Without an answer of the host it goes on with what a replay has."""
    words, wait = evidence.scenario.crash_cmdline(), int(evidence.scenario.panic_ms)
    if words not in evidence.console:
        return Status.INVALID, f"the crash kernel's command line is not {words!r}", {}
    if evidence.waited < wait:
        return Status.INVALID, f"the panic came after {evidence.waited} ms, not {wait}", {}
    said = f", the panic came after {wait} ms" * bool(wait)
    return Status.PASS, f"the crash kernel has its command line{said}", {}


@dataclass(frozen=True)
class Rule:
    number: int
    name: str
    judge: Callable[[Evidence], Found]
    applies: Callable[[Evidence], bool] = lambda evidence: True


# In the order, and with the numbers and names, of Documentation/crash-test.rst.
RULES = (
    Rule(1, "DMA was in flight", dma_was_in_flight),
    Rule(2, "in-flight DMA survives", in_flight_dma_survives, adopts),
    Rule(3, "nothing is misdirected", nothing_is_misdirected),
    Rule(4, "register discipline", register_discipline, lambda found: adopts(found) and saves(found)),
    Rule(5, "data lands", data_lands, lambda found: adopts(found) and saves(found)),
    Rule(6, "the vmcore opens", the_vmcore_opens, saves),
    Rule(7, "clean logs", clean_logs),
    Rule(8, "the control fails", the_control_fails,
         lambda evidence: evidence.control is not None and adopts(evidence)),
    Rule(9, "the damage was seen", the_damage_was_seen, lambda evidence: evidence.damage is not None),
    Rule(10, "the refusal was said", the_refusal_was_said, lambda evidence: bool(evidence.scenario.refusal)
         and evidence.which == "patched"),
    Rule(11, "chance struck", chance_struck, lambda evidence: bool(evidence.scenario.chaos)),
    Rule(12, "the scenario took effect", the_scenario_took_effect, lambda evidence: bool(
        evidence.scenario.uefi or evidence.scenario.vhe or evidence.scenario.seen or evidence.scenario.more
        or evidence.scenario.pages)),
    Rule(13, "the second panic ends it", the_second_panic_ends_it, lambda evidence: not saves(evidence)),
    Rule(14, "it has no less memory", it_has_no_less_memory, lambda evidence: evidence.control is not None
         and evidence.scenario.reserve != RESERVE and adopts(evidence) and saves(evidence)),
    Rule(15, "the guest did as it was told", the_guest_did_as_it_was_told,
         lambda evidence: not evidence.lost),
)


def judge(evidence: Evidence, seconds: float = 0.0) -> Judgement:
    """All rules that apply."""
    found = []
    figures: dict[str, Any] = {}
    for rule in RULES:
        if rule.applies(evidence):
            status, detail, counted = rule.judge(evidence)
            found.append(Result(evidence.which, f"rule {rule.number}: {rule.name}", status, detail, counted))
            figures.update(counted)
    if evidence.lost and saves(evidence):
        found.append(Result(evidence.which, "the machine", Status.LOST, evidence.lost))
    figures.update(memory(evidence))
    return Judgement(found, seconds, rows(evidence.trace), figures, evidence.trace)


def memory(evidence: Evidence) -> dict[str, int]:
    """Of the crash kernel, which is the last to boot on this console, in KiB: what its userspace
    finds available, and the queues that the driver says it allocated."""
    if evidence.available_kib is None:
        return {}
    last = evidence.console[evidence.console.rfind("Linux version"):]
    queues = sum(int(count) * QUEUE_ENTRY[name]
                 for count, name in re.findall(r"allocated (\d+) entries for (\w+)", last))
    return {"available_kib": evidence.available_kib, "queues_kib": queues >> 10}


def _look_into_vmcore(run_: Run, evidence: Evidence) -> None:
    """What it holds; what is wrong with it goes to evidence.vmcore."""
    wrong = []
    for word, tool in (("vmcore", "makedumpfile"), ("dmesg", "makedumpfile --dump-dmesg")):
        said = run_.facts(word)
        if not said:
            wrong.append(f"{tool} did not run")
        elif said[0][0] != "0":
            wrong.append(f"{tool} failed ({said[0][0]})")
    said = run_.facts("dmesg")
    if said and said[0] == ["0", "0"]:
        wrong.append("makedumpfile --dump-dmesg has no panic message")
    done = {words[0] for words in run_.facts("done")}
    buffers = {index: pieces for index, *pieces in run_.facts("buffer") if index not in done}
    # Of an NMI the console tells only that it is raised; a hung task is found a while later.
    panic = {"nmi": f"{PANIC_TEXT}, in an NMI", "hang": "hung_task: blocked tasks"}.get(
        run_.scenario.moment, PANIC_TEXT)
    looked = run([sys.executable, "-m", "tools.crash.vmcore", run_.directory / "vmcore", panic,
                  str(run_.nonce)], cwd=TOP, data=json.dumps(buffers).encode(), check=False)
    if looked.returncode:
        wrong.append(f"drgn: {looked.stderr.strip() or f'ended with {looked.returncode}'}")
    else:
        found = json.loads(looked.stdout)
        evidence.frames, evidence.reads = set(found["frames"]), set(found["reads"])
        wrong += [f"drgn: {found['error']}"] if found["error"] else []
    evidence.vmcore = "; ".join(wrong)


def pages(run_: Run) -> dict[str, int | None]:
    """The size that each kernel's pages have; None, if it does not run from the image that it should."""
    found: dict[str, int | None] = {}
    for words in run_.facts("hello"):
        image = run_.images.get(words[0])
        if image and len(words) > 4:
            ours = re.fullmatch("([0-9a-f]{2})+", words[4]) and bytes.fromhex(words[4]) in image.read_bytes()
            found[words[0]] = int(words[3]) if ours else None
    return found


def milestones(run_: Run, panic: float, trace: dict[str, Any]) -> dict[str, float]:
    """When what happened. A kernel's clock starts with it, and its init tells what that says."""
    found = {"panic": panic}
    for when, line in run_.marks:
        words = line.split()
        if words[:2] == ["hello", "crash"] and len(words) > 3:
            found["crash kernel"] = max(panic, when - int(words[3]) / 1000)
    if trace["probe"]:
        found["SMMU probe"] = trace["probe"]
    saved = run_.facts("vmcore")
    if saved:
        found["vmcore" if saved[0][0] == "0" else "makedumpfile failed"] = run_.mark("vmcore") or run_.end
    if run_.lost:
        found["machine's end"] = run_.end
    return found


def judge_run(run_: Run, which: str = "patched", control: Judgement | None = None) -> Judgement:
    """Judge what a run left in its directory."""
    def unjudged(status: Status, why: str) -> Judgement:
        name = "the machine" if status is Status.LOST else "the run"
        return Judgement([Result(which, name, status, why)], run_.seconds)

    # A task that hangs is found seconds later.
    panic = run_.mark("damaged") or run_.mark("dead" if run_.scenario.moment == "hang" else "panic")
    shutdown = run_.mark("shutdown") or run_.mark("error")
    crash_memory = [(int(start, 16), int(end, 16)) for start, end in run_.facts("crash-memory")]
    console, gave_up = run_.directory / machine.CONSOLE, bool(run_.facts("error"))
    lost = "" if gave_up else run_.lost
    if panic is None or not crash_memory:
        return unjudged(Status.INVALID if gave_up else Status.LOST, run_.lost or "no panic")
    if gave_up and not any(words[:1] == ["crash"] for words in run_.facts("hello")):
        return unjudged(Status.INVALID, run_.lost)      # no panic, or not in the moment that was asked for
    try:
        trace = read_trace(run_.directory / TRACE, panic, shutdown or run_.end, crash_memory)
    except ValueError as err:
        return unjudged(Status.LOST if lost else Status.INVALID, lost or f"trace: {err}")
    head, tail, size = (int(re.sub(r"\D", "", word)) for word in run_.facts("ring")[0][1:])
    available = run_.facts("memory")
    evidence = Evidence(run_.scenario, trace, which, run_.sent, panic, run_.mark("saving"),
                        (tail - head) % size, crash_memory=crash_memory, damage=run_.damage,
                        dead=run_.mark("dead") or 0.0, waited=int((run_.facts("waited") or [["0"]])[0][0]),
                        control=control, more=[int(sid, 0) for (sid,) in run_.facts("more-disk")],
                        more_read=[int(sid, 0) for (sid,) in run_.facts("more-read")], pages=pages(run_),
                        console=REPLAYED.sub("", console.read_text(errors="replace")),
                        available_kib=int(available[0][0]) if available else None)
    evidence.lost = lost
    if not lost:
        _look_into_vmcore(run_, evidence)
    evidence.vmcore = run_.lost or evidence.vmcore
    judged = judge(evidence, run_.seconds)
    judged.milestones = milestones(run_, panic, trace)
    return judged
