# SPDX-License-Identifier: GPL-2.0-only
"""./kit verdict: did DMA survive the crash? From what was collected alone; there is no trace.

PASS, FAIL, or INVALID if nothing was proved. The rules are the table RULES; README.rst has them in words.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ... import machine
from ...common import TOP, USAGE, Err, remove, run
from ...results import Report, Result, Status, counted, table, worst
from . import dump, redfish, stream
from .collect import BMC, CONSOLE, THIS_BOOT, VMCORE
from .provoke import BEAT_S, CLOCK, CRASH_LOG, RUN

BOOT = "Booting Linux on physical CPU"
ADOPTED, DROPPED = "kdump: adopted the crashed kernel's", "kdump: adopted stream table dropped"
HELD = re.compile(r"smmu_kdump_test: holding the crash kernel for (\d+) ms, after the SMMU")
# The same, in /dev/kmsg's form, with the microseconds since that kernel's start.
HELD_AT = re.compile(r"(?m)^\d+,\d+,(\d+),[^;\n]*;" + HELD.pattern)
MOST = 0.9                      # of the frames that are due: a network may lose one
FEW = 5                         # frames that are due: of fewer nothing is said
EARLY = 3                       # frames before them that show that the stream had not stopped earlier
SLACK_S = 1.0                   # the crash kernel takes its time from a clock of whole seconds
SOON_S = 600.0                  # from the panic on: a crash kernel that starts later has a wrong clock
CLOCKED = re.compile(rf"(?m)^{CLOCK} (\d+\.\d+) (\d+\.\d+)")
# What a kernel says of a disk that it has lost.
NO_DISK = re.compile(r"I/O error|timeout, (aborting|reset controller|disable controller)|controller is down|"
                     r"nvme.*([Rr]emoving after|Device not ready)|rejecting I/O")
# What the kernel says of PCIe errors that the device could not correct ...
PCIE = re.compile(r"severity=Uncorrect|AER: .*(Uncorrect|[Ff]atal)|PoisonTLP|Poisoned TLP|\bCmpltTO\b|"
                  r"\bDPC: (containment event|.* detected)|"
                  r"[Cc]ompletion [Tt]ime-?out|\[12\] TLP\b|BERT: .*[Ee]rror record")
# ... and of CPER records, line by line; one of them has the severity.
CPER = re.compile(r"(\{\d+\})?\[Hardware Error\]: *(.*)")
HARMLESS = re.compile(r"event severity: (corrected|info)")
# What a BMC says of PCIe; that the system has panicked is no error of its own.
BMC_PCIE = re.compile(r"\bPCI|\bAER\b|poison|completion time|uncorrect|CPER|bus (fatal|error)|"
                      r"\bbus \d+,? device \d+", re.I)
BMC_SAYS = ("Message", "MessageId", "SensorType")
NO_TIME = 1e9                   # a clock that was never set tells of an earlier one, 2001
# The parts of a log that efi_pstore keeps have names with the time, the part and a count.
PART = re.compile(r"(?<=\d{10})\d{5}$")
PART_HEAD = re.compile(r"\w+#\d+ Part(\d+)\n")
FATAL = ("fatal", "nonfatal")

Found = tuple[Status, str]


@dataclass
class Crash:
    """What was collected of one crash."""
    here: Path
    run: dict[str, Any]
    vmcore: str = ""                # what is wrong with it
    level: int | None = None
    dump: dict[str, Any] = field(default_factory=dict)      # of dump.py
    results: list[Result] = field(default_factory=list)

    def log(self, name: str) -> str:
        """A collected log; of /dev/kmsg's form the text alone."""
        return re.sub(r"(?m)^\d+,\d+,\d+,[^;\n]*;", "", self.raw(name))

    def raw(self, name: str) -> str:
        path = self.here / name
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def this(self) -> bool:
        return self.run["marker"] in self.dump.get("log", "")

    @property
    def crashed(self) -> str:
        """The crashed kernel's log from the crash on."""
        return str(self.dump.get("log", "").partition(self.run["marker"])[2])

    @property
    def boots(self) -> list[str]:
        """The logs of the crash kernels: one, if there was no second crash."""
        text = self.log(CRASH_LOG)
        if BOOT in text:
            return text.split(BOOT)[1:]
        _, found, after = self.log(CONSOLE).partition(self.run["marker"])
        return after.split(BOOT)[1:2] if found else []

    @property
    def crash(self) -> str:
        return "\n".join(self.boots)

    @property
    def held(self) -> tuple[float, float]:
        """Seconds from the crash kernel's start to the begin and the end of its wait; until the end the card
        is the crashed kernel's."""
        found = HELD_AT.search(self.raw(CRASH_LOG))
        begin = int(found[1]) / 1e6 if found else 0.0
        return begin, begin + (int(found[2]) / 1000 if found else 0.0)

    @property
    def started(self) -> float | None:
        """When the crash kernel's clock began, by its own time; from its log."""
        found = CLOCKED.search(self.raw(CRASH_LOG))
        return float(found[1]) - float(found[2]) if found else None

    @property
    def after(self) -> float | None:
        """Seconds from the panic, the last frame that was heard, to that; None if the clocks do not tell."""
        if self.started is None or self.heard < 0:
            return None
        found = self.started - self.run["frames"]["ahead"] - float(self.dump["frames"]["when"])
        return max(found, 0) if -SLACK_S <= found <= SOON_S else None

    @property
    def cut(self) -> str:
        """What is wrong with the crash kernel's own log: does it reach to the end of the saving?"""
        saved, logged = (self.run["collected"].get(what, 0.0) for what in ("saved", "logged"))
        if not saved or not logged or saved - logged <= 3 * BEAT_S:
            return ""
        return f"the crash kernel's log ends {saved - logged:.0f} s before the dump was saved"

    @property
    def pstore(self) -> str:
        """The crashed kernel's log from the crash on, as pstore has it: in parts, the newest first."""
        logs: dict[str, list[tuple[int, str]]] = {}
        for path in sorted(self.here.glob("pstore-*")):
            text = path.read_text(errors="replace")
            part = PART_HEAD.match(text)
            name = PART.sub("", re.sub(r"^pstore-\d+-", "", path.name))
            logs.setdefault(name, []).append((-int(part[1]) if part else 0, text))
        joined = ("\n".join(text for _, text in sorted(parts)) for parts in logs.values())
        return "\n".join(text.partition(self.run["marker"])[2] for text in joined)

    @property
    def heard(self) -> int:
        """The frame that was heard last, or -1."""
        return int(self.dump.get("frames", {}).get("last", -1))

    @property
    def later(self) -> set[int]:
        """The frames that came after it."""
        return set(self.dump["frames"]["later"])

    @property
    def due_frames(self) -> range:
        """Those that were sent in the wait, but at its ends. What the ring has no place for is not due."""
        begin, end = self.held
        after = self.after or 0.0
        first, end_ = (self.heard + 1 + int(stream.RATE * (after + when))
                       for when in (begin + SLACK_S, end - SLACK_S))
        return range(first, min(end_, self.heard + 1 + stream.RING) if end else first)

    @property
    def landed(self) -> int:
        """How many of these."""
        return len(self.later.intersection(self.due_frames))

    @property
    def adopts(self) -> bool:
        return ADOPTED in self.crash and DROPPED not in self.crash

    def ledger(self) -> dict[int, int]:
        """Read -> 1 if it had come before the panic, 0 if it was in flight."""
        data = bytes.fromhex(self.dump.get("ledger", ""))[:self.run["reads"]]
        return dict(enumerate(data)) if self.this and set(data) <= {0, 1} else {}

    @property
    def due(self) -> list[int]:
        return [index for index, before in self.ledger().items() if not before]

    @property
    def missing(self) -> list[int]:
        return sorted(set(self.due) - set(self.dump.get("landed", [])))


