# SPDX-License-Identifier: GPL-2.0-only
"""make bench: what the series costs, as ratios.

    time      of the adoption, against reading the same bytes of table once, in one boot. It is
              counted in instructions, of which an emulated processor gives the same number every
              time; its clock would show what else the machine was doing, and its TLB
    memory    of the crash kernel, unpatched and patched, in one crash test
    size      of the driver's object, with and without CONFIG_CRASH_DUMP; prereq/ does not count

Exit codes: 0 within the goals, 1 not, 2 usage, 3 environment, 5 LOST, 130 interrupted.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import config
import kernel
import kunit
from common import ENVIRONMENT, FAIL, LOST, PASS, TOP, USAGE, Err, cache_dir, main, run, say, stage
from tree import Store

SUITE = "smmu-kdump-bench"
# The machine has 2 GiB from 1 GiB on; the kernel is told of the first quarter only.
MEMORY, ARENA = "2G", ["mem=512M", "smmu_kdump_bench.arena=0x60000000"]
MACHINE = ["-smp", "1", "-icount", "shift=0"]      # a nanosecond is an instruction
MAX_RATIO = 3.0                 # what a stream more adds to the adoption, against what it adds to the reading
MANY = 1024                     # streams from which on what they add is well above the clock's noise
MAX_GROWTH = 1.5                # of that ratio with the number of streams: linear
OBJECT = "drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.o"
ENTRY = {"cmdq": 16, "evtq": 32, "priq": 16}     # bytes of a queue's entry


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
class Memory:
    available: int              # KiB, as the crash kernel's userspace comes up
    queues: int                 # KiB that the driver says it allocated


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


def judge_times(found: list[Time]) -> list[str]:
    """What misses the goals."""
    bad = []
    for stride in sorted({time.stride for time in found}):
        row = sorted((time for time in found if time.stride == stride), key=lambda time: time.streams)
        many = {time.streams: time.each(row[0]) for time in row if time.streams >= MANY}
        bad += [f"{streams} streams, CDs {stride} bytes apart: a stream costs {each:.2f} times its reading, goal {MAX_RATIO:.0f}"
                for streams, each in many.items() if each > MAX_RATIO]
        if many and many[max(many)] > MAX_GROWTH * many[min(many)]:
            bad.append(f"CDs {stride} bytes apart: not linear, a stream costs {many[min(many)]:.2f} times its reading among "
                       f"{min(many)}, {many[max(many)]:.2f} times among {max(many)}")
    return bad


def measure_times(base: str) -> list[Time]:
    built = kernel.build(base, True)
    where = cache_dir("bench", base)
    with stage(f"timing the adoption on {base}") as step:
        found = kunit.boot(built.image, where, f"{SUITE}*", ARENA, MEMORY, MACHINE, step.update)
    if found.code != PASS:
        raise Err("the benchmark did not run to its end:\n" + kunit.summary(base, "", found),
                  f"see {where}/console.log", LOST if found.code == LOST else FAIL)
    measured = times((where / "console.log").read_text(errors="replace"))
    if not measured:
        raise Err("the benchmark printed nothing", f"see {where}/console.log", FAIL)
    return measured


def memory(console: str) -> Memory | None:
    """Of the crash kernel, which is the last to boot on this console."""
    available = re.findall(r"crash-test: memory (\d+)", console)
    last = console[console.rfind("Linux version"):]
    queues = sum(int(count) * ENTRY[name] for count, name in re.findall(r"allocated (\d+) entries for (\w+)", last))
    return Memory(int(available[-1]), queues >> 10) if available else None


def measure_memory(base: str) -> dict[str, Memory]:
    say(f"a crash test of {base}, for the crash kernel's memory")
    done = subprocess.run([sys.executable, TOP / "tools" / "crash"], cwd=TOP, env={**os.environ, "BASE": base},
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    reports = re.search(r"^reports in (.+)$", done.stdout, re.MULTILINE)
    if not reports:
        raise Err(f"the crash test ended with {done.returncode} and without a report", f"make crash-test BASE={base}",
                  done.returncode if done.returncode in (USAGE, ENVIRONMENT, LOST) else FAIL)
    found = {}
    for which in ("unpatched", "patched"):
        said = memory((Path(reports[1]) / which / "console.log").read_text(errors="replace"))
        if not said:
            raise Err(f"the {which} crash kernel did not tell its memory", f"see {reports[1]}/{which}/console.log", LOST)
        found[which] = said
    return found


def own(queue: list[Path]) -> list[tuple[int, int]]:
    """The stretches of the queue that are the series itself, as numbers of patches before and after each."""
    count, found = 0, []
    for prereq, patches in itertools.groupby(queue, key=lambda patch: patch.parent.name == "prereq"):
        before, count = count, count + len(list(patches))
        if not prereq:
            found.append((before, count))
    return found


def measure_sizes(base: str) -> dict[str, dict[str, Size]]:
    """Of the object as users build it, without the unit tests; what prereq/ adds is not the series'."""
    store = Store(base)
    queue = store.queue()
    with store.lock():
        source = store.source()
        commits = {count: store.apply(source, queue[:count]) if count else source
                   for count in sorted({0, *itertools.chain(*own(queue))})}
    found: dict[str, dict[str, Size]] = {"unpatched": {}, "patched": {}}
    for crash_dump in ("y", "n"):
        sizes = {count: measure_size(store, commit, crash_dump, f"{count} patches") for count, commit in commits.items()}
        grown = [Size(*(getattr(sizes[after], part) - getattr(sizes[before], part) for part in PARTS))
                 for before, after in own(queue)]
        found["unpatched"][crash_dump] = sizes[0]
        found["patched"][crash_dump] = Size(*(sum(getattr(size, part) for size in (sizes[0], *grown)) for part in PARTS))
    return found


