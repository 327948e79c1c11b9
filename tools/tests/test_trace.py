# SPDX-License-Identifier: GPL-2.0-only
"""The trace reader, on a few lines each: what it counts, and where it puts it.

Captured traces, and traces that cannot be read, are in test_judge.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..crash.trace import COUNTS, PHASES, read_trace

PANIC, SHUTDOWN = 1000.0, 2000.0
MEMORY = [(0x5000, 0x5fff), (0x8000, 0x8fff)]
OLD, NEW = "0x4000", "0x5000"
ON, PROBE = "write_mmio addr: 0x20 val:0x1 size: 0x4(0)", "write_mmio addr: 0x90 val:0x0 size: 0x8(0)"
OFF, TAKE = "write_mmio addr: 0x20 val:0x0 size: 0x4(0)", "cmdq_cfgi_ste streamid= 0x8"

Read = Callable[..., dict[str, Any]]


def success(addr: str, iova: str = "0x4") -> str:
    return f"translate_success r-8-1 sid=0x8 iova={iova} translated={addr} perm=0x3 stage=1"


def disabled(iova: str) -> str:
    return f"translate_disable r-8-1 sid=0x8 bypass (smmu disabled) iova:{iova} is_write=1"


ABORT = "translate_abort r-8-1 sid=0x8 abort on iova:0x0 is_write=0"


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read_events(*events: tuple[float, str]) -> dict[str, Any]:
        path = tmp_path / "trace.log"
        path.write_text("".join(f"7@{when:.6f}:smmuv3_{event}\n" for when, event in events))
        return read_trace(path, PANIC, SHUTDOWN, MEMORY)
    return read_events


def counted(stream: dict[str, Any]) -> dict[str, int]:
    """What is not 0."""
    return {f"{phase} {count}": stream[phase][count]
            for phase in PHASES for count in COUNTS if stream[phase][count]}


def test_phases(read: Read) -> None:
    (stream,) = read((999.999999, success(OLD)), (1000, success(OLD)), (1001, PROBE), (1001, success(OLD)),
                     (1002, TAKE), (1003, success(NEW)), (1999.999999, success(NEW)),
                     (2000, ABORT))["streams"]
    assert counted(stream) == {"before translated": 1, "window translated": 1, "adopted translated": 1,
                               "taken translated": 2, "end aborted": 1}
    assert (stream["first_dma"], stream["last_dma"], stream["take_over"]) == (1000, 1001, 1002)


def test_dma_of_the_crashed_kernel(read: Read) -> None:
    """What fails after the take-over is its DMA until one succeeds."""
    (stream,) = read((1000, success(OLD)), (1001, TAKE), (1002, ABORT), (1003, disabled(NEW)),
                     (1004, success(NEW)), (1005, ABORT))["streams"]
    assert (stream["first_dma"], stream["last_dma"], stream["late"]) == (1000, 1003, 2)


def test_the_first_counts(read: Read) -> None:
    (stream,) = read((1000, success("0x5123", "0x24")), (1001, TAKE), (1002, TAKE),
                     (1003, success(OLD)))["streams"]
    assert stream["take_over"] == 1001
    assert stream["example"] == {"iova": 0x24, "addr": 0x5123}


@pytest.mark.parametrize("when", [999.0, 2000.0])
def test_no_take_over(read: Read, when: float) -> None:
    for event in TAKE, "cmdq_cfgi_ste_range start=0x8 - end=0x8":
        (stream,) = read((0, success(OLD)), (when, event))["streams"]
        assert stream["take_over"] is None


@pytest.mark.parametrize(("start", "end", "taken"), [
    ("0x0", "0x8", True), ("0x8", "0x1f", True), ("0x8", "0xfffffffe", True),
    ("0x0", "0x7", False), ("0x9", "0x1f", False), ("0x0", "0xffffffff", False),
])
def test_a_range_is_taken_over(read: Read, start: str, end: str, taken: bool) -> None:
    (stream,) = read((0, success(OLD)), (1001, f"cmdq_cfgi_ste_range start={start} - end={end}"))["streams"]
    assert bool(stream["take_over"]) is taken


@pytest.mark.parametrize(("addr", "old", "new"), [
    ("0x4fff", 0, 1), ("0x5000", 1, 0), ("0x5fff", 1, 0), ("0x6000", 0, 1), ("0x8fff", 1, 0),
    ("0x8090000", 0, 0), ("0x8090fff", 0, 0), ("0x8091000", 0, 1),      # the page of the doorbell
])
def test_direction(read: Read, addr: str, old: int, new: int) -> None:
    bypass = f"translate_bypass r-8-1 sid=0x8 STE bypass iova:{addr} is_write=1"
    for event in success(addr), bypass, disabled(addr):
        (stream,) = read((999, event), (1000, event), (1001, TAKE), (1002, event), (2000, event))["streams"]
        # An old access past a disabled SMMU is wrong for that alone.
        assert stream["window"]["misdirected"] == (0 if "disable" in event else old)
        assert stream["taken"]["misdirected"] == new
        assert stream["before"]["misdirected"] == stream["end"]["misdirected"] == 0


def test_identity_to_identity(read: Read) -> None:
    """No command tells of that take-over: the first access into the crash kernel's memory does."""
    def bypass(addr: str) -> str:
        return f"translate_bypass r-8-1 sid=0x8 STE bypass iova:{addr} is_write=1"

    probe = (1001, PROBE)
    ours, past = (1003, bypass(NEW)), (1004, bypass(OLD))
    (stream,) = read((999, bypass(OLD)), probe, (1002, bypass(OLD)), ours, past)["streams"]
    assert stream["take_over"] == 1003 and stream["adopted"]["bypassed"] == 1
    assert stream["adopted"]["misdirected"] == 0 and stream["taken"]["misdirected"] == 1    # the past one
    # What was translated before, or comes before the SMMU's probe, is no take-over but an error.
    for lines in [(999, success(OLD)), probe, ours], [(999, bypass(OLD)), ours]:
        (stream,) = read(*lines)["streams"]
        assert not stream["take_over"]
        assert stream["adopted"]["misdirected"] + stream["window"]["misdirected"] == 1


