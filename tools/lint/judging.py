# SPDX-License-Identifier: GPL-2.0-only
"""What a pair must keep to, and what a commit that has no counterpart must."""
from __future__ import annotations

from collections.abc import Sequence

from . import message as msg
from .compare import ASK, CONTEXT, MATCH, MISMATCH, UNPROVEN, WHITESPACE, Verdict, compare
from .gitio import Ambiguous, FetchFailed, Git
from .patches import FileChange, Patch, of_commit
from .rows import NOTED, REMEDY, Row


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
            stands, astray = noted(p, up, low, signed)
            if stands and not p.broken and not up.broken:
                row.status = NOTED
            else:
                text = "; ".join(r for r in row.verdict.reasons if not r.startswith("context: ")) or "differs"
                if astray:
                    text += f" (a note stands in the wrong place: {astray})"
                row.add(row.status, text, REMEDY[row.status])
        row.subject = msg.compare_subjects(p.subject, up.subject)
        if row.subject == "MISMATCH":
            row.add("subject", f"the subject is not upstream's: {up.subject!r}", "restore it")
        elif row.subject != "match":
            row.add("subject", f"the subject differs from upstream's by {row.subject}: {up.subject!r}",
                    "restore it",
                    "warning")
        signatures(row, chain, signed)
        if up.author and p.author and up.author.email.casefold() != p.author.email.casefold() \
                and up.author.name.casefold() != p.author.name.casefold():
            row.add("author", f"the author is {p.author}, upstream's is {up.author}",
                    "keep the author (git commit --amend --author)")

    def alone(self, row: Row, p: Patch) -> None:
        """A SAUCE or UBUNTU commit, or a revert, that names no origin."""
        if not msg.sign_offs(p.message):
            name = row.kind if row.kind == "revert" else row.kind.upper()
            row.add("sob-none", f"a {name} commit without any Signed-off-by", "sign it off")
        if row.kind == "revert":
            self.revert(row, p)

    def revert(self, row: Row, p: Patch) -> None:
        """A revert is the inverse of a commit that the branch has."""
        quoted = msg.REVERT.match(p.subject)
        hashes = [h for h, _ in msg.reverted(p.message)]
        why = "the message does not say which commit it reverts"
        old = None
        if hashes:
            why = f"{hashes[0][:12]} is not in this branch"
            old = self.in_branch(hashes[0], p)
        if old is None and quoted and not (p.commit and hashes):
            old = next((q for q in self.local if q is not p and q.subject == quoted["subject"]), None)
        if old is None:
            row.add("revert", why, "name it: `This reverts commit <hash>.`")
            return
        if quoted and msg.bare(quoted["subject"]) != msg.bare(old.subject):
            row.add("revert", f"reverts {old.name}, whose subject is {old.subject!r}",
                    "correct the subject or the hash")
        if msg.notes(p.message):
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
        if any(q.commit and q.commit.oid == oid for q in self.local) or \
                (p.commit and self.git.ancestor(oid, p.commit.oid)):
            return of_commit(self.git, oid)
        return None


def merges(git: Git, rows: Sequence[Row]) -> None:
    """Merges bring nothing that merging by machine does not."""
    sizes = {row.local.commit.oid: len(row.local.commit.parents) for row in rows if row.local
             and row.local.commit}
    two = [oid for oid, parents in sizes.items() if parents == 2]
    odd = git.merge_leftovers(two) if two else set()
    for row in rows:
        oid = row.local.key() if row.local else ""
        if sizes[oid] > 2:
            row.add("merge", "a merge of more than two parents cannot be repeated by machine",
                    "merge one branch after the other")
        elif oid in odd:
            row.add("merge", "the merge changes more than merging its parents by machine does",
                    "take the change out into a commit of its own, or rebase instead of merging")


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
    if row.origin and row.origin.below:
        early = [who for at, who in signed if chain.last < at < row.origin.line and who not in edited]
        if early:
            row.add("provenance-place",
                    f"the provenance line stands below {msg.name_of(early[0])}'s Signed-off-by",
                    "put it above: who signs off, signs for what it says")


def noted(p: Patch, up: Patch, low: int, signed: Sequence[tuple[int, str]]) -> tuple[bool, str]:
    """Whether a note of the backporter's stands below line `low` and above who signs for it; else one
    that stands elsewhere.
    """
    old = {text for _, text in msg.notes(up.message)}
    mine = [(at, text) for at, text in msg.notes(p.message) if text not in old]
    final = signed[-1][0] if signed else len(msg.body_lines(p.message))     # a queue that nobody signs yet
    if any(low < at < final for at, _ in mine):
        return True, ""
    return False, mine[0][1] if mine else ""


def turned(f: FileChange) -> FileChange:
    """The inverse."""
    c = f.sides()
    return FileChange(f.new_path, f.old_path, f.new_mode, f.old_mode, f.new_oid, f.old_oid,
                      contents=(c[1], c[0]) if c else None, opaque=f.opaque)
