# SPDX-License-Identifier: GPL-2.0-only
"""What a pair must keep to, and what a commit that has no counterpart must."""
from __future__ import annotations

import os.path
import re
from collections import Counter
from collections.abc import Sequence

from . import message as msg
from .compare import (ASK, CONTEXT, MATCH, MISMATCH, UNPROVEN, WHITESPACE, Verdict, compare, interdiff,
                      markers, show)
from .gitio import Ambiguous, FetchFailed, Git, Person
from .patches import FileChange, Patch, of_commit
from .rows import NOTED, REMEDY, Row

VERSION = re.compile(r"\d+(\.\d+)+")     # [6.12: why]: a note of whoever signed, for that kernel


class Judge:
    """Judges the rows of one branch."""

    def __init__(self, git: Git | None, local: Sequence[Patch]) -> None:
        self.git = git
        self.local = local
        self.verdicts: dict[tuple[str, str], Verdict] = {}

    def compare(self, up: Patch, local: Patch) -> Verdict:
        """Whether two changes are the same; looked into once."""
        key = (up.key() + up.name, local.key() + local.name)
        if key not in self.verdicts:
            self.verdicts[key] = compare(up, local)
        return self.verdicts[key]

    def pair(self, row: Row, p: Patch, up: Patch) -> None:
        """Everything that a local patch must keep of its original."""
        try:
            row.verdict = self.compare(up, p)
        except FetchFailed as e:
            row.fetch_failed(e)
            return
        row.status = row.verdict.status
        signed = msg.sign_offs(p.message)
        chain = msg.chain(signed, [who for _, who in msg.sign_offs(up.message)])
        if row.status in (ASK, WHITESPACE, MISMATCH, UNPROVEN):
            low = max(chain.last, row.origin.line if row.origin and row.origin.below else -1)
            stands, astray = noted(p, up, low, signed, chain.added, row.verdict)
            row.diff = interdiff(up, p)
            if stands and not p.broken and not up.broken:
                row.status, row.note = NOTED, astray
                unmerged(row, p, up)
            else:
                text = "; ".join(r for r in row.verdict.reasons if not r.startswith("context: ")) or "differs"
                if astray:
                    text += f" ({astray})"
                row.add(row.status, text, REMEDY[row.status])
        row.subject = msg.compare_subjects(p.subject, up.subject)
        if row.subject == "MISMATCH":
            row.add("subject", f"the subject is not upstream's: {up.subject!r}", "restore it")
        elif row.subject != "match":
            row.add("subject", f"the subject differs from upstream's by {row.subject}: {up.subject!r}",
                    "restore it", "warning")
        who = p.commit.committer if p.commit else None
        row.signs = bool(chain.added) or any(who and f"<{who.email}>" in x for _, x in signed)
        signatures(row, chain, signed)
        own_signature(row, chain, who, up)
        words(row, p, up, chain.last)
        if up.author and p.author and p.legible and (
                up.author.email.casefold() != p.author.email.casefold()
                or msg.squeeze(up.author.name) != msg.squeeze(p.author.name)):
            row.add("author", f"the author is {p.author}, upstream's is {up.author}",
                    "keep the author (git commit --amend --author)")

    def alone(self, row: Row, p: Patch) -> None:
        """A SAUCE or UBUNTU commit, or a revert, that names no origin."""
        if not msg.notes(p.message):
            unmerged(row, p)
        if not msg.sign_offs(p.message):
            name = row.kind if row.kind == "revert" else row.kind.upper()
            row.add("sob-none", f"a {name} commit without any Signed-off-by", "sign it off")
        if row.kind == "revert":
            self.revert(row, p)

    def revert(self, row: Row, p: Patch) -> None:
        """A revert is the inverse of a commit that the branch has."""
        quoted = msg.undone(p.subject)
        hashes = [h for h, _ in msg.reverted(p.message)]
        why = "the message does not say which commit it reverts"
        old = None
        if hashes:
            why = f"{hashes[0][:12]} is not in this branch"
            old = self.in_branch(hashes[0], p)
        if old is None and quoted and not (p.commit and hashes):
            old = next((q for q in self.local if q is not p and msg.told(q.subject) == msg.told(quoted)),
                       None)
        if old is None:
            row.add("revert", why, "name it: `This reverts commit <hash>.`")
            return
        if quoted and msg.told(quoted) != msg.told(old.subject):
            row.add("revert", f"reverts {old.name}, whose subject is {old.subject!r}",
                    "correct the subject or the hash")
        olds = [old, *(q for h in hashes[1:] if (q := self.in_branch(h, p)))]
        quoted_notes = {text for q in olds for _, text in msg.notes(q.message)}
        if said := [text for _, text in msg.notes(p.message) if text not in quoted_notes]:
            more = names(p) - set().union(*map(names, olds), *map(msg.files, said))
            if more:
                row.add("revert", f"changes {', '.join(sorted(more))}, which {old.name} did not",
                        "take it out into a commit of its own, or name it in the `[name: why]` line")
            return
        if len(hashes) > 1:
            row.add("revert", f"reverts {len(hashes)} commits at once: they cannot be compared",
                    "revert each in a commit of its own, or say in a `[name: why]` line why not")
            return
        back = Patch(old.name, old.subject, old.message, old.author, files=[turned(f) for f in old.changes()])
        verdict = compare(back, p)
        if verdict.status not in (MATCH, CONTEXT):
            row.add("revert", f"is not the inverse of {old.name}: {'; '.join(verdict.reasons)}",
                    "revert the whole commit, or say in a `[name: why]` line what is kept")

    def in_branch(self, name: str, p: Patch) -> Patch | None:
        """The commit of that hash, if the history of `p` has it."""
        try:
            oid = self.git.resolve(name) if self.git else None
        except Ambiguous:
            return None
        if not self.git or not oid:
            return None
        tip = p.commit.oid if p.commit else p.where.oid if p.where else ""
        if any(q.commit and q.commit.oid == oid for q in self.local) or tip and self.git.ancestor(oid, tip):
            return of_commit(self.git, oid)
        return None


