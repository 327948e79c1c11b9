# SPDX-License-Identifier: GPL-2.0-only
"""The trace reader and the judge, on captured traces. test_trace.py has the reader alone.

Each trace in traces/ was captured from a real run and thinned out; facts.json says when that
run panicked and shut down and where its crash kernel lived. The bad traces are the clean
one with a small edit, so that each rule is seen to pass and to fail.
"""

from __future__ import annotations

import copy
import datetime
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .. import machine
from ..crash import damage, judge, report, vmcore, workload
from ..crash.scenario import DUMP, NIC, RESERVE, SLOW
from ..crash.trace import DOORBELL, read_trace
from ..results import Result, Status
from .conftest import TOP, a_scenario

PASS, FAIL, INVALID = Status.PASS, Status.FAIL, Status.INVALID
TRACES = Path(__file__).with_name("traces")
FACTS = json.loads((TRACES / "facts.json").read_text())
CLEAN = "patched-10.0.2"
BOOT = "[0.0] Booting Linux on physical CPU 0x0\n[0.1] fine\n"
TOLD = f"Kernel command line: {a_scenario().crash_cmdline()} elfcorehdr=0x1\n"
CONSOLE = BOOT + BOOT + TOLD


class Case:
    """A captured trace, as lines to edit, and its judgement."""

    def __init__(self, tmp_path: Path, name: str = CLEAN) -> None:
        self.path = tmp_path / "trace.log"
        facts = FACTS[name]
        self.panic, self.shutdown = facts["panic"], facts["shutdown"]
        self.memory = [(int(start, 16), int(end, 16)) for start, end in facts["crash_memory"]]
        self.lines = (TRACES / f"{name}.log").read_text().splitlines(keepends=True)

    def time(self, line: str) -> float:
        match = re.match(r"\d+@(\d+\.\d+):", line)
        return float(match[1]) if match else 0.0

    def find(self, pattern: str, after: float | None = None) -> int:
        """The first matching line after the panic."""
        after = self.panic if after is None else after
        return next(
            i for i, line in enumerate(self.lines) if re.search(pattern, line) and self.time(line) > after
        )

    def insert(self, at: int, event: str) -> None:
        stamp = self.lines[at].split(":")[0]
        self.lines.insert(at, f"{stamp}:{event}\n")

    def trace(self) -> dict[str, Any]:
        self.path.write_text("".join(self.lines))
        return read_trace(self.path, self.panic, self.shutdown, self.memory)

    def evidence(self) -> judge.Evidence:
        """With frames sent all the time, and all that were due in the vmcore."""
        trace = self.trace()
        sent = [self.panic - 1 + i / 400 for i in range(4000)]
        completions = next((s["completions"] for s in trace["streams"] if s["sid"] == SLOW), 0)
        return judge.Evidence(
            a_scenario(),
            trace,
            "patched",
            sent,
            self.panic,
            frames=set(range(4000)),
            reads=set(range(completions)),
            console=CONSOLE,
        )

    def judge(self) -> judge.Judgement:
        return judge.judge(self.evidence())


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def failed(judgement: judge.Judgement) -> list[int]:
    numbers = [rule.number for rule in judge.RULES]
    return [number for number in numbers if (found := judgement.rule(number)) and found.status is FAIL]


def rule(judgement: judge.Judgement, number: int) -> Result:
    found = judgement.rule(number)
    assert found
    return found


# --- what each supported QEMU writes


@pytest.mark.parametrize("name", sorted(FACTS))
def test_formats_captured(tmp_path: Path, name: str) -> None:
    judgement = Case(tmp_path, name).judge()
    if name.startswith("patched"):
        assert judgement.verdict == "PASS", judgement.results
    else:
        assert judgement.verdict == "FAIL"
        assert 2 in failed(judgement) and 4 in failed(judgement)
    rows = {row.sid: row for row in judgement.rows}
    assert rows[NIC].in_flight and rows[NIC].translated >= judge.MIN_TRANSLATIONS


def test_formats_agree(case: Case) -> None:
    """The same run in the form of QEMU 11: other time stamps, also on guest errors."""

    def iso(line: str) -> str:
        when = case.time(line)
        if not when:
            return line
        stamp = datetime.datetime.fromtimestamp(int(when), datetime.UTC)
        micros = line.split(":")[0].split(".")[1]
        text = line.split(":", 1)[1].replace("smmuv3_record_event", "smmuv3_propagate_event")
        fraction = "" if micros == "000000" else f".{micros}"
        return f"{stamp:%Y-%m-%dT%H:%M:%S}{fraction}Z {text}"

    # One line at a whole second, where QEMU 11 leaves the fraction out.
    second = next(
        i
        for i in range(1, len(case.lines))
        if 0 < int(case.time(case.lines[i - 1])) < int(case.time(case.lines[i]))
    )
    case.lines.insert(second, f"1@{int(case.time(case.lines[second]))}.000000:smmuv3_get_cd CD addr: 0x0\n")
    before = case.trace()
    case.lines = [iso(line) for line in case.lines]
    assert any(re.match(r"\S+\d\dZ smmuv3_get_cd", line) for line in case.lines)
    assert case.trace() == before


# --- rule by rule: the clean trace passes, a small edit fails


def test_clean(case: Case) -> None:
    judgement = case.judge()
    assert judgement.verdict == "PASS"
    assert [r.status for r in judgement.results] == [PASS] * 8


def test_rule1_too_few_translations(case: Case) -> None:
    keep = 10
    lines = []
    for line in case.lines:
        if "translate_success" in line and case.panic <= case.time(line) <= case.shutdown:
            keep -= 1
            if keep < 0:
                continue
        lines.append(line)
    case.lines = lines
    judgement = case.judge()
    assert rule(judgement, 1).status == INVALID
    assert "fewer than 32" in rule(judgement, 1).detail


def test_rule1_no_crash_kernel(case: Case) -> None:
    case.lines = [line for line in case.lines if "write_mmio" not in line or case.time(line) < case.panic]
    assert rule(case.judge(), 1).status == INVALID


@pytest.mark.parametrize(
    "event",
    [
        "smmuv3_translate_abort smmuv3-iommu-memory-region-8-1 sid=0x8 abort on iova:0xfffc1380 is_write=0",
        "smmuv3_translate_bypass smmuv3-iommu-memory-region-8-1 sid=0x8 STE bypass iova:0x1000 is_write=1",
        "smmuv3_translate_disable smmuv3-iommu-memory-region-8-1 sid=0x8 bypass (smmu disabled) "
        "iova:0x1000 is_write=1",
        "smmuv3_record_event F_TRANSLATION sid=0x8",
        "smmuv3_propagate_event F_TRANSLATION sid=0x8",
    ],
)
def test_rule2_one_event(case: Case, event: str) -> None:
    case.insert(case.find("sid=0x8 iova"), event)
    judgement = case.judge()
    assert failed(judgement) == [2]
    assert judgement.verdict == "FAIL" and "NIC" in rule(judgement, 2).detail


def test_rule2_of_the_crash_kernel(case: Case) -> None:
    """What fails after the take-over, when the crash kernel has used the device already."""
    evidence = case.evidence()
    stream = next(one for one in evidence.trace["streams"] if one["sid"] == DUMP)
    assert stream["take_over"] and not stream["late"] and stream["taken"]["translated"]
    for count in ("aborted", "disabled", "events", "faults"):
        stream["taken"][count] = 3
        judgement = judge.judge(evidence)
        assert failed(judgement) == [2] and "3 of the crash kernel's own" in rule(judgement, 2).detail
        stream["taken"][count] = 0
    assert failed(judge.judge(evidence)) == []


