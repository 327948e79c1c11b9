# SPDX-License-Identifier: GPL-2.0-only
"""make bench: what the series costs, as ratios.

    time      of the adoption, against reading the same bytes of table once, in one boot. It is
              counted in instructions, of which an emulated processor gives the same number every
              time; its clock would show what else the machine was doing, and its TLB
    memory    of the crash kernel, unpatched and patched, in one crash test
    size      of the driver's object, with and without CONFIG_CRASH_DUMP; prereq/ does not count
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import machine, results
from ..common import FAIL, LOST, Err, run, stage
from ..queue import config, status
from ..queue.store import Store, is_own
from ..results import Report, Result, Status, run_directory
from . import build, gate, kunit

SUITE = "smmu-kdump-bench"
# The machine has 2 GiB from 1 GiB on; the kernel is told of the first quarter only.
MEMORY, ARENA = "2G", ["mem=512M", "smmu_kdump_bench.arena=0x60000000"]
MACHINE = ["-smp", "1", "-icount", "shift=0"]      # a nanosecond is an instruction
MAX_RATIO = 3.0                 # what a stream more adds to the adoption, against what it adds to the reading
MANY = 1024                     # streams from which on what they add is well above the clock's noise
MAX_GROWTH = 1.5                # of that ratio with the number of streams: linear
OBJECT = "drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.o"
BOTH = ("unpatched", "patched")

Memory = Mapping[str, Mapping[str, int]]    # "unpatched", "patched" -> "available_kib", "queues_kib"


@dataclass
class Time:
    streams: int
    stride: int
    bytes: int
    read_ns: int
    adopt_ns: int

    @property
    def ratio(self) -> float:
        return self.adopt_ns / self.read_ns

    def each(self, one: Time) -> float:
        """The ratio of what the streams add, to a table with one stream."""
        return (self.adopt_ns - one.adopt_ns) / max(self.read_ns - one.read_ns, 1)


@dataclass
class Size:
    text: int
    data: int
    bss: int

    @property
    def total(self) -> int:
        return self.text + self.data + self.bss


PARTS = tuple(part.name for part in dataclasses.fields(Size))


def times(log: str) -> list[Time]:
    found = []
    for line in re.findall(r"bench: (streams=.*)$", log, re.MULTILINE):
        found.append(Time(**{name: int(value) for name, value in re.findall(r"(\w+)=(-?\d+)", line)}))
    if any(time.read_ns <= 0 or time.adopt_ns <= 0 for time in found):
        raise Err("the benchmark's clock stood still", "run the same command again")
    return found


def judge_times(found: list[Time]) -> list[Result]:
    judged = []
    for stride in sorted({time.stride for time in found}):
        row = sorted((time for time in found if time.stride == stride), key=lambda time: time.streams)
        many = {time.streams: time.each(row[0]) for time in row if time.streams >= MANY}
        for streams, each in many.items():
            judged.append(_goal("time", f"{streams} streams, CDs {stride} bytes apart", each <= MAX_RATIO,
                                f"a stream costs {each:.2f} times its reading, goal {MAX_RATIO:.0f}"))
        if many:
            few, most = many[min(many)], many[max(many)]
            judged.append(_goal("time", f"linear, CDs {stride} bytes apart", most <= MAX_GROWTH * few,
                                f"a stream costs {few:.2f} times its reading among {min(many)}, {most:.2f} "
                                f"times among {max(many)}; above {MAX_GROWTH} times as much is not linear"))
    return judged


def _goal(suite: str, name: str, met: bool, detail: str) -> Result:
    return Result(suite, name, Status.PASS if met else Status.FAIL, detail)


def measure_times(base: str, where: Path) -> list[Time]:
    built = build.build(base)
    there = kunit.reader(Store(base))
    with stage(f"timing the adoption on {base}") as step:
        found = kunit.boot(built.image, where, there, f"{SUITE}*", ARENA, MEMORY, MACHINE, step.update)
    ended = results.worst(found.results())
    if ended is not Status.PASS:
        said = kunit.table(base, built.release, found.results())
        raise Err(f"the benchmark did not run to its end:\n{said}", f"see {where}/{machine.CONSOLE}",
                  LOST if ended is Status.LOST else FAIL)
    measured = times((where / machine.CONSOLE).read_text(errors="replace"))
    if not measured:
        raise Err("the benchmark printed nothing", f"see {where}/{machine.CONSOLE}", FAIL)
    return measured


def own(queue: list[Path]) -> list[tuple[int, int]]:
    """The stretches of the queue that are the series itself, as numbers of patches before and after each."""
    count, found = 0, []
    for series, patches in itertools.groupby(queue, key=is_own):
        before, count = count, count + len(list(patches))
        if series:
            found.append((before, count))
    return found


def measure_sizes(base: str) -> dict[str, dict[str, Size]]:
    """Of the object as users build it, without the unit tests; what prereq/ adds is not the series'."""
    store = Store(base)
    queue = store.queue()
    with store.lock():
        commits = store.commits(store.source(), queue)
    needed = sorted({0, *itertools.chain(*own(queue))})
    found: dict[str, dict[str, Size]] = {"unpatched": {}, "patched": {}}
    for crash_dump in ("y", "n"):
        sizes = {count: measure_size(store, commits[count], crash_dump, count) for count in needed}
        grown = [Size(*(getattr(sizes[after], part) - getattr(sizes[before], part) for part in PARTS))
                 for before, after in own(queue)]
        found["unpatched"][crash_dump] = sizes[0]
        sums = (sum(getattr(size, part) for size in (sizes[0], *grown)) for part in PARTS)
        found["patched"][crash_dump] = Size(*sums)
    return found


