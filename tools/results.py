# SPDX-License-Identifier: GPL-2.0-only
"""One result for whatever is judged (a rule, a unit test, a cell of the gate), and its reports.

A verb makes a Report of Results; this is the only place that writes JUnit, KTAP, JSON and tables,
and that makes the directory of a run.
"""

from __future__ import annotations

import dataclasses
import enum
import fcntl
import html
import json
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from . import common
from .common import beside, cache_dir, full

KEEP = 12                       # runs of one verb on one base that are kept
PLAN = "plan.json"              # of a run that goes on after an interruption
RUNNING = ".running"            # in a run's directory: locked while the run goes on
COLOURS = {"PASS": 32, "FAIL": 31, "INVALID": 33, "ENVIRONMENT": 33, "LOST": 35}


class Status(enum.StrEnum):
    """In the order of their weight: the heaviest one of a run is its verdict."""
    SKIPPED = "SKIPPED"
    PASS = "PASS"
    ENVIRONMENT = "ENVIRONMENT"     # it could not be run here: neither passed nor failed
    INVALID = "INVALID"             # it ran and proved nothing
    FAIL = "FAIL"
    LOST = "LOST"                   # the virtual machine died

    @property
    def weight(self) -> int:
        return list(Status).index(self)

    @property
    def code(self) -> int:
        """The exit code of a verb with this verdict."""
        return common.PASS if self is Status.SKIPPED else int(getattr(common, self.name))


def failure(err: common.Err) -> Status:
    """What an error makes of the result that it took the place of."""
    return next((status for status in Status if status.code == err.code != common.PASS), Status.FAIL)


@dataclass(frozen=True)
class Result:
    suite: str
    name: str
    status: Status
    detail: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def worst(results: Iterable[Result]) -> Status:
    """Nothing judged proves nothing."""
    statuses = {result.status for result in results}
    return max(statuses, key=lambda status: status.weight) if statuses - {Status.SKIPPED} else Status.INVALID


def count(results: Iterable[Result]) -> Counter[Status]:
    return Counter(result.status for result in results)


def counted(results: Sequence[Result]) -> str:
    """"3 passed, 1 failed, 2 skipped": whatever did not pass and was not skipped failed."""
    found = count(results)
    passed, skipped = found[Status.PASS], found[Status.SKIPPED]
    text = f"{passed} passed, {len(results) - passed - skipped} failed"
    return text + f", {skipped} skipped" * bool(skipped)


@dataclass
class Report:
    """What a verb found. `control` are results of a control run, which do not count in the verdict."""
    verb: str
    subject: str                # the base and what else tells this report from another
    results: list[Result]
    about: dict[str, Any] = field(default_factory=dict)     # what it was made with
    control: list[Result] = field(default_factory=list)
    text: str = ""              # the table for people
    html: str = ""              # what report.html shows in place of it
    stages: list[tuple[str, float]] = field(default_factory=lambda: list(common.STAGES))

    @property
    def verdict(self) -> Status:
        return worst(self.results)

    @property
    def why(self) -> str:
        """The first result that has the verdict, if that is not PASS."""
        if self.verdict is Status.PASS:
            return ""
        first = next((result for result in self.results if result.status is self.verdict), None)
        return f"{first.name}: {first.detail}".splitlines()[0] if first else "nothing was judged"

    def write(self, directory: Path) -> None:
        """All forms into the directory of the run; result.json, the last one, says that all are there."""
        for name, text in (("table.txt", self.text.rstrip() + "\n"), ("result.ktap", as_ktap(self)),
                           ("junit.xml", as_junit(self)), ("report.html", as_html(self)),
                           ("result.json", as_json(self))):
            common.write(directory / name, text)

    def show(self, directory: Path, more: str = "") -> int:
        """Write all forms, print the table and where they are; the verb's exit code."""
        self.write(directory)
        print(paint(self.text.rstrip(), self.verdict) if sys.stdout.isatty() else self.text.rstrip())
        files = f"table.txt  report.html  result.json  junit.xml  result.ktap  {more}".rstrip()
        print(f"\nreports in {directory}\n  {files}")
        return self.verdict.code


