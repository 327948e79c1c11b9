# SPDX-License-Identifier: GPL-2.0-only
"""make crash-test: crash the unpatched and the patched kernel, judge both, print one table.

Exit codes: 0 PASS, 1 FAIL, 2 usage, 3 environment, 4 INVALID (nothing was proved),
5 LOST (the virtual machine died), 130 interrupted.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import common                                                       # noqa: E402
import config                                                       # noqa: E402
import deps                                                         # noqa: E402
import emulator                                                     # noqa: E402
import guest                                                        # noqa: E402
import judge                                                        # noqa: E402
import kernel                                                       # noqa: E402
import qemu                                                         # noqa: E402
import report                                                       # noqa: E402
from common import Err, cache_dir, run, stage                       # noqa: E402

SPACE = 1 << 30                 # bytes that two runs may leave behind
KEEP = 12                       # runs of one base that are kept
SEVERITY = ("PASS", "INVALID", "FAIL", "LOST")
VERDICTS = {"PASS": common.PASS, "FAIL": common.FAIL, "INVALID": common.INVALID, "LOST": common.LOST}


def trace_reader() -> Path:
    """trace.c, compiled once for each of its contents."""
    source = HERE / "trace.c"
    key = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    binary = cache_dir("crash", "tools") / f"trace-{key}"
    if not binary.exists():
        partial = binary.with_name(f".{binary.name}.{os.getpid()}")
        run(["gcc", "-O2", "-Wall", "-o", partial, source])
        partial.rename(binary)
    return binary


def directory(base: str) -> Path:
    """A new directory for this run; the oldest of the others go."""
    top = cache_dir("crash", base)
    old = sorted(path for path in top.iterdir() if re.match(r"\d{8}-\d{6}", path.name))
    for path in old[:max(len(old) - KEEP + 1, 0)]:
        shutil.rmtree(path)
    free = shutil.disk_usage(top).free
    if free < SPACE:
        raise Err(f"no space left for the run: {top} has {free >> 20} MiB, it needs {SPACE >> 20} MiB",
                  "free some space, or set XDG_CACHE_HOME to a larger disk, and run the same command again")
    new = top / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    new.mkdir()
    latest = top / "latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(new.name)
    return new


def scenario(conf: config.Config) -> qemu.Scenario:
    rate = int(conf["CRASH_READ_IOPS"])
    delay = int(conf["CRASH_DELAY_MS"])
    # Reads for as long as the crash kernel takes to come to its disks, but not much longer:
    # what is left over holds up its own first reads.
    need_reads = bool(conf["CRASH_NEED_READS"])
    reads = min(max(rate * (2000 + 3000 * need_reads + delay) // 1000, 4), 256)
    # No more frames than the ring holds until then: a full ring proves nothing.
    frames = min(int(conf["CRASH_FRAME_RATE"]), 3500 * 1000 // (2000 + delay))
    damage = str(conf["CRASH_DAMAGE"])
    if damage not in ("", qemu.CRASH_MEMORY) and not re.fullmatch(r"0x[0-9a-f]{1,10}[048c]000", damage):
        raise Err(f"CONFIG_CRASH_DAMAGE={damage}: neither {qemu.CRASH_MEMORY} nor an address at a multiple of 0x4000",
                  "make menuconfig", common.USAGE)
    return qemu.Scenario(frame_rate=frames, read_iops=rate, reads=reads,
                         delay_ms=delay, timeout=int(conf["CRASH_TIMEOUT_S"]),
                         first_cmdline=str(conf["CRASH_CMDLINE_FIRST"]),
                         crash_cmdline=str(conf["CRASH_CMDLINE_CRASH"]),
                         need_reads=need_reads, damage=damage)


def control(unpatched: judge.Judgement) -> judge.Rule:
    """Rule 8: a test that the unpatched kernel survives is broken."""
    rule = unpatched.rule(2)
    if rule and rule.status == judge.FAIL:
        return judge.Rule(8, "the control fails", judge.PASS, "the unpatched kernel fails rule 2")
    what = f"the unpatched run was {unpatched.verdict}: {unpatched.why}" if not rule else \
        "the unpatched kernel does not fail rule 2"
    return judge.Rule(8, "the control fails", judge.INVALID, f"{what}; this test is broken")


def overall(runs: dict[str, judge.Judgement], rule: judge.Rule) -> tuple[str, str]:
    patched = runs["patched"]
    if patched.verdict == "PASS" and rule.status != judge.PASS:
        return "INVALID", rule.detail
    return patched.verdict, f"the patched kernel: {patched.why}" if patched.why else ""


def crash_test(conf: config.Config) -> tuple[report.Report, Path]:
    base = conf.base
    deps.need("vmcore", "kernel")
    command, name = emulator.find()
    reader = trace_reader()
    setup = scenario(conf)
    runs = {}
    top = directory(base)
    for which in ("unpatched", "patched"):
        built = kernel.build(base, which == "patched")
        initrd = guest.initrd(built.image)
        with stage(f"crashing {base} {which}") as step:
            argv = qemu.command(command, built.image, initrd, setup)
            (top / which).mkdir()
            ran = qemu.boot(top / which, argv, setup, step.update)
        with stage(f"judging {base} {which}"):
            runs[which] = judge.judge_run(ran, reader)
    rule = control(runs["unpatched"])
    verdict, why = overall(runs, rule)
    return report.Report(base, name, setup, runs, rule, verdict, why, common.STAGES), top


def one() -> int:
    result, top = crash_test(config.load())
    report.write(result, top)
    return VERDICTS[result.verdict]


def scenarios() -> int:
    """The default crash and every one of configs/, each in a few lines; the worst verdict's exit code."""
    names = [path.name for path in sorted((common.TOP / "configs").glob("*_defconfig"))
             if "CONFIG_CRASH_" in path.read_text()]
    lines, verdicts = [], []
    for name in ["default_defconfig", *names]:
        begin = time.monotonic()
        result, top = crash_test(config.load(name))
        report.save(result, top)
        lines.append(report.line(name.removesuffix("_defconfig"), result, time.monotonic() - begin))
        verdicts.append(result.verdict)
        print(f"{lines[-1]}    reports in {top}", flush=True)
    print(f"\nscenarios of {result.base}: {result.qemu}\n\n{''.join(lines)}", end="")
    return VERDICTS[max(verdicts, key=SEVERITY.index)]


def cli() -> int:
    if sys.argv[1:] not in ([], ["scenarios"]):
        raise Err("no argument, or: scenarios", "make help", common.USAGE)
    return scenarios() if sys.argv[1:] else one()


if __name__ == "__main__":
    common.main(cli)
