# SPDX-License-Identifier: GPL-2.0-only
"""make gate: every patch of the series, in order, on each base, through every check.

Per patch: the driver's directory built for arm64 with W=1, with sparse, and in the
configurations that leave something out; checkpatch --strict; coccicheck; the unit tests. The
whole series once more: the unit tests under KASAN, UBSAN and lockdep.

Only what a patch adds counts: each check's messages, without their line numbers, are compared
with those of the patch before. The first row is a control: a change to the base in which every
check must find something, or else that check is ENV and nothing that it says is believed.

    BASE=       one base (default: all of patches/bases)
    CHECKS=     only these columns, separated by commas

Results are kept under a key of everything that they depend on. Exit codes: 0 clean, 1 something
new, 2 usage, 3 a check could not run, 130 interrupted.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import bases
import deps
import kernel
import kunit
import sparse
from common import ENVIRONMENT, FAIL, LOST, PASS, USAGE, Err, Stage, cache_dir, main, run, stage
from tree import Rejected, Store, digest

VERSION = "3"                   # of what is done below; results of another version are not used
KEEP = 12                       # reports of one base that are kept
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
CHECKS = ("W=1", "sparse", *CONFIGS, "checkpatch", "cocci", "kunit", "sanitize")

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
MUST_SAY = {"W=1": "only_set.*set but not used", "sparse": "removes address space", "checkpatch": "AVOID_EXTERNS",
            "cocci": "NULL check before some freeing functions is not needed", "SMMU_V3=m": "start_kernel is not exported",
            **{name: "gate_unused.*defined but not used" for name in list(CONFIGS)[1:]}}

OK, NEW, ENV = "ok", "FAIL", "ENV"


@dataclass
class Outcome:
    """What a check says of one state of the tree."""
    messages: list[str] = field(default_factory=list)
    failed: str = ""            # it did not even build, or run
    env: str = ""               # why the check could not be made
    text: str = ""              # for the table, in place of counts


@dataclass
class Cell:
    status: str
    text: str
    new: list[str]


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
        self.texts = [patch.read_text() for patch in self.patches]
        deps.need("kernel", "gate")
        self.compiler = kernel.compiler()
        with self.store.lock():
            self.source = self.store.source()
            self.commits = [self.source]
            try:
                self.commits += [self.store.apply(self.source, self.patches[:count + 1]) for count in range(len(self.patches))]
            except Rejected as err:
                raise Err(f"{err.cause} (on {self.store.version()})", f"make tree BASE={base}", FAIL) from err
            self.control, self.control_patch = self._control()
        self.sparse: str | Err | None = None

    def _control(self) -> tuple[str, str]:
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
        return commit, git("-c", "core.bigFileThreshold=512m", "format-patch", "--stdout", "-1", commit).stdout

    def tree_of(self, commit: str) -> str:
        return self.store.git("rev-parse", f"{commit}^{{tree}}").stdout.strip()

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

    # Builds of the driver's directory.

    def wanted(self, name: str) -> str:
        """The test kernels' configuration with this column's changes; a driver's own option goes with the driver."""
        own = CONFIGS.get(name, [])
        mine = {line.split("=")[0] for line in own}
        lines = [line for line in kernel.fragments().splitlines() if line.split("=")[0] not in mine]
        return "\n".join([*lines, *own]) + "\n"

    def compiled(self, commit: str, name: str, step: Stage) -> Outcome:
        """One state of the tree in one configuration. `sparse` and `W=1` share theirs."""
        checker = ""
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
        key = digest(VERSION, name, self.tree_of(commit), self.wanted(name), self.compiler, checker)
        return self.remember(key, lambda: self._compile(commit, name, checker, step), lambda outcome: not outcome.env)

    def _compile(self, commit: str, name: str, checker: str, step: Stage) -> Outcome:
        store = self.store
        obj = store.here / ("obj-gate" + (f"-{name.split('=')[0].lower()}" if name in CONFIGS else ""))
        log = self.kept / f"{obj.name}.log"
        with store.lock(), kernel.objects(obj):
            store.check_out(commit)
            log.write_text("")
            kernel.configure(step, store, obj, self.wanted(name), log)
            options = [] if name in CONFIGS else ["W=1"]
            cmd, env = kernel.make(store, obj, f"{DRIVER}/", *options)
            if name == "sparse":
                # First what has to be compiled anyhow, so that sparse's messages come alone.
                kernel.run_make(step, cmd, env, log, 0)
                cmd += ["C=2", f"CHECK={checker}"]
            else:
                for old in (obj / DRIVER).rglob("*.o"):
                    old.unlink()
            log.write_text("")
            failed = ""
            try:
                kernel.run_make(step, cmd, env, log, 0)
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

    def checkpatch(self, patch: str) -> Outcome:
        script = self.store.test / "scripts" / "checkpatch.pl"
        with tempfile.NamedTemporaryFile("w", suffix=".patch") as handle:
            handle.write(patch)
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

    def cocci(self, commit: str, step: Stage) -> Outcome:
        """The base's semantic patches in report mode, over the driver's files alone."""
        if not shutil.which("spatch"):
            return Outcome(env="spatch is not installed")
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

    def tests(self, count: int, flavour: str, step: Stage) -> Outcome:
        """With the first `count` patches."""
        what = kernel.identify(self.base, count > 0, count=count or None, flavour=flavour)
        key = digest(VERSION, "kunit", what, kunit.SUITES, (Path(__file__).with_name("kunit.py")).read_text())

        def test() -> Outcome:
            built = kernel.build(self.base, count > 0, count=count or None, flavour=flavour)
            where = self.kept / f"kunit-{what}"
            where.mkdir(exist_ok=True)
            found = kunit.boot(built.image, where, kunit.SUITES, progress=step.update)
            counted = found.count()
            bad = [f"{case.suite}.{case.name}: {case.status}: " + "; ".join(case.detail.split("\n")[:4])
                   for case in found.cases if case.status in (kunit.FAILED, kunit.ERROR)]
            bad += [*found.problems, *([f"LOST: {found.lost}"] if found.code == LOST else [])]
            if not bad and found.code == PASS:
                shutil.rmtree(where)
            elif bad:
                bad.append(f"console: {where}/console.log")
            return Outcome(bad, text=f"{counted[kunit.PASSED]}/{len(found.cases)}"
                           + (f" {counted[kunit.SKIPPED]}s" if counted[kunit.SKIPPED] else ""))

        return self.remember(key, test, lambda outcome: not outcome.messages)

    # The table.

    def outcome(self, check: str, count: int, step: Stage) -> Outcome:
        """Of the tree with so many patches; -1 is the control."""
        commit = self.control if count < 0 else self.commits[count]
        if check == "checkpatch":
            return self.checkpatch(self.control_patch if count < 0 else self.texts[count - 1])
        if check == "cocci":
            return self.cocci(commit, step)
        return self.compiled(commit, check, step)

    def cell(self, check: str, count: int, before: dict[str, Outcome], after: dict[str, Outcome]) -> Cell:
        now, then = after[check], before.get(check, Outcome())
        if now.env or then.env:
            return Cell(ENV, ENV, [f"could not run: {now.env or then.env}"])
        if check in ("kunit", "sanitize"):
            return Cell(NEW if now.messages or now.failed else OK, now.text or "build", now.messages or
                        ([now.failed] if now.failed else []))
        fresh = list((Counter(now.messages) - Counter(then.messages)).elements())
        if now.failed:
            fresh.append(now.failed)
        text = f"{len(then.messages)}>{len(now.messages)}" if check != "checkpatch" else str(len(now.messages))
        if count < 0:
            said = re.search(MUST_SAY[check], "\n".join(fresh))
            return Cell(OK, f"+{len(fresh)}", []) if said else Cell(
                ENV, ENV, [f"the control: it did not say {MUST_SAY[check]!r}, but: {'; '.join(fresh[:3]) or 'nothing'}"])
        return Cell(NEW if fresh else OK, text, fresh)