def as_json(report: Report) -> str:
    values = dataclasses.asdict(dataclasses.replace(report, html=""))
    return json.dumps({"verdict": report.verdict, "why": report.why, **values}, indent=2, default=str) + "\n"


def as_ktap(report: Report) -> str:
    """What proved nothing is "not ok", too: a green line must mean something."""
    out = ["KTAP version 1", f"# {report.verb} {report.subject}", f"1..{len(report.results)}"]
    for number, result in enumerate(report.results, 1):
        skipped = result.status is Status.SKIPPED
        out += [f"# {line}" for line in result.detail.splitlines() if not skipped]
        ok = "ok" if skipped or result.status is Status.PASS else "not ok"
        out.append(f"{ok} {number} {result.suite}.{result.name}".replace("#", "")
                   + (f" # SKIP {result.detail}" if skipped else ""))
    return "\n".join(out) + "\n"


def as_junit(report: Report) -> str:
    found = count(report.results)
    errors = sum(found[status] for status in (Status.ENVIRONMENT, Status.INVALID, Status.LOST))
    top = ElementTree.Element("testsuite", {
        "name": f"{report.verb}.{report.subject}", "tests": str(len(report.results)),
        "failures": str(found[Status.FAIL]), "errors": str(errors), "skipped": str(found[Status.SKIPPED]),
        "time": f"{sum(result.seconds for result in report.results):.1f}"})
    for result in report.results:
        case = ElementTree.SubElement(top, "testcase", {
            "classname": f"{report.verb}.{report.subject}.{result.suite}", "name": result.name,
            "time": f"{result.seconds:.3f}"})
        first = clean(result.detail.split("\n")[0])
        if result.status is Status.SKIPPED:
            ElementTree.SubElement(case, "skipped", {"message": first})
        elif result.status is not Status.PASS:
            kind = "failure" if result.status is Status.FAIL else "error"
            child = ElementTree.SubElement(case, kind, {"type": result.status, "message": first})
            child.text = clean(result.detail)
        elif result.detail:
            ElementTree.SubElement(case, "system-out").text = clean(result.detail)
    ElementTree.indent(top)
    return ElementTree.tostring(top, encoding="unicode", xml_declaration=True) + "\n"


STYLE = """
body { font: 15px/1.4 sans-serif; color: #222; max-width: 72em; margin: 1em auto; padding: 0 1em }
figure { margin: 1em 0 } svg { width: 100%; height: auto } figcaption { font-size: 90% }
table { border-collapse: collapse } th, td { text-align: left; vertical-align: top; padding: .2em .7em }
th, td { border-bottom: 1px solid #ccc } td.text { white-space: pre-wrap } td.number { text-align: right }
pre { overflow-x: auto }
.PASS { color: #006b4f } .FAIL, .LOST { color: #a63c00; font-weight: bold } .INVALID { color: #7a5200 }
"""


def text_of(value: object) -> str:
    """For HTML and SVG."""
    return html.escape(clean(str(value)))


