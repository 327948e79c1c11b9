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
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..common import FAIL, USAGE, Err, Stage, run, stage
from ..queue import bases, deps
from ..queue.store import PREREQ, Store, digest, is_own
from ..results import Report, Result, Status, counted, run_directory, table
from . import build, kunit, sparse

VERSION = "4"                   # of what is done below; results of another version are not used
DRIVER = "drivers/iommu/arm/arm-smmu-v3"
FILES = tuple(f"{DRIVER}/{name}" for name in ("arm-smmu-v3.c", "arm-smmu-v3.h", "arm-smmu-v3-test.c"))
SPATCH_LIMIT_S = 120            # for one semantic patch; the slowest takes a tenth of it

# What is taken out of or put into the test kernels' configuration.
CONFIGS = {
    "SMMU_V3=m": ["CONFIG_MODULES=y", "CONFIG_ARM_SMMU_V3=m", "CONFIG_ARM_SMMU_V3_KUNIT_TEST=m"],
    "CRASH_DUMP=n": ["CONFIG_CRASH_DUMP=n", "CONFIG_PROC_VMCORE=n"],
    "PCI_ATS=n": ["CONFIG_PCI_ATS=n", "CONFIG_PCI_IOV=n", "CONFIG_PCI_PRI=n", "CONFIG_PCI_PASID=n"],
    "KUNIT=n": ["CONFIG_KUNIT=n", "CONFIG_ARM_SMMU_V3_KUNIT_TEST=n"],
}

