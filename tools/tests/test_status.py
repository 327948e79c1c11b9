# SPDX-License-Identifier: GPL-2.0-only
"""make status: what is recorded, what is stale, and README.md's table."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from ..common import ENVIRONMENT, FAIL, TOP, Err, cache_dir
from ..kernel import gate
from ..queue import archive, bases, status
from ..queue.store import Store, digest, series
from ..results import Result, Status

NOW = {"package": "linux-source-6.12_6.12.117-1_all", "series": "aaaa", "tools": "bbbb"}
ROW = (f"| 6.12 | {'`linux-source-6.12`, Debian 12':<44} | default     | FAIL (rules 2, 4, 5) / PASS     "
       "| 38/38   |")
HEAD = "| Base | Comes from | Status | Crash test | KUnit |\n|---|---|---|---|---|\n"
MARK = f"<!-- series and tools: 6.12={digest(*['aaaa', 'bbbb'] * 2)[:12]} -->"
PAGE = f"# x\n\n{HEAD}{ROW}\n\n{MARK}\n\ntext | 6.12 | more\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("KSRC", raising=False)
    monkeypatch.setattr(status, "state", lambda base, name: dict(NOW))
    monkeypatch.setattr(status, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text(PAGE)
    return tmp_path


@pytest.fixture
def one_base(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"6.12": bases.get("6.12")}
    monkeypatch.setattr(bases, "read", lambda: dict(known))


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


def test_readme(one_base: None) -> None:
    """Only the table, and in it only what is known of today's state."""
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


def test_the_table_has_a_row_for_each_base(one_base: None, here: Path) -> None:
    """With the status that patches/bases gives it; one that is gone goes."""
    text = PAGE.replace("| default     |", "| best-effort |").replace(ROW[:6], "| 6.11", 1)
    (here / "README.md").write_text(text)
    assert "6.11" in status.differs()
    new = status.readme(text)
    assert "6.11" not in new and "| 6.12 | `linux-source-6.12` " in new and "| default     | - " in new
    assert status.readme(new) == new
    assert status.readme(PAGE.replace("| default     |", "| best-effort |")) == PAGE
    (here / "README.md").write_text(new.replace(new.splitlines()[4] + "\n", ""))
    assert "6.12" in status.differs()


def test_a_result_that_is_none(one_base: None, capsys: pytest.CaptureFixture[str]) -> None:
    """A record that somebody edited, or of other tools: the whole results in it count."""
    status.record("6.12", "kunit", Status.PASS, "38/38", NOW)
    whole = status.read("6.12")["kunit"]
    for name, one in [("gate", whole | {"verdict": "FINE"}), ("gate", whole | {"state": "x"}), ("", whole),
                      ("gate", {key: value for key, value in whole.items() if key != "when"}), ("gate", [1])]:
        (cache_dir("records") / "6.12.json").write_text(json.dumps({name: one, "kunit": whole}))
        assert status.read("6.12") == {"kunit": whole} and "some of its results" in capsys.readouterr().err
    status.main(lambda base: None)


