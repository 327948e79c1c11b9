# SPDX-License-Identifier: GPL-2.0-only
"""make crash-test, make scenarios: crash the unpatched and the patched kernel, judge both."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import common, machine
from ..common import LOST, TOP, USAGE, Err, stage
from ..kernel import build
from ..queue import bases, config, deps
from ..queue.store import Store, series
from ..results import Report, Result, Status, failure, run_directory, worst
from . import guest, judge, report, workload
from .scenario import Scenario

SPACE = 1 << 30                 # bytes that two runs may leave behind
FILES = "\n  unpatched/, patched/: console.log  trace.log  vmcore  qemu.sh (the exact command)"


@dataclasses.dataclass
class Crash:
    """A crash test: both runs, their report, its directory."""
    runs: dict[str, judge.Judgement]
    report: Report
    directory: Path


def first_kernel(setup: Scenario, base: str) -> build.Kernel | None:
    """The kernel that crashes, if it is another than the crash kernel."""
    words = set(setup.first_kernel.split())
    if not words:
        return None
    if words - {"newest", "other", "unpatched", "linear"}:
        raise Err(f"CONFIG_CRASH_FIRST_KERNEL={setup.first_kernel}: not understood", "make menuconfig", USAGE)
    if words & {"newest", "other"}:
        if os.environ.get("KSRC"):
            raise Err("KSRC= is one kernel, and this scenario crashes another", "leave KSRC= away", USAGE)
        base = bases.newest(base if "other" in words else "").name
    return build.build(base, 0 if "unpatched" in words else None,
                       change=linear if "linear" in words else None)


def linear(store: Store, commit: str) -> str:
    """With a linear stream table where the SMMU can have two levels."""
    return store.apply(commit, series(TOP / "patches" / "test" / "linear"))


KERNELS = {"unpatched": 0, "patched": None}     # patches of the queue


def crash_test(conf: config.Config, kernels: Sequence[str] = ("unpatched", "patched"),
               **changed: config.Value) -> Crash:
    """`changed`: values that come before the configuration's."""
    base = conf.base
    setup = Scenario(conf.starting("CRASH_") | changed)
    deps.need("vmcore", "kernel", *(["uefi"] if setup.uefi else []))
    qemu, name = machine.find()
    top = run_directory("crash-test", base, SPACE)
    runs: dict[str, judge.Judgement] = {}
    keys = {}
    for which in kernels:
        built = build.build(base, KERNELS[which])
        first = first_kernel(setup, base) or built
        keys[which] = {"first": first.key, "crash": built.key}
        initrd = guest.initrd(built.image)
        (top / which).mkdir()
        with stage(f"crashing {base} {which}") as step:
            ran = workload.boot(top / which, setup.command(qemu, first.image, initrd), setup, step.update)
        with stage(f"judging {base} {which}"):
            runs[which] = judge.judge_run(ran, which, runs.get("unpatched"))
    about = {"qemu": name, "kernels": keys, "scenario": setup.values,
             "runs": {which: dataclasses.asdict(judged) for which, judged in runs.items()}}
    control = runs["unpatched"].results if "unpatched" in runs else []
    found = Report("crash-test", base, runs["patched"].results, about, control)
    found.text = report.page(base, name, setup, runs, found.verdict)
    return Crash(runs, found, top)


def main() -> int:
    """make crash-test"""
    crash = crash_test(config.load())
    stages = "".join(f"  {seconds:8.1f} s  {name}\n" for name, seconds in common.STAGES)
    crash.report.text += f"\nstages\n{stages}"
    return crash.report.show(crash.directory, FILES)