def test_an_interrupt_is_no_data(read: Read) -> None:
    """A card that has been reset may still send one; frames that come by then need not land."""
    (stream,) = read((1001, success(OLD)), (1002, success("0x8090040")), (1003, TAKE))["streams"]
    assert (stream["first_dma"], stream["last_dma"]) == (1001, 1001)


def test_completions(read: Read) -> None:
    """16 bytes each; drained is what comes less than 20 ms after the one before."""
    (stream,) = read((999, success(OLD, "0x10")), (1000, success(OLD, "0x10")),
                     (1000.02, success(OLD, "0x20")), (1000.039999, success(OLD, "0x30")),
                     (1000.04, success(OLD, "0x34")),
                     (1000.04, success("0x8090040", "0x40")), (1001, TAKE),
                     (1002, success(NEW, "0x50")))["streams"]
    assert (stream["completions"], stream["drained"]) == (3, 1)
    # Several threads write the trace: a time may be before the last one.
    (stream,) = read((1001, success(OLD, "0x10")), (1000, success(OLD, "0x10")))["streams"]
    assert (stream["completions"], stream["drained"]) == (2, 0)


@pytest.mark.parametrize("text", [
    "r-8-1 sid=0x8 iova=0x4 translated=0x5000", "r-8-1 iova: 0x4 translated= 0x5000 sid:0x8",
    "r-8-1 xsid=0x9 x_sid=0x9 sid=8 sid=0x9 iova=4 translated=20480",
    "r-8-1 sid=0x sid=y sid = 0x9 (sid=0x8) iova=0x4 translated=0x translated=0x5000",
])
def test_fields(read: Read, text: str) -> None:
    (stream,) = read((1000, f"translate_success {text}"))["streams"]
    assert stream["sid"] == 8 and stream["example"] == {"iova": 4, "addr": 0x5000}