@pytest.mark.parametrize("text", ["", "{", '{"kunit": {"verd', "[1]"])
def test_a_damaged_record(text: str, one_base: None, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It hides no base, and costs no later result."""
    status.record("6.12", "kunit", Status.PASS, "38/38", NOW)
    next(here.rglob("6.12.json")).write_text(text)
    assert status.read("6.12") == {} and "is damaged" in capsys.readouterr().err
    status.record("6.12", "kunit", Status.PASS, "39/39", NOW)
    assert status.read("6.12")["kunit"]["said"] == "39/39"


@pytest.mark.parametrize("part", ["series", "tools"])
def test_readme_shows_what_is_stale(part: str, one_base: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any record of this machine, too; a newer package leaves what was seen of the one before."""
    other = NOW | {part: "cccc"}
    monkeypatch.setattr(status, "state", lambda base, name: other | {"package": "newer"})
    new = status.readme(PAGE)
    assert re.findall(r"\| (stale)\b", new) == ["stale"] * 2 and MARK not in new and status.readme(new) == new
    assert "stale" in status.differs()
    status.record("6.12", "kunit", Status.PASS, "39/39", NOW)       # of the series before
    assert status.readme(PAGE) == new
    status.record("6.12", "kunit", Status.PASS, "40/40", other | {"package": "newer"})
    assert "| 40/40   |" in status.readme(PAGE) and "| 40/40   |" in status.readme(new)
    monkeypatch.setattr(status, "state", lambda base, name: NOW | {"package": "newer"})
    assert status.readme(PAGE) == PAGE


def test_a_series_with_a_hole(here: Path, monkeypatch: pytest.MonkeyPatch,
                              capsys: pytest.CaptureFixture[str]) -> None:
    """It is an error of that base alone, also where it is the newest one, and leaves its row."""
    known = {name: bases.get(name) for name in ("6.12", "7.3")}
    monkeypatch.setattr(bases, "read", lambda: dict(known))
    text = status.readme(PAGE)
    (here / "README.md").write_text(text)

    def queue(store: Store) -> list[Path]:
        if store.base.name == "7.3":
            raise Err("series names 0003-x.patch, which is not there", "mend the series", FAIL)
        return series(store.base.patches)
    monkeypatch.setattr(Store, "queue", queue)
    monkeypatch.setattr(status, "state", lambda base, name: NOW | {"series": NOW["series"] * bool(
        Store(base, "").queue())})
    monkeypatch.setattr(status, "applies", lambda store: {"0001": "yes"})
    monkeypatch.setattr(status, "newer", lambda *words: "")
    assert status.main(lambda base: None) == FAIL
    out = capsys.readouterr().out
    assert "7.3: series names 0003-x.patch" in out and "6.12: linux-source-6.12" in out
    assert status.README.read_text() == text and status.differs() == ""


def test_the_state_sees_each_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = status.state("6.12", "kunit")
    assert before == status.state("6.12", "kunit") != status.state("7.3", "kunit")
    monkeypatch.setattr(status, "TOOLS", ("tools/kernel",))
    after = status.state("6.12", "kunit")
    assert {part for part, value in after.items() if value != before[part]} == {"tools"}


@pytest.mark.parametrize("changed, stale", [
    ("tools/kernel/gate.py", {"gate", "bench"}), ("tools/kernel/mutants.py", {"mutants"}),
    ("tools/crash/judge.py", {*status.VERBS} - {"kunit", "gate"}), ("tools/machine.py", {*status.VERBS}),
    ("tools/kernel/kunit.py", {"kunit", "gate", "mutants", "bench"}), ("tools/lint/rows.py", set())])
def test_a_tool_makes_stale_what_it_judges(changed: str, stale: set[str], monkeypatch: pytest.MonkeyPatch,
                                           tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = {verb: status.state("6.12", verb) for verb in status.VERBS}
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes",
                        lambda path: read(path) + b"#" * (path == TOP / changed))
    assert {verb for verb in status.VERBS if status.state("6.12", verb) != before[verb]} == stale


def test_each_verb_names_its_modules() -> None:
    """What a verb's module takes of the rooms kernel and crash must be among its tools."""
    def taken(module: str) -> set[str]:
        text = (TOP / module).read_text()
        of = [name for line in re.findall(r"^from \. import (.*)$", text, re.M) for name in line.split(", ")]
        return {f"tools/kernel/{name}.py" for name in of if module.startswith("tools/kernel")}

    for verb, tools in status.VERBS.items():
        known, seen = {*status.TOOLS, *tools}, set[str]()
        left = {tool for tool in tools if tool.startswith("tools/kernel")}
        while left:
            seen |= left
            left = {name for module in left for name in taken(module)} - seen
        assert seen <= known, verb


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


# The archive's newer package.

OLD, NEW = "linux-source-6.12_6.12.9-1_all", "linux-source-6.12_6.12.10-1~deb12u1_all"


def offered(monkeypatch: pytest.MonkeyPatch, version: str | Err) -> list[str]:
    """The list gets the UPDATE= of each question to the archive."""
    asked: list[str] = []

    def newest(package: str, suites: object) -> str:
        asked.append(os.environ["UPDATE"])
        if isinstance(version, Err):
            raise version
        return version
    monkeypatch.setattr(archive, "newest", newest)
    return asked


@pytest.mark.parametrize("version, said", [
    ("6.12.9-1", ""), ("6.12.8-1", ""), ("", "not known: the archive does not have linux-source-6.12 any"),
    (Err("no network"), "not known: no network"), ("6.12.10-1", "6.12.10-1; make status UPDATE=1 tells")])
def test_a_newer_package_is_named(monkeypatch: pytest.MonkeyPatch, version: str | Err, said: str) -> None:
    offered(monkeypatch, version)
    found = status.newer("6.12", OLD, None)
    assert found.startswith(f"newer: {said}") if said else not found


@pytest.mark.parametrize("applied, built, said", [
    ("yes", None, "PASS applies, builds"), ("NO", None, "FAIL 0001 does not apply"),
    ("yes", Err("x.c:1: error: y", "", FAIL), "FAIL applies, does not build"),
    ("yes", Err("the disk is full", "", ENVIRONMENT), "not known: the disk is full")])
def test_a_newer_package_is_tried(monkeypatch: pytest.MonkeyPatch, here: Path, applied: str,
                                  built: Err | None, said: str) -> None:
    """In a cache of its own, of which nothing is left."""
    asked = offered(monkeypatch, "6.12.10-1~deb12u1")
    monkeypatch.setattr(status, "applies", lambda store: {"0001": applied})
    before = dict(os.environ)
    monkeypatch.setattr(status, "state",
                        lambda base, name: NOW | ({"package": NEW} if dict(os.environ) != before else {}))

    def build(base: str) -> None:
        assert os.environ["XDG_CACHE_HOME"] == str(here / "smmuv3-kdump" / "newer") and base == "6.12"
        assert (here / "smmuv3-kdump" / "newer" / "smmuv3-kdump" / "ccache").is_dir()
        if built:
            raise built

    found = status.newer("6.12", OLD, build)
    assert said in found and dict(os.environ) == before and asked == ["1"]
    assert not (here / "smmuv3-kdump" / "newer").exists()
    if "not known" not in said:
        assert found == status.newer("6.12", OLD, None) and "stale" not in found
        assert "make kunit BASE=6.12 UPDATE=1" in found
        monkeypatch.setattr(status, "state", lambda base, name: NOW | {"tools": "cccc"})
        assert "stale: other tools" in status.newer("6.12", OLD, None)
        offered(monkeypatch, "6.12.11-1")
        assert "6.12.11-1; make status UPDATE=1" in status.newer("6.12", OLD, None)


def test_a_base_that_cannot_be_had(one_base: None, monkeypatch: pytest.MonkeyPatch,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    """It does not hide the others; and neither UPDATE= nor KSRC= makes status judge another source."""
    monkeypatch.setenv("UPDATE", "1")
    monkeypatch.setenv("KSRC", "/a/tree")

    def applies(store: Store) -> dict[str, str]:
        assert "UPDATE" not in os.environ and "KSRC" not in os.environ
        raise Err("the archive does not have it (any more)", "KSRC=<kernel tree>")
    monkeypatch.setattr(status, "applies", applies)
    assert status.main(lambda base: None) == ENVIRONMENT
    assert "6.12: the archive does not have it (any more); next: KSRC=" in capsys.readouterr().out
