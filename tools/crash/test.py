# SPDX-License-Identifier: GPL-2.0-only
"""make crash-test, make scenarios: crash the unpatched and the patched kernel, judge both."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import os
import random
import shlex
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import common, deps, machine
from ..common import LOST, TOP, USAGE, Err, stage
from ..kernel import build
from ..queue import bases, config, status
from ..queue.store import Store, digest, series
from ..results import Report, Result, Status, counted, failure, release, run_directory
from . import guest, judge, picture, report, workload
from .matrix import KEPT, KEPT_OF_CHANCE, Job, Matrix
from .scenario import MAX_SEED, Scenario

HERE = Path(__file__).resolve().parent
SPACE = 1 << 30                 # bytes that two runs may leave behind
FILES = ("picture.svg\n"
         "  unpatched/, patched/: console.log  trace.log  vmcore  qemu.sh (the exact command)")


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
    if words - {"newest", "other", "unpatched", "linear", "4k", "64k"}:
        raise Err(f"CONFIG_CRASH_FIRST_KERNEL={setup.first_kernel}: not understood", "make menuconfig", USAGE)
    if words & {"newest", "other"}:
        base = bases.newest(base if "other" in words else "").name
    return build.build(base, 0 if "unpatched" in words else None, "64k" if "64k" in words else "",
                       linear if "linear" in words else None)


def without(check: str, store: Store, commit: str) -> str:
    """With one of the driver's checks switched off."""
    patch = TOP / "patches" / "test" / "without" / f"{check}.patch"
    if not patch.is_file():
        raise Err(f"CONFIG_CRASH_WITHOUT={check}: no such check",
                  "choose one of: " + " ".join(sorted(path.stem for path in patch.parent.iterdir())), USAGE)
    return store.apply(commit, [patch])


def linear(store: Store, commit: str) -> str:
    """With a linear stream table where the SMMU can have two levels."""
    return store.apply(commit, series(TOP / "patches" / "test" / "linear"))


ACPI_WAITS = ("6.12",)          # bases whose devices wait for an SMMU's driver that ACPI tells of
PATCHES = {"unpatched": 0, "patched": None}     # patches of the queue


def kernels(base: str, which: str, setup: Scenario) -> tuple[build.Kernel, build.Kernel]:
    """The kernel that crashes, and the crash kernel."""
    change = functools.partial(without, str(setup.without)) if setup.without and which == "patched" else None
    crash = build.build(base, PATCHES[which], str(setup.flavour), change)
    return first_kernel(setup, base) or crash, crash


def crash_test(conf: config.Config, whiches: Sequence[str] = ("unpatched", "patched"),
               repeat: str = "", /, **changed: config.Value) -> Crash:
    """`changed`: values that come before the configuration's. `repeat`: the command that repeats it."""
    base = conf.base
    setup = Scenario(conf.starting("CRASH_") | changed)
    if why := why_not(conf, base, setup.uefi):
        raise Err(why, code=USAGE)
    deps.need("vmcore", "picture", "kernel", *(["uefi"] if setup.uefi else []),
              *(["dtb"] if setup.not_coherent else []))
    qemu, name = machine.find(str(setup.needs))
    begun = status.begin(base, "crash-test")
    top = run_directory("crash-test", base, SPACE)
    runs: dict[str, judge.Judgement] = {}
    keys = {}
    for which in whiches:
        first, built = kernels(base, which, setup)
        keys[which] = {"first": first.key, "crash": built.key}
        (top / which).mkdir()
        ran = boot(top / which, qemu, setup, first, built)
        with stage(f"judging {base} {which}"):
            runs[which] = judge.judge_run(ran, which, runs.get("unpatched"))
    about = {"qemu": name, "kernels": keys, "scenario": setup.values,
             "runs": {which: dataclasses.asdict(judged) for which, judged in runs.items()}}
    control = runs["unpatched"].results if "unpatched" in runs else []
    found = Report("crash-test", base, runs["patched"].results, about, control)
    found.text = report.page(base, name, setup, runs, found.verdict)
    if len(runs) == 2 and setup.values == config.load("default_defconfig").starting("CRASH_"):
        said = " / ".join(f"{run.verdict}{f' ({run.why})' if run.why else ''}" for run in runs.values())
        status.record(base, "crash-test", found.verdict, said, begun)
    with stage("drawing"):
        picture.draw(top, found, runs, repeat or again(base, setup))
    return Crash(runs, found, top)


