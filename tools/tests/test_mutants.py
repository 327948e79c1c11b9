# SPDX-License-Identifier: GPL-2.0-only
"""make mutants: what is made of small pieces of C, and what is read out of a boot.

The mutated C is compiled and run where there is a compiler, so that each mutant is seen to do what
its row says, and number 0 to do nothing.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ..common import USAGE, Err
from ..kernel import kunit, mutants
from ..kernel.mutants import Mutant, Seen
from ..results import Status, worst
from .conftest import Project, git, kernel_tree
from .test_kunit import BOOT, FAILURE, GOOD, OFF, PANIC, QEMU, stamped, there

__all__ = ["there"]
PASS, FAIL, SKIPPED, INVALID = Status.PASS, Status.FAIL, Status.SKIPPED, Status.INVALID


def made(text: str, *lines: int) -> tuple[str, list[Mutant]]:
    """The mutated text, and the mutants, with all lines or only these open to change."""
    out, found = mutants.mutate({"x.c": (text, set(lines or range(1, 1000)))})
    return out["x.c"], found


def changes(statements: str, head: str = "int f(int a, int b, int *p)") -> list[tuple[str, str]]:
    return [(one.old, one.new) for one in made(f"{head}\n{{\n\t{statements}\n}}\n")[1]]


@pytest.mark.parametrize("text, expected", [
    ("if (a) b();", [("a", "!(a)"), ("b();", "")]),
    ("if (!a || b == 1) return;", [("!a", "!(!a)"), ("b == 1", "!(b == 1)"), ("return;", "")]),
    ("if ((a && b) || p) return;", [("a", "!(a)"), ("b", "!(b)"), ("p", "!(p)"), ("return;", "")]),
    ("while (a < b) ;", [("a < b", "!(a < b)"), ("a < b", "a <= b")]),
    ("do ; while (a >= b);", [("a >= b", "!(a >= b)"), ("a >= b", "a > b")]),
    ("for (a = 0; a < 3; a++) ;", [("a < 3", "!(a < 3)"), ("a < 3", "a <= 3")]),
    ("int x = a ? 1 : 2;", [("a", "!(a)")]),
    ("return g(a, b ? 1 : 2);", [("g(a, b ? 1 : 2)", "0"), ("b", "!(b)")]),
    ("return a ?: -EIO;", [("a ?: -EIO", "a")]),
    ("return -EINVAL;", [("-EINVAL", "0")]),
    ("bool y = a != b;", [("a != b", "a == b")]),
    ("int x = a & MASK;", [("a & MASK", "a")]),
    ("int x = a & ~(B | C);", [("a & ~(B | C)", "a"), ("B | C", "B"), ("B | C", "C")]),
    ("int x = a - b + 1;", [("a - b + 1", "a + 1"), ("a - b + 1", "a - b")]),
    ("*p = a ^ b;", [("*p = a ^ b;", ""), ("a ^ b", "a")]),
    ("p->q |= a;", [("p->q |= a;", "")]),
    ("WRITE_ONCE(*p, *p & a);", [("WRITE_ONCE(*p, *p & a);", ""), ("*p & a", "*p")]),
    ("a++;", [("a++;", "")]),
    ("for (;;) continue;", [("continue;", "")]),
    ("if (a) goto out;", [("a", "!(a)"), ("goto out;", "")]),
    # Once more the same, which gets a number
    ("if (a) b(); if (a) c();", [("a", "!(a)"), ("b();", ""), ("a", "!(a) #2"), ("c();", "")]),
    # Without its value the variable would have none
    ("int x; x = g(); x = 3;", [("g()", "0"), ("3", "0")]),
    ("int x = 1; x = g();", [("x = g();", "")]),
    # Left alone: constants of macros, messages, prints, seams and what is behind them, other operands
    ("int x = FIELD_GET(A | B, a);", []),
    ('p->why = "it is late";', []),
    ('dev_warn(p, "kdump: %d\\n", a & b);', []),
    ("guard(mutex)(&lock);", []),
    ("KUNIT_STATIC_STUB_REDIRECT(f, a, b); if (a) return g();", []),
    ("int x = *(int *)&a;", []),
    ("int y = g(&a, -b, *p);", []),
    ("readl(p->base + REG);", [("readl(p->base + REG);", "")]),
    ("static int x = A | B;", []),
    ("struct s x = { .a = A | B };", []),
    # Comments, strings and characters are no code
    ('if (g("a && b")) /* a < b */ ;', [('g("a && b")', '!(g("a && b"))')]),
    ("if (a == '\"') // && b\n\t;", [("a == '\"'", "!(a == '\"')")]),
])
def test_kinds(text: str, expected: list[tuple[str, str]]) -> None:
    assert changes(text) == expected


@pytest.mark.parametrize("head, text, expected", [
    ("bool f(void)", "return true;", [("true", "false")]),
    ("static bool f(void)", "return g();", [("g()", "false")]),
    ("void *f(void)", "return ERR_PTR(-EINVAL);", [("ERR_PTR(-EINVAL)", "NULL")]),
    ("struct s f(void)", "return g();", []),
])
def test_return_types(head: str, text: str, expected: list[tuple[str, str]]) -> None:
    assert changes(text, head) == expected


def test_what_is_outside_of_functions_is_left() -> None:
    text = "#define X(a) ((a) && 1 < 2)\nstruct s { int a; };\nstatic int t[] = { 1 | 2 };\nint f(int a);\n"
    assert made(text) == (text, [])


TEXT = """\
int g(int);
int f(int a, int b)
{
\tif (a && b > 1 &&
\t    g(a))
\t\treturn 1;
\tg(b);
\treturn a;
}
"""


def test_only_lines_of_the_series() -> None:
    assert made(TEXT, 1, 2, 3, 6, 8, 9) == (TEXT, [])
    out, found = made(TEXT, 5, 7)
    assert [(one.line, one.old) for one in found] == [(5, "g(a)"), (7, "g(b);")]
    changed = [number for number, (old, new) in enumerate(zip(TEXT.splitlines(), out.splitlines()), 1)
               if old != new]
    assert changed == [5, 7] and out.count("\n") == TEXT.count("\n")
    # What only begins or ends on such a line is not one of the series' either.
    joined = TEXT.replace("g(b);", "g(b |\n\t  a);")
    assert [one.old for one in made(joined, 7)[1]] == []


PROGRAM = """\
#include <stdio.h>
#include <stdlib.h>
static unsigned int kdump_mutant;
#define KDUMP_MUTANT(n) (kdump_mutant == (n))
%s
int main(int argc, char **argv)
{
\tkdump_mutant = atoi(argv[1]);
\tfor (int a = -2; a < 6; a++)
\t\tfor (int b = -2; b < 6; b++)
\t\t\tprintf("%%d ", f(a, b));
\treturn 0;
}
"""
FUNCTION = """\
static int f(int a, int b)
{
\tint sum = 0, i, both;

\tboth = a + 2 * b;
\tfor (i = 0; i < a && i < 4; i++) {
\t\tif (i == b)
\t\t\tcontinue;
\t\tif (a > b)
\t\t\tsum += i;
\t\telse if (a < b && !(i & 1))
\t\t\tsum -= both;
\t\telse
\t\t\tsum |= (a & 3) ? b : 7;
\t}
\treturn sum ?: both - 1;
}
"""


def test_each_mutant_does_what_it_says(tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc") or ""
    if not compiler:
        pytest.skip("no compiler")

    def build(name: str, text: str) -> Path:
        (tmp_path / f"{name}.c").write_text(PROGRAM % text)
        subprocess.run([compiler, "-o", tmp_path / name, tmp_path / f"{name}.c"], check=True)
        return tmp_path / name

    def run(program: Path, number: int) -> str:
        return subprocess.run([program, str(number)], capture_output=True, text=True, check=True).stdout

    out, found = made(FUNCTION)
    assert len(found) > 15
    mutated, plain = build("mutated", out), run(build("plain", FUNCTION), 0)
    assert run(mutated, 0) == plain
    for one in found:
        # The same change, made by hand
        new = {"not": one.new.split(" #")[0], "gone": ";", "other": one.new.split(" #")[0]}[one.kind]
        text = FUNCTION[:one.start] + new + FUNCTION[one.end:]
        assert run(mutated, one.number) == run(build("by-hand", text), 0) != plain, one


def test_the_parameter_is_where_all_objects_see_it() -> None:
    text = "#include <a.h>\n#include \"b.h\"\n\nint f(int a)\n{\n\treturn a ? 1 : 2;\n}\n"
    out, found = mutants.mutate({"arm-smmu-v3.c": (text, {6}), "arm-smmu-v3.h": (text, {6})})
    assert [one.number for one in found] == [1, 2]
    assert "module_param(kdump_mutant" in out["arm-smmu-v3.c"].split("int f")[0]
    assert "extern unsigned int kdump_mutant;" in out["arm-smmu-v3.h"].split("int f")[0]
    assert out["arm-smmu-v3.h"].index('"b.h"') < out["arm-smmu-v3.h"].index("extern")


# What is read out of a boot

Parse = Callable[[str], kunit.Found]


@pytest.fixture
def parse(there: Path) -> Parse:
    return lambda text: kunit.parse(stamped(text), there)


def test_a_boot_that_catches_nothing(parse: Parse) -> None:
    assert mutants.judged(parse(BOOT + GOOD + OFF)).by == ""


def test_a_case_that_fails_catches(parse: Parse) -> None:
    seen = mutants.judged(parse(BOOT + GOOD.replace("    ok 2 adopt\n", FAILURE) + OFF))
    assert (seen.by, seen.failed) == ("adopt", 1) and "live == 2" in seen.detail
    # Ended after that, on purpose: what did not run proves nothing.
    cut = (BOOT + GOOD.replace("    ok 2 adopt\n", FAILURE)).split("        KTAP")[0]
    seen = mutants.judged(parse(cut), cut=True)
    assert (seen.by, seen.failed, seen.cut) == ("adopt", 1, True)


def test_a_complaint_of_the_kernel_catches(parse: Parse) -> None:
    assert "WARNING" in mutants.judged(parse(GOOD.replace("    ok 2", "WARNING: at x.c:1\n    ok 2"))).by


@pytest.mark.parametrize("lost, by", [
    ("no end after 9 s; last said: x", "hang after write_ste"),
    ("QEMU ended early; the kernel crashed: Oops", "crash after write_ste"),
])
def test_a_machine_that_is_lost_catches(lost: str, by: str, parse: Parse) -> None:
    found = parse(GOOD.split("    ok 2 adopt")[0] + PANIC)
    found.lost = lost
    assert (mutants.judged(found).by, mutants.judged(found).failed) == (by, 0)


def a_mutant(number: int = 1, old: str = "a  <\tb") -> Mutant:
    return Mutant("not", "x.c", "f", 7, 0, 5, mutants.plain(old), f"!({mutants.plain(old)})", number=number)


def test_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    caught, missed = Seen("adopt", 2), Seen()
    assert mutants.verdict(a_mutant(), caught, "9.8").status is PASS
    result = mutants.verdict(a_mutant(), missed, "9.8")
    assert result.status is FAIL and "make mutants BASE=9.8 MUTANTS=1" in result.detail
    monkeypatch.setattr(mutants, "EQUIVALENT", {"both are 0": [("f", "a < \n b", "!(a <  b)")],
                                                "elsewhere": [("g", "x", "y")]})
    result = mutants.verdict(a_mutant(), missed, "9.8")
    assert result.status is SKIPPED and "both are 0" in result.detail
    # Caught all the same: the entry is stale.
    result = mutants.verdict(a_mutant(), caught, "9.8")
    assert result.status is FAIL and "stale" in result.detail
    # The second that becomes nothing
    monkeypatch.setattr(mutants, "OUT_OF_REACH", {"only talk": [("f", "b();", " #2")]})
    second = dataclasses.replace(a_mutant(), old="b();", new=" #2")
    assert mutants.verdict(second, missed, "9.8").status is SKIPPED
    # One with another text, or the second of the same text, is not meant.
    assert mutants.verdict(a_mutant(old="a < c"), missed, "9.8").status is FAIL


def test_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "EQUIVALENT", {"why": [("f", "b", "!(b)"), ("gone", "x", "y")]})
    several = [a_mutant(1), a_mutant(2, "b"), a_mutant(3, "c"), a_mutant(4, "d")]
    seen = {1: Seen("adopt", 3, True), 2: Seen(), 3: Seen(), 4: Seen("hang after write_ste", 1)}
    results = [mutants.verdict(one, seen[one.number], "9.8") for one in several]
    text = mutants.page("9.8", several, seen, results)
    assert "mutants 9.8: 4, 2 caught (crash 0, hang 1), 1 not caught, 1 equivalent, 0 out of reach" in text
    assert "adopt, 3+ failed" in text and "NOT CAUGHT" in text and "not on this base: gone: x -> y" in text
    assert worst(results) is FAIL


def test_every_excuse_has_a_reason() -> None:
    known = {**mutants.EQUIVALENT, **mutants.OUT_OF_REACH}
    assert all(len(why) > 20 for why in known)
    assert len(mutants.excuses()) == sum(map(len, known.values()))


def test_words_that_are_no_mutants() -> None:
    assert [one.number for one in mutants.chosen([a_mutant(1), a_mutant(2)], "2")] == [2]
    assert len(mutants.chosen([a_mutant(1), a_mutant(2)], "f")) == 2
    for words in ("3", "g", "1,g"):
        with pytest.raises(Err) as caught:
            mutants.chosen([a_mutant(1)], words)
        assert caught.value.code == USAGE


# The whole, with a machine that only prints and a driver of a few lines

DRIVER = "drivers/iommu/arm/arm-smmu-v3"
BEFORE = "#include <x.h>\nint f(int a)\n{\n\treturn a;\n}\n"
AFTER = "#include <x.h>\nint f(int a)\n{\n\tif (a)\n\t\tg(a);\n\treturn a;\n}\n"
# Prints what the test laid out for the mutant of its command line, for the random cases too
BOOTS = QEMU.replace('cat "$HOME/console" >console.log; ', """
number=$(echo "$*" | sed 's/.*kdump_mutant=\\([0-9]*\\).*/\\1/')
case $* in *'*.*random*'*) number=$number-random;; esac
for name in console-$number console; do [ -e "$HOME/$name" ] && break; done
cat "$HOME/$name" >console.log; """)


@pytest.fixture
def driver(project: Project, there: Path) -> Project:
    project.fake("qemu-system-aarch64", BOOTS)
    shutil.rmtree(project.ksrc)
    kernel_tree(project.ksrc)
    for name in mutants.FILES:
        path = project.ksrc / DRIVER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(BEFORE)
    tests = project.top / mutants.RANDOM_TESTS
    tests.parent.mkdir(parents=True, exist_ok=True)
    tests.write_text("static int kdump_runs;\nmodule_param(kdump_runs, uint, 0444);\n")
    shutil.copytree(there, project.ksrc / "tools" / "testing" / "kunit")
    scratch = project.top.parent / "scratch"
    shutil.copytree(project.ksrc, scratch)
    git(scratch, "init", "-q")
    git(scratch, "add", "-f", ".")
    git(scratch, "commit", "-qm", "base")
    (scratch / DRIVER / "arm-smmu-v3-sva.c").write_text(AFTER)
    git(scratch, "commit", "-qam", "iommu: Not ours\n\nWhy.\n")
    (scratch / DRIVER / "arm-smmu-v3.c").write_text(AFTER)
    git(scratch, "commit", "-qam", "iommu: Ours\n\nWhy.\n")
    names = git(scratch, "format-patch", "-o", str(project.patches), "HEAD~2").splitlines()
    (project.patches / "prereq").mkdir()
    first = Path(names[0])
    first.rename(project.patches / "prereq" / first.name)
    (project.patches / "series").write_text(f"prereq/{first.name}\n{Path(names[1]).name}\n")
    # A build that only makes the commit
    build = project.top / "tools" / "kernel" / "build.py"
    build.write_text(build.read_text().replace("        images = store.here", """\
        return Kernel(Path("Image"), "9.8.7", key)
        images = store.here""").replace('deps.need("kernel")', "").replace(
        "compiler(), repr", '"gcc", repr'))
    # A crash test that fails with the mutants of CAUGHT
    crash = project.top / "tools" / "crash" / "test.py"
    crash.write_text(crash.read_text() + """

