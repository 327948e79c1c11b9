# SPDX-License-Identifier: GPL-2.0-only
"""The one result: verdicts, the forms of a report, the directory of a run."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from .. import common, machine, results
from ..common import Err
from ..results import Report, Result, Status

ONE = [Result("s", f"{status.lower()} # <1>", status, f"detail of\n{status} & more\x01") for status in Status]


def test_verdicts() -> None:
    """The heaviest wins; nothing, or only skips, prove nothing."""
    statuses = [Status.PASS, Status.ENVIRONMENT, Status.INVALID, Status.FAIL, Status.LOST]
    for number, status in enumerate(statuses):
        found = [Result("s", "n", one) for one in statuses[: number + 1]]
        assert results.worst(found) is status and Report("v", "b", found).verdict is status
    assert results.worst([]) is results.worst(ONE[:1]) is Status.INVALID
    assert [status.code for status in statuses] == [
        common.PASS,
        common.ENVIRONMENT,
        common.INVALID,
        common.FAIL,
        common.LOST,
    ]
    assert results.counted(ONE) == "1 passed, 4 failed, 1 skipped"
    assert Report("v", "b", ONE).why == "lost # <1>: detail of" and Report("v", "b", ONE[:2]).why == ""


def test_forms(tmp_path: Path) -> None:
    made = Report("v", "6.12", ONE, text="a table")
    made.write(tmp_path)
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["6", "1", "3", "1"]
    assert len(suite.findall("*/failure")) == 1 and len(suite.findall("*/error")) == 3
    assert [case.status for case in results.from_junit(tmp_path / "junit.xml", "s")] == [
        Status.SKIPPED,
        Status.PASS,
        Status.FAIL,
        Status.FAIL,
        Status.FAIL,
        Status.FAIL,
    ]
    ktap = (tmp_path / "result.ktap").read_text().splitlines()
    assert ktap[0] == "KTAP version 1" and "1..6" in ktap
    assert (
        sum(line.startswith("not ok") for line in ktap) == 4 and sum("# SKIP" in line for line in ktap) == 1
    )
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["verdict"] == "LOST" and found["results"][4]["status"] == "FAIL"
    assert (tmp_path / "table.txt").read_text() == "a table\n"


def test_result_json_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is, the run came to its end, and no form is half written."""
    def full(report: Report) -> str:
        raise OSError("no space")

    monkeypatch.setattr(results, "as_html", full)
    with pytest.raises(OSError, match="no space"):
        Report("v", "6.12", ONE).write(tmp_path)
    assert not (tmp_path / "result.json").exists()


def test_table() -> None:
    text = results.table([["a", "bb", "ccc"], [], ["long", "1", "2"]])
    assert text.splitlines() == ["a     bb  ccc", "-------------", "long   1    2"]
    assert "\033[1;31mFAIL\033[0m" in results.paint("a FAIL\n\nFAIL: why", Status.FAIL)
    assert results.paint("nothing", Status.FAIL) == "nothing"


def test_what_is_to_go_on_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeats of its rows do not push it out; of those that nobody goes on with, not all stay."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def a_matrix(finished: bool) -> Path:
        path = results.run_directory("v", "b")
        (path / results.PLAN).touch()
        if finished:
            (path / "result.json").touch()
        results.release(path)
        return path

    stopped = a_matrix(False) / "rows.jsonl"        # the directory's name may come again
    stopped.touch()
    for _ in range(2 * results.KEEP):
        a_matrix(True)
    assert stopped.exists() and len(list(stopped.parent.parent.glob("2*"))) <= results.KEEP + 1
    for _ in range(results.KEEP):
        a_matrix(False)
    assert not stopped.exists()


def test_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = []
    for _ in range(results.KEEP + 2):
        made.append(results.run_directory("v", "b"))
        results.release(made[-1])
    assert (
        len(set(made[-3:])) == 3
        and len(list(made[0].parent.glob("2*"))) == results.KEEP
        and made[-1].is_dir()
    )
    assert (made[-1].parent / "latest").resolve() == made[-1]
    with pytest.raises(Err, match="the disk is full"):
        results.run_directory("v", "b", 1 << 60)


def a_run(made: multiprocessing.Queue[Path]) -> None:
    made.put(results.run_directory("v", "b"))
    time.sleep(100)


def test_a_run_that_goes_on_keeps_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are; when their processes have died the oldest ones go."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    context = multiprocessing.get_context("fork")
    made: multiprocessing.Queue[Path] = context.Queue()
    processes = [context.Process(target=a_run, args=(made,), daemon=True) for _ in range(results.KEEP + 1)]
    for process in processes:
        process.start()
    paths = [made.get(timeout=60) for _ in processes]
    assert all(path.is_dir() for path in paths) and len(set(paths)) == results.KEEP + 1
    for process in processes:
        process.kill()
        process.join()
    results.run_directory("v", "b")
    assert len(list(paths[0].parent.glob("2*"))) == results.KEEP


def test_complaints() -> None:
    """One list for every console."""
    assert machine.complaints("fine\nBUG: KASAN: use-after-free\n") == ["BUG: KASAN: use-after-free"]
    assert machine.complaints("[    0.000000] kasan: KernelAddressSanitizer initialized (generic)\n") == []
    assert all(reason for _, reason in machine.ALLOWED)