def boot(where: Path, qemu: Sequence[str], setup: Scenario, first: build.Kernel,
         crash: build.Kernel) -> workload.Run:
    initrd = guest.initrd(crash.image)
    with stage(f"crashing {crash.release} {where.name}") as step:
        run = workload.boot(where, setup.command(qemu, first.image, initrd), setup, step.update)
    run.images = {"first": first.image, "crash": crash.image}
    return run


def catches(base: str, crash: build.Kernel, words: str) -> str:
    """Of the default crash with this crash kernel and more words on its command line: the rules that fail.

    Nothing, if it passes, and also if it proves nothing."""
    setup = Scenario(config.load("default_defconfig").starting("CRASH_") | {"cmdline_crash": words})
    deps.need("vmcore")
    where = run_directory("crash-test", base, SPACE) / "patched"
    where.mkdir()
    run = judge.judge_run(boot(where, machine.find()[0], setup, build.build(base), crash))
    release(where.parent)
    return run.why if run.verdict in (Status.FAIL, Status.LOST) else ""


def again(base: str, setup: Scenario) -> str:
    """The command that repeats a crash on both kernels, whatever has become of .config."""
    usual = config.load("default_defconfig").starting("CRASH_")
    lines = [config.line(f"CRASH_{name.upper()}", value) for name, value in setup.values.items()
             if value != usual[name]]
    made = "\n".join(["again=$(mktemp)", 'cat >"$again" <<\'EOF\'', *lines, "EOF\n"]) if lines else ""
    return f"{made}{repeats('crash-test', base)} CONFIG=" + ('"$again"' if lines else "default_defconfig")


def main() -> int:
    """make crash-test"""
    crash = crash_test(config.load())
    crash.report.text += common.stages()
    return crash.report.show(crash.directory, FILES)


def repeats(verb: str, base: str, *words: str) -> str:
    """The command that repeats one row of a matrix."""
    ksrc = os.environ.get("KSRC")
    return shlex.join(["make", verb, f"BASE={base}", *([f"KSRC={ksrc}"] if ksrc else []), *words])


def why_not(conf: config.Config, base: str, uefi: bool) -> str:
    """Why a scenario cannot be run with what there is, or ''."""
    if uefi and conf["CRASH_REFUSAL"] == judge.SMMU_OFF and base in ACPI_WAITS:
        return (f"with ACPI the devices of {base} wait for the driver of an SMMU that is off, "
                "for ever; next: a device tree, or another base")
    if os.environ.get("KSRC") and set(str(conf["CRASH_FIRST_KERNEL"]).split()) & {"newest", "other"}:
        return "KSRC= is one kernel, and this scenario crashes another; next: leave KSRC= away"
    return ""


def scenarios() -> int:
    """make scenarios: the default crash and every one of configs/, with either firmware."""
    paths = sorted((TOP / "configs").glob("*_defconfig"))
    names = [path.name for path in paths if "CONFIG_CRASH_" in path.read_text()]
    base = config.load("default_defconfig").base
    jobs = []
    cannot = {}
    for name, uefi in itertools.product(["default_defconfig", *names], (False, True)):
        conf = config.load(name)
        if conf["CRASH_UEFI"] and not uefi or conf["CRASH_NOT_COHERENT"] and uefi:
            continue            # the scenario is of one firmware
        row = name.removesuffix("_defconfig") + "-uefi" * uefi
        jobs.append(Job(row, name, repeats("scenarios", base, f"ONLY={row}"), {"uefi": uefi}))
        cannot[row] = why_not(conf, base, uefi)
    only = os.environ.get("ONLY", "").replace(",", " ").split()
    unknown = set(only) - {job.name for job in jobs}
    if unknown:
        raise Err(f"ONLY={' '.join(sorted(unknown))}: no such scenario",
                  "choose of: " + " ".join(job.name for job in jobs), USAGE)
    begun = status.begin(base, "scenarios")
    matrix = run_jobs("scenarios", base, [job for job in jobs if not only or job.name in only],
                      cannot={row: why for row, why in cannot.items() if why})
    found = matrix.report()
    if not only:
        status.record(base, "scenarios", found.verdict, counted(found.results), begun)
    return found.show(matrix.directory)


