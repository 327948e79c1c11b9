# SPDX-License-Identifier: GPL-2.0-only
"""make kunit: the driver's unit tests, in the patched test kernel under QEMU.

    FILTER=     which suites, kunit.filter_glob (default arm-smmu-v3*)
    ARGS=       more for the kernel's command line, e.g. a parameter of the tests
    FLAVOUR=    a kernel of configs/kernel/flavours, e.g. sanitize

The KTAP is read by the base's own tools/testing/kunit/kunit_parser.py.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import machine
from ..common import USAGE, Err, run, stage, write
from ..queue import config, status
from ..queue.store import Store
from ..results import Report, Result, Status, counted, run_directory
from . import build

SUITES = "arm-smmu-v3*"
LIMIT_S = 900                   # for one boot; the sanitizers under emulation take their time
PARSER = ("kunit_parser.py", "kunit_printer.py")
STAMP = re.compile(r"^\[ *(\d+\.\d+)\](?:\[ *[TC]\d+\])? ")
STATUSES = {"SUCCESS": Status.PASS, "SKIPPED": Status.SKIPPED}      # the parser's; any other is a failure

# Runs with the base's parser as its neighbour: what that says on stdout, then its tree as the last line.
READER = """\
import inspect, json, sys
import kunit_parser, kunit_printer
parse = kunit_parser.parse_run_tests
more = [kunit_printer.Printer()] if "printer" in inspect.signature(parse).parameters else []
def tree(test):
    return {"name": test.name, "status": test.status.name, "planned": test.expected_count is not None,
            "log": list(test.log), "inside": [*map(tree, test.subtests)]}
print("\\n" + json.dumps(tree(parse(sys.stdin.read().splitlines(), *more))))
"""


@dataclass
class Found:
    """What a console log says. `problems` are the log's own, beside the cases'."""
    cases: list[Result] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    lost: str = ""              # why the machine was given up

    def results(self) -> list[Result]:
        """The cases, and what is wrong with the run as a whole."""
        broken = [Result("run", f"problem {number}", Status.FAIL, problem)
                  for number, problem in enumerate(self.problems, 1)]
        lost = [Result("run", "the machine", Status.LOST, self.lost)] if self.lost else []
        return [*self.cases, *broken, *lost]


def reader(store: Store) -> Path:
    """The directory with the base's parser; the caller holds no lock."""
    with store.lock():
        paths = [f"{store.source()}:tools/testing/kunit/{name}" for name in PARSER]
        blobs = store.git("rev-parse", *paths).stdout.split()
        there = store.here / f"kunit-{'-'.join(blob[:12] for blob in blobs)}"
        there.mkdir(exist_ok=True)
        for name, blob in zip(PARSER, blobs):
            write(there / name, store.git("cat-file", "blob", blob).stdout)
        write(there / "reader.py", READER)
    return there


def _inside(test: dict[str, Any]) -> list[dict[str, Any]]:
    """Every test below this one."""
    return [deeper for child in test["inside"] for deeper in (child, *_inside(child))]


def _case(suite: str, test: dict[str, Any], seconds: float) -> Result:
    """A case; its parameters decide nothing of their own, but must agree with it."""
    bad = [one for one in _inside(test) if one["status"] not in STATUSES]
    status = Status.FAIL if bad else STATUSES.get(test["status"], Status.FAIL)
    said = [line.strip() for one in (*bad, test) for line in one["log"] if line.strip()]
    if test["status"] == "TEST_CRASHED":
        said.insert(0, "never came to its end")
    elif bad:
        said.insert(0, "failed inside: " + ", ".join(one["name"] for one in bad))
    if status is Status.SKIPPED:
        said = []
    return Result(suite, test["name"] or "the next case", status,
                  "\n".join(said) if status is not Status.PASS else "", seconds=seconds)


def parse(log: str, there: Path) -> Found:
    """Read a kernel's console; a log that was cut off or lost lines cannot pass."""
    plain = "\n".join(STAMP.sub("", line) for line in log.replace("\r", "").splitlines()) + "\n"
    done = run([sys.executable, "-B", there / "reader.py"], data=plain.encode(), next_step=f"look at {there}")
    *said, last = done.stdout.rstrip().split("\n")
    main = json.loads(last)
    found = Found(problems=[re.sub(r"\033\[[\d;]*m", "", line).partition("[ERROR] ")[2]
                            for line in said if "[ERROR]" in line])
    found.problems += [f"the kernel complains: {line}" for line in machine.complaints(plain)]
    lists = len(re.findall(r"^KTAP version", plain, re.MULTILINE))
    if lists > 1:
        found.problems.append(f"{lists} lists of suites, not one")
    # A case's parameters need no plan, as the kernel does not always count them in advance.
    found.problems += [f"{one['name']}: no plan" for one in (main, *main["inside"]) if not one["planned"]]
    times = _seconds(log)
    for suite in main["inside"]:
        cases = [_case(suite["name"], test, times.get(test["name"], 0.0)) for test in suite["inside"]]
        found.cases += cases
        if suite["status"] not in STATUSES and all(case.status in STATUSES.values() for case in cases):
            found.problems.append(f"suite {suite['name']} failed as a whole: " + "; ".join(suite["log"][-2:]))
    if not found.cases and not found.problems:
        found.problems.append("no test ran")
    return found