def a_vmcore(crash: Crash) -> Found:
    if crash.vmcore:
        return Status.FAIL, crash.vmcore
    new = crash.run["collected"]["dumps"]
    return Status.PASS, f"{new[0]}" + f", and {len(new) - 1} later ones" * (len(new) > 1)


def opens(crash: Crash) -> Found:
    if crash.vmcore:
        return Status.INVALID, "there is no vmcore to look in"
    if crash.dump["error"]:
        return Status.FAIL, f"drgn: {crash.dump['error']}"
    return Status.PASS, "drgn finds the crashed kernel's log"


def of_this_crash(crash: Crash) -> Found:
    if crash.vmcore or crash.dump["error"]:
        return Status.INVALID, "there is no vmcore to look in"
    if not crash.this:
        return Status.INVALID, f"its log does not have \"{crash.run['marker']}\": it is another crash's"
    return Status.PASS, crash.run["id"]


def in_flight(crash: Crash) -> Found:
    if not crash.this:
        return Status.INVALID, "no vmcore of this crash tells"
    if not crash.dump["ledger"]:
        if (crash.level or 0) & dump.USER_PAGES:
            return Status.INVALID, f"it has no user pages (makedumpfile -d {crash.level}); take -d 17"
        return Status.INVALID, "the vmcore does not have the ledger"
    if not crash.ledger():
        return Status.INVALID, "the ledger was not filled: the panic came before the reads"
    said = f"{len(crash.due)} of {crash.run['reads']} reads were in flight at the panic"
    return (Status.PASS if crash.due else Status.INVALID), said


