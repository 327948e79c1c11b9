# SPDX-License-Identifier: GPL-2.0-only
"""make check: the tests of the host tools, the driver's unit tests and one crash test; their counts in one last line.

Base and scenario are the default ones, whatever .config says; BASE=, KSRC= and CONFIG=
choose others. Unit tests and crash test count as many tests as their reports have. One that
could not run or proved nothing is neither passed nor failed; then the exit code tells what
happened.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import bases
import deps
from common import ENVIRONMENT, FAIL, INVALID, LOST, PASS, TOP, cache_dir, main, say

NAMES = {ENVIRONMENT: "ENVIRONMENT", INVALID: "INVALID", LOST: "LOST"}


def counts(junit: Path) -> Counter[str]:
    """How many cases of a JUnit file passed, failed and were skipped."""
    found: Counter[str] = Counter()
    for case in ElementTree.parse(junit).iter("testcase"):
        tags = {child.tag for child in case}
        found["failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"] += 1
    return found


def host_tests() -> tuple[int, Counter[str]]:
    junit = cache_dir("check") / "pytest.xml"
    junit.unlink(missing_ok=True)
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={junit}",
                           TOP / "tools" / "tests"], cwd=TOP)
    found = counts(junit) if junit.exists() else Counter[str]()
    if done.returncode and not found["failed"]:
        say(f"pytest ended with {done.returncode}")
        found["failed"] += 1
    return (FAIL if found["failed"] else PASS), found


def tool(name: str, script: str) -> tuple[int, Counter[str]]:
    """Run a verb's tool and count what its JUnit report has."""
    env = {"BASE": bases.default().name, "CONFIG": "default_defconfig",
           **{name: value for name, value in os.environ.items() if value}}
    reports = cause = ""
    with subprocess.Popen([sys.executable, TOP / "tools" / script], cwd=TOP, env=env, text=True, errors="replace",
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        assert child.stdout
        for line in child.stdout:
            print(line, end="", flush=True)
            if match := re.match(r"reports in (.+)", line):
                reports = match[1]
            if match := re.match(r"(?:error: |(?:INVALID|LOST): ?)(.+)", line):
                cause = match[1]
    code = child.returncode
    if code in NAMES:
        print(f"{NAMES[code]}: {cause or 'see above'}", flush=True)
        return code, Counter()
    junit = Path(reports) / "junit.xml" if reports else None
    found = counts(junit) if junit and junit.exists() else Counter[str]()
    if (code == PASS) == bool(found["failed"]) or not found:
        say(f"{name} ended with {code}, and its report counts {dict(found)}")
        found["failed"] += 1
    return (FAIL if found["failed"] else PASS), found


def check() -> int:
    deps.need("tests", "config", "archive", "tree", "kernel", "guest", "qemu", "vmcore")
    code, total = host_tests()
    for name, script in (("the unit tests", "kunit.py"), ("the crash test", "crash")):
        ended, more = tool(name, script)
        total += more
        # What happened to a later one says more than a failed host test does.
        code = ended or code
    skipped = f", {total['skipped']} skipped" if total["skipped"] else ""
    print(f"{total['passed']} passed, {total['failed']} failed{skipped}", flush=True)
    return code


if __name__ == "__main__":
    main(check)
