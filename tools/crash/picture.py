# SPDX-License-Identifier: GPL-2.0-only
"""The time from panic to vmcore as a chart, and the page with it and all that a run says.

The trace reader has counted the accesses by slots of 50 ms (trace.py). Each device has a lane: up goes
what survives, down what is lost. All lanes of both kernels have the same scales.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..results import Report, clean, grid, text_of
from .judge import Judgement
from .scenario import DEVICES
from .trace import (ADOPTED, BEFORE, BYPASSED, DISABLED, EVENTS, FAULTS, LEAD, SLOT_US, TAKEN, TRANSLATED,
                    WINDOW)

SLOT = SLOT_US / 1e6
LONGEST = 30.0                  # seconds after the panic that are drawn at most
LATE = 5.0                      # seconds after the probe: a take-over then does not widen the picture
REST = 0.22                     # of the width, for what comes after the last take-over
WIDTH, LEFT, RIGHT = 10.0, 1.8, 1.2     # inches, as all sizes of the figure
TALL, LOW, MANY = 0.72, 0.5, 4  # a lane; a lane where there are more than MANY
GAP, ROW, HEAD, TITLE, FOOT = 0.05, 0.16, 0.07, 0.3, 1.0
DARK = "#222222"
AFTER = (WINDOW, ADOPTED, TAKEN)        # phases between panic and shutdown


@dataclass(frozen=True)
class Outcome:
    label: str
    short: str                  # beside its number; "": it is not told there
    colour: str                 # of Okabe and Ito's palette, which colour-blind readers can tell apart
    up: bool
    hatch: str = ""


OUTCOMES = {
    "kept": Outcome("translated for the crashed kernel", "translated", "#0072B2", True),
    "identity": Outcome("bypassing, as before the panic", "bypassing", "#009E73", True, "////"),
    "own": Outcome("the crash kernel's own", "", "#56B4E9", True),
    "aborted": Outcome("aborted", "aborted", "#D55E00", False),
    "faulted": Outcome("faulted", "faulted", "#E69F00", False, "////"),
    "bypassed": Outcome("bypassed", "bypassed", "#CC79A7", False, "xxxx"),
    "misdirected": Outcome("misdirected", "misdirected", "#000000", False),
}
STYLES = {"panic": "-", "crash kernel": (0, (1, 1.5)), "SMMU probe": (0, (5, 2)), "vmcore": "-"}
Slots = dict[str, dict[int, int]]       # outcome -> slot -> accesses
Lanes = dict[int, Slots]                # StreamID -> …


def outcome(stream: Mapping[str, Any], phase: str, which: str) -> str:
    """What the picture makes of one of the trace reader's counts."""
    if which in (EVENTS, FAULTS):
        return "faulted"
    if phase == TAKEN and which in (TRANSLATED, BYPASSED):
        return "own"
    usual = next((one for one in (TRANSLATED, BYPASSED, DISABLED) if stream[BEFORE][one]), TRANSLATED)
    if which == usual != TRANSLATED:
        return "identity"
    return {TRANSLATED: "kept", BYPASSED: "bypassed", DISABLED: "bypassed"}.get(which, which)


def lanes(run: Judgement, phases: Sequence[str] = (BEFORE, *AFTER)) -> Lanes:
    """The accesses of each device, until the shutdown."""
    found: Lanes = {}
    for stream in run.trace.get("streams", ()):
        lane: Slots = found.setdefault(stream["sid"], {})
        for phase, counts in stream["slots"].items():
            if phase not in phases:
                continue
            for which, slots in counts.items():
                into = lane.setdefault(outcome(stream, phase, which), {})
                for slot, number in slots.items():
                    # A fault is an event, a guest error or both, as in the judge's count.
                    other = counts.get(EVENTS, {}).get(slot, 0) if which == FAULTS else 0
                    into[slot] = into.get(slot, 0) + max(number - other, 0)
    return found


def name(sid: int) -> str:
    return f"{DEVICES.get(sid, 'StreamID')} {sid:#x}"


# --- the chart


@dataclass
class Scale:
    """What all lanes have in common."""
    sids: list[int]
    bend: float                 # seconds after the panic from which on time is drawn narrower
    end: float
    up: int                     # accesses in a slot
    down: int

    def x(self, seconds: float) -> float:
        """Where a time stands, in bent seconds."""
        return seconds if seconds < self.bend else self.bend + (seconds - self.bend) / self.faster

    @property
    def faster(self) -> float:
        """How much narrower."""
        wide = self.bend + LEAD * SLOT
        return max((self.end - self.bend) / (wide / (1 - REST) - wide), 1.0) if self.end > self.bend else 1.0


