# SPDX-License-Identifier: GPL-2.0-only
"""Many crashes: order, resume, stale results, what happens when it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .. import deps, machine, results
from ..common import Err
from ..crash import guest, judge, matrix
from ..crash import test as crash
from ..crash.matrix import Job, Matrix
from ..kernel import build
from ..queue import status
from ..results import Report, Result, Status
from .conftest import TOP

JOBS = [Job(name, "default_defconfig", f"make x ONLY={name}") for name in ("a", "b", "c")]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(status, "begin", lambda base, name: {})     # it would fetch the base
    return tmp_path


def keys(**changed: str) -> dict[str, str]:
    return {job.name: "1" for job in JOBS} | changed


def good(job: Job, where: Path) -> Result:
    with open(where / "ran", "a") as ran:
        ran.write(job.name)
    return Result("x", job.name, Status.PASS, "    all is well", {"rule 1": "PASS"})


def bad_b(job: Job, where: Path) -> Result:
    status = {"b": Status.FAIL, "c": Status.INVALID}.get(job.name, Status.PASS)
    return Result("x", job.name, status, "    why")


def dies_at_b(job: Job, where: Path) -> Result:
    if job.name == "b":
        raise RuntimeError
    return good(job, where)


def test_a_whole_one(capsys: pytest.CaptureFixture[str]) -> None:
    found = Matrix("soak", "6.12", JOBS, keys())
    found.run(bad_b)
    report = found.report()
    assert [(row.name, row.status) for row in report.results] == [
        ("a", Status.PASS), ("b", Status.FAIL), ("c", Status.INVALID)]
    assert report.verdict is Status.FAIL and "1 passed, 2 failed" in report.text
    # Each row has the command that repeats it, in the table and in the other forms.
    assert all(f"make x ONLY={job.name}" in report.text for job in JOBS)
    assert [row.figures["again"] for row in report.results] == [job.again for job in JOBS]
    assert "0 queued, 0 running, 1 passed, 1 failed, 1 neither" in found.table()[-1]
    assert "make x ONLY=c" in capsys.readouterr().out


def test_what_cannot_run_here_is_told_and_not_counted() -> None:
    found = Matrix("scenarios", "6.12", JOBS, keys())
    found.skip("b", "QEMU 10.0.2 has no device arm-smmuv3")
    found.run(good)
    assert (found.directory / "ran").read_text() in ("ac", "ca")
    report = found.report()
    assert report.verdict is Status.PASS and "2 passed, 0 failed, 1 skipped" in report.text
    assert "SKIPPED     QEMU 10.0.2 has no device arm-smmuv3" in report.text


def test_several_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBS", "3")
    found = Matrix("soak", "6.12", JOBS, keys())
    begin = time.monotonic()
    found.run(sleeps)
    assert time.monotonic() - begin < 2.5 and len(found.done) == 3


def sleeps(job: Job, where: Path) -> Result:
    time.sleep(1)
    return Result("x", job.name, Status.PASS)


def stopped(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A matrix that ended in its second job."""
    monkeypatch.setenv("JOBS", "1")
    found = Matrix("soak", "6.12", JOBS, keys())
    with pytest.raises(RuntimeError):
        found.run(dies_at_b)
    return found.directory


def test_it_goes_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    where = stopped(monkeypatch)
    assert "the same command goes on" in capsys.readouterr().err
    with open(where / matrix.ROWS, "a") as rows:
        rows.write('{"suite": "x", "na')        # it was killed in the middle of a line
    found = Matrix("soak", "6.12", JOBS, keys())
    assert found.directory == where and list(found.done) == ["a"]
    assert "1 of 3 are there\n" in capsys.readouterr().err
    found.run(good)
    assert (where / "ran").read_text() == "abc"
    assert [row.name for row in matrix.read(where / matrix.ROWS)] == ["a", "b", "c"]
    assert [row.status for row in found.report().results] == [Status.PASS] * 3
    # What came to its end begins anew.
    found.report().write(where)
    results.release(where)
    assert Matrix("soak", "6.12", JOBS, keys()).done == {}


