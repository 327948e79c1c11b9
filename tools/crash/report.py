# SPDX-License-Identifier: GPL-2.0-only
"""The result of `make crash-test`: one table, JSON, JUnit and KTAP."""

from __future__ import annotations

import dataclasses
import json
import sys
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import qemu
from judge import FAIL, INVALID, PASS, Judgement, Row, Rule

COLOURS = {"PASS": 32, "FAIL": 31, "INVALID": 33, "LOST": 35}
LABEL, NUMBER = 14, 8
COLUMNS = ("transl", "abort", "bypass", "fault", "misdir")
CELL = NUMBER * len(COLUMNS)


@dataclasses.dataclass
class Report:
    base: str
    qemu: str
    scenario: qemu.Scenario
    runs: dict[str, Judgement]          # "unpatched", "patched"
    control: Rule                       # rule 8
    verdict: str
    why: str
    stages: list[tuple[str, float]]


def _numbers(row: Row | None) -> str:
    if not row:
        return "-".rjust(CELL)
    counts = (row.translated, row.aborted, row.bypassed, row.faulted, row.misdirected)
    return "".join(f"{count:>{NUMBER}}" for count in counts)


def _total(rows: list[Row]) -> Row:
    sums = {f.name: sum(getattr(row, f.name) for row in rows) for f in dataclasses.fields(Row)}
    return Row(**sums)


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, 100, subsequent_indent=" " * 15, break_on_hyphens=False)


def table(report: Report, colour: bool = False) -> str:
    """At most 100 columns: unpatched beside patched."""
    runs = list(report.runs.values())

    def line(label: str, *cells: str) -> str:
        return f"{label:<{LABEL}} | " + " | ".join(f"{cell:<{CELL}}" for cell in cells).rstrip()

    rule = "-" * LABEL + "-+-" + "-+-".join("-" * CELL for _ in runs)
    setup = report.scenario
    out = [f"crash test of {report.base}: {report.qemu}, {setup.frame_rate} frames/s, {setup.read_iops} reads/s; "
           f"held {setup.delay_ms} ms before", f"and {setup.settle_ms} ms after the SMMU's probe", "",
           line("", *report.runs),
           line("after panic", *("".join(f"{name:>{NUMBER}}" for name in COLUMNS) for _ in runs)), rule]
    sids = sorted({row.sid for run in runs for row in run.rows})
    for sid in sids:
        found = [next((row for row in run.rows if row.sid == sid), None) for run in runs]
        out.append(line(f"{qemu.DEVICES.get(sid, 'SID')} {sid:#x}", *map(_numbers, found)))
    out.append(line("total", *(_numbers(_total(run.rows) if run.rows else None) for run in runs)))
    out.append(rule)
    for key in ("frames landed", "reads landed", "vmcore", "log scan", "registers"):
        out.append(line(key, *(run.cells.get(key, "-") for run in runs)))
    out.append(line("seconds", *(f"{run.seconds:.1f}" for run in runs)))
    verdicts = []
    for run in runs:
        text = f"{run.verdict:<{CELL}}" if not run.why else f"{run.verdict} ({run.why})"
        text = text if len(text) <= CELL else f"{run.verdict}, see below"
        text = f"{text:<{CELL}}"
        verdicts.append(text.replace(run.verdict, paint(run.verdict, colour), 1))
    out.append(f"{'verdict':<{LABEL}} | " + " | ".join(verdicts).rstrip())
    out += ["", "transl: until the device's take-over; the others: until the shutdown", ""]
    for name, run in report.runs.items():
        if run.verdict == "LOST" or run.why and not run.rules:
            out += _wrap(f"{name}: {run.verdict}: {run.why}")
        for judged in run.rules:
            if name == "patched" or judged.number == 2:
                out += _wrap(f"rule {judged.number} {judged.status:<7} {name}: {judged.name}: {judged.detail}")
    out += [*_wrap(f"rule 8 {report.control.status:<7} control: {report.control.detail}"), "",
            f"{paint(report.verdict, colour)}" + (f": {report.why}" if report.why else "")]
    return "\n".join(out) + "\n"