def test_rule2_fault_without_event_queue(case: Case) -> None:
    """EVENTQEN = 0: only an untimed guest error tells, by where it stands."""
    error = "smmuv3-iommu-memory-region-8-1 translation failed for iova=0xfffc1390 (SMMU_EVT_F_TRANSLATION)\n"
    at = case.find("sid=0x8 iova")
    case.lines.insert(at + 1, error)
    assert failed(case.judge()) == [2]
    del case.lines[at + 1]
    case.lines.append(error)  # after the shutdown
    assert failed(case.judge()) == []


def test_rule2_not_a_watched_stream(case: Case) -> None:
    """A device with no DMA in flight after the panic, hit only after its take-over."""
    at = case.find("streamid= 0x18") + 1
    case.insert(
        at, "smmuv3_translate_abort smmuv3-iommu-memory-region-24-3 sid=0x18 abort on " "iova:0x0 is_write=0"
    )
    judgement = case.judge()
    assert next(row for row in judgement.rows if row.sid == 0x18).aborted == 1


def test_rule2_never_taken_over(case: Case) -> None:
    """Its watch lasts to the shutdown."""
    case.lines = [
        line for line in case.lines if not ("streamid= 0x8\n" in line and case.time(line) > case.panic)
    ]
    case.lines = [
        line
        for line in case.lines
        if not (
            "translate_success" in line
            and "sid=0x8 " in line
            and case.time(line) > case.panic
            and any(
                start <= int(line.split("translated=")[1].split()[0], 16) <= end
                for start, end in case.memory
            )
        )
    ]
    assert failed(case.judge()) == []
    last = max(i for i, line in enumerate(case.lines) if case.panic < case.time(line) < case.shutdown)
    case.insert(
        last, "smmuv3_translate_abort smmuv3-iommu-memory-region-8-1 sid=0x8 abort on " "iova:0x0 is_write=0"
    )
    judgement = case.judge()
    assert failed(judgement) == [2] and "never taken over" in rule(judgement, 2).detail


def test_rule2_taken_over_too_early(case: Case) -> None:
    """The STE replaced while the device still runs: its next accesses fail."""
    at = case.find("sid=0x8 iova", case.trace()["probe"])
    case.lines = [
        line
        for line in case.lines
        if not ("sid=0x8 " in line and "success" in line and case.time(line) > case.time(case.lines[at]))
    ]
    case.insert(at + 1, "smmuv3_cmdq_cfgi_ste streamid= 0x8")
    case.lines.insert(
        at + 2,
        "smmuv3-iommu-memory-region-8-1 translation failed for " "iova=0xfffc1390 (SMMU_EVT_F_TRANSLATION)\n",
    )
    judgement = case.judge()
    assert 2 in failed(judgement) and "taken over while it was busy" in rule(judgement, 2).detail


def test_rule3_old_into_crash_kernel(case: Case) -> None:
    at = case.find("sid=0x8 iova")
    start = case.memory[0][0]
    case.lines[at] = re.sub(r"translated=0x\w+", f"translated={start + 0x1000:#x}", case.lines[at])
    judgement = case.judge()
    assert failed(judgement) == [3] and "1 old translations" in rule(judgement, 3).detail


def test_rule3_new_into_crashed_kernel(case: Case) -> None:
    """Two address spaces that share a TLB tag look like this."""
    at = case.find("sid=0x18 iova")
    case.lines[at] = re.sub(r"translated=0x\w+", "translated=0x41234000", case.lines[at])
    judgement = case.judge()
    assert failed(judgement) == [3] and "1 new translations" in rule(judgement, 3).detail
    assert "-> 0x41234000" in rule(judgement, 3).detail


@pytest.mark.parametrize(("iova", "verdict"), [("0x41234000", "FAIL"), ("0x55e01000", "PASS")])
def test_rule3_bypass_after_take_over(case: Case, iova: str, verdict: str) -> None:
    """An identity domain of the crash kernel: right only for its own memory."""
    case.insert(
        case.find("sid=0x18 iova"),
        "smmuv3_translate_bypass smmuv3-iommu-memory-region-24-3 "
        f"sid=0x18 STE bypass iova:{iova} is_write=1",
    )
    assert case.judge().verdict == verdict


def crashed_bypass(case: Case) -> None:
    """As if the crashed kernel's domains were identity: what it let translate, it let bypass."""
    taken: set[str] = set()
    for at, line in enumerate(case.lines):
        if case.time(line) > case.panic and (match := re.search(r"cfgi_ste streamid= (0x\w+)", line)):
            taken.add(match[1])
        match = re.match(
            r"(.*:)smmuv3_translate_success (\S+) sid=(0x\w+) iova=(0x\w+) translated=(0x\w+)", line
        )
        if match and match[3] not in taken:
            # The iova's low bits tell completion entries from doorbells, as the address's do
            case.lines[at] = (
                f"{match[1]}smmuv3_translate_bypass {match[2]} sid={match[3]} STE bypass "
                f"iova:{match[5]} is_write=1\n"
            )


def test_crashed_kernel_let_bypass(case: Case) -> None:
    completions = next(s["completions"] for s in case.trace()["streams"] if s["sid"] == SLOW)
    crashed_bypass(case)
    assert next(s["completions"] for s in case.trace()["streams"] if s["sid"] == SLOW) == completions
    judgement = case.judge()
    assert judgement.verdict == "PASS", judgement.results
    assert "bypassed accesses" in rule(judgement, 1).detail
    assert next(row for row in judgement.rows if row.sid == NIC).translated == 0


@pytest.mark.parametrize(
    ("event", "number"),
    [
        ("smmuv3_translate_abort smmuv3-iommu-memory-region-8-1 sid=0x8 abort on iova:0x0 is_write=0", 2),
        (
            "smmuv3_translate_disable smmuv3-iommu-memory-region-8-1 sid=0x8 bypass (smmu disabled) "
            "iova:0x1000 is_write=1",
            2,
        ),
        (
            "smmuv3_translate_bypass smmuv3-iommu-memory-region-8-1 sid=0x8 STE bypass iova:{crash:#x} "
            "is_write=1",
            3,
        ),
    ],
)
def test_crashed_kernel_let_bypass_control(case: Case, event: str, number: int) -> None:
    crashed_bypass(case)
    case.insert(case.find("bypass .* sid=0x8 STE"), event.format(crash=case.memory[0][0] + 0x1000))
    assert failed(case.judge()) == [number]


def test_rule3_doorbell(case: Case) -> None:
    at = case.find("sid=0x18 iova")
    case.lines[at] = re.sub(r"translated=0x\w+", f"translated={DOORBELL:#x}", case.lines[at])
    assert case.judge().verdict == "PASS"


@pytest.mark.parametrize(
    ("write", "said"),
    [
        ("addr: 0x20 val:0x8", "SMMUEN cleared 1 times"),
        ("addr: 0x80 val:0x4000000058105000", "STRTAB_BASE(_CFG) written 1 times"),
        ("addr: 0x84 val:0x40000000", "STRTAB_BASE(_CFG) written 1 times"),
        ("addr: 0x88 val:0x10210", "STRTAB_BASE(_CFG) written 1 times"),
        ("addr: 0x28 val:0xd75", "CR1 written 1 times"),
        ("addr: 0x2c val:0x6", "CR2 written 1 times"),
    ],
)
def test_rule4_register_write(case: Case, write: str, said: str) -> None:
    case.insert(case.find("write_mmio addr: 0x90 "), f"smmuv3_write_mmio {write} size: 0x4(0)")
    judgement = case.judge()
    assert failed(judgement) == [4]
    assert said in rule(judgement, 4).detail


def test_rule4_first_kernel_may(case: Case) -> None:
    """Before the panic the first kernel programs what it likes."""
    case.lines.insert(0, case.lines[0].split(":")[0] + ":smmuv3_write_mmio addr: 0x2c val:0x6 size: 0x4(0)\n")
    assert case.judge().verdict == "PASS"


