# SPDX-License-Identifier: GPL-2.0-only
"""The chart and its page, made of captured traces and of lines written by hand."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ..crash import judge, picture, report, workload
from ..crash import test as crash
from ..crash.scenario import DUMP, NIC, SLOW
from ..crash.trace import SLOT_US, read_trace
from ..queue import config
from ..results import as_html, Report, Result, Status
from .conftest import TOP, a_scenario

TRACES = Path(__file__).with_name("traces")
FACTS = json.loads((TRACES / "facts.json").read_text())
SVG, XHTML = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xhtml}"
SLOT = SLOT_US / 1e6
EVIL = "<script src='http://example.com/x.js'>&\x00\x1b]]> $\\frac{1$ --"
ABORT = "smmuv3_translate_abort smmuv3-iommu-memory-region-8-1 sid=0x8 abort on iova:0xfffc1380 is_write=0"


def run(trace: Path, name: str, which: str) -> judge.Judgement:
    """As judge_run() does, of a captured trace."""
    facts = FACTS[name]
    memory = [(int(start, 16), int(end, 16)) for start, end in facts["crash_memory"]]
    found = read_trace(trace, facts["panic"], facts["shutdown"], memory)
    judged = judge.judge(judge.Evidence(a_scenario(), found, which))
    judged.milestones = {"panic": facts["panic"], "crash kernel": facts["panic"] + 0.05,
                         "SMMU probe": found["probe"], "vmcore": facts["shutdown"] - 0.1}
    return judged


@pytest.fixture
def runs() -> dict[str, judge.Judgement]:
    return {which: run(TRACES / f"{which}-10.0.2.log", f"{which}-10.0.2", which)
            for which in ("unpatched", "patched")}


def a_report(found: Mapping[str, judge.Judgement]) -> Report:
    about = {"qemu": "QEMU 10.0.2", "kernels": {which: {"first": "k1", "crash": "k2"} for which in found},
             "scenario": a_scenario().values}
    made = Report("crash-test", "6.12", found["patched"].results, about)
    made.text = report.page("6.12", "QEMU 10.0.2", a_scenario(), found, made.verdict)
    return made


def whole(found: Mapping[str, judge.Judgement]) -> str:
    made = a_report(found)
    made.html = picture.page(made, found, picture.svg(found), "make again")
    return as_html(made)


def page(found: Mapping[str, judge.Judgement]) -> ElementTree.Element:
    return ElementTree.fromstring(whole(found))


def texts(chart: str) -> list[str]:
    return ["".join(one.itertext()) for one in ElementTree.fromstring(chart).iter(f"{SVG}text")]


def series(chart: str) -> set[str]:
    return {name for one in ElementTree.fromstring(chart).iter(f"{SVG}g")
            if re.fullmatch(r"\w+-0x\w+-.*", name := one.get("id", ""))}


def numbers(found: Mapping[str, judge.Judgement]) -> dict[tuple[str, str, str], int]:
    """The page's table: (kernel, device, outcome) -> accesses."""
    rows = [[cell.text or "" for cell in row.iter(f"{XHTML}td")] for row in page(found).iter(f"{XHTML}tr")]
    return {(which, device, what): int(number) for which, device, what, number, *_ in
            (row for row in rows if len(row) == 7)}


def test_both_kernels(runs: dict[str, judge.Judgement]) -> None:
    chart = picture.svg(runs)
    said = texts(chart)
    for which, judged in runs.items():
        assert any(text.startswith(f"{which}: {judged.verdict}") for text in said)
        for mark, when in list(judged.milestones.items())[1:]:
            assert f"{mark} {when - judged.milestones['panic']:.2f} s" in said
    assert said.count("panic") == 2 and said.count("NIC 0x8") == 2
    assert "↓ aborted" in said or "↓ faulted" in said
    ids = series(chart)
    assert {"patched-0x8-kept", "unpatched-0x8-kept", "patched-0x18-own", "patched-0x8-take-over"} <= ids
    lost = {name.rpartition("-")[2] for name in ids} & {"aborted", "faulted", "bypassed", "misdirected"}
    assert lost and not any(name.startswith("patched") and name.endswith(tuple(lost)) for name in ids)