def catches(base, crash, words):
    return "rule 2" if words.split("=")[1] in os.environ.get("CAUGHT", "").split() else ""
""")
    (project.top.parent / "console").write_text(stamped(BOOT + GOOD + OFF))
    (project.top.parent / "fault").write_text("")
    return project


BAD = stamped(BOOT + GOOD.replace("    ok 2 adopt\n", FAILURE) + OFF)


def console(project: Project, name: str, text: str) -> None:
    (project.top.parent / f"console-{name}").write_text(text)


def test_all_caught(driver: Project) -> None:
    console(driver, "1", BAD)
    console(driver, "2", stamped(BOOT + GOOD.split("    ok 2 adopt")[0] + PANIC))
    said = driver.verb("mutants", code=0).stdout
    assert "mutants 9.8: 2, 2 caught (crash 1, hang 0), 0 not caught" in said and "\nPASS\n" in said
    assert re.search(r"1 +arm-smmu-v3.c:4 f +a -> !\(a\) +adopt", said)
    assert re.search(r"2 +arm-smmu-v3.c:5 f +g\(a\); -> \(nothing\) +crash after write_ste", said)
    calls = (driver.top.parent / "calls").read_text()
    assert "smmu_kdump_random.kdump_runs=" in calls and "random*" not in calls


def test_one_not_caught(driver: Project) -> None:
    console(driver, "1", BAD)
    said = driver.verb("mutants", code=1).stdout
    assert "1 caught" in said and "1 not caught" in said and "MUTANTS=2" in said
    # It was given all random tables, and its console is kept.
    assert "random*" in (driver.top.parent / "calls").read_text()
    assert (Path(said.split("reports in ")[1].splitlines()[0]) / "2" / "console.log").exists()
    assert driver.verb("mutants", code=0, MUTANTS="1").stdout.count("arm-smmu-v3.c:") == 1


def test_one_that_only_the_random_tables_catch(driver: Project) -> None:
    console(driver, "1", BAD)
    console(driver, "2-random", BAD)
    assert "2 caught" in driver.verb("mutants", code=0).stdout


def test_one_that_only_a_crash_catches(driver: Project) -> None:
    console(driver, "1", BAD)
    said = driver.verb("mutants", code=0, CAUGHT="2").stdout
    assert re.search(r"-> \(nothing\) +crash test, rule 2", said) and "2 caught" in said
    # With a control that fails no crash proves anything.
    assert "fails without a mutant: rule 2" in driver.verb("mutants", code=4, CAUGHT="0 2").stderr


@pytest.mark.parametrize("name", ["0", "0-random"])
def test_a_control_that_fails_proves_nothing(name: str, driver: Project) -> None:
    console(driver, name, BAD)
    said = driver.verb("mutants", code=4).stdout
    assert "fail without a mutant" in said and "INVALID" in said and "live == 2" in said