def test_rule4_gbpa_at_shutdown(case: Case) -> None:
    case.lines = [line for line in case.lines if "write_mmio addr: 0x44 " not in line]
    judgement = case.judge()
    assert failed(judgement) == [4] and "GBPA" in rule(judgement, 4).detail


def test_rule4_raw_after_the_shutdown(case: Case) -> None:
    case.insert(
        len(case.lines) - 1,
        "smmuv3_translate_disable smmuv3-iommu-memory-region-8-1 sid=0x8 "
        "bypass (smmu disabled) iova:0x1000 is_write=1",
    )
    judgement = case.judge()
    assert failed(judgement) == [4] and "1 raw accesses" in rule(judgement, 4).detail


def test_rule4_never_stopped(case: Case) -> None:
    """A device without a driver: that GBPA aborts is seen on its accesses, or not at all."""
    case.lines = [
        line for line in case.lines if "sid=0x8 " not in line or case.time(line) < case.trace()["probe"]
    ]
    case.lines = [
        line for line in case.lines if not ("streamid= 0x8\n" in line and case.time(line) > case.panic)
    ]
    assert rule(case.judge(), 4).status == INVALID
    case.insert(
        len(case.lines) - 1,
        "smmuv3_translate_abort smmuv3-iommu-memory-region-8-1 sid=0x8 abort on " "iova:0x0 is_write=0",
    )
    assert rule(case.judge(), 4).status == PASS
    assert "1 accesses of NIC 0x8, which no driver stopped" in rule(case.judge(), 4).detail


def test_rule4_never_stopped_but_idle(case: Case) -> None:
    """A few interrupts of a device that is never taken over leave nothing for GBPA to abort."""
    idle = copy.deepcopy(next(s for s in case.trace()["streams"] if s["take_over"]))
    idle |= {"sid": 0x28, "take_over": None}
    for phase in ("window", "adopted", "end"):
        idle[phase] = dict.fromkeys(idle[phase], 0)
    for count, status in ((judge.MIN_TRANSLATIONS - 1, PASS), (judge.MIN_TRANSLATIONS, INVALID)):
        idle["window"]["translated"] = count
        evidence = case.evidence()
        evidence.trace["streams"].append(idle)
        assert rule(judge.judge(evidence), 4).status is status


def test_rule5_a_frame_is_missing(case: Case) -> None:
    evidence = case.evidence()
    probed, due = judge.expected_frames(evidence)
    assert probed and set(probed) <= set(due)
    assert judge.judge(evidence).verdict == "PASS"
    for number in (probed[0], probed[-1], due[0]):
        evidence.frames = set(range(4000)) - {number}
        assert failed(judge.judge(evidence)) == [5]


def test_rule5_only_what_was_due(case: Case) -> None:
    evidence = case.evidence()
    _, due = judge.expected_frames(evidence)
    evidence.frames = set(due)
    assert judge.judge(evidence).verdict == "PASS"


def test_rule5_once_the_kernel_is_gone(case: Case) -> None:
    """A kernel that dies slowly takes the first frames out of the ring."""
    evidence = case.evidence()
    _, due = judge.expected_frames(evidence)
    evidence.frames = set(due[1:])
    assert failed(judge.judge(evidence)) == [5]
    evidence.dead = evidence.sent[due[1]]
    assert judge.judge(evidence).verdict == "PASS"
    evidence.frames -= {due[1]}
    assert failed(judge.judge(evidence)) == [5]


def test_rule5_until_makedumpfile(case: Case) -> None:
    """What lands while the vmcore is written may be in it or not."""
    evidence = case.evidence()
    _, due = judge.expected_frames(evidence)
    evidence.frames = set(due[:-1])
    assert failed(judge.judge(evidence)) == [5]
    evidence.saving = evidence.sent[due[-1]]
    assert judge.judge(evidence).verdict == "PASS"


def test_rule5_full_ring(case: Case) -> None:
    evidence = case.evidence()
    _, due = judge.expected_frames(evidence)
    room = len(due) - 5 + judge.IN_FLIGHT
    evidence.ring = room + judge.RING_MARGIN
    evidence.frames = set(due[:-5])
    assert judge.expected_frames(evidence)[1] == due[:-5]
    assert not [r for r in judge.judge(evidence).results if r.status == FAIL]


def test_rule5_a_read_is_missing(case: Case) -> None:
    evidence = case.evidence()
    assert evidence.reads
    evidence.reads.pop()
    assert failed(judge.judge(evidence)) == [5]


def test_rule5_reads_in_flight(case: Case) -> None:
    """A reset finishes at once what is in flight; one by one they had come before."""
    disk = re.compile(r"sid=0x10 .*iova=0x\w+0 ")
    while (evidence := case.evidence()) and next(s for s in evidence.trace["streams"] if s["sid"] == SLOW)[
        "drained"
    ]:
        hits = [
            at for at, line in enumerate(case.lines) if disk.search(line) and case.time(line) > case.panic
        ]
        del case.lines[
            next(
                b
                for a, b in zip(hits, hits[1:])
                if case.time(case.lines[b]) - case.time(case.lines[a]) < 0.02
            )
        ]
    evidence.scenario = a_scenario(need_reads=True)
    assert rule(judge.judge(evidence), 5).status == INVALID
    at = case.find(disk.pattern)
    case.lines.insert(at, case.lines[at])
    evidence = case.evidence()
    evidence.scenario = a_scenario(need_reads=True)
    assert "1 of them at once" in rule(judge.judge(evidence), 5).detail
    assert judge.judge(evidence).verdict == "PASS"


def test_rule5_nothing_due(case: Case) -> None:
    evidence = case.evidence()
    evidence.sent = []
    assert rule(judge.judge(evidence), 5).status == INVALID


def test_rule6_vmcore(case: Case) -> None:
    evidence = case.evidence()
    evidence.vmcore = "drgn: no panic message"
    assert failed(judge.judge(evidence)) == [6]
    evidence.frames = evidence.reads = None
    assert failed(judge.judge(evidence)) == [5, 6]


@pytest.mark.parametrize(
    "line",
    [
        "[    1.0] WARNING: CPU: 0 PID: 1 at drivers/iommu/x.c:1 f+0x0/0x10",
        "[    1.0] WARNING: drivers/iommu/x.c:1 at f+0x0/0x10, CPU#0: swapper/0/1",
        "[    1.0] BUG: KASAN: slab-out-of-bounds in f+0x0",
        "[    1.0] Internal error: Oops: 0000000096000044 [#1] SMP",
        "[    1.0] Unable to handle kernel NULL pointer dereference at virtual address 0",
        "[    1.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!",
        "[    1.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "[    1.0] UBSAN: shift-out-of-bounds in a.c",
        "[    1.0] INFO: task init:1 blocked for more than 120 seconds.",
    ],
)
def test_rule7_log(line: str) -> None:
    assert scan(CONSOLE) is PASS
    assert scan(CONSOLE + line + "\n") is FAIL


def scan(console: str) -> Status:
    return judge.clean_logs(judge.Evidence(a_scenario(), {}, console=console))[0]


def test_rule7_needs_both_logs() -> None:
    assert scan("") is INVALID
    assert scan(BOOT) is INVALID


def test_rule7_allowed_needs_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(pattern and reason for pattern, reason in machine.ALLOWED)
    monkeypatch.setattr(machine, "ALLOWED", ((r"at drivers/a\.c", "known"),))
    assert scan(CONSOLE + "WARNING: at drivers/a.c:1\n") is PASS
    assert scan(CONSOLE + "WARNING: at drivers/b.c:1\n") is FAIL