def data_lands(crash: Crash) -> Found:
    if not crash.due:
        return Status.INVALID, "nothing was due"
    early = [index for index, before in crash.ledger().items() if before]
    damaged = set(early) - set(crash.dump["landed"])
    said = f"{len(crash.due) - len(crash.missing)} of {len(crash.due)} reads in flight"
    if damaged:
        return Status.FAIL, f"{said}; {len(damaged)} that had come before the panic are not what they were"
    if crash.missing and not HELD.search(crash.crash):
        return Status.INVALID, (f"{said}; the crash kernel was not held after the SMMU's probe: the others "
                                "may have been ended by their driver")
    return (Status.FAIL if crash.missing else Status.PASS), said


def frames_land(crash: Crash) -> Found:
    """Those that were sent in the crash kernel's wait, by its clock."""
    if "frames" not in crash.run:
        return Status.SKIPPED, "no stream was heard (--frames)"
    if crash.heard < 0:
        return Status.INVALID, "the vmcore does not have the number that was heard last"
    if not HELD.search(crash.crash):
        return Status.INVALID, "the crash kernel was not held after the SMMU's probe"
    if crash.after is None or not any(crash.held):
        return Status.INVALID, (f"it is not known when the crash kernel was held: {CRASH_LOG} has no times, "
                                "or its clock is wrong")
    if len(crash.due_frames) < FEW:
        return Status.INVALID, (f"{len(crash.due_frames)} frames were due: the crash kernel started "
                                f"{crash.after:.0f} s after the panic and was held from second "
                                f"{crash.held[0]:.0f} to {crash.held[1]:.0f}; the card's ring lasts for "
                                f"{stream.RING / stream.RATE:.0f} s")
    early = sum(number < crash.due_frames.start for number in crash.later)
    said = f"{crash.landed} of {len(crash.due_frames)} frames that were due after the SMMU's probe"
    most = crash.landed >= MOST * len(crash.due_frames)
    if not most and early < EARLY:
        return Status.INVALID, f"{said}, {early} before it: had the stream stopped before the panic?"
    return (Status.PASS if most else Status.FAIL), said


def adopted(crash: Crash) -> Found:
    if not crash.boots:
        return Status.INVALID, "there is no log of the crash kernel"
    if len(crash.boots) > 1:
        return Status.INVALID, f"there are the logs of {len(crash.boots)} crash kernels: a second crash"
    lines = re.findall(r"kdump: (?:adopted|stream table not adopted).*", crash.crash)
    said = "; ".join(lines) or "its log does not say so"
    return (Status.PASS if crash.adopts and "not adopted" not in said else Status.FAIL), said[:300]


def clean_logs(crash: Crash) -> Found:
    if not crash.boots:
        return Status.INVALID, "there is no log of the crash kernel"
    bad = machine.complaints(crash.crashed) + machine.complaints(crash.crash)
    if bad:
        return Status.FAIL, f"{len(bad)} lines, first: {bad[0][:200]}"
    if crash.cut:
        return Status.INVALID, crash.cut
    return Status.PASS, "nothing from the crash on"


def records(text: str) -> Iterator[str]:
    """The lines that tell of an error that was not corrected."""
    yield from (line.strip() for line in text.splitlines() if PCIE.search(line))
    parts: dict[str, list[str]] = {}    # by the number of the record
    for line in text.splitlines():
        if match := CPER.search(line):
            parts.setdefault(match[1] or "", []).append(match[0])
    for lines in parts.values():
        if not any(HARMLESS.search(line) for line in lines):
            yield next((line for line in lines if "severity" in line), lines[0])


