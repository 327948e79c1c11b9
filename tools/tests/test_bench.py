# SPDX-License-Identifier: GPL-2.0-only
"""make bench: what is read out of the consoles, and what misses a goal."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..common import Err
from ..kernel import bench
from ..kernel.bench import Size, Time
from ..results import Result, Status

LOG = """\
[    1.753146]     # packed: bench: streams=1 stride=64 bytes=18496 read_ns=5000 adopt_ns=100000
[    1.781034]     # packed: bench: streams=64 stride=64 bytes=22528 read_ns=7000 adopt_ns=118000
[    1.837173]     # packed: bench: streams=1024 stride=64 bytes=133120 read_ns=37000 adopt_ns=180000
[    2.058119]     # packed: bench: streams=65536 stride=64 bytes=8390656 read_ns=2405000 adopt_ns=6100000
"""
USED = {
    "unpatched": {"available_kib": 1000, "queues_kib": 8192},
    "patched": {"available_kib": 2000, "queues_kib": 4096},
}
SIZES = {
    "unpatched": {"y": Size(100, 10, 1), "n": Size(90, 10, 1)},
    "patched": {"y": Size(150, 10, 1), "n": Size(90, 10, 1)},
}


def missed(judged: list[Result]) -> list[str]:
    return [result.detail for result in judged if result.status is not Status.PASS]


def test_times() -> None:
    found = bench.times(LOG)
    assert found[0] == Time(1, 64, 18496, 5000, 100000) and len(found) == 4
    assert found[0].ratio == 20 and found[3].each(found[0]) == 2.5
    judged = bench.judge(found, USED, SIZES)
    assert not missed(judged) and len(judged) == 6
    with pytest.raises(Err):
        bench.times(LOG.replace("read_ns=7000", "read_ns=0"))


@pytest.mark.parametrize(
    "old, new, cause",
    [
        ("adopt_ns=6100000", "adopt_ns=7400000", "goal 3"),
        ("adopt_ns=180000", "adopt_ns=148000", "not linear"),
    ],
)
def test_times_that_miss_the_goal(old: str, new: str, cause: str) -> None:
    bad = missed(bench.judge(bench.times(LOG.replace(old, new)), USED, SIZES))
    assert len(bad) == 1 and cause in bad[0]


def test_memory() -> None:
    more = {**USED, "patched": {"available_kib": 900, "queues_kib": 8192}}
    assert len(missed(bench.judge(bench.times(LOG), more, SIZES))) == 2


def test_sizes() -> None:
    sizes = {**SIZES, "patched": {**SIZES["patched"], "n": Size(90, 14, 1)}}
    assert "4 bytes" in missed(bench.judge(bench.times(LOG), USED, sizes))[0]


def test_what_prereq_adds_is_not_the_series() -> None:
    queue = [Path(name) for name in ("q/1", "q/2", "q/prereq/1", "q/3")]
    assert bench.own(queue) == [(0, 2), (3, 4)]


def test_the_table() -> None:
    text = bench.page("9.8", bench.times(LOG), USED, SIZES)
    assert max(map(len, text.splitlines())) <= 110
    assert "+50" in text and "-4096" in text and "2.50" in text