def grid(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """An HTML table: numbers to the right, a Status in its colour."""
    def cell(value: object) -> str:
        kind = "number" if isinstance(value, (int, float)) else value if isinstance(value, Status) else "text"
        return f'<td class="{kind}">{text_of(value)}</td>'
    top = "".join(f"<th>{text_of(word)}</th>" for word in head)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>\n" for row in rows)
    return f"<table><tr>{top}</tr>\n{body}</table>\n"


def as_html(report: Report) -> str:
    """A page that is XML, too, and needs nothing from elsewhere."""
    title = text_of(f"{report.verb} of {report.subject}")
    rows = [[f"{row.suite} {row.name}", row.status, round(row.seconds, 1), row.detail]
            for row in report.results]
    body = report.html or (f"{grid(('what', 'status', 's', 'detail'), rows)}<h2>The report</h2>\n"
                           f"<pre>{text_of(report.text)}</pre>\n")
    return f"""<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" lang="en"><head><meta charset="utf-8"/>
<title>{title}: {report.verdict}</title><style>{STYLE}</style></head><body>
<h1>{title}: <span class="{report.verdict}">{report.verdict}</span></h1>
{body}</body></html>
"""


def from_junit(path: Path, suite: str) -> list[Result]:
    """The results in another tool's JUnit file (pytest's)."""
    found = []
    for case in ElementTree.parse(path).iter("testcase"):
        tags = {child.tag: child.get("message", "") for child in case}
        bad = next((tag for tag in ("failure", "error") if tag in tags), "")
        status = Status.FAIL if bad else Status.SKIPPED if "skipped" in tags else Status.PASS
        found.append(Result(suite, f"{case.get('classname')}.{case.get('name')}", status,
                            tags.get(bad or "skipped", ""), seconds=float(case.get("time", 0))))
    return found


def clean(text: str) -> str:
    """Without what XML has no characters for."""
    return re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd]", "?", text)


def table(rows: Sequence[Sequence[str]], left: int = 1, gap: str = "  ") -> str:
    """Rows of cells as aligned columns, the first `left` to the left, the others to the right.

    A row of one cell is a line of its own; an empty row is a rule."""
    wide = [row for row in rows if len(row) > 1]
    widths = [max(len(row[column]) for row in wide if column < len(row))
              for column in range(max(map(len, wide), default=0))]
    out = []
    for row in rows:
        cells = [cell.ljust(width) if column < left else cell.rjust(width)
                 for column, (cell, width) in enumerate(zip(row, widths))]
        out.append(gap.join(cells).rstrip() if len(row) > 1 else row[0] if row else
                   "-" * (sum(widths) + len(gap) * (len(widths) - 1)))
    return "\n".join(out) + "\n"


def paint(text: str, verdict: Status) -> str:
    """The verdict, in the last line that names it, in colour."""
    head, found, rest = text.rpartition(f"\n{verdict}")
    return f"{head}\n\033[1;{COLOURS.get(verdict, 0)}m{verdict}\033[0m{rest}" if found else text


_HELD: dict[Path, int] = {}


def hold(directory: Path) -> bool:
    """Mark the directory of a run as in use, until release() or the end of this process and its children.

    No, if somebody else has. For who holds the lock of the directory above."""
    handle = os.open(directory / RUNNING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    _HELD[directory] = handle
    return True


def release(directory: Path) -> None:
    """The run is over: its directory is one of the old ones."""
    if directory in _HELD:
        handle = _HELD.pop(directory)
        fcntl.flock(handle, fcntl.LOCK_UN)      # children have it, too
        os.close(handle)


def run_directory(verb: str, base: str, space: int = 0) -> Path:
    """A new directory for a run that needs so many bytes; `latest` names it, the oldest ones go.

    It is held. Those of other runs that go on stay, however many they are."""
    top = cache_dir("runs", verb, base)
    with common.lock(top / ".lock"):
        old = sorted((path for path in top.iterdir() if re.match(r"\d{8}-\d{6}", path.name)),
                     key=lambda path: path.stat().st_mtime_ns)
        # What is to go on is not pushed out by repeats of its rows.
        halves = [path for path in old if (path / PLAN).exists() and not (path / "result.json").exists()]
        for some in halves, [path for path in old if path not in halves]:
            for path in some[:max(len(some) - KEEP + 1, 0)]:
                if hold(path):
                    shutil.rmtree(path, ignore_errors=True)
                    release(path)
        free = shutil.disk_usage(top).free
        if free < space:
            raise full(f"{top} has {free >> 20} MiB, a run needs {space >> 20}")
        stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        names = [stem, *(f"{stem}.{number}" for number in range(1, 1000))]
        new = top / next(name for name in names if not (top / name).exists())
        new.mkdir()
        hold(new)
        with beside(top / "latest") as link:
            link.symlink_to(new.name)
    return new