def no_record(crash: Crash) -> Found:
    logs = (("the crashed kernel", crash.crashed), ("the crash kernel", crash.crash),
            ("this boot", crash.log(THIS_BOOT)), ("pstore", crash.pstore))
    bad = [f"{who}: {line}" for who, text in logs for line in records(text)]
    bad += [f"AER's counters of {which}: {counts}" for which, counts in crash.run["collected"]["aer"].items()
            if which.split()[-1] in FATAL]
    if bad:
        return Status.FAIL, f"{len(bad)}, first: {bad[0][:250]}"
    if not crash.boots:
        return Status.INVALID, "there is no log of the crash kernel"
    if crash.cut:
        return Status.INVALID, crash.cut
    if BOOT not in crash.log(THIS_BOOT):
        return Status.INVALID, ("the log of the boot after the crash has not its begin: collect it right "
                                "after the boot, or boot with a larger log_buf_len=")
    return Status.PASS, "no poisoned TLP, completion time-out, fatal AER or CPER record"


def no_event(crash: Crash) -> Found:
    path = crash.here / BMC
    found = json.loads(path.read_text()) if path.exists() else {}
    if not found:
        return Status.SKIPPED, "no BMC was asked"
    if "error" in found:
        return Status.INVALID, f"the BMC's event log could not be read: {found['error']}"
    ahead = found["ahead"] or 0
    times = [(redfish.seconds(entry.get("Created")) or redfish.seconds(entry.get("EventTimestamp")), entry)
             for entry in found["entries"]]
    after = [entry for when, entry in times if when and when - ahead >= crash.run["when"]]
    pcie = [(when, entry) for when, entry in times if entry.get("Severity") != "OK"
            and BMC_PCIE.search(" ".join(entry.get(key, "") for key in BMC_SAYS))]
    bad = [entry for _, entry in pcie if entry in after]
    if bad:
        return Status.FAIL, f"{len(bad)}, first: {bad[0].get('Message', '')[:200]}"
    if any(not when or when < NO_TIME for when, _ in pcie):
        return Status.INVALID, "a record of a PCIe error has no time: is the BMC's clock set?"
    if not after:
        return Status.INVALID, (f"none of its {len(times)} records is from after the crash: is its log full, "
                                "is its clock right?")
    return Status.PASS, f"{len(after)} records since the crash, none of a PCIe error"


Rule = tuple[str, Callable[[Crash], Found]]
RULES: tuple[Rule, ...] = (
    ("a vmcore was saved", a_vmcore), ("the vmcore opens", opens),
    ("the vmcore is of this crash", of_this_crash), ("reads were in flight", in_flight),
    ("data lands", data_lands), ("frames land", frames_land), ("the crash kernel adopts", adopted),
    ("clean logs", clean_logs), ("no error record", no_record), ("no event of the BMC", no_event))


def control_fails(crash: Crash, control: Crash | None) -> Found:
    """A test that the kernel without the series survives proves nothing."""
    if not control:
        return Status.INVALID, "the control was not run: crash the kernel without the series, too"
    found, own = ({result.name: result for result in one.results} for one in (control, crash))
    flight = found["reads were in flight"]
    if control.run["id"] == crash.run["id"] or control.run["host"] != crash.run["host"]:
        return Status.INVALID, "the control is the same crash, or of another machine"
    if control.adopts:
        return Status.INVALID, "the control has the series: its crash kernel adopts"
    if not control.boots:
        return Status.INVALID, ("there is no log of the control's crash kernel: if it died, or lost its "
                                "disk, give collect the serial console's (--console)")
    why = f"{flight.detail}; {found['data lands'].detail}"
    for name in ("a vmcore was saved", "data lands", "frames land", "no error record", "no event of the BMC"):
        if found[name].status is not Status.FAIL:
            continue
        said = f"{name}: {found[name].detail}"
        wrote = control.log(CRASH_LOG) and not NO_DISK.search(control.crash + control.log(CONSOLE))
        if control.vmcore == dump.EMPTY and name == "a vmcore was saved" and wrote:
            why = f"{said}, but its crash kernel could write to its disk: was it makedumpfile?"
        elif own[name].status is Status.SKIPPED:
            why = f"{said}, and with the series nobody has looked"
        elif name == "data lands" and 0 < 2 * len(crash.due) < len(control.due):
            why = f"{said}, and with the series only {len(crash.due)} were in flight"
        else:
            return Status.PASS, f"without the series: {said}"
    return Status.INVALID, f"the kernel without the series loses nothing that can be seen: {why}"