def test_rule8_control(case: Case) -> None:
    """A test that nothing fails is broken; so is one whose control was lost."""

    def control(*results: Result) -> judge.Judgement:
        return judge.Judgement(list(results), 1.0)

    evidence = case.evidence()
    survived = Result("unpatched", "rule 2: in-flight DMA survives", PASS)
    hurt = Result("unpatched", "rule 2: in-flight DMA survives", FAIL)
    lost = Result("unpatched", "the machine", Status.LOST, "QEMU ended early")
    for before, status in ((hurt, PASS), (survived, INVALID), (lost, INVALID)):
        evidence.control = control(before)
        judgement = judge.judge(evidence)
        assert rule(judgement, 8).status is status and judgement.verdict is status
    assert "QEMU ended early" in rule(judgement, 8).detail
    # What the patched kernel did wrong weighs more.
    evidence.vmcore = "no panic message"
    assert judge.judge(evidence).verdict is FAIL
    evidence.lost = "QEMU ended early"
    assert judge.judge(evidence).verdict is Status.LOST


def test_the_table_of_rules() -> None:
    """Numbers, names and functions agree, also with the document."""
    text = (TOP / "Documentation" / "crash-test.rst").read_text()
    found = re.findall(r"^(\d+)\. \*\*(.+?)\*\*", text, re.MULTILINE)
    assert [(str(one.number), one.name.lower()) for one in judge.RULES] == [
        (n, name.lower().rstrip(".")) for n, name in found
    ]
    for one in judge.RULES:
        assert one.judge.__name__ == re.sub(r"\W", "_", one.name).lower()


def test_memory() -> None:
    console = """\
[    0.000000] Linux version 9.8.7
[    0.608590] arm-smmu-v3 9050000.smmuv3: allocated 262144 entries for cmdq
[    0.612030] arm-smmu-v3 9050000.smmuv3: allocated 131072 entries for evtq
[    0.000000] Linux version 9.8.7
[    0.446176] arm-smmu-v3 9050000.smmuv3: allocated 262144 entries for cmdq
"""
    evidence = judge.Evidence(a_scenario(), {}, console=console, available_kib=123456)
    assert judge.memory(evidence) == {"available_kib": 123456, "queues_kib": 4096}
    evidence.available_kib = None
    assert judge.memory(evidence) == {}


@pytest.mark.parametrize(("old", "new", "status"), [
    (51000, 55000, PASS), (51000, 51000, PASS), (51000, 50999, FAIL), (None, 55000, INVALID),
    (51000, None, INVALID)])
def test_rule14_memory(case: Case, old: int | None, new: int | None, status: Status) -> None:
    """Where the crash kernel is small, or large: both figures are told."""
    evidence = case.evidence()
    figures = {"available_kib": old} if old else {}
    evidence.control = judge.Judgement([Result("unpatched", "rule 2: x", FAIL, "")], 1.0, figures=figures)
    evidence.available_kib = new
    assert evidence.scenario.reserve == RESERVE and not judge.judge(evidence).rule(14)
    evidence.scenario = a_scenario(reserve="96M")
    judged = judge.judge(evidence)
    assert rule(judged, 14).status is judged.verdict is status
    said = rule(judged, 14).detail
    assert str(old or "unknown") in said and str(new or "unknown") in said
    assert f"memory     {said}" in report.lines({"patched": judged})
    page = report.page("6.12", "QEMU", evidence.scenario, {"patched": judged}, PASS)
    assert (f"{new} KiB, queues 0" in page) is bool(new)
    evidence.scenario = a_scenario(reserve="96M", refusal="x")      # today's path, with today's queues
    assert not judge.judge(evidence).rule(14)


REFUSED = "kdump: stream table not adopted: the crash kernel has memory of crashkernel=,cma\n"


@pytest.mark.parametrize(("said", "cleared", "status"), [
    (REFUSED, 1, Status.PASS),
    (REFUSED, 0, Status.FAIL),
    (REFUSED + "kdump: adopted the crashed kernel's stream table", 1, Status.FAIL),
    ("kdump: stream table not adopted: faults always stall", 1, Status.FAIL)])
def test_rule10_refusal(said: str, cleared: int, status: Status) -> None:
    """What it says before the panic does not count; a reset is what is asked for."""
    refusal = "the crash kernel has memory"
    before = f"kdump: stream table not adopted: {refusal}\n{judge.PANIC_TEXT}\n"
    trace = {"cleared_smmuen": cleared}
    evidence = judge.Evidence(a_scenario(refusal=refusal), trace, console=before + said)
    assert judge.the_refusal_was_said(evidence)[0] is status
    rules = {rule.number for rule in judge.RULES if rule.applies(evidence)}
    assert rules == {1, 3, 6, 7, 10, 15}
    evidence.which = "unpatched"
    assert {rule.number for rule in judge.RULES if rule.applies(evidence)} == {1, 2, 3, 4, 5, 6, 7, 15}


ADOPTED = "kdump: adopted the crashed kernel's stream table: 4 live StreamIDs\n"


@pytest.mark.parametrize(("said", "status"), [
    (ADOPTED + "kdump: adopted stream table dropped, resetting", Status.PASS),
    (ADOPTED, Status.FAIL)])
def test_rule10_refusal_after_the_adoption(said: str, status: Status) -> None:
    evidence = judge.Evidence(a_scenario(refusal=judge.DROPPED), {"cleared_smmuen": 1},
                              console=f"{judge.PANIC_TEXT}\n{said}\n")
    assert judge.the_refusal_was_said(evidence)[0] is status


IDRS = "smmu_kdump_test: chaos: IDR0 0x0d5c10bf, IDR1 0x00730010\n"      # of QEMU 10.0's SMMU
CHAOS = (IDRS + "smmu_kdump_test: chaos: Config of StreamIDs 0x{0:x}-0x{0:x}: 0x1 becomes 0x3\n"
         "smmu_kdump_test: chaos: noise for StreamIDs 0x40-0x7f\n" + judge.PANIC_TEXT + "\n")


def test_chaos_spares_no_stream_that_is_whole(case: Case) -> None:
    """Rules 2, 3 and 5 look at the streams that chance has not damaged."""
    evidence = case.evidence()
    evidence.scenario = a_scenario(chaos=2)
    nic = next(stream for stream in evidence.trace["streams"] if stream["sid"] == NIC)
    nic["adopted"]["aborted"] = nic["adopted"]["misdirected"] = 3
    evidence.frames = set()
    for damaged, status in (NIC, Status.PASS), (DUMP, Status.FAIL):
        evidence.console = CHAOS.format(damaged)
        for rule in (judge.in_flight_dma_survives, judge.nothing_is_misdirected, judge.data_lands):
            assert rule(evidence)[0] is status, (rule, damaged)
    found = judge.chance_struck(evidence)
    assert found[0] is Status.PASS and found[2]["whole"]
    assert found[1].startswith("2 damages (")
    evidence.scenario = a_scenario(chaos=4)
    assert judge.chance_struck(evidence)[0] is Status.INVALID


CRASH_MEMORY = [(0x55600000, 0x5f5fffff)]
STE = "Config of StreamIDs 0x8-0x8: 0x0000000042c4c00b becomes 0x{:016x}"
L1 = "L1 pointer of StreamIDs 0x200-0x2ff: 0x0000000000000000 becomes 0x{:016x}"
CD = "ASID of StreamIDs 0x10-0x10: 0x0001e204c0003510 becomes 0x{:016x}"


def fates(*told: str, crash: str = "", idrs: str = IDRS) -> list[str]:
    log = idrs + "".join(f"[ 1.0] smmu_kdump_test: chaos: {text}\n" for text in told)
    said = f"arm-smmu-v3 9050000.smmuv3: kdump: bad {crash}, cut off\n"
    found = damage.judged(log, said, damage.memory("512M"), CRASH_MEMORY)
    assert len(found) == sum(" StreamIDs " in text for text in told)
    return [each.fate for each in found]


