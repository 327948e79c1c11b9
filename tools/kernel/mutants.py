# SPDX-License-Identifier: GPL-2.0-only
"""make mutants: does a unit test fail for every way in which the series could be wrong?

One test kernel has all mutants of the lines that the series adds to the driver, each behind a
number on the kernel's command line. It is booted once for each. With a mutant that every case
passes it is the crash kernel of a crash test. If that passes, too, there is a gap in the tests,
unless EQUIVALENT says why the mutant changes nothing, or OUT_OF_REACH why no test can see it.

    BASE=       the base
    MUTANTS=    only these: numbers or names of functions, separated by commas

The mutants are made from the text, by a lexer and the rules of statements and operators below.
What they do not know is left as it is.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from ..common import INVALID, USAGE, Err, Stage, stage
from ..machine import CONSOLE
from ..queue import config, status
from ..queue.store import Store, is_own
from ..results import Report, Result, Status, count, run_directory, table
from . import build, kunit

DRIVER = "drivers/iommu/arm/arm-smmu-v3"
FILES = ("arm-smmu-v3.c", "arm-smmu-v3.h", "arm-smmu-v3-sva.c")
RANDOM_TESTS = "drivers/iommu/arm/kdump-test/smmu-kdump-random.c"
FLAVOUR = "mutants"
WORD = "arm_smmu_v3.kdump_mutant={}"
# Time is counted in instructions, and does not pass while the machine sleeps: no case depends on
# what else the host does, and none waits.
QEMU = ("-smp", "1", "-icount", "shift=4,sleep=off")
RANDOM = "*random*"             # the cases whose number of runs is a parameter
FEW = 300                       # such runs at first; only what survives gets all of them
LIMIT_S, LIMIT_TIMES = 30, 5    # a boot takes no longer than this, and so many times the control's time
GRACE_S = 1.0                   # how long a boot goes on after the first case that failed
SHORT = 72                      # characters of a change in the table

# (base, crash kernel, words of its command line): the rules of the crash test that fail
Crash = Callable[[str, "build.Kernel", str], str]

# Mutants that change nothing, and those that no test here can see: why, and of each its function, old text
# and new text. White space does not count; the second of two with one text in a function has " #2" behind
# the new one.
Excuses = Mapping[str, Sequence[tuple[str, str, str]]]
EQUIVALENT: Excuses = {
    "where the two are equal, one leaf is what both say: 1 << (cdmax - split) is 1": (
        ("arm_smmu_kdump_scan_cdtab", "cdmax > split", "cdmax >= split"),),
    "VMID 0 has been refused before, so that no id is 0": (
        ("arm_smmu_kdump_scan_ste", "ret >= 0", "ret > 0"),),
    "an ida that is all zeroes works; only its lock's name is missing": (
        ("arm_smmu_kdump_adopt_strtab", "ida_init(&smmu->vmid_map);", ""),),
    "in a crash kernel the whole condition is false; the rest of it is the base's own": (
        ("arm_smmu_device_hw_probe", "IS_ENABLED(CONFIG_PCI_PRI)", "!(IS_ENABLED(CONFIG_PCI_PRI))"),
        ("arm_smmu_device_hw_probe", "reg & IDR0_PRI", "!(reg & IDR0_PRI)"),
        ("arm_smmu_device_hw_probe", "reg & IDR0_PRI", "reg"),
        ("arm_smmu_device_hw_probe", "arm_smmu_sva_supported(smmu)", "!(arm_smmu_sva_supported(smmu))")),
}
OUT_OF_REACH: Excuses = {
    "only the figures of the line that tells of the adoption are others": (
        ("arm_smmu_kdump_scan_stes", "continue;", " #2"),
        ("arm_smmu_kdump_scan_stes", "scan->cut++;", ""),
        ("arm_smmu_kdump_scan_2lvl", "scan->cut += STRTAB_NUM_L2_STES;", "")),
    "only a warning is given, or not": (
        ("arm_smmu_setup_unique_irqs", "!is_kdump_kernel()", "!(!is_kdump_kernel()) #2"),
        ("arm_smmu_setup_irqs", "ret < 0", "!(ret < 0)"),
        ("arm_smmu_setup_irqs", "ret < 0", "ret <= 0")),
    "a mapping that is not undone costs address space, and nobody counts it": (
        ("arm_smmu_kdump_map", "win->va", "!(win->va)"),
        ("arm_smmu_kdump_map", "memunmap(win->va);", ""),
        ("arm_smmu_kdump_adopt_strtab", "i < KDUMP_LEVELS", "!(i < KDUMP_LEVELS)"),
        ("arm_smmu_kdump_adopt_strtab", "scan.win[i].va", "!(scan.win[i].va)"),
        ("arm_smmu_kdump_adopt_strtab", "memunmap(scan.win[i].va);", "")),
    "in the unit tests the mapping is the linear map, whatever its size": (
        ("arm_smmu_kdump_map", "addr + size", "addr #2"),
        ("arm_smmu_kdump_map", "win->end - win->start", "win->end #2")),
    "no test lets a small allocation fail": (
        ("arm_smmu_kdump_scan_strtab", "-ENOMEM", "0 #2"),
        ("arm_smmu_kdump_adopt_strtab", "-ENOMEM", "0"),
        ("arm_smmu_kdump_adopt_strtab", "goto err_drop;", ""),
        ("arm_smmu_kdump_adopt_strtab", "goto err_drop;", " #2")),
    "a group that stays open takes what was made after the reset with it, and no unit test makes any": (
        ("arm_smmu_kdump_reset", "irqs", "!(irqs) #2"),
        ("arm_smmu_kdump_reset", "devres_close_group(smmu->dev, irqs);", "")),
    "an SMMU of the tests has no other option": (
        ("arm_smmu_device_probe", "smmu->options & ARM_SMMU_OPT_KDUMP_ADOPT", "smmu->options"),),
    "only an SMMU that can not be registered gets there: the scenario no_registration": (
        ("arm_smmu_device_probe", "arm_smmu_kdump_adopted(smmu)", "!(arm_smmu_kdump_adopted(smmu))"),
        ("arm_smmu_device_probe", "arm_smmu_kdump_fallback(smmu) ?: iommu_device_register(&smmu->iommu, "
         "&arm_smmu_ops, dev)", "0"),
        ("arm_smmu_device_probe", "arm_smmu_kdump_fallback(smmu) ?: iommu_device_register(&smmu->iommu, "
         "&arm_smmu_ops, dev)", "arm_smmu_kdump_fallback(smmu)")),
    "no device of the tests has SVA": (
        ("arm_smmu_sva_domain_alloc", "arm_smmu_alloc_asid(smmu, smmu_domain, &asid)", "0"),),
}

# What only talks, or lets others run, or asserts
SILENT = re.compile(r"(dev|pr)_(err|warn|info|dbg|notice)\w*$|cond_resched$|lockdep_assert\w*$|guard$|"
                    r"static_assert$|BUILD_BUG_ON\w*$|KUNIT_\w+$")
SEAM = "KUNIT_STATIC_STUB_REDIRECT"     # behind it is what the tests put something in place of
BASES = {"base", "page1"}       # what registers are reckoned from
OPEN = {"WRITE_ONCE", "READ_ONCE"}      # macros that take any expression; others may want constants
TYPE = re.compile(r"(const|volatile|struct|unsigned|signed|void|char|short|int|long|bool|size_t|__force|"
                  r"[us](8|16|32|64)|__le(16|32|64)|\w+_t)$")
BOUNDARY = {"<": "<=", ">": ">=", "<=": "<", ">=": ">", "==": "!=", "!=": "=="}
LEVELS = ("||", "&&", "|", "^", "&", "== !=", "< > <= >=", "<< >>", "+ -", "* / %")
ASSIGN = ("=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>=")
TOKEN = re.compile(r"""
    (?P<space> \s+ | /\*.*?\*/ | //[^\n]* | \\\n ) |
    (?P<directive> ^[ \t]*\#(?: \\\n | /\*.*?\*/ | [^\n] )* ) |
    (?P<string> "(?: \\. | [^"\\] )*" | '(?: \\. | [^'\\] )*' ) |
    (?P<number> \.?\d[\w.]* ) |
    (?P<name> [A-Za-z_]\w* ) |
    (?P<op> <<=|>>=|\.\.\.|->|\+\+|--|&&|\|\||[<>=!+\-*/%&|^]=|<<|>>|. )
""", re.DOTALL | re.MULTILINE | re.VERBOSE)


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Mutant:
    """A change of text[start:end]: its negation, or text[cut] replaced by `put`, or nothing in its place."""
    kind: str                   # not, other or gone
    file: str
    function: str
    line: int
    start: int
    end: int
    old: str                    # both without superfluous white space
    new: str
    cut: tuple[int, int] = (0, 0)
    put: str = ""
    number: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        return self.function, self.old, self.new.strip()     # of nothing's second "#2" is left

    @property
    def change(self) -> str:
        return f"{shorten(self.old)} -> {shorten(self.new) or '(nothing)'}"


def plain(text: str) -> str:
    """C without comments, on one line."""
    return " ".join(re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL).split())


def shorten(text: str) -> str:
    return text if len(text) <= SHORT // 2 else f"{text[:SHORT // 4]}…{text[-SHORT // 4:]}"


class Source:
    """A file of C: its tokens, which bracket belongs to which, and its mutants."""

    def __init__(self, name: str, text: str, own: set[int]) -> None:
        self.name = name
        self.text = text
        self.own = own          # numbers of the lines that may be changed
        self.tokens = [Token(found.lastgroup or "", found[0], *found.span())
                       for found in TOKEN.finditer(text) if found.lastgroup not in ("space", "directive")]
        self.pair: dict[int, int] = {}
        self.mutants: list[Mutant] = []
        left: list[int] = []
        for number, token in enumerate(self.tokens):
            if token.kind == "op" and token.text in "([{":
                left.append(number)
            elif token.kind == "op" and token.text in ")]}":
                self.pair[number] = left.pop() if left else number
                self.pair[self.pair[number]] = number
        self._functions()
        self.mutants.sort(key=lambda one: (one.start, -one.end))

    def _functions(self) -> None:
        """Every `name(…) {` outside of any bracket."""
        at = begin = 0
        while at < len(self.tokens):
            if self.tokens[at].text == "{" and self.tokens[at - 1].text == ")":
                name = self.pair[at - 1] - 1
                returns = {token.text for token in self.tokens[begin:name]}
                body = Body(self, self.tokens[name].text, returns)
                try:
                    body.statement(at)
                except (IndexError, KeyError):
                    pass        # not C as it is known here; what was found before holds
                self.mutants += body.mutants
            at = self.pair.get(at, at) if self.tokens[at].text in "([{" else at
            if self.tokens[at].text in ("}", ";"):
                begin = at + 1
            at += 1

    def line(self, place: int) -> int:
        return self.text.count("\n", 0, place) + 1


def pieces(low: int, high: int, cuts: Sequence[int]) -> Iterable[tuple[int, int]]:
    """What is between these."""
    return zip([low, *(cut + 1 for cut in cuts)], [*cuts, high])


class Body:
    """The mutants of one function; `at`, `low` and `high` count tokens."""

    def __init__(self, source: Source, name: str, returns: set[str]) -> None:
        self.source = source
        self.name = name
        self.tokens = source.tokens
        self.pair = source.pair
        self.pointer = "*" in returns
        self.kind = next((kind for kind in ("struct", "bool") if kind in returns), "")
        self.bare: set[str] = set()     # variables that have no value at first
        self.dead = False               # behind a seam
        self.negated: set[tuple[int, int]] = set()
        self.mutants: list[Mutant] = []

    # What is made of a piece of the text.

    def _add(self, kind: str, low: int, high: int, cut: tuple[int, int] = (0, 0), put: str = "") -> None:
        source, start, end = self.source, self.tokens[low].start, self.tokens[high - 1].end
        first, last = source.line(start), source.line(end - 1)
        if self.dead or not source.own.issuperset(range(first, last + 1)):
            return
        text = source.text
        old = plain(text[start:end])
        other = plain(text[start:cut[0]] + put + text[cut[1]:end])
        new = {"not": f"!({old})", "gone": "", "other": other}[kind]
        same = sum(one.old == old and one.new.split(" #")[0] == new for one in self.mutants)
        new += f" #{same + 1}" if same else ""
        self.mutants.append(Mutant(kind, source.name, self.name, first, start, end, old, new, cut, put))

    def _not(self, low: int, high: int) -> None:
        """What && or || join is negated piece by piece: all of it would say no more."""
        inner = (low + 1, high - 1) if self.pair.get(low) == high - 1 else (low, high)
        if (low, high) not in self.negated and not self._split(*inner, ("&&", "||")):
            self.negated.add((low, high))
            self._add("not", low, high)

    def _value(self, low: int, high: int, put: str) -> None:
        self._add("other", low, high, (self.tokens[low].start, self.tokens[high - 1].end), put)

    # Statements.

    def _find(self, at: int, *texts: str) -> int:
        """The first of these from here on that is in no bracket."""
        while self.tokens[at].text not in texts:
            at = self.pair[at] + 1 if self.tokens[at].text in ("(", "[", "{") else at + 1
        return at

    def statement(self, at: int) -> int:
        """Read one statement; where the next one begins."""
        word, close = self.tokens[at].text, self.pair.get(at + 1, at)
        if word == "{":
            end = self.pair[at]
            at += 1
            while at < end:
                at = self.statement(at)
            return end + 1
        if word in ("if", "while"):
            self._condition(at + 2, close)
            at = self.statement(close + 1)
            return self.statement(at + 1) if word == "if" and self.tokens[at].text == "else" else at
        if word == "do":
            at = self.statement(at + 1)
            self._condition(at + 2, self.pair[at + 1])
            return self.pair[at + 1] + 2
        if word == "for":
            one = self._find(at + 2, ";")
            two = self._find(one + 1, ";")
            self._condition(one + 1, two)
            return self.statement(close + 1)
        if word == "case" or self.tokens[at].kind == "name" and self.tokens[at + 1].text == ":":
            return self._find(at, ":") + 1
        # A switch, or a macro that is a loop
        if self.tokens[at + 1].text == "(" and (
                self.tokens[close + 1].text == "{" or self.tokens[close + 1].kind == "name"):
            return self.statement(close + 1)
        end = self._find(at, ";")
        self._simple(at, end)
        return end + 1

    def _simple(self, at: int, end: int) -> None:
        """A statement that ends with a semicolon."""
        first = self.tokens[at]
        if first.text == "return":
            self._return(at, end)
        elif first.text in ("goto", "continue"):
            self._add("gone", at, end + 1)
        elif at == end or first.text == "break":
            return
        elif first.text == SEAM:
            self.dead = True
        elif SILENT.match(first.text):
            return
        elif first.kind == "name" and (self.tokens[at + 1].kind == "name" or self.tokens[at + 1].text == "*"):
            self._declaration(at, end)
        else:
            assign = self._split(at, end, ASSIGN[:1])
            if assign and assign != [at + 1] and self.tokens[assign[0] + 1].kind == "string":
                return          # it is for a message
            if assign == [at + 1] and first.text in self.bare:
                # Without it the variable would have no value
                if plain(self._text(at + 2, end)) not in ("0", "NULL", "false"):
                    self._value(at + 2, end, "0")
            else:
                self._add("gone", at, end + 1)
            self._expression(at, end)

    def _declaration(self, at: int, end: int) -> None:
        if self.tokens[at].text == "static":
            return
        for low, high in pieces(at, end, self._split(at, end, (",",))):
            assign = self._split(low, high, ASSIGN[:1])
            if not assign:
                self.bare.add(self.tokens[high - 1].text)
            elif self.tokens[assign[0] + 1].text != "{":
                self._expression(assign[0] + 1, high)

    def _return(self, at: int, end: int) -> None:
        value = plain(self._text(at + 1, end)) if end > at + 1 else ""
        if not value:
            self._add("gone", at, end + 1)
            return
        call = self.pair.get(at + 2) == end - 1 or re.match(r"-E[A-Z0-9]+$", value)
        if value in ("true", "false"):
            self._value(at + 1, end, "false" if value == "true" else "true")
        elif call and (self.pointer or self.kind != "struct"):
            self._value(at + 1, end, "NULL" if self.pointer else "false" if self.kind == "bool" else "0")
        self._expression(at + 1, end)

    # Expressions.

    def _text(self, low: int, high: int) -> str:
        return self.source.text[self.tokens[low].start:self.tokens[high - 1].end]

    def _condition(self, low: int, high: int) -> None:
        if low < high:
            self._not(low, high)
            self._expression(low, high)

    def _operand(self, at: int) -> bool:
        """Does an operand end with this token, so that what follows has two?"""
        token = self.tokens[at]
        if token.text == ")" and self.tokens[self.pair[at] - 1].kind == "op":
            # Brackets around nothing but a type are a cast
            inside = [one.text for one in self.tokens[self.pair[at] + 1:at]]
            return not (inside[-1] == "*" or all(TYPE.match(text) for text in inside))
        return token.kind != "op" or token.text in (")", "]", "++", "--")

    def _split(self, low: int, high: int, operators: Iterable[str]) -> list[int]:
        """Where these operators of two operands stand, in no bracket."""
        found = []
        at = low
        while at < high:
            token = self.tokens[at]
            if token.text in operators and token.kind == "op" and at > low and self._operand(at - 1):
                found.append(at)
            at = self.pair[at] + 1 if token.text in ("(", "[", "{") else at + 1
        return found

    def _ternary(self, low: int, high: int, mark: int) -> None:
        colon = mark + 1
        depth = 0
        while self.tokens[colon].text != ":" or depth:
            depth += {"?": 1, ":": -1}.get(self.tokens[colon].text, 0)
            colon = self.pair[colon] + 1 if self.tokens[colon].text in ("(", "[", "{") else colon + 1
        if colon == mark + 1:
            self._add("other", low, high, (self.tokens[mark].start, self.tokens[high - 1].end))
        else:
            self._not(low, mark)
            self._expression(mark + 1, colon)
        self._expression(low, mark)
        self._expression(colon + 1, high)

    def _expression(self, low: int, high: int) -> None:
        """By its operator that binds least."""
        if commas := self._split(low, high, (",",)):
            for first, last in pieces(low, high, commas):
                self._expression(first, last)
        elif assign := self._split(low, high, ASSIGN):
            self._expression(assign[0] + 1, high)
        elif mark := self._split(low, high, ("?",)):
            self._ternary(low, high, mark[0])
        else:
            for level in LEVELS:
                if cuts := self._split(low, high, level.split()):
                    self._operation(level, low, high, cuts)
                    for first, last in pieces(low, high, cuts):
                        self._expression(first, last)
                    return
            self._brackets(low, high)

    def _brackets(self, low: int, high: int) -> None:
        """What stands in the brackets of something without operators of two operands."""
        at = low
        while at < high:
            text, before = self.tokens[at].text, self.tokens[at - 1]
            called = before.text if before.kind == "name" and at > low else ""
            if text == "(" and called != "sizeof" and (called in OPEN or not called.isupper()):
                self._expression(at + 1, self.pair[at])
            at = self.pair[at] + 1 if text in ("(", "[", "{") else at + 1

    def _operation(self, level: str, low: int, high: int, cuts: list[int]) -> None:
        tokens = self.tokens
        if level in ("||", "&&"):
            for first, last in pieces(low, high, cuts):
                self._not(first, last)
        elif level in ("== !=", "< > <= >="):
            if (low, high) not in self.negated or level != "== !=":
                cut = tokens[cuts[-1]]
                self._add("other", low, high, (cut.start, cut.end), BOUNDARY[cut.text])
        elif level in ("|", "^", "&") or level == "+ -" and tokens[cuts[0] - 1].text not in BASES:
            for first, last in zip(cuts, [*cuts[1:], high]):
                self._add("other", low, high, (tokens[first].start, tokens[last - 1].end))
            if level == "|":
                self._add("other", low, high, (tokens[low].start, tokens[cuts[0] + 1].start))


def render(text: str, start: int, end: int, mutants: Sequence[Mutant]) -> str:
    """text[start:end] with these mutants of it, the outer before the inner."""
    out = ""
    rest = list(mutants)
    while rest:
        one = rest[0]
        inner = [other for other in rest[1:] if other.start < one.end]
        rest = rest[1 + len(inner):]
        out += text[start:one.start] + wrapped(text, one, inner)
        start = one.end
    return out + text[start:end]


def wrapped(text: str, one: Mutant, inner: Sequence[Mutant]) -> str:
    """The piece that a mutant changes, as it is unless the mutant is chosen."""
    def part(start: int, end: int) -> str:
        return render(text, start, end, [one for one in inner if start <= one.start and one.end <= end])

    old, on = part(one.start, one.end), f"KDUMP_MUTANT({one.number})"
    if one.kind == "not":
        return f"({on} ^ !!({old}))"
    if one.kind == "gone":
        return f"{{ if (!{on}) {old} }}"
    other = part(one.start, one.cut[0]) + one.put + part(one.cut[1], one.end)
    return f"({on} ? ({other}) : ({old}))"


HEADER = """
extern unsigned int kdump_mutant;
#define KDUMP_MUTANT(number) (kdump_mutant == (number))
"""
PARAMETER = """
unsigned int kdump_mutant;
EXPORT_SYMBOL_GPL(kdump_mutant);
module_param(kdump_mutant, uint, 0444);
"""
"""What stands behind the last #include of the header, and of the driver's first file."""


def mutate(files: Mapping[str, tuple[str, set[int]]]) -> tuple[dict[str, str], list[Mutant]]:
    """The text of each file with its mutants, given its text and which lines may change; all mutants."""
    out: dict[str, str] = {}
    found: list[Mutant] = []
    for name, (text, own) in files.items():
        numbered = [replace(one, number=number) for number, one in enumerate(
            Source(name, text, own).mutants, len(found) + 1)]
        found += numbered
        text = render(text, 0, len(text), numbered)
        more = HEADER if name == "arm-smmu-v3.h" else PARAMETER if name == "arm-smmu-v3.c" else ""
        last = list(re.finditer(r"^#include .*\n", text, re.MULTILINE))[-1:] if more else []
        for include in last:
            text = text[:include.end()] + more + text[include.end():]
        out[name] = text
    return out, found


class Mutated:
    """The commit with all mutants on top of the patched one, for build(); and the mutants."""

    def __init__(self) -> None:
        self.mutants: list[Mutant] = []
        self.runs = ""          # the parameter that says how many random tables are made

    def __call__(self, store: Store, commit: str) -> str:
        texts, self.mutants = mutate({name: self._read(store, commit, name) for name in FILES})
        tests = store.git("cat-file", "blob", f"{commit}:{RANDOM_TESTS}", check=False).stdout
        module = Path(RANDOM_TESTS).stem.replace("-", "_")
        self.runs = "".join(f"{module}.{name}" for name in re.findall(
            r"^module_param\((\w*runs), ", tests, re.MULTILINE)[:1])
        files = {f"{DRIVER}/{name}": text.encode() for name, text in texts.items()}
        return store.overlay(commit, files, "All mutants", instead=True)

    @staticmethod
    def _read(store: Store, commit: str, name: str) -> tuple[str, set[int]]:
        """A file's text, and its lines that patches of the series itself added."""
        queue = store.queue()
        commits = store.git("rev-list", f"-n{len(queue)}", "--reverse", commit).stdout.split()
        own = {one for one, patch in zip(commits, queue) if is_own(patch)}
        path = f"{DRIVER}/{name}"
        blame = store.git("-c", "core.bigFileThreshold=512m", "blame", "--porcelain",
                          f"{commits[0]}^..{commit}", "--", path).stdout
        lines = re.findall(r"^([0-9a-f]{40}) \d+ (\d+)", blame, re.MULTILINE)
        return (store.git("cat-file", "blob", f"{commit}:{path}").stdout,
                {int(line) for one, line in lines if one in own})


@dataclass
class Seen:
    """What became of a boot. `by` is what caught the mutant, or nothing."""
    by: str = ""
    failed: int = 0
    cut: bool = False           # it was ended before the last case
    detail: str = ""
    seconds: float = 0.0


class Enough(Exception):
    """A case has failed, and some time has passed."""


class Watch:
    """What kunit.boot() tells its progress to."""

    def __init__(self, ends: bool) -> None:
        self.ends = ends
        self.begin = time.monotonic()
        self.failed = 0.0       # when

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if not self.failed and not text.endswith(" 0 failed"):
            self.failed = now
        if self.ends and self.failed and now > self.failed + GRACE_S:
            raise Enough


def judged(found: kunit.Found, cut: bool = False) -> Seen:
    """Which case of a boot failed first; a machine that was lost by itself is a crash or a hang."""
    bad = [case for case in found.cases if case.status not in (Status.PASS, Status.SKIPPED)]
    if cut:
        # The case that ran when the machine was ended, and what is missing after it, prove nothing.
        bad = [case for case in bad if "never came to its end" not in case.detail]
    lost = [found.lost] if found.lost else []
    whole = ["a case that the log does not name"] if cut else [*lost, *found.problems]
    if lost and not cut:
        bad = []                # those that had no time to run are among them
        # The console does not always name the case that has begun.
        ends = [case.name for case in found.cases if case.status in (Status.PASS, Status.SKIPPED)]
        by = f"{'hang' if 'no end after' in found.lost else 'crash'} after {ends[-1] if ends else 'no case'}"
    else:
        by = bad[0].name if bad else whole[0] if whole else ""
    detail = [*(f"{case.name}: {case.detail}" for case in bad[:2]), *whole[:2]]
    return Seen(by, len(bad), cut, "\n".join(detail))


class Boots:
    """Boots of the kernel with one mutant each, as many at a time as there are processors."""

    def __init__(self, image: Path, where: Path, there: Path) -> None:
        self.image, self.where, self.there = image, where, there
        self.limit = float(kunit.LIMIT_S)

    def one(self, number: int, glob: str, args: Sequence[str]) -> Seen:
        directory = self.where / str(number)
        directory.mkdir(exist_ok=True)
        watch = Watch(ends=number != 0)
        try:
            found = kunit.boot(self.image, directory, self.there, glob, [
                WORD.format(number), *args], more=QEMU, limit=self.limit, progress=watch)
            seen = judged(found)
        except Enough:
            log = (directory / CONSOLE).read_text(errors="replace")
            seen = judged(kunit.parse(log, self.there), cut=True)
        seen.seconds = time.monotonic() - watch.begin
        if seen.by and number:
            shutil.rmtree(directory)
        return seen

    def all(self, step: Stage, numbers: Sequence[int], glob: str, args: Sequence[str]) -> dict[int, Seen]:
        seen: dict[int, Seen] = {}
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            try:
                jobs = {pool.submit(self.one, number, glob, args): number for number in numbers}
                for job in as_completed(jobs):
                    seen[jobs[job]] = job.result()
                    survive = sum(not one.by for one in seen.values())
                    step.update(f"{len(seen)}/{len(numbers)}, {survive} not caught")
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return seen


def chosen(mutants: Sequence[Mutant], words: str) -> list[Mutant]:
    """Those that MUTANTS= names."""
    wanted = set(re.split(r"[\s,]+", words.strip())) - {""}
    known = {word for one in mutants for word in (str(one.number), one.function)}
    if wanted - known:
        raise Err(f"MUTANTS={words}: no such mutant: {', '.join(sorted(wanted - known))}",
                  f"give numbers from 1 to {len(mutants)}, or functions that the series changes", USAGE)
    return [one for one in mutants if not wanted or {str(one.number), one.function} & wanted]


def excuses() -> dict[tuple[str, str, str], str]:
    return {(function, plain(old), plain(new)): f"{kind}: {why}"
            for kind, known in (("equivalent", EQUIVALENT), ("out of reach", OUT_OF_REACH))
            for why, changes in known.items() for function, old, new in changes}


def verdict(one: Mutant, seen: Seen, base: str) -> Result:
    """A mutant's result."""
    why = excuses().get(one.key, "")
    if why and seen.by:
        status, detail = Status.FAIL, f"stale: it has an excuse, but is caught by {seen.by}"
    elif why:
        status, detail = Status.SKIPPED, why
    elif seen.by:
        status, detail = Status.PASS, f"caught by {seen.by}"
    else:
        status, detail = Status.FAIL, f"not caught; again: make mutants BASE={base} MUTANTS={one.number}"
    name = f"{one.number} {one.file}:{one.line} {one.old} -> {one.new or '(nothing)'}"
    return Result(one.function, name, status, detail,
                  {"file": one.file, "line": one.line, "old": one.old, "new": one.new, "by": seen.by,
                   "failed": seen.failed, "ended early": seen.cut}, seen.seconds)


def page(base: str, mutants: Sequence[Mutant], seen: Mapping[int, Seen], results: Sequence[Result]) -> str:
    """A row for each mutant, those that failed once more with their whole text, and the counts."""
    rows = [["", "where", "change", "caught by"]]
    for one, result in zip(mutants, results):
        found = seen[one.number]
        more = f", {found.failed}{'+' * found.cut} failed" if found.failed > 1 or found.cut else ""
        by = f"{found.by.replace('arm_smmu_v3_', '')}{more}" if found.by else "NOT CAUGHT"
        excuse = f"({result.detail.partition(':')[0]})"
        by = {Status.SKIPPED: excuse, Status.FAIL: f"{by} !"}.get(result.status, by)
        rows.append([str(one.number), f"{one.file}:{one.line} {one.function}", one.change, by])
    bad = [f"{result.status} {result.suite} {result.name}\n    {result.detail}"
           for result in results if result.status is Status.FAIL]
    ends = [seen[one.number].by.split()[0] for one in mutants if seen[one.number].by]
    counts = count(results)
    missed = sum(not seen[one.number].by for one in mutants) - counts[Status.SKIPPED]
    same = sum(result.detail.startswith("equivalent") for result in results)
    keys = {one.key for one in mutants}
    left = [f"note: an excuse is for one that is not on this base: {function}: {old} -> {new}"
            for function, old, new in excuses() if (function, old, new) not in keys]
    summary = (f"mutants {base}: {len(mutants)}, {len(ends)} caught (crash {ends.count('crash')}, hang "
               f"{ends.count('hang')}), {missed} not caught, {same} equivalent, "
               f"{counts[Status.SKIPPED] - same} out of reach")
    return "\n".join([table(rows, left=4), *bad, *left * (not os.environ.get("MUTANTS")), "", summary])


def judge(boots: Boots, mutants: Sequence[Mutant], name: str, runs: str) -> tuple[dict[int, Seen], Seen]:
    """Boot all, and those that survive once more with all random tables; the control if that failed."""
    few = [f"{runs}={FEW}"] if runs else []
    seen: dict[int, Seen] = {}
    every: list[str] = []
    for glob, args in ((kunit.SUITES, few), (f"{kunit.SUITES}.{RANDOM}", every)):
        left = [one.number for one in mutants if not seen.get(one.number, Seen()).by]
        if not left or seen and not runs:
            break
        with stage(f"{name}, no mutant") as step:
            boots.limit = kunit.LIMIT_S
            control = boots.one(0, glob, args)
            step.update("failed" if control.by else "passed")
        if control.by:
            return seen, control
        boots.limit = min(kunit.LIMIT_S, LIMIT_S + LIMIT_TIMES * control.seconds)
        with stage(f"{name}, {'those that survive' if seen else 'one by one'}") as step:
            seen |= boots.all(step, left, glob, args)
    return seen, Seen()


def crashed(base: str, built: build.Kernel, mutants: Sequence[Mutant], seen: dict[int, Seen],
            crash: Crash) -> None:
    """Those that no case has caught, in a crash kernel. The control comes first."""
    left = [one.number for one in mutants if not seen[one.number].by and one.key not in excuses()]
    for number in [0, *left] if left else []:
        by = crash(base, built, WORD.format(number))
        if by and not number:
            raise Err(f"the crash test fails without a mutant: {by}", f"make crash-test BASE={base}", INVALID)
        seen.setdefault(number, Seen()).by = f"crash test, {by}" * bool(by)


def run_mutants(base: str, crash: Crash) -> tuple[Report, Path]:
    """All mutants of a base, and the directory of the run."""
    made = Mutated()
    begun = status.begin(base, "mutants")
    built = build.build(base, flavour=FLAVOUR, change=made)
    mutants = chosen(made.mutants, os.environ.get("MUTANTS", ""))
    where = run_directory("mutants", base)
    boots = Boots(built.image, where, kunit.reader(Store(base)))
    seen, control = judge(boots, mutants, f"mutants {base}", made.runs)
    if not control.by:
        crashed(base, built, mutants, seen, crash)
    if control.by:
        results = [Result("control", "no mutant", Status.INVALID,
                          f"the cases fail without a mutant, so nothing is proved: {control.detail}")]
        text = f"{results[0].detail}\n\nmutants {base}: none judged"
    else:
        judged = [verdict(one, seen[one.number], base) for one in mutants]
        text = page(base, mutants, seen, judged)
        results = [Result("control", "no mutant", Status.PASS), *judged]
    report = Report("mutants", base, results, {"kernel": built.key, "mutants": len(made.mutants)})
    report.text = f"{text}\n\n{report.verdict}\n"
    if not os.environ.get("MUTANTS"):
        status.record(base, "mutants", report.verdict, text.rpartition(": ")[2], begun)
    return report, where


def main(crash: Crash) -> int:
    """make mutants"""
    report, where = run_mutants(os.environ.get("BASE") or config.load().base, crash)
    return report.show(where)