def _look(crash: Crash, scratch: Path) -> None:
    path, new = crash.here / VMCORE, crash.run["collected"]["dumps"]
    if not new or not path.exists():
        crash.vmcore = "none was saved"
        return
    if "incomplete" in new[0]:
        crash.vmcore = f"it is cut short: {new[0]}"
        return
    try:
        with open(path, "rb") as file:
            flat = file.read(len(dump.FLAT)) == dump.FLAT
        if flat:
            dump.rearrange(path, scratch)
            path = scratch
        crash.vmcore = dump.wrong(path)
        if crash.vmcore:
            return
        crash.level = dump.level(path)
        facts = (crash.here / "facts").read_text()
        if heard := crash.run.get("frames"):
            facts += f"frames {heard['sender']} {heard['record']}\n"
        looked = run([sys.executable, "-P", "-m", "tools.distro.kit.dump", path, str(crash.run["nonce"])],
                     env={**os.environ, "PYTHONPATH": str(TOP)},
                     data=facts.encode(), check=False)
        crash.dump = json.loads(looked.stdout) if not looked.returncode else {
            "error": f"ended with {looked.returncode}"}
    except ValueError as err:
        crash.vmcore = str(err)
    finally:
        remove(scratch)


def judge(here: Path, which: str, scratch: Path) -> Crash:
    try:
        told = json.loads((here / RUN).read_text())
    except (OSError, ValueError) as err:
        raise Err(f"{here} is no directory that ./kit collect has filled", "./kit collect", USAGE) from err
    if "collected" not in told:
        raise Err(f"{here}: the crash was not collected", "./kit collect, on that machine", USAGE)
    crash = Crash(here, told)
    _look(crash, scratch)
    crash.results = [Result(which, name, *rule(crash)) for name, rule in RULES]
    return crash


def _rows(crash: Crash | None) -> list[str]:
    """A column of the table."""
    if not crash:
        return ["-"] * 8
    known = bool(crash.ledger())
    status = {result.name: result.status for result in crash.results}
    return [crash.run["release"], f"{len(crash.due)} of {crash.run['reads']}" if known else "-",
            f"{len(crash.due) - len(crash.missing)}" if known else "-",
            f"{crash.landed} of {len(crash.due_frames)}" if crash.heard >= 0 else "-",
            "yes" if crash.adopts else "no",
            *(str(status[name]) for name in ("clean logs", "no error record")), str(worst(crash.results))]


def page(crash: Crash, control: Crash | None, results: list[Result]) -> str:
    names = ("kernel", "reads in flight", "of them landed", "frames landed", "adopted", "log",
             "error records", "alone")
    rows: list[list[str]] = [["", "unpatched", "patched"], []]
    rows += [list(row) for row in zip(names, _rows(control), _rows(crash))]
    said = [f"{result.status:<11} {result.suite}: {result.name}: {result.detail}" for result in results]
    top = f"repro kit on {crash.run['host']}: {crash.run['id']}"
    return "\n".join([top, "", table(rows, left=3), *said, "", counted(results), f"{worst(results)}\n"])


def verdict(patched: Path, control: Path | None, out: Path) -> int:
    if importlib.util.find_spec("drgn") is None:
        raise Err("python3-drgn is not installed", "apt-get install python3-drgn")
    out.mkdir(parents=True, exist_ok=True)
    scratch = out.absolute() / ".vmcore"        # dump.py runs in another directory
    other = judge(control.absolute(), "unpatched", scratch) if control else None
    crash = judge(patched.absolute(), "patched", scratch)
    results = [*crash.results, Result("patched", "the control fails", *control_fails(crash, other))]
    about = {"patched": crash.run, "control": other.run if other else None}
    report = Report("repro-kit", crash.run["host"], results, about, other.results if other else [],
                    text=page(crash, other, results))
    return report.show(out.absolute())