def test_a_stale_row_runs_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    where = stopped(monkeypatch)
    found = Matrix("soak", "6.12", JOBS, keys(a="2"))
    assert found.directory == where and found.done == {}
    assert "0 of 3 are there; 1 are of other kernels or tools" in capsys.readouterr().err
    found.run(good)
    assert (where / "ran").read_text() == "aabc"


def test_what_proved_nothing_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Matrix("soak", "6.12", JOBS, keys())
    found.run(bad_b)
    results.release(found.directory)
    again = Matrix("soak", "6.12", JOBS, keys())    # no report was written
    assert sorted(again.done) == ["a", "b"]


def chance(job: Job, where: Path) -> Result:
    status = {"a": Status.LOST, "b": Status.INVALID, "c": Status.ENVIRONMENT}[job.name]
    return Result("x", job.name, status, "    why")


def test_no_seed_has_two_tries() -> None:
    """The bound of a soak that goes on is of all that ran, whatever became of it."""
    found = Matrix("soak", "6.12", JOBS, keys(), matrix.KEPT_OF_CHANCE)
    found.run(chance)
    results.release(found.directory)
    again = Matrix("soak", "6.12", JOBS, keys(), matrix.KEPT_OF_CHANCE)
    assert sorted(again.done) == ["a", "b"]
    results.release(again.directory)
    assert sorted(Matrix("soak", "6.12", JOBS, keys()).done) == ["a"]


def test_two_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The second one does not write among the rows of the first."""
    first, second = (Matrix("soak", "6.12", JOBS, keys()) for _ in range(2))
    assert first.directory != second.directory
    assert f"the same goes on in {first.directory}" in capsys.readouterr().err


def test_another_plan_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    where = stopped(monkeypatch)
    assert Matrix("soak", "6.12", JOBS[:1], keys()).directory != where


def test_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBS", "0")
    with pytest.raises(Err, match="JOBS=0"):
        matrix.at_once()
    monkeypatch.delenv("JOBS")
    assert 1 <= matrix.at_once() <= (os.cpu_count() or 1)


def test_what_makes_a_row_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that its result depends on, apart from its kernels and its scenario."""
    programs = {"kexec": {"sbin/kexec": b"1"}}
    monkeypatch.setattr(guest, "programs", lambda: programs)
    monkeypatch.setattr(guest, "compile_init", lambda: b"init")
    found = [crash.tools_key()]
    programs["kexec"] = {"sbin/kexec": b"2"}
    found.append(crash.tools_key())
    for module, name in ((machine, "FIRMWARE"), (machine, "__file__")):
        other = tmp_path / Path(getattr(module, name)).name
        other.write_bytes(b"another one")
        monkeypatch.setattr(module, name, str(other))
        found.append(crash.tools_key())
    monkeypatch.setattr(guest, "compile_init", lambda: b"other init")
    assert len({*found, crash.tools_key()}) == 5


def test_another_qemu_of_the_same_version(tmp_path: Path) -> None:
    qemu = tmp_path / "qemu"
    found = set()
    for program in (b"one", b"two"):
        qemu.write_bytes(program)
        crash.qemu_key.cache_clear()
        found.add(crash.qemu_key((str(qemu),)))
    assert len(found) == 2


