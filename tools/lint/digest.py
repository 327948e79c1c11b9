# SPDX-License-Identifier: GPL-2.0-only
"""The digest: each local commit beside what it says it comes from."""
from __future__ import annotations

import gzip
import http.client
import os
import re
import urllib.parse
import urllib.request
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from . import message as msg
from .compare import CONTEXT, MATCH, MISMATCH, UNPROVEN, WHITESPACE, Verdict, compare
from .gitio import USAGE, Ambiguous, Err, FetchFailed, Git, silence
from .patches import FileChange, Onto, Patch, find_contents, load_mails, of_commit, parse_mail, split_mbox
from .render import BAD, DOUBT, GOOD, PLAIN, Cell, Finding, Report, progress

COLUMNS = ("Local", "Referenced upstream / Patch subject", "Patch-ID", "Subject", "SoB chain")
NOTED, MISSING, EXTRA, REORDERED = "noted", "missing", "extra", "reordered"
UNRESOLVED, FETCH_FAILED, NA = "unresolved", "fetch failed", "N/A"
FINE = (MATCH, CONTEXT, NOTED)
STEPS = 16              # how far back upstream to look for another picked commit
FETCH_SECONDS = 60.0

REMEDY = {
    MISMATCH: "restore the upstream change, or say why it differs in a line `[name: why]` between the provenance line and your Signed-off-by",
    WHITESPACE: "restore upstream's white space, or add a line `[name: why]` above your Signed-off-by",
    UNPROVEN: "give the tree that the patches apply to with --onto REV, or compare commits instead of patches",
    UNRESOLVED: "name the upstream commit in full, and give a repository that has it with --reference (LINUX_GIT)",
    FETCH_FAILED: "make the source reachable and run again: nothing was compared",
    EXTRA: "name where it comes from, mark it SAUCE, or drop it",
    MISSING: "pick it, or say in the cover letter why it is left out",
    REORDERED: "put the commits in upstream's order, so that every step builds as upstream's did",
}


@dataclass
class Row:
    local: Patch | None
    up: Patch | None = None
    named: str = ""                 # what is shown when there is no upstream patch
    status: str = NA
    subject: str = NA
    sob: str = NA
    verdict: Verdict | None = None
    kind: str = "pick"              # pick, sauce, ubuntu, revert, merge, missing
    origin: msg.Origin | None = None
    findings: list[Finding] = field(default_factory=list)

    def name(self) -> str:
        return self.local.short() if self.local else "-"

    def where(self) -> str:
        if self.local:
            return f"{self.local.short()} {self.local.subject}".strip()
        return self.up.subject if self.up else ""

    def add(self, kind: str, text: str, remedy: str, level: str = "error") -> None:
        self.findings.append(Finding(level, kind, self.where(), text, remedy))


@dataclass
class Series:
    """One posted version, or a directory or range given as the reference."""
    patches: list[Patch]
    version: int
    cover: Patch | None
    posted: bool

    def subjects(self) -> set[str]:
        return {msg.bare(p.subject).casefold() for p in self.patches}

    def label(self) -> str:
        first = self.cover or self.patches[0]
        return f"v{self.version}" + (f" ({first.msgid})" if first.msgid else "")


