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
from collections.abc import Sequence
from pathlib import Path

import pytest

from .. import deps, machine
from ..common import Err
from ..crash import guest, judge, report, workload
from ..crash import test as crash
from ..crash.matrix import Job, Matrix
from ..crash.scenario import MAX_SEED, NIC, TRACE
from ..kernel import build
from ..queue import config, status
from ..results import Report, Result, Status
from .conftest import TOP, a_scenario

FAKE = """#!{python}
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
    print("**\\nBail out! smmuv3.c:1: not reached", file=sys.stderr, flush=True)
    os.abort()
if mode == "moment":
    say("error cannot panic (No such device)")
    sys.exit(0)
answer = say("hello crash 1.2.3", True)
open("answer", "w").write(answer)
say("vmcore 0 1 2")
assert say("shutdown", True) == "go\\n"
"""


def fake(tmp_path: Path, mode: str) -> list[str]:
    program = tmp_path / "fake-qemu"
    program.write_text(FAKE.format(python=sys.executable, mode=mode))
    program.chmod(0o755)
    return [str(program)]


def boot(tmp_path: Path, mode: str, timeout: int = 60) -> workload.Run:
    where = tmp_path / "run"
    where.mkdir()
    scenario = a_scenario(timeout_s=timeout, cmdline_crash="one=1", read_iops=2)
    return workload.boot(where, fake(tmp_path, mode), scenario)


@pytest.mark.parametrize(
    ("damage", "count", "go"), [("", 1, "go\n"), ("0x9000000", 65, "go 5 0x9000009 65\n"),
                                ("crash-memory", 1, "go 5 0x55e00009 1\n")]
)
def test_damage(tmp_path: Path, damage: str, count: int, go: str) -> None:
    where = tmp_path / "run"
    where.mkdir()
    run = workload.boot(where, fake(tmp_path, "ok"),
                        a_scenario(timeout_s=60, damage=damage, damage_count=count))
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
    assert (run.mark("panic") or 0) < (run.mark("shutdown") or 0)
    assert len(run.sent) >= 20 and run.sent == sorted(run.sent)
    frames = (run.directory / "frames").read_bytes()
    assert frames == b"".join(workload.frame(run.nonce, number) for number in range(20))
    assert (run.directory / "answer").read_text() == (
        "reads=4 wait=0 moment=none more=0 "
        "cmdline=console=ttyAMA0 earlycon=pl011,0x9000000 ignore_loglevel nr_cpus=1 "
        "reset_devices smmu_kdump_test.settle_ms=100 one=1\n"
    )
    assert not list(run.directory.glob("*.sock"))
    disk = (run.directory / "slow.raw").read_bytes()
    assert disk[workload.READ_SIZE:2 * workload.READ_SIZE] == workload.expected_block(run.nonce, 1)


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("die", "QEMU ended (-6) early, last said: panic; QEMU: Bail out! smmuv3.c:1: not reached"),
        ("hang", "no end after 1 s, last said: hello first 1.2.3"),
        ("setup", "the guest gave up: no memory is reserved"),
        ("moment", "the guest gave up: cannot panic (No such device)"),
    ],
)
def test_lost(tmp_path: Path, mode: str, said: str) -> None:
    run = boot(tmp_path, mode, timeout=1 if mode == "hang" else 60)
    assert run.lost == said
    assert gone(int((run.directory / "pid").read_text()))
    (run.directory / TRACE).write_text("")
    judgement = judge.judge_run(run)
    # A guest that could not set the test up proves nothing; a machine that died is lost.
    assert judgement.verdict == ("INVALID" if mode in ("setup", "moment") else "LOST")
    assert judgement.why == said


def test_a_task_that_hangs_is_found_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The living kernel's DMA is not what survives a panic."""
    def traced(path: Path, panic: float, *_: object) -> None:
        raise ValueError(f"from {panic}")

    monkeypatch.setattr(judge, "read_trace", traced)
    marks = [(1.0, "crash-memory 0x1 0x2"), (3.0, "panic"), (5.0, "dead")]
    for moment, when in ("hang", 5.0), ("oops", 3.0):
        run = workload.Run(tmp_path, a_scenario(moment=moment), 1, marks)
        assert judge.judge_run(run).why == f"trace: from {when}"