@dataclass
class Row:
    name: str
    cells: dict[str, Cell]


def examine(base: str, checks: list[str]) -> list[Row]:
    gate = Gate(base)
    seen: dict[int, dict[str, Outcome]] = {}
    rows: list[Row] = []
    text = [check for check in checks if check not in ("kunit", "sanitize")]
    last = len(gate.patches)

    def fill(count: int, check: str, make: Callable[[Stage], Outcome]) -> None:
        what = "control" if count < 0 else f"{count}/{last}"
        with stage(f"gate {base} {what} {check}") as step:
            seen.setdefault(count, {})[check] = make(step)

    with gate.store.lock():
        gate.store.check_out(gate.source)
    for check in text:
        for count in range(-1, last + 1):
            if count or check != "checkpatch":
                fill(count, check, lambda step: gate.outcome(check, count, step))
    control = Row("control", {check: gate.cell(check, -1, seen.get(0, {}), seen[-1]) for check in text})
    rows.append(control)
    if "kunit" in checks:
        for count in range(last + 1):
            fill(count, "kunit", lambda step: gate.tests(count, "", step))
    if "sanitize" in checks:
        fill(last, "sanitize", lambda step: gate.tests(last, "sanitize", step))
    if "kunit" in checks:
        rows.append(Row("0000 (base)", {"kunit": gate.cell("kunit", 0, {}, seen[0])}))
    for count in range(1, last + 1):
        patch = gate.patches[count - 1]
        name = ("prereq/" if patch.parent.name == "prereq" else "") + patch.name[:4]
        cells = {check: gate.cell(check, count, seen.get(count - 1, {}) if check != "checkpatch" else {}, seen[count])
                 for check in checks if check in seen.get(count, {})}
        for check, cell in cells.items():
            if check in control.cells and control.cells[check].status == ENV and cell.status != ENV:
                cells[check] = Cell(ENV, ENV, ["not believed: the control found nothing"])
        rows.append(Row(name, cells))
    old = sorted(gate.kept.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in old[:-2000]:
        path.unlink()
    return rows


def table(base: str, checks: list[str], rows: list[Row]) -> str:
    widths = {check: max(len(check), *(len(row.cells[check].text) + 2 for row in rows if check in row.cells), 4)
              for check in checks}
    first = max(12, *(len(row.name) for row in rows))
    out = [f"gate {base}: messages before>after each patch, ! where there is a new one", "",
           "patch".ljust(first) + "".join(f"  {check:>{widths[check]}}" for check in checks)]
    for row in rows:
        words = []
        for check in checks:
            cell = row.cells.get(check)
            text = "-" if not cell else cell.text + (" !" if cell.status == NEW else "")
            words.append(f"  {text:>{widths[check]}}")
        out.append(row.name.ljust(first) + "".join(words))
    out.append("")
    seen: set[tuple[str, str]] = set()
    for row in rows:
        for check, cell in row.cells.items():
            for line in cell.new:
                if cell.status == ENV and (check, line) in seen:
                    continue
                seen.add((check, line))
                out.append(f"{cell.status:4} {row.name} {check}: {line}")
    return "\n".join(out)


def verdict(rows: list[Row]) -> int:
    statuses = {cell.status for row in rows for cell in row.cells.values()}
    return FAIL if NEW in statuses else ENVIRONMENT if ENV in statuses or not statuses else PASS


def cli() -> int:
    if len(sys.argv) > 1:
        raise Err("no arguments; BASE= and CHECKS= on make's command line", "make help", USAGE)
    wanted = os.environ.get("BASE")
    names = [bases.get(wanted).name] if wanted else list(bases.read())
    checks = [word for word in os.environ.get("CHECKS", "").split(",") if word] or list(CHECKS)
    unknown = [check for check in checks if check not in CHECKS]
    if unknown:
        raise Err(f"CHECKS={','.join(unknown)}: no such check", f"choose of: {','.join(CHECKS)}", USAGE)
    worst = PASS
    for base in names:
        begin = time.monotonic()
        rows = examine(base, checks)
        code = verdict(rows)
        where = cache_dir("gate", base)
        name = {PASS: "PASS", FAIL: "FAIL", ENVIRONMENT: "ENV"}[code]
        text = table(base, checks, rows) + f"\n{name}  gate {base}, {time.monotonic() - begin:.0f} s\n"
        (where / "table.txt").write_text(text)
        (where / "gate.json").write_text(json.dumps({
            "base": base, "verdict": name, "exceptions": EXCEPTIONS,
            "rows": [dataclasses.asdict(row) for row in rows]}, indent=2) + "\n")
        print(text)
        print(f"reports in {where}\n  table.txt  gate.json", flush=True)
        worst = worst if worst == FAIL else code or worst
    return worst


if __name__ == "__main__":
    main(cli)