@pytest.mark.parametrize("value", [
    0x9,                            # to address 0
    0x9000009,                      # to the UART
    0x8000000009,                   # to a hole
    0x55600009,                     # to the crash kernel's memory
    0x5f5fc009,
    0x60000009,                     # right behind the RAM
    0xffffffffffc009,
    0x42c4c049, 0x42c4d009,         # not aligned to 16 KiB
    0x42c4c008, 0x42c4c012,         # another Span
    0x0800000042c4c009, 0x42c4c029,     # reserved bits
])
def test_a_bad_l1_descriptor_must_be_named(value: int) -> None:
    assert fates(L1.format(value)) == [damage.MISSED]
    assert fates(L1.format(value), crash=f"L1 descriptor for StreamID 0x200: {value:#018x}") == [damage.NAMED]
    # Another one, or another value, is none of it.
    for other in ("L1 descriptor for StreamID 0x300: {:#018x}", "L1 descriptor for StreamID 0x200: 0x{:x}00",
                  "STE for StreamID 0x200: {:#018x}"):
        assert fates(L1.format(value), crash=other.format(value)) == [damage.MISSED]


@pytest.mark.parametrize("value", [
    0xf80000000000000b | 0x42c4c000, 0x080000000000000b | 0x42c4c000,       # S1CDMax
    0xb, 0x900000b, 0x800000000b, 0x5560000b, 0x6000000b, 0xffffffffffffcb,     # S1ContextPtr
    0x42c4c00d, 0x42c4c00f,         # stage 2 with VMID 0
])
def test_a_bad_ste_must_be_named(value: int) -> None:
    assert fates(STE.format(value)) == [damage.MISSED]
    assert fates(STE.format(value), crash=f"STE for StreamID 0x8: {value:#018x}") == [damage.NAMED]
    assert fates(STE.format(value), crash=f"STE for StreamID 0x9: {value:#018x}") == [damage.MISSED]


def test_what_need_not_be_named() -> None:
    """Each with its reason."""
    assert fates(L1.format(0x42c40009), L1.format(0x55600000)) == [damage.AGAIN, damage.ENDS]
    assert fates(L1.format(0x42c40009)) == [damage.MEMORY]
    assert fates(STE.format(0x42c4c10b)) == fates(STE.format(0x55600000 - 64 + 0xb)) == [damage.MEMORY]
    assert fates(STE.format(0xf800000000000001)) == fates(STE.format(0x900000a)) == [damage.ENDS]
    assert fates(STE.format(0x42c4c009)) == [damage.BYPASS]
    assert fates("bit of word 3 of the STE of StreamIDs 0x8-0x8: 0x0 becomes 0x8",
                 "bit of word 2 of the STE of StreamIDs 0x8-0x8: 0x0 becomes 0x8",
                 "bit of word 1 of the CD of StreamIDs 0x8-0x8: 0x0 becomes 0x8") == [damage.UNCHECKED] * 3
    vmid = "bit of word 2 of the STE of StreamIDs 0x8-0x8: 0x0 becomes 0x8"
    assert fates(vmid, STE.format(0x42c4c00d)) == [damage.VMID] * 2
    assert fates(CD.format(0x1e20440003510)) == [damage.ENDS]
    assert fates(CD.format(0xfc71e204c0003510)) == [damage.CD]
    eight = IDRS.replace("10bf", "00bf")        # bits of an ASID
    assert fates(CD.format(0xfc71e204c0003510), idrs=eight) == [damage.MISSED]
    assert fates("bit of the STE of StreamIDs 0x8-0x8: 0x0 becomes 0x8") == [damage.UNKNOWN]
    assert fates(L1.format(0), idrs="") == [damage.UNKNOWN]


def test_a_pointer_to_what_uefi_keeps() -> None:
    """It is RAM, and yet no memory of the crashed kernel."""
    keeps = "UEFI keeps 0x4c4c0000-0x4c4effff"
    for bad in STE.format(0x4c4c000b), STE.format(0x4c4effcb), L1.format(0x4c4c0009):
        assert fates(bad) == [damage.MEMORY]
        assert fates(keeps, bad) == [damage.MISSED]
    assert fates(keeps, STE.format(0x4c4bffcb)) == fates(keeps, STE.format(0x4c4f000b)) == [damage.MEMORY]


def test_a_line_that_is_printed_again() -> None:
    """The panic may strike in the middle of a line."""
    line = "[    1.1] smmu_kdump_test: chaos: " + L1.format(9)
    log = f"{line[:90]}\n** replaying previous printk message **\r\n{line}\n"
    assert len(damage.struck(log)) == 2
    told = damage.struck(judge.REPLAYED.sub("", log))
    assert [each.writes for each in told] == [{("L1", 2, 0): 9}]


def test_damage_over_damage() -> None:
    """The last one counts, and only where the SMMU comes to it."""
    bad = STE.format(0xf80000000000000b)
    l1 = "L1 Span of StreamIDs 0x0-0xff: 0x0000000042c4c009 becomes 0x{:016x}"
    assert fates(bad, STE.format(0x42c4c00b)) == [damage.AGAIN, damage.MEMORY]
    assert fates(bad, l1.format(0x42c4c000)) == [damage.BELOW, damage.ENDS]
    assert fates(l1.format(0x42c4c00a), bad, crash="L1 descriptor for StreamID 0x0: 0x0000000042c4c00a") == [
        damage.NAMED, damage.BELOW]
    # As it was again: the STE is in use
    assert fates(l1.format(0x42c4c00a), l1.format(0x42c4c009), bad) == [
        damage.AGAIN, damage.MEMORY, damage.MISSED]
    assert fates(bad, CD.replace("0x10", "0x8").format(0))[1] == damage.BELOW
    # Noise over noise: what the first one put there is gone, and so need not be found.
    noise = "noise for StreamIDs 0x0-0x3f"
    entry = "noise in StreamID 0x{:x}: 0xf80000000000000b, word 2 0x0"
    assert fates(noise, entry.format(3), noise, entry.format(4), crash="STE for StreamID 0x4: "
                 "0xf80000000000000b") == [damage.AGAIN, damage.NAMED]
    assert fates(noise, entry.format(3), noise, entry.format(4), crash="STE for StreamID 0x3: "
                 "0xf80000000000000b") == [damage.AGAIN, damage.MISSED]
    assert fates(bad, "noise for StreamIDs 0x0-0x3f") == [damage.AGAIN, damage.ENDS]


def test_noise() -> None:
    """Of a page with 64 STEs those are told that do not abort."""
    page = "noise for StreamIDs 0x80-0xbf"
    bad = "noise in StreamID 0x8e: 0x777f6a818b20735b, word 2 0x1"
    said = "STE for StreamID 0x8e: 0x777f6a818b20735b"
    assert fates(page) == [damage.ENDS]
    assert fates(page, bad) == [damage.MISSED] and fates(page, bad, crash=said) == [damage.NAMED]
    # One of them is found, the other not
    assert fates(page, bad, "noise in StreamID 0x8f: 0x900000b, word 2 0x0", crash=said) == [damage.MISSED]
    assert fates(page, "noise in StreamID 0x8f: 0xd, word 2 0x7") == [damage.VMID]
    assert fates(page, "noise in StreamID 0x8f: 0xd, word 2 0x70000") == [damage.MISSED]


# Of a crash of make chaos, without the check of pointers and with it
DAMAGED = IDRS + "".join(f"smmu_kdump_test: chaos: S1ContextPtr of StreamIDs {text}\n" for text in (
    "0x8-0x8: 0x0000000040f4500b becomes 0x000000800000000b",
    "0x10-0x10: 0x000000004254e00b becomes 0x000000004254e10b"))


@pytest.mark.parametrize(("said", "status", "rest"), [
    ("", Status.FAIL, "must find S1ContextPtr of StreamIDs 0x8-0x8: 0x000000800000000b"),
    ("kdump: bad STE for StreamID 0x8: 0x000000800000000b, cut off\n", Status.PASS,
     "(1 named, 1 lead to memory of the crashed kernel), 1 entries")])