def merges(git: Git, rows: Sequence[Row]) -> None:
    """Merges bring nothing that merging by machine does not."""
    sizes = {row.local.commit.oid: len(row.local.commit.parents) for row in rows if row.local
             and row.local.commit}
    two = [oid for oid, parents in sizes.items() if parents == 2]
    odd = git.odd_merges(two) if two else {}
    for row in rows:
        oid = row.local.key() if row.local else ""
        if sizes[oid] > 2:
            row.add("merge", "a merge of more than two parents cannot be repeated by machine",
                    "merge one branch after the other")
        elif failed := odd.get(oid):
            row.fetch_failed(failed)
        elif oid in odd:
            row.add("merge", "the merge changes more than merging its parents by machine does",
                    "take the change out into a commit of its own, or rebase instead of merging")
        elif row.local and (said := [o.text for o in msg.origins(row.local.message) if o.placed]):
            row.add("merge", f"a merge is no pick, but says so: {said[0]}",
                    "name an origin in the picks alone", "warning")


def signatures(row: Row, chain: msg.Chain, signed: Sequence[tuple[int, str]]) -> None:
    """Upstream's sign-offs are kept, and the provenance line stands above who signs for it."""
    row.sob = chain.cell()
    edited = {b: a for a in chain.missing for b in chain.added
              if msg.name_of(a) == msg.name_of(b) or a.split("<")[-1] == b.split("<")[-1]}
    if chain.missing:
        became = "; ".join(f"{a} became {b}" for b, a in edited.items())
        row.add("sob-missing", f"upstream's Signed-off-by is missing: {', '.join(chain.missing)}"
                + (f" (edited: {became})" if became else ""), "restore the line as upstream has it")
    elif not chain.ordered:
        row.add("sob-order", "the sign-offs are not in upstream's order, or one was put between them",
                "keep upstream's lines in their order and add yours below")
    if row.origin and row.origin.below and 0 <= row.origin.line < chain.last:
        row.add("provenance-place", "the provenance line stands above upstream's sign-offs",
                "put it below them, above your own Signed-off-by")
    if row.origin and row.origin.below:
        early = [who for at, who in signed if chain.last < at < row.origin.line and who not in edited]
        if early:
            row.add("provenance-place",
                    f"the provenance line stands below {msg.name_of(early[0])}'s Signed-off-by",
                    "put it above: who signs off, signs for what it says")


def own_signature(row: Row, chain: msg.Chain, committer: Person | None, up: Patch) -> None:
    """Whoever carried it over signs with a name and an address of their own."""
    bad = [x for x in chain.added if not re.search(r"\S.*<\S+@\S+>$", x)]
    again = {who for _, who in msg.sign_offs(up.message)}.issuperset(chain.added)
    if bad:
        row.add("sob-own", f"{bad[0]!r} signed off: that is no name with an address",
                "sign off as `Name <address>`")
    elif chain.added and again and committer and not any(
            f"<{committer.email}>" in x or msg.name_of(x) == committer.name for x in chain.added):
        row.add("sob-own", f"{msg.name_of(chain.added[0])}, who signed upstream, is signed again, but "
                f"{committer} committed it", "sign off as who carried it over (git commit --amend -s)")