class Lint:
    def __init__(self, git: Git | None, reference: Git | None, mainline: Sequence[str] = (),
                 fetch: bool = False):
        self.git = git
        self.reference = reference or git
        self.own_reference = reference is not None and (git is None or reference.gitdir != git.gitdir)
        self.mainline = list(mainline)
        self.fetch = fetch
        self.series: list[Series] = []
        self.mails: dict[str, Patch] = {}
        self.fetched: dict[str, str | None] = {}
        self.rows: list[Row] = []
        self.general: list[Finding] = []
        self.verdicts: dict[tuple[str, str], Verdict] = {}
        self.local: list[Patch] = []
        self.taken: set[int] = set()    # the series' patches that have their local one
        self.failed_fetch = False
        self.single = False             # one patch of many: nothing is missing
        self.odd_merges: set[str] | None = None

    # --- sources ---------------------------------------------------------------------------

    def load_local(self, patches: Sequence[Patch]) -> None:
        self.local = list(patches)

    def load_series(self, patches: Sequence[Patch], posted: bool) -> None:
        """Sort mails into versions of series."""
        heads = {p.thread for p in patches}
        ids = {p.msgid for p in patches if p.msgid}
        sets: dict[tuple[int, int, str], list[Patch]] = {}
        covers: dict[tuple[int, int, str], Patch] = {}
        for p in patches:
            if p.msgid:
                self.mails[p.msgid] = p
            root = p.thread if p.thread in ids else p.msgid if p.msgid in heads else ""
            key = (p.version, p.total, root) if posted else (p.version, 0, "")
            if p.files is not None and not p.files and not p.broken and not p.commit:
                covers.setdefault(key, p)
            else:
                sets.setdefault(key, []).append(p)
        for key, group in sets.items():
            by_number: dict[object, Patch] = {}
            for p in group:
                by_number[p.number or p.key() + p.subject] = p          # a resent patch replaces the first
            group = list(by_number.values())
            if all(p.number for p in group):
                group.sort(key=lambda p: p.number)
            self.series.append(Series(group, key[0], covers.get(key), posted))
            total = key[1]
            lost = sorted(set(range(1, total + 1)) - {p.number for p in group}) if total and all(p.number for p in group) else []
            if lost:
                self.general.append(Finding("error", "incomplete", "", f"the reference has only {len(group)} of the {total} patches "
                                            f"of v{key[0]}: {', '.join(map(str, lost))} missing", "fetch the whole thread"))

    def families(self) -> list[list[Series]]:
        """Versions of the same series together."""
        out: list[list[Series]] = []
        for s in self.series:
            names = s.subjects() | ({msg.bare(s.cover.subject).casefold()} if s.cover else set())
            kin = [f for f in out if any(names & (o.subjects() | ({msg.bare(o.cover.subject).casefold()} if o.cover else set()))
                                         for o in f)]
            out = [f for f in out if f not in kin] + [[s] + [x for f in kin for x in f]]
        return out

    def carried(self, family: Sequence[Series]) -> Series:
        """The version that the branch carries: by its links, then by how many patches prove equal."""
        links = {link_id(o.link) for p in self.local for o in msg.origins(p.message, p.headers) if o.link}
        best: tuple[tuple[int, int, int], Series] = ((-1, -1, -1), family[0])
        for s in family:
            named = sum(p.msgid in links for p in [*s.patches, *([s.cover] if s.cover else [])] if p.msgid)
            equal = 0
            if len(family) > 1:
                for p in self.local:
                    twin = by_subject(s.patches, p.subject)
                    equal += twin is not None and self.compare(twin, p).status in (MATCH, CONTEXT)
            score = (named, equal, s.version)
            if score > best[0]:
                best = (score, s)
        return best[1]

    # --- pairing ----------------------------------------------------------------------------

    def run(self) -> Report:
        local = self.local
        if not local:
            self.general.append(Finding("error", "empty", "", "there is nothing to compare: no local commits",
                                        "check the range or the directory"))
        chosen = [self.carried(f) for f in self.families()]
        for family, mine in zip(self.families(), chosen):
            later = max(family, key=lambda s: s.version)
            if later.version > mine.version and any(by_subject(mine.patches, p.subject) for p in local):
                self.general.append(Finding(
                    "error", "stale", "", f"the branch carries {mine.label()} of the series, but the reference has {later.label()}",
                    f"backport v{later.version}, or remove it from the reference"))
        self.name_upstream(chosen)
        pairs = [r for r in self.rows if r.local and r.up]
        for n, row in enumerate(pairs, 1):
            progress(f"comparing {n}/{len(pairs)}")
            self.judge(row)
        progress("")
        for row in self.rows:
            if row.local and not row.up:
                self.own_rules(row)
            if row.local and not row.local.legible:
                row.add("encoding", "the author or the message is not in the encoding that the commit claims (UTF-8 by default)",
                        "recode it, or set i18n.commitEncoding and commit again")
        for s in chosen:
            if not self.single:
                self.missing(s)
            self.order([(r, s.patches.index(r.up)) for r in self.rows if r.local and r.up in s.patches])
        self.upstream_order()
        self.duplicates()
        return self.report()

    def name_upstream(self, chosen: Sequence[Series]) -> None:
        """Find what each local commit comes from."""
        asked: dict[str, list[Row]] = {}
        if self.reference:
            names = {o.hash for p in self.local for o in msg.origins(p.message, p.headers) if len(o.hash) in (40, 64)}
            self.reference.load_commits(names)
        for p in self.local:
            row = Row(p)
            self.rows.append(row)
            if p.commit and len(p.commit.parents) > 1:
                row.kind = "merge"
                continue
            try:
                self.pair(row, chosen)
            except FetchFailed as e:
                self.fetch_failed(row, e)
            self.taken.add(id(row.up))
            if row.up and row.up.commit:
                asked.setdefault(row.up.commit.oid, []).append(row)
        if not asked or not self.reference:
            return
        mine = {p.commit.oid for p in self.local if p.commit}
        given = {p.commit.oid for s in self.series for p in s.patches if p.commit}
        unmerged = self.reference.outside([o for o in asked if o not in given],
                                          self.reference.mainline_tips(self.mainline, not self.own_reference, tags=True))
        for oid in asked:
            for row in asked[oid]:
                if oid in unmerged and oid not in mine:
                    row.up, row.named = None, oid[:12]
                    self.unresolved(row, f"{oid[:12]} exists, but upstream's history does not have it: it was never merged")
                elif oid in mine and not self.own_reference:
                    row.up, row.named = None, oid[:12]
                    self.unresolved(row, f"{oid[:12]} is a commit of this very branch")

    def pair(self, row: Row, chosen: Sequence[Series]) -> None:
        p = row.local
        assert p
        found = msg.origins(p.message, p.headers)
        same = next((t for s in chosen for t in s.patches if id(t) not in self.taken and msg.bare(t.subject) == msg.bare(p.subject)), None) \
            or next((t for s in chosen if (t := by_subject(s.patches, p.subject))), None)
        if not found:
            sauce, revert = msg.SAUCE.match(p.subject), msg.REVERT.match(p.subject)
            odd = msg.ATTEMPT.search(p.message)
            if odd:
                self.unresolved(row, f"a provenance line that cannot be read: {odd[0].strip()!r}", "write it as `(cherry picked from commit HASH)`")
            elif same and not revert:
                row.up = same
            elif sauce or msg.UBUNTU.match(p.subject) or revert:
                row.kind = "revert" if revert else "sauce" if sauce else "ubuntu"
            elif chosen:
                row.status = EXTRA
                row.named = "not in the reference"
                row.add(EXTRA, "no patch of the reference has this subject, and the message names no upstream commit", REMEDY[EXTRA])
            else:
                self.unresolved(row, "the message names no upstream commit")
            return
        targets: list[tuple[msg.Origin, Patch | None, str]] = []
        for o in found:
            up, why = self.lookup(o, p)
            targets.append((o, up, why))
        # what the named commit's own message says was inherited with it
        own = [t for t in targets if not any(
            u is not None and u is not t[1] and t[0].text in [x.text for x in msg.origins(u.message, u.headers)]
            for _, u, _ in targets)]
        own = own or targets
        keys = {t[1].key() if t[1] else t[0].hash or t[0].link for t in own}
        fresh = [t for t in own if t[1] is not None]
        if len(keys) > 1:
            row.named = ", ".join((t[0].hash or t[0].link)[:12] for t in own)
            self.unresolved(row, f"{len(own)} provenance lines name different origins: {', '.join(t[0].text for t in own)}",
                            "keep one commit a pick: split it, or name the one it comes from and mention the other in a `[name: why]` line")
            return
        row.origin = own[-1][0]
        if fresh:
            row.up = fresh[-1][1]
        elif same and all(t[0].text in [o.text for o in msg.origins(same.message, same.headers)] for t in own):
            row.up = same               # the reference says the same of itself
        elif same and not self.mails and not any(t[0].hash for t in own):
            row.up = same
            row.add("link", f"compared by subject: {own[-1][2]}", "give the thread that it links to with --series or --fetch", "warning")
        else:
            row.named = (own[-1][0].hash or own[-1][0].link)[:60]
            self.unresolved(row, own[-1][2])
        short = own[-1][0].hash
        if row.up and row.up.commit and short and len(short) < 12:
            row.add("short-hash", f"the provenance line has only {len(short)} digits of {row.up.commit.oid}",
                    "write the whole hash", "warning")

    def lookup(self, o: msg.Origin, p: Patch) -> tuple[Patch | None, str]:
        """The patch that a provenance line names, or why it cannot be had."""
        if o.hash:
            if self.reference is None:
                return None, f"{o.hash[:12]}: no reference repository is given"
            try:
                oid = self.reference.resolve(o.hash)
            except Ambiguous:
                return None, f"{o.hash} is ambiguous in {self.reference.path}: more than one commit starts with it, or a branch has that name"
            if oid is None:
                return None, f"{self.reference.path} has no commit {o.hash[:40]}"
            return of_commit(self.reference, oid), ""
        mid = link_id(o.link)
        if mid not in self.mails and self.fetch and o.link.startswith("http"):
            self.fetch_thread(o.link)
        found = self.mails.get(mid)
        if found is None:
            return None, f"{o.link} is not among the posted patches" + ("" if self.mails else ": none are given")
        if found.files or found.broken:
            return found, ""
        for s in self.series:               # a cover letter's link
            if s.cover is found and (twin := by_subject(s.patches, p.subject)):
                return twin, ""
        return None, f"{o.link} is a cover letter, and no patch below it has this subject"

    def fetch_thread(self, link: str) -> None:
        url = link.rstrip("/") + "/t.mbox.gz"
        if url not in self.fetched:
            self.fetched[url] = None
            progress(f"fetching {url}")
            try:
                with urllib.request.urlopen(url, timeout=min(FETCH_SECONDS, silence())) as answer:
                    raw = answer.read()
                mails = [parse_mail(m, url) for m in split_mbox(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)]
                got = [m for m in mails if m]
                if not got:
                    raise ValueError("no patches in it")
                find_contents(got, [g for g in (self.reference, self.git) if g])
                for m in got:
                    if m.msgid:
                        self.mails[m.msgid] = m
            except (OSError, EOFError, ValueError, zlib.error, http.client.HTTPException) as e:
                self.fetched[url] = str(e)
        if self.fetched[url] is not None:
            raise FetchFailed(f"{url}: {self.fetched[url]}", REMEDY[FETCH_FAILED])

    def unresolved(self, row: Row, why: str, remedy: str = "") -> None:
        row.status = UNRESOLVED
        row.add(UNRESOLVED, why, remedy or REMEDY[UNRESOLVED])

    def fetch_failed(self, row: Row, e: Err) -> None:
        row.status = FETCH_FAILED
        row.findings.append(Finding("error", "fetch-failed", row.where(), e.cause, e.next_step or REMEDY[FETCH_FAILED]))
        self.failed_fetch = True

    # --- judging ----------------------------------------------------------------------------

    def compare(self, up: Patch, local: Patch) -> Verdict:
        key = (up.key() + up.name, local.key() + local.name)
        if key not in self.verdicts:
            self.verdicts[key] = compare(up, local)
        return self.verdicts[key]

    def judge(self, row: Row) -> None:
        p, up = row.local, row.up
        assert p and up
        try:
            row.verdict = self.compare(up, p)
        except FetchFailed as e:
            self.fetch_failed(row, e)
            return
        row.status = row.verdict.status
        signed = msg.sign_offs(p.message)
        chain = msg.chain(signed, [who for _, who in msg.sign_offs(up.message)])
        if row.status in (WHITESPACE, MISMATCH, UNPROVEN):
            stands, astray = self.noted(row, chain, signed)
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
            row.add("subject", f"the subject differs from upstream's by {row.subject}: {up.subject!r}", "restore it", "warning")
        row.sob = chain.cell()
        edited = {b: a for a in chain.missing for b in chain.added
                  if msg.name_of(a) == msg.name_of(b) or a.split("<")[-1] == b.split("<")[-1]}
        if chain.missing:
            row.add("sob-missing", f"upstream's Signed-off-by is missing: {', '.join(chain.missing)}"
                    + (f" (edited: {'; '.join(f'{a} became {b}' for b, a in edited.items())})" if edited else ""),
                    "restore the line as upstream has it")
        elif not chain.ordered:
            row.add("sob-order", "the sign-offs are not in upstream's order, or one was put between them",
                    "keep upstream's lines in their order and add yours below")
        if row.origin and row.origin.below:
            early = [who for at, who in signed if chain.last < at < row.origin.line and who not in edited]
            if early:
                row.add("provenance-place", f"the provenance line stands below {msg.name_of(early[0])}'s Signed-off-by",
                        "put it above: who signs off, signs for what it says")
        if up.author and p.author and up.author.email.casefold() != p.author.email.casefold() \
                and up.author.name.casefold() != p.author.name.casefold():
            row.add("author", f"the author is {p.author}, upstream's is {up.author}", "keep the author (git commit --amend --author)")

    def noted(self, row: Row, chain: msg.Chain, signed: Sequence[tuple[int, str]]) -> tuple[bool, str]:
        """Whether a note of the backporter's stands where the convention wants it."""
        assert row.local and row.up
        old = {text for _, text in msg.notes(row.up.message)}
        mine = [(at, text) for at, text in msg.notes(row.local.message) if text not in old]
        low = max(chain.last, row.origin.line if row.origin and row.origin.below else -1)
        final = signed[-1][0] if signed else len(msg.body_lines(row.local.message))     # a queue that nobody signs yet
        for at, _ in mine:
            if low < at < final:
                return True, ""
        return False, mine[0][1] if mine else ""

    def own_rules(self, row: Row) -> None:
        """Rows that have no counterpart upstream."""
        p = row.local
        assert p
        if row.kind == "pick":
            return
        row.named = {"sauce": "SAUCE", "ubuntu": "UBUNTU", "merge": "merge", "revert": "revert"}[row.kind]
        if row.kind != "merge" and not msg.sign_offs(p.message):
            row.add("sob-none", f"a {row.named} commit without any Signed-off-by", "sign it off")
        if row.kind == "merge":
            assert p.commit and p.git
            if len(p.commit.parents) > 2:
                row.add("merge", "a merge of more than two parents cannot be repeated by machine", "merge one branch after the other")
                return
            if self.odd_merges is None:
                self.odd_merges = p.git.merge_leftovers([r.local.commit.oid for r in self.rows
                                                         if r.kind == "merge" and r.local and r.local.commit
                                                         and len(r.local.commit.parents) == 2])
            if p.commit.oid in self.odd_merges:
                row.add("merge", "the merge changes more than merging its parents by machine does",
                        "take the change out into a commit of its own, or rebase instead of merging")
        if row.kind == "revert":
            self.check_revert(row)

    def check_revert(self, row: Row) -> None:
        p = row.local
        assert p
        quoted = msg.REVERT.match(p.subject)
        hashes = msg.reverted(p.message)
        row.named = f"revert of {hashes[0][0][:12]}" if hashes else "revert"
        old: Patch | None = None
        why = "the message does not say which commit it reverts"
        if hashes:
            why = f"{hashes[0][0][:12]} is not in this branch"
            if self.git:
                try:
                    oid = self.git.resolve(hashes[0][0])
                except Ambiguous:
                    oid = None
                if oid and (any(q.commit and q.commit.oid == oid for q in self.local)
                            or (p.commit and self.git.ancestor(oid, p.commit.oid))):
                    old = of_commit(self.git, oid)
        if old is None and quoted and not (p.commit and hashes):
            old = next((q for q in self.local if q is not p and q.subject == quoted["subject"]), None)
        if old is None:
            row.add("revert", why, "name it: `This reverts commit <hash>.`")
            return
        if quoted and msg.bare(quoted["subject"]) != msg.bare(old.subject):
            row.add("revert", f"reverts {old.name}, whose subject is {old.subject!r}", "correct the subject or the hash")
        if len(hashes) > 1 and not msg.notes(p.message):
            row.add("revert", f"reverts {len(hashes)} commits at once: they cannot be compared", "revert each in a commit of its own, or say "
                    "in a `[name: why]` line why not")
            return
        back = Patch(old.name, old.subject, old.message, old.author, commit=None, files=[turned(f) for f in old.changes()])
        verdict = compare(back, p)
        if verdict.status not in (MATCH, CONTEXT) and not msg.notes(p.message):
            row.add("revert", f"is not the inverse of {old.name}: {'; '.join(verdict.reasons)}",
                    "revert the whole commit, or say in a `[name: why]` line what is kept")

    # --- the whole ----------------------------------------------------------------------------

    def missing(self, s: Series) -> None:
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
            row.add(MISSING, "a patch of the reference is not in the branch", REMEDY[MISSING])
            # show it where it belongs
            later = [k for k, r in enumerate(self.rows) if r.up is not None and at.get(id(r.up), -1) > at[id(p)]]
            self.rows.insert(later[0] if later else len(self.rows), row)

    def order(self, pairs: Sequence[tuple[Row, int]]) -> None:
        """Rows off the longest rising run stand in the wrong place."""
        tails: list[int] = []
        ends: list[int] = []
        back: list[int] = []
        for k, (_, n) in enumerate(pairs):
            at = bisect_right(tails, n)         # equal numbers (a split) are no disorder
            back.append(ends[at - 1] if at else -1)
            tails[at:at + 1], ends[at:at + 1] = [n], [k]
        keep = set()
        k = ends[-1] if ends else -1
        while k >= 0:
            keep.add(k)
            k = back[k]
        for k, (row, _) in enumerate(pairs):
            if k in keep:
                continue
            row.add(REORDERED, "stands in another place than upstream", REMEDY[REORDERED])
            if row.status in FINE:
                row.status = REORDERED

    def upstream_order(self) -> None:
        """Picks of commits that follow each other closely upstream keep that order."""
        git = self.reference
        rows = [r for r in self.rows if r.local and r.up and r.up.commit and r.up.git is git]
        if not git or len(rows) < 2:
            return
        where: dict[str, list[int]] = {}
        for k, r in enumerate(rows):
            assert r.up and r.up.commit
            where.setdefault(r.up.commit.oid, []).append(k)
        after: dict[str, str] = {}              # picked commit -> the picked one before it
        front = {oid: git.commit(oid).parents[:1] for oid in where}
        for _ in range(STEPS):                  # all walks one step further at a time: batched reads
            git.load_commits(p for ps in front.values() for p in ps)
            step = {}
            for oid, ps in front.items():
                if ps and ps[0] in where:
                    after[oid] = ps[0]
                elif ps and ps[0] in git.commits:
                    step[oid] = git.commits[ps[0]].parents[:1]
            front = step
        groups: dict[str, list[str]] = {}
        depth: dict[str, int] = {}
        def root(oid: str) -> str:
            n, path = oid, []
            while n in after:
                path.append(n)
                n = after[n]
            depth[oid] = len(path)
            return n
        for oid in where:
            groups.setdefault(root(oid), []).append(oid)
        for members in groups.values():
            if len(members) < 2:
                continue
            pairs = sorted((k, depth[oid]) for oid in members for k in where[oid][:1])
            self.order([(rows[k], d) for k, d in pairs])

    def duplicates(self) -> None:
        by_up: dict[str, list[Row]] = {}
        for r in self.rows:
            if r.local and r.up:
                by_up.setdefault(r.up.key() + r.up.name, []).append(r)
        undone = {h for r in self.rows if r.kind == "revert" and r.local for h, _ in msg.reverted(r.local.message)}
        for rows in by_up.values():
            live = [r for r in rows if r.local and not any(r.local.key().startswith(h) for h in undone)]
            if len(live) < 2 or all(r.status == NOTED for r in live):
                continue
            for r in live:
                others = ", ".join(o.name() for o in live if o is not r)
                r.add("duplicate", f"{others} comes from the same upstream patch: picked twice or split",
                      "squash them, or say in a `[name: why]` line in each what it takes")

    def report(self) -> Report:
        out = Report(self.title(), COLUMNS)
        for r in self.rows:
            bad = {f.kind for f in r.findings if f.level == "error"}
            what = self.reference_text(r)
            out.keys.append(r.where())
            out.rows.append([
                Cell(r.name()), Cell(what), Cell(r.status, mood(r.status)),
                Cell(r.subject, BAD if r.subject == "MISMATCH" else DOUBT if r.subject in ("case", "prefix") else
                     GOOD if r.subject == "match" else PLAIN),
                Cell(r.sob, BAD if r.sob.startswith(("MISSING", "ORDER")) else GOOD if r.sob != NA else PLAIN)])
            out.data.append({
                "local": r.local.key() if r.local else None, "local_subject": r.local.subject if r.local else None,
                "upstream": r.up.key() if r.up else None, "upstream_subject": r.up.subject if r.up else None,
                "kind": r.kind, "patch_id": r.status, "subject": r.subject, "sob": r.sob,
                "reasons": r.verdict.reasons if r.verdict else [], "findings": sorted(bad | {f.kind for f in r.findings})})
            out.findings += r.findings
        out.findings += self.general
        counts: dict[str, int] = {}
        for r in self.rows:
            counts[r.status] = counts.get(r.status, 0) + 1
        errors = out.errors()
        out.summary = (f"{len(self.rows)} rows: " + ", ".join(f"{n} {s}" for s, n in counts.items()) + f"; "
                       f"{errors} error{'s' * (errors != 1)}, {len(out.findings) - errors} "
                       f"warning{'s' * (len(out.findings) - errors != 1)}")
        return out

    def title(self) -> str:
        return "Patch lint"

    @staticmethod
    def reference_text(r: Row) -> str:
        if r.up:
            short = r.up.short() if r.up.commit or not r.up.msgid else f"v{r.up.version} {r.up.number}/{r.up.total}" if r.up.number else ""
            return f"{short} {r.up.subject}".strip()
        assert r.local
        if r.kind == "pick":
            return f"{r.named} / {r.local.subject}" if r.named else r.local.subject
        return r.local.subject


