# SPDX-License-Identifier: GPL-2.0-only
"""Results as a table for people (terminal, plain, Markdown) and for programs (JSON, JUnit, TSV)."""
from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

ROOM = 32000            # bytes: two of our digests go into a forge's comment of 65,536
GOOD, BAD, DOUBT, PLAIN = "good", "bad", "doubt", "plain"
COLOURS = {GOOD: "\033[32m", BAD: "\033[1;31m", DOUBT: "\033[33m", PLAIN: ""}
RESET = "\033[0m"


@dataclass
class Finding:
    level: str          # "error" or "warning"
    kind: str
    where: str          # the row it belongs to, "" for the whole run
    text: str
    remedy: str


@dataclass
class Cell:
    text: str
    mood: str = PLAIN


@dataclass
class Report:
    title: str
    columns: Sequence[str]
    rows: list[list[Cell]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)                   # what findings call each row
    data: list[dict[str, object]] = field(default_factory=list)     # a row each, for JSON
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)              # why a row that passes is not upstream's
    diffs: dict[str, list[str]] = field(default_factory=dict)       # what to look at, by row
    summary: str = ""

    def errors(self) -> int:
        return sum(f.level == "error" for f in self.findings)


def clean(text: str) -> str:
    """No control characters: what a commit says must not steer a terminal or break a line."""
    return "".join(c if c.isprintable() else "?" for c in text.replace("\t", " "))


def clean_line(text: str) -> str:
    """A line of a diff: tabs stay."""
    return "\t".join(map(clean, text.split("\t")))


def width(text: str) -> int:
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
               for c in text)


def fit(text: str, room: int) -> str:
    """Cut to the room, or padded to it."""
    if width(text) > room:
        while width(text) > room - 1:
            text = text[:-1]
        text += "…"
    return text + " " * (room - width(text))


def table(report: Report, room: int, colour: bool) -> str:
    """Columns fitted to the room: the widest gives way first."""
    cells = [[clean(c.text) for c in row] for row in report.rows]
    wide = [max([width(h), *(width(row[i]) for row in cells)]) for i, h in enumerate(report.columns)]
    if room:
        while sum(wide) + 3 * (len(wide) - 1) > room and max(wide) > 4:
            wide[wide.index(max(wide))] -= 1

    def line(texts: Sequence[str], moods: Sequence[str]) -> str:
        parts = []
        for i, (text, mood) in enumerate(zip(texts, moods)):
            text = fit(text, wide[i])
            parts.append(f"{COLOURS[mood]}{text}{RESET}" if colour and COLOURS[mood] else text)
        return " | ".join(parts).rstrip()

    out = [line(report.columns, [PLAIN] * len(wide)), "-+-".join("-" * w for w in wide)]
    out += [line(texts, [c.mood for c in row]) for texts, row in zip(cells, report.rows)]
    return "\n".join(out) + "\n"


def as_text(report: Report, room: int = 0, colour: bool = False) -> str:
    out = report.title + "\n\n"
    if report.rows:
        out += table(report, room, colour) + "\n"
    for f in sorted(report.findings, key=lambda f: f.level != "error"):
        paint = COLOURS[BAD if f.level == "error" else DOUBT] if colour else ""
        where = f"{clean(f.where)}: " if f.where else ""
        out += f"{paint}{f.level}{RESET if colour else ''}: {where}{clean(f.text)}; {clean(f.remedy)}\n"
    for f in report.notes:
        out += f"{f.level}: {clean(f.where)}: {clean(f.text)}\n"
    for where, lines in report.diffs.items():
        out += "\n" + clean(where) + "\n" + "".join(f"    {clean_line(x)}\n" for x in lines)
    return out + ("\n" if report.findings or report.notes else "") + report.summary + "\n"


def as_json(report: Report) -> str:
    return json.dumps({
        "title": report.title, "summary": report.summary, "rows": report.data,
        "findings": [vars(f) for f in report.findings],
        "errors": report.errors(), "warnings": len(report.findings) - report.errors(),
    }, indent=2, ensure_ascii=False) + "\n"


MARKS = str.maketrans({**{c: "\\" + c for c in "\\`*_|[]#~"}, "<": "&lt;", ">": "&gt;", "@": "&#64;"})


def md(text: str) -> str:
    return text.translate(MARKS)


