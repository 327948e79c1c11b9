# SPDX-License-Identifier: GPL-2.0-only
"""The rules (Documentation/crash-test.rst) over what one run left behind.

The judge reads QEMU's trace, the vmcore and the console. Of what the guest says it uses
only the times of the panic and of the shutdown, the addresses of its own buffers, and
whether its own programs failed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import qemu
from common import Err
from vmcore import Vmcore

NIC, SLOW = 0x8, 0x10
DOORBELL = 0x8090040            # GITS_TRANSLATER of QEMU's virt machine
PANIC_TEXT = "sysrq triggered crash"
MIN_TRANSLATIONS = 32
IN_FLIGHT = 2                   # frames that may not have reached the card; see qemu.Sender
RING_MARGIN = 128               # descriptors that may have been used up since the guest looked

PASS, FAIL, INVALID, SKIPPED = "pass", "fail", "invalid", "skipped"

REGISTERS = {0x20: "CR0", 0x28: "CR1", 0x2c: "CR2", 0x44: "GBPA", 0x80: "STRTAB_BASE",
             0x84: "STRTAB_BASE", 0x88: "STRTAB_BASE_CFG", 0x90: "CMDQ_BASE"}

# Rule 7: what no kernel log may have ...
DENIED = re.compile(
    r"WARNING:|\bBUG\b|\bOops\b|Internal error|Unable to handle kernel|"
    r"\bK[AC]SAN\b|\bKFENCE\b|\bUBSAN\b|soft lockup|hard LOCKUP|hung_task|blocked for more than|"
    r"detected stalls?|self-detected stall|possible circular locking|suspicious RCU usage|"
    r"scheduling while atomic|sleeping function called|------------\[ cut here \]")
# ... but for these: (pattern, reason)
ALLOWED: tuple[tuple[str, str], ...] = ()


@dataclass
class Rule:
    number: int
    name: str
    status: str
    detail: str


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
    verdict: str                # PASS, FAIL, INVALID or LOST
    why: str
    seconds: float
    rows: list[Row] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    cells: dict[str, str] = field(default_factory=dict)     # the table's other rows
    trace: dict[str, Any] = field(default_factory=dict)

    def rule(self, number: int) -> Rule | None:
        return next((rule for rule in self.rules if rule.number == number), None)


@dataclass
class Evidence:
    """What the rules are judged on; the tests make these by hand."""
    trace: dict[str, Any]               # of the trace reader
    sent: list[float] = field(default_factory=list)     # frame number -> time
    panic: float = 0.0
    saving: float | None = None         # when makedumpfile was started
    ring: int = 4095                    # receive descriptors that were free at the panic
    frames: set[int] | None = None      # in the vmcore; None: there is no vmcore
    reads: set[int] | None = None       # whose data is in the vmcore and was not complete before
    need_reads: bool = False            # some must be in flight when their disk is reset
    damage: int | None = None           # the value of the L1 descriptor that was damaged
    vmcore: str = ""                    # what is wrong with the vmcore, or ""
    console: str = ""


def read_trace(reader: Path, path: Path, panic: float, shutdown: float,
               crash_memory: list[tuple[int, int]]) -> dict[str, Any]:
    """What the trace reader says; ValueError when it does not understand the trace."""
    ranges = [f"{start:#x}-{end:#x}" for start, end in crash_memory]
    done = subprocess.run([reader, path, f"{panic:.6f}", f"{shutdown:.6f}", hex(DOORBELL), *ranges],
                          capture_output=True, text=True)
    if done.returncode:
        raise ValueError(done.stderr.strip() or f"the trace reader died ({done.returncode})")
    return json.loads(done.stdout)


def _total(stream: dict[str, Any], phases: str, *counts: str) -> int:
    return sum(stream[phase][count] for phase in phases.split() for count in counts)


OLD, ALL = "window adopted", "window adopted taken"


def _identity(stream: dict[str, Any]) -> bool:
    """The crashed kernel let this stream bypass by its STE: that it goes on so is survival."""
    return stream["before"]["bypassed"] > 0 and not stream["before"]["translated"]


def _faults(stream: dict[str, Any], phases: str) -> int:
    """A fault is an event, a guest error or both, depending on the event queue and QEMU."""
    return sum(max(stream[phase]["events"], stream[phase]["faults"]) for phase in phases.split())


def rows(trace: dict[str, Any]) -> list[Row]:
    found = []
    for stream in sorted(trace["streams"], key=lambda s: s["sid"]):
        row = Row(stream["sid"], stream["first_dma"] is not None,
                  _total(stream, OLD, "translated"), _total(stream, ALL, "aborted"),
                  _total(stream, ALL, "bypassed", "disabled"), _faults(stream, ALL),
                  _total(stream, ALL, "misdirected"))
        busy = row.in_flight or any((row.aborted, row.bypassed, row.faulted, row.misdirected))
        if busy or row.sid in qemu.DEVICES:
            found.append(row)
    return found


def _name(sid: int) -> str:
    return f"{qemu.DEVICES.get(sid, 'StreamID')} {sid:#x}"


def _translations(trace: dict[str, Any]) -> Rule:
    each = {s["sid"]: _total(s, OLD, "bypassed" if _identity(s) else "translated")
            for s in trace["streams"]}
    total = sum(each.values())
    said = ", ".join(f"{_name(sid)} {count}" for sid, count in sorted(each.items()) if count)
    enough = total >= MIN_TRANSLATIONS and trace["probe"] is not None
    bypasses = any(map(_identity, trace["streams"]))
    detail = f"{total} {'bypassed accesses' if bypasses else 'translations'} between panic and take-over"
    detail += f" ({said})" if said else ""
    if trace["probe"] is None:
        detail += "; no crash kernel ever wrote the SMMU's registers"
    elif total < MIN_TRANSLATIONS:
        detail += f", fewer than {MIN_TRANSLATIONS}: nothing was proved"
    return Rule(1, "DMA was in flight", PASS if enough else INVALID, detail)


def _survival(trace: dict[str, Any]) -> Rule:
    hurt = []
    watched = [s for s in trace["streams"] if s["first_dma"] is not None]
    for stream in sorted(watched, key=lambda s: s["sid"]):
        aborted = _total(stream, OLD, "aborted")
        bypassed = _total(stream, OLD, *(("disabled",) if _identity(stream) else ("bypassed", "disabled")))
        faulted = _faults(stream, OLD)
        if aborted or bypassed or faulted:
            until = "its take-over" if stream["take_over"] else "the end, never taken over"
            hurt.append(f"{_name(stream['sid'])}: {aborted} aborted, {bypassed} bypassed, "
                        f"{faulted} faulted until {until}")
        elif stream["late"]:
            hurt.append(f"{_name(stream['sid'])}: taken over while it was busy, {stream['late']} "
                        "accesses failed before its driver came")
    if hurt:
        return Rule(2, "in-flight DMA survives", FAIL, "; ".join(hurt))
    count = len(watched)
    return Rule(2, "in-flight DMA survives", PASS,
                f"no abort, bypass or event for {count} stream{'s' if count != 1 else ''} in flight"
                + (", whose STEs are bypass" if any(map(_identity, watched)) else ""))


def _direction(trace: dict[str, Any]) -> Rule:
    wrong = []
    for stream in sorted(trace["streams"], key=lambda s: s["sid"]):
        before, after = _total(stream, OLD, "misdirected"), stream["taken"]["misdirected"]
        for count, what in ((before, "old translations into the crash kernel's memory"),
                            (after, "new translations outside the crash kernel's memory")):
            if count:
                wrong.append(f"{_name(stream['sid'])}: {count} {what}")
        example = stream.get("example")
        if example:
            wrong[-1] += f", first {example['iova']:#x} -> {example['addr']:#x}"
    return Rule(3, "nothing is misdirected", FAIL if wrong else PASS, "; ".join(wrong) or
                "old streams stay out of the crash kernel's memory, new ones in it")


def _registers(trace: dict[str, Any]) -> Rule:
    name = "register discipline"
    wrong = []
    if trace["cleared_smmuen"]:
        wrong.append(f"SMMUEN cleared {trace['cleared_smmuen']} times before the shutdown")
    for key, register in (("wrote_strtab", "STRTAB_BASE(_CFG)"), ("wrote_cr1", "CR1"),
                          ("wrote_cr2", "CR2")):
        if trace[key]:
            wrong.append(f"{register} written {trace[key]} times while SMMUEN = 1")
    if trace["ended"] and not trace["ended_aborting"]:
        wrong.append("GBPA did not say abort when the shutdown cleared SMMUEN")
    for stream in trace["streams"]:
        if stream["end"]["disabled"]:
            wrong.append(f"{_name(stream['sid'])}: {stream['end']['disabled']} raw accesses once the "
                         "shutdown had disabled the SMMU")
    if wrong:
        return Rule(4, name, FAIL, "; ".join(wrong))
    if not trace["ended"]:
        return Rule(4, name, INVALID, "the trace ends before the shutdown disables the SMMU")
    said = "SMMUEN kept, STRTAB_BASE, CR1, CR2 not written, GBPA aborts at the end"
    # A device without a driver is never stopped: its accesses must have met GBPA
    stray = [s for s in trace["streams"] if s["first_dma"] is not None and not s["take_over"]]
    if stray:
        aborted = sum(stream["end"]["aborted"] for stream in stray)
        said += f": {aborted} accesses of {', '.join(_name(s['sid']) for s in stray)}, which no driver stopped"
        if not aborted:
            return Rule(4, name, INVALID, said)
    return Rule(4, name, PASS, said)


def expected_frames(evidence: Evidence) -> tuple[list[int], list[int]]:
    """Frames that must be in the crashed kernel's memory: (after the probe, after the panic).

    From the SMMU's probe to the card's last DMA for the crashed kernel, or to makedumpfile's
    start: of a page that it has read it does not see what comes later. Of those sent last,
    IN_FLIGHT may not have reached the card. A full ring takes no more.
    """
    stream = next((s for s in evidence.trace["streams"] if s["sid"] == NIC), None)
    last = stream and stream["last_dma"]
    probe = evidence.trace["probe"]
    if not last or not probe:
        return [], []
    after = [number for number, when in enumerate(evidence.sent) if when > evidence.panic]
    after = after[:max(evidence.ring - RING_MARGIN, 0)]
    last = min(last, evidence.saving or last)
    due = [number for number in after if evidence.sent[number] <= last][:-IN_FLIGHT]
    return [number for number in due if evidence.sent[number] >= probe], due


def _landing(evidence: Evidence) -> tuple[Rule, dict[str, str]]:
    name = "data lands"
    if evidence.frames is None or evidence.reads is None:
        cells = {"frames landed": "no vmcore", "reads landed": "no vmcore"}
        return Rule(5, name, FAIL, f"no vmcore to look in: {evidence.vmcore}"), cells
    probed, due = expected_frames(evidence)
    landed = [number for number in probed if number in evidence.frames]
    missing = [number for number in due if number not in evidence.frames]
    slow = next((s for s in evidence.trace["streams"] if s["sid"] == SLOW), None)
    completed = slow["completions"] if slow else 0
    reads = len(evidence.reads)
    cells = {"frames landed": f"{len(due) - len(missing)} of {len(due)}, "
                              f"after the probe {len(landed)} of {len(probed)}",
             "reads landed": f"{reads}, completion entries {completed}"}
    detail = (f"{len(landed)} of {len(probed)} frames sent after the SMMU's probe, "
              f"{len(due) - len(missing)} of {len(due)} after the panic; "
              f"{reads} reads, {completed} completion entries")
    left = slow["drained"] if slow else 0
    if evidence.need_reads:
        detail += f", {left} of them at once when its driver reset the disk"
    if missing or reads < completed:
        return Rule(5, name, FAIL, detail), cells
    if evidence.need_reads and not left:
        return Rule(5, name, INVALID, detail + ": none was in flight any more"), cells
    if not probed or not completed:
        return Rule(5, name, INVALID, detail + ": nothing was due"), cells
    return Rule(5, name, PASS, detail), cells


def scan(console: str) -> Rule:
    name = "clean logs"
    boots = len(re.findall(r"Booting Linux on physical CPU", console))
    if boots != 2:
        return Rule(7, name, INVALID, f"the console has {boots} kernel logs, not 2")
    hits = [line.strip() for line in console.splitlines() if DENIED.search(line)]
    bad = [line for line in hits if not any(re.search(pattern, line) for pattern, _ in ALLOWED)]
    if bad:
        return Rule(7, name, FAIL, f"{len(bad)} lines, first: {bad[0]}")
    allowed = f", {len(hits)} allowed" if hits else ""
    return Rule(7, name, PASS, f"nothing in either kernel's log{allowed}")


def _damage(console: str, value: int) -> Rule:
    """That the crash kernel met the damage: the run would prove nothing without."""
    name = "the damage was seen"
    text = f"0x{value:016x}"
    crashed, _, crash = console.partition(PANIC_TEXT)
    if not re.search(rf"smmu_kdump_test: L1 descriptor \d+: 0x\w+ becomes {text}", crashed):
        return Rule(9, name, INVALID, f"no L1 descriptor became {text} before the panic")
    if not re.search(rf"bad L1 descriptor for StreamID 0x\w+: {text}, cut off", crash):
        return Rule(9, name, INVALID, f"the crash kernel does not say that it found L1 descriptor {text}")
    return Rule(9, name, PASS, f"the crash kernel found L1 descriptor {text} and cut its StreamIDs off")


def judge(evidence: Evidence, seconds: float = 0.0) -> Judgement:
    trace = evidence.trace
    landing, cells = _landing(evidence)
    vmcore = Rule(6, "the vmcore opens", FAIL if evidence.vmcore else PASS,
                  evidence.vmcore or "makedumpfile --dump-dmesg and drgn find the panic message")
    rules = [_translations(trace), _survival(trace), _direction(trace), _registers(trace),
             landing, vmcore, scan(evidence.console)]
    if evidence.damage is not None:
        rules.append(_damage(evidence.console, evidence.damage))
    failed = [rule for rule in rules if rule.status == FAIL]
    invalid = [rule for rule in rules if rule.status == INVALID]
    verdict, worst = ("FAIL", failed) if failed else ("INVALID", invalid) if invalid else ("PASS", [])
    why = f"rule{'s' if len(worst) > 1 else ''} " + ", ".join(str(r.number) for r in worst) if worst else ""
    cells |= {"vmcore": "opens, panic found" if vmcore.status == PASS else "BAD",
              "log scan": {PASS: "clean"}.get(rules[6].status, "DIRTY"),
              "registers": {PASS: "kept", INVALID: "not seen"}.get(rules[3].status, "BROKEN")}
    return Judgement(verdict, why, seconds, rows(trace), rules, cells, trace)


def _vmcore_evidence(run: qemu.Run, evidence: Evidence) -> None:
    """Look into the vmcore; what is wrong with it goes to evidence.vmcore."""
    wrong = []
    for word, tool in (("vmcore", "makedumpfile"), ("dmesg", "makedumpfile --dump-dmesg")):
        said = run.facts(word)
        if not said:
            wrong.append(f"{tool} did not run")
        elif said[0][0] != "0":
            wrong.append(f"{tool} failed ({said[0][0]})")
    said = run.facts("dmesg")
    if said and said[0] == ["0", "0"]:
        wrong.append("makedumpfile --dump-dmesg has no panic message")
    path = run.directory / "vmcore"
    try:
        core = Vmcore(path)
    except ValueError as err:
        wrong.append(str(err))
    else:
        done = {int(words[0]) for words in run.facts("done")}
        evidence.frames = core.frames(run.nonce)
        evidence.reads = {int(index) for index, *runs in run.facts("buffer")
                          if int(index) not in done
                          and core.read_landed(run.nonce, int(index), runs)}
        drgn = subprocess.run([sys.executable, Path(__file__).with_name("vmcore.py"), path, PANIC_TEXT],
                              capture_output=True, text=True,
                              env={"PYTHONPATH": str(Path(__file__).resolve().parent.parent)})
        if drgn.returncode:
            wrong.append("drgn: " + (drgn.stderr.strip() or "no panic message"))
    evidence.vmcore = "; ".join(wrong)


def judge_run(run: qemu.Run, reader: Path) -> Judgement:
    """Judge what a run left in its directory."""
    seconds = run.end - run.begin
    panic, shutdown = run.mark("panic"), run.mark("shutdown") or run.mark("error")
    memory = [(int(start, 16), int(end, 16)) for start, end in run.facts("crash-memory")]
    if panic is None or not memory:
        verdict = "INVALID" if run.facts("error") else "LOST"
        return Judgement(verdict, run.lost or "no panic", seconds)
    gave_up = bool(run.facts("error"))
    try:
        trace = read_trace(reader, run.directory / qemu.TRACE, panic, shutdown or run.end, memory)
    except ValueError as err:
        if run.lost and not gave_up:
            return Judgement("LOST", run.lost, seconds)
        return Judgement("INVALID", f"trace: {err}", seconds)
    head, tail, size = (int(re.sub(r"\D", "", word)) for word in run.facts("ring")[0][1:])
    evidence = Evidence(trace, run.sent, panic, run.mark("saving"), (tail - head) % size,
                        need_reads=run.need_reads, damage=run.damage,
                        console=(run.directory / qemu.CONSOLE).read_text(errors="replace"))
    if run.lost and not gave_up:
        evidence.vmcore = run.lost
        judgement = judge(evidence, seconds)
        judgement.verdict, judgement.why = "LOST", run.lost
        return judgement
    _vmcore_evidence(run, evidence)
    if gave_up:
        evidence.vmcore = run.lost
    return judge(evidence, seconds)