WRITES = ("cleared_smmuen", "wrote_strtab", "wrote_cr1", "wrote_cr2")


@pytest.mark.parametrize(("register", "said", "probe"), [
    ("0x20", "cleared_smmuen", True), ("0x28", "wrote_cr1", True), ("0x2c", "wrote_cr2", True),
    ("0x80", "wrote_strtab", True), ("0x84", "wrote_strtab", True), ("0x88", "wrote_strtab", True),
    ("0x44", "", True), ("0x90", "", True), ("0x98", "", False), ("0x50", "", False),
])
def test_register_writes(read: Read, register: str, said: str, probe: bool) -> None:
    write = f"write_mmio addr: {register} val:0x0 size: 0x4(0)"
    for before, when, wrong in ((ON, 1001, True), (OFF, 1001, False), (ON, 999, False)):
        found = read((900, before), (when, write))
        assert [name for name in WRITES if found[name]] == ([said] if said and wrong else [])
        assert found["probe"] == (when if probe and when > PANIC else None)


@pytest.mark.parametrize(("gbpa", "aborting"),
                         [("0x80100000", True), ("0x100000", False), ("0x80000000", False)])
def test_the_end(read: Read, gbpa: str, aborting: bool) -> None:
    """GBPA takes a value only with its UPDATE bit; the first time that SMMUEN is cleared counts."""
    found = read((900, ON), (1999, f"write_mmio addr: 0x44 val:{gbpa} size: 0x4(0)"), (2000, OFF),
                 (2001, "write_mmio addr: 0x44 val:0x80100000 size: 0x4(0)"), (2002, ON), (2003, OFF))
    assert (found["ended"], found["ended_aborting"], found["cleared_smmuen"]) == (True, aborting, 0)


def test_whose_fault(tmp_path: Path) -> None:
    """By the memory region's name, of which the first counts; else by the DEVFN in it."""
    path = tmp_path / "trace.log"
    path.write_text("7@1000.000000:smmuv3_translate_abort a-1-1 sid=0x8 abort on iova:0x0\n"
                    "7@1000.000000:smmuv3_translate_abort b-2-1 sid=0x8 abort on iova:0x0\n"
                    "a-1-1 translation failed for iova=0x0\n"
                    "b-2-1 translation failed for iova=0x0\n"
                    "b-264-0 translation failed for iova=0x0\n")
    found = read_trace(path, PANIC, SHUTDOWN, MEMORY)["streams"]
    assert [(s["sid"], s["window"]["faults"]) for s in found] == [(8, 1), (2, 1), (264, 1)]


def test_whole_seconds(tmp_path: Path) -> None:
    """QEMU 11 leaves a fraction of 0 out; the date may change."""
    path = tmp_path / "trace.log"
    path.write_text("".join(f"{stamp}Z smmuv3_{ABORT}\n" for stamp in (
        "2026-12-31T23:59:59.999999", "2027-01-01T00:00:00", "2027-01-01T00:00:00.000001")))
    (stream,) = read_trace(path, 1798761600.0, 1798761700.0, MEMORY)["streams"]
    assert counted(stream) == {"before aborted": 1, "window aborted": 2}
    assert (stream["first_dma"], stream["last_dma"]) == (1798761600.0, 1798761600.000001)


def test_as_many_streams_as_there_may_be(read: Read) -> None:
    events = [(0.0, f"cmdq_cfgi_ste streamid= {sid:#x}") for sid in range(65)]
    assert [s["sid"] for s in read(*events[:64])["streams"]] == list(range(64))
    with pytest.raises(ValueError, match="65: more than 64 StreamIDs"):
        read(*events)