def as_markdown(report: Report) -> str:
    """Short enough for two in a forge's comment. What tells most is taken first, as long as there is room:
    errors, rows with a finding, notes, diffs, the other rows."""
    sign = {GOOD: "✅ ", BAD: "❌ ", DOUBT: "⚠️ ", PLAIN: ""}
    top = [f"### {md(clean(report.title))}", ""]
    head = ["| " + " | ".join(report.columns) + " |", "|" + " --- |" * len(report.columns)]
    end = ["", md(report.summary), ""]
    room = ROOM - sum(len(line.encode()) + 1 for line in (*top, *head, *end, " " * 200))

    def said(f: Finding) -> str:
        where = f"`{clean(f.where).replace('`', '')}`: " if f.where else ""
        remedy = f". *{md(clean(f.remedy))}*" if f.remedy else ""
        return f"- **{f.level}**: {where}{md(clean(f.text)[:2000])}{remedy}"

    def taken(parts: Sequence[str]) -> list[str]:
        nonlocal room
        for n, part in enumerate(parts):
            room -= len(part.encode()) + 1
            if room < 0:
                room += len(part.encode()) + 1
                return list(parts[:n])
        return list(parts)

    told = {f.where for f in report.findings}
    rows = [f"| {' | '.join(sign[c.mood] + md(clean(c.text)) for c in row)} |" for row in report.rows]
    marked = [n for n, key in enumerate(report.keys) if key in told]
    others = [n for n, key in enumerate(report.keys) if key not in told]
    diffs = ["\n".join(["", f"<details><summary>{md(clean(where))}</summary>", "", "````diff",
                        *(clean_line(x).replace("`" * 4, "'" * 4) for x in lines), "````", "</details>"])
             for where, lines in report.diffs.items()]
    findings = taken([said(f) for f in sorted(report.findings, key=lambda f: f.level != "error")])
    shown = marked[:len(taken([rows[n] for n in marked]))]
    notes = taken([said(f) for f in report.notes])
    looked = taken(diffs)
    shown += others[:len(taken([rows[n] for n in others]))]
    left = ", ".join(f"{all_of - n} {what}" for what, all_of, n in (
        ("rows", len(rows), len(shown)), ("findings", len(report.findings), len(findings)),
        ("notes", len(report.notes), len(notes)), ("diffs", len(diffs), len(looked))) if n < all_of)
    table_of = [*head, *(rows[n] for n in sorted(shown)), ""] if shown else []
    return "\n".join([*top, *table_of, *findings, *notes, *looked, "",
                      *([f"*Left out for length: {left}.*", ""] if left else []), *end[1:]])


def as_box(report: Report) -> str:
    """The box table and the E: lines of the bot that came before."""
    cells = [list(report.columns), *([clean(c.text) for c in row] for row in report.rows)]
    wide = [max(width(row[i]) for row in cells) for i in range(len(report.columns))]
    rule = "+" + "+".join("-" * (w + 2) for w in wide) + "+"
    out = [rule]
    for row in cells:
        out.append("| " + " | ".join(fit(text, w) for text, w in zip(row, wide)) + " |")
        out += [rule] * (row is cells[0])
    out += [rule] * bool(report.rows)
    for f in sorted(report.findings, key=lambda f: f.level != "error"):
        name, _, subject = clean(f.where).partition(" ")
        where = f'{name} ("{subject}"): ' if f.where else ""
        text = "diff MISMATCH with lore patch (add [Author: reason] annotation if intentional)" \
            if f.kind == "MISMATCH" else clean(f.text)
        out.append(f"{f.level[0].upper()}: {where}{text}")
    return "\n".join(out) + "\n"


def as_junit(report: Report) -> str:
    own: dict[str, list[Finding]] = {}
    for f in [*report.findings, *report.notes]:
        own.setdefault(f.where, []).append(f)
    keys = [*report.keys, *(where for where in own if where not in report.keys)]
    root = ET.Element("testsuites")
    suite = ET.SubElement(root, "testsuite", name=clean(report.title), tests=str(len(keys)), errors="0")
    failures = 0
    for key in keys:
        case = ET.SubElement(suite, "testcase", classname=report.columns[0],
                             name=clean(key or "the whole run"))
        found = own.pop(key, [])
        for tag, levels in (("failure", ("error",)), ("system-out", ("warning", "note"))):
            told = [f for f in found if f.level in levels]
            if told:
                node = ET.SubElement(case, tag)
                level = levels[0]
                diff = report.diffs.get(key, []) if tag == "failure" else []
                node.text = "\n".join([*(f"{clean(f.text)}; {clean(f.remedy)}" for f in told),
                                       *map(clean_line, diff)])
                if level == "error":
                    failures += 1
                    node.attrib.update(type=told[0].kind, message=clean(told[0].text))
    suite.set("failures", str(failures))
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def as_tsv(report: Report) -> str:
    rows = [list(report.columns)] + [[clean(c.text) for c in row] for row in report.rows]
    return "".join("\t".join(r) + "\n" for r in rows)


def render(report: Report, form: str, colour: str, out: object = None) -> str:
    tty = out is None and sys.stdout.isatty()
    paint = colour == "always" or (colour == "auto" and tty and "NO_COLOR" not in os.environ
                                   and os.environ.get("TERM") != "dumb")
    given = os.environ.get("COLUMNS", "")
    room = shutil.get_terminal_size((0, 24)).columns if tty or given.isdigit() else 0
    if form == "table":
        return as_text(report, room, paint)
    return FORMATS[form](report)


FORMATS: dict[str, Callable[[Report], str]] = {
    "table": as_text, "plain": as_text, "json": as_json, "markdown": as_markdown, "junit": as_junit,
    "tsv": as_tsv, "box": as_box}


def progress(text: str) -> None:
    """One redrawn line on a terminal, nothing in a log."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K" + fit(text, min(width(text), shutil.get_terminal_size().columns - 1))
                         if text else "\r\033[K")
        sys.stderr.flush()