def scenarios() -> int:
    """make scenarios: the default crash and every one of configs/, with either firmware."""
    paths = sorted((TOP / "configs").glob("*_defconfig"))
    names = [path.name for path in paths if "CONFIG_CRASH_" in path.read_text()]
    text = ""
    found = []
    for name, uefi in itertools.product(["default_defconfig", *names], (False, True)):
        conf = config.load(name)
        if conf["CRASH_UEFI"] and not uefi:
            continue            # there is no such region without UEFI
        begin = time.monotonic()
        scenario = name.removesuffix("_defconfig") + " uefi" * uefi
        try:
            crash = crash_test(conf, uefi=uefi)
        except Err as err:
            err.show()
            found.append(Result(scenario, "the run", failure(err), err.cause))
            text += f"{scenario:<18} {found[-1].status}: {err.cause}\n"
            continue
        crash.report.write(crash.directory)
        lines = report.line(scenario, crash.runs, crash.report.verdict, time.monotonic() - begin)
        print(f"{lines}    reports in {crash.directory}", flush=True)
        text += lines
        found += [dataclasses.replace(result, suite=scenario) for result in crash.report.results]
    base = config.load("default_defconfig").base
    whole = Report("scenarios", base, found)
    whole.text = f"scenarios of {base}\n\n{text}\n{worst(found)}\n"
    return whole.show(run_directory("scenarios", base))


def bound(failed: int, count: int) -> float:
    """The rate of failures that is not exceeded, with 95% confidence (Clopper and Pearson, one-sided)."""
    low, high = failed / count, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        seen = sum(math.comb(count, k) * rate**k * (1 - rate)**(count - k) for k in range(failed + 1))
        low, high = (rate, high) if seen > 0.05 else (low, rate)
    return high


def seeds(verb: str, changed: Callable[[int], dict[str, config.Value]]) -> int:
    """N= crashes of the patched kernel, with what the seeds from SEED= on change in the default crash."""
    first, count = number("SEED", 1), number("N", 10)
    conf = config.load("default_defconfig")
    found = []
    text = ""
    where = run_directory(verb, conf.base)
    for seed in range(first, first + count):
        try:
            crash = crash_test(conf, ["patched"], **changed(seed))
        except Err as err:
            err.show()
            found.append(Result(verb, f"seed {seed}", failure(err), err.cause))
            continue
        crash.report.write(crash.directory)
        run = crash.runs["patched"]
        struck = run.rule(11)
        detail = "; ".join(filter(None, [run.why, struck.detail if struck else ""]))
        line = f"seed {seed:<8} {run.verdict:<8} {run.seconds:5.1f} s  {detail}".rstrip() + "\n"
        if run.verdict is not Status.PASS:
            kept = crash.directory.rename(where / f"seed-{seed}")     # the runs of a crash test go one day
            line += f"    again: make {verb} BASE={conf.base} N=1 SEED={seed}; reports in {kept}\n"
        print(line, end="", flush=True)
        text += line
        figures = {rule.name: rule.status for rule in run.results} | dict(struck.figures if struck else {})
        found.append(Result(verb, f"seed {seed}", run.verdict, detail, figures, run.seconds))
    failed = sum(result.status is not Status.PASS for result in found)
    whole = Report(verb, conf.base, found)
    limit = f"{bound(failed, count):.1%}"
    said = f"{failed} of {count} not passed; with 95% confidence no more than {limit} do not"
    if verb == "chaos":
        judged = sum(bool(result.figures.get("whole")) for result in found)
        said += f"\nin {judged} of {count} a stream in flight was whole, so that its DMA was judged"
    whole.text = f"{verb} on {conf.base}\n\n{text}\n{said}\n{worst(found)}\n"
    return whole.show(where)


def chaos() -> int:
    """make chaos: the stream table is damaged right before the panic.

    Every crash must give a vmcore, and the streams that are not damaged must not notice."""
    return seeds("chaos", lambda seed: {"chaos": seed})


def soak() -> int:
    """make soak: the panic comes at a moment that the seed chooses."""
    return seeds("soak", lambda seed: {"panic_ms": random.Random(seed).randrange(801)})


def number(name: str, default: int) -> int:
    """A variable of make's command line."""
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or not int(text):
        raise Err(f"{name}={text}: not a number above 0", code=USAGE)
    return int(text)


def memory(base: str) -> dict[str, dict[str, int]]:
    """Of both crash kernels in one default crash, for the bench."""
    os.environ["BASE"] = base
    crash = crash_test(config.load())
    crash.report.write(crash.directory)
    found = {which: {key: run.figures[key] for key in ("available_kib", "queues_kib") if key in run.figures}
             for which, run in crash.runs.items()}
    silent = [which for which, figures in found.items() if not figures]
    if silent:
        raise Err(f"the {silent[0]} crash kernel did not tell its memory",
                  f"see {crash.directory}/{silent[0]}", LOST)
    return found