def test_sums(runs: dict[str, judge.Judgement]) -> None:
    """The chart's figures are the table's."""
    found, ids = numbers(runs), series(picture.svg(runs))
    labels = {key: how.label for key, how in picture.OUTCOMES.items()}
    for which, judged in runs.items():
        for row in judged.rows:
            shown = {key: found.get((which, picture.name(row.sid), label), 0)
                     for key, label in labels.items()}
            assert (shown["kept"], shown["aborted"], shown["faulted"], shown["misdirected"]) == \
                (row.translated, row.aborted, row.faulted, row.misdirected)
            assert {key for key, number in shown.items() if number} <= {
                name.rpartition("-")[2] for name in ids if name.startswith(f"{which}-{row.sid:#x}-")}
    assert any(row.aborted or row.faulted for row in runs["unpatched"].rows)


def test_one_abort_is_shown(tmp_path: Path, runs: dict[str, judge.Judgement]) -> None:
    """Control: the same trace with one line more."""
    assert "patched-0x8-aborted" not in series(picture.svg(runs))
    lines = (TRACES / "patched-10.0.2.log").read_text().splitlines(keepends=True)
    panic = runs["patched"].milestones["panic"]
    at = next(number for number, line in enumerate(lines) if "sid=0x8 iova" in line
              and float(line.split("@")[1].split(":")[0]) > panic)
    lines.insert(at, f"{lines[at].split(':')[0]}:{ABORT}\n")
    path = tmp_path / "trace.log"
    path.write_text("".join(lines))
    runs["patched"] = run(path, "patched-10.0.2", "patched")
    chart = picture.svg(runs)
    assert "patched-0x8-aborted" in series(chart)
    assert any("1 aborted" in text for text in texts(chart))
    assert numbers(runs)["patched", "NIC 0x8", "aborted"] == 1


PANIC, MEMORY = 1000.0, [(0x5000, 0x5fff)]
OLD = "translate_success r-8-1 sid=0x8 iova=0x4 translated=0x4000 perm=0x3 stage=1"
NEW = "translate_success r-8-1 sid=0x8 iova=0x4 translated=0x5000 perm=0x3 stage=1"
BYPASS = "translate_bypass r-8-1 sid=0x8 STE bypass iova:0x4004 is_write=1"
FAULT = "smmu-8-1 translation failed for iova=0x0 (SMMU_EVT_F_TRANSLATION)\n"


def lanes(tmp_path: Path, *events: tuple[float, str]) -> picture.Slots:
    """Of the card, of events at these seconds after the panic."""
    path = tmp_path / "trace.log"
    path.write_text("".join(text if text == FAULT else f"7@{PANIC + when:.6f}:smmuv3_{text}\n"
                            for when, text in events))
    trace = read_trace(path, PANIC, PANIC + 10, MEMORY)
    return picture.lanes(judge.Judgement([], 0.0, trace=trace, milestones={"panic": PANIC}))[NIC]


def test_slots_and_outcomes(tmp_path: Path) -> None:
    take = "cmdq_cfgi_ste streamid= 0x8"
    assert lanes(tmp_path, (-0.3, OLD), (-0.2, OLD), (-0.01, OLD), (0, OLD), (0.049999, OLD), (0.05, NEW),
                 (0.1, "record_event F sid=0x8"), (0.1, FAULT), (0.11, FAULT), (0.2, take), (0.21, NEW),
                 (0.22, OLD), (10, NEW)) == {
        "kept": {-4: 1, -1: 1, 0: 2}, "misdirected": {1: 1, 4: 1}, "faulted": {2: 2}, "own": {4: 1}}


