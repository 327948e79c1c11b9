# SPDX-License-Identifier: GPL-2.0-only
"""Proof by mutation: seeded defects get their exact status, honest backports get none.

Each case builds a branch whose truth is known, runs the tool as a user does and compares the rows
and the kinds of the findings.  The table at the end shows kind by kind.
"""
from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .lintkit import (ALICE, BOB, EXEC, FILE, LINK, MIKE, MODULE, Edit, Tree, both, drop, fake_git, message,
                      put, run, sub, within)
from .lintworld import ADOPT, C, H, Branch, World

MATCH = "match"


@dataclass
class Want:
    status: list[str]
    kinds: list[str] = field(default_factory=list)
    subject: str | None = None           # of the first row
    sob: str | None = None               # how the first row's starts
    code: int | None = None
    says: str = ""                          # in the findings' text
    args: tuple[str, ...] = ()
    local: str = ""                         # instead of the branch's range
    seconds: float = 0                      # how long it may take


CASES: dict[str, tuple[str, Callable[[Branch], Want]]] = {}
TABLE: dict[str, tuple[str, str, str, bool]] = {}       # kind, status, findings, as it should be


def case(kind: str, name: str) -> Callable[[Callable[[Branch], Want]], Callable[[Branch], Want]]:
    def add(f: Callable[[Branch], Want]) -> Callable[[Branch], Want]:
        assert name not in CASES, name
        CASES[name] = (kind, f)
        return f
    return add


def honest(name: str, change: str, status: str = MATCH, **how: object) -> None:
    """A pick of one change; further keywords go to Branch.pick."""
    @case("honest", name)
    def build(b: Branch) -> Want:
        b.pick(change, **how)               # type: ignore[arg-type]
        return Want([status])


def defect(name: str, change: str, status: str, kinds: list[str], *, subject: str | None = None,
           sob: str | None = None,
           says: str = "", code: int = 1, **how: object) -> None:
    @case("defect", name)
    def build(b: Branch) -> Want:
        b.pick(change, **how)               # type: ignore[arg-type]
        return Want([status], kinds, subject, sob, code, says)


# --- honest backports ---------------------------------------------------------------------------