def _seconds(log: str) -> dict[str, float]:
    """How long each case took, by the console's time stamps."""
    found: dict[str, float] = {}
    before = 0.0
    ends = STAMP.pattern + r" {4}(?:(?:not )?ok \d+ (\S+)|# Subtest: )"
    for stamp, name in re.findall(ends, log, re.MULTILINE):
        if name:
            found[name] = max(float(stamp) - before, 0.0)
        before = float(stamp)
    return found


def _progress(console: Path) -> str:
    text = console.read_text(errors="replace")
    planned = sum(map(int, re.findall(r"^(?:\[.*?\] )? {4}1\.\.(\d+)", text, re.MULTILINE)))
    done = re.findall(r"^(?:\[.*?\] )? {4}(ok|not ok) \d+ ", text, re.MULTILINE)
    return f"{len(done)}/{max(planned, len(done))}, {done.count('not ok')} failed"


def boot(image: Path, directory: Path, there: Path, glob: str = SUITES, args: Sequence[str] = (),
         memory: str = "1G", more: Sequence[str] = (), progress: Callable[[str], None] = lambda text: None,
         limit: float = LIMIT_S) -> Found:
    """Boot a test kernel for its unit tests, with `more` QEMU options, and read its console.

    The console's log is left in the directory; `there` is what reader() gives."""
    qemu, _ = machine.find()
    cmdline = ["console=ttyAMA0 loglevel=8 log_buf_len=4M panic=-1 kunit.enable=1 kunit.autorun=1",
               f"kunit.filter_glob={glob} kunit_shutdown=poweroff", *args]
    console = directory / machine.CONSOLE
    with machine.Machine(directory, [*machine.command(qemu, image, " ".join(cmdline), memory=memory), *more],
                         limit) as vm:
        while vm.running(0.5):
            progress(_progress(console))
    log = console.read_text(errors="replace")
    if not log.strip() and not vm.lost:
        raise vm.refused()
    found = parse(log, there)
    if "reboot: Power down" not in log:
        plain = [STAMP.sub("", line) for line in log.splitlines() if line.strip()]
        crash = next((line for line in plain if re.search(
            r"Kernel panic|Unable to handle kernel|Internal error", line)), "")
        found.lost = f"{vm.lost or 'QEMU ended early'}; " + (
            f"the kernel crashed: {crash}" if crash else f"last said: {plain[-1] if plain else 'nothing'}")
    return found


def table(base: str, name: str, results: Sequence[Result]) -> str:
    """Failures in full, then one line."""
    out = []
    for case in results:
        if case.status is not Status.PASS:
            out.append(f"{case.status:5} {case.suite}.{case.name}")
            out += [f"      {line}" for line in case.detail.splitlines()[-20:]]
    return "\n".join([*out, f"kunit {base} {name}: {counted(results)}"])


def kunit(base: str) -> tuple[Report, Path]:
    """The unit tests of a base, and the directory of the run."""
    flavour = os.environ.get("FLAVOUR", "")
    known = sorted(path.stem for path in build.FLAVOURS.glob("*.config"))
    if flavour and flavour not in known:
        raise Err(f"FLAVOUR={flavour}: no such flavour", f"choose one of: {' '.join(known)}", USAGE)
    begun = status.begin(base, "kunit")
    built = build.build(base, flavour=flavour)
    where = run_directory("kunit", base)
    there = reader(Store(base))
    with stage(f"kunit {base} {flavour}".rstrip()) as step:
        found = boot(built.image, where, there, os.environ.get("FILTER") or SUITES,
                     os.environ.get("ARGS", "").split(), progress=step.update)
    report = Report("kunit", f"{base}-{flavour}" if flavour else base, found.results(), {"kernel": built.key})
    report.text = table(base, f"({built.release}{', ' + flavour if flavour else ''})", report.results)
    report.text += f"\n\n{report.verdict}\n"
    if not (flavour or os.environ.get("FILTER") or os.environ.get("ARGS")):
        passed = sum(case.status is Status.PASS for case in report.results)
        status.record(base, "kunit", report.verdict, f"{passed}/{len(report.results)}", begun)
    return report, where


def main() -> int:
    """make kunit"""
    report, where = kunit(os.environ.get("BASE") or config.load().base)
    return report.show(where, machine.CONSOLE)