def scale(runs: Sequence[Judgement]) -> Scale:
    every = [lanes(run) for run in runs]
    busy = {sid for found in every for sid, slots in found.items()
            if any(slot >= 0 for counts in slots.values() for slot in counts)}
    heights = {up: max((number for found in every for slots in found.values() for key, counts in slots.items()
                        if OUTCOMES[key].up is up for number in counts.values()), default=0)
               for up in (True, False)}
    ends, bends = [1.0], [0.5]
    for run in runs:
        panic = run.milestones["panic"]
        probe = run.milestones.get("SMMU probe", panic)
        bends += [probe - panic, *(when - panic for stream in run.trace["streams"]
                                   if (when := stream["take_over"]) and when < probe + LATE)]
        ends.append(max(run.milestones.values()) - panic)
    ends += [(max(counts) + 1) * SLOT for found in every for slots in found.values()
             for counts in slots.values()] + bends
    end = min(max(ends) + 2 * SLOT, LONGEST)
    bend = min(math.ceil(max(bends) * 4 + 1) / 4, end)
    return Scale(sorted(busy | DEVICES.keys()), bend if end > 1.3 * bend else end, end,
                 heights[True], heights[False])


def bars(slots: Slots) -> dict[str, list[tuple[float, float, float]]]:
    """(from, to, height): outcomes of one slot and one direction share its width."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for up in (True, False):
        keys = [key for key in OUTCOMES if key in slots and OUTCOMES[key].up is up]
        for slot in sorted({slot for key in keys for slot in slots[key]}):
            here = [key for key in keys if slots[key].get(slot)]
            for place, key in enumerate(here):
                begin, width = slot * SLOT, SLOT / len(here)
                found.setdefault(key, []).append((begin + place * width, begin + (place + 1) * width,
                                                  slots[key][slot] * (1 if up else -1)))
    return found


def outline(spans: Sequence[tuple[float, float, float]]) -> list[list[tuple[float, float]]]:
    """The polygons around the bars, one for each group of bars that touch."""
    found: list[list[tuple[float, float]]] = []
    last = -math.inf
    for begin, end, height in spans:
        if abs(begin - last) > 1e-9:
            found.append([(begin, 0.0), (begin, 0.0)])
        found[-1][-1:] = [(begin, height), (end, height), (end, 0.0)]
        last = end
    return found


class Chart:
    """A figure, filled from the top down."""

    def __init__(self, runs: Mapping[str, Judgement], common: Scale) -> None:
        import matplotlib
        from matplotlib.figure import Figure
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "smmuv3-kdump", "font.size": 8,
                                    "text.parse_math": False, "hatch.linewidth": 0.5, "axes.linewidth": 0.5,
                                    "font.sans-serif": ["DejaVu Sans", "sans-serif"]})
        self.scale = common
        self.lane = LOW if len(common.sids) > MANY else TALL
        self.shown: set[str] = set()
        self.rows = {which: self.stagger(run) for which, run in runs.items()}
        self.height = FOOT + sum(TITLE + bool(rows) * (self.head(rows) + ROW
                                                       + (self.lane + GAP) * len(common.sids))
                                 for rows in self.rows.values())
        self.figure = Figure(figsize=(WIDTH, self.height), facecolor="white")
        self.top = self.height
        for which, run in runs.items():
            self.title(which, run)
            if run.milestones:
                self.panel(which, run)
        self.legend()

    @property
    def per_inch(self) -> float:
        """Bent seconds."""
        return (self.scale.x(self.scale.end) + LEAD * SLOT) / (WIDTH - LEFT - RIGHT)

    def stagger(self, run: Judgement) -> list[tuple[str, str, float, int]]:
        """(mark, label, bent seconds, row above the lanes): no label lies on another or on its line."""
        panic = run.milestones.get("panic", 0.0)
        found: list[tuple[str, str, float, int]] = []
        for mark, when in reversed(run.milestones.items()):
            label = mark if mark == "panic" else f"{mark} {when - panic:.2f} s"
            at = self.scale.x(min(when - panic, self.scale.end))
            width = (len(label) * 0.068 + 0.1) * self.per_inch
            taken = [row for _, _, other, row in found if other < at + width]
            found.append((mark, label, at, next(row for row in itertools.count() if row not in taken)))
        return found

    def axes(self, height: float, below: float) -> Any:
        self.top -= height + below
        return self.figure.add_axes((LEFT / WIDTH, (self.top + below) / self.height,
                                     (WIDTH - LEFT - RIGHT) / WIDTH, height / self.height))

    @staticmethod
    def head(rows: Sequence[tuple[str, str, float, int]]) -> float:
        """Height of the marks' labels."""
        return HEAD + ROW * (max(row for *_, row in rows) + 1) if rows else 0.0

    def title(self, which: str, run: Judgement) -> None:
        said = f"{which}: {run.verdict}" + f" ({run.why})" * bool(run.why)
        said += "" if run.milestones else ": nothing to draw"
        self.figure.text(0.1 / WIDTH, (self.top - 0.2) / self.height, textwrap.shorten(clean(said), 100),
                         size=10, weight="bold", color=DARK)
        self.top -= TITLE

    def panel(self, which: str, run: Judgement) -> None:
        """One kernel."""
        common, rows = self.scale, self.rows[which]
        self.top -= self.head(rows)
        middle = self.top - (self.lane + GAP) * len(common.sids) / 2
        self.figure.text(0.1 / WIDTH, middle / self.height, "accesses per 50 ms (log)", rotation=90,
                         ha="left", va="center", color=DARK)
        found, told = lanes(run), lanes(run, AFTER)
        for sid in common.sids:
            lane = self.axes(self.lane, GAP)
            self.prepare(lane, sid)
            stream = next((one for one in run.trace["streams"] if one["sid"] == sid), None)
            for key, spans in bars(found.get(sid, {})).items():
                self.draw(lane, f"{which}-{sid:#x}-{key}", key, spans)
            for mark, label, at, row in rows:
                self.mark(lane, mark, at, HEAD + (row + 1) * ROW if sid == common.sids[0] else 0.0, label)
            taken = stream and stream["take_over"]
            when = taken - run.milestones["panic"] if taken else math.inf
            if when <= common.end:
                at = common.x(when)
                lane.plot([at, at], [0, 1], color=DARK, lw=0.8, transform=lane.get_xaxis_transform(),
                          marker="v", markevery=[1], ms=5, clip_on=False, gid=f"{which}-{sid:#x}-take-over")
            self.sums(lane, told.get(sid, {}))
        self.ticks(lane)
        self.top -= ROW

    def prepare(self, lane: Any, sid: int) -> None:
        common = self.scale
        lane.set_yscale("symlog", linthresh=1, linscale=1)
        lane.set_xlim(-LEAD * SLOT, common.x(common.end))
        lane.set_ylim(-max(common.down, 1) * 2, max(common.up, 1) * 2)
        lane.patch.set_visible(False)
        lane.minorticks_off()
        places = [sign * 10**power for power in (1, 3, 5) for sign in (1, -1)
                  if 10**power <= (common.up if sign > 0 else common.down)]
        lane.set_yticks([0, *places], ["0", *(f"{abs(place):,}" for place in places)], size=6, color=DARK)
        lane.tick_params(length=2, width=0.5)
        lane.set_xticks([])
        lane.axhline(0, color=DARK, lw=0.5)
        lane.set_axisbelow(True)
        for side in ("top", "right", "bottom"):
            lane.spines[side].set_visible(False)
        if common.faster > 1:
            lane.axvspan(common.bend, common.x(common.end), color="#f2f2f2", lw=0, zorder=0)
        lane.text(-0.06, 0.5, name(sid), transform=lane.transAxes, ha="right", va="center", color=DARK)

    def draw(self, lane: Any, gid: str, key: str, spans: Sequence[tuple[float, float, float]]) -> None:
        from matplotlib import path
        from matplotlib.patches import PathPatch
        how, common = OUTCOMES[key], self.scale
        shapes = [[(common.x(x), y) for x, y in shape] for shape in
                  outline([span for span in spans if span[1] <= common.end + SLOT / 2])]
        if shapes:
            self.shown.add(key)
            whole = path.Path.make_compound_path(*(path.Path([*shape, shape[0]], closed=True)
                                                   for shape in shapes))
            lane.add_patch(PathPatch(whole, facecolor=how.colour, edgecolor="white" if how.hatch else "none",
                                     lw=0, hatch=how.hatch or None, gid=gid, zorder=2))

    def mark(self, lane: Any, mark: str, at: float, rise: float, label: str) -> None:
        """A line across a lane; above the first one it rises to its label."""
        top = 1 + (rise or GAP) / self.lane
        lane.plot([at, at], [0, top], color=DARK, lw=0.8, ls=STYLES.get(mark, ":"), clip_on=False, zorder=3,
                  transform=lane.get_xaxis_transform())
        if rise:
            lane.annotate(label, (at, top), xycoords=("data", "axes fraction"), xytext=(2, -7),
                          textcoords="offset points", color=DARK, annotation_clip=False)

    def sums(self, lane: Any, slots: Slots) -> None:
        lines = [f"{sum(slots[key].values()):,} {how.short}" for key, how in OUTCOMES.items()
                 if how.short and slots.get(key)]
        late = sum(number for key in slots if OUTCOMES[key].short for slot, number in slots[key].items()
                   if slot * SLOT >= self.scale.end)
        lines += [f"({late:,} after {LONGEST:.0f} s)"] if late else []
        lane.text(1.01, 0.5, "\n".join(lines), transform=lane.transAxes, ha="left", va="center", size=7,
                  color=DARK, linespacing=1.1)

    def ticks(self, lane: Any) -> None:
        """Of time, below the last lane of a panel."""
        common = self.scale
        step = next(step for step in (0.25, 0.5, 1, 2, 5) if common.bend / step <= 12)
        times = [number * step for number in range(int(common.bend / step) + 1)]
        if common.faster > 1:
            gap = 0.3 * self.per_inch * common.faster
            coarse = next(step for step in (0.5, 1, 2, 5, 10, 20, 60) if step >= gap)
            first = math.ceil((common.bend + gap) / coarse)
            times += [number * coarse for number in range(first, int(common.end / coarse) + 1)]
        lane.set_xticks([common.x(when) for when in times], [f"{when:g}" for when in times], size=7)

    def legend(self) -> None:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch
        entries: list[Any] = [Patch(facecolor=how.colour, edgecolor="white", lw=0, hatch=how.hatch or None,
                                    label=("↑ " if how.up else "↓ ") + how.label)
                              for key, how in OUTCOMES.items() if key in self.shown]
        entries.append(Line2D([], [], color=DARK, lw=0.8, marker="v", ms=5, label="the device's take-over"))
        said = "seconds after the panic"
        if self.scale.faster > 1:
            said += f"; on grey, time runs {self.scale.faster:.0f} times as fast"
        self.figure.text((LEFT + WIDTH - RIGHT) / 2 / WIDTH, (FOOT - 0.13) / self.height, said, color=DARK,
                         ha="center", va="center")
        self.figure.legend(handles=entries, loc="upper center", ncol=3 if len(entries) < 7 else 4,
                           frameon=False, bbox_to_anchor=(0.5, (FOOT - 0.25) / self.height),
                           title="up: what survives; down: what is lost")