def test_qemu_refuses(tmp_path: Path) -> None:
    with pytest.raises(Err, match="QEMU does not start: qemu: -device e1000e: no such device"):
        boot(tmp_path, "refuse")


DRIVER = """
from pathlib import Path
from tools import common
from tools.crash import workload
from tools.tests.conftest import a_scenario
common.main(lambda: workload.boot(Path({where!r}), [{program!r}], a_scenario()) and 0)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_left_behind(tmp_path: Path, how: signal.Signals) -> None:
    where = tmp_path / "run"
    where.mkdir()
    (program,) = fake(tmp_path, "hang")
    child = subprocess.Popen(
        [sys.executable, "-c", DRIVER.format(where=str(where), program=program)],
        cwd=TOP,
        stderr=subprocess.PIPE,
        text=True,
    )
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
    argv = a_scenario().command([str(program)], tmp_path / "Im age", tmp_path / "init'rd")
    script = tmp_path / "qemu.sh"
    script.write_text(machine._script(argv))
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
        assert sorted(done.stdout.decode().split()) == [
            "dev",
            "dev/console",
            "init",
            "usr",
            "usr/bin",
            "usr/bin/tool",
        ]
    assert len(data) % 4 == 0 and data.count(b"070701") == 7
    assert guest.cpio({"init": b"#!/bin/sh\n", "usr/bin/tool": b"x" * 5}) == data


def judgement(*statuses: Status) -> judge.Judgement:
    """Of a run whose rules 1, 2, … had these statuses."""
    rows = [judge.Row(NIC, True, 123456, 1234567, 0, 99999, 3), judge.Row(0x18, False, 0, 0, 0, 0, 0)]
    rules = [
        Result("x", f"rule {number}: name {number}", status, "detail & <more> " * 9)
        for number, status in enumerate(statuses, 1)
    ]
    figures = {
        "frames_landed": 1234,
        "frames_due": 1235,
        "probed_landed": 234,
        "probed_due": 235,
        "reads_landed": 7,
        "completions": 7,
    }
    return judge.Judgement(rules, 7.04, rows, figures)


GOOD, BAD = [Status.PASS] * 8, [Status.PASS, Status.FAIL, Status.PASS, Status.FAIL]


@pytest.mark.parametrize("statuses", [GOOD, BAD])
def test_table(statuses: list[Status]) -> None:
    runs = {"unpatched": judgement(*BAD), "patched": judgement(*statuses)}
    text = report.page("6.12", "QEMU 10.0.2", a_scenario(), runs, runs["patched"].verdict)
    assert max(map(len, text.splitlines())) <= 100
    assert (
        "1234567" in text
        and "rule 2 FAIL    unpatched: name 2: detail" in text
        and "FAIL (rules 2, 4)" in text
    )
    assert text.splitlines()[-1].startswith(
        "PASS" if statuses is GOOD else "FAIL: the patched kernel: rules 2, 4"
    )
    assert "1234 of 1235, after the probe 234 of 235" in text


def test_table_of_a_lost_machine() -> None:
    lost = judge.Judgement([Result("patched", "the machine", Status.LOST, "QEMU ended early")], 1.0)
    text = report.page(
        "6.12", "QEMU 10.0.2", a_scenario(), {"unpatched": judgement(*BAD), "patched": lost}, lost.verdict
    )
    assert text.splitlines()[-1] == "LOST: the patched kernel: QEMU ended early"
    assert "the machine LOST    patched: QEMU ended early" in text


def test_the_whole_report_is_json(tmp_path: Path) -> None:
    run = judgement(*GOOD)
    made = Report("crash-test", "6.12", run.results, {"runs": {"patched": run}}, judgement(*BAD).results)
    made.write(tmp_path)
    found = json.loads((tmp_path / "result.json").read_text())
    assert (
        found["verdict"] == "PASS" and found["control"][1]["status"] == "FAIL" and len(found["results"]) == 8
    )


def test_a_crash_in_lines() -> None:
    """What either kernel did, also where a run has nothing to show."""
    lost = judge.Judgement([Result("patched", "the machine", Status.LOST, "QEMU ended (1) early")], 1.0)
    text = report.lines({"unpatched": judgement(*BAD), "patched": lost})
    assert text.splitlines() == [
        "    unpatched  FAIL (rules 2, 4): 123456 accesses, 1234567 aborted, 99999 faulted, 3 misdirected; "
        "frames 1234 of 1235 (234 of 235 after the probe), reads 7, vmcore -",
        "    patched    LOST: QEMU ended (1) early",
    ]


def test_a_knob_out_of_range() -> None:
    with pytest.raises(Err, match="CONFIG_CRASH_DAMAGE=0x123"):
        a_scenario(damage="0x123")
    assert (a_scenario(delay_ms=3000).frames, a_scenario(delay_ms=3000).reads) == (700, 40)


MAP = """
efi:   0x000040000000-0x0000400fffff [Loader Data        |   |  |  |  |  |  |  |  |   |WB|WT|WC|UC]
efi:   0x00005bc11000-0x00005bc14fff [Runtime Data       |RUN|  |  |  |  |  |  |  |   |WB|WT|WC|UC]
[    0.000000] efi:   0x00005bc20000-0x00005bc8ffff [Runtime Data       |RUN|  |  |  |  |  |   |WB|WT|WC|UC]
"""


def test_damage_of_a_region_of_uefi() -> None:
    """The first such region that begins at a multiple of 16 KiB, as the console shows them."""
    scenario = a_scenario(uefi=True, damage="Runtime Data")
    assert " efi=debug" in scenario.first_cmdline()
    assert scenario.descriptor([["0x1", "0x2"]], MAP) == 0x5bc20009
    with pytest.raises(Err, match="no such region") as caught:
        a_scenario(uefi=True, damage="Reserved").descriptor([["0x1", "0x2"]], MAP)
    assert "Loader Data, Runtime Data" in caught.value.next_step
    with pytest.raises(Err, match="CONFIG_CRASH_UEFI=y alone"):
        a_scenario(damage="Reserved")


def test_the_machine_that_a_scenario_asks_for() -> None:
    def words(**changed: str | bool) -> str:
        return " ".join(a_scenario(**changed).command(["qemu"], Path("Image"), Path("initrd")))

    assert "-bios" not in words() and " -bios " in words(uefi=True)
    assert "cortex-a57" in words() and "virtualization=on" not in words()
    assert "-cpu max" in words(vhe=True) and "virtualization=on" in words(vhe=True)
    assert "-m 4G" in words(ram="4G") and "crashkernel=192M,high" in words(reserve="192M,high")


@pytest.mark.parametrize(("words", "built"), [
    ("", None), ("unpatched", ("6.12", 0, "", None)), ("newest", ("7.3", None, "", None)),
    ("other unpatched", ("7.3", 0, "", None)), ("linear", ("6.12", None, "", crash.linear)),
    ("4k", ("6.12", None, "", None)), ("64k unpatched", ("6.12", 0, "64k", None))])
def test_the_kernel_that_crashes(monkeypatch: pytest.MonkeyPatch, words: str, built: object) -> None:
    asked: list[object] = []
    monkeypatch.setattr(build, "build", lambda *words: asked.append(words))
    crash.first_kernel(a_scenario(first_kernel=words), "6.12")
    assert asked == ([built] if built else [])


def test_the_kernel_that_crashes_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Err, match="6.12: not understood"):
        crash.first_kernel(a_scenario(first_kernel="6.12"), "6.12")
    monkeypatch.setenv("BASE", "6.12")
    monkeypatch.setenv("KSRC", "/some/tree")
    with pytest.raises(Err, match="KSRC= is one kernel"):
        crash.crash_test(config.load("first_other_defconfig"))


@pytest.mark.parametrize(("failed", "count", "rate"), [
    (0, 100, 0.0295), (1, 100, 0.0466), (10, 10, 1.0), (1100, 1100, 1.0), (600, 1100, 0.5705),
    (1099, 1100, 0.99995), (0, 100000, 0.00003)])
def test_bound(failed: int, count: int, rate: float) -> None:
    """Against a table of the exact bounds."""
    assert crash.bound(failed, count) == pytest.approx(rate, abs=1e-4)


def test_a_seed_out_of_range(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"range 0 {MAX_SEED}\n" in (TOP / "Kconfig").read_text()
    for seed, count in (("1000000001", "1"), ("999999999", "3")):
        monkeypatch.setenv("SEED", seed)
        monkeypatch.setenv("N", count)
        with pytest.raises(Err, match=f"SEED={seed} N={count}: a seed is no more"):
            crash.soak()


def test_a_pattern_that_is_none() -> None:
    with pytest.raises(Err, match=r"CONFIG_CRASH_SEEN=\(: no regular expression"):
        a_scenario(seen="(")


@pytest.mark.parametrize(("count", "recorded"), [("1", False), ("2", True)])
def test_a_repeat_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: str,
                                  recorded: bool) -> None:
    """The command that a row prints does not take the place of what the hundred said. What is recorded
    goes with the state that there was at the beginning."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("N", count)
    said: list[object] = []
    monkeypatch.setattr(status, "begin", lambda base, name: {"tools": "begun"})
    monkeypatch.setattr(status, "record", lambda *words: said.append(words[-1]))
    monkeypatch.setattr(crash, "run_jobs", a_matrix)
    crash.soak()
    assert said == ([{"tools": "begun"}] if recorded else [])