# What checkpatch may say of a patch of this project.
EXCEPTIONS = {
    "MISSING_SIGN_OFF": "only the person who submits the series can certify it: the export adds theirs",
    "UNKNOWN_COMMIT_ID": "the base is a release's source without history: the commit cannot be looked up",
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
        self.store = Store(base)
        self.base = base
        self.kept = self.store.here / "gate"
        self.kept.mkdir(exist_ok=True)
        self.patches = self.store.queue()
        deps.need("kernel", "gate")
        self.compiler = build.compiler()
        with self.store.lock():
            self.source = self.store.source()
            commits = self.store.commits(self.source, self.patches)
            texts = ["", *(patch.read_text() for patch in self.patches)]
            self.states = {count: State(count, *pair) for count, pair in enumerate(zip(commits, texts))}
            self.states[-1] = self._control()
            self.store.check_out(self.source)
        self.sparse: str | Err | None = None

    def _control(self) -> State:
        """The base with the seeded file, and the same as a patch."""
        git = self.store.git
        text = git("cat-file", "blob", f"{self.source}:{FILES[0]}").stdout + SEED
        blob = git("hash-object", "-w", "--stdin", data=text.encode()).stdout.strip()
        git("read-tree", self.source)
        git("update-index", "--cacheinfo", f"100644,{blob},{FILES[0]}")
        tree = git("write-tree").stdout.strip()
        commit = git("commit-tree", tree, "-p", self.source, data=b"Control of the gate\n\nNot to be applied.\n").stdout.strip()
        git("update-ref", "refs/gate/control", commit)
        # The store keeps files of any size as they are, which git then takes for binary.
        return State(-1, commit, git("-c", "core.bigFileThreshold=512m", "format-patch", "--stdout", "-1", commit).stdout)

    def name(self, count: int) -> str:
        """The row's: control, base, or the patch's number."""
        if count < 1:
            return "control" if count else "0000 (base)"
        patch = self.patches[count - 1]
        return ("" if is_own(patch) else f"{PREREQ}/") + patch.name[:4]

    def remember(self, key: str, make: Callable[[], Outcome], keep: Callable[[Outcome], bool]) -> Outcome:
        path = self.kept / f"{key[:32]}.json"
        if path.exists():
            os.utime(path)
            return Outcome(**json.loads(path.read_text()))
        try:
            outcome = make()
        except Err as err:
            return Outcome(failed=err.cause) if err.code == FAIL else Outcome(env=err.cause)
        if keep(outcome):
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps(dataclasses.asdict(outcome)))
            partial.rename(path)
        return outcome

    def forget(self) -> None:
        """Keep the latest outcomes only."""
        old = sorted(self.kept.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in old[:-2000]:
            path.unlink()

    # Builds of the driver's directory.

    def compiled(self, state: State, name: str, step: Stage) -> Outcome:
        """One state of the tree in one configuration. `sparse` and `W=1` share theirs."""
        commit, checker = state.commit, ""
        if name == "sparse":
            if self.sparse is None:
                with self.store.lock():
                    self.store.check_out(commit)
                try:
                    self.sparse = sparse.find(self.store.test)
                except Err as err:
                    self.sparse = err
            if isinstance(self.sparse, Err):
                return Outcome(env=self.sparse.cause)
            checker = self.sparse
        key = digest(VERSION, name, self.store.tree_of(commit), build.fragments(changed=CONFIGS.get(name, ())), self.compiler, checker)
        return self.remember(key, lambda: self._compile(commit, name, checker, step), lambda outcome: not outcome.env)

    def _compile(self, commit: str, name: str, checker: str, step: Stage) -> Outcome:
        store = self.store
        obj = store.here / ("obj-gate" + (f"-{name.split('=')[0].lower()}" if name in CONFIGS else ""))
        log = self.kept / f"{obj.name}.log"
        with store.lock(), build.objects(obj):
            store.check_out(commit)
            log.write_text("")
            build.configure(step, store, obj, build.fragments(changed=CONFIGS.get(name, ())), log)
            options = [] if name in CONFIGS else ["W=1"]
            cmd, env = build.make(store, obj, f"{DRIVER}/", *options)
            if name == "sparse":
                # First what has to be compiled anyhow, so that sparse's messages come alone.
                build.run_make(step, cmd, env, log, 0)
                cmd += ["C=2", f"CHECK={checker}"]
            else:
                for old in (obj / DRIVER).rglob("*.o"):
                    old.unlink()
            log.write_text("")
            failed = ""
            try:
                build.run_make(step, cmd, env, log, 0)
            except Err as err:
                if err.code != FAIL:
                    raise
                failed = err.cause
            said = log.read_text(errors="replace")
            messages = compiler_messages(said.replace(f"{store.test}/", ""))
            if name == "sparse" and (" CHECK " not in said or "not up to date" in said):
                return Outcome(env="the kernel's build did not run sparse")
            if name == "SMMU_V3=m" and not failed:
                messages += self._unresolved(commit, obj)
            return Outcome(messages, failed)

    def _unresolved(self, commit: str, obj: Path) -> list[str]:
        """What modpost would refuse: symbols that the modules need and nobody exports.

        Linking a module in earnest takes a whole kernel with modules; what the objects leave
        undefined, and what the source exports, are known without one."""
        modules = [path for path in (obj / DRIVER).glob("*.o") if not path.name.endswith(".mod.o")]
        defined, undefined = set(), set()
        for line in run(["aarch64-linux-gnu-nm", *modules]).stdout.splitlines():
            match = re.match(r"[0-9a-f ]{16} (\w) (\S+)$", line)
            if match:
                (undefined if match[1] == "U" else defined).add(match[2])
        wanted = sorted(undefined - defined)
        exported = self._exports(commit)
        return [f"{DRIVER}: {name} is not exported" for name in wanted if name not in exported]

    def _exports(self, commit: str) -> set[str]:
        """Every name that the tree exports, C or assembler; those that two macros paste together as well."""
        found = self.store.git("grep", "-hE", r"EXPORT_[A-Z_]*SYMBOL[A-Z_]*\(|EXPORT_(TRACEPOINT|STATIC_CALL)[A-Z_]*\(|"
                               r"^(STANDARD_PARAM_DEF|define_dev_printk_level)\(", commit, "--", "*.c", "*.S", "*.h").stdout
        names = set(re.findall(r"(?:EXPORT_\w+|define_dev_printk_level)\(\s*(\w+)", found))
        pasted = {f"param_{what}_{name}" for name in re.findall(r"STANDARD_PARAM_DEF\((\w+)", found)
                  for what in ("ops", "get", "set")}
        return names | pasted | {"__this_module"} | {
            f"{prefix}{name}" for name in names for prefix in ("__SCT__", "__SCK__", "__traceiter_", "__tracepoint_")}

    # Checks of the text.

    def checkpatch(self, state: State, name: str, step: Stage) -> Outcome:
        """What the base's checkpatch says of the patch alone."""
        script = self.store.test / "scripts" / "checkpatch.pl"
        with tempfile.NamedTemporaryFile("w", suffix=".patch") as handle:
            handle.write(state.patch)
            handle.flush()
            done = run(["perl", script, "--strict", "--show-types", "--no-summary", "--terse", f"--root={self.store.test}",
                        handle.name], check=False)
        lines = [line.replace(handle.name, "patch") for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        messages = []
        for line in lines:
            match = re.match(r"patch:(\d+): ((?:ERROR|WARNING|CHECK):(\w+): .*)", line)
            if match and match[3] in EXCEPTIONS:
                continue
            messages.append(f"line {match[1]}: {match[2]}" if match else line)
        if done.returncode and not lines:
            return Outcome(env=f"checkpatch ended with {done.returncode} and said nothing")
        return Outcome(messages)

    def cocci(self, state: State, name: str, step: Stage) -> Outcome:
        """The base's semantic patches in report mode, over the driver's files alone."""
        if not shutil.which("spatch"):
            return Outcome(env="spatch is not installed")
        commit = state.commit
        blobs = [self.store.git("rev-parse", f"{commit}:{name}").stdout for name in FILES]
        scripts = self.store.git("rev-parse", f"{commit}:scripts/coccinelle").stdout
        tool = run(["spatch", "--version"]).stdout.splitlines()[0]
        key = digest(VERSION, "cocci", *blobs, scripts, tool)
        return self.remember(key, lambda: self._cocci(commit, tool, step), lambda outcome: not outcome.env)

    def _cocci(self, commit: str, tool: str, step: Stage) -> Outcome:
        match = re.search(r"version (\d+)\.(\d+)(?:\.(\d+))?", tool)
        have = tuple(int(part or 0) for part in match.groups()) if match else (0,)
        messages: list[str] = []
        with self.store.lock():
            tree = self.store.check_out(commit)
            scripts = sorted((tree / "scripts" / "coccinelle").rglob("*.cocci"))
            ran = 0
            for number, script in enumerate(scripts):
                step.update(f"{number}/{len(scripts)}")
                text = script.read_text(errors="replace")
                if not re.search(r"^virtual.*\breport\b", text, re.MULTILINE):
                    continue
                needs = re.search(r"^// Requires:\s*([\d.]+)", text, re.MULTILINE)
                if needs and tuple(map(int, needs[1].strip(".").split("."))) > have:
                    continue
                options = " ".join(re.findall(r"^// Options:(.*)$", text, re.MULTILINE)).split()
                done = run(["timeout", "-k", "5", str(SPATCH_LIMIT_S), "spatch", "-D", "report", "--very-quiet", *options,
                            "--cocci-file", script, *(name for name in FILES if name.endswith(".c"))], cwd=tree, check=False)
                name = script.relative_to(tree / "scripts" / "coccinelle")
                if done.returncode == 124:
                    messages.append(f"{name}: no end after {SPATCH_LIMIT_S} s")
                elif done.returncode:
                    messages.append(f"{name}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
                else:
                    ran += 1
                # Many print the place as a diff as well, whose lines are no messages.
                messages += [f"{name}: {gist(line)}" for line in done.stdout.splitlines() if re.match(r"\S+\.[ch]:\d+", line)]
        return Outcome(messages) if ran else Outcome(env="not one semantic patch ran: " + "; ".join(messages[:2]))

    # The unit tests.

    def tests(self, state: State, name: str, step: Stage) -> Outcome:
        """After the first so many patches; `sanitize` is a flavour of the kernel."""
        flavour = "" if name == "kunit" else name
        what = build.identify(self.base, state.count, flavour)
        key = digest(VERSION, "kunit", what, kunit.SUITES, Path(kunit.__file__).read_text())

        def test() -> Outcome:
            built = build.build(self.base, state.count, flavour)
            there = kunit.reader(self.store)
            where = self.kept / f"kunit-{what}"
            where.mkdir(exist_ok=True)
            found = kunit.boot(built.image, where, there, progress=step.update)
            bad = [f"{result.suite}.{result.name}: {result.status}: " + "; ".join(result.detail.split("\n")[:4])
                   for result in found.results() if result.status not in (Status.PASS, Status.SKIPPED)]
            passed = sum(case.status is Status.PASS for case in found.cases)
            if bad:
                bad.append(f"console: {where}/console.log")
            else:
                shutil.rmtree(where)
            return Outcome(bad, text=f"{passed}/{len(found.cases)}")

        return self.remember(key, test, lambda outcome: not outcome.messages)


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
    if now.env or before.env:
        return Result(row, check.name, Status.ENVIRONMENT, f"could not run: {now.env or before.env}", {"cell": "ENV"})
    fresh = list((Counter(now.messages) - Counter(before.messages)).elements())
    fresh += [now.failed] if now.failed else []
    if row == "control":
        if re.search(check.control, "\n".join(fresh)):
            return Result(row, check.name, Status.PASS, "", {"cell": f"+{len(fresh)}"})
        return Result(row, check.name, Status.ENVIRONMENT, f"the control: it did not say {check.control!r}, but: "
                      f"{'; '.join(fresh[:3]) or 'nothing'}", {"cell": "ENV"})
    cell = now.text or (f"{len(before.messages)}>{len(now.messages)}" if check.compares else str(len(now.messages)))
    figures = {"cell": cell + (" !" if fresh else ""), "before": len(before.messages), "after": len(now.messages)}
    return Result(row, check.name, Status.FAIL if fresh else Status.PASS, "\n".join(fresh), figures)


def examine(gate: Gate, check: Check) -> list[Result]:
    """One column, from the control down."""
    last = len(gate.patches)
    counts = [last] if check.whole else list(range(check.first, last + 1))
    ran = ([-1] if check.control else []) + ([0] if check.compares else []) + counts
    seen: dict[int, Outcome] = {}
    for count in ran:
        with stage(f"gate {gate.base} {gate.name(count) if count < 1 else f'{count}/{last}'} {check.name}") as step:
            seen[count] = check.run(gate, gate.states[count], check.name, step)
    found = []
    for count in [-1] * bool(check.control) + counts:
        before = seen[max(count - 1, 0)] if check.compares else Outcome()
        result = judge(check, gate.name(count), before, seen[count])
        if found and check.control and found[0].status is Status.ENVIRONMENT and result.status is not Status.ENVIRONMENT:
            result = dataclasses.replace(result, status=Status.ENVIRONMENT, figures={"cell": "ENV"},
                                         detail="not believed: the control found nothing")
        found.append(result)
    return found


def page(gate: Gate, results: list[Result], checks: list[str]) -> str:
    """The table: a row a patch, a column a check; below it what is new."""
    cells = {(result.suite, result.name): str(result.figures["cell"]) for result in results}
    names = [name for count in range(-1, len(gate.patches) + 1)
             if any((name := gate.name(count), check) in cells for check in checks)]
    rows = [["patch", *checks], *([name, *(cells.get((name, check), "-") for check in checks)] for name in names)]
    out = [f"gate {gate.base}: messages before>after each patch, ! where there is a new one\n", table(rows)]
    said: set[tuple[str, str]] = set()
    for result in results:
        for line in result.detail.splitlines():
            if result.status is Status.FAIL or (result.name, line) not in said:
                out.append(f"{result.status} {result.suite} {result.name}: {line}")
            said.add((result.name, line))
    return "\n".join(out)


def run_gate(base: str, checks: list[str]) -> tuple[Report, Path]:
    """Every check of these on one base."""
    gate = Gate(base)
    results = [result for name in checks for result in examine(gate, CHECKS[name])]
    gate.forget()
    report = Report("gate", base, results, {"exceptions": EXCEPTIONS, "compiler": gate.compiler,
                                            "tree": gate.states[len(gate.patches)].commit})
    report.text = f"{page(gate, results, checks)}\n\ngate {base}: {counted(results)}\n\n{report.verdict}\n"
    return report, run_directory("gate", base)


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