def test_a_bypass_is_lost_or_not(tmp_path: Path) -> None:
    """Not for a stream that the crashed kernel let bypass, or when its SMMU was off."""
    raw = "translate_disable r-8-1 sid=0x8 bypass (smmu disabled) iova:0x4004 is_write=1"
    for before, after, key in ((OLD, BYPASS, "bypassed"), (OLD, raw, "bypassed"), (BYPASS, raw, "bypassed"),
                               (BYPASS, BYPASS, "identity"), (raw, raw, "identity")):
        assert lanes(tmp_path, (-2, raw), (-1, before), (0, after)) == {key: {0: 1}}


def test_bars_share_a_slot() -> None:
    found = picture.bars({"kept": {0: 5, 1: 3}, "aborted": {0: 7}, "faulted": {0: 1}})
    assert found == {"kept": [(0, SLOT, 5), (SLOT, 2 * SLOT, 3)], "aborted": [(0, SLOT / 2, -7)],
                     "faulted": [(SLOT / 2, SLOT, -1)]}
    assert picture.outline(found["kept"]) == [
        [(0, 0), (0, 5), (SLOT, 5), (SLOT, 3), (2 * SLOT, 3), (2 * SLOT, 0)]]
    assert len(picture.outline([(0, 1, 2), (3, 4, 2)])) == 2


def test_no_label_lies_on_another(runs: dict[str, judge.Judgement]) -> None:
    judged = runs["patched"]
    judged.milestones = {name: judged.milestones["panic"] + at for name, at in
                         (("panic", 0), ("crash kernel", 0.01), ("SMMU probe", 0.02), ("vmcore", 3))}
    chart = picture.Chart({"patched": judged}, picture.scale([judged]))
    assert [(mark, row) for mark, _, _, row in chart.stagger(judged)] == [
        ("vmcore", 0), ("SMMU probe", 0), ("crash kernel", 1), ("panic", 2)]


def test_the_same_bytes(runs: dict[str, judge.Judgement]) -> None:
    chart = picture.svg(runs)
    assert chart == picture.svg(copy.deepcopy(runs))
    assert not re.search(r"<metadata|<dc:date|\d{4}-\d\d-\d\d", chart)


def no_network(text: str) -> bool:
    """No address but names of XML, and no reference but within the file."""
    rest = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    refers = re.findall(r"""(?:href|src)\s*=\s*["']?([^"'\s>]*)""", rest)
    return not re.search(r"https?:|//\w|@import|<script|<link|<iframe|<object|<img", rest) and all(
        one.startswith("#") for one in refers) and all(
        one.startswith("#") for one in re.findall(r"url\(['\"]?([^)]*)", rest))


def test_the_page_needs_nothing(runs: dict[str, judge.Judgement]) -> None:
    text = whole(runs)
    assert no_network(text)
    for lie in ('<a href="x">', "<img src=x>", "url(x.woff)", "http://x", "<script>"):
        assert not no_network(text + lie), lie


def test_hostile_text(runs: dict[str, judge.Judgement]) -> None:
    for judged in runs.values():
        judged.results.append(Result("patched", EVIL, Status.LOST, EVIL))
    said = page(runs)
    assert not list(said.iter(f"{XHTML}script")) and not list(said.iter("script"))
    assert any("<script src=" in (cell.text or "") for cell in said.iter(f"{XHTML}td"))
    assert any(EVIL[:38] in text for text in texts(picture.svg(runs)))


def test_nothing_to_draw(tmp_path: Path, runs: dict[str, judge.Judgement]) -> None:
    lost = judge.Judgement([Result("patched", "the machine", Status.LOST, "QEMU ended <early>")], 1.0)
    made = a_report({"patched": lost})
    picture.draw(tmp_path, made, {"patched": lost}, "make again")
    made.write(tmp_path)
    said = "".join(ElementTree.parse(tmp_path / "report.html").getroot().itertext())
    assert "Nothing to draw: patched: QEMU ended <early>" in said and "make again" in said
    assert not (tmp_path / "picture.svg").exists()
    # Beside one that has something.
    runs["patched"] = lost
    made = a_report(runs)
    picture.draw(tmp_path, made, runs, "make again")
    made.write(tmp_path)
    said = "".join(ElementTree.parse(tmp_path / "picture.svg").getroot().itertext())
    assert "patched: LOST (QEMU ended <early>): nothing to draw" in said and "unpatched: FAIL" in said