DRIVER = """
import os, time
from pathlib import Path
from tools import common
from tools.crash.matrix import Matrix
from tools.tests.test_matrix import JOBS, keys
def run(job, where):
    (where / f"pid-{job.name}").write_text(str(os.getpid()))
    time.sleep(100)
common.main(lambda: Matrix("soak", "6.12", JOBS, keys()).run(run))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_job_outlives_it(here: Path, how: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", DRIVER], cwd=TOP, start_new_session=True)
    pids: list[Path] = []
    for _ in range(200):
        time.sleep(0.05)
        pids = [path for path in here.rglob("pid-*") if path.read_text()]
        if pids:
            break
    os.killpg(process.pid, how) if how is signal.SIGINT else process.kill()
    process.wait(10)
    for path in pids:
        for _ in range(100):
            stat = Path(f"/proc/{path.read_text()}/stat")
            if not stat.exists() or stat.read_text().split(")")[1].split()[0] == "Z":
                break
            time.sleep(0.05)
        else:
            pytest.fail(f"{path.name} is still there")
    assert pids


def test_rows_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    where = stopped(monkeypatch)
    row = json.loads((where / matrix.ROWS).read_text())
    assert row["status"] == "PASS" and row["figures"]["key"] == "1"


def some_scenarios(monkeypatch: pytest.MonkeyPatch, base: str, only: str, find: object = None) -> Report:
    """make scenarios, but nothing is built or crashed."""
    made: list[Report] = []
    kernel = build.Kernel(Path("Image"), "1.2.3", "key")
    monkeypatch.setenv("BASE", base)
    monkeypatch.setenv("ONLY", only)
    monkeypatch.setattr(build, "build", lambda *words: kernel)
    monkeypatch.setattr(deps, "need", lambda *needs: None)
    monkeypatch.setattr(machine, "find", find or (lambda device="": (["true"], "QEMU 10.0.2")))
    monkeypatch.setattr(crash, "tools_key", lambda: "tools")
    monkeypatch.setattr(crash, "crash_test", no_crash)
    monkeypatch.setattr(Report, "show", lambda self, where: made.append(self))
    crash.scenarios()
    return made[0]


def no_crash(*words: object, **changed: object) -> None:
    raise Err("there is no machine", "buy one")


def rows(report: Report) -> dict[str, Status]:
    return {row.name: row.status for row in report.results}


def test_a_scenario_that_a_tree_of_the_users_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is skipped by name; the others run. What repeats a row names the tree."""
    monkeypatch.setenv("KSRC", "/a tree")
    found = some_scenarios(monkeypatch, "6.12", "default,cma,first_other-uefi")
    assert rows(found) == {"default": Status.ENVIRONMENT, "cma": Status.SKIPPED,
                           "first_other-uefi": Status.SKIPPED}
    assert "KSRC= is one kernel" in found.text
    assert "make scenarios BASE=6.12 'KSRC=/a tree' ONLY=default" in found.text
    assert "there is no machine; next: buy one" in found.text


@pytest.mark.parametrize(("base", "status"), [("6.12", Status.SKIPPED), ("7.3", Status.ENVIRONMENT)])
def test_smmu_off_with_acpi(monkeypatch: pytest.MonkeyPatch, base: str, status: Status) -> None:
    found = some_scenarios(monkeypatch, base, "smmu_off,smmu_off-uefi")
    assert rows(found) == {"smmu_off": Status.ENVIRONMENT, "smmu_off-uefi": status}
    assert ("with ACPI the devices of 6.12 wait" in found.text) is (base == "6.12")


@pytest.mark.parametrize(("err", "status"), [
    (machine.NoDevice("QEMU 10.0.2 has no device x", "use another"), Status.SKIPPED),
    (Err("cannot fetch qemu-system-arm", "try later"), Status.ENVIRONMENT)])
def test_only_a_qemu_without_the_device_is_lacking(monkeypatch: pytest.MonkeyPatch, err: Err,
                                                   status: Status) -> None:
    def find(device: str = "") -> tuple[list[str], str]:
        if device:
            raise err
        return ["true"], "QEMU 10.0.2"

    found = some_scenarios(monkeypatch, "7.3", "default,uefi_two_smmus-uefi", find)
    assert rows(found)["uefi_two_smmus-uefi"] is status
    assert status is not Status.SKIPPED or "has no device x; next: use another" in found.text