def measure_size(store: Store, commit: str, crash_dump: str, what: str) -> Size:
    obj = store.here / "obj-bench"
    log = obj.with_suffix(".log")
    off = {"CONFIG_KUNIT": "n", "CONFIG_ARM_SMMU_V3_KUNIT_TEST": "n"}
    off |= {"CONFIG_CRASH_DUMP": "n", "CONFIG_PROC_VMCORE": "n"} if crash_dump == "n" else {}
    lines = [line for line in kernel.fragments().splitlines() if line.split("=")[0] not in off]
    wanted = "\n".join([*lines, *(f"{name}={value}" for name, value in off.items())]) + "\n"
    with store.lock(), kernel.objects(obj), stage(f"the object with {what}, CRASH_DUMP={crash_dump}") as step:
        store.check_out(commit)
        log.write_text("")
        kernel.configure(step, store, obj, wanted, log)
        cmd, env = kernel.make(store, obj, OBJECT)
        kernel.run_make(step, cmd, env, log, 0)
        words = run([f"{kernel.CROSS}size", obj / OBJECT]).stdout.splitlines()[1].split()
    return Size(*map(int, words[:3]))


def table(base: str, measured: list[Time], used: dict[str, Memory], sizes: dict[str, dict[str, Size]]) -> str:
    out = [f"bench {base}", "", "adoption of a two-level stream table, against reading its bytes once, in instructions", "",
           f"{'streams':>8} {'CDs apart':>10} {'bytes':>12} {'reading':>12} {'adoption':>12} {'ratio':>7} {'a stream':>9}"]
    for time in measured:
        one = next(first for first in measured if first.stride == time.stride)
        each = f"{time.each(one):.2f}" if time.streams > one.streams else "-"
        out.append(f"{time.streams:>8} {time.stride:>10} {time.bytes:>12} {time.read_ns:>12} "
                   f"{time.adopt_ns:>12} {time.ratio:>7.2f} {each:>9}")
    out += ["", "ratio: of the whole; a stream: of what the streams add to a table with one. Reading is through one mapping",
            "that is there already; the adoption makes its own, and zeroes and counts a bitmap of ASIDs."]
    old, new = used["unpatched"], used["patched"]
    out += ["", f"{'memory of the crash kernel, KiB':<34} {'unpatched':>10} {'patched':>10} {'change':>8}",
            f"{'MemAvailable':<34} {old.available:>10} {new.available:>10} {new.available - old.available:>+8}",
            f"{'queues that the driver allocated':<34} {old.queues:>10} {new.queues:>10} {new.queues - old.queues:>+8}",
            "", f"{'arm-smmu-v3.o, bytes':<34} {'unpatched':>10} {'patched':>10} {'change':>8}"]
    for crash_dump in ("y", "n"):
        for part in PARTS:
            before, after = (getattr(sizes[which][crash_dump], part) for which in ("unpatched", "patched"))
            out.append(f"{f'CRASH_DUMP={crash_dump}, {part}':<34} {before:>10} {after:>10} {after - before:>+8}")
    return "\n".join(out) + "\n"


def judge(measured: list[Time], used: dict[str, Memory], sizes: dict[str, dict[str, Size]]) -> list[str]:
    bad = judge_times(measured)
    if used["patched"].queues >= used["unpatched"].queues:
        bad.append("the patched driver does not allocate less than the unpatched one")
    if used["patched"].available <= used["unpatched"].available:
        bad.append("the patched crash kernel has not more memory available than the unpatched one")
    grown = sizes["patched"]["n"].total - sizes["unpatched"]["n"].total
    if grown > 0:
        bad.append(f"the object grows by {grown} bytes without CONFIG_CRASH_DUMP, goal 0")
    return bad


def cli() -> int:
    if len(sys.argv) > 1:
        raise Err("no arguments; BASE= on make's command line", "make help", USAGE)
    base = config.load().base
    sizes = measure_sizes(base)
    measured = measure_times(base)
    used = measure_memory(base)
    bad = judge(measured, used, sizes)
    where = cache_dir("bench", base)
    text = table(base, measured, used, sizes)
    text += "".join(f"\nFAIL {line}" for line in bad) + ("\n" if bad else "") + f"\n{'FAIL' if bad else 'PASS'}  bench {base}\n"
    (where / "table.txt").write_text(text)
    (where / "bench.json").write_text(json.dumps({
        "base": base, "times": [dataclasses.asdict(time) | {"ratio": time.ratio} for time in measured],
        "memory_kib": {which: dataclasses.asdict(one) for which, one in used.items()},
        "size": {which: {key: dataclasses.asdict(size) for key, size in found.items()} for which, found in sizes.items()},
        "missed": bad}, indent=2) + "\n")
    print(text)
    print(f"reports in {where}\n  table.txt  bench.json  console.log")
    return FAIL if bad else PASS


if __name__ == "__main__":
    main(cli)
