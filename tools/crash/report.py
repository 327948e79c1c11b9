# SPDX-License-Identifier: GPL-2.0-only
"""The crash test's table: the unpatched kernel beside the patched one."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping

from ..results import Status, table
from .judge import Judgement, Row
from .scenario import DEVICES, Scenario

NUMBER = 8
COLUMNS = ("transl", "abort", "bypass", "fault", "misdir")
CELL = NUMBER * len(COLUMNS)
KEPT = {Status.PASS: "kept", Status.INVALID: "not seen", None: "-"}

Runs = Mapping[str, Judgement]          # "unpatched", "patched"


def _numbers(row: Row | None) -> str:
    if not row:
        return "-".rjust(CELL)
    counts = (row.translated, row.aborted, row.bypassed, row.faulted, row.misdirected)
    return "".join(f"{count:>{NUMBER}}" for count in counts)


def _total(rows: list[Row]) -> Row:
    return Row(**{f.name: sum(getattr(row, f.name) for row in rows) for f in dataclasses.fields(Row)})


def _status(run: Judgement, number: int) -> Status | None:
    rule = run.rule(number)
    return rule.status if rule else None


def _facts(run: Judgement) -> dict[str, str]:
    """The table's other rows."""
    figures = run.figures
    frames = reads = "no vmcore" if run.rule(5) else "-"
    if "frames_due" in figures:
        frames = (f"{figures['frames_landed']} of {figures['frames_due']}, after the probe "
                  f"{figures['probed_landed']} of {figures['probed_due']}")
        reads = f"{figures['reads_landed']}, completion entries {figures['completions']}"
    memory = f"{figures['available_kib']} KiB, queues {figures['queues_kib']}" \
        if "available_kib" in figures else "-"
    vmcore, log, registers = (_status(run, number) for number in (6, 7, 4))
    return {"frames landed": frames, "reads landed": reads, "memory": memory,
            "vmcore": {Status.PASS: "opens, panic found", None: "-"}.get(vmcore, "BAD"),
            "log scan": {Status.PASS: "clean", None: "-"}.get(log, "DIRTY"),
            "registers": KEPT.get(registers, "BROKEN"), "seconds": f"{run.seconds:.1f}"}


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, 100, subsequent_indent=" " * 15, break_on_hyphens=False)


def page(base: str, qemu: str, setup: Scenario, runs: Runs, verdict: Status) -> str:
    """At most 100 columns."""
    both = list(runs.values())
    head = "".join(f"{name:>{NUMBER}}" for name in COLUMNS)
    rows: list[list[str]] = [["", *runs], ["after panic", *[head] * len(runs)], []]
    for sid in sorted({row.sid for run in both for row in run.rows}):
        found = (next((row for row in run.rows if row.sid == sid), None) for run in both)
        rows.append([f"{DEVICES.get(sid, 'SID')} {sid:#x}", *map(_numbers, found)])
    rows += [["total", *(_numbers(_total(run.rows) if run.rows else None) for run in both)], []]
    facts = [_facts(run) for run in both]
    rows += [[key, *(fact[key] for fact in facts)] for key in facts[0]]
    texts = [f"{run.verdict} ({run.why})" if run.why else str(run.verdict) for run in both]
    rows.append(["verdict", *(text if len(text) <= CELL else f"{run.verdict}, see below"
                              for text, run in zip(texts, both))])
    barred = [[*row[:1], *(f"| {cell}" for cell in row[1:])] for row in rows]
    knobs = " ".join(f"{name}={value}" for name, value in setup.values.items() if value)
    out = [*_wrap(f"crash test of {base}: {qemu}, {setup.frames} frames/s; {knobs}"), "",
           table(barred, left=3, gap=" "),
           "transl: until the device's take-over; the others: until the shutdown", ""]
    for which, run in runs.items():
        for result in run.results:
            if which == "patched" or result.name.startswith("rule 2:") or not result.name.startswith("rule "):
                rule, colon, name = result.name.partition(": ")
                out += _wrap(f"{rule} {result.status:<7} {which}: {name}{colon}{result.detail}")
    why = runs["patched"].why
    return "\n".join([*out, "", verdict + (f": the patched kernel: {why}" if why else "")]) + "\n"


def lines(runs: Runs) -> str:
    """A crash in a line for each kernel: what it did. And what chance had damaged."""
    def figures(run: Judgement) -> str:
        if "frames_due" not in run.figures:
            return f"{run.verdict}: {run.why}".removesuffix(": ")
        total, facts = _total(run.rows), _facts(run)
        lost = f"{total.aborted} aborted, {total.faulted} faulted, {total.misdirected} misdirected"
        frames, _, probed = facts["frames landed"].partition(", after the probe ")
        why = f" ({run.why})" if run.why else ""
        reads, vmcore = run.figures["reads_landed"], facts["vmcore"].partition(",")[0]
        return (f"{run.verdict}{why}: {total.translated or total.bypassed} accesses, {lost}; frames {frames}"
                f" ({probed} after the probe), reads {reads}, vmcore {vmcore}")
    control, struck = runs["patched"].rule(8), runs["patched"].rule(11)
    broken = f"    control    {control.detail}\n" if control and control.status is not Status.PASS else ""
    room = runs["patched"].rule(14)
    memory = f"    memory     {room.detail}\n" if room else ""
    damage = f"    damage     {struck.detail}\n" if struck else ""
    each = "".join(f"    {which:<9}  {figures(run)}\n" for which, run in runs.items())
    return each + broken + memory + damage