def mood(status: str) -> str:
    return GOOD if status in (MATCH, CONTEXT) else DOUBT if status == NOTED else PLAIN if status == NA else BAD


def turned(f: FileChange) -> FileChange:
    """The inverse."""
    c = f.sides()
    return FileChange(f.new_path, f.old_path, f.new_mode, f.old_mode, f.new_oid, f.old_oid,
                      contents=(c[1], c[0]) if c else None, opaque=f.opaque)


def by_subject(patches: Sequence[Patch], subject: str) -> Patch | None:
    """The patch of that subject: as it is, then in other case, then after its prefix."""
    want = msg.bare(subject)
    for same in (lambda a, b: a == b, lambda a, b: a.casefold() == b.casefold(),
                 lambda a, b: msg.headline(a).casefold() == msg.headline(b).casefold()):
        found = [p for p in patches if same(msg.bare(p.subject), want)]
        if found:
            return found[0]
    return None


def link_id(link: str) -> str:
    """The message id in a link of any archive, or a bare one."""
    parts = [x for x in re.sub(r"[?#].*", "", link).strip("<>").split("/") if x]
    ids = [x for x in parts if "@" in x]
    return urllib.parse.unquote(ids[-1] if ids else parts[-1] if parts else "")


# --- entry ------------------------------------------------------------------------------------------

def is_range(spec: str) -> bool:
    return ".." in spec and not spec.startswith((".", "/"))


def source(spec: str, git: Git | None, stores: Sequence[Git], onto: str = "") -> tuple[list[Patch], bool]:
    """Patches of a range or from files; and whether they were posted (mails)."""
    if not os.path.exists(spec):
        if not is_range(spec):
            raise Err(f"{spec}: neither a range A..B nor a file or directory", "give a range, an mbox, a maildir or a directory of patches", USAGE)
        if git is None:
            raise Err(f"{spec}: no repository to look in", "name one with -C", USAGE)
        return [of_commit(git, oid) for oid in git.range(spec)], False
    patches = load_mails(spec)
    if onto:
        if git is None:
            raise Err("--onto needs a repository", "name one with -C", USAGE)
        tree = Onto(git, onto)
        for p in patches:
            if p.files and not p.broken:
                tree.apply(p)
    else:
        find_contents(patches, stores)
    return patches, any(p.msgid for p in patches)
