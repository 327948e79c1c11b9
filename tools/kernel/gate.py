# SPDX-License-Identifier: GPL-2.0-only
"""make gate: every patch of the queue, in order, on each base, through every check of the table CHECKS.

Only what a patch adds counts: each check's messages, without their line numbers, are compared
with those of the patch before. The first row is a control: a change to the base in which every
check must find something, or else that check is ENVIRONMENT and nothing that it says is believed.

    BASE=       one base (default: all of patches/bases)
    CHECKS=     only these columns, separated by commas

Results are kept under a key of everything that they depend on.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .. import deps
from ..common import FAIL, USAGE, Err, Stage, lock, run, stage, write
from ..queue import bases, status
from ..queue.store import PREREQ, Store, digest, is_own
from ..results import Report, Result, Status, counted, run_directory, table, worst
from . import build, kunit, sparse

VERSION = "5"                   # of what is done below; results of another version are not used
DRIVER = "drivers/iommu/arm/arm-smmu-v3"
FILES = tuple(f"{DRIVER}/{name}" for name in ("arm-smmu-v3.c", "arm-smmu-v3.h", "arm-smmu-v3-test.c"))
SPATCH_LIMIT_S = 120            # for one semantic patch; the slowest takes a tenth of it

# What is taken out of or put into the test kernels' configuration.
CONFIGS = {
    "SMMU_V3=m": ["CONFIG_MODULES=y", "CONFIG_ARM_SMMU_V3=m",
                  "CONFIG_ARM_SMMU_V3_KUNIT_TEST=m  # optional"],
    "CRASH_DUMP=n": ["CONFIG_CRASH_DUMP=n", "CONFIG_PROC_VMCORE=n"],
    "PCI_ATS=n": ["CONFIG_PCI_ATS=n", "CONFIG_PCI_IOV=n", "CONFIG_PCI_PRI=n", "CONFIG_PCI_PASID=n"],
    "KUNIT=n": ["CONFIG_KUNIT=n", "CONFIG_ARM_SMMU_V3_KUNIT_TEST=n"],
}

# What checkpatch may say of a patch of this project.
EXCEPTIONS = {
    "MISSING_SIGN_OFF": "only the person who submits the series can certify it: the export adds theirs",
    "UNKNOWN_COMMIT_ID": "the base is a release's source without history: the commit cannot be looked up",
    "FILE_PATH_CHANGES": "MAINTAINERS has the driver's directory, and so a test file that a base lacks",
}

# The control: what is put at the end of the driver, and what each check must say of it.
SEED = """
extern asmlinkage void start_kernel(void);
static void gate_unused(void) { }
void gate_control(void __iomem *reg, void *freed)
{
\tint only_set;

\tonly_set = *(int *)reg;
\tif (freed != NULL)
\t\tkfree(freed);
\tstart_kernel();
}
"""


@dataclass
class Outcome:
    """What a check says of one state of the tree."""
    messages: list[str] = field(default_factory=list)
    failed: str = ""            # it did not even build, or run
    env: str = ""               # why the check could not be made
    skipped: str = ""           # why there is nothing to check
    text: str = ""              # for the table, in place of counts


@dataclass(frozen=True)
class State:
    """The tree with the first `count` patches; -1 is the control."""
    count: int
    commit: str
    patch: str = ""             # the last one's text


def gist(line: str) -> str:
    """A message without its line numbers, which every patch moves."""
    line = re.sub(r"^(?:\.\./)*(\S+?\.[chS]):\d+(?::\d+)?(?:-\d+)?(?::\d+-\d+)?:?", r"\1:", line.strip())
    return re.sub(r"\b(on|at|around|near) line \d+|\bline \d+\b|:\d+:\d+\b", "", line)


def compiler_messages(log: str) -> list[str]:
    return [gist(line) for line in log.splitlines()
            if re.match(r"\S+\.[chS]:\d+(:\d+)?: ", line) and ": note: " not in line
            or re.match(r"WARNING: modpost|ERROR: modpost", line)]


class Gate:
    """One base."""

    def __init__(self, base: str) -> None:
        deps.need("kernel", "gate")
        self.store = Store(base)
        self.base = base
        self.kept = self.store.here / "gate"
        self.kept.mkdir(exist_ok=True)
        self.patches = self.store.queue()
        self.compiler = build.compiler()
        touched = re.findall(r"(?m)^diff --git a/(\S+)\.c ", "".join(p.read_text() for p in self.patches))
        # What prereq/ changes in other directories; not every configuration has these files.
        self.others = sorted({f"{path}.o" for path in touched if not path.startswith(DRIVER)})
        with self.store.lock():
            source = self.store.source()
            texts = ["", *(patch.read_text() for patch in self.patches)]
            pairs = zip(self.store.commits(source, self.patches), texts)
            self.states = {count: State(count, *pair) for count, pair in enumerate(pairs)}
            self.states[-1] = self._control(source)
            self.store.check_out(source)

    def _control(self, source: str) -> State:
        """The base with the seeded file, and the same as a patch."""
        git = self.store.git
        text = git("cat-file", "blob", f"{source}:{FILES[0]}").stdout + SEED
        blob = git("hash-object", "-w", "--stdin", data=text.encode()).stdout.strip()
        git("read-tree", source)
        git("update-index", "--cacheinfo", f"100644,{blob},{FILES[0]}")
        message = b"Control of the gate\n\nNot to be applied.\n"
        tree = git("write-tree").stdout.strip()
        commit = git("commit-tree", tree, "-p", source, data=message).stdout.strip()
        git("update-ref", "refs/gate/control", commit)
        # The store keeps files of any size as they are, which git then takes for binary.
        patch = git("-c", "core.bigFileThreshold=512m", "format-patch", "--stdout", "-1", commit).stdout
        return State(-1, commit, patch)

    def name(self, count: int) -> str:
        """The row's: control, base, or the patch's number."""
        if count < 1:
            return "control" if count else "0000 (base)"
        patch = self.patches[count - 1]
        return ("" if is_own(patch) else f"{PREREQ}/") + patch.name[:4]

    def remember(self, make: Callable[[], Outcome], *made_of: str) -> Outcome:
        """What was made of the same before. What could not run, or tests that failed, run again."""
        path = self.kept / f"{digest(VERSION, *made_of)[:32]}.json"
        if path.exists():
            os.utime(path)
            return Outcome(**json.loads(path.read_text()))
        try:
            outcome = make()
        except Err as err:
            return Outcome(failed=err.cause) if err.code == FAIL else Outcome(env=err.cause)
        if not outcome.env and not (outcome.text and outcome.messages):
            write(path, json.dumps(dataclasses.asdict(outcome)))
        return outcome

    def forget(self) -> None:
        """Keep the latest outcomes only."""
        old = sorted(self.kept.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in old[:-2000]:
            path.unlink()

    # Builds of the driver's directory.

    def compiled(self, state: State, name: str, step: Stage) -> Outcome:
        """One state of the tree in one configuration. `sparse` and `W=1` share theirs."""
        checker: str | Err = self.sparse if name == "sparse" else ""
        if isinstance(checker, Err):
            return Outcome(env=checker.cause)
        wanted = build.fragments(changed=CONFIGS.get(name, ()))
        compile = functools.partial(self._compile, state.commit, name, wanted, checker, step)
        return self.remember(compile, name, self.store.tree_of(state.commit), wanted, self.compiler, checker,
                             *self.others)

    @functools.cached_property
    def sparse(self) -> str | Err:
        """The one that the base accepts, or why there is none."""
        with self.store.lock():
            tree = self.store.check_out(self.states[0].commit)
        try:
            return sparse.find(tree)
        except Err as err:
            return err

    def _compile(self, commit: str, name: str, wanted: str, checker: str, step: Stage) -> Outcome:
        store = self.store
        obj = store.here / ("obj-gate" + (f"-{name.split('=')[0].lower()}" if name in CONFIGS else ""))
        log = self.kept / f"{obj.name}.log"
        failed = ""
        with store.lock(), build.objects(obj):
            store.check_out(commit)
            log.write_text("")
            build.configure(step, store, obj, wanted, log)
            targets = [f"{DRIVER}/", *([] if name in CONFIGS else ["W=1", *self.others])]
            cmd, env = build.make(store, obj, *targets)
            if checker:
                # First what has to be compiled anyhow, so that sparse's messages come alone.
                build.run_make(step, cmd, env, log, 0)
                cmd += ["C=2", f"CHECK={checker}"]
            else:
                for old in [*(obj / DRIVER).rglob("*.o"), *(obj / name for name in self.others)]:
                    old.unlink(missing_ok=True)
            log.write_text("")
            try:
                build.run_make(step, cmd, env, log, 0)
            except Err as err:
                if err.code != FAIL:
                    raise
                failed = err.cause
            said = log.read_text(errors="replace")
            messages = compiler_messages(said.replace(f"{store.test}/", ""))
            if checker and (" CHECK " not in said or "not up to date" in said):
                return Outcome(env="the kernel's build did not run sparse")
            if name == "SMMU_V3=m" and not failed:
                messages += self._unresolved(commit, obj)
            return Outcome(messages, failed)

    def _unresolved(self, commit: str, obj: Path) -> list[str]:
        """What modpost would refuse: symbols that the modules need and nobody exports.

        Linking a module in earnest takes a whole kernel with modules; what the objects leave
        undefined, and what the source exports, are known without one."""
        modules = [path for path in (obj / DRIVER).glob("*.o") if not path.name.endswith(".mod.o")]
        listing = run(["aarch64-linux-gnu-nm", *modules]).stdout
        undefined = set(re.findall(r"^ {16} U (\S+)$", listing, re.MULTILINE))
        defined = set(re.findall(r"^[0-9a-f]{16} \w (\S+)$", listing, re.MULTILINE))
        wanted = undefined - defined - self._exports(commit)
        return [f"{DRIVER}: {name} is not exported" for name in sorted(wanted)]

    def _exports(self, commit: str) -> set[str]:
        """Every name that the tree exports, C or assembler; those that two macros paste together as well."""
        found = self.store.git(
            "grep", "-hE", r"EXPORT_[A-Z_]*SYMBOL[A-Z_]*\(|EXPORT_(TRACEPOINT|STATIC_CALL)[A-Z_]*\(|"
            r"^(STANDARD_PARAM_DEF|define_dev_printk_level)\(", commit, "--", "*.c", "*.S", "*.h").stdout
        names = set(re.findall(r"(?:EXPORT_\w+|define_dev_printk_level)\(\s*(\w+)", found))
        pasted = {f"param_{what}_{name}" for name in re.findall(r"STANDARD_PARAM_DEF\((\w+)", found)
                  for what in ("ops", "get", "set")}
        prefixes = ("", "__SCT__", "__SCK__", "__traceiter_", "__tracepoint_")
        return pasted | {"__this_module"} | {prefix + name for name in names for prefix in prefixes}

    # Checks of the text.

    def checkpatch(self, state: State, name: str, step: Stage) -> Outcome:
        """What the base's checkpatch says of the patch alone."""
        tree = self.store.test
        done = run(["perl", tree / "scripts" / "checkpatch.pl", "--strict", "--show-types", "--no-summary",
                    "--terse", f"--root={tree}", "-"], data=state.patch.encode(), check=False,
                   cwd=self.store.here)     # where there is a .git it wants spdxcheck's Python modules
        messages = []
        for line in (done.stdout + done.stderr).splitlines():
            match = re.match(r"-:(\d+): ((?:ERROR|WARNING|CHECK):(\w+): .*)", line)
            if line.strip() and not (match and match[3] in EXCEPTIONS):
                messages.append(f"line {match[1]}: {match[2]}" if match else line)
        if done.returncode and not (done.stdout + done.stderr).strip():
            return Outcome(env=f"checkpatch ended with {done.returncode} and said nothing")
        return Outcome(messages)

    def cocci(self, state: State, name: str, step: Stage) -> Outcome:
        """The base's semantic patches in report mode, over the driver's files alone."""
        if not shutil.which("spatch"):
            return Outcome(env="spatch is not installed")
        scripts = "scripts/coccinelle"
        part = self.store.git("ls-tree", state.commit, "--", *FILES, scripts).stdout    # of those that it has
        tool = run(["spatch", "--version"]).stdout.splitlines()[0]
        return self.remember(lambda: self._cocci(state.commit, scripts, tool, step), "cocci", part, tool)

    def _cocci(self, commit: str, scripts: str, tool: str, step: Stage) -> Outcome:
        have = [int(part) for part in re.findall(r"\d+", tool.partition("version")[2])]
        outcomes = []
        with self.store.lock():
            tree = self.store.check_out(commit)
            found = sorted((tree / scripts).rglob("*.cocci"))
            for number, script in enumerate(found):
                step.update(f"{number}/{len(found)}")
                text = script.read_text(errors="replace")
                needs = re.search(r"^// Requires:\s*([\d.]*\d)", text, re.MULTILINE)
                if (re.search(r"^virtual.*\breport\b", text, re.MULTILINE)
                        and not (needs and [int(part) for part in needs[1].split(".")] > have)):
                    outcomes.append(self._spatch(tree, script, str(script.relative_to(tree / scripts)), text))
        messages = [line for outcome in outcomes for line in outcome.messages]
        if all(outcome.failed for outcome in outcomes):
            return Outcome(env="not one semantic patch ran: " + "; ".join(messages[:2]))
        return Outcome(messages)

    def _spatch(self, tree: Path, script: Path, name: str, text: str) -> Outcome:
        """One semantic patch."""
        options = " ".join(re.findall(r"^// Options:(.*)$", text, re.MULTILINE)).split()
        files = (name for name in FILES if name.endswith(".c") and (tree / name).exists())
        done = run(["timeout", "-k", "5", str(SPATCH_LIMIT_S), "spatch", "-D", "report", "--very-quiet",
                    *options, "--cocci-file", script, *files], cwd=tree, check=False)
        if done.returncode:
            why = (f"no end after {SPATCH_LIMIT_S} s" if done.returncode == 124
                   else (done.stderr.strip() or "failed").splitlines()[-1])
            return Outcome([f"{name}: {why}"], failed=why)
        # Many print the place as a diff as well, whose lines are no messages.
        return Outcome([f"{name}: {gist(line)}" for line in done.stdout.splitlines()
                        if re.match(r"\S+\.[ch]:\d+", line)])

    # The unit tests.

    def tests(self, state: State, name: str, step: Stage) -> Outcome:
        """After the first so many patches; `sanitize` is a flavour of the kernel."""
        own = state.count and is_own(self.patches[state.count - 1])
        if not own and not self.store.git("ls-tree", state.commit, "--", FILES[2]).stdout:
            return Outcome(skipped="before the series the driver has no unit tests")
        flavour = "" if name == "kunit" else name
        what = build.identify(self.base, state.count, flavour)

        def test() -> Outcome:
            built = build.build(self.base, state.count, flavour)
            where = self.kept / f"kunit-{what}"
            where.mkdir(exist_ok=True)
            found = kunit.boot(built.image, where, kunit.reader(self.store), progress=step.update)
            bad = [f"{one.suite}.{one.name}: {one.status}: " + "; ".join(one.detail.split("\n")[:4])
                   for one in found.results() if one.status not in (Status.PASS, Status.SKIPPED)]
            passed = sum(case.status is Status.PASS for case in found.cases)
            if bad:
                bad.append(f"console: {where}/console.log")
            else:
                shutil.rmtree(where)
            return Outcome(bad, text=f"{passed}/{len(found.cases)}")

        return self.remember(test, "kunit", what, kunit.SUITES, Path(kunit.__file__).read_text())


