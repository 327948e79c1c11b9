# SPDX-License-Identifier: GPL-2.0-only
"""What each local commit comes from: by its provenance lines, else by its subject in a series."""
from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from . import message as msg
from .gitio import Ambiguous, FetchFailed, Git
from .patches import Patch, of_commit
from .rows import EXTRA, NOTED, REMEDY, Row
from .series import Posted, Series, by_subject


class Target(NamedTuple):
    """What one provenance line leads to."""
    origin: msg.Origin
    up: Patch | None
    why: str                    # why there is none

    def said(self) -> str:
        return self.origin.hash or self.origin.link


class Pairing:
    """Pairs the commits of one branch with their references."""

    def __init__(self, reference: Git | None, posted: Posted, chosen: Sequence[Series], exempt: str = ""
                 ) -> None:
        self.exempt = exempt            # subjects that need no origin
        self.reference = reference
        self.posted = posted
        self.chosen = chosen            # of each series the version that the branch carries
        self.taken: set[int] = set()    # the series' patches that have their local one

    def rows(self, local: Sequence[Patch]) -> list[Row]:
        """A row for each local commit."""
        if self.reference:
            self.reference.load_commits({o.hash for p in local for o in msg.origins(p.message, p.headers)
                                         if len(o.hash) in (40, 64)})
        rows = []
        for p in local:
            row = Row(p)
            rows.append(row)
            if p.commit and len(p.commit.parents) > 1:
                row.kind = "merge"
                continue
            try:
                self.pair(row, p)
            except FetchFailed as e:
                row.fetch_failed(e)
            self.taken.add(id(row.up))
        return rows

    def refuse_unmerged(self, rows: Sequence[Row], mainline: Sequence[str], alone: bool) -> None:
        """What upstream never merged is no origin; `alone`: the branch is in the reference itself."""
        named = [(row.up.commit.oid, row) for row in rows if row.up and row.up.commit]
        if not named or not self.reference:
            return
        mine = {row.local.commit.oid for row in rows if row.local and row.local.commit}    # no origins
        given = {p.commit.oid for s in self.posted.series for p in s.patches if p.commit}
        unmerged = self.reference.outside({oid for oid, _ in named} - given,
                                          self.reference.mainline_tips(mainline, alone, tags=True))
        for oid, row in named:
            why = ""
            if oid in mine:
                why = f"{oid[:12]} is a commit of this very branch"
            elif oid in unmerged:
                why = f"{oid[:12]} exists, but upstream's history does not have it: it was never merged"
            if why:
                row.up, row.named = None, oid[:12]
                row.unresolved(why)

    def pair(self, row: Row, p: Patch) -> None:
        """Find the upstream patch of a row, or say why there is none."""
        subject = msg.bare(p.subject)
        same = next((t for s in self.chosen for t in s.patches
                     if id(t) not in self.taken and msg.bare(t.subject) == subject), None) \
            or next((t for s in self.chosen if (t := by_subject(s.patches, p.subject))), None)
        targets = [Target(o, *self.lookup(o, p)) for o in msg.origins(p.message, p.headers)]
        # a revert may quote what it reverts, with its provenance
        targets = [t for t in targets if not (t.up and msg.quotes(p.subject, t.up.subject))]
        known = [line for t in targets if t.up for line in msg.body_lines(t.up.message)]
        if not msg.undone(p.subject) and (odd := [
                x for x in msg.unread(p.message, p.headers) if x not in known]):
            row.named = targets[0].said()[:12] if targets else ""
            row.unresolved(f"a provenance line that cannot be read: {odd[0]!r}",
                           "write it as `(cherry picked from commit HASH)`, at the start of its line")
        elif targets:
            self.pair_named(row, targets, same)
        else:
            self.pair_unnamed(row, p, same)

    def pair_unnamed(self, row: Row, p: Patch, same: Patch | None) -> None:
        """A commit that names no origin; `same`: a posted patch of its subject."""
        sauce, revert = msg.SAUCE.match(p.subject), msg.undone(p.subject)
        if same and not revert:
            row.up = same
        elif any(not c.isalpha() for c in msg.odd(p.subject.partition(": ")[0])):
            row.unresolved("the subject starts with characters that cannot be seen or told apart",
                           "write its marks in ASCII")
        elif not revert and msg.like_sauce(p.subject):
            row.unresolved("SAUCE stands behind another prefix than the distribution's, or is not written so",
                           "start the subject with `SAUCE: ` or, say, `UBUNTU: SAUCE: `")
        elif sauce or msg.UBUNTU.match(p.subject) or revert:
            row.kind = "revert" if revert else "sauce" if sauce else "ubuntu"
        elif self.exempt and re.search(self.exempt, p.subject):
            row.kind = "exempt"
        elif self.chosen and (why := msg.notes(p.message)):
            row.status, row.named = NOTED, "not in the reference"
            row.note = " ".join(text for _, text in why)
        elif self.chosen:
            row.status, row.named = EXTRA, "not in the reference"
            row.add(EXTRA, "no patch of the reference has this subject, and the message names no upstream "
                           "commit",
                    REMEDY[EXTRA])
        else:
            row.unresolved("the message names no upstream commit")

    def pair_named(self, row: Row, targets: Sequence[Target], same: Patch | None) -> None:
        """A commit with provenance lines."""
        # what the named commit's own message says was inherited with it
        own = [t for t in targets if not any(u.up is not None and u.up is not t.up and says(u.up, t)
                                             for u in targets)] or targets
        if len({t.up.key() if t.up else t.said() for t in own}) > 1:
            row.named = ", ".join(t.said()[:12] for t in own)
            if (lost := [t for t in own if t.up is None]) and len(lost) < len(own):
                row.unresolved(f"{lost[0].why}: nothing tells whether it stands in between, or is another "
                               "origin")
                return
            row.unresolved((f"{lost[0].why}; and " if lost else "")
                           + f"{len(own)} provenance lines name different origins: "
                           + ", ".join(t.origin.text for t in own),
                           "keep one commit a pick: split it, or name the one it comes from and mention the "
                           "other in "
                           "a `[name: why]` line")
            return
        last = own[-1]
        row.origin = last.origin
        row.up = next((t.up for t in reversed(own) if t.up), None)
        if row.up is None and same and all(says(same, t) for t in own):
            row.up = same               # the reference says the same of itself
        elif row.up is None and same and not self.posted.mails and not any(t.origin.hash for t in own):
            row.up = same
            row.add("link", f"compared by subject: {last.why}",
                    "give the thread that it links to with --series or --fetch", "warning")
        elif row.up is None:
            row.named = last.said()[:60]
            row.unresolved(last.why)
        short = last.origin.hash
        if row.up and row.up.commit and short and len(short) < 12:
            row.add("short-hash", f"the provenance line has only {len(short)} digits of {row.up.commit.oid}",
                    "write the whole hash")
        if not last.origin.placed and not (row.up and says(row.up, last)):
            row.add("provenance-place", f"the provenance line stands in the middle of the text: "
                    f"{last.origin.text!r}",
                    "put it where its kind belongs: among the sign-offs, or at the top of the text")

    def lookup(self, o: msg.Origin, p: Patch) -> tuple[Patch | None, str]:
        """The patch that a provenance line names, or why it cannot be had."""
        if not o.hash:
            return self.posted.patch(o.link, p.subject)
        if self.reference is None:
            return None, f"{o.hash[:12]}: no reference repository is given"
        try:
            oid = self.reference.resolve(o.hash)
        except Ambiguous:
            return None, (f"{o.hash} is ambiguous in {self.reference.path}: more than one commit starts with "
                          "it, or a branch has that name")
        if oid is None:
            return None, f"{self.reference.path} has no commit {o.hash[:40]}"
        return of_commit(self.reference, oid), ""


def says(up: Patch, target: Target) -> bool:
    """Whether a message has a provenance line itself."""
    return target.origin.text in [o.text for o in msg.origins(up.message, up.headers)]