def svg(runs: Mapping[str, Judgement]) -> str:
    """The chart; "" if no run has anything to draw."""
    drawn = [run for run in runs.values() if run.milestones]
    if not drawn:
        return ""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    out = io.StringIO()
    FigureCanvasSVG(Chart(runs, scale(drawn)).figure).print_svg(
        out, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    # Hundredths of a point are fine enough, and half as long.
    text = re.sub(r"(?<=\d\.\d\d)\d+", "", out.getvalue())
    return text[text.index("<svg"):]


# --- the page


CAPTION = f"""A bar stands for 50 ms, from 0.2 s before the panic until the shutdown, at most {LONGEST:.0f} s.
Heights are logarithmic and, as the time, the same in all lanes; outcomes that share a bar's time share its
width. QEMU splits an access that fails into pieces of 4 bytes: that there are some matters, not how many."""


def figures(runs: Mapping[str, Judgement]) -> list[list[object]]:
    """What the chart shows of the time after the panic, in numbers."""
    return [[which, name(sid), OUTCOMES[key].label, sum(slots.values()), max(slots.values()),
             round(min(slots) * SLOT, 2), round((max(slots) + 1) * SLOT, 2)]
            for which, run in runs.items() for sid, lane in sorted(lanes(run, AFTER).items())
            for key in OUTCOMES if (slots := lane.get(key))]


def page(report: Report, runs: Mapping[str, Judgement], picture: str, again: str) -> str:
    """All of a crash test, for Report.html."""
    why = "; ".join(f"{which}: {run.why}" for which, run in runs.items())
    chart = f"{picture}<figcaption>{CAPTION}</figcaption>" if picture else text_of(f"Nothing to draw: {why}")
    rules = [[which, result.name, result.status, result.detail]
             for which, run in runs.items() for result in run.results]
    about = report.about
    values = [[f"CONFIG_CRASH_{key.upper()}", str(value)] for key, value in about["scenario"].items()]
    return f"""<figure>{chart}</figure>
<h2>The rules</h2>
{grid(("kernel", "rule", "status", "what was found"), rules)}
<h2>The report</h2>
<pre>{text_of(report.text)}</pre>
<h2>The chart's figures</h2>
{grid(("kernel", "device", "accesses", "number", "most in 50 ms", "from s", "to s"), figures(runs))}
<h2>Again</h2>
<pre>{text_of(again)}</pre>
<p>The exact command of each machine is in <code>qemu.sh</code> of its directory.</p>
<h2>The kernels</h2>
{grid(("kernel", "which crashes", "crash kernel"),
        [[which, keys["first"], keys["crash"]] for which, keys in about["kernels"].items()])}
<p>{text_of(about["qemu"])}</p>
<h2>The scenario</h2>
{grid(("name", "value"), values)}
"""


def draw(directory: Path, report: Report, runs: Mapping[str, Judgement], again: str) -> None:
    """The chart into the report's page, and alone as picture.svg."""
    picture = svg(runs)
    report.html = page(report, runs, picture, again)
    if picture:
        (directory / "picture.svg").write_text(picture)