def a_matrix(verb: str, base: str, jobs: Sequence[Job], *words: object) -> Matrix:
    matrix = Matrix(verb, base, jobs, {job.name: "" for job in jobs})
    matrix.done = {job.name: Result("crash", job.name, Status.PASS) for job in jobs}
    return matrix


def test_a_bad_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("N", "-3")
    with pytest.raises(Err, match="N=-3: not a number above 0"):
        crash.number("N", 10)


def test_a_device_that_qemu_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the system's nor the backports suite's has it: version and device are told."""
    old, new = (fake_qemu(tmp_path, *words) for words in (("10.0.2", "e1000e"), ("11.1.3", "arm-smmuv3")))
    monkeypatch.setattr(deps, "need", lambda *needs: None)
    monkeypatch.setenv("PATH", f"{tmp_path}/own:{os.environ['PATH']}")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "qemu-system-aarch64").symlink_to(old)
    monkeypatch.setattr(machine, "_of_backports", lambda: [str(new)])
    assert machine.find() == (["qemu-system-aarch64"], "QEMU 10.0.2")
    assert machine.find("arm-smmuv3") == ([str(new)], "QEMU 11.1.3")
    monkeypatch.setattr(machine, "_of_backports", lambda: [str(old)])
    with pytest.raises(Err, match="QEMU 10.0.2 has no device arm-smmuv3"):
        machine.find("arm-smmuv3")


def test_smmu_off_with_acpi(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine is started that would wait until its time limit."""
    monkeypatch.setenv("BASE", "6.12")
    with pytest.raises(Err, match="devices of 6.12 wait .* for ever; next: "):
        crash.crash_test(config.load("smmu_off_defconfig"), uefi=True)


def fake_qemu(where: Path, version: str, device: str) -> Path:
    path = where / f"qemu-{version}"
    path.write_text(f"""#!/bin/sh
[ "$1" = --version ] && echo 'QEMU emulator version {version}' && exit
case $* in
*{device}*) echo "qemu: -device {device}: no bus" >&2 ;;
*) echo "qemu: Parameter 'driver' expects a pluggable device type" >&2 ;;
esac
exit 1
""")
    path.chmod(0o755)
    return path