honest("the same change, other line numbers", "sibling")
honest("several hunks, one in changed context", "adopt", "context")
honest("a constant", "const")
honest("a line of context was reworded upstream", "context", "context")
honest("one of eight alike functions", "getter")
honest("a new file and its Makefile", "newfile", "context")
honest("a line at the end of a shorter Makefile", "makefile", "context")
honest("a function removed", "delete")
honest("a file removed", "rmfile")
honest("a mode change", "mode")
honest("a binary file", "binary")
honest("a symbolic link", "link")
honest("a submodule", "module")
honest("a rename with an edit, the text differs elsewhere", "rename", "context")
honest("documentation", "docs")
honest("a quoted file name", "quoted")
honest("no newline at the end", "tail")
honest("a file with CRLF line ends", "dos")
honest("a huge change", "huge", "context")
honest("a table entry at the edge of its context", "quirk")
honest("an include", "include")
honest("one of two alike Kconfig entries", "kconfig")
honest("an empty commit", "empty")
honest("an author with letters beyond ASCII", "latin")
honest("several authors", "many", author=ALICE)
honest("a note of upstream's own", "noted")
honest("nobody signs below (cherry-pick -x alone)", "const", signed=())
honest("two sign below", "const", signed=("Carol <carol@distro.example>", BOB))
honest("adjusted, and noted", "const", "noted", verb="backported", note="bob: the first silicon needs more",
       edit=sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t2000\n"))
honest("noted over several lines", "const", "noted", verb="backported",
       note="bob: the first silicon needs\n more than upstream's",
       edit=sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t2000\n"))
honest("a hunk left out, and noted", "adopt", "noted", verb="backported", note="bob: no header here",
       edit=both(sub(C, "static int foo_reset(", ADOPT + "static int foo_reset("),
                 sub(C, "\tret = foo_reset(foo);\n",
                     "\tret = foo_adopt(foo);\n\tif (ret)\n\t\tret = foo_reset(foo);\n")))
honest("white space adjusted, and noted", "const", "noted", note="bob: align",
       edit=sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US   1000\n"))
honest("a subject with the distribution's prefix", "const", subject="UBUNTU: foo: Wait longer")
honest("Android's mark", "const", subject="UPSTREAM: foo: Wait longer")


@case("honest", "a tree named behind the hash")
def _(b: Branch) -> Want:
    b.pick("const", line=f"(cherry picked from commit {b.world.ups['const'].oid} linux-next)\n")
    return Want([MATCH])


@case("honest", "stable's first form")
def _(b: Branch) -> Want:
    u = b.world.ups["const"]
    b.commit(u.message.replace("\n\n", f"\n\ncommit {u.oid} upstream.\n\n", 1) + f"Signed-off-by: {BOB}\n",
             u.edit)
    return Want([MATCH])


@case("honest", "stable's second form")
def _(b: Branch) -> Want:
    u = b.world.ups["const"]
    b.commit(u.message.replace("\n\n", f"\n\n[ Upstream commit {u.oid} ]\n\n", 1) + f"Signed-off-by: {BOB}\n",
             u.edit)
    return Want([MATCH])


@case("honest", "stable's note between the sign-offs")
def _(b: Branch) -> Want:
    u = b.world.ups["const"]
    b.commit(u.message.replace("\n\n", f"\n\n[ Upstream commit {u.oid} ]\n\n", 1)
             + f"[ bob: larger ]\nSigned-off-by: {BOB}\n",
             sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t2000\n"))
    return Want(["noted"])


@case("honest", "SUSE's tags")
def _(b: Branch) -> Want:
    u = b.world.ups["const"]
    b.commit(u.message.replace("\n\n",
                               f"\n\nGit-commit: {u.oid}\nPatch-mainline: v6.12-rc1\nReferences: bsc#1\n\n",
                               1) + f"Signed-off-by: {BOB}\n", u.edit)
    return Want([MATCH])


@case("honest", "DEP-3 Origin with a URL")
def _(b: Branch) -> Want:
    u = b.world.ups["const"]
    b.commit(u.message.replace("\n\n", f"\n\nOrigin: upstream, https://git.example/linus/{u.oid}\n\n", 1)
             + f"Signed-off-by: {BOB}\n", u.edit)
    return Want([MATCH])


@case("honest", "DEP-3 Origin with commit:")
def _(b: Branch) -> Want:
    u = b.world.ups["const"]
    b.commit(u.message.replace("\n\n", f"\n\nOrigin: backport, commit:{u.oid}\n\n", 1)
             + f"Signed-off-by: {BOB}\n", u.edit)
    return Want([MATCH])


@case("honest", "an abbreviated hash of 12 digits")
def _(b: Branch) -> Want:
    b.pick("const", line=f"(cherry picked from commit {b.world.ups['const'].oid[:12]})\n")
    return Want([MATCH])


@case("honest", "a pick of stable's pick: two lines, one inherited")
def _(b: Branch) -> Want:
    w = b.world
    u = w.ups["const"]
    tree = dict(w.up.trees[w.refactored])
    u.edit(tree)
    stable = w.up.commit(tree, u.message.replace("\n\n", f"\n\n[ Upstream commit {u.oid} ]\n\n", 1)
                         + f"Signed-off-by: {MIKE}\n", [w.refactored])
    w.up.ref("tags/v6.1.1", stable)
    b.commit(u.message.replace("\n\n", f"\n\n[ Upstream commit {u.oid} ]\n\n", 1) + f"Signed-off-by: {MIKE}\n"
             f"(cherry picked from commit {stable})\nSigned-off-by: {BOB}\n", u.edit)
    return Want([MATCH])


@case("honest", "a SAUCE patch")
def _(b: Branch) -> Want:
    b.commit(message("UBUNTU: SAUCE: foo: Ours alone", signed=(BOB,)),
             sub(C, "\twritel(0, foo->base + FOO_ERR);\n", "\twritel(1, foo->base + FOO_ERR);\n"))
    return Want(["N/A"])


@case("honest", "a packaging commit")
def _(b: Branch) -> Want:
    b.commit(message("UBUNTU: [Config] foo: Enable it", "Ignore: yes", signed=(BOB,)),
             put("debian/config", "CONFIG_FOO=m\n"))
    return Want(["N/A"])


@case("honest", "a revert of a pick, and the pick again")
def _(b: Branch) -> Want:
    first = b.pick("const")
    b.commit(message('Revert "foo: Wait longer"', f"This reverts commit {first}.", signed=(BOB,)),
             sub(C, "FOO_TIMEOUT_US\t1000\n", "FOO_TIMEOUT_US\t100\n"))
    b.pick("const")
    return Want([MATCH, "N/A", MATCH])


@case("honest", "a clean merge")
def _(b: Branch) -> Want:
    w = b.world
    side = dict(b.tree)
    w.ups["docs"].edit(side)
    u = w.ups["docs"]
    other = w.local.commit(side, u.message + f"(cherry picked from commit {u.oid})\nSigned-off-by: {BOB}\n",
                           [b.base], committer=BOB)
    b.pick("const")
    u.edit(b.tree)
    b.commit(message("Merge branch 'docs'", signed=(BOB,)), parents=[b.parents[0], other])
    return Want(sorted([MATCH, MATCH, "N/A"]))


@case("honest", "the file lives elsewhere in the base")
def _(b: Branch) -> Want:
    tree = dict(b.world.base_tree)
    tree["drivers/misc/foo.c"] = tree.pop(C)
    c = b.world.branch(tree)
    c.pick("getter", within("drivers/misc/foo.c", "foo_get_5(", "\tif (reg & FOO_BUSY)\n\t\treturn 0;\n",
                            "\tif (reg & FOO_BUSY)\n\t\treturn foo->shadow;\n"))
    return Want(["context"], local=c.range())


@case("honest", "the function was renamed in the base")
def _(b: Branch) -> Want:
    sub(C, "foo_enable_evtq(struct", "foo_enable_eventq(struct")(b.tree)
    c = b.world.branch(b.tree)
    c.pick("sibling", within(C, "foo_enable_eventq(struct", "\tenables |= FOO_EN;\n",
                             "\tenables |= FOO_EN | FOO_EVT;\n"))
    return Want([MATCH], local=c.range())


@case("honest", "local lines beside the new one")
def _(b: Branch) -> Want:
    sub(C, "\twritel(0, foo->base + FOO_ERR);\n",
        "\twritel(0, foo->base + FOO_ERR);\n\tfoo_erratum(foo);\n")(b.tree)
    c = b.world.branch(b.tree)
    c.pick("context")
    return Want(["context"], local=c.range())


@case("honest", "both neighbours differ in the base")
def _(b: Branch) -> Want:
    both(sub(C, "\twritel(0, foo->base + FOO_ERR);\n", "\twritel(0, foo->regs + FOO_ERR);\n"),
         sub(C, "FOO_ERR);\n\n\tret = foo_enable_cmdq(foo);",
             "FOO_ERR);\n\tudelay(1);\n\tret = foo_enable_cmdq(foo);"))(b.tree)
    c = b.world.branch(b.tree)
    c.pick("context", sub(C, "FOO_ERR);\n\tudelay",
                          "FOO_ERR);\n\twritel(0, foo->base + FOO_ERR2);\n\tudelay"))
    return Want(["context"], local=c.range())


@case("honest", "a series in upstream's order")
def _(b: Branch) -> Want:
    b.pick("reorderA")
    b.pick("reorderB")
    return Want([MATCH, MATCH])


@case("honest", "unrelated commits in another order than upstream")
def _(b: Branch) -> Want:
    for name in ("docs", "quirk", "const", "binary"):
        b.pick(name)
    return Want([MATCH] * 4)


# --- seeded defects ------------------------------------------------------------------------------

BAD_CONST = sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t10000\n")

defect("a hunk in a sibling function with the same context", "sibling", "MISMATCH", ["MISMATCH"],
       edit=within(C, "foo_enable_priq(struct", "\tenables |= FOO_EN;\n", "\tenables |= FOO_EN | FOO_EVT;\n"),
       says="foo_enable_priq")
defect("the sibling before", "sibling", "MISMATCH", ["MISMATCH"],
       edit=within(C, "foo_enable_cmdq(struct", "\tenables |= FOO_EN;\n", "\tenables |= FOO_EN | FOO_EVT;\n"),
       says="foo_enable_cmdq")
defect("the wrong one of eight getters", "getter", "MISMATCH", ["MISMATCH"],
       edit=within(C, "foo_get_6(", "\tif (reg & FOO_BUSY)\n\t\treturn 0;\n",
                   "\tif (reg & FOO_BUSY)\n\t\treturn foo->shadow;\n"), says="foo_get_6")
defect("the wrong one of two Kconfig entries", "kconfig", "MISMATCH", ["MISMATCH"],
       edit=within("drivers/foo/Kconfig", "config FOO\n", "\tdepends on HAS_IOMEM\n",
                   "\tdepends on FOO && OF\n"))
defect("a dropped hunk", "adopt", "MISMATCH", ["MISMATCH"], says="only upstream",
       edit=both(sub(C, "static int foo_reset(", ADOPT + "static int foo_reset("),
                 sub(H, "int foo_register(", "int foo_adopt(struct foo_device *foo);\nint foo_register(")))
defect("a dropped file", "adopt", "MISMATCH", ["MISMATCH"], says="foo.h: upstream changes it",
       edit=both(sub(C, "static int foo_reset(", ADOPT + "static int foo_reset("),
                 sub(C, "\tret = foo_reset(foo);\n",
                     "\tret = foo_adopt(foo);\n\tif (ret)\n\t\tret = foo_reset(foo);\n")))
defect("an extra line", "const", "MISMATCH", ["MISMATCH"], says="only here",
       edit=sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t1000\n#define FOO_EXTRA\t1\n"))
defect("an extra file", "const", "MISMATCH", ["MISMATCH"], says="debian/changelog: changed here",
       edit=both(sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t1000\n"), put("debian/changelog", "foo\n")))
defect("a changed constant", "const", "MISMATCH", ["MISMATCH"], edit=BAD_CONST, says="10000")
defect("a changed operator", "adopt", "MISMATCH", ["MISMATCH"],
       edit=both(sub(C, "static int foo_reset(",
                     ADOPT.replace("if (!(cr0", "if ((cr0") + "static int foo_reset("),
                 sub(C, "\tret = foo_reset(foo);\n",
                     "\tret = foo_adopt(foo);\n\tif (ret)\n\t\tret = foo_reset(foo);\n"),
                 sub(H, "int foo_register(", "int foo_adopt(struct foo_device *foo);\nint foo_register(")))
defect("changed white space", "const", "whitespace", ["whitespace"],
       edit=sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US  1000\n"))
defect("a blank line added", "const", "whitespace", ["whitespace"],
       edit=sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t1000\n\n"))
defect("trailing white space", "include", "whitespace", ["whitespace"],
       edit=sub(C, "#include <linux/io.h>\n", "#include <linux/io.h>\n#include <linux/iopoll.h> \n"))
defect("changed context", "const", "MISMATCH", ["MISMATCH"], says="FOO_RETRIES",
       edit=both(sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t1000\n"),
                 sub(C, "FOO_RETRIES\t3", "FOO_RETRIES\t4")))
defect("a hunk in the right function at the wrong place", "reorderA", "MISMATCH", ["MISMATCH"],
       says="another place",
       edit=sub(C, "\tret = foo_enable_evtq(foo);\n", "\tfoo_prepare(foo);\n\tret = foo_enable_evtq(foo);\n"))
defect("two lines swapped", "adopt", "MISMATCH", ["MISMATCH"],
       edit=both(sub(C, "static int foo_reset(",
                     ADOPT.replace("\tfoo->adopted = true;\n\treturn 0;\n",
                                   "\treturn 0;\n\tfoo->adopted = true;\n") + "static int foo_reset("),
                 sub(C, "\tret = foo_reset(foo);\n",
                     "\tret = foo_adopt(foo);\n\tif (ret)\n\t\tret = foo_reset(foo);\n"),
                 sub(H, "int foo_register(", "int foo_adopt(struct foo_device *foo);\nint foo_register(")))
defect("the wrong entry of a table", "noted", "MISMATCH", ["MISMATCH"],
       edit=sub(C, "\t{ .id = 3, .flags = FOO_Q_SLOW },\n",
                "\t{ .id = 3, .flags = FOO_Q_SLOW | FOO_Q_OLD },\n"))
defect("upstream's own note does not excuse", "noted", "MISMATCH", ["MISMATCH"],
       edit=sub(C, "\t{ .id = 1, .flags = FOO_Q_SLOW },\n",
                "\t{ .id = 1, .flags = FOO_Q_FAST | FOO_Q_OLD },\n"))


def subject_case(name: str, subject: str, verdict: str, code: int) -> None:
    @case("defect", name)
    def build(b: Branch) -> Want:
        u = b.world.ups["const"]
        b.commit(u.message.replace(u.subject, subject, 1)
                 + f"(cherry picked from commit {u.oid})\nSigned-off-by: {BOB}\n", u.edit)
        return Want([MATCH], ["subject"], subject=verdict, code=code)


subject_case("a subject in other case", "foo: wait longer", "case", 0)
subject_case("a subject with another prefix", "misc/foo: Wait longer", "prefix", 0)
subject_case("a wrong subject", "foo: Stop the queue", "MISMATCH", 1)
subject_case("a subject cut short", "foo: Wait", "MISMATCH", 1)


def signed_case(name: str, change: Callable[[str], str], sob: str, kinds: list[str]) -> None:
    @case("defect", name)
    def build(b: Branch) -> Want:
        u = b.world.ups["const"]
        b.commit(change(u.message + f"(cherry picked from commit {u.oid})\nSigned-off-by: {BOB}\n"), u.edit)
        return Want([MATCH], kinds, sob=sob, code=1)


A, M, B = (f"Signed-off-by: {x}\n" for x in (ALICE, MIKE, BOB))
signed_case("a lost sign-off", lambda m: m.replace(M, ""), "MISSING Mike Maintainer", ["sob-missing"])
signed_case("all sign-offs lost", lambda m: m.replace(M, "").replace(A, ""),
            "MISSING Alice Adler, Mike Maintainer", ["sob-missing"])
signed_case("a sign-off put between upstream's",
            lambda m: m.replace(A, A + "Signed-off-by: Eve <eve@distro.example>\n"), "ORDER", ["sob-order"])
signed_case("sign-offs swapped", lambda m: m.replace(A + M, M + A), "ORDER", ["sob-order"])
signed_case("a sign-off's address edited", lambda m: m.replace("mike@up.example", "mike@new.example"),
            "MISSING Mike Maintainer", ["sob-missing"])
signed_case("a sign-off's name edited", lambda m: m.replace("Mike Maintainer", "M. Maintainer"),
            "MISSING Mike Maintainer", ["sob-missing"])
signed_case("a sign-off turned into an Acked-by", lambda m: m.replace(M, M.replace("Signed-off", "Acked")),
            "MISSING Mike Maintainer", ["sob-missing", "tag"])
signed_case("the backporter signs above upstream", lambda m: m.replace(B, "").replace(A, B + A), "ORDER",
            ["sob-order"])


@case("defect", "the provenance below the backporter's sign-off")
def _(b: Branch) -> Want:
    u = b.world.ups["const"]
    b.commit(u.message + f"Signed-off-by: {BOB}\n(cherry picked from commit {u.oid})\n", u.edit)
    return Want([MATCH], ["provenance-place"], sob="preserved + Bob Backporter", code=1)


@case("defect", "a wrong hash")
def _(b: Branch) -> Want:
    b.pick("const", line=f"(cherry picked from commit {b.world.ups['docs'].oid})\n")
    return Want(["MISMATCH"], ["MISMATCH", "subject"], subject="MISMATCH", code=1)


@case("defect", "a hash that does not exist")
def _(b: Branch) -> Want:
    b.pick("const", line=f"(cherry picked from commit {'dead' * 10})\n")
    return Want(["unresolved"], ["unresolved"], code=1)


@case("defect", "an abbreviated hash that is ambiguous")
def _(b: Branch) -> Want:
    twin = b.world.twins[0]     # type: ignore[attr-defined]
    b.pick("const", line=f"(cherry picked from commit {twin[:7]})\n")
    return Want(["unresolved"], ["unresolved"], code=1, says="ambiguous")


@case("defect", "a hash of a commit never merged")
def _(b: Branch) -> Want:
    b.pick("const", line=f"(cherry picked from commit {b.world.stray})\n")
    return Want(["unresolved"], ["unresolved"], code=1, says="never merged")


@case("defect", "the hash of a blob")
def _(b: Branch) -> Want:
    blob = b.world.up.write("blob", b"foo")
    b.pick("const", line=f"(cherry picked from commit {blob})\n")
    return Want(["unresolved"], ["unresolved"], code=1)


@case("defect", "two provenance lines")
def _(b: Branch) -> Want:
    w = b.world
    b.pick("const", line=f"(cherry picked from commit {w.ups['const'].oid})\n(cherry picked from commit "
                         f"{w.ups['docs'].oid})\n")
    return Want(["unresolved"], ["unresolved"], code=1, says="different origins")


@case("defect", "no provenance at all")
def _(b: Branch) -> Want:
    b.pick("const", line="")
    return Want(["unresolved"], ["unresolved"], code=1, says="names no upstream commit")


@case("defect", "two commits squashed into one")
def _(b: Branch) -> Want:
    b.pick("const", both(b.world.ups["const"].edit, b.world.ups["getter"].edit))
    return Want(["MISMATCH"], ["MISMATCH"], code=1, says="only here")


@case("defect", "one commit split in two")
def _(b: Branch) -> Want:
    b.pick("adopt", sub(C, "static int foo_reset(", ADOPT + "static int foo_reset("))
    b.pick("adopt", both(sub(C, "\tret = foo_reset(foo);\n",
                             "\tret = foo_adopt(foo);\n\tif (ret)\n\t\tret = foo_reset(foo);\n"),
                         sub(H, "int foo_register(",
                             "int foo_adopt(struct foo_device *foo);\nint foo_register(")))
    return Want(["MISMATCH", "MISMATCH"], ["MISMATCH", "duplicate"], code=1)


@case("defect", "picked twice")
def _(b: Branch) -> Want:
    b.pick("const")
    b.pick("const", lambda t: None)
    return Want([MATCH, "MISMATCH"], ["MISMATCH", "duplicate"], code=1, says="empty")


@case("honest", "commits of other lines in another order than upstream")
def _(b: Branch) -> Want:
    b.pick("reorderB")
    b.pick("reorderA")
    return Want([MATCH, MATCH])


def swapped(b: Branch, note: str = "") -> Want:
    """Two that upstream has one after the other, on neighbouring lines, picked the other way round."""
    w = b.world
    tree, edits = dict(w.up.trees[w.tip]), (sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t200\n"),
                                            sub(C, "FOO_RETRIES\t3\n", "FOO_RETRIES\t4\n"))
    ups, parent = [], w.tip
    for n, edit in enumerate(edits):
        edit(tree)
        parent = w.up.commit(tree, message(f"foo: Step {n}"), [parent])
        ups.append(parent)
    w.up.ref(f"tags/v{len(w.up.trees)}", parent)
    for n in (1, 0):
        b.commit(message(f"foo: Step {n}") + f"(cherry picked from commit {ups[n]})\n{note}"
                 f"Signed-off-by: {BOB}\n", edits[n])
    return Want(["fine", "fine"], [] if note else ["reordered"], code=0)


@case("defect", "reordered commits that touch neighbouring lines")
def _(b: Branch) -> Want:
    return swapped(b)


@case("honest", "reordered commits of neighbouring lines, and noted")
def _(b: Branch) -> Want:
    return swapped(b, "[bob: the second is needed first]\n")


@case("defect", "a merge with a change of its own")
def _(b: Branch) -> Want:
    w = b.world
    u = w.ups["docs"]
    side = dict(b.tree)
    u.edit(side)
    other = w.local.commit(side, u.message + f"(cherry picked from commit {u.oid})\nSigned-off-by: {BOB}\n",
                           [b.base], committer=BOB)
    b.pick("const")
    u.edit(b.tree)
    b.commit(message("Merge branch 'docs'", signed=(BOB,)), sub(C, "FOO_RETRIES\t3", "FOO_RETRIES\t9"),
             parents=[b.parents[0], other])
    return Want(sorted([MATCH, MATCH, "N/A"]), ["merge"], code=1)


@case("defect", "an author that is not UTF-8")
def _(b: Branch) -> Want:
    u = b.world.ups["latin"]
    b.commit(u.message + f"(cherry picked from commit {u.oid})\nSigned-off-by: {BOB}\n", u.edit,
             author="J\u00f6rg M\u00fcller <jm@up.example>".encode("latin-1"))
    return Want([MATCH], ["encoding"], code=1)


@case("defect", "another author")
def _(b: Branch) -> Want:
    b.pick("const", author=BOB)
    return Want([MATCH], ["author"], code=1)


defect("CRLF line ends in the new lines", "const", "whitespace", ["whitespace"],
       edit=sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t1000\r\n"), says="CRLF")
defect("a whole file turned to CRLF", "docs", "whitespace", ["whitespace"], says="CRLF",
       edit=lambda t: t.__setitem__("Documentation/foo.rst",
                                    (FILE, t["Documentation/foo.rst"][1].replace(b"It has errors.",
                                                                                 b"It has errors, and counts "
                                                                                 b"them.").replace(b"\n",
                                                                                                   b"\r\n"))))
defect("a renamed file", "docs", "MISMATCH", ["MISMATCH"],
       edit=both(lambda t: t.__setitem__("Documentation/manual.rst",
                                         (FILE, t["Documentation/foo.rst"][1].replace(b"It has errors.",
                                                                                      b"It has errors, and "
                                                                                      b"counts them."))),
                 drop("Documentation/foo.rst")))
defect("a rename not done", "rename", "MISMATCH", ["MISMATCH"],
       edit=sub("Documentation/foo.rst", "A device.\n", "A fine device.\n"))
defect("a mode change upstream does not have", "docs", "MISMATCH", ["MISMATCH"], says="file mode",
       edit=lambda t: t.__setitem__("Documentation/foo.rst",
                                    (EXEC, t["Documentation/foo.rst"][1].replace(b"It has errors.",
                                                                                 b"It has errors, and counts "
                                                                                 b"them."))))
defect("a mode change lost", "mode", "MISMATCH", ["MISMATCH"], edit=lambda t: None)
defect("another binary content", "binary", "MISMATCH", ["MISMATCH"],
       edit=put("firmware/foo.bin", b"\0\1\2\5" * 80), says="binary")
defect("another link target", "link", "MISMATCH", ["MISMATCH"], edit=put("current", "drivers/bar", LINK),
       says="link target")
defect("another submodule commit", "module", "MISMATCH", ["MISMATCH"], edit=put("lib/sub", "3" * 40, MODULE),
       says="submodule")
defect("a commit left empty", "const", "MISMATCH", ["MISMATCH"], edit=lambda t: None, says="empty")
defect("a newline at the end that upstream lacks", "tail", "whitespace", ["whitespace"],
       says="newline at the end",
       edit=lambda t: t.__setitem__("drivers/foo/tail.txt",
                                    (FILE, t["drivers/foo/tail.txt"][1] + b"\nsix\n")))


@case("defect", "one line of a huge change")
def _(b: Branch) -> Want:
    def edit(tree: Tree) -> None:
        b.world.ups["huge"].edit(tree)
        sub("drivers/foo/table.h", "2999 20993", "2999 20992")(tree)
    b.pick("huge", edit)
    return Want(["MISMATCH"], ["MISMATCH"], code=1, says="FOO_TABLE_2999 20992")


defect("a file of quoted name changed otherwise", "quoted", "MISMATCH", ["MISMATCH"],
       edit=sub("Documentation/na\u00efve \"file\"\tname.rst", "All of it.\n", "All of it, thrice.\n"))
defect("a file kept that upstream removes", "rmfile", "MISMATCH", ["MISMATCH"],
       edit=put("scripts/foo.sh", "#!/bin/sh\n"))
defect("a new file with another line", "newfile", "MISMATCH", ["MISMATCH"],
       edit=both(put("drivers/foo/foo-adopt.c",
                     "// SPDX-License-Identifier: GPL-2.0-only\n#include \"foo.h\"\n\nint foo_adopted(struct "
                     "foo_device *foo)\n{\n\treturn !foo->adopted;\n}\n"),
                 sub("drivers/foo/Makefile", "obj-$(CONFIG_FOO) += foo.o\n",
                     "obj-$(CONFIG_FOO) += foo.o foo-adopt.o\n")))
defect("a note below the sign-off", "const", "MISMATCH", ["MISMATCH"], edit=BAD_CONST,
       signed=(f"{BOB}\n[bob: larger]",), says="wrong place")
defect("a note without a reason", "const", "MISMATCH", ["MISMATCH"], edit=BAD_CONST, note="bob:")


@case("defect", "a note above the provenance")
def _(b: Branch) -> Want:
    b.pick("const", BAD_CONST, line=f"[bob: larger]\n(backported from commit {b.world.ups['const'].oid})\n")
    return Want(["MISMATCH"], ["MISMATCH"], code=1, says="wrong place")


@case("defect", "a SAUCE patch nobody signed")
def _(b: Branch) -> Want:
    b.commit("SAUCE: foo: Ours\n\nBecause.\n", put("debian/x", "x\n"))
    return Want(["N/A"], ["sob-none"], code=1)


@case("defect", "a revert that keeps a part")
def _(b: Branch) -> Want:
    first = b.pick("adopt")
    b.commit(message('Revert "foo: Adopt a running device"', f"This reverts commit {first}.", signed=(BOB,)),
             sub(C, "\tret = foo_adopt(foo);\n\tif (ret)\n\t\tret = foo_reset(foo);\n",
                 "\tret = foo_reset(foo);\n"))
    return Want(["context", "N/A"], ["revert"], code=1, says="inverse")


@case("defect", "a revert that names no commit")
def _(b: Branch) -> Want:
    b.commit(message('Revert "foo: Something"', "It broke.", signed=(BOB,)),
             sub(C, "FOO_RETRIES\t3", "FOO_RETRIES\t2"))
    return Want(["N/A"], ["revert"], code=1)


def merged(b: Branch, edit: Edit | None = None, sides: tuple[str, ...] = ("docs",)) -> str:
    """A merge of side branches with one pick each."""
    others = []
    for name in sides:
        u, side = b.world.ups[name], dict(b.world.base_tree)
        u.edit(side)
        others.append(b.world.local.commit(side,
                                           u.message + f"(cherry picked from commit {u.oid})\nSigned-off-by: "
                                                       f"{BOB}\n", [b.base], committer=BOB))
    b.pick("const")
    for name in sides:
        b.world.ups[name].edit(b.tree)
    return b.commit(message("Merge branch 'docs'", signed=(BOB,)), edit, parents=[b.parents[0], *others])


@case("defect", "a revert of a merge that does something else")
def _(b: Branch) -> Want:
    oid = merged(b)
    b.commit(message('Revert "Merge branch \'docs\'"', f"This reverts commit {oid}.", signed=(BOB,)),
             put("x", "y"))
    return Want(sorted([MATCH, MATCH, "N/A", "N/A"]), ["revert"], code=1, says="inverse")


@case("honest", "a revert of a merge")
def _(b: Branch) -> Want:
    oid = merged(b)
    b.commit(message('Revert "Merge branch \'docs\'"', f"This reverts commit {oid}.", signed=(BOB,)),
             sub("Documentation/foo.rst", "It has errors, and counts them.\n", "It has errors.\n"))
    return Want(sorted([MATCH, MATCH, "N/A", "N/A"]))


@case("defect", "a merge of three parents")
def _(b: Branch) -> Want:
    merged(b, sides=("docs", "quoted"))
    return Want(sorted([MATCH] * 3 + ["N/A"]), ["merge"], code=1, says="two parents")


@case("defect", "a partial revert without a note")
def _(b: Branch) -> Want:
    first = b.pick("const")
    b.commit(message('Revert "foo: Wait longer"', f"This partially reverts commit {first}.", signed=(BOB,)),
             put("x", "y"))
    return Want([MATCH, "N/A"], ["revert"], code=1)


@case("defect", "a revert of two, one kept")
def _(b: Branch) -> Want:
    first, second = b.pick("const"), b.pick("docs")
    b.commit(message('Revert "foo: Wait longer"', f"This reverts commits {first} and {second}.",
                     signed=(BOB,)),
             sub(C, "FOO_TIMEOUT_US\t1000\n", "FOO_TIMEOUT_US\t100\n"))
    return Want([MATCH, MATCH, "N/A"], ["revert"], code=1, says="at once")


def unreadable(name: str, line: str) -> None:
    @case("defect", name)
    def build(b: Branch) -> Want:
        b.pick("const", BAD_CONST, line=line, subject="SAUCE: foo: Wait longer")
        return Want(["unresolved"], ["unresolved"], code=1, says="cannot be read")


unreadable("a SAUCE patch with a provenance too short to read", "(cherry picked from commit 123456)\n")
unreadable("a SAUCE patch with a provenance without parentheses",
           f"cherry picked from commit {'dead' * 10}\n")


@case("defect", "a SAUCE patch with a wrapped provenance")
def _(b: Branch) -> Want:
    b.pick("const", BAD_CONST, line=f"(cherry picked from commit\n {b.world.ups['const'].oid})\n",
           subject="SAUCE: foo: Wait longer")
    return Want(["MISMATCH"], ["MISMATCH"], code=1)


@case("honest", "a wrapped provenance")
def _(b: Branch) -> Want:
    b.pick("const", line=f"(cherry picked from commit\n {b.world.ups['const'].oid})\n")
    return Want([MATCH])


@case("honest", "the author in the body")
def _(b: Branch) -> Want:
    u = b.world.ups["const"]
    b.commit(u.message.replace("\n\n", f"\n\nFrom: {ALICE}\n\n", 1)
             + f"(cherry picked from commit {u.oid})\nSigned-off-by: {BOB}\n", u.edit, author=BOB)
    return Want([MATCH])


@case("defect", "an abbreviated hash that is also a branch")
def _(b: Branch) -> Want:
    u = b.world.ups["const"]
    b.world.up.ref(f"heads/{u.oid[:10]}", b.world.ups["docs"].oid)
    b.pick("const", line=f"(cherry picked from commit {u.oid[:10]})\n")
    return Want(["unresolved"], ["unresolved"], code=1, says="a branch has that name")


def pair_of(b: Branch, up0: Tree, up1: Tree, base: Tree, local: Tree) -> str:
    """A change of other files than the world's: an upstream commit, and its backport."""
    w = b.world
    up = w.up.commit(up1, message("bar: Change"), [w.up.commit(up0, message("bar: Start"), [w.tip])])
    w.up.ref(f"tags/v{len(w.up.trees)}", up)
    c = w.branch(base)
    c.commit(message("bar: Change") + f"(cherry picked from commit {up})\nSigned-off-by: {BOB}\n",
             lambda t: t.update(local))
    return c.range()


def functions(*names: str) -> bytes:
    return b"#include <a.h>\n\n" + b"".join(
        b"int %s(void)\n{\n\tint a;\n\n\ta = %s_x();\n\tif (a)\n\t\treturn %s_y();\n\treturn 0;\n}\n\n"
        % ((n.encode(),) * 3) for n in names)


# --- what messages say -----------------------------------------------------------------------------------

CARL = "Acked-by: Carl <carl@up.example>\n"
REVIEW = f"Reviewed-by: Rita <rita@up.example>\n{CARL}Fixes: 0123456789ab (\"foo: A\")\n"


def unnamed(text: str, upstream: str) -> str:
    """Without its provenance line."""
    return text.replace(f"(cherry picked from commit {upstream})\n", "")


def said_case(truth: str, name: str, change: Callable[[str, str], str], kinds: list[str], *,
              code: int | None = None, status: str = MATCH, tags: str = REVIEW,
              edit: Edit | None = None, author: str = ALICE,
              subject: str = "foo: Wait longer", local: str = "") -> None:
    """A pick whose message is changed; `change` also gets the upstream hash."""
    @case(truth, name)
    def build(b: Branch) -> Want:
        w = b.world
        tree, right = dict(w.up.trees[w.tip]), w.ups["const"].edit
        right(tree)
        text = f"{subject}\n\nThe hardware is slow.\n\n{tags}Signed-off-by: {ALICE}\n"
        up = w.up.commit(tree, text, [w.tip])
        w.up.ref(f"tags/v{len(w.up.trees)}", up)
        text += f"(cherry picked from commit {up})\nSigned-off-by: {BOB}\n"
        if local:
            text = text.replace(subject, local, 1)
        b.commit(change(text, up), edit or right, author=author)
        return Want([status], kinds, code=code if code is not None else int(bool(kinds)))


said_case("honest", "a pick with everybody's tags", lambda m, h: m, [])
said_case("honest", "a reviewer of the distribution's below the provenance",
          lambda m, h: m.replace(B, f"Acked-by: Dora <dora@distro.example>\n{B}"), [])
said_case("honest", "text of the backporter's own",
          lambda m, h: m.replace("is slow.\n", "is slow.\n\nNeeded here for the first silicon.\n"), [])
said_case("defect", "another author's name", lambda m, h: m, ["author"],
          author="Alice Other <alice@up.example>")
said_case("defect", "another author's address", lambda m, h: m, ["author"],
          author="Alice Adler <a@x.example>")
said_case("defect", "a dropped Acked-by", lambda m, h: m.replace(CARL, ""), ["tag"])
said_case("defect", "a forged Reviewed-by",
          lambda m, h: m.replace("Acked-by", "Reviewed-by: Eve <eve@x.example>\nAcked-by"), ["tag"])
said_case("defect", "a changed Fixes: tag", lambda m, h: m.replace("0123456789ab", "0123456789ac"), ["tag"])
said_case("defect", "a co-developer who did not sign",
          lambda m, h: m.replace("Signed-off", "Co-developed-by: Eve <eve@x.example>\nSigned-off", 1),
          ["co-developed", "tag"])
said_case("defect", "a changed body", lambda m, h: m.replace("is slow", "is fast"), ["body"], code=0)
said_case("defect", "an emptied body", lambda m, h: m.replace("The hardware is slow.\n\n", ""), ["body"],
          code=0)
said_case("defect", "a subject with a no-break space", lambda m, h: m, ["subject"], code=0,
          local="foo: Wait\u00a0longer")
said_case("defect", "an indented provenance line", lambda m, h: m.replace("(cherry", "  (cherry"),
          ["unresolved"],
          status="unresolved")
said_case("defect", "a provenance line in the middle of the body",
          lambda m, h: unnamed(m, h).replace(
              "The hardware", f"(cherry picked from commit {h})\nThe hardware"), ["provenance-place"])
said_case("defect", "stable's line below the body's first words",
          lambda m, h: unnamed(m, h).replace(
              "slow.\n", f"slow.\n\ncommit {h} upstream.\n"), ["provenance-place"])
said_case("defect", "a provenance line above upstream's sign-offs",
          lambda m, h: unnamed(m, h).replace(
              A, f"(cherry picked from commit {h})\n{A}"), ["provenance-place"])
said_case("defect", "an invisible character in the hash", lambda m, h: m.replace(h, h[:9] + "\u200b" + h[9:]),
          ["unresolved"], status="unresolved")
said_case("defect", "a second provenance line that cannot be read",
          lambda m, h: m.replace("(cherry", "(backported from commit 12345)\n(cherry"), ["unresolved"],
          status="unresolved")
for shape in ("> (cherry picked from commit {})", "- (cherry picked from commit {})",
              "(picked from commit {})", "* cherry picked from commit {}", "(backported of commit {})",
              "(ch\u0435rry picked from commit {})"):
    said_case("defect", f"a second provenance line that cannot be read: {shape.format('')}",
              lambda m, h, shape=shape: m.replace(                  # type: ignore[misc]
                  "(cherry", shape.format("1" * 40) + "\n(cherry"), ["unresolved"], status="unresolved")
said_case("honest", "a sentence about another backport",
          lambda m, h: m.replace("is slow.\n", "is slow.\n\nA\nbackport of the other fix needs it.\n"), [])
said_case("defect", "a provenance line at the end of a sentence",
          lambda m, h: m.replace("(cherry", "We took it as\n(cherry"), ["provenance-place"])
said_case("defect", "seven digits", lambda m, h: m.replace(h, h[:7]), ["short-hash"])
said_case("defect", "text after the hash", lambda m, h: m.replace(h, h + ", but not all of it"),
          ["unresolved"],
          status="unresolved")
said_case("defect", "any prefix before SAUCE", unnamed,
          ["unresolved"], status="unresolved", local="RANDOM: SAUCE: foo: Wait longer")
said_case("defect", "a no-break space behind SAUCE", unnamed,
          ["unresolved"], status="unresolved", local="UBUNTU:\u00a0SAUCE: foo: Wait longer")
said_case("defect", "a look-alike letter in SAUCE", unnamed,
          ["unresolved"], status="unresolved", local="S\u0410UCE: foo: Wait longer")
for mark in ("UBUNTU: random PREFIX: SAUCE", "UBUNTU: random SAUCE", "UBUNTU: S\u200bAUCE",
             "UBUNTU: S\u0410UCE", "UBUNTU: sauce"):
    said_case("defect", f"not SAUCE, though it looks so: {ascii(mark)}", unnamed, ["unresolved"],
              status="unresolved", local=f"{mark}: foo: Wait longer", edit=BAD_CONST)
for before, after in (("Before: 10 ms", "Before: 99 ms"), ("Note: careful.\n", "")):
    said_case("defect", f"a line of the text with a colon: {before.strip()!r}, here {after!r}",
              lambda m, h, b=before, a=after: m.replace(b, a), ["body"], code=0,    # type: ignore[misc]
              tags=f"Note: careful.\nBefore: 10 ms\nAfter: 5 ms\n\n{REVIEW}")
said_case("honest", "a bug's number above the text, another below it",
          lambda m, h: m.replace("The hardware", "BugLink: https://bugs.example/1\n\nThe hardware")
          .replace(B, f"Change-Id: I0123\n{B}"), [], tags=f"Note: careful.\n\nChange-Id: I4567\n{REVIEW}")
said_case("defect", "SAUCE over upstream's change", unnamed,
          ["unclaimed"], status="N/A", local="UBUNTU: SAUCE: foo: Be patient")


def note_case(truth: str, name: str, note: str, edit: Edit | None = None) -> None:
    bad = truth == "defect"
    said_case(truth, name, lambda m, h: m.replace(B, note + "\n" + B), ["MISMATCH"] if bad else [],
              status="MISMATCH" if bad else "noted", edit=edit or BAD_CONST)


for shown, why in (("dot", "."), ("dash", "--"), ("invisible reason", "\u200b\u2060"),
                   ("bare link", "https://x.example/1"), ("time stamp", "Mon, 01 Jan 2026 10:00:00"),
                   ("link without a scheme", "lore.kernel.org/r/some-words"),
                   ("www", "www.example.com/some/words"), ("message-id", "<some-words@mail.example>"),
                   ("named message-id", "message-id: <a-b@mail.example>"),
                   ("day", "Saturday, January 31"), ("TODO", "TODO"), ("none", "none"), ("n/a", "n/a"),
                   ("single dash", "-"), ("pointer", "see above"), ("hash", "commit 0123456789ab"),
                   ("word that fills the place", "xxxx"), ("word for any change", "adapted"),
                   ("word for any backport", "backported to 6.12")):
    note_case("defect", f"a note with a {shown} as its reason", f"[bob: {why}]")
note_case("defect", "a note on an empty commit", "[bob: not needed at all]", lambda t: None)
note_case("defect", "a note on an unrelated change", "[bob: this is better]", put("debian/x", "x\n"))
note_case("defect", "a note about another file only", "[bob: other.c lacks the include]")
note_case("defect", "a note by somebody who signed nothing", "[eve: larger for the first silicon]")
note_case("honest", "a note about the file", "[bob: foo.c has slower silicon]")
note_case("honest", "a note by initials and a name", "[bbackporter: slower silicon]")
for who in ("bb", "BB", "bp", "bob"):
    note_case("honest", f"a note by {who}", f"[{who}: slower silicon]")
for who in ("ob", "b", "eb", "bbq"):
    note_case("defect", f"a note by {who}", f"[{who}: slower silicon]")
for told in ("s/foo_new/foo_old/", "see foo_reset: no such field", "may hang without it",
             "drivers/foo has no such call", "taken from commit 0123456789ab instead"):
    note_case("honest", f"a note that says {told}", f"[bob: {told}]")


@case("defect", "a pick that nobody here signed, beside one that is")
def _(b: Branch) -> Want:
    w = b.world
    b.pick("docs")
    u = w.ups["const"]
    w.local.clock += 1
    b.commit(u.message + f"(cherry picked from commit {u.oid})\n", u.edit)
    return Want([MATCH, MATCH], ["sob-own"], code=1)


@case("honest", "a pick that nobody here signed, where nobody signs")
def _(b: Branch) -> Want:
    b.pick("docs")
    b.pick("const", signed=())
    return Want([MATCH, MATCH], args=("--unsigned",))


for kind_of, pad in (("indented", "    "), ("as it is", "")):
    @case("honest", f"a revert that quotes the picked message, {kind_of}")
    def _(b: Branch, pad: str = pad) -> Want:
        first = b.pick("const")
        u = b.world.ups["const"]
        quoted = "".join(f"{pad}{x}\n".replace(f"{pad}\n", "\n") for x in (
            u.message + f"(cherry picked from commit {u.oid})").split("\n"))
        b.commit(f'Revert "foo: Wait longer"\n\nThis reverts commit {first}. It said:\n\n{quoted}\n'
                 f"Signed-off-by: {BOB}\n", sub(C, "FOO_TIMEOUT_US\t1000\n", "FOO_TIMEOUT_US\t100\n"))
        return Want([MATCH, "N/A"])


@case("honest", "a pick that was reverted and reapplied")
def _(b: Branch) -> Want:
    first = b.pick("const")
    undo = b.commit(message('Revert "foo: Wait longer"', f"This reverts commit {first}.", signed=(BOB,)),
                    sub(C, "FOO_TIMEOUT_US\t1000\n", "FOO_TIMEOUT_US\t100\n"))
    b.commit(message('Reapply "foo: Wait longer"', f"This reverts commit {undo}.", signed=(BOB,)),
             sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t1000\n"))
    return Want([MATCH, "N/A", "N/A"])


@case("honest", "a pick that was reverted by its subject, and picked again")
def _(b: Branch) -> Want:
    back = sub(C, "FOO_TIMEOUT_US\t1000\n", "FOO_TIMEOUT_US\t100\n")
    b.pick("const")
    b.commit(message('Revert "foo: Wait longer"', "It broke.", signed=(BOB,)), back)
    b.pick("const")
    return Want([MATCH, "N/A", MATCH])


@case("defect", "a pick that was reverted and reapplied, and picked again")
def _(b: Branch) -> Want:
    back = sub(C, "FOO_TIMEOUT_US\t1000\n", "FOO_TIMEOUT_US\t100\n")
    first = b.pick("const")
    undo = b.commit(message('Revert "foo: Wait longer"', f"This reverts commit {first}.", signed=(BOB,)),
                    back)
    b.commit(message('Reapply "foo: Wait longer"', f"This reverts commit {undo}.", signed=(BOB,)),
             b.world.ups["const"].edit)
    b.pick("const", lambda t: None)
    return Want([MATCH, "N/A", "N/A", "MISMATCH"], ["MISMATCH", "duplicate"], code=1)


for subject_of_it in ('UBUNTU: SAUCE: Revert "foo: Wait longer"', 'foo: Revert "foo: Wait longer"',
                      'revert "foo: Wait longer"', "Revert “foo: Wait longer”",
                      'Back out "foo: Wait longer"'):
    @case("honest", f"a revert written {subject_of_it}")
    def _(b: Branch, subject: str = subject_of_it) -> Want:
        b.pick("const")
        b.commit(message(subject, "It broke.", signed=(BOB,)),
                 sub(C, "FOO_TIMEOUT_US\t1000\n", "FOO_TIMEOUT_US\t100\n"))
        return Want([MATCH, "N/A"])


@case("honest", "a revert of a SAUCE commit")
def _(b: Branch) -> Want:
    own = b.commit(message("UBUNTU: SAUCE: foo: Ours", signed=(BOB,)), put("debian/x", "x\n"))
    b.commit(message('Revert "UBUNTU: SAUCE: foo: Ours"', f"This reverts commit {own}.", signed=(BOB,)),
             drop("debian/x"))
    return Want(["N/A", "N/A"])


@case("honest", "a release commit, exempted")
def _(b: Branch) -> Want:
    b.commit(message("Linux 6.12.7", signed=(BOB,)), put("Makefile", "SUBLEVEL = 7\n"))
    return Want(["N/A"], args=("--exempt", r"^Linux \d"))


@case("defect", "a commit of the same branch, which the reference happens to hold")
def _(b: Branch) -> Want:
    w = b.world
    own = b.pick("const")
    b.range()
    w.up.git("fetch", "-q", str(w.local.path), "work")
    b.commit(message("foo: More") + f"(cherry picked from commit {own})\nSigned-off-by: {BOB}\n",
             lambda t: None)
    return Want([MATCH, "unresolved"], ["unresolved"], code=1, says="this very branch")


# --- twins: blocks of the same lines that only their names tell apart ------------------------------------

# kind of block -> file, lines above, the block, lines below, the line that the change adds one to, that one
BLOCKS: dict[str, tuple[str, str, str, str, str, str]] = {
    "function": ("a.c", "#include <a.h>\n\n", "int NAME_setup(void)\n{\n\tint a;\n\n\ta = get();\n\tif (a)\n"
                 "\t\treturn a;\n\tput();\n\treturn 0;\n}\n\n", "MODULE(a);\n", "\tput();\n", "\tmore();\n"),
    "case": ("a.c", "int a(int x)\n{\n\tswitch (x) {\n",
             "\tcase NAME:\n\t\tget();\n\t\tput();\n\t\tbreak;\n",
             "\tdefault:\n\t\treturn 1;\n\t}\n\treturn 0;\n}\n", "\t\tget();\n", "\t\tmore();\n"),
    "table entry": ("a.c", "static struct a table[] = {\n",
                    "\t[NAME] = {\n\t\t.get = a_get,\n\t\t.put = a_put,\n\t},\n",
                    "};\n", "\t\t.get = a_get,\n", "\t\t.more = 1,\n"),
    "device-tree node": ("a.dts", "/dts-v1/;\n\n/ {\n",
                         "\tNAME: serial {\n\t\treg = <0>;\n\t\tstatus = \"okay\";\n\t};\n\n",
                         "};\n", "\t\treg = <0>;\n", "\t\tmore;\n"),
    "Kconfig entry": ("Kconfig", "menu \"A\"\n\n",
                      "config NAME\n\tbool \"Yes\"\n\tdepends on OF\n\thelp\n\t  It is.\n\n",
                      "endmenu\n", "\tbool \"Yes\"\n", "\tselect MORE\n"),
    "method": ("a.py", "class A:\n",
               "    def NAME(self):\n        self.get()\n        self.put()\n        return 0\n\n",
               "\nA().run()\n", "        self.get()\n", "        self.more()\n"),
    "#if block": ("a.c", "int a(void)\n{\n", "#ifdef NAME\n\tget();\n\tput();\n#endif\n",
                  "\treturn 0;\n}\n", "\tget();\n", "\tmore();\n"),
    "if branch": ("a.c", "int a(void)\n{\n", "\tif (is_NAME()) {\n\t\tget();\n\t\tput();\n\t}\n",
                  "\treturn 0;\n}\n", "\t\tget();\n", "\t\tmore();\n"),
    "struct": ("a.h", "#ifndef A\n#define A\n\n", "struct NAME {\n\tint get;\n\tint put;\n};\n\n",
               "#endif\n", "\tint get;\n", "\tint more;\n"),
    "label": ("a.c", "int a(void)\n{\n\tx();\n", "err_NAME:\n\tget();\n\tput();\n", "\treturn 1;\n}\n",
              "\tget();\n", "\tmore();\n"),
    "shell function": ("a.sh", "#!/bin/sh\n\n", "NAME() {\n\tget\n\tput\n}\n\n", "run\n", "\tget\n",
                       "\tmore\n"),
    "object": ("a.json", "{\n", "  \"NAME\": {\n    \"get\": 1,\n    \"put\": 2\n  },\n",
               "  \"end\": 0\n}\n", "    \"get\": 1,\n", "    \"more\": 3,\n"),
    "macro": ("a.h", "#ifndef A\n#define A\n\n", "#define NAME(x) \\\n\tget(x); \\\n\tput(x)\n\n", "#endif\n",
              "\tget(x); \\\n", "\tmore(x); \\\n"),
    "section": ("a.ini", "# a\n", "[NAME]\nget = 1\nput = 2\n\n", "[end]\nx = 1\n", "get = 1\n",
                "more = 3\n"),
}


def of_blocks(kind: str, names: str, changed: str = "", top: bool = False) -> Tree:
    """A file with blocks of these names; those of `changed` have the change."""
    path, above, block, below, after, added = (BLOCKS | GROUPS)[kind]
    more = block.replace(after, after + added) if after else added + block
    body = "".join((more if n in changed.split() else block).replace("NAME", n) for n in names.split())
    own = "" if not top else "/* own */\n" if path[-2:] in (".c", ".h") or path == "a.dts" else "# own\n"
    return {path: (FILE, (own + above + body + below).encode())}


def twin_case(truth: str, what: str, kind: str, up: str, local: str, at: str, status: str, where: str = "vf",
              top: bool = False) -> None:
    @case(truth, f"{what}: {kind}")
    def build(b: Branch) -> Want:
        bad = [] if status == "fine" else [status]
        return Want([status], bad, code=len(bad), local=pair_of(
            b, of_blocks(kind, up), of_blocks(kind, up, where),
            of_blocks(kind, local, "", top), of_blocks(kind, local, at, top)))


for block in BLOCKS:
    twin_case("defect", "a twin of the branch's own below", block, "vf", "vf own", "own", "MISMATCH")
    twin_case("defect", "a twin of the branch's own above", block, "vf", "own vf", "own", "MISMATCH")
    twin_case("defect", "a twin where the base lacks the right one", block, "pf vf", "pf", "pf", "MISMATCH")
    twin_case("defect", "one of two twins of the branch's own", block, "vf", "own1 own2", "own2",
              "ask a person")
    twin_case("honest", "the right one beside a twin below", block, "vf", "vf own", "vf", "fine")
    twin_case("honest", "the right one beside a twin above", block, "vf", "own vf", "vf", "fine")
    twin_case("honest", "a twin that the branch renamed", block, "pf vf", "pf vf2", "vf2", "fine")
    twin_case("honest", "between two twins of the branch's own", block, "vf", "own1 vf own2", "vf", "fine")
    twin_case("honest", "a twin below, and a line of its own at the top", block, "vf", "vf own", "vf", "fine",
              top=True)
    twin_case("defect", "the same, in the twin", block, "vf", "vf own", "own", "MISMATCH", top=True)
    if block not in ("#if block", "section"):           # indentation does not say where these end
        twin_case("honest", "blocks in another order", block, "pf vf xf", "xf vf pf", "vf", "fine")
    for at in ("pf", "xf", "own"):
        twin_case("defect", f"blocks in another order, {at} for vf", block, "pf vf xf", "own xf vf pf", at,
                  "red")


# Groups of lines that only a line inside them tells apart: what they begin with is no name, or the same one.
GROUPS: dict[str, tuple[str, str, str, str, str, str]] = {
    "C statements, end": ("a.c", "int probe(void)\n{\n", "\tset(NAME);\n\tget();\n\tput();\n\n",
                          "\treturn 0;\n}\n", "\tput();\n", "\tmore();\n"),
    "C statements, start": ("a.c", "int probe(void)\n{\n\n", "\tget();\n\tput();\n\tset(NAME);\n\n",
                            "\treturn 0;\n}\n", "", "\tmore();\n"),
    "C statements without blank lines": ("a.c", "int probe(void)\n{\n", "\tset(NAME);\n\tget();\n\tput();\n",
                                         "\treturn 0;\n}\n", "\tput();\n", "\tmore();\n"),
    "C if with the name before it": ("a.c", "int probe(void)\n{\n\tint ret;\n\n",
                                     "\tret = set(NAME);\n\tif (ret)\n\t\treturn ret;\n\n",
                                     "\treturn 0;\n}\n", "\t\treturn ret;\n", "\tmore();\n"),
    "C nested loop": ("a.c", "int probe(void)\n{\n",
                      "\tx = NAME;\n\tfor (i = 0; i < n; i++) {\n\t\tget(x);\n\t\tput(x);\n\t}\n\n",
                      "\treturn 0;\n}\n", "\t\tput(x);\n", "\t\tmore(x);\n"),
    "C entry one field": ("a.c", "static const struct t t[] = {\n",
                          "\t{\n\t\t.id = NAME,\n\t\t.get = get,\n\t},\n", "\t{ }\n};\n",
                          "\t\t.get = get,\n", "\t\t.put = put,\n"),
    "C entry, braces joined": ("a.c", "static const struct t t[] = {\n\t{\n",
                               "\t\t.id = NAME,\n\t\t.get = get,\n\t}, {\n", "\t}\n};\n",
                               "\t\t.get = get,\n", "\t\t.put = put,\n"),
    "C entry, named by the last field": ("a.c", "static const struct t t[] = {\n",
                                         "\t{\n\t\t.get = get,\n\t\t.put = put,\n\t\t.id = NAME,\n\t},\n",
                                         "\t{ }\n};\n", "\t\t.get = get,\n", "\t\t.more = more,\n"),
    "C macro calls": ("a.c", "static const struct reg regs[] = {\n",
                      "\tREGS(NAME),\n\tREG(1),\n\tREG(2),\n\n", "\tEND\n};\n", "\tREG(2),\n",
                      "\tREG(3),\n"),
    "C comment above lines": ("a.c", "static const struct reg regs[] = {\n",
                              "\t/* NAME */\n\tREG(1),\n\tREG(2),\n", "\tEND\n};\n", "\tREG(2),\n",
                              "\tREG(3),\n"),
    "C enum": ("a.h", "#ifndef A\n#define A\n", "enum {\n\tNAME,\n\tGET,\n\tPUT,\n};\n\n", "#endif\n",
               "\tPUT,\n", "\tMORE,\n"),
    "C defines": ("a.h", "#ifndef A\n#define A\n\n", "/* NAME */\n#define GET\t1\n#define PUT\t2\n\n",
                  "#endif\n", "#define PUT\t2\n", "#define MORE\t3\n"),
    "C GNU heading": ("a.c", "#include <a.h>\n\n",
                      "static int\nNAME_setup(void)\n{\n\tget();\n\tput();\n}\n\n", "MODULE(a);\n",
                      "\tput();\n", "\tmore();\n"),
    "C heading, later line": ("a.c", "#include <a.h>\n\n",
                              "static int setup(struct a *a,\n\t\t struct NAME *n)\n{\n\tget();\n"
                              "\tput();\n}\n\n", "MODULE(a);\n", "\tput();\n", "\tmore();\n"),
    "C++ template": ("a.cc", "#include <a.h>\n\n",
                     "template <>\nint setup<NAME>(int a) {\n  get();\n  put();\n}\n\n", "int z;\n",
                     "  put();\n", "  more();\n"),
    "Go table": ("a.go", "package a\n\nvar t = []T{\n",
                 "\t{\n\t\tname: \"NAME\",\n\t\tget:  1,\n\t\tput:  2,\n\t},\n", "}\n\nfunc x() {\n}\n",
                 "\t\tput:  2,\n", "\t\tmore: 3,\n"),
    "Go statements": ("a.go", "package a\n\nfunc x() error {\n",
                      "\tset(NAME)\n\tif err := get(); err != nil {\n\t\treturn err\n\t}\n\n",
                      "\treturn nil\n}\n", "\t\treturn err\n\t}\n", "\tmore()\n"),
    "Go receiver": ("a.go", "package a\n\n",
                    "func (s *NAME) Get() int {\n\tget()\n\tput()\n\treturn 0\n}\n\n", "var z int\n",
                    "\tput()\n", "\tmore()\n"),
    "Go cases": ("a.go", "package a\n\nfunc x(y any) {\n\tswitch y.(type) {\n",
                 "\tcase NAME:\n\t\tget()\n\t\tput()\n", "\t}\n}\n", "\t\tput()\n", "\t\tmore()\n"),
    "Python statements": ("a.py", "def a():\n", "    set(NAME)\n    get()\n    put()\n\n", "    return 0\n",
                          "    put()\n", "    more()\n"),
    "Python dicts": ("a.py", "T = [\n", "    {\n        'id': 'NAME',\n        'get': 1,\n    },\n", "]\n",
                     "        'get': 1,\n", "        'more': 3,\n"),
    "Python calls": ("a.py", "T = [\n", "    dict(id='NAME',\n         get=1,\n         put=2),\n", "]\n",
                     "         get=1,\n", "         more=3,\n"),
    "Python with": ("a.py", "def a():\n", "    x = NAME\n    with get(x):\n        put(x)\n\n",
                    "    return 0\n", "        put(x)\n", "        more(x)\n"),
    "YAML list": ("a.yaml", "items:\n", "  - name: NAME\n    get: 1\n    put: 2\n", "end: 1\n",
                  "    put: 2\n", "    more: 3\n"),
    "YAML list, name last": ("a.yaml", "items:\n", "  - get: 1\n    put: 2\n    name: NAME\n", "end: 1\n",
                             "    put: 2\n", "    more: 3\n"),
    "YAML steps": ("a.yaml", "jobs:\n  a:\n    steps:\n",
                   "      - uses: NAME\n        with:\n          get: 1\n          put: 2\n",
                   "      - run: end\n", "          put: 2\n", "          more: 3\n"),
    "JSON list": ("a.json", "[\n", "  {\n    \"id\": \"NAME\",\n    \"get\": 1,\n    \"put\": 2\n  },\n",
                  "  {}\n]\n", "    \"get\": 1,\n", "    \"more\": 3,\n"),
    "JSON nested": ("a.json", "{\n  \"a\": [\n",
                    "    {\n      \"id\": \"NAME\",\n      \"sub\": {\n        \"get\": 1,\n"
                    "        \"put\": 2,\n      },\n    },\n", "    {}\n  ]\n}\n", "        \"put\": 2,\n",
                    "        \"more\": 3,\n"),
    "DTS nodes of one name": ("a.dts", "/dts-v1/;\n\n/ {\n",
                              "\tport {\n\t\tlabel = \"NAME\";\n\t\treg = <0>;\n\t};\n\n", "};\n",
                              "\t\treg = <0>;\n", "\t\tmore;\n"),
    "DTS child": ("a.dts", "/dts-v1/;\n\n/ {\n",
                  "\tNAME: codec {\n\t\tport {\n\t\t\treg = <0>;\n\t\t\tlink = <1>;\n\t\t};\n\t};\n\n",
                  "};\n", "\t\t\tlink = <1>;\n", "\t\t\tmore;\n"),
    "DTS property lines": ("a.dts", "/dts-v1/;\n\n/ {\n\tpins {\n",
                           "\t\tNAME =\n\t\t\t<1>,\n\t\t\t<2>,\n\t\t\t<0>;\n", "\t};\n};\n", "\t\t\t<2>,\n",
                           "\t\t\t<3>,\n"),
    "Kconfig depends": ("Kconfig", "menu \"A\"\n\n", "config NAME\n\tbool \"Yes\"\n\tdepends on OF\n\n",
                        "endmenu\n", "\tdepends on OF\n", "\tselect MORE\n"),
    "Kconfig help": ("Kconfig", "menu \"A\"\n\n", "config NAME\n\tbool \"Yes\"\n\thelp\n\t  It is.\n\n",
                     "endmenu\n", "\t  It is.\n", "\t  It does.\n"),
    "Kconfig choice": ("Kconfig", "menu \"A\"\n\n",
                       "choice\n\tprompt \"NAME\"\n\tdefault A\n\nconfig SHARED\n\tbool \"S\"\n\n"
                       "endchoice\n\n", "endmenu\n", "\tbool \"S\"\n", "\tselect MORE\n"),
    "Makefile rules": ("Makefile", "all:\n\n", "NAME: x\n\tget\n\tput\n\n", "end:\n", "\tput\n", "\tmore\n"),
    "Makefile lists": ("Makefile", "all:\n\n", "NAME-y := a.o \\\n\tb.o \\\n\tc.o\n\n", "end:\n",
                       "\tb.o \\\n", "\tmore.o \\\n"),
    "Makefile lines": ("Makefile", "all:\n\n", "obj-$(NAME) += a.o\nobj-y += b.o\n\n", "end:\n",
                       "obj-y += b.o\n", "obj-y += more.o\n"),
    "shell statements": ("a.sh", "#!/bin/sh\n\n", "x=NAME\nget $x\nput $x\n\n", "end\n", "put $x\n",
                         "more $x\n"),
    "TOML": ("a.toml", "[a]\nb = 1\n\n", "[[item]]\nname = \"NAME\"\nget = 1\n\n", "[end]\n", "get = 1\n",
             "put = 2\n"),
    "Rust match": ("a.rs", "fn a(x: X) {\n    match x {\n",
                   "        NAME => {\n            get();\n            put();\n        }\n",
                   "        _ => (),\n    }\n}\n", "            put();\n", "            more();\n"),
    "text": ("a.txt", "Title\n\n", "Part NAME\nIt gets.\nIt puts.\n\n", "End\n", "It puts.\n",
             "It does more.\n"),
}
# What upstream has, what the branch has, and where that has the change; upstream has it in vf.
MISPLACED = [("vf", "vf own", "own"), ("vf", "own vf", "own"), ("pf vf", "pf", "pf"), ("vf pf", "pf", "pf"),
             ("pf vf", "pf vf own", "own"), ("pf vf", "own pf vf", "own"), ("pf vf", "pf own vf", "own"),
             ("pf vf", "pf vf", "pf"), ("vf pf", "vf pf", "pf"), ("vf pf xf", "pf xf", "pf"),
             ("pf vf xf", "pf xf", "xf"), ("pf vf xf", "own xf vf pf", "own"), ("pf vf xf", "xf vf pf", "pf")]
PLACED = [("pf vf", "pf vf", "vf"), ("vf", "vf own", "vf"), ("vf", "own vf", "vf"),
          ("pf vf", "pf own vf", "vf"), ("pf vf", "pf vf2", "vf2"), ("vf pf", "vf2 pf", "vf2"),
          ("pf vf xf", "vf xf", "vf"), ("pf vf xf", "pf vf", "vf"), ("vf", "own1 vf own2", "vf")]


def group_case(truth: str, kind: str, ways: list[tuple[str, str, str]], status: str) -> None:
    @case(truth, f"{'the wrong' if status == 'red' else 'the right'} one of equal groups: {kind}")
    def build(b: Branch) -> Want:
        w = b.world
        trees: dict[str, Tree] = {}
        for k, (up, local, at) in enumerate(ways):
            for side, names, changed in (("up", up, ""), ("up1", up, "vf"),
                                         ("lo", local, ""), ("lo1", local, at)):
                (path, data), = of_blocks(kind, names, changed).items()
                trees.setdefault(side, {})[f"{k}/{path}"] = data
        now, tip = dict(trees["up"]), w.up.commit(trees["up"], message("bar: Start"), [w.tip])
        c = w.branch(trees["lo"])
        for path in trees["up1"]:
            now[path] = trees["up1"][path]
            tip = w.up.commit(now, message(f"bar: Change {path}"), [tip])
            c.commit(message(f"bar: Change {path}")
                     + f"(cherry picked from commit {tip})\nSigned-off-by: {BOB}\n",
                     lambda t, path=path: t.update({path: trees["lo1"][path]}))     # type: ignore[misc]
        w.up.ref(f"tags/v{len(w.up.trees)}", tip)
        bad = [status] if status == "red" else []
        return Want([status] * len(ways), bad, code=int(bool(bad)), local=c.range())


for kind in GROUPS:
    group_case("defect", kind, MISPLACED, "red")
    if kind not in ("C statements without blank lines", "Kconfig choice"):      # nothing says where these end
        group_case("honest", kind, PLACED, "fine")


# Blocks without a name that anything knows: a paragraph, with the change at its end.
PARAGRAPHS = {
    "an entry of MAINTAINERS": ("MAINTAINERS", "DRIVER %s\nM:\tX <x@y>\nS:\tSupported\n\n",
                                "S:\tSupported\n", "T:\tgit none\n"),
    "a section of a text": ("a.rst", "Part %s\n------\n\nIt gets.\n\nIt puts.\n\n", "It puts.\n",
                            "\nIt does more.\n"),
    "one of several tables": ("a.toml", "[[item]]\nname = %s\nput = 2\n\n", "put = 2\n", "more = 3\n"),
}


def paragraph_case(truth: str, what: str, kind: str, local: str, at: str, status: str) -> None:
    @case(truth, f"{what}: {kind}")
    def build(b: Branch) -> Want:
        path, block, after, added = PARAGRAPHS[kind]

        def text(names: str, changed: str = "") -> str:
            more = block.replace(after, after + added)
            return "".join((more if one == changed else block) % one for one in names.split()) + "END\n"
        bad = [] if status == "fine" else [status]
        return Want([status], bad, code=len(bad),
                    local=of_file(b, path, text("1"), text("1", "1"), text(local), text(local, at)))


for kind in PARAGRAPHS:
    paragraph_case("defect", "the end of a twin paragraph below", kind, "1 9", "9", "red")
    paragraph_case("defect", "the end of a twin paragraph above", kind, "9 1", "9", "MISMATCH")
    paragraph_case("honest", "the end of the right paragraph", kind, "9 1", "1", "fine")


def moved_function(at: str) -> Callable[[Branch], str]:
    def build(b: Branch) -> str:
        up, base = functions("one", "two", "three", "four"), functions("one", "four", "two", "three")

        def change(data: bytes, name: str) -> bytes:
            line = b"\ta = %s_x();\n" % name.encode()
            return data.replace(line, line + b"\ta |= 4;\n")
        return pair_of(b, {"a.c": (FILE, up)}, {"a.c": (FILE, change(up, "four"))}, {"a.c": (FILE, base)},
                       {"a.c": (FILE, change(base, at))})
    return build


@case("honest", "a function that moved")
def _(b: Branch) -> Want:
    return Want(["context"], local=moved_function("four")(b))


@case("defect", "another function than the one that moved")
def _(b: Branch) -> Want:
    return Want(["MISMATCH"], ["MISMATCH"], code=1, local=moved_function("two")(b))


@case("defect", "a line of a function that the base lacks")
def _(b: Branch) -> Want:
    up, base = functions("one", "two", "three"), functions("one", "three")
    return Want(["MISMATCH"], ["MISMATCH"], code=1, local=pair_of(
        b, {"a.c": (FILE, up)},
        {"a.c": (FILE, up.replace(b"\ta = two_x();\n", b"\ta = two_x();\n\ta |= 4;\n"))},
        {"a.c": (FILE, base)}, {"a.c": (FILE, base.replace(b"\nint three", b"\n\ta |= 4;\nint three"))}))


# A block that ended above the place is not around it, whatever its indent: two loops whose heads take
# several lines, and what only the branch has above them, or between them.
LOOP = ("\tfor (i = NAME(n);\n\t     !done(i);\n\t     i = next(i)) {\n\t\tif (is_get(i)) {\n\t\t\tget(i);\n"
        "\t\t\tput(i);\n\t\t}\n\t}\n")
ENDED = {"if": "\tif (n < 0) {\n\t\traise();\n\t}\n",
         "if and else": "\tif (n < 0) {\n\t\traise();\n\t} else {\n"
         "\t\tif (n) {\n\t\t\tget(n);\n\t\t}\n\t}\n",
         "do": "\tdo {\n\t\tn = get(n);\n\t} while (n < 0);\n",
         "table": "\tstatic int a[] = {\n\t\t1,\n\t};\n"}


def ended_case(truth: str, kind: str, local: str, at: str) -> None:
    def text(blocks: str, changed: str = "") -> bytes:
        of = {"big": "\tif (n > 9) {\n\t\traise();\n\t}\n", "own": ENDED[kind]}
        of |= {name: LOOP.replace("NAME", name) for name in ("first", "second")}
        of |= {changed: of.get(changed, "").replace("\t\t\tget(i);\n", "\t\t\tget(i);\n\t\t\tmore(i);\n")}
        return ("int a(int n)\n{\n" + "\n".join(of[name] for name in blocks.split()) + "}\n").encode()

    @case(truth, f"below a block that ended, {kind}: {local}")
    def build(b: Branch) -> Want:
        bad = ["MISMATCH"] if truth == "defect" else []
        up = "own big first second"
        return Want(bad or ["fine"], bad, code=len(bad), local=pair_of(
            b, {"a.c": (FILE, text(up))}, {"a.c": (FILE, text(up, "second"))},
            {"a.c": (FILE, text(local))}, {"a.c": (FILE, text(local, at))}))


for kind in ENDED:
    for local in ("big own first second", "own big first own second"):
        ended_case("honest", kind, local, "second")
        ended_case("defect", kind, f"{local} ", "first")


def opened(head: str, above: str, change: str = "") -> bytes:
    return (f"#include <a.h>\n\n{head} {{\n\nA::A(int x)\n    : x_(x) {{{above}}}\n\n{change}"
            "int A::get() {\n  return x_;\n}\n\n}\n").encode()


for head in ("namespace a", "inline namespace b", "extern \"C\"", "namespace"):
    @case("honest", f"below a body in one line: {head}")
    def _(b: Branch, head: str = head) -> Want:
        new = "A::A(char x)\n    : x_(x) {\n  more();\n}\n\n"
        return Want(["context"], local=pair_of(
            b, {"a.cc": (FILE, opened(head, "\n  init();\n"))},
            {"a.cc": (FILE, opened(head, "\n  init();\n", new))},
            {"a.cc": (FILE, opened(head, ""))}, {"a.cc": (FILE, opened(head, "", new))}))


@case("honest", "a stub below stubs that differ")
def _(b: Branch) -> Want:
    def stubs(*names: str) -> Tree:
        return {"a.h": (FILE,
                        b"#ifndef A\n#define A\n\n"
                        + b"".join(b"static inline void %s(void) { }\n" % n.encode() for n in names)
                        + b"\n#endif\n")}
    return Want(["context"], local=pair_of(b, stubs("one", "two", "three"),
                                           stubs("one", "two", "three", "new"), stubs("one", "two"),
                                           stubs("one", "two", "new")))


# Functions that a later line of their headings tells apart; one line of their bodies is the branch's own.
HEADINGS = {"parameters": ("a.c", "static int setup(struct a *a,\n\t\t struct NAME *n)\n{\n"),
            "a line for the type": ("a.c", "static int\nsetup_NAME(struct a *a)\n{\n"),
            "template": ("a.cc", "template <>\nint setup<NAME>(int a)\n{\n"),
            "constructor": ("a.cc", "A::A(int x)\n    : A_(NAME) {\n")}


def heading_case(truth: str, kind: str, up: str, local: str, at: str) -> None:
    path, head = HEADINGS[kind]

    def text(names: str, changed: str = "", line: str = "own") -> str:
        return "#include <a.h>\n\n" + "".join(
            head.replace("NAME", n) + f"\ta();\n\t{line}();\n\tget();\n\tput();\n"
            + "\tmore();\n" * (n == changed) + "\treturn 0;\n}\n\n"
            for n in names.split()) + "MODULE(a);\n"

    @case(truth, f"a heading of several lines, {local} for {up}: {kind}, {truth}")
    def build(b: Branch) -> Want:
        bad = ["MISMATCH"] if truth == "defect" else []
        return Want(bad or ["fine"], bad, code=len(bad), local=of_file(
            b, path, text(up, "", "b"), text(up, "vf", "b"), text(local), text(local, at)))


for kind in HEADINGS:
    heading_case("defect", kind, "pf vf", "pf", "pf")
    heading_case("defect", kind, "vf", "vf own", "own")
    heading_case("defect", kind, "pf vf", "pf vf", "pf")
    heading_case("honest", kind, "vf", "vf own", "vf")
    heading_case("honest", kind, "pf vf", "pf vf", "vf")
    heading_case("honest", kind, "pf vf", "pf vf2", "vf2")
    heading_case("honest", kind, "pf vf", "vf", "vf")


@case("defect", "a function that moved to the other branch of an #if")
def _(b: Branch) -> Want:
    def text(first: str, second: str, changed: str = "") -> str:
        one, two = (f"int {n}(void)\n{{\n\tget();\n" + "\tmore();\n" * (n == changed) + "\treturn 0;\n}\n"
                    for n in (first, second))
        return f"#ifdef A\n{one}#else\n{two}#endif\n"
    return Want(["red"], ["red"], code=1, local=of_file(
        b, "a.c", text("one", "two"), text("one", "two", "two"),
        text("two", "one"), text("two", "one", "two")))


@case("honest", "the #else of a condition that the branch writes otherwise")
def _(b: Branch) -> Want:
    def text(name: str, change: str = "") -> str:
        return (f"#ifdef {name}\nint a;\n#else\nint b(void);\n{change}int c(void);\n#endif\n"
                "\n#ifdef B\nint y;\n#else\nint z;\n#endif\n")
    new = "int more(void);\n"
    return Want(["fine"], local=of_file(
        b, "a.h", text("A"), text("A", new), text("OUR_A"), text("OUR_A", new)))


@case("honest", "a case below cases that differ")
def _(b: Branch) -> Want:
    def cases(*names: str) -> str:
        return ("int a(int x)\n{\n\tswitch (x) {\n"
                + "".join(f"\tcase {n}:\n\t\tget();\n\t\tbreak;\n" for n in names)
                + "\tdefault:\n\t\treturn 1;\n\t}\n\treturn 0;\n}\n")
    return Want(["fine"], local=of_file(b, "a.c", cases("A", "B", "C"), cases("A", "B", "C", "NEW"),
                                        cases("A", "B"), cases("A", "B", "NEW")))


@case("defect", "a line in a long table of equal ones")
def _(b: Branch) -> Want:
    start, line, new, end = "static int a[] = {\n", "\tREG(1),\n" * 2000, "\tREG(2),\n", "};\n"
    want = Want(["ask a person"], ["ask a person"], code=1, seconds=8)
    want.local = of_file(b, "a.c", start + line * 2 + end, start + line + new + line + end,
                         "/* own */\n" + start + line * 2 + end,
                         "/* own */\n" + start + line + new + line + end)
    return want


@case("defect", "the change in an unrelated file")
def _(b: Branch) -> Want:
    up, other = b"one\ntwo\nthree\n", b"quite\nanother\n"
    return Want(["MISMATCH"], ["MISMATCH"], code=1, local=pair_of(
        b, {"a.txt": (FILE, up)}, {"a.txt": (FILE, up + b"new\n")}, {"b.txt": (FILE, other)},
        {"b.txt": (FILE, other + b"new\n")}))


@case("defect", "a short hash")
def _(b: Branch) -> Want:
    b.pick("const", line=f"(cherry picked from commit {b.world.ups['const'].oid[:8]})\n")
    return Want([MATCH], ["short-hash"], code=1)


def mbox(b: Branch, *versions: tuple[int, list[str], bytes, bytes]) -> tuple[str, str]:
    """The posted series: version, patches, and what is replaced in it."""
    out = b""
    for version, names, old, now in versions:
        for n, name in enumerate(names, 1):
            raw = b.world.up.git("format-patch", "--stdout", "-1",
                                 f"--subject-prefix=PATCH v{version} {n}/{len(names)}", b.world.ups[name].oid)
            raw = raw.replace(b"\nSubject:",
                              b"\nMessage-Id: <v%d-%d@x.example>\nReferences: <v%d-1@x.example>\nSubject:"
                              % (version, n, version), 1)
            out += raw.replace(old, now)
    path = b.world.local.path / f"{len(b.world.local.trees)}.mbox"
    path.write_bytes(out)
    return "--series", str(path)


def series_case(kind: str, name: str, picks: list[str], status: list[str], kinds: list[str],
                *versions: tuple[int, list[str], bytes, bytes],
                says: str = "") -> None:
    @case(kind, name)
    def build(b: Branch) -> Want:
        for p in picks:
            b.pick(p, line="")
        return Want(status, kinds, code=int(kind == "defect"), args=mbox(b, *versions), says=says)


PAIR = ["const", "getter"]
series_case("honest", "a posted series, matched by subject", PAIR, [MATCH, MATCH], [], (6, PAIR, b"", b""))
series_case("honest", "the later of two posted versions", PAIR, [MATCH, MATCH], [],
            (6, PAIR, b"1000", b"900"), (7, PAIR, b"", b""))
series_case("defect", "a stale version of the series", PAIR, [MATCH, MATCH], ["stale"], (6, PAIR, b"", b""),
            (7, PAIR, b"1000", b"2000"), says="v7 (v7-1@x.example)")
series_case("defect", "a patch of the series missing", ["const"], [MATCH, "missing"], ["missing"],
            (6, PAIR, b"", b""))
series_case("defect", "a patch that is not in the series", [*PAIR, "include"], [MATCH, MATCH, "extra"],
            ["extra"], (6, PAIR, b"", b""))
series_case("defect", "a posted series reordered", PAIR[::-1], ["match", "reordered"], ["reordered"],
            (6, PAIR, b"", b""))


@case("honest", "a patch that is not in the series, and says why")
def _(b: Branch) -> Want:
    for name in PAIR:
        b.pick(name, line="")
    b.pick("include", line="", note="bob: this branch alone has no such header")
    return Want([MATCH, MATCH, "noted"], [], args=mbox(b, (6, PAIR, b"", b"")))


def without_case(kind: str, name: str, note: str) -> None:
    @case(kind, name)
    def build(b: Branch) -> Want:
        b.pick("const", line="", note=note)
        honest = kind == "honest"
        return Want([MATCH, "noted" if honest else "missing"], [] if honest else ["missing"],
                    code=int(not honest), args=mbox(b, (6, PAIR, b"", b"")))


GETTER = "foo: Read field 5 from the shadow"
without_case("honest", "a patch of the series that the branch goes without, and says why",
             f'bob: without "{GETTER}": this kernel has no shadow')
without_case("honest", "two such patches, after another reason",
             f'bob: the names are older; without "foo: Something" and "{GETTER}", as it has no shadow')
without_case("defect", "a patch of the series left out without a reason", f'bob: without "{GETTER}": ...')
without_case("defect", "another patch of the series left out", 'bob: without "foo: Read": has no shadow')
without_case("defect", "a missing patch that a note only quotes", f'bob: follows what "{GETTER}" has begun')
without_case("defect", "a missing patch, and a stranger's note", f'eve: without "{GETTER}": has no shadow')
without_case("defect", "a missing patch that is wanted", f'bob: does not work without "{GETTER}", be careful')


@case("defect", "a posted series squashed")
def _(b: Branch) -> Want:
    b.pick("const", both(b.world.ups["const"].edit, b.world.ups["getter"].edit), line="")
    return Want(["MISMATCH", "missing"], ["MISMATCH", "missing"], code=1, args=mbox(b, (6, PAIR, b"", b"")))


# --- more ways to be wrong, each beside the honest one ------------------------------------------------------

def of_file(b: Branch, path: str, *texts: str) -> str:
    """Upstream's file before and after, the branch's before and after."""
    return pair_of(b, *({path: (FILE, t.encode())} for t in texts))


NESTED = {"a.py": ("def a(x):\n    if x:\n        get()\n        put()\n    return 0\n",
                   "        put()\n", "        more()\n", "    more()\n"),
          "a.yaml": ("a:\n  get: 1\n  put: 2\nb: 3\n", "  put: 2\n", "  more: 4\n", "more: 4\n")}


def nested_case(truth: str, name: str, path: str, own: str, right: bool) -> None:
    @case(truth, f"{name}: {path}")
    def build(b: Branch) -> Want:
        text, after, there, astray = NESTED[path]
        up, here = (text.replace(after, after + line) for line in (there, there if right else astray))
        spec = of_file(b, path, text, up, own + text, own + here)
        return Want(["fine"], local=spec) if right else Want(["MISMATCH"], ["MISMATCH"], code=1, local=spec,
                                                             says="in another block")


for nest in NESTED:
    nested_case("defect", "moved to another block by its indentation alone", nest, "", False)
    nested_case("defect", "the same in a file that has lines of its own", nest, "# ours\n", False)
    nested_case("honest", "where indentation nests, upstream's", nest, "# ours\n", True)


@case("defect", "white space changed, and one of two twins")
def _(b: Branch) -> Want:
    local = of_blocks("function", "own1 own2", "own2")
    local["a.c"] = (FILE, local["a.c"][1].replace(b"\tmore", b"        more"))
    return Want(["ask a person"], ["ask a person"], code=1, local=pair_of(
        b, of_blocks("function", "vf"), of_blocks("function", "vf", "vf"),
        of_blocks("function", "own1 own2"), local))


def below(name: str, line: str) -> None:
    """What is no block stands above the change, elsewhere than upstream."""
    @case("honest", name)
    def build(b: Branch) -> Want:
        up, base = (f"int a(int x)\n{{\n out:\n\tfirst();\n{above}\tget();\n\tput();\n{after}"
                    "\treturn 0;\n}\n"
                    for above, after in (("", line + "\n"), (line + "\n", "")))
        return Want(["fine"], local=of_file(b, "a.c", up, up.replace("get();\n", "get();\n\tmore();\n"),
                                            base, base.replace("get();\n", "get();\n\tmore();\n")))


below("a directive above that stands elsewhere upstream", "#undef P")
below("a comment above that stands elsewhere upstream", "/* see the manual */")


@case("honest", "a comment between functions, below another one here")
def _(b: Branch) -> Want:
    note = "/*\n * What the next one does,\n * in words.\n */\nint last(void)\n{\n\treturn 1;\n}\n"
    up, base = (functions(*names).decode() + note for names in (("one", "two"), ("two", "one")))
    return Want(["fine"], local=of_file(b, "a.c", up, up.replace("does,\n", "does,\n * and why,\n"),
                                        base, base.replace("does,\n", "does,\n * and why,\n")))


@case("honest", "a line of a macro, below another prototype here")
def _(b: Branch) -> Want:
    macro = "#define MANY(x) \\\n\tone(x); \\\n\ttwo(x); \\\n\tthree(x)\n"
    first, second = (f"int {name}(int x,\n\tint y);\n" for name in "ab")
    up, base = first + second + macro, second + first + macro
    old, new = "two(x); \\\n", "two(x); \\\n\tmore(x); \\\n"
    return Want(["fine"], local=of_file(b, "a.c", up, up.replace(old, new), base, base.replace(old, new)))


@case("honest", "an #if block in a header without a guard here")
def _(b: Branch) -> Want:
    base = "#ifdef B\nint b(void);\nint c(void);\n#else\n#define b() 0\n#endif\n"
    up = f"#ifndef A_H\n#define A_H\n\n{base}\n#endif\n"
    return Want(["fine"], local=of_file(b, "a.h", up, up.replace("b(void);\n", "b(void);\nint d(void);\n"),
                                        base, base.replace("b(void);\n", "b(void);\nint d(void);\n")))


@case("honest", "an #else below another line here")
def _(b: Branch) -> Want:
    texts = [f"#ifdef B\n{kind}int b(void);\n#else\nint c(void);\nint d(void);\n#endif\n"
             f"#ifdef C\n{other}int b(void);\n#else\nint x;\n#endif\n"
             for kind, other in (("", "static "), ("static ", ""))]
    up, base = texts
    old, new = "int c(void);\n", "int c(void);\nint more(void);\n"
    return Want(["fine"], local=of_file(b, "a.h", up, up.replace(old, new), base, base.replace(old, new)))


@case("defect", "a hunk in the #else of its #if")
def _(b: Branch) -> Want:
    text = "int a(void)\n{\n#ifdef A\n\tget();\n\tput();\n#else\n\tget();\n\tput();\n#endif\n}\n"
    first, second = (text.replace(f"{x}\n\tget();\n", f"{x}\n\tget();\n\tmore();\n")
                     for x in ("#ifdef A", "#else"))
    return Want(["MISMATCH"], ["MISMATCH"], code=1, local=of_file(
        b, "a.c", text, first, "/* ours */\n" + text, "/* ours */\n" + second))


def lost_line(truth: str, what: str, kind: str, at: str) -> None:
    """Upstream removes a line of vf; the branch has a twin with the same one."""
    @case(truth, f"{what}: {kind}")
    def build(b: Branch) -> Want:
        bad = [] if truth == "honest" else ["MISMATCH"]
        return Want(bad or ["fine"], bad, code=len(bad), local=pair_of(
            b, of_blocks(kind, "vf", "vf"), of_blocks(kind, "vf"),
            of_blocks(kind, "vf own", "vf own"), of_blocks(kind, "vf own", at)))


for block in ("function", "case", "#if block", "struct"):
    lost_line("defect", "a line removed from the twin", block, "vf")
    lost_line("honest", "a line removed beside a twin", block, "own")


@case("defect", "one of three equal steps, where upstream has two")
def _(b: Branch) -> Want:
    step = "\tif (step())\n\t\treturn 1;\n"
    up, here = (f"int a(void)\n{{\n{step * n}{{}}\treturn 0;\n}}\n".replace("{}", "%s") for n in (2, 3))
    late = here.replace(step * 3, step * 2 + "\tmore();\n" + step)
    return Want(["ask a person"], ["ask a person"], code=1, local=of_file(
        b, "a.c", up % "", up.replace(step * 2, step + "\tmore();\n" + step) % "", here % "", late % ""))


@case("defect", "a link that is a plain file here")
def _(b: Branch) -> Want:
    c = b.world.branch({**b.tree, "current": (FILE, b"drivers/foo")})
    c.pick("link", put("current", "drivers/foo2"))
    return Want(["MISMATCH"], ["MISMATCH"], code=1, local=c.range())


def removed(truth: str, name: str, data: bytes, status: str) -> None:
    @case(truth, name)
    def build(b: Branch) -> Want:
        c = b.world.branch({**b.tree, "scripts/foo.sh": (FILE, data)})
        c.pick("rmfile")
        bad = [] if truth == "honest" else [status]
        return Want([status], bad, code=len(bad), local=c.range())


removed("defect", "a removed file that was quite another one here", b"all of it\nis of our own\n",
        "ask a person")
removed("honest", "a removed file that had a line of the branch's own",
        b"#!/bin/sh\nset -e\necho foo\necho ours\n", "context")


def twice(truth: str, name: str, second: str, kinds: list[str]) -> None:
    """A pick of mainline's, then one of stable's."""
    @case(truth, name)
    def build(b: Branch) -> Want:
        w = b.world
        u, tree = w.ups[second], dict(w.up.trees[w.refactored])
        u.edit(tree)
        text = u.message.replace("\n\n", f"\n\n[ Upstream commit {u.oid} ]\n\n", 1) \
            + f"Signed-off-by: {MIKE}\n"
        stable = w.up.commit(tree, text, [w.refactored])
        w.up.ref(f"tags/v{len(w.up.trees)}", stable)
        b.pick("include")
        b.commit(text + f"(cherry picked from commit {stable})\nSigned-off-by: {BOB}\n", u.edit)
        return Want(["fine", "fine"], kinds, code=len(kinds))


twice("defect", "picked from mainline and again from stable", "include", ["duplicate"])
twice("honest", "one picked from mainline, another from stable", "getter", [])


def merge_said(truth: str, name: str, body: str) -> None:
    @case(truth, name)
    def build(b: Branch) -> Want:
        w = b.world
        u, side = w.ups["docs"], dict(b.tree)
        u.edit(side)
        text = u.message + f"(cherry picked from commit {u.oid})\nSigned-off-by: {BOB}\n"
        other = w.local.commit(side, text, [b.base], committer=BOB)
        b.pick("const")
        u.edit(b.tree)
        said = message("Merge branch 'docs'", body.format(w.ups["getter"].oid), signed=(BOB,))
        b.commit(said,
                 parents=[b.parents[0], other])
        return Want(sorted([MATCH, MATCH, "N/A"]), ["merge"] if truth == "defect" else [], code=0)


merge_said("defect", "a merge that says it was picked", "(cherry picked from commit {})")
merge_said("honest", "a merge that lists what it brings", "* docs:\n  foo: Say more about errors")

NO_HEADER = both(sub(C, "static int foo_reset(", ADOPT + "static int foo_reset("),
                 sub(C, "\tret = foo_reset(foo);\n",
                     "\tret = foo_adopt(foo);\n\tif (ret)\n\t\tret = foo_reset(foo);\n"))
defect("a note about one file, and a difference in another", "adopt", "MISMATCH", ["MISMATCH"],
       edit=NO_HEADER, note="bob: foo.c has slower silicon")
honest("a note about the file that differs", "adopt", "noted", edit=NO_HEADER,
       note="bob: foo.h is not public here")
honest("a note that names a version and a member", "const", "noted", edit=BAD_CONST,
       note="bob: 6.12.y has foo.base, and slower silicon")
note_case("defect", "a note of context alone over a changed line", "[bob: adjusted the context]")
note_case("defect", "a note of a clean pick over a changed line", "[bob: minor conflicts resolved]")
note_case("honest", "a note of context and of the change", "[bob: adjusted context, and wait longer here]")
said_case("defect", "SAUCE under upstream's subject, with another constant", unnamed, ["unclaimed"],
          status="N/A", local="UBUNTU: SAUCE: foo: Wait longer", edit=BAD_CONST)
said_case("honest", "SAUCE under upstream's subject, and noted",
          lambda m, h: unnamed(m, h).replace(B, f"[bob: a workaround, not that change]\n{B}"), [],
          status="N/A", local="UBUNTU: SAUCE: foo: Wait longer", edit=BAD_CONST)


@case("honest", "SAUCE carried over from an earlier branch")
def _(b: Branch) -> Want:
    w, edit = b.world, sub(C, "FOO_RETRIES\t3", "FOO_RETRIES\t7")
    text = message("UBUNTU: SAUCE: foo: Try harder", signed=(BOB,))
    tree = dict(w.up.trees[w.tip])
    edit(tree)
    w.up.ref(f"tags/v{len(w.up.trees)}", w.up.commit(tree, text, [w.tip]))
    b.commit(text, edit)
    return Want(["N/A"])


@case("defect", "two lines of two functions put into one")
def _(b: Branch) -> Want:
    up = functions("one", "two", "three").decode()
    right = up.replace("\ta = one_x();\n", "\ta = one_x();\n\tb();\n").replace(
        "\ta = two_x();\n", "\ta = two_x();\n\tc();\n")
    astray = up.replace("\ta = two_x();\n", "\ta = two_x();\n\tb();\n\tc();\n")
    return Want(["MISMATCH"], ["MISMATCH"], code=1, says="in 'int two(void)' instead of 'int one(void)'",
                local=of_file(b, "a.c", up, right, up, astray))


@case("defect", "two lines of one function put together")
def _(b: Branch) -> Want:
    up = functions("one", "two").decode()
    right = up.replace("\ta = one_x();\n", "\ta = one_x();\n\tb();\n").replace(
        "\treturn 0;\n", "\tc();\n\treturn 0;\n", 1).replace("\ta = two_x();\n", "\ta = two_x();\n\td();\n")
    astray = right.replace("\tc();\n", "").replace("\tb();\n", "\tb();\n\tc();\n")
    return Want(["MISMATCH"], ["MISMATCH"], code=1, says="at another place (line 8)",
                local=of_file(b, "a.c", up, right, up, astray))


said_case("defect", "a forged tag with a look-alike hyphen",
          lambda m, h: m.replace("Acked-by", "Reviewed\u2010by: Eve <eve@x.example>\nAcked-by"), ["tag"])
said_case("honest", "a dash in the backporter's text",
          lambda m, h: m.replace("is slow.\n", "is slow.\n\nDone by \u2010 and for \u2010 us: always.\n"), [])
said_case("defect", "upstream's author signs again in the backporter's place",
          lambda m, h: m.replace(B, A), ["sob-own"])
said_case("defect", "a sign-off without an address", lambda m, h: m.replace(B, "Signed-off-by: Bob\n"),
          ["sob-own"])
said_case("honest", "a sign-off with another name and address",
          lambda m, h: m.replace(B, "Signed-off-by: Ren\u00e9 D. <rd@distro.example>\n"), [])


def noted_revert(truth: str, name: str, edit: Edit) -> None:
    @case(truth, name)
    def build(b: Branch) -> Want:
        first = b.pick("adopt")
        b.commit(f'Revert "foo: Adopt a running device"\n\nThis reverts commit {first}.\n\n'
                 f"[bob: the header stays, others use it]\nSigned-off-by: {BOB}\n", edit)
        bad = ["revert"] if truth == "defect" else []
        return Want(["context", "N/A"], bad, code=len(bad))


noted_revert("defect", "a noted revert that changes other files", put("x", "y\n"))
noted_revert("honest", "a noted revert that keeps a part",
             both(sub(C, ADOPT, ""),
                  sub(C, "\tret = foo_adopt(foo);\n\tif (ret)\n\t\tret = foo_reset(foo);\n",
                      "\tret = foo_reset(foo);\n")))
defect("conflict markers under a note", "const", "noted", ["conflict"], note="bob: larger for our silicon",
       edit=sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t1000\n<<<<<<< HEAD\n"))


@case("honest", "a text about conflict markers, and noted")
def _(b: Branch) -> Want:
    w, text = b.world, "Conflicts\n\n<<<<<<< HEAD\nours\n"
    tree = {**w.up.trees[w.tip], "a.txt": (FILE, text.encode())}
    up = w.up.commit(tree, message("a: Say what a conflict is"), [w.tip])
    w.up.ref(f"tags/v{len(w.up.trees)}", up)
    b.commit(message("a: Say what a conflict is") + f"(cherry picked from commit {up})\n"
             f"[bob: theirs is of use here]\nSigned-off-by: {BOB}\n", put("a.txt", text + "theirs\n"))
    return Want(["noted"])


def release(truth: str, name: str, edit: Edit) -> None:
    @case(truth, name)
    def build(b: Branch) -> Want:
        both(put("Makefile", "SUBLEVEL = 6\n"), put("VERSION", "6.12.6\n"))(b.tree)
        c = b.world.branch(b.tree)
        c.commit(message("Linux 6.12.7", signed=(BOB,)),
                 both(put("Makefile", "SUBLEVEL = 7\n"), put("VERSION", "6.12.7\n"), edit))
        status = "ask a person" if truth == "defect" else "N/A"
        return Want([status], [status] * (truth == "defect"), code=int(truth == "defect"),
                    args=("--exempt", r"^Linux \d"), local=c.range())


release("defect", "a release commit that changes code", BAD_CONST)
release("honest", "a release commit that stamps two files", lambda t: None)


@case("defect", "a pick that calls itself a revert")
def _(b: Branch) -> Want:
    b.pick("const", subject='Revert "foo: Wait longer"')
    return Want(["N/A"], ["revert"], code=1)


@case("defect", "an intermediate commit that the reference lacks")
def _(b: Branch) -> Want:
    u = b.world.ups["const"]
    b.pick("const", line=f"(cherry picked from commit {u.oid})\n(cherry picked from commit {'dead' * 10})\n")
    return Want(["unresolved"], ["unresolved"], code=1, says="in between")


defect("a rename whose edit is lost", "rename", "MISMATCH", ["MISMATCH"],
       edit=both(lambda t: t.__setitem__("Documentation/devices/foo.rst", t["Documentation/foo.rst"]),
                 drop("Documentation/foo.rst")))


# --- the run ---------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    w = World(tmp_path_factory.mktemp("mutations"))
    w.twins = twins(w)                      # type: ignore[attr-defined]
    return w


def twins(w: World) -> list[str]:
    """Two commits whose names start with the same seven digits."""
    import hashlib
    tree = w.up.tree({"x": (FILE, b"x")})
    seen: dict[str, bytes] = {}
    n = 0
    while True:
        raw = f"tree {tree}\nauthor a <a@b> {n} +0000\ncommitter a <a@b> 1 +0000\n\ntwin {n}\n".encode()
        oid = hashlib.sha1(b"commit %d\0" % len(raw) + raw).hexdigest()
        if oid[:7] in seen:
            return [w.up.write("commit", raw), w.up.write("commit", seen[oid[:7]])]
        seen[oid[:7]] = raw
        n += 1


@pytest.mark.parametrize("name", list(CASES))
def test_case(world: World, name: str) -> None:
    kind, build = CASES[name]
    b = world.branch()
    want = build(b)
    begin = time.monotonic()
    r = run("compare", "-C", str(world.local.path), "--reference", str(world.up.path), *want.args,
            want.local or b.range())
    assert r.data, r.err
    assert not want.seconds or time.monotonic() - begin < want.seconds
    got = r.statuses()
    if "fine" in want.status:               # either will do
        got = ["fine" if s in (MATCH, "context") else s for s in got]
    kinds = r.kinds()
    if "red" in want.status:
        got, kinds = (["red" if s in ("MISMATCH", "ask a person") else s for s in x] for x in (got, kinds))
        kinds = sorted(set(kinds))
    if want.status == sorted(want.status):
        got = sorted(got) if sorted(got) == want.status else got
    TABLE[name] = kind, ", ".join(got), ", ".join(r.kinds()) or "-", False
    detail = r.out
    assert got == want.status, detail
    assert kinds == sorted(want.kinds), detail
    assert r.code == (want.code if want.code is not None else 0), detail
    first = r.rows()[0]
    if kind == "honest":
        assert all(s[1] in ("match", "N/A") and (s[2] == "N/A" or s[2].startswith("preserved"))
                   for s in r.rows()), detail
    if want.subject:
        assert first[1] == want.subject, detail
    if want.sob:
        assert first[2] == want.sob, detail
    if want.says:
        assert want.says in " ".join(f["text"] for f in r.data["findings"]), detail
    TABLE[name] = *TABLE[name][:3], True


HOSTILE = """
[diff]
algorithm = patience
noprefix = true
relative = true
ignoreSubmodules = all
renames = copies
external = false
[log]
showSignature = true
[core]
quotePath = true
abbrev = 4
autocrlf = true
[i18n]
logOutputEncoding = latin1
commitEncoding = latin1
[color]
ui = always
[format]
pretty = oneline
"""


def test_configuration_and_environment_do_not_decide(world: World, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(HOSTILE)
    below = world.local.path / "Documentation"
    below.mkdir(exist_ok=True)
    env = {"GIT_CONFIG_GLOBAL": str(tmp_path / "config"), "GIT_DIR": str(world.local.dir)}
    b = world.branch()
    for name in ("sibling", "rename", "quoted", "binary", "latin", "mode", "module"):
        b.pick(name)
    argv = ("-C", str(below), "--reference", str(world.up.path))
    r = run("compare", *argv, b.range(), env=env)
    assert (sorted(r.statuses()), r.code) == (["context"] + [MATCH] * 6, 0), r.out
    for edit in (put("lib/sub", "9" * 40, MODULE), sub(C, "FOO_RETRIES\t3", "FOO_RETRIES\t9")):
        b = world.branch()
        merged(b, edit)
        r = run("compare", *argv, b.range(), env=env)
        assert (r.kinds(), r.code) == (["merge"], 1), r.out
    # a hook's GIT_DIR does not make the branch's repository the reference
    b = world.branch()
    own = b.pick("const")
    world.local.ref("heads/other", own)
    c = world.branch()
    c.pick("const", line=f"(cherry picked from commit {own})\n")
    assert run("compare", *argv, c.range(), env=env).statuses() == ["unresolved"]


@pytest.mark.parametrize("what", ["-merge", "merge=binary", "binary", "merge=mine"])
@pytest.mark.parametrize("where", ["info", "work tree", "home"])
def test_attributes_and_drivers_hide_no_merge(world: World, tmp_path: Path, what: str, where: str) -> None:
    """A merge that drops a pick, one that adds a line, and an honest one, of two changes of one file."""
    (tmp_path / "config").write_text(
        f'[merge "mine"]\n\tdriver = true\n[core]\n\tattributesFile = {tmp_path}/home\n')
    path = {"info": world.local.dir / "info/attributes", "work tree": world.local.path / ".gitattributes",
            "home": tmp_path / "home"}[where]
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"* {what}\n")
    got = []
    try:
        for edit in (None, sub(C, "FOO_RETRIES\t3", "FOO_RETRIES\t9"),
                     sub(C, "\t\treturn foo->shadow;\n", "\t\treturn 0;\n")):
            b = world.branch()
            merged(b, edit, sides=("getter",))
            r = run("compare", "-C", str(world.local.path), "--reference", str(world.up.path), b.range(),
                    env={"GIT_CONFIG_GLOBAL": str(tmp_path / "config")})
            got.append((r.kinds(), r.code))
    finally:
        path.unlink()
    assert got == [([], 0), (["merge"], 1), (["merge"], 1)]


def test_grafts_and_replacements_hide_nothing(world: World) -> None:
    b = world.branch()
    b.pick("const", line=f"(cherry picked from commit {world.stray})\n")
    b.pick("docs", put("x", "y"))
    b.pick("getter")
    spec = b.range()
    files = {world.up.dir / "info/grafts": f"{world.tip} {world.stray}\n",
             world.local.dir / "info/grafts": f"{b.commits[2]} {b.commits[0]}\n",
             world.local.dir / "refs/replace" / b.commits[1]: f"{b.commits[0]}\n"}
    for path, text in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    try:
        r = run("compare", "-C", str(world.local.path), "--reference", str(world.up.path), spec)
    finally:
        for path in files:
            path.unlink()
    assert r.statuses() == ["unresolved", "MISMATCH", MATCH], r.out


def test_shallow_clones(world: World, tmp_path: Path) -> None:
    b = world.branch()
    for name in ("const", "getter", "docs"):
        b.pick(name)
    spec, clone = b.range(), tmp_path / "clone"
    git = ["git", "-c", "protocol.file.allow=always"]
    subprocess.run([*git, "clone", "-q", "--depth=2", "-b", "work", f"file://{world.local.path}", str(clone)],
                   check=True)
    argv = ("compare", "-C", str(clone), "--reference", str(world.up.path), spec)
    r = run(*argv)
    assert r.code == 2 and "--unshallow" in r.err
    subprocess.run([*git, "-C", str(clone), "fetch", "-q", "--depth=1", "origin", "master:base"], check=True)
    r = run(*argv)
    assert r.code == 3 and "is shallow" in r.err and "--unshallow" in r.err


# --- git that fails, hangs, lies or is killed half-way: never green ---------------------------------

FAULTS = {
    "is not there": "exit 127",
    "fails at once": "exit 128",
    "fails at rev-list": 'case "$*" in *rev-list*) echo fatal: no >&2; exit 128;; esac',
    "fails at cat-file": 'case "$*" in *cat-file*) echo fatal: no >&2; exit 128;; esac',
    "hangs at rev-list": 'case "$*" in *rev-list*) exec sleep 60;; esac',
    "hangs at cat-file": 'case "$*" in *cat-file*) exec sleep 60;; esac',
    "prints nothing at rev-list": 'case "$*" in *rev-list*) exit 0;; esac',
    "leaves the first commit out":
        'case "$*" in *"rev-list --topo-order"*) $REAL "$@" | sed 2d; exit 0;; esac',
    "leaves the last commit out":
        'case "$*" in *"rev-list --topo-order"*) $REAL "$@" | sed "\\$d"; exit 0;; esac',
    "leaves one in the middle out":
        'case "$*" in *"rev-list --topo-order"*) $REAL "$@" | sed 3d; exit 0;; esac',
    "leaves the boundary out":
        'case "$*" in *"rev-list --topo-order"*) $REAL "$@" | grep -v "^-" | sed 1d; exit 0;; esac',
    "is killed in the list":
        'case "$*" in *"rev-list --topo-order"*) $REAL "$@" | head -n 1; kill -9 $$;; esac',
    "is killed in an object": 'case "$*" in *cat-file*) $REAL "$@" | head -c 700; kill -9 $$;; esac',
    "ends early in an object": 'case "$*" in *cat-file*) $REAL "$@" | head -c 700; exit 0;; esac',
    "gives other content":
        'case "$*" in *cat-file*) $REAL "$@" | LC_ALL=C sed -u "s/FOO_TIMEOUT/FOO_TIMEOVT/"; exit 0;; esac',
    "gives another message":
        'case "$*" in *cat-file*) $REAL "$@" | LC_ALL=C sed -u "s/Alice/Aline/"; exit 0;; esac',
    "calls everything missing":
        'case "$*" in *cat-file*) while read x; do echo "$x missing"; done; exit 0;; esac',
    "calls everything ambiguous":
        'case "$*" in *cat-file*) while read x; do echo "$x ambiguous"; done; exit 0;; esac',
    "talks nonsense": 'case "$*" in *cat-file*) while read x; do echo "hello world"; done; exit 0;; esac',
    "fails at merge histories": 'case "$*" in *"rev-list --stdin"*) exit 1;; esac',
    "prints nothing at merge histories": 'case "$*" in *"rev-list --stdin"*) exit 0;; esac',
    "is killed in merge histories":
        'case "$*" in *"rev-list --stdin"*) $REAL "$@" | head -c 20; exit 0;; esac',
    "fails at refs": 'case "$*" in *for-each-ref*) exit 1;; esac',
}


@pytest.mark.parametrize("name", FAULTS)
def test_bad_git_is_never_green(world: World, tmp_path: Path, name: str) -> None:
    b = world.branch()
    for n in ("const", "sibling", "docs"):
        b.pick(n)
    argv = ("compare", "-C", str(world.local.path), "--reference", str(world.up.path), b.range())
    r = run(*argv, env={**fake_git(tmp_path / "bin", FAULTS[name]), "LINT_TIMEOUT": "2"})
    TABLE[f"git {name}"] = "git", f"exit {r.code}", "error" if r.err.startswith("error: ") else "-", False
    assert r.code == (2 if "missing" in name or "ambiguous" in name else 3), (r.code, r.out, r.err)
    assert r.err.startswith("error: ") and "; next: " in r.err and "Traceback" not in r.err, r.err
    assert '"match"' not in r.out
    command = re.search(r"fails at (\S+-\S+)", name)
    assert not command or f"git {command[1]} failed" in r.err, r.err
    TABLE[f"git {name}"] = *TABLE[f"git {name}"][:3], True


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Shows what was caught and what passed, kind by kind."""
    with capsys.disabled():
        print()
        wide = max([len(n) for n in TABLE] or [0])
        for name, (kind, status, found, good) in sorted(TABLE.items(), key=lambda x: x[1][0]):
            print(f"  {kind:7} {name:{wide}}  {status:24} {found:28} {'ok' if good else 'WRONG'}")
        for kind, text in (("defect", "kinds of defect got their exact status"),
                           ("honest", "kinds of honest backport passed without a finding"),
                           ("git", "kinds of bad git ended in an error")):
            print(f"  {sum(t[3] for t in TABLE.values() if t[0] == kind)} of "
                  f"{sum(t[0] == kind for t in TABLE.values())} {text}")
    assert sum(k == "defect" for k, _ in CASES.values()) >= 40
    assert sum(k == "honest" for k, _ in CASES.values()) >= 40
