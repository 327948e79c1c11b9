# SPDX-License-Identifier: GPL-2.0-only
"""The crash test's machine, guest and reports; a small program stands in for QEMU."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / "tools"), str(TOP / "tools" / "crash")]

import guest        # noqa: E402
import judge        # noqa: E402
import qemu         # noqa: E402
import report       # noqa: E402
from common import Err      # noqa: E402

FAKE = '''#!{python}
import os, socket, sys, time
mode = {mode!r}
if mode == "refuse":
    sys.exit("qemu: -device e1000e: no such device")
nic = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server = socket.socket(socket.AF_UNIX)
server.bind("verdict.sock")
server.listen()
nic.bind("nic.sock")
open("pid", "w").write(str(os.getpid()))
channel = server.accept()[0]
lines = channel.makefile("r")
def say(text, answer=False):
    channel.sendall((text + "\\n").encode())
    return lines.readline() if answer else ""
say("hello first 1.2.3", True)
if mode == "hang":
    time.sleep(1000)
if mode == "setup":
    say("error no memory is reserved")
    sys.exit(0)
say("crash-memory 0x55e00000 0x5fdfffff")
frames = [nic.recv(2000) for _ in range(20)]
open("frames", "wb").write(b"".join(frames))
open("go", "w").write(say("panic", True))
if mode == "die":
    os.abort()
answer = say("hello crash 1.2.3", True)
open("answer", "w").write(answer)
say("vmcore 0 1 2")
assert say("shutdown", True) == "go\\n"
'''


def fake(tmp_path: Path, mode: str) -> list[str]:
    program = tmp_path / "fake-qemu"
    program.write_text(FAKE.format(python=sys.executable, mode=mode))
    program.chmod(0o755)
    return [str(program)]


def boot(tmp_path: Path, mode: str, timeout: int = 60) -> qemu.Run:
    where = tmp_path / "run"
    where.mkdir()
    scenario = qemu.Scenario(timeout=timeout, crash_cmdline="one=1", reads=4)
    return qemu.boot(where, fake(tmp_path, mode), scenario)


@pytest.mark.parametrize(("damage", "go"), [("", "go\n"), ("0x9000000", "go 5 0x9000009\n"),
                                            ("crash-memory", "go 5 0x55e00009\n")])
def test_damage(tmp_path: Path, damage: str, go: str) -> None:
    where = tmp_path / "run"
    where.mkdir()
    run = qemu.boot(where, fake(tmp_path, "ok"), qemu.Scenario(timeout=60, damage=damage))
    assert run.lost == "" and (where / "go").read_text() == go
    assert run.damage == (int(go.split()[2], 16) if damage else None)


def gone(pid: int) -> bool:
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


def test_a_run(tmp_path: Path) -> None:
    run = boot(tmp_path, "ok")
    assert run.lost == ""
    assert run.facts("hello") == [["first", "1.2.3"], ["crash", "1.2.3"]]
    assert run.mark("panic") < run.mark("shutdown")
    assert len(run.sent) >= 20 and run.sent == sorted(run.sent)
    frames = (run.directory / "frames").read_bytes()
    assert frames == b"".join(qemu.frame(run.nonce, number) for number in range(20))
    assert (run.directory / "answer").read_text() == \
        "reads=4 cmdline=console=ttyAMA0 earlycon=pl011,0x9000000 ignore_loglevel nr_cpus=1 " \
        "reset_devices smmu_kdump_test.settle_ms=100 one=1\n"
    assert not list(run.directory.glob("*.sock"))
    disk = (run.directory / "slow.raw").read_bytes()
    assert disk[qemu.READ_SIZE:2 * qemu.READ_SIZE] == qemu.expected_block(run.nonce, 1)


@pytest.mark.parametrize(("mode", "said"), [("die", "QEMU ended (-6) early, last said: panic"),
                                            ("hang", "no end after 1 s, last said: hello first 1.2.3"),
                                            ("setup", "the guest gave up: no memory is reserved")])
def test_lost(tmp_path: Path, mode: str, said: str) -> None:
    run = boot(tmp_path, mode, timeout=1 if mode == "hang" else 60)
    assert run.lost == said
    assert gone(int((run.directory / "pid").read_text()))
    (run.directory / qemu.TRACE).write_text("")
    judgement = judge.judge_run(run, Path("/bin/false"))
    # A guest that could not set the test up proves nothing; a machine that died is lost.
    assert judgement.verdict == ("INVALID" if mode == "setup" else "LOST")
    assert judgement.why == said


def test_qemu_refuses(tmp_path: Path) -> None:
    with pytest.raises(Err, match="QEMU does not start: qemu: -device e1000e: no such device"):
        boot(tmp_path, "refuse")


DRIVER = '''
import sys
sys.path[:0] = [{tools!r}, {crash!r}]
import qemu, common
from pathlib import Path
common.main(lambda: qemu.boot(Path({where!r}), [{program!r}], qemu.Scenario()) and 0)
'''


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_left_behind(tmp_path: Path, how: signal.Signals) -> None:
    where = tmp_path / "run"
    where.mkdir()
    program, = fake(tmp_path, "hang")
    child = subprocess.Popen([sys.executable, "-c", DRIVER.format(
        tools=str(TOP / "tools"), crash=str(TOP / "tools" / "crash"), where=str(where), program=program)],
        stderr=subprocess.PIPE, text=True)
    for _ in range(500):
        if (where / "pid").exists() and (where / "pid").read_text():
            break
        time.sleep(0.02)
    time.sleep(0.2)
    pid = int((where / "pid").read_text())
    child.send_signal(how)
    said = child.communicate(timeout=20)[1]
    if how == signal.SIGINT:
        assert child.returncode == 130 and said == "interrupted\n"
    assert gone(pid)


def test_saved_command(tmp_path: Path) -> None:
    """qemu.sh runs what was run, where it was run, whatever the names have in them."""
    seen = tmp_path / "seen"
    program = tmp_path / "a program"
    program.write_text(f"#!/bin/sh\npwd > '{seen}'\nprintf '%s\\n' \"$@\" >> '{seen}'\n")
    program.chmod(0o755)
    argv = qemu.command([str(program)], tmp_path / "Im age", tmp_path / "init'rd", qemu.Scenario())
    script = tmp_path / "qemu.sh"
    script.write_text(qemu._script(argv))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    subprocess.run([script], check=True, cwd="/")
    assert seen.read_text().splitlines() == [str(tmp_path), *argv[1:]]
    assert subprocess.run(["sh", "-n", script]).returncode == 0
    # Loopback only, and not even that: no address, no port.
    assert not [word for word in argv if "inet" in word or "tcp" in word or "udp" in word]


def test_cpio(tmp_path: Path) -> None:
    data = guest.cpio({"init": b"#!/bin/sh\n", "usr/bin/tool": b"x" * 5})
    done = subprocess.run(["cpio", "-t", "--quiet"], input=data, capture_output=True)
    if done.returncode == 0:
        assert sorted(done.stdout.decode().split()) == ["dev", "dev/console", "init", "usr", "usr/bin",
                                                        "usr/bin/tool"]
    assert len(data) % 4 == 0 and data.count(b"070701") == 7
    assert guest.cpio({"init": b"#!/bin/sh\n", "usr/bin/tool": b"x" * 5}) == data


def judgement(verdict: str, why: str, status: str) -> judge.Judgement:
    rows = [judge.Row(0x8, True, 123456, 1234567, 0, 99999, 3), judge.Row(0x18, False, 0, 0, 0, 0, 0)]
    rules = [judge.Rule(number, f"name {number}", judge.PASS if number != 2 else status,
                        "detail & <more> " * 9) for number in range(1, 8)]
    cells = {"frames landed": "1234 of 1234, after the probe 234 of 234", "vmcore": "BAD"}
    return judge.Judgement(verdict, why, 7.04, rows, rules, cells)


def a_report(verdict: str = "PASS") -> report.Report:
    runs = {"unpatched": judgement("FAIL", "rules 2, 4, 5", judge.FAIL),
            "patched": judgement(verdict, "" if verdict == "PASS" else "rule 2",
                                 judge.PASS if verdict == "PASS" else judge.FAIL)}
    return report.Report("6.12", "QEMU 10.0.2", qemu.Scenario(), runs,
                         judge.Rule(8, "the control fails", judge.PASS, "it does"), verdict, "", [("a stage", 1.0)])


def test_table() -> None:
    text = report.table(a_report())
    assert max(map(len, text.splitlines())) <= 100
    assert "\033" not in text
    coloured = report.table(a_report(), colour=True)
    assert "\033[1;32mPASS\033[0m" in coloured and "\033[1;31mFAIL\033[0m" in coloured
    assert "1234567" in text and "rule 2 fail    unpatched" in text
    assert text.rstrip().endswith("PASS")


def test_forms() -> None:
    for verdict, failures in (("PASS", 0), ("FAIL", 1)):
        made = a_report(verdict)
        suite = ElementTree.fromstring(report.as_junit(made))
        assert (suite.get("tests"), suite.get("failures")) == ("8", str(failures))
        assert len(suite.findall("testcase")) == 8 and len(suite.findall("*/failure")) == failures
        ktap = report.as_ktap(made).splitlines()
        assert ktap[0] == "KTAP version 1" and "1..8" in ktap
        assert sum(line.startswith("not ok") for line in ktap) == failures
        assert json.loads(report.as_json(made))["verdict"] == verdict


@pytest.fixture(scope="module")
def flow():  # type: ignore[no-untyped-def]
    import importlib.util
    spec = importlib.util.spec_from_file_location("crash_main", TOP / "tools" / "crash" / "__main__.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_control(flow) -> None:  # type: ignore[no-untyped-def]
    good, bad = judgement("PASS", "", judge.PASS), judgement("FAIL", "rule 2", judge.FAIL)
    lost = judge.Judgement("LOST", "QEMU ended early", 1.0)
    assert flow.control(bad).status == judge.PASS
    assert flow.control(good).status == judge.INVALID
    assert flow.control(lost).status == judge.INVALID

    def verdict(unpatched: judge.Judgement, patched: judge.Judgement) -> str:
        return flow.overall({"unpatched": unpatched, "patched": patched}, flow.control(unpatched))[0]

    assert verdict(bad, good) == "PASS"
    assert verdict(good, good) == "INVALID"     # a test that nothing fails
    assert verdict(lost, good) == "INVALID"
    assert verdict(bad, bad) == verdict(good, bad) == "FAIL"
    assert verdict(bad, lost) == "LOST"
    assert len(set(flow.VERDICTS.values())) == 4


def test_scenario_line(tmp_path: Path) -> None:
    """What either kernel did, also where a run has nothing to show."""
    row = judge.Row(judge.NIC, True, 100, 1, 0, 2, 3)
    rules = [judge.Rule(2, "in-flight DMA survives", judge.FAIL, "")]
    cells = {"frames landed": "5 of 6, after the probe 3 of 4", "reads landed": "7, completion entries 7",
             "vmcore": "opens, panic found"}
    runs = {"unpatched": judge.Judgement("FAIL", "rule 2", 1.0, [row], rules, cells),
            "patched": judge.Judgement("LOST", "QEMU ended (1) early", 1.0)}
    control = judge.Rule(8, "the control fails", judge.PASS, "")
    text = report.line("x", report.Report("9.8", "QEMU", qemu.Scenario(), runs, control, "LOST", "", []), 3.0)
    assert text.splitlines() == [
        "x                  LOST        3 s",
        "    unpatched  FAIL (rule 2): 100 accesses, 1 aborted, 2 faulted, 3 misdirected; frames 5 of 6 "
        "(3 of 4 after the probe), reads 7, vmcore opens",
        "    patched    LOST: QEMU ended (1) early"]
