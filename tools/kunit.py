# SPDX-License-Identifier: GPL-2.0-only
"""make kunit: the driver's unit tests, in the patched test kernel under QEMU.

    FILTER=     which suites, kunit.filter_glob (default arm-smmu-v3*)
    ARGS=       more for the kernel's command line, e.g. a parameter of the tests
    FLAVOUR=    a kernel of configs/kernel/flavours, e.g. sanitize

Exit codes: 0 all passed, 1 a case failed or nothing ran, 2 usage, 3 environment, 5 LOST (the
machine ended or hung before the tests did), 130 interrupted.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import config
import emulator
import kernel
from common import FAIL, LOST, PASS, USAGE, Err, cache_dir, main, stage

SUITES = "arm-smmu-v3*"
LIMIT_S = 900                   # for one boot; the sanitizers under emulation take their time
KEEP = 24                       # reports of one base that are kept

# The kernel's own complaints. A case may pass and still leave one.
COMPLAINTS = re.compile(
    r"WARNING:|\bBUG\b|\bOops\b|Internal error|Unable to handle kernel|\bK[AC]SAN: |\bUBSAN: |Kernel panic|"
    r"soft lockup|hard LOCKUP|blocked for more than|self-detected stall|detected stalls|"
    r"possible (circular|recursive) locking|inconsistent lock state|suspicious RCU usage|bad unlock balance|"
    r"scheduling while atomic|sleeping function called|DEBUG_LOCKS_WARN_ON")

STAMP = re.compile(r"^\[ *(\d+\.\d+)\](?:\[ *[TC]\d+\])? ?")
RESULT = re.compile(r"(ok|not ok) (\d+)(?: -)?(?: ([^#]*?))?(?: *# *(SKIP|TODO|TIMEOUT)\b *(.*))?$", re.IGNORECASE)
PASSED, FAILED, SKIPPED, ERROR = "pass", "FAIL", "skip", "ERROR"


@dataclass
class Case:
    suite: str
    name: str
    status: str
    detail: str = ""
    seconds: float = 0.0


@dataclass
class Result:
    """What a console log says. `problems` are the log's own, beside the cases'."""
    cases: list[Case] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    ktap: list[str] = field(default_factory=list)
    ended: bool = False         # the last suite came to its end
    lost: str = ""              # why the machine was given up

    def count(self) -> Counter[str]:
        return Counter(case.status for case in self.cases)

    @property
    def code(self) -> int:
        if self.lost:
            return LOST
        return FAIL if self.problems or not self.cases or {FAILED, ERROR} & self.count().keys() else PASS


@dataclass
class Level:
    """A list of results that has been begun: the suites, a suite's cases, a case's parameters."""
    depth: int
    name: str = ""
    plan: int | None = None
    seen: int = 0
    bad: int = 0
    said: list[str] = field(default_factory=list)
    begin: float = 0.0


def parse(log: str) -> Result:
    """Read the KTAP out of a kernel's console.

    Cases of every suite are collected; a case's parameters decide nothing of their own, but must
    agree with it. Whatever does not add up is a problem, so that no log that was cut off or lost
    lines can pass.
    """
    found = Result()
    levels: list[Level] = []
    now = 0.0

    def close(level: Level) -> None:
        what = level.name or ("the list of suites" if level.depth == 0 else "a suite")
        # A case's parameters need no plan: the kernel does not count them in advance.
        if level.plan is None and level.depth < 2:
            found.problems.append(f"{what}: no plan")
        elif level.plan is not None and level.plan != level.seen:
            found.problems.append(f"{what}: {level.seen} results of {level.plan}")

    for raw in log.splitlines():
        stamp = STAMP.match(raw)
        if stamp:
            now = float(stamp[1])
        line = raw[stamp.end():] if stamp else raw
        line = line.rstrip("\r\n ")
        text = line.lstrip(" ")
        spaces = len(line) - len(text)
        depth = spaces // 4
        if found.ended:
            if text.startswith("KTAP version"):
                found.problems.append("a second list of suites after the first one's end")
            if not COMPLAINTS.search(text):
                continue
        if not levels and not text.startswith("KTAP version"):
            if COMPLAINTS.search(text):
                found.problems.append(f"the kernel complains outside the tests: {text}")
            continue
        if COMPLAINTS.search(text):
            case = f"{levels[-1].name}, after result {levels[-1].seen}" if levels else "after the tests"
            found.problems.append(f"the kernel complains ({case}): {text}")
            if levels:
                levels[-1].said.append(text)
            continue
        if text.startswith("KTAP version") and spaces % 4 == 0:
            found.ktap.append(line)
            while levels and levels[-1].depth >= depth:
                close(levels[-1])
                levels.pop()
            if depth != len(levels):
                found.problems.append(f"a list begins at depth {depth} inside depth {len(levels) - 1}")
            levels.append(Level(depth, begin=now))
            continue
        plan = re.fullmatch(r"1\.\.(\d+)", text)
        subtest = re.fullmatch(r"# Subtest: (.+)", text)
        result = RESULT.fullmatch(text) if spaces % 4 == 0 else None
        if not (plan or subtest or result):
            if text.startswith("#"):
                found.ktap.append(line)
            levels[-1].said.append(text)
            continue
        found.ktap.append(line)
        if subtest:
            if levels[-1].depth == depth:
                levels[-1].name = subtest[1]
            continue
        if plan:
            if levels[-1].depth == depth and levels[-1].plan is None:
                levels[-1].plan = int(plan[1])
            else:
                found.problems.append(f"a plan out of place: {text}")
            continue
        assert result
        inner = None
        while levels and levels[-1].depth > depth:
            inner = levels.pop()
            close(inner)
        if not levels or levels[-1].depth != depth:
            found.problems.append(f"a result out of place: {text}")
            continue
        level = levels[-1]
        level.seen += 1
        name = (result[3] or "").strip() or f"number {result[2]}"
        if int(result[2]) != level.seen:
            found.problems.append(f"{level.name or 'suites'}: result {result[2]} ({name}) where {level.seen} was due")
            level.seen = int(result[2])
        status = PASSED if result[1] == "ok" else FAILED
        if (result[4] or "").upper() == "SKIP" and status == PASSED:
            status = SKIPPED
        said = [*(inner.said if inner else []), *level.said]
        if inner and inner.bad and status == PASSED:
            found.problems.append(f"{name} says ok, and {inner.bad} of what is inside failed")
            status = ERROR
        if inner and depth == 0 and status == FAILED and not inner.bad:
            found.problems.append(f"suite {name} failed as a whole: " + "; ".join(said[-2:]))
        level.bad += status in (FAILED, ERROR)
        if depth == 1:
            detail = "\n".join(said) if status != SKIPPED else result[5] or ""
            found.cases.append(Case(level.name, name, status, detail, max(now - level.begin, 0.0)))
        elif depth == 0 and not inner and status != SKIPPED:
            found.problems.append(f"suite {name} has no cases")
        elif depth == 2 and status == FAILED:
            levels[-2].said.append(f"parameter {name} failed" if len(levels) > 1 else "")
            levels[-2].said += said
        level.said = []
        level.begin = now
        if depth == 0 and level.plan == level.seen:
            found.ended = True
            levels.pop()
    if not found.ended:
        if levels:
            inside = " in ".join(f"{level.name or 'the list of suites'}, after {level.seen} of "
                                 f"{'?' if level.plan is None else level.plan}" for level in reversed(levels))
            found.problems.append(f"the log ends in the middle: {inside}")
            if len(levels) > 1 and levels[1].plan != levels[1].seen:
                found.cases.append(Case(levels[1].name, f"number {levels[1].seen + 1}", ERROR,
                                        "\n".join(["never came to its end", *levels[-1].said])))
        else:
            found.problems.append("no test ran: the log has no KTAP")
    elif not found.cases:
        found.problems.append("no test ran")
    return found


def boot(image: Path, directory: Path, glob: str, args: Sequence[str] = (), memory: str = "1G",
         machine: Sequence[str] = (), progress: Callable[[str], None] = lambda text: None, limit: float = LIMIT_S) -> Result:
    """Boot a test kernel for its unit tests; console.log is left in the directory."""
    qemu, _ = emulator.find()
    console = directory / "console.log"
    cmdline = ["console=ttyAMA0", "loglevel=8", "log_buf_len=4M", "panic=-1", "kunit.enable=1", "kunit.autorun=1",
               f"kunit.filter_glob={glob}", "kunit_shutdown=poweroff", *args]
    command = [*qemu, "-M", "virt,gic-version=3", "-cpu", "cortex-a57", "-smp", "2", "-m", memory, "-nodefaults",
               "-display", "none", "-monitor", "none", "-no-reboot", "-serial", "stdio", "-kernel", str(image),
               "-append", " ".join(cmdline), *machine]
    deadline = time.monotonic() + limit
    lost = ""
    done = failed = total = 0
    with open(console, "wb") as out, open(directory / "qemu.log", "w+") as errors:
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *command], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
        assert process.stdout
        pipe = process.stdout.fileno()
        pending = b""
        try:
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    lost = f"no end after {limit:.0f} s"
                    break
                if not select.select([pipe], [], [], min(left, 0.5))[0]:
                    progress(f"{done}/{max(total, done)}, {failed} failed")
                    continue
                data = os.read(pipe, 65536)
                if not data:
                    break
                out.write(data)
                out.flush()
                *lines, pending = (pending + data).split(b"\n")
                for raw in lines:
                    line = STAMP.sub("", raw.decode(errors="replace").rstrip("\r"))
                    if match := re.fullmatch(r"    1\.\.(\d+)", line):
                        total += int(match[1])
                    elif match := re.match(r"    (ok|not ok) \d+ (\S+)", line):
                        done += 1
                        failed += match[1] != "ok"
                progress(f"{done}/{max(total, done)}, {failed} failed")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        errors.seek(0)
        refused = errors.read().strip()
    log = console.read_text(errors="replace")
    if not log.strip() and refused:
        raise Err(f"QEMU does not start: {refused.splitlines()[-1]}", "see " + str(directory / "qemu.log"))
    found = parse(log)
    last = STAMP.sub("", next((line for line in reversed(log.splitlines()) if line.strip()), "nothing"))
    crash = next((STAMP.sub("", line) for line in log.splitlines() if re.search(
        r"Kernel panic|Unable to handle kernel|Internal error", line)), "")
    if lost or not found.ended and "reboot: Power down" not in log:
        found.lost = f"{lost or 'QEMU ended early'}; " + (f"the kernel crashed: {crash}" if crash else f"last said: {last}")
    elif "reboot: Power down" not in log:
        found.problems.append(f"the machine did not power off after the tests; last said: {last}")
    return found


def as_junit(base: str, found: Result, seconds: float) -> str:
    counted = found.count()
    broken = [*found.problems, *([found.lost] if found.lost else [])]
    if not found.cases and not broken:
        broken = ["no test ran"]
    top = ElementTree.Element("testsuite", {
        "name": f"kunit.{base}", "tests": str(len(found.cases) + len(broken)), "failures": str(counted[FAILED]),
        "errors": str(counted[ERROR] + len(broken)), "skipped": str(counted[SKIPPED]), "time": f"{seconds:.1f}"})
    for test in found.cases:
        case = ElementTree.SubElement(top, "testcase", {"classname": f"kunit.{base}.{test.suite}", "name": test.name,
                                                        "time": f"{test.seconds:.3f}"})
        if test.status == SKIPPED:
            ElementTree.SubElement(case, "skipped", {"message": test.detail})
        elif test.status != PASSED:
            kind = "failure" if test.status == FAILED else "error"
            child = ElementTree.SubElement(case, kind, {"message": _clean(test.detail.split("\n")[0])})
            child.text = _clean(test.detail)
    for number, problem in enumerate(broken, 1):
        case = ElementTree.SubElement(top, "testcase", {"classname": f"kunit.{base}", "name": f"the run, {number}"})
        ElementTree.SubElement(case, "error", {"message": _clean(problem)})
    ElementTree.indent(top)
    return ElementTree.tostring(top, encoding="unicode", xml_declaration=True) + "\n"


def _clean(text: str) -> str:
    """Without what XML has no characters for."""
    return re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd]", "?", text)


def directory(base: str) -> Path:
    """A new directory for this run's reports; the oldest of the others go."""
    top = cache_dir("kunit", base)
    old = sorted(path for path in top.iterdir() if re.match(r"\d{8}-\d{6}", path.name))
    for path in old[:max(len(old) - KEEP + 1, 0)]:
        shutil.rmtree(path, ignore_errors=True)
    new = top / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    number = 0
    while new.exists():
        number += 1
        new = new.with_name(f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.{number}")
    new.mkdir()
    return new


def summary(base: str, name: str, found: Result) -> str:
    """Failures in full, then one line."""
    out = []
    for case in found.cases:
        if case.status != PASSED:
            out.append(f"{case.status:5} {case.suite}.{case.name}")
            out += [f"      {line}" for line in case.detail.splitlines()[-20:]]
    out += [f"ERROR {problem}" for problem in found.problems]
    if found.lost:
        out.append(f"LOST: {found.lost}")
    counted = found.count()
    verdict = {PASS: "PASS", FAIL: "FAIL", LOST: "LOST"}[found.code]
    text = f"{counted[PASSED]} passed, {counted[FAILED] + counted[ERROR]} failed, {counted[SKIPPED]} skipped"
    return "\n".join([*out, f"{verdict}  kunit {base} {name}: {text}"
                      + (f", {len(found.problems)} problems" if found.problems else "")])


def write(found: Result, base: str, where: Path, seconds: float) -> None:
    (where / "result.ktap").write_text("\n".join(found.ktap) + "\n")
    (where / "junit.xml").write_text(as_junit(base, found, seconds))


def cli() -> int:
    if len(sys.argv) > 1:
        raise Err("no arguments; FILTER=, ARGS=, FLAVOUR= and BASE= on make's command line", "make help", USAGE)
    base = os.environ.get("BASE") or config.load().base
    flavour = os.environ.get("FLAVOUR", "")
    known = sorted(path.stem for path in kernel.FLAVOURS.glob("*.config"))
    if flavour and flavour not in known:
        raise Err(f"FLAVOUR={flavour}: no such flavour", f"choose one of: {' '.join(known)}", USAGE)
    built = kernel.build(base, True, flavour=flavour)
    where = directory(base)
    name = f"({built.release}{', ' + flavour if flavour else ''})"
    with stage(f"kunit {base} {flavour}".rstrip()) as step:
        found = boot(built.image, where, os.environ.get("FILTER") or SUITES, os.environ.get("ARGS", "").split(),
                     progress=step.update)
    write(found, base, where, step.seconds)
    print(summary(base, name, found))
    print(f"reports in {where}\n  result.ktap  junit.xml  console.log")
    return found.code


if __name__ == "__main__":
    main(cli)