def test_an_end_that_never_came(runs: dict[str, judge.Judgement]) -> None:
    """No probe, no vmcore, and a card that goes on for longer than is drawn."""
    judged = runs["patched"]
    panic = judged.milestones["panic"]
    judged.milestones = {"panic": panic, "machine's end": panic + 180}
    card = next(stream for stream in judged.trace["streams"] if stream["sid"] == NIC)
    card["slots"] = {"window": {"translated": {slot: 1 for slot in range(0, 3000, 7)}}}
    assert picture.scale([judged]).end == picture.LONGEST
    card["take_over"] = panic + 100
    assert picture.scale([judged]).bend < 5
    chart = picture.svg({"patched": judged})
    late = len([slot for slot in range(0, 3000, 7) if slot * SLOT >= picture.LONGEST])
    assert any(f"({late} after 30 s)" in text for text in texts(chart))
    assert "machine's end 180.00 s" in texts(chart) and "patched-0x8-take-over" not in series(chart)
    judged.trace["streams"] = []
    assert {"NIC 0x8", "panic"} <= set(texts(picture.svg({"patched": judged})))


def test_milestones(tmp_path: Path) -> None:
    """What the host heard, and the start of the crash kernel by what its clock said."""
    marks = [(1.0, "hello first 6.12 900"), (2.0, "panic"), (3.0, "hello crash 6.12 700"),
             (5.0, "vmcore 0 9 9")]
    heard = workload.Run(tmp_path, a_scenario(), 1, marks, end=7.0)
    assert judge.milestones(heard, 2.0, {"probe": 2.6}) == {
        "panic": 2.0, "crash kernel": pytest.approx(2.3), "SMMU probe": 2.6, "vmcore": 5.0}
    heard.marks[2:] = [(3.0, "hello crash 6.12"), (5.0, "vmcore 1 0 9")]
    heard.lost = "no end"
    assert judge.milestones(heard, 2.0, {"probe": None}) == {
        "panic": 2.0, "makedumpfile failed": 5.0, "machine's end": 7.0}


@pytest.mark.parametrize("count", [1, 20])
def test_as_many_lanes_as_devices(runs: dict[str, judge.Judgement], count: int) -> None:
    card = next(stream for stream in runs["patched"].trace["streams"] if stream["sid"] == NIC)
    runs["patched"].trace["streams"] += [{**card, "sid": 0x100 + 8 * number} for number in range(count)]
    said = texts(picture.svg(runs))
    assert sum("StreamID 0x" in text for text in said) == 2 * count
    assert {f"{picture.name(sid)}" for sid in (NIC, SLOW, DUMP)} <= set(said)


def test_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's command, done by a shell, gives the very scenario."""
    monkeypatch.delenv("KSRC", raising=False)
    assert crash.again("6.12", a_scenario()) == "make crash-test BASE=6.12 CONFIG=default_defconfig"
    odd = a_scenario(uefi=True, panic_ms=57, devices='-device "a b",c=$d\\e')
    command = crash.again("6.12", odd)
    assert command.endswith('\nmake crash-test BASE=6.12 CONFIG="$again"')
    done = subprocess.run(["sh", "-c", command.replace("make crash-test", "echo")], check=True,
                          env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True)
    assert config.load(done.stdout.split("CONFIG=")[1].strip()).starting("CRASH_") == odd.values


def test_the_picture_of_the_readme() -> None:
    path = TOP / "Documentation" / "crash-test.svg"
    text = path.read_text()
    assert len(text) < 60_000 and no_network(text)
    said = texts(text)
    assert any(one.startswith("unpatched: FAIL") for one in said) and "patched: PASS" in said
    assert {"patched-0x8-kept", "unpatched-0x8-kept", "patched-0x8-take-over"} <= series(text)
    assert "(Documentation/crash-test.svg)" in (TOP / "README.md").read_text()