def line(name: str, report: Report, seconds: float) -> str:
    """A scenario in two lines: what either kernel did."""
    def figures(run: Judgement) -> str:
        if not run.rules:
            return f"{run.verdict}: {run.why}"
        total = _total(run.rows)
        lost = f"{total.aborted} aborted, {total.faulted} faulted, {total.misdirected} misdirected"
        frames, _, probed = run.cells["frames landed"].partition(", after the probe ")
        why = f" ({run.why})" if run.why else ""
        return (f"{run.verdict}{why}: {total.translated or total.bypassed} accesses, {lost}; frames {frames}"
                f" ({probed} after the probe), reads {run.cells['reads landed'].split(',')[0]},"
                f" vmcore {run.cells['vmcore'].split(',')[0]}")
    rows = [f"{name:<18} {report.verdict:<7} {seconds:5.0f} s\n"]
    rows += [f"    {which:<9}  {figures(run)}\n" for which, run in report.runs.items()]
    if report.control.status != PASS:
        rows.append(f"    control    {report.control.detail}\n")
    return "".join(rows)


def paint(verdict: str, colour: bool) -> str:
    return f"\033[1;{COLOURS[verdict]}m{verdict}\033[0m" if colour else verdict


def cases(report: Report) -> list[Rule]:
    """The tests of a report: the patched run's rules, and the control."""
    patched = report.runs["patched"]
    rules = patched.rules or [Rule(0, "run", INVALID if patched.verdict == "INVALID" else FAIL, patched.why)]
    if patched.verdict == "LOST" and patched.rules:
        rules = [*rules, Rule(0, "run", FAIL, f"the machine was lost: {patched.why}")]
    return [*rules, report.control]


def as_json(report: Report) -> str:
    return json.dumps(dataclasses.asdict(report), indent=2) + "\n"


def as_ktap(report: Report) -> str:
    """A rule that proved nothing is "not ok", too: a green line must mean something."""
    tests = cases(report)
    out = ["KTAP version 1", f"# crash test of {report.base}", f"1..{len(tests)}"]
    for number, test in enumerate(tests, 1):
        out.append(f"# {test.detail}")
        out.append(f"{'ok' if test.status == PASS else 'not ok'} {number} {test.name}")
    return "\n".join(out) + "\n"


def as_junit(report: Report) -> str:
    tests = cases(report)
    suite = ElementTree.Element("testsuite", {
        "name": f"crash-test.{report.base}", "tests": str(len(tests)),
        "failures": str(sum(test.status == FAIL for test in tests)),
        "errors": str(sum(test.status == INVALID for test in tests)),
        "time": f"{sum(run.seconds for run in report.runs.values()):.1f}"})
    for test in tests:
        case = ElementTree.SubElement(suite, "testcase", {
            "classname": f"crash-test.{report.base}", "name": f"rule {test.number}: {test.name}"})
        if test.status in (FAIL, INVALID):
            kind = "failure" if test.status == FAIL else "error"
            ElementTree.SubElement(case, kind, {"message": test.detail})
        ElementTree.SubElement(case, "system-out").text = test.detail
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def save(report: Report, directory: Path) -> None:
    for name, text in (("table.txt", table(report)), ("result.json", as_json(report)),
                       ("result.ktap", as_ktap(report)), ("junit.xml", as_junit(report))):
        (directory / name).write_text(text)


def write(report: Report, directory: Path) -> None:
    """All forms, and the table on stdout."""
    save(report, directory)
    print(table(report, sys.stdout.isatty()))
    stages = "".join(f"  {seconds:8.1f} s  {name}\n" for name, seconds in report.stages)
    print(f"stages\n{stages}")
    print(f"reports in {directory}")
    print("  table.txt  result.json  junit.xml  result.ktap")
    print("  unpatched/, patched/: console.log  trace.log  vmcore  qemu.sh (the exact command)")