@pytest.mark.parametrize("verb", ["chaos", "soak"])
def test_both_firmwares(monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """The seeds take turns, and each has damage or a moment of its own."""
    ran: list[Job] = []

    class Ran(Exception):
        pass

    def run_jobs(verb: str, base: str, jobs: list[Job], kept: object) -> None:
        ran.extend(jobs)
        raise Ran

    monkeypatch.setattr(crash, "run_jobs", run_jobs)
    monkeypatch.setenv("N", "40")
    with pytest.raises(Ran):
        {"chaos": crash.chaos, "soak": crash.soak}[verb]()
    assert [job.changed["uefi"] for job in ran] == [False, True] * 20
    chosen = {job.changed["chaos" if verb == "chaos" else "panic_ms"] for job in ran}
    assert len(chosen) > 30 and all(isinstance(value, int) and value >= 0 for value in chosen)


def test_kernels_that_are_changed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row does not count for kernels that it did not run."""
    for path in (tmp_path / name for name in ("run", "matrix")):
        path.mkdir()
    report = Report("crash-test", "6.12", [Result("patched", "rule 1: x", Status.PASS)],
                    {"kernels": {"patched": {"first": "one", "crash": "two"}}})
    judged = judge.Judgement(report.results, 1.0)
    monkeypatch.setattr(crash, "crash_test",
                        lambda *words, **changed: crash.Crash({"patched": judged}, report, tmp_path / "run"))
    for built, wanted in (["one", "two"], Status.PASS), (["one", "three"], Status.ENVIRONMENT):
        job = Job("seed-1", "default_defconfig", "again", kernels=["patched"], built=built)
        assert crash.one(job, tmp_path / "matrix").status is wanted


def test_a_control_of_chaos() -> None:
    """It passes when chance finds that a check is off."""
    found = crash.control("ids", ["seed-1", "seed-4"], Status.PASS)
    assert found.status is Status.PASS and found.detail.startswith("seed-1 finds")
    assert crash.control("ids", [], Status.INVALID).status is Status.FAIL
    # A seed that fails with nothing switched off proves nothing.
    assert crash.control("ids", ["seed-1"], Status.FAIL).status is Status.INVALID


@pytest.mark.parametrize(("off", "rule", "status", "found"), [
    ("ids", "rule 3: nothing is misdirected", "FAIL", True),
    ("ids", "rule 5: data lands", "FAIL", False),
    ("ids", "rule 3: nothing is misdirected", "INVALID", False),
    ("containment", "rule 2: in-flight DMA survives", "FAIL", True),
    ("containment", "the machine", "LOST", False),
    ("pointer", "rule 4: register discipline", "FAIL", True),
    ("pointer", "rule 7: clean logs", "FAIL", False),
    ("registration", "rule 4: register discipline", "FAIL", True)])
def test_what_finds_that_a_check_is_off(off: str, rule: str, status: str, found: bool) -> None:
    """Not any crash that fails: it may have failed for another reason."""
    row = Result("crash", "seed-1", Status.LOST if status == "LOST" else Status.FAIL, "", {rule: status})
    assert crash.finds(off, row) is found
    assert crash.BREAKS.keys() == {path.stem for path in (TOP / "patches/test/without").glob("*.patch")}


@pytest.mark.parametrize(("whole", "status"), [
    ([1, 0, 2, 0], Status.PASS), ([1, 0, 0], Status.INVALID), ([0], Status.PASS), ([None, 3], Status.PASS)])
def test_chaos_that_judges_too_few_streams(whole: list[int | None], status: Status) -> None:
    """A row that was lost has no figure."""
    rows = [Result("crash", f"seed-{number}", Status.PASS, "", {} if each is None else {"whole": each})
            for number, each in enumerate(whole)]
    found = crash.coverage(rows)
    assert found.status is status
    assert found.detail.startswith(f"in {sum(map(bool, whole))} of {len(whole)} a stream in flight was whole")


def test_no_such_check() -> None:
    with pytest.raises(Err, match="CONFIG_CRASH_WITHOUT=luck: no such check") as caught:
        crash.without("luck", None, "")     # type: ignore[arg-type]
    assert "containment ids pointer" in caught.value.next_step