@dataclass(frozen=True)
class Check:
    """A column: how it runs, and what the control must make it say."""
    name: str
    run: Callable[[Gate, State, str, Stage], Outcome]
    control: str = ""           # none: the unit tests fail for reasons of their own
    first: int = 1              # the first state that is judged: after the first patch, or the base
    whole: bool = False         # the whole queue alone
    compares: bool = True       # what the state before says, too, is not this patch's


UNUSED = "gate_unused.*defined but not used"
CHECKS = {check.name: check for check in (
    Check("W=1", Gate.compiled, "only_set.*set but not used"),
    Check("sparse", Gate.compiled, "removes address space"),
    Check("SMMU_V3=m", Gate.compiled, "start_kernel is not exported"),
    Check("CRASH_DUMP=n", Gate.compiled, UNUSED),
    Check("PCI_ATS=n", Gate.compiled, UNUSED),
    Check("KUNIT=n", Gate.compiled, UNUSED),
    Check("checkpatch", Gate.checkpatch, "AVOID_EXTERNS", compares=False),
    Check("cocci", Gate.cocci, "NULL check before some freeing functions is not needed"),
    Check("kunit", Gate.tests, first=0, compares=False),
    Check("sanitize", Gate.tests, whole=True, compares=False),
)}


def judge(check: Check, row: str, before: Outcome, now: Outcome) -> Result:
    """One cell; its figure `cell` is what the table shows."""
    def found(status: Status, cell: str, detail: str = "") -> Result:
        return Result(row, check.name, status, detail, {"cell": cell, "before": len(before.messages),
                                                        "after": len(now.messages)})

    if now.env or before.env:
        return found(Status.ENVIRONMENT, "ENV", f"could not run: {now.env or before.env}")
    if now.skipped:
        return found(Status.SKIPPED, "-", now.skipped)
    fresh = list((Counter(now.messages) - Counter(before.messages)).elements())
    fresh += [now.failed] if now.failed else []
    if row == "control":
        if re.search(check.control, "\n".join(fresh)):
            return found(Status.PASS, f"+{len(fresh)}")
        return found(Status.ENVIRONMENT, "ENV", f"the control: it did not say {check.control!r}, but: "
                     f"{'; '.join(fresh[:3]) or 'nothing'}")
    counts = f"{len(before.messages)}>" * check.compares + f"{len(now.messages)}"
    cell = (now.text or counts) + " !" * bool(fresh)
    return found(Status.FAIL if fresh else Status.PASS, cell, "\n".join(fresh))