def tools_key() -> str:
    """Of what every result depends on: the crash test itself, UEFI's firmware, all that the guest runs."""
    own = [path for path in [*sorted(HERE.rglob("*.*")), Path(machine.__file__), Path(machine.FIRMWARE)]
           if path.suffix in (".py", ".c", ".fd") and path.is_file()]
    files = [name.encode() + b"\0" + data
             for part in guest.programs().values() for name, data in sorted(part.items())]
    return digest(*(path.read_bytes() for path in own), guest.compile_init(), *files)


@functools.cache
def qemu_key(command: tuple[str, ...]) -> str:
    """Not by its version alone: a distribution's newer package may have the same."""
    return digest(*command, Path(shutil.which(command[0]) or command[0]).read_bytes())


def run_jobs(verb: str, base: str, jobs: Sequence[Job], kept: Collection[Status] = KEPT,
             cannot: Mapping[str, str] = {}) -> Matrix:
    """The jobs, one after the other or several at once. All kernels are built before the first crash.

    `cannot`: jobs that are not run, and why."""
    keys = {}
    planned = []
    lacking = {job.name: cannot[job.name] for job in jobs if job.name in cannot}
    deps.need("guest")
    tools = tools_key()
    for job in jobs:
        setup = Scenario(config.load(job.conf).starting("CRASH_") | dict(job.changed))
        try:
            name = qemu_key(tuple(machine.find(str(setup.needs))[0]))
        except machine.NoDevice as err:
            lacking[job.name] = err.line
            name = ""
        except Err:
            if not setup.needs:
                raise
            name = ""           # its row tells, and the others run
        built = [] if job.name in lacking else [
            kernel.key for which in job.kernels for kernel in kernels(base, which, setup)]
        keys[job.name] = digest(tools, name, json.dumps(setup.values), *built)[:16]
        planned.append(dataclasses.replace(job, built=built))
    matrix = Matrix(verb, base, planned, keys, kept)
    for row, why in lacking.items():
        matrix.skip(row, why)
    matrix.run(one)
    return matrix


def one(job: Job, directory: Path) -> Result:
    """A job of a matrix. A run that did not pass is kept in the matrix's directory."""
    begin = time.monotonic()
    try:
        crash = crash_test(config.load(job.conf), job.kernels, job.again, **job.changed)
    except Err as err:
        err.show()
        return Result("crash", job.name, failure(err), f"    {err.line}")
    ran = [key for which in job.kernels for key in crash.report.about["kernels"][which].values()]
    if ran != list(job.built):
        release(crash.directory)
        return Result("crash", job.name, Status.ENVIRONMENT,
                      "    the kernels were changed while this ran; next: the same command again")
    crash.report.write(crash.directory)
    text = report.lines(crash.runs)
    struck = crash.runs["patched"].rule(11)
    figures: dict[str, Any] = {rule.name: rule.status for rule in crash.report.results}
    figures |= struck.figures if struck else {}
    if crash.report.verdict is not Status.PASS:
        kept = directory / job.name
        common.remove(kept)
        text += f"    reports in {crash.directory.rename(kept)}\n"
    release(crash.directory)
    return Result("crash", job.name, crash.report.verdict, text, figures, time.monotonic() - begin)


def bound(failed: int, count: int) -> float:
    """The rate of failures that is not exceeded, with 95% confidence (Clopper and Pearson, one-sided)."""
    if failed == count:
        return 1.0
    low, high = failed / count, 1.0
    # By logarithms: of some hundred crashes the coefficients are no floats any more.
    ways = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
            for k in range(failed + 1)]
    for _ in range(50):
        rate = (low + high) / 2
        seen = math.fsum(math.exp(way + k * math.log(rate) + (count - k) * math.log1p(-rate))
                         for k, way in enumerate(ways))
        low, high = (rate, high) if seen > 0.05 else (low, rate)
    return high


