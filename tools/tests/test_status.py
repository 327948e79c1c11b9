# SPDX-License-Identifier: GPL-2.0-only
"""make status: what is recorded, what is stale, and README.md's table."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..kernel import gate
from ..queue import status
from ..queue.store import Store
from ..results import Result, Status

NOW = {"package": "linux-source-6.12_6.12.117-1_all", "series": "aaaa", "tools": "bbbb"}
ROW = "| 6.12 | `linux-source-6.12`, Debian 12 | default   | FAIL (rules 2, 4, 5) / PASS     | 38/38   |"
PAGE = f"# x\n\n| Base | Comes from | Status | Crash test | KUnit |\n{ROW}\n\ntext | 6.12 | more\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("KSRC", raising=False)
    monkeypatch.setattr(status, "state", lambda base: dict(NOW))
    monkeypatch.setattr(status, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text(PAGE)
    return tmp_path


def test_a_result_is_kept_with_its_state() -> None:
    status.record("6.12", "kunit", Status.PASS, "38/38", NOW)
    status.record("6.12", "gate", Status.FAIL, "9 passed, 1 failed", NOW, {"0001 builds": "PASS"})
    known = status.read("6.12")
    assert known["kunit"]["state"] == NOW and known["gate"]["rows"] == {"0001 builds": "PASS"}
    assert status.cell(known["kunit"], NOW).startswith("PASS 38/38 (20") and status.read("7.3") == {}
    assert status.cell(None, NOW) == "never run"


@pytest.mark.parametrize("part", list(NOW))
def test_what_has_changed_makes_it_stale(part: str) -> None:
    status.record("6.12", "kunit", Status.PASS, "38/38", NOW)
    one = status.read("6.12")["kunit"]
    assert status.cell(one, NOW | {part: "other"}).endswith(f", stale: other {part}")


def test_a_tree_of_the_users_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSRC", "/a/tree")
    status.record("6.12", "kunit", Status.PASS, "38/38", NOW)
    assert status.read("6.12") == {}


def test_readme() -> None:
    """Only the cells of the base's own row, and only what is known of today's state."""
    assert status.readme(PAGE) == PAGE and status.differs() == ""
    status.record("6.12", "kunit", Status.PASS, "39/39", NOW)
    new = status.readme(PAGE)
    assert new == PAGE.replace("38/38", "39/39")
    assert "README.md says" in status.differs() and "39/39" in status.differs()
    status.record("6.12", "kunit", Status.PASS, "38/38", NOW)
    # Which rules the unpatched kernel breaks may vary; that the patched one fails is another thing.
    status.record("6.12", "crash-test", Status.PASS, "FAIL (rules 2, 4) / PASS", NOW)
    assert status.differs() == ""
    status.record("6.12", "crash-test", Status.FAIL, "FAIL (rules 2, 4) / FAIL (rule 2)", NOW)
    assert "FAIL (rules 2, 4) / FAIL (rule 2)" in status.readme(PAGE) and status.differs()


def test_a_stale_result_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    status.record("6.12", "kunit", Status.PASS, "39/39", NOW)
    monkeypatch.setattr(status, "state", lambda base: NOW | {"series": "cccc"})
    assert status.differs() == ""


def test_the_state_sees_each_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = status.state("6.12")
    assert before == status.state("6.12") != status.state("7.3")
    monkeypatch.setattr(status, "TOOLS", ("tools/kernel",))
    assert {part for part, value in status.state("6.12").items() if value != before[part]} == {"tools"}


def test_patch_ids() -> None:
    known = status.same(Store("6.12", ""), Store("6.12", ""))
    assert set(known.values()) == {"the same"}
    other = status.same(Store("6.12", ""), Store("7.3", ""))
    assert other.keys() == known.keys() and "differs" in other.values()


def test_rows_of_the_gate() -> None:
    found = gate.patch_cells([Result("0001", "W=1", Status.PASS, figures={"cell": "0>0"}),
                              Result("0001", "cocci", Status.FAIL, figures={"cell": "1"}),
                              Result("0001", "kunit", Status.PASS, figures={"cell": "25/25"})])
    assert found == {"0001 builds": "PASS", "0001 gate": "FAIL", "0001 kunit": "25/25"}