def examine(gate: Gate, check: Check) -> list[Result]:
    """One column, from the control down."""
    last = len(gate.patches)
    rows = [-1] * bool(check.control) + ([last] if check.whole else list(range(check.first, last + 1)))
    seen: dict[int, Outcome] = {}
    for count in sorted({*rows, *([0] if check.compares else [])}):
        what = gate.name(count) if count < 1 else f"{count}/{last}"
        with stage(f"gate {gate.base} {what} {check.name}") as step:
            seen[count] = check.run(gate, gate.states[count], check.name, step)
    found: list[Result] = []
    for count in rows:
        before = seen[max(count - 1, 0)] if check.compares else Outcome()
        result = judge(check, gate.name(count), before, seen[count])
        if found and check.control and found[0].status is Status.ENVIRONMENT:
            result = dataclasses.replace(result, status=Status.ENVIRONMENT, figures={"cell": "ENV"},
                                         detail="not believed: the control found nothing")
        found.append(result)
    return found


def page(gate: Gate, results: list[Result], checks: list[str]) -> str:
    """The table: a row a patch, a column a check; below it what is new."""
    cells = {(result.suite, result.name): str(result.figures["cell"]) for result in results}
    names = [name for count in range(-1, len(gate.patches) + 1)
             if any((name := gate.name(count), check) in cells for check in checks)]
    rows = [["patch", *checks]]
    rows += [[name, *(cells.get((name, check), "-") for check in checks)] for name in names]
    out = [f"gate {gate.base}: messages before>after each patch, ! where there is a new one\n", table(rows)]
    # Why a check could not run is said once.
    once = (Status.ENVIRONMENT, Status.SKIPPED)
    said = {f"{one.status} {'' if one.status in once else f'{one.suite} '}{one.name}: {line}": 0
            for one in results for line in one.detail.splitlines()}
    return "\n".join([*out, *said])