def test_rule11_each_damage_is_named(said: str, status: Status, rest: str) -> None:
    evidence = judge.Evidence(a_scenario(chaos=2), {"streams": []},
                              console=f"{DAMAGED}{judge.PANIC_TEXT}\n{said}")
    found = judge.chance_struck(evidence)
    assert found[0] is status and rest in found[1]
    evidence.which = "unpatched"
    assert judge.chance_struck(evidence)[0] is Status.PASS


def test_chaos_that_is_too_much(case: Case) -> None:
    """The adoption is given up, and says so: no DMA need survive. A vmcore must come out."""
    evidence = case.evidence()
    evidence.scenario = a_scenario(chaos=2)
    for console, applies in (("", True), (judge.TOO_MUCH, False)):
        evidence.console = console
        numbers = {rule.number for rule in judge.RULES if rule.applies(evidence)}
        assert {2, 4, 5} <= numbers if applies else not {2, 4, 5} & numbers
        assert {1, 3, 6, 7, 11} <= numbers
    cut = "".join(f"kdump: bad STE for StreamID {sid:#x}: 0x3, cut off\n" for sid in range(0x40, 0x80))
    evidence.console = CHAOS.format(1) + cut + judge.TOO_MUCH
    assert judge.chance_struck(evidence)[0] is Status.PASS
    evidence.console = CHAOS.format(1) + judge.TOO_MUCH
    assert judge.chance_struck(evidence)[0] is Status.FAIL


def test_chaos_that_names_what_is_whole(case: Case) -> None:
    """One line again and again is one entry; an entry that nobody damaged must not be called bad."""
    evidence = case.evidence()
    evidence.scenario = a_scenario(chaos=2)
    cut = "kdump: bad {} for StreamID 0x{:x}: 0x3, cut off\n"
    for console, status in ((cut.format("STE", 0x41), PASS), (cut.format("STE", 0x40) * 2, PASS),
                            (cut.format("STE", 0x41) + cut.format("CD", 0x10), FAIL),
                            (cut.format("STE", 0x41) * 64 + judge.TOO_MUCH, FAIL)):
        evidence.console = CHAOS.format(1) + console
        assert judge.chance_struck(evidence)[0] is status, console


def test_rule15_told(case: Case) -> None:
    """A guest that hears no answer goes on with what a replay has."""
    evidence = case.evidence()
    evidence.scenario = a_scenario(panic_ms=200)
    for waited, words, status in ((200, "", PASS), (199, "", INVALID), (200, "settle_ms", INVALID)):
        evidence.waited, evidence.console = waited, CONSOLE.replace(words or "-", "")
        assert rule(judge.judge(evidence), 15).status is status
    evidence.lost = "no end after 60 s"
    assert judge.judge(evidence).rule(15) is None


def test_rule12_effect() -> None:
    def status(console: str, **changed: str | bool) -> Status:
        evidence = judge.Evidence(a_scenario(**changed), {"streams": []}, console=console)
        return judge.the_scenario_took_effect(evidence)[0]

    log = ("efi: EFI v2.7 by Debian distribution of EDK II\nACPI: APIC 0x1\nACPI: SPCR: console: pl011\n"
           "ACPI: IORT 0x1\nCPU: All CPU(s) started at EL2\n")
    end = f"{judge.PANIC_TEXT}\n"
    assert status(log + end + log, uefi=True, vhe=True) is Status.PASS
    assert status(log * 2 + end, uefi=True) is status(end + log, vhe=True) is Status.INVALID
    for table in ("IORT", "APIC", "SPCR"):      # one kernel does without
        assert status(log + end + log.replace(table, "SSDT"), uefi=True) is Status.INVALID
        assert status(log.replace(table, "SSDT") + end + log, uefi=True) is Status.INVALID
    assert status("a linear table", seen="linear") is Status.PASS
    assert status("a table", seen="linear") is Status.INVALID


@pytest.mark.parametrize(("scenario", "pages", "status"), [
    ({"first_kernel": "64k"}, (0x10000, 0x1000), PASS),
    ({"first_kernel": "64k"}, (0x1000, 0x1000), INVALID),
    ({"first_kernel": "4k", "flavour": "64k"}, (0x1000, 0x10000), PASS),
    ({"first_kernel": "4k", "flavour": "64k"}, (0x10000, 0x10000), INVALID),
    ({"flavour": "64k"}, (0x10000, 0x10000), PASS),
    ({"flavour": "64k"}, (0x1000, 0x1000), INVALID),
    ({"first_kernel": "unpatched"}, (0x1000, 0x1000), PASS),
    ({"first_kernel": "unpatched"}, (None, 0x1000), INVALID),       # another image runs
    ({"first_kernel": "other"}, (0x1000, None), INVALID),
    ({"first_kernel": "4k", "flavour": "sanitize"}, (0x1000, 0x1000), PASS)])
def test_rule12_other_kernels(scenario: dict[str, str], pages: tuple[int | None, int | None],
                              status: Status) -> None:
    evidence = judge.Evidence(a_scenario(**scenario), {"streams": []},
                              pages=dict(zip(("first", "crash"), pages)))
    assert 12 in [rule.number for rule in judge.RULES if rule.applies(evidence)]
    assert judge.the_scenario_took_effect(evidence)[0] is status
    evidence.pages = {}             # no kernel said it
    assert judge.the_scenario_took_effect(evidence)[0] is INVALID


def test_the_image_that_runs(tmp_path: Path) -> None:
    """The kernel's own build ID is in the image that was built for it."""
    for name in ("first", "crash"):
        (tmp_path / name).write_bytes(b"\0GNU\0" + name.encode())
    run = workload.Run(tmp_path, a_scenario(), 1,
                       images={name: tmp_path / name for name in ("first", "crash")})
    run.marks = [(1.0, f"hello first 6.12 987 4096 {b'first'.hex()}"),
                 (2.0, f"hello crash 6.12 987 65536 {b'crash'.hex()}")]
    assert judge.pages(run) == {"first": 0x1000, "crash": 0x10000}
    run.images["crash"] = run.images["first"]
    assert judge.pages(run) == {"first": 0x1000, "crash": None}
    run.marks = [(1.0, "hello first 6.12 987 4096 -"), (2.0, "hello crash 6.12 987")]
    assert judge.pages(run) == {"first": None}


def test_rule12_other_disks(case: Case) -> None:
    """Each is read, and does something between the panic and its take-over."""
    evidence = case.evidence()
    assert 12 not in [rule.number for rule in judge.RULES if rule.applies(evidence)]
    evidence.scenario = a_scenario(devices="-device nvme,drive=more,serial=more,bus=root")
    assert 12 in [rule.number for rule in judge.RULES if rule.applies(evidence)]
    assert judge.the_scenario_took_effect(evidence)[0] is INVALID       # the guest told of none
    evidence.more = [0x100]
    assert judge.the_scenario_took_effect(evidence)[0] is FAIL          # the crash kernel cannot use it
    evidence.more_read = [0x108, 0x100]
    assert judge.the_scenario_took_effect(evidence)[0] is INVALID       # it did nothing
    stream = copy.deepcopy(next(stream for stream in evidence.trace["streams"] if stream["sid"] == SLOW))
    evidence.trace["streams"].append(stream | {"sid": 0x100})
    assert judge.the_scenario_took_effect(evidence)[0] is PASS
    evidence.more = [0x108]         # it is behind a PCI bridge
    assert judge.the_scenario_took_effect(evidence)[0] is PASS
    evidence.trace["streams"][-1]["last_dma"] = None        # what goes through are interrupts alone
    assert judge.the_scenario_took_effect(evidence)[0] is INVALID
    evidence.scenario = a_scenario(devices="-device ide-hd,drive=more")     # mapped before the panic
    assert judge.the_scenario_took_effect(evidence)[0] is PASS
    for phase in ("window", "adopted"):
        evidence.trace["streams"][-1][phase]["translated"] = 0
    assert judge.the_scenario_took_effect(evidence)[0] is INVALID
    evidence.scenario = a_scenario(devices="-device virtio-blk-pci,drive=more")     # past the SMMU
    assert judge.the_scenario_took_effect(evidence)[0] is PASS
    evidence.scenario = a_scenario(devices="-device virtio-blk-pci,drive=more,iommu_platform=on")
    assert judge.the_scenario_took_effect(evidence)[0] is INVALID
    evidence.scenario = a_scenario(devices=evidence.scenario.devices, chaos=5)
    evidence.console = CHAOS.format(0x108)      # it is damaged
    assert judge.the_scenario_took_effect(evidence)[0] is PASS