def measure_size(store: Store, commit: str, crash_dump: str, count: int) -> Size:
    """Of the object at this commit, which has so many patches."""
    obj = store.here / "obj-bench"
    log = obj.with_suffix(".log")
    off = gate.CONFIGS["KUNIT=n"] + (gate.CONFIGS["CRASH_DUMP=n"] if crash_dump == "n" else [])
    what = f"the object with {count} patches, CRASH_DUMP={crash_dump}"
    with store.lock(), build.objects(obj), stage(what) as step:
        store.check_out(commit)
        log.write_text("")
        build.configure(step, store, obj, build.fragments(changed=off), log)
        cmd, env = build.make(store, obj, OBJECT)
        build.run_make(step, cmd, env, log, 0)
        words = run([f"{build.CROSS}size", obj / OBJECT]).stdout.splitlines()[1].split()
    return Size(*map(int, words[:3]))


def page(base: str, measured: list[Time], used: Memory, sizes: dict[str, dict[str, Size]]) -> str:
    """The three tables."""
    rows = [["streams", "CDs apart", "bytes", "reading", "adoption", "ratio", "a stream"]]
    for time in measured:
        one = next(first for first in measured if first.stride == time.stride)
        each = f"{time.each(one):.2f}" if time.streams > one.streams else "-"
        counts = (time.streams, time.stride, time.bytes, time.read_ns, time.adopt_ns)
        rows.append([*map(str, counts), f"{time.ratio:.2f}", each])
    out = [f"bench {base}", "",
           "adoption of a two-level stream table, against reading its bytes once, in instructions", "",
           results.table(rows, left=0),
           "ratio: of the whole; a stream: of what the streams add to a table with one. Reading is through",
           "one mapping that is there already; the adoption makes its own, and zeroes and counts a bitmap",
           "of ASIDs.", ""]
    rows = [["memory of the crash kernel, KiB", *BOTH, "change"]]
    labels = {"available_kib": "MemAvailable", "queues_kib": "queues that the driver allocated"}
    rows += [_change(label, [used[which][key] for which in BOTH]) for key, label in labels.items()]
    rows += [["arm-smmu-v3.o, bytes", *BOTH, "change"]]
    rows += [_change(f"CRASH_DUMP={option}, {part}", [getattr(sizes[which][option], part) for which in BOTH])
             for option in ("y", "n") for part in PARTS]
    return "\n".join([*out, results.table(rows)])


def _change(label: str, pair: list[int]) -> list[str]:
    return [label, *map(str, pair), f"{pair[1] - pair[0]:+}"]


def judge(measured: list[Time], used: Memory, sizes: dict[str, dict[str, Size]]) -> list[Result]:
    old, new = (used[which] for which in BOTH)
    grown = sizes["patched"]["n"].total - sizes["unpatched"]["n"].total
    return [*judge_times(measured),
            _goal("memory", "queues", new["queues_kib"] < old["queues_kib"],
                  f"the queues take {old['queues_kib']} KiB, patched {new['queues_kib']}; goal: less"),
            _goal("memory", "available", new["available_kib"] > old["available_kib"],
                  f"{old['available_kib']} KiB are available, patched {new['available_kib']}; goal: more"),
            _goal("size", "without CONFIG_CRASH_DUMP", grown <= 0,
                  f"the object grows by {grown} bytes without CONFIG_CRASH_DUMP, goal 0")]


def main(crash_memory: Callable[[str], Memory]) -> int:
    """make bench; `crash_memory` runs a crash test and gives the memory of both crash kernels."""
    base = config.load().base
    where = run_directory("bench", base)
    begun = status.begin(base, "bench")
    sizes = measure_sizes(base)
    measured = measure_times(base, where)
    used = crash_memory(base)
    judged = judge(measured, used, sizes)
    report = Report("bench", base, judged, {"times": measured, "memory": used, "size": sizes})
    missed = (f"\n{result.status} {result.detail}" for result in judged if result.status is not Status.PASS)
    report.text = f"{page(base, measured, used, sizes)}{''.join(missed)}\n\n{report.verdict}\n"
    ratios = [time.ratio for time in measured]
    status.record(base, "bench", report.verdict,
                  f"adoption / reading {min(ratios):.2f} to {max(ratios):.2f}", begun)
    return report.show(where, machine.CONSOLE)