def run_gate(base: str, checks: list[str]) -> tuple[Report, Path]:
    """Every check of these on one base."""
    begun = status.begin(base, "gate")
    gate = Gate(base)
    with lock(gate.kept / "lock"):      # a second gate of the base would boot in the same directories
        results = [result for name in checks for result in examine(gate, CHECKS[name])]
        gate.forget()
    report = Report("gate", base, results, {"exceptions": EXCEPTIONS, "compiler": gate.compiler,
                                            "tree": gate.states[len(gate.patches)].commit})
    report.text = f"{page(gate, results, checks)}\n\ngate {base}: {counted(results)}\n\n{report.verdict}\n"
    if checks == list(CHECKS):
        status.record(base, "gate", report.verdict, counted(results), begun, patch_cells(results))
    return report, run_directory("gate", base)


def patch_cells(results: list[Result]) -> dict[str, str]:
    """What make status shows of each patch: does it build, does it pass, its unit tests."""
    found: dict[str, str] = {}
    for row in {result.suite for result in results}:
        mine = [result for result in results if result.suite == row]
        for what, chosen in (("builds", ["W=1"]), ("gate", [name for name in CHECKS if name != "kunit"])):
            found[f"{row} {what}"] = str(worst(result for result in mine if result.name in chosen))
        found |= {f"{row} kunit": str(result.figures["cell"]) for result in mine if result.name == "kunit"}
    return found


def main() -> int:
    """make gate"""
    wanted = os.environ.get("BASE")
    names = [bases.get(wanted).name] if wanted else list(bases.read())
    checks = [word for word in os.environ.get("CHECKS", "").split(",") if word] or list(CHECKS)
    unknown = [check for check in checks if check not in CHECKS]
    if unknown:
        raise Err(f"CHECKS={','.join(unknown)}: no such check", f"choose of: {','.join(CHECKS)}", USAGE)
    verdicts = []
    for base in names:
        report, where = run_gate(base, checks)
        report.show(where)
        verdicts.append(report.verdict)
    return max(verdicts, key=lambda verdict: verdict.weight).code