def unmerged(row: Row, p: Patch, up: Patch | None = None) -> None:
    """No note excuses a conflict that was committed as git left it."""
    if left := markers(p) - (markers(up) if up else Counter()):
        row.add("conflict", f"it adds {len(left)} markers of a conflict: {show(min(left))}", "resolve it")


def words(row: Row, p: Patch, up: Patch, last: int) -> None:
    """What is said of other people and commits is upstream's; the backporter's own stands below."""
    theirs = [(name, value) for _, name, value in msg.tags(up.message)]
    low = max(last, row.origin.line if row.origin and row.origin.below else -1)
    mine = [(name, value) for _, name, value in msg.tags(p.message)]
    above = [(name, value) for at, name, value in msg.tags(p.message) if at < low]
    lost, forged = Counter(theirs) - Counter(mine), Counter(above) - Counter(theirs)
    if up.msgid and not up.commit:
        forged.clear()                  # tags are given to a posted patch later
    for (name, value), what in [*((t, "lacks") for t in lost), *((t, "adds") for t in forged)]:
        mild = name in ("cc", "link", "closes")
        row.add("tag", f"it {what} `{name.capitalize()}: {value}`" + " among upstream's" * (what == "adds"),
                "restore upstream's lines; your own stand below the provenance line",
                "warning" if mild else "error")
    if who := [w for w in msg.undeveloped(p.message) if w not in msg.undeveloped(up.message)]:
        row.add("co-developed", f"Co-developed-by without a Signed-off-by: {', '.join(who)}",
                "restore the line")
    if msg.prose(up.message) not in msg.prose(p.message):
        row.add("body", "the text is not upstream's", "restore it; say what differs in a `[name: why]` line",
                "warning")


def names(p: Patch) -> set[str]:
    """The changed files, without their directories."""
    return {os.path.basename(f.path()) for f in p.changes()}


def stranger(note: str, added: Sequence[str]) -> str:
    """Whose note it is, if that is none of those who signed the local patch; nobody may have yet."""
    who = note[1:].partition(":")[0].strip()
    return who if added and not (VERSION.fullmatch(who) or any(msg.signed_by(who, x) for x in added)) else ""


def left_out(p: Patch, up: Patch, absent: Patch) -> str:
    """The note in a patch of a series that says why the branch goes without another one of it, or ""."""
    added = msg.chain(msg.sign_offs(p.message), [who for _, who in msg.sign_offs(up.message)]).added
    old = {text for _, text in msg.notes(up.message)}
    return next((text for _, text in msg.notes(p.message) if text not in old and not stranger(text, added)
                 and msg.does_without(text, absent.subject)), "")


def noted(p: Patch, up: Patch, low: int, signed: Sequence[tuple[int, str]], added: Sequence[str],
          verdict: Verdict) -> tuple[bool, str]:
    """Whether a note of the backporter's covers what differs, stands below line `low` and above who signs
    for it; else what is wrong with one."""
    old = {text for _, text in msg.notes(up.message)}
    mine = [(at, text) for at, text in msg.notes(p.message) if text not in old]
    final = signed[-1][0] if signed else len(msg.body_lines(p.message))     # a queue that nobody signs yet
    differ = {os.path.basename(path) for path in verdict.paths}
    if up.changes() and not names(p) & names(up):
        return False, "a note does not cover another change" if mine else ""
    wrong = ""
    for at, text in mine:
        if not low < at < final:
            wrong = f"a note stands in the wrong place: {text}"
        elif who := stranger(text, added):
            wrong = f"a note by {who}, who did not sign off: {text}"
        elif verdict.status == MISMATCH and msg.of_context(text):
            wrong = f"a note of context alone, but changed lines differ: {text}"
        elif msg.files(text) and not msg.files(text) & differ:
            wrong = f"a note about another file than {', '.join(sorted(differ))}: {text}"
        else:
            return True, text
    return False, wrong


def turned(f: FileChange) -> FileChange:
    """The inverse."""
    c = f.sides()
    return FileChange(f.new_path, f.old_path, f.new_mode, f.old_mode, f.new_oid, f.old_oid,
                      contents=(c[1], c[0]) if c else None, opaque=f.opaque)
