# SPDX-License-Identifier: GPL-2.0-only
"""make check: the tests of the host tools, the driver's unit tests and a few crash tests.
make check-all: that, and on each base everything else. It takes hours.

The last line has the counts. Base and scenario are the default ones, whatever .config says;
BASE=, KSRC= and CONFIG= choose others. A part that could not run or proved nothing is neither
passed nor failed; then the exit code tells what happened.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import deps
from .common import INTERRUPTED, PASS, TOP, Err
from .crash import test
from .kernel import kunit
from .queue import bases, config, status
from .results import Report, Result, Status, count, counted, failure, from_junit, run_directory, table, worst

# part: what it changes in the default crash
CRASHES: dict[str, dict[str, config.Value]] = {
    "crash-test": {},
    "crash-test uefi": {"uefi": True},
    "crash-test first_unpatched": {"first_kernel": "unpatched"},
}
SEED = 7                        # of the one crash of chaos: two entries in use, pointers, a page of noise
UNTRIED = {Status.ENVIRONMENT, Status.INVALID, Status.LOST}


def host_tests(where: Path) -> list[Result]:
    junit = where / "pytest.xml"
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run([*pytest, f"--junitxml={junit}", TOP / "tools" / "tests"], cwd=TOP)
    found = from_junit(junit, "pytest") if junit.exists() else []
    if done.returncode and not count(found)[Status.FAIL]:
        found.append(Result("pytest", "the run", Status.FAIL, f"pytest ended with {done.returncode}"))
    return found


def part(name: str, run: Callable[[], tuple[Report, Path]]) -> list[Result]:
    """What a verb reports. An Err that says the environment is at fault is its only result."""
    try:
        report, directory = run()
    except Err as err:
        err.show()
        return [Result(name, "the run", failure(err), err.cause)]
    report.show(directory)
    if report.verdict in UNTRIED:
        return [Result(name, "the run", report.verdict, report.why)]
    return [dataclasses.replace(result, suite=f"{name} {result.suite}") for result in report.results]


def crash(changed: dict[str, config.Value]) -> tuple[Report, Path]:
    kernels = ["patched"] if "chaos" in changed else ["unpatched", "patched"]
    crashed = test.crash_test(config.load(), kernels, **changed)
    return crashed.report, crashed.directory


MUTANTS: tuple[str, dict[str, str]] = ("mutants", {})
# What make check-all does on each base: a verb, and the variables of its command line. Of a best-effort one
# not the mutants, nor what stands behind them.
EVERYTHING: tuple[tuple[str, dict[str, str]], ...] = (
    ("kunit", {}), ("crash-test", {}), ("gate", {}), MUTANTS, ("bench", {}), ("lint", {}),
    ("scenarios", {}), ("soak", {"N": "100"}), ("chaos", {"N": "200"}), ("distro-test", {"SUITE": "trixie"}),
    ("distro-test", {"SUITE": "trixie", "KIT": "1"}), ("distro-test", {"SUITE": "bookworm"}),
    *(("chaos", {"N": "50", "WITHOUT": path.stem})
      for path in sorted((TOP / "patches" / "test" / "without").glob("*.patch"))),
)


def verb(name: str, variables: dict[str, str]) -> Result:
    """A verb's run by itself. Its exit code is the result; its reports are in a directory of its own."""
    command = " ".join(["make", name, *(f"{key}={value}" for key, value in variables.items())])
    print(f"\n=== {command}", flush=True)
    begin = time.monotonic()
    code = subprocess.run([sys.executable, "-m", "tools", name], cwd=TOP,
                          env={**os.environ, **variables}).returncode
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    status = next((one for one in Status if one is not Status.SKIPPED and one.code == code), Status.FAIL)
    return Result("check-all", command, status, f"exit code {code}" * bool(code),
                  seconds=time.monotonic() - begin)


def everything() -> int:
    """make check-all"""
    where = run_directory("check-all", "all")
    found = [verb("check", {})]
    chosen = os.environ.get("BASE")
    for base in [bases.get(chosen)] if chosen else bases.read().values():
        tried = EVERYTHING[:EVERYTHING.index(MUTANTS)] if base.status == "best-effort" else EVERYTHING
        found += [verb(name, {"BASE": base.name, **variables}) for name, variables in tried]
    report = Report("check-all", "all", found)
    report.text = table([[row.status, f"{row.seconds / 60:.1f} min", row.name] for row in found], left=3) \
        + f"\n{counted(found)}"
    report.write(where)
    print(f"\nreports in {where}\n\n{report.text}", flush=True)
    return report.verdict.code


def main() -> int:
    """make check"""
    deps.need("tests", "config", "archive", "tree", "kernel", "guest", "qemu", "uefi", "vmcore", "picture",
              "yaml")
    where = run_directory("check", "all")
    found = host_tests(where)
    os.environ["BASE"] = os.environ.get("BASE") or bases.default().name
    os.environ["CONFIG"] = os.environ.get("CONFIG") or "default_defconfig"
    found += part("kunit", lambda: kunit.kunit(os.environ["BASE"]))
    for name, changed in {**CRASHES, "chaos": test.damaged(SEED)}.items():
        found += part(name, functools.partial(crash, changed))
    problem = status.differs()
    found.append(Result("README.md", "the status table", Status.FAIL if problem else Status.PASS, problem))
    untried = [result for result in found if result.status in UNTRIED]
    judged = [result for result in found if result.status not in UNTRIED]
    report = Report("check", "all", found)
    lines = [f"{result.status}: {result.suite}: {result.detail}" for result in untried]
    report.text = "\n".join([*lines, counted(judged)])
    report.write(where)
    print(f"reports in {where}\n\n{report.text}", flush=True)
    # What kept a part from being judged says more than a failure does.
    return worst(untried).code if untried else worst(judged).code if judged else PASS