@pytest.mark.parametrize("moment", ["", "storm", "suspend"])
def test_rule12_moment(case: Case, moment: str) -> None:
    """A storm maps to the end; a suspended card is silent."""
    evidence = case.evidence()
    evidence.scenario = a_scenario(moment=moment, seen="fine")
    streams = {stream["sid"]: stream for stream in evidence.trace["streams"]}
    assert judge.the_scenario_took_effect(evidence)[0] is (INVALID if moment else PASS)
    streams[DUMP]["slots"] = {"before": {"translated": {-2: 5}}}        # it was over
    assert judge.the_scenario_took_effect(evidence)[0] is (INVALID if moment else PASS)
    streams[DUMP]["slots"]["before"]["translated"][-1] = 5
    streams[NIC]["slots"] = {"before": {"faulted": {-4: 1}}, "adopted": {"faulted": {9: 1}}}     # it is woken
    assert judge.the_scenario_took_effect(evidence)[0] is PASS
    for which, status in ("unpatched", PASS), ("patched", INVALID if moment == "suspend" else PASS):
        evidence.which, translated = which, streams[NIC]["taken"].pop("translated")
        streams[NIC]["taken"]["translated"] = 0         # it was never woken
        assert judge.the_scenario_took_effect(evidence)[0] is status
        streams[NIC]["taken"]["translated"] = translated
    streams[NIC]["slots"]["window"] = {"aborted": {5: 1}}
    assert judge.the_scenario_took_effect(evidence)[0] is (INVALID if moment == "suspend" else PASS)


WRITTEN = "smmu_kdump_test: L1 descriptor 5: 0x0000000000000000 becomes 0x0000000080000009\n"
FOUND = (
    "arm-smmu-v3 9050000.smmuv3: kdump: bad L1 descriptor for StreamID 0x500: 0x0000000080000009, cut off\n"
)


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        (WRITTEN, FOUND, PASS),
        (WRITTEN, "", INVALID),
        ("", FOUND, INVALID),
        (WRITTEN + FOUND, "", INVALID),
        (WRITTEN, FOUND.replace("8000", "9000"), INVALID),
    ],
)
def test_rule9_damage(case: Case, before: str, after: str, status: Status) -> None:
    evidence = case.evidence()
    panic = "Kernel panic - not syncing: sysrq triggered crash\n"
    evidence.console = BOOT + before + panic + BOOT + TOLD + after
    assert judge.judge(evidence).rule(9) is None
    evidence.damage = 0x80000009
    judgement = judge.judge(evidence)
    assert rule(judgement, 9).status == status
    assert judgement.verdict is status


# --- a trace that cannot be read is an error, not a pass


def edit_cut(lines: list[str]) -> None:
    lines[-1] = lines[-1][:-10]


def edit_no_newline(lines: list[str]) -> None:
    lines[-1] = lines[-1].rstrip("\n")


def edit_event(lines: list[str]) -> None:
    lines.insert(5, lines[5].split(":")[0] + ":smmuv3_translate_maybe sid=0x8\n")


def edit_field(lines: list[str]) -> None:
    at = next(i for i, line in enumerate(lines) if "translate_success" in line)
    lines[at] = lines[at].replace("sid=", "stream=")


def edit_untimed(lines: list[str]) -> None:
    at = next(i for i, line in enumerate(lines) if "translate_success" in line)
    lines[at] = lines[at].split(":", 1)[1]


def edit_half_line(lines: list[str]) -> None:
    lines[7] = lines[7][:20] + "\n"


def edit_empty(lines: list[str]) -> None:
    lines.clear()


def edit_foreign(lines: list[str]) -> None:
    lines[:] = ["gicv3_dist_read: invalid guest read at offset 000000000000000c size 4\n"]


def edit_zero_byte(lines: list[str]) -> None:
    lines[5] = lines[5].replace("smmuv3", "smm\0v3")


def edit_no_event(lines: list[str]) -> None:
    lines[5] = lines[5].split(":")[0] + ":\n"


def edit_date(lines: list[str]) -> None:
    lines[5] = "2026-13-22T17:57:42Z smmuv3_get_cd CD addr: 0x0\n"


def edit_nobody(lines: list[str]) -> None:
    lines.insert(5, "somebody translation failed for iova=0x0 (SMMU_EVT_F_TRANSLATION)\n")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (edit_cut, r"\d+: the last line is cut off"),
        (edit_no_newline, r"\d+: the last line is cut off"),
        (edit_event, "6: unknown event `smmuv3_translate_maybe'"),
        (edit_field, r"\d+: no field `sid'"),
        (edit_untimed, r"\d+: a trace line without a time"),
        (edit_half_line, "8: not a trace line"),
        (edit_empty, "0: no SMMUv3 trace"),
        (edit_foreign, "1: no SMMUv3 trace"),
        (edit_zero_byte, "6: a zero byte"),
        (edit_no_event, "6: unknown event `'"),
        (edit_date, "6: month must be in 1..12"),
        (edit_nobody, "6: whose translation failed"),
    ],
)
def test_unreadable(case: Case, edit: Callable[[list[str]], None], said: str) -> None:
    edit(case.lines)
    with pytest.raises(ValueError, match=rf"trace\.log:{said}"):
        case.trace()


def test_unreadable_before_it_is_read(case: Case) -> None:
    with pytest.raises(ValueError, match=r"trace\.log:0: .*No such file"):
        read_trace(case.path, case.panic, case.shutdown, case.memory)
    case.memory.append((0x60000000, 0x5FFFFFFF))
    with pytest.raises(ValueError, match="no range"):
        case.trace()


def test_cut_between_lines(case: Case) -> None:
    """Whole lines, but the end is missing: rule 4 has not seen the shutdown."""
    del case.lines[next(n for n, line in enumerate(case.lines) if case.time(line) >= case.shutdown):]
    judgement = case.judge()
    assert rule(judgement, 4).status == INVALID and judgement.verdict == "INVALID"


def test_fields_by_name(case: Case) -> None:
    """Another order and other separators, as between versions."""
    before = case.trace()
    for at, line in enumerate(case.lines):
        match = re.match(r"(.*translate_success \S+) (sid=\S+) (iova=\S+) (translated=\S+) (.*)", line)
        if match:
            head, sid, iova, where, rest = match.groups()
            case.lines[at] = (
                f"{head} {where.replace('=', ':')} new=1 {iova.replace('=', ': ')} "
                f"{sid.replace('=', '= ')} {rest}\n"
            )
    assert case.trace() == before


EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
PHDR = struct.Struct("<IIQQQQQQ")
AT = 0x40000000


