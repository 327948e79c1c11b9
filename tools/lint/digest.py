# SPDX-License-Identifier: GPL-2.0-only
"""The digest: each local commit beside what it says it comes from, and what only shows in the whole."""
from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence

from . import message as msg
from .compare import ASK, CONTEXT, MATCH, compare, stamped, touching
from .diffing import rising
from .gitio import FetchFailed, Git, patch_ids
from .judging import Judge, left_out, merges
from .pairing import Pairing
from .patches import Patch, of_commit
from .render import BAD, DOUBT, GOOD, PLAIN, Cell, Finding, Report, progress
from .rows import FETCH_FAILED, FINE, MISSING, NA, NOTED, REMEDY, REORDERED, Row
from .series import Posted, Series, by_subject, carried

COLUMNS = ("Local", "Referenced upstream / Patch subject", "Patch-ID", "Subject", "SoB chain")
STEPS = 16              # how far back upstream to look for another picked commit
NEAR = 300              # how many of upstream's latest commits of its files are held against a SAUCE commit


class Digest:
    """All rows of one branch."""

    def __init__(self, git: Git | None, reference: Git | None, mainline: Sequence[str], fetch: bool,
                 exempt: str = "", signed: bool = True) -> None:
        self.exempt, self.signed = exempt, signed
        self.git = git
        self.reference = reference or git
        self.alone = reference is None or (git is not None and reference.gitdir == git.gitdir)
        self.mainline = mainline
        self.posted = Posted([g for g in (reference, git) if g], fetch)
        self.rows: list[Row] = []
        self.general: list[Finding] = []        # of the whole branch

    def failed_fetch(self) -> bool:
        return any(f.kind == "fetch-failed" for r in self.rows for f in r.findings)

    def run(self, title: str, local: Sequence[Patch], single: bool = False) -> Report:
        """Compare a branch; `single`: it is one patch of many, so nothing is missing."""
        judge = Judge(self.git, local)
        if not local:
            self.general.append(Finding("error", "empty", "", "there is nothing to compare: no local commits",
                                        "check the range or the directory"))
        chosen = self.choose(local, judge)
        pairing = Pairing(self.reference, self.posted, chosen, self.exempt)
        self.rows = pairing.rows(local)
        pairing.refuse_unmerged(self.rows, self.mainline, self.alone)
        self.judge(judge)
        for s in chosen:
            if not single:
                self.missing(s)
            self.order([(r, s.patches.index(r.up)) for r in self.rows if r.local and r.up in s.patches])
        self.upstream_order()
        self.unsigned()
        self.unclaimed()
        self.duplicates()
        self.general[:0] = self.posted.findings
        return self.report(title)

    def choose(self, local: Sequence[Patch], judge: Judge) -> list[Series]:
        """Of each posted series the version that the branch carries; a later one is a finding."""
        chosen = []
        for family in self.posted.families():
            mine = carried(family, local, judge.compare)
            chosen.append(mine)
            later = max(family, key=lambda s: s.version)
            if later.version > mine.version and any(by_subject(mine.patches, p.subject) for p in local):
                self.general.append(Finding(
                    "error", "stale", "",
                    f"the branch carries {mine.label()} of the series, but the reference has "
                    f"{later.label()}", f"backport v{later.version}, or remove it from the reference"))
        return chosen

    def judge(self, judge: Judge) -> None:
        """Row by row: pairs, then what has no counterpart."""
        pairs = [(r, r.local, r.up) for r in self.rows if r.local and r.up]
        for n, (row, p, up) in enumerate(pairs, 1):
            progress(f"comparing {n}/{len(pairs)}")
            judge.pair(row, p, up)
        progress("")
        if self.git:
            merges(self.git, [r for r in self.rows if r.kind == "merge"])
        for row in self.rows:
            assert row.local
            try:
                if row.kind in ("sauce", "ubuntu", "revert") and not row.up:
                    judge.alone(row, row.local)
                elif row.kind == "exempt" and not msg.notes(row.local.message):
                    exempted(row, row.local)
            except FetchFailed as e:
                row.fetch_failed(e)
            if not row.local.legible:
                row.add("encoding", "the author or the message is not in the encoding that the commit claims "
                        "(UTF-8 by default)", "recode it, or set i18n.commitEncoding and commit again")

    def missing(self, s: Series) -> None:
        """Rows for the patches of a series that the branch lacks."""
        have = {id(r.up) for r in self.rows if r.up}
        # local patches of that subject which say that they come from elsewhere
        spare = Counter(msg.bare(r.local.subject).casefold() for r in self.rows
                        if r.local and r.kind != "merge" and not any(r.up is p for p in s.patches))
        at = {id(p): k for k, p in enumerate(s.patches)}
        for p in s.patches:
            name = msg.bare(p.subject).casefold()
            if id(p) in have:
                continue
            if spare[name]:
                spare[name] -= 1
                continue
            row = Row(None, p, status=MISSING, kind="missing")
            row.note = next(filter(None, (left_out(r.local, r.up, p) for r in self.rows
                                          if r.local and r.up and any(r.up is q for q in s.patches))), "")
            if row.note:
                row.status = NOTED
            else:
                row.add(MISSING, "a patch of the reference is not in the branch", REMEDY[MISSING])
            # show it where it belongs
            later = [k for k, r in enumerate(self.rows) if r.up is not None
                     and at.get(id(r.up), -1) > at[id(p)]]
            self.rows.insert(later[0] if later else len(self.rows), row)

    def order(self, pairs: Sequence[tuple[Row, int]]) -> None:
        """Rows off the longest rising run stand in the wrong place."""
        keep = rising([n for _, n in pairs], bisect_right)      # equal numbers (a split) are no disorder
        for k, (row, _) in enumerate(pairs):
            if k in keep:
                continue
            row.add(REORDERED, "stands in another place than upstream", REMEDY[REORDERED])
            if row.status in FINE:
                row.status = REORDERED

    def upstream_order(self) -> None:
        """Picks of commits that follow each other closely upstream keep that order."""
        git = self.reference
        picks: dict[str, Row] = {}
        for r in self.rows:
            if r.local and r.up and r.up.commit and r.up.git is git:
                picks.setdefault(r.up.commit.oid, r)
        if not git or len(picks) < 2:
            return
        front = {oid: git.commit(oid).parents[:1] for oid in picks}
        at = {oid: k for k, oid in enumerate(picks)}
        for _ in range(STEPS):                  # all walks one step further at a time: batched reads
            git.load_commits(p for ps in front.values() for p in ps)
            for oid, ps in front.items():
                if ps and at.get(ps[0], -1) > at[oid]:
                    self.swapped(picks[oid], picks[ps[0]])
            front = {oid: git.commits[ps[0]].parents[:1] for oid, ps in front.items()
                     if ps and ps[0] in git.commits}

    def swapped(self, row: Row, other: Row) -> None:
        """Two picks in the other order than upstream's: worth a word when they touch the same lines."""
        assert row.local and row.up and other.up
        where = touching(other.up, row.up)
        if where and not any(msg.notes(r.local.message) for r in (row, other) if r.local):
            row.add(REORDERED, f"stands before {other.name()}, unlike upstream; both change {where}",
                    REMEDY[REORDERED], "warning")

    def unsigned(self) -> None:
        """Picks that nobody here signed, where others are signed."""
        picks = [r for r in self.rows if r.local and r.up]
        if self.signed and any(r.signs for r in picks):
            for r in picks:
                if not r.signs:
                    r.add("sob-own", "nobody here signed it off, as the branch's other commits are",
                          "sign it off (git commit --amend -s)")

    def unclaimed(self) -> None:
        """Commits that claim no origin, and whose change upstream has."""
        mine = {r.local.commit.oid for r in self.rows if r.local and r.local.commit}
        for r in self.rows:
            try:
                if r.local and r.kind in ("sauce", "ubuntu") and not r.up and r.status != FETCH_FAILED:
                    self.claim(r, r.local, mine)
            except FetchFailed as e:
                r.fetch_failed(e)

    def claim(self, r: Row, p: Patch, mine: set[str]) -> None:
        """Name what upstream has of a commit; `mine`: the branch's, which may be in its history too."""
        git = self.reference
        if not git or not self.git or not p.commit or not p.changes():
            return
        tips = git.mainline_tips(self.mainline, self.alone, tags=True)
        out = git.run("log", "--format=%H", "-n", str(NEAR + len(mine)), "--no-merges", "--stdin",
                      stdin="\n".join([*tips, "--", *(f":(top,literal){f.path()}" for f in p.changes())])
                      .encode("utf-8", "surrogateescape") + b"\n").decode().split()
        near = [o for o in out if o not in mine]
        ids = patch_ids([(git, near), (self.git, [p.commit.oid])])
        git.load_commits(near)
        for o in near:
            if msg.SAUCE.match(git.commit(o).message) or msg.UBUNTU.match(git.commit(o).message):
                continue                            # another branch's
            same = msg.bare(git.commit(o).message.split("\n")[0]) == msg.bare(p.subject)
            equal = ids.get(o, "") == ids.get(p.commit.oid) or (
                same and compare(of_commit(git, o), p).status in (MATCH, CONTEXT))
            if equal or (same and not msg.notes(p.message)):
                what = "this change" if equal else "a commit of this subject"
                r.add("unclaimed", f"upstream has {what} as {o[:12]}: the message does not say so",
                      "name it: `(cherry picked from commit HASH)`"
                      + ("" if equal else ", or say in a `[name: why]` line that it is another"))
                return

    def duplicates(self) -> None:
        """Two commits that come from one patch."""
        by_up: dict[str, list[Row]] = {}
        undone = msg.taken_back([(r.local.key(), r.local.message, [r.up.key()] if r.up else [])
                                 for r in self.rows if r.local])
        for r in self.rows:
            if r.local and r.up and r.local.key() not in undone:
                by_up.setdefault(r.up.key() + r.up.name, []).append(r)
        for name, rows in list(by_up.items()):      # a pick of stable's, and one of what that comes from
            up = rows[0].up
            roots = tuple(o.hash for o in msg.origins(up.message) if o.hash) if up and up.commit else ()
            for other in by_up:
                if other != name and other.startswith(roots):
                    by_up[other] = by_up[other] + rows
        for rows in by_up.values():
            if len(rows) < 2 or all(r.status == NOTED for r in rows):
                continue
            for r in rows:
                others = ", ".join(o.name() for o in rows if o is not r)
                r.add("duplicate", f"{others} comes from the same upstream patch: picked twice or split",
                      "squash them, or say in a `[name: why]` line in each what it takes")

    def report(self, title: str) -> Report:
        out = Report(title, COLUMNS)
        for r in self.rows:
            out.keys.append(r.where())
            out.rows.append([Cell(r.name()), Cell(reference_text(r)),
                             Cell(r.status, MOODS.get(r.status, BAD)),
                             Cell(r.subject, MOODS.get(r.subject, BAD)),
                             Cell(r.sob, BAD if r.sob.startswith(("MISSING", "ORDER"))
                                  else MOODS.get(r.sob, GOOD))])
            out.data.append({
                "local": r.local and r.local.key(), "local_subject": r.local and r.local.subject,
                "upstream": r.up and r.up.key(), "upstream_subject": r.up and r.up.subject,
                "kind": r.kind, "patch_id": r.status, "subject": r.subject, "sob": r.sob,
                "reasons": r.verdict.reasons if r.verdict else [], "note": r.note, "diff": r.diff,
                "findings": sorted({f.kind for f in r.findings})})
            out.findings += r.findings
            if r.note or r.status == CONTEXT:
                why = "; ".join(r.verdict.reasons) if r.verdict else ""
                out.notes.append(Finding("note", r.status, r.where(), f"{r.note} {why}".strip(), ""))
            if r.diff:
                out.diffs[r.where()] = r.diff
        out.findings += self.general
        errors = out.errors()
        warnings = len(out.findings) - errors
        counts = ", ".join(f"{n} {s}" for s, n in Counter(r.status for r in self.rows).items())
        out.summary = (f"{len(self.rows)} rows: {counts}; {errors} error{'s' * (errors != 1)}, "
                       f"{warnings} warning{'s' * (warnings != 1)}")
        return out


def exempted(row: Row, p: Patch) -> None:
    """A release commit changes nothing but its numbers; a single file is its own."""
    files, numbers = p.changes(), set(re.findall(rb"\d+", p.subject.encode()))
    if len(files) > 1 and (odd := [f.path() for f in files if not stamped(f, numbers)]):
        row.status = ASK
        row.add(ASK, f"exempt by its subject, but changes more than its numbers in {', '.join(odd)}",
                "let a person look, and say in a line `[name: why]` what it does")


# Statuses of patch and subject; all others are bad.
MOODS = {MATCH: GOOD, CONTEXT: GOOD, NOTED: DOUBT, "case": DOUBT, "prefix": DOUBT, "characters": DOUBT,
         NA: PLAIN}


def reference_text(r: Row) -> str:
    """What the second column shows."""
    if r.up:
        name = r.up.short()
        if r.up.msgid and not r.up.commit:
            name = f"v{r.up.version} {r.up.number}/{r.up.total}" if r.up.number else ""
        return f"{name} {r.up.subject}".strip()
    assert r.local
    return f"{r.named} / {r.local.subject}" if r.named else r.local.subject