def seeds(verb: str, changed: Callable[[int], dict[str, config.Value]], off: str = "") -> int:
    """N= crashes of the patched kernel, with what the seeds from SEED= on change in the default crash.

    Without the check `off` of the driver the verb passes if a crash does not."""
    first, wanted = number("SEED", 1), number("N", 10)
    if first + wanted - 1 > MAX_SEED:
        raise Err(f"SEED={first} N={wanted}: a seed is no more than {MAX_SEED}", "choose a smaller SEED=",
                  USAGE)
    base = config.load("default_defconfig").base
    words = ["N=1", *([f"WITHOUT={off}"] if off else [])]
    begun = status.begin(base, verb)
    matrix = run_jobs(verb, base, [
        Job(f"seed-{seed}", "default_defconfig", repeats(verb, base, *words, f"SEED={seed}"), changed(seed),
            ["patched"])
        for seed in range(first, first + wanted)], KEPT_OF_CHANCE)
    whole = matrix.report()
    failed = sum(result.status is not Status.PASS for result in whole.results)
    said = (f"{failed} of {wanted} not passed; with 95% confidence no more than "
            f"{bound(failed, wanted):.1%} do not\n")
    if verb == "chaos":
        whole.results.append(coverage(whole.results))
        said += f"{whole.results[-1].detail}\n"
    whole.text += f"\n{said}"
    if off:
        whole.control = whole.results
        hits = [row.name for row in whole.results if finds(off, row)]
        seed = hits[0].removeprefix("seed-") if hits else ""
        # With nothing switched off that seed must pass, or its failure proves nothing.
        usual = crash_test(config.load("default_defconfig"), ["patched"], **changed(int(seed)) | {
            "without": ""}).report.verdict if hits else Status.INVALID
        whole.results = [control(off, hits, usual)]
        whole.text += f"\n{whole.verdict}: {whole.results[0].detail}\n"
    if wanted > 1:      # one that repeats a row tells nothing of them all
        status.record(base, f"{verb} without {off}" if off else verb, whole.verdict,
                      whole.results[0].detail if off else f"{wanted - failed} of {wanted}", begun)
    return whole.show(matrix.directory)


# The rules that a crash breaks because this check of the driver's is off, and not by mischance: streams
# that are whole are aborted and the SMMU is reset; two address spaces are one; a pointer that is followed
# to no memory ends the adoption. That damage is not named says little: the line is gone with the check.
BREAKS = {"containment": (2, 4), "registration": (2, 4), "ids": (3,), "pointer": (2, 4)}


def finds(off: str, row: Result) -> bool:
    """Does a crash without the check `off` fail as it must? A lost machine alone says nothing."""
    rules = tuple(f"rule {number}:" for number in BREAKS[off])
    return any(name.startswith(rules) and value == Status.FAIL for name, value in row.figures.items())


def coverage(rows: Sequence[Result]) -> Result:
    """In how many crashes by chance was there DMA to judge? A single one is what it is."""
    judged = sum(bool(row.figures.get("whole")) for row in rows)
    few = len(rows) > 1 and 2 * judged < len(rows)
    return Result("chaos", "streams that are whole", Status.INVALID if few else Status.PASS,
                  f"in {judged} of {len(rows)} a stream in flight was whole, so that its DMA was judged"
                  + "; that is too few: INVALID" * few)


def control(off: str, hits: Sequence[str], usual: Status) -> Result:
    """Did a crash fail without this check of the driver's (`hits`), and the first of them pass with it?"""
    if not hits:
        return Result("chaos", f"without {off}", Status.FAIL, f"no crash finds the driver without \"{off}\"")
    said = f"{hits[0]} finds the driver without \"{off}\""
    if usual is not Status.PASS:
        return Result("chaos", f"without {off}", Status.INVALID, f"{said}, but with it the crash is {usual}")
    return Result("chaos", f"without {off}", Status.PASS, f"{said}, and passes with it")


def damaged(seed: int, off: str = "") -> dict[str, config.Value]:
    """What `make chaos` changes in the default crash."""
    # One more busy disk, on a bus with an L1 descriptor of its own
    devices = config.load("root_port_defconfig")["CRASH_DEVICES"]
    return {"chaos": seed, "without": off, "devices": devices, "uefi": seed % 2 == 0}


def chaos() -> int:
    """make chaos: the stream table is damaged right before the panic.

    Every crash must give a vmcore, and the streams that are not damaged must not notice. WITHOUT= is a
    control: it switches one of the driver's checks off, which chance must find. Even seeds boot by UEFI."""
    off = os.environ.get("WITHOUT", "")
    return seeds("chaos", lambda seed: damaged(seed, off), off)


def soak() -> int:
    """make soak: the panic comes at a moment that the seed chooses. Even seeds boot by UEFI."""
    return seeds("soak", lambda seed: {"panic_ms": random.Random(seed).randrange(801),
                                       "uefi": seed % 2 == 0})


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