def printk(log: bytes, start: int) -> tuple[bytes, bytes]:
    """printk's ring of 4096 bytes and its descriptors; each line is a record, the first at this position."""
    data, descs, infos, at, lines = bytearray(4096), bytearray(), bytearray(), start, log.split(b"\n")
    for number, line in enumerate(lines):
        size = (8 + len(line) + 7) // 8 * 8
        end = at + size if at // 4096 == (at + size) // 4096 else (at + size) // 4096 * 4096 + size
        place = at % 4096 if at // 4096 == end // 4096 else 0
        data[place:place + 8 + len(line)] = struct.pack("<Q", number) + line
        descs += struct.pack("<QQQ", 2 << 62 | number, at, end)
        infos += struct.pack("<QQH6x", number, 0, len(line))
        at = end
    count = 1 << len(lines).bit_length()
    return bytes(data), b"".join(table.ljust(24 * count, b"\xff") for table in (descs, infos))


def a_vmcore(path: Path, memory: bytes, log: bytes, start: int = 4096) -> None:
    """As makedumpfile writes it: VMCOREINFO in a note, memory with physical and virtual addresses."""
    virtual = 0xFFFF000000000000
    memory += bytes(-len(memory) % 4096)
    tables = 8192 + len(memory)     # two pages of translation tables: a block of 1 GiB
    info = (
        f"OSRELEASE=6.12.0\nPAGESIZE=4096\nSYMBOL(prb)={virtual:x}\n"
        f"SYMBOL(swapper_pg_dir)={virtual + tables:x}\nSYMBOL(_stext)={virtual:x}\n"
        f"NUMBER(VA_BITS)=48\nKERNELOFFSET=0\nNUMBER(PHYS_OFFSET)={AT:#x}\n"
        f"NUMBER(kimage_voffset)={virtual - AT:#x}\nNUMBER(TCR_EL1_T1SZ)=0x10\n"
        "OFFSET(printk_ringbuffer.text_data_ring)=8\nOFFSET(prb_data_ring.size_bits)=0\n"
        "OFFSET(prb_data_ring.data)=8\nOFFSET(printk_ringbuffer.desc_ring)=64\n"
        "OFFSET(prb_desc_ring.count_bits)=0\nOFFSET(prb_desc_ring.descs)=8\n"
        "OFFSET(prb_desc_ring.infos)=16\nOFFSET(prb_desc_ring.head_id)=24\n"
        "OFFSET(prb_desc_ring.tail_id)=32\nSIZE(prb_desc)=24\nOFFSET(prb_desc.state_var)=0\n"
        "OFFSET(prb_desc.text_blk_lpos)=8\nOFFSET(prb_data_blk_lpos.begin)=0\n"
        "OFFSET(prb_data_blk_lpos.next)=8\nSIZE(printk_info)=24\nOFFSET(printk_info.text_len)=16\n"
    ).encode()
    note = struct.pack("<III", 11, len(info), 0) + b"VMCOREINFO\0\0" + info + bytes(-len(info) % 4)
    # prb points to the ring buffer, whose log of 4096 bytes is on the second page
    text, tables_ = printk(log, start)
    lines, descs = log.count(b"\n") + 1, virtual + 128
    ring = struct.pack("<QQQQ", virtual + 8, 0, 12, virtual + 4096).ljust(72, b"\0")
    ring += struct.pack(
        "<QQQQQ", lines.bit_length(), descs, descs + len(tables_) // 2, lines - 1, 0
    )
    data = (ring.ljust(128, b"\0") + tables_).ljust(4096, b"\0") + text + memory
    entries = (AT + tables + 4096 | 3, AT | 0x401)
    data += b"".join(struct.pack("<Q", entry).ljust(4096, b"\0") for entry in entries)
    header = EHDR.pack(b"\x7fELF\x02\x01\x01", 4, 183, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    begin = 64 + 2 * 56
    segments = PHDR.pack(4, 0, begin, 0, 0, len(note), len(note), 0) + PHDR.pack(
        1, 7, 4096, virtual, AT, len(data), len(data), 0
    )
    path.write_bytes((header + segments + note).ljust(4096, b"\0") + data + bytes(4096))


def test_what_is_in_a_vmcore(tmp_path: Path) -> None:
    """The sender's frame and the vmcore's reader are two ends of one thing."""
    nonce = 0x1234567
    good, bad = workload.frame(nonce, 5), bytearray(workload.frame(nonce, 6))
    bad[100] ^= 1
    block = workload.expected_block(nonce, 3)
    memory = (bytes(77) + good + bytes(99) + bytes(bad) + workload.frame(nonce + 2, 7)).ljust(
        8192, b"\0"
    ) + block
    path = tmp_path / "vmcore"
    a_vmcore(path, memory, b"this log says sysrq triggered crash and more")
    half, where = workload.READ_SIZE // 2, AT + 8192 + 8192
    whole = [f"{where:#x}:{half:#x}", f"{where + half:#x}:{half:#x}"]

    def look(text: str, index: int, pieces: list[str]) -> dict[str, Any]:
        return vmcore.main(path, text, nonce, {str(index): pieces})

    assert look("sysrq triggered", 3, whole) == {"frames": [5], "reads": [3], "error": ""}
    assert look("oops", 3, whole[::-1]) == {"frames": [5], "reads": [], "error": "no panic message"}
    assert look("sysrq", 2, whole)["reads"] == []
    assert look("sysrq", 3, ["0x10000000:0x1000"])["reads"] == []  # memory that it does not have
    path.write_bytes(b"not an ELF file at all".ljust(100, b"."))
    assert look("sysrq", 3, whole)["error"]
    path.write_bytes(b"")
    assert look("sysrq", 3, whole)["error"]


def test_rule13_second_panic() -> None:
    """The machine ends by itself; that there is no vmcore is no failure then."""
    console = f"Kernel panic - not syncing: {judge.SECOND_PANIC}\nRebooting in 1 seconds..\n"
    early = "QEMU ended (0) early"
    for said, lost, status in ((console, early, Status.PASS), (console, "no end after 9 s", Status.FAIL),
                               (console, "QEMU ended (-6) early", Status.FAIL),
                               (console, "", Status.FAIL), ("", early, Status.INVALID)):
        evidence = judge.Evidence(a_scenario(second_panic=True), {}, console=said, lost=lost)
        assert judge.the_second_panic_ends_it(evidence)[0] is status
    assert not {4, 5, 6} & {rule.number for rule in judge.RULES if rule.applies(evidence)}
    assert "die=1" in a_scenario(second_panic=True).crash_cmdline()


def test_a_moment_may_be_complained_of() -> None:
    """What the crashed kernel says of its end is no dirt; what comes before, or of the crash kernel, is."""
    boot, oops = "Booting Linux on physical CPU 0x0\n", "Internal error: Oops\n"
    end = f"{judge.PANIC_TEXT}, by an oops\n"

    def status(console: str, moment: str = "oops") -> Status:
        return judge.clean_logs(judge.Evidence(a_scenario(moment=moment), {}, console=console))[0]

    assert status(boot + end + oops + boot) is Status.PASS
    assert status(boot + oops + end + boot) is Status.FAIL
    assert status(boot + end + boot + oops) is Status.FAIL
    assert status(boot + end + oops + boot, "") is Status.FAIL


def test_a_card_that_is_suspended(case: Case) -> None:
    """It receives nothing, so rule 5 wants no frames; what it does once it is woken is judged."""
    evidence = case.evidence()
    nic = next(stream for stream in evidence.trace["streams"] if stream["sid"] == NIC)
    evidence.frames = set()
    assert judge.data_lands(evidence)[0] is FAIL
    evidence.scenario = a_scenario(moment="suspend")
    assert [judge.in_flight_dma_survives(evidence)[0], judge.data_lands(evidence)[0]] == [PASS, PASS]
    nic["adopted"]["misdirected"] = 1
    assert judge.nothing_is_misdirected(evidence)[0] is FAIL
    nic["adopted"]["aborted"] = 1
    assert judge.in_flight_dma_survives(evidence)[0] is FAIL
