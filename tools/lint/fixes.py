# SPDX-License-Identifier: GPL-2.0-only
"""Upstream's fixes and reverts of what a branch carries, and that it lacks.

The history is read once, by one `git log`; what matters of it is kept in a cache file, a record
a line, to which later runs append.
"""
from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import sys
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from . import message as msg
from .gitio import USAGE, Ambiguous, Err, FetchFailed, Git, GitError, patch_ids
from .patches import Patch, of_commit
from .render import BAD, DOUBT, GOOD, Cell, Finding, Report, progress

COLUMNS = ("Picked commit", "Fix", "Subject", "First release", "Status")
FORMAT = "lint cache 6"
AMBIGUOUS = "ambiguous"
PRESENT = ("present", "squashed")      # how such a status starts
FIX, REVERT, PARTIAL, PICK = "F", "R", "r", "P"
TELLING = (b"ixes", b"IXES", b"evert", b"EVERT", b"eapply", b"EAPPLY", b"ack out", b"acked out", b"acks out",
           b"ack-out", b"ackout", b"acked-out", b"ackedout")
TELLING_PICKS = (b"herry", b"HERRY", b"pstream", b"ackport", b"BACKPORT", b"rigin", b"ommit")


# --- reading histories -----------------------------------------------------------------------------

def read_history(git: Git, tips: Sequence[str], known: Sequence[str], picks: bool) -> Iterator[str]:
    """Records of the commits reachable from the tips and not from `known`.

    Every parent must have been printed too: a log that was cut short is an error.
    """
    if git.shallow():
        raise FetchFailed(f"{git.path} is shallow: fixes may lie in what it lacks", "git fetch --unshallow")
    stdin = "".join(f"{t}\n" for t in tips) + "".join(f"^{t}\n" for t in known)
    # the first 64 bits of each name: a set of names would not be small
    seen, wanted = array("Q"), array("Q")
    telling = TELLING + TELLING_PICKS if picks else TELLING
    for raw in git.records("log", "--stdin", "-z", "--boundary", "--no-color", "--no-notes", "--no-decorate",
                           "--encoding=UTF-8", "--no-mailmap", "--format=%m%H %P%n%B", stdin=stdin.encode()):
        head, _, body = raw.partition(b"\n")
        words = head[1:].split()
        if not words or len(words[0]) not in (40, 64):
            raise GitError(f"git log printed a strange record: {head[:60]!r}", "run git fsck")
        try:
            seen.append(int(words[0][:16], 16))
            if head[:1] == b"-":
                continue
            wanted.extend([int(w[:16], 16) for w in words[1:]])
        except ValueError:
            raise GitError(f"git log printed a strange record: {head[:60]!r}", "run git fsck") from None
        if not len(seen) % 20000:
            progress(f"reading the history: {len(seen)} commits")
        if any(map(body.__contains__, telling)):
            yield from records_of(words[0].decode("ascii", "replace"), body.decode("utf-8", "replace"),
                                  picks and len(words) < 3)      # a merge is no pick
    progress("")
    if not known:
        wanted.extend(int(t[:16], 16) for t in tips)
    for part in range(16):                      # in parts, for the memory's sake
        if {x for x in wanted if x & 15 == part} - {x for x in seen if x & 15 == part}:
            raise GitError("git log left commits out", "run git fsck, and again")


def records_of(oid: str, text: str, picks: bool) -> Iterator[str]:
    title = msg.subject_of(text)
    for target, quoted in msg.fixed(text):
        yield record(FIX, oid, target, msg.told(quoted), title)
    quoted, undone = msg.told(msg.undone(title)), msg.reverted(text)
    if not undone and quoted:                   # it names what it reverts by the subject alone
        yield record(REVERT, oid, "", quoted, title)
    for target, part in undone:
        yield record(PARTIAL if part else REVERT, oid, target, quoted, title)
    if picks:
        for o in msg.origins(text):
            if o.hash and o.placed:
                yield record(PICK, oid, o.hash, "", title)


def record(*fields: str) -> str:
    return "\t".join(re.sub(r"[\t\n\r\0\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", " ", f) for f in fields) + "\n"


class Cache:
    """A file of blocks: records, then a line that seals them and names the tips they reach up to."""

    def __init__(self, git: Git, picks: bool):
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "smmuv3-kdump" / "lint"
        self.git, self.picks = git, picks
        self.head = os.fsencode(f"{FORMAT}\t{'picks' if picks else 'fixes'}\t{git.gitdir}\n")
        self.path = base / (hashlib.sha256(self.head).hexdigest()[:24] + ".tsv")
        self.surplus = False            # the file also has commits that are in no tip's history any more

    def history(self, tips: Sequence[str]) -> bytes:
        """All records up to the tips; reads only what the file lacks."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a+b") as f:
                fcntl.flock(f, fcntl.LOCK_EX)
                return self.update(f, tips)
        except OSError as e:
            raise Err(f"{self.path}: {e.strerror}",
                      "make the cache directory writable, or set XDG_CACHE_HOME") from None

    def update(self, f: IO[bytes], tips: Sequence[str]) -> bytes:
        f.seek(0)
        data = f.read()
        good = self.sealed(data)
        done: list[str] = []
        if good is not None:
            end, done = good
            data = data[:end]
            f.truncate(end)             # an append that was killed half-way
            if any(o is None for o in self.git.fetch(done)):
                good = None             # rewritten, and the old commits are gone
            elif set(tips) != set(done):
                self.surplus = bool(self.git.outside(done, tips))
        if good is None:
            data, done = self.head, []
            f.truncate(0)
        elif set(tips) <= set(done):
            return data
        # the memory holds the new records only once they are complete
        new = bytearray()
        for text in read_history(self.git, tips, done, self.picks):
            new += text.encode("utf-8", "replace")
        reach = sorted({*tips, *done} if self.surplus else set(tips))
        block = bytes(new) + b"=\t%08x\t%s\n" % (zlib.crc32(new), " ".join(reach).encode())
        f.write((self.head if not done else b"") + block)
        f.flush()
        return data + block

    def sealed(self, data: bytes) -> tuple[int, list[str]] | None:
        """End of the last whole block and its tips; None when the file is of no use."""
        if not data.startswith(self.head):
            return None
        start = len(self.head)
        found: tuple[int, list[str]] | None = None
        while (at := data.find(b"\n=\t", start - 1)) >= 0:
            at += 1
            end = data.find(b"\n", at)
            if end < 0:
                break
            words = data[at:end].split(b"\t")
            if len(words) != 3 or words[1] != b"%08x" % zlib.crc32(data[start:at]):
                return None
            found = (end + 1, words[2].decode("ascii", "replace").split())
            start = end + 1
        return found


@dataclass(frozen=True)
class Claim:
    """Commit `oid` says that it fixes or reverts `target`."""
    kind: str
    oid: str
    target: str
    quoted: str             # as msg.told() gives it
    title: str


class Claims:
    def __init__(self, data: bytes):
        self.text = data.decode("utf-8", "replace").split("\n")
        self.by_hash: dict[str, list[int]] = {}
        self.by_subject: dict[int, list[int]] = {}
        for n, row in enumerate(self.text):
            if row[:2] in ("F\t", "R\t", "r\t"):
                fields = row.split("\t", 4)
                self.by_hash.setdefault(fields[2][:7], []).append(n)
                if fields[3]:
                    self.by_subject.setdefault(hash(fields[3]), []).append(n)

    def claim(self, n: int) -> Claim:
        return Claim(*(self.text[n].split("\t") + [""] * 5)[:5])

    def on(self, oid: str, subject: str) -> Iterator[Claim]:
        for n in [n for digits in (7, 6, 5) for n in self.by_hash.get(oid[:digits], ())]:
            c = self.claim(n)
            if oid.startswith(c.target) and c.oid != oid:
                yield c
        wanted = msg.told(subject)
        for n in self.by_subject.get(hash(wanted), ()):
            c = self.claim(n)
            if c.quoted == wanted and not (c.target and oid.startswith(c.target)) and c.oid != oid:
                yield c


# --- the search -------------------------------------------------------------------------------------

@dataclass
class Missing:
    root: str               # upstream commit that the branch carries
    claim: Claim
    via: str                # what the claim is about: the root, or a fix of it
    status: str
    counts: bool = False    # a finding
    release: str = ""


class Ignored:
    """`HASH YYYY-MM-DD REASON`, a line each."""

    def __init__(self, path: str | None):
        self.entries: dict[str, tuple[str, str]] = {}
        self.used: set[str] = set()
        if not path:
            return
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise Err(f"{path}: {e}", "name a readable ignore list", USAGE) from None
        for n, text in enumerate(lines, 1):
            if not text.strip() or text.lstrip().startswith("#"):
                continue
            m = re.fullmatch(r"\s*([0-9a-f]{7,64})\s+(\d{4}-\d\d-\d\d)\s+(\S.*?)\s*", text)
            if not m:
                raise Err(f"{path}:{n}: not of the form HASH YYYY-MM-DD REASON",
                          "give each entry a date and a reason", USAGE)
            self.entries[m[1]] = (m[2], m[3])

    def find(self, oid: str) -> str | None:
        for prefix, (day, reason) in self.entries.items():
            if oid.startswith(prefix):
                self.used.add(prefix)
                return f"ignored {day}: {reason}"
        return None


class Fixes:
    def __init__(self, git: Git, reference: Git | None, mainline: Sequence[str], ignore: str | None):
        self.git = git
        self.reference = reference or git
        self.alone = reference is None or reference.gitdir == git.gitdir
        self.mainline = mainline
        self.ignored = Ignored(ignore)
        self.findings: list[Finding] = []
        self.local: list[Patch] = []
        self.carried: dict[str, Patch] = {}         # upstream commit -> the local one
        self.claims = Claims(b"")
        self.have: dict[str, str] = {}              # upstream commit -> how the branch has it
        # upstream's hash (7 digits) -> whole, local commit, its subject
        self.picks: dict[str, list[tuple[str, str, str]]] = {}
        # subject, or hash (7 digits), of what is reverted -> the hash or "", the revert, how far back it is
        self.undone: dict[str, list[tuple[str, str, int]]] = {}
        self.place: dict[str, tuple[str, int]] = {}     # of a local commit: its subject, how far back it is
        self.resolved: dict[str, str | None] = {}

    def run(self, spec: str, everything: bool) -> Report:
        oids = self.git.range(spec)
        self.local = [of_commit(self.git, o) for o in oids]
        if not oids:
            self.error("empty", "", f"there are no commits in {spec}", "check the range")
        tips = self.reference.mainline_tips(self.mainline, self.alone, tags=False)
        if not tips:
            raise Err(f"{self.reference.path} has no commits", "name a repository with upstream's history",
                      USAGE)
        cache = Cache(self.reference, False)
        self.claims = Claims(cache.history(tips))
        self.find_carried()
        self.find_present(oids, tips)
        self.odd_merges()
        found = self.search(tips if cache.surplus else [])
        self.equal_patches([f for f in found if f.status == "missing"])
        self.judge(found)
        self.name_releases(found)
        return self.report(spec, found, everything)

    def error(self, kind: str, where: str, text: str, remedy: str, level: str = "error") -> None:
        self.findings.append(Finding(level, kind, where, text, remedy))

    def find_carried(self) -> None:
        """What the branch carries in the end: picks, less what it reverted again."""
        history: list[tuple[str, str, list[str]]] = []      # local commit, its message, upstream commits
        nameless = 0
        for p in self.local:
            assert p.commit
            named = [o.hash for o in msg.origins(p.message) if o.hash and o.placed]
            mine = []
            for h in named if len(p.commit.parents) < 2 else ():
                oid = self.resolve(h)
                if oid and oid != AMBIGUOUS and msg.quotes(
                        p.subject, msg.subject_of(self.reference.commit(oid).message)):
                    continue                        # the message that the revert quotes
                if oid is None or oid == AMBIGUOUS:
                    self.error("unresolved", f"{p.name} {p.subject}",
                               f"{self.reference.path} has no single commit {h}",
                               "no fixes of it can be looked for: name it in full, or fetch it")
                elif p.changes() or not of_commit(self.reference, oid).changes():
                    mine.append(oid)                # an empty commit carries nothing
            local_only = any(rx.match(p.subject) for rx in (msg.SAUCE, msg.UBUNTU)) or msg.undone(p.subject)
            nameless += not named and not local_only and len(p.commit.parents) < 2
            history.append((p.commit.oid, p.message, mine))
        gone = msg.taken_back(history)
        for p, (local, _, mine) in zip(self.local, history):
            for oid in mine if local not in gone else ():
                self.carried.setdefault(oid, p)
        if nameless:
            self.error("nameless", "",
                       f"{nameless} commits name no upstream commit: no fixes of them were looked for",
                       "name where they come from, or mark them SAUCE", "warning")

    def find_present(self, oids: Sequence[str], tips: Sequence[str]) -> None:
        """Which upstream commits the branch's history names, inside the range and below it."""
        if not oids:
            return
        if self.alone:
            known = [self.reference.revision(r) for r in self.mainline]
        else:
            known = [t for t, got in zip(tips, self.git.fetch(tips)) if got]
        text = "".join(read_history(self.git, [oids[-1]], known, True)) if known else \
            Cache(self.git, True).history([oids[-1]]).decode("utf-8", "replace")
        # newest first: the range, then what was appended to the cache last
        self.place = {p.key(): (p.subject, -n) for n, p in enumerate(self.local, 1)}
        blocks = re.split(r"(?m)^=\t.*\n", text)[::-1]
        for n, row in enumerate(row for block in blocks for row in block.split("\n")):
            kind, local, target, quoted, title = (row.split("\t", 4) + [""] * 5)[:5]
            at = self.place.setdefault(local, (title, n))[1]
            if kind == PICK:
                self.picks.setdefault(target[:7], []).append((target, local, title))
            elif kind == REVERT:
                for key in (target[:7], quoted):
                    if key:
                        self.undone.setdefault(key, []).append((target, local, at))

    def odd_merges(self) -> None:
        """Merges that changed more than merging does: what they dropped is in the history all the same."""
        merges = {p.commit.oid: p for p in self.local if p.commit and len(p.commit.parents) > 1}
        two = [oid for oid, p in merges.items() if p.commit and len(p.commit.parents) == 2]
        odd = self.git.odd_merges(two) if two else {}
        for oid in odd.keys() | (merges.keys() - set(two)):
            where = f"{oid[:12]} {merges[oid].subject}"
            if failed := odd.get(oid):
                self.error("fetch-failed", where, f"the merge could not be repeated: {failed.cause}",
                           failed.next_step)
            else:
                self.error("merge", where,
                           "machine merging its parents gives something else: it may have dropped a fix",
                           "look at it, or run compare over the branch")

    def in_force(self, local: str, oid: str = "", subject: str = "", depth: int = 0) -> bool:
        """Whether no commit of the branch's history reverts this one for good: by its hash, or later by its
        subject, by upstream's hash (`oid`) or subject. A hash of no commit of the branch's says nothing."""
        title, at = self.place.get(local, (subject, sys.maxsize))
        by = {by for target, by, _ in self.undone.get(local[:7], ()) if local.startswith(target)}
        by |= {by for target, by, n in self.undone.get(oid[:7], ()) if oid.startswith(target) and n < at}
        for quoted in {msg.told(title), msg.told(subject)} - {""}:
            by |= {by for target, by, n in self.undone.get(quoted, ())
                   if n < at and not self.known(target, by)}
        return depth > 50 or not any(self.in_force(x, depth=depth + 1) for x in by - {local})

    def known(self, target: str, revert: str) -> bool:
        """Whether what a revert names is in the history that it reverts in."""
        try:
            oid = self.git.resolve(target) if target else None
        except Ambiguous:
            return True
        return bool(oid) and self.git.ancestor(str(oid), revert)

    def brings(self, local: str, oid: str, subject: str) -> bool:
        """Whether a commit that names `oid` has something in it, and was not taken back."""
        return bool(of_commit(self.git, local).changes()) and self.in_force(local, oid, subject)

    def present(self, oid: str, subject: str) -> str | None:
        """How the branch has an upstream commit."""
        if oid in self.carried:
            return f"present as {self.carried[oid].name}"
        for target, local, title in self.picks.get(oid[:7], ()):
            if oid.startswith(target) and not msg.quotes(title, subject) \
                    and self.meant(target, oid, subject, "") and self.brings(local, oid, subject):
                return f"present as {local[:12]}"
        for p in self.local:
            if any(msg.squashes(note, oid) for _, note in msg.notes(p.message)) and p.changes() \
                    and self.in_force(p.key()):
                return f"squashed into {p.name}"
        return None

    def meant(self, prefix: str, oid: str, subject: str, quoted: str) -> bool:
        """Whether an abbreviation stands for this commit; collisions are told apart by subject."""
        if len(prefix) < 7:
            return alike(quoted, subject)           # too short to decide by itself, or not given
        named = self.resolve(prefix)
        return named == oid or (named == AMBIGUOUS and (not quoted or alike(quoted, subject)))

    def search(self, tips: Sequence[str]) -> list[Missing]:
        """Fixes of what is carried, then fixes of those, and so on; `tips`: only what their history has."""
        found: dict[str, Missing] = {}
        self.reference.load_commits(self.carried)
        level = [(oid, oid) for oid in self.carried]
        while level:
            fresh: dict[str, Missing] = {}
            for oid, root in level:
                subject = msg.subject_of(self.reference.commit(oid).message)
                for c in self.claims.on(oid, subject):
                    if c.oid in found or c.oid in fresh:
                        continue
                    if not c.target and c.kind == REVERT and self.reference.ancestor(c.oid, oid):
                        continue                        # it reverts an earlier one of that subject
                    # a hash that nobody has: the quoted subject led here
                    if self.meant(c.target, oid, subject, c.quoted) if oid.startswith(c.target) \
                            else len(c.target) < 7 or self.resolve(c.target) is None:
                        fresh[c.oid] = Missing(root, c, oid, "missing")
            self.reference.load_commits(fresh)
            gone = self.reference.outside(fresh, tips) if tips else set()
            level = []
            for m in fresh.values():
                c = m.claim
                names = [o.hash for o in msg.origins(self.reference.commit(c.oid).message) if o.hash]
                copy = any(o.startswith(h) for h in names for o in (*fresh, *found, *self.carried)
                           if o != c.oid)
                how = self.present(c.oid, c.title)
                if c.oid in gone or (copy and not how):
                    continue            # a pick of another fix, in some branch of upstream's
                found[c.oid] = m
                m.status = how or self.ignored.find(c.oid) or "missing"
                if how or m.status == "missing":
                    level.append((c.oid, m.root))
        return list(found.values())

    def resolve(self, prefix: str) -> str | None:
        """The commit that an abbreviation stands for; looked up once."""
        if prefix not in self.resolved:
            try:
                self.resolved[prefix] = self.reference.resolve(prefix)
            except Ambiguous:
                self.resolved[prefix] = AMBIGUOUS
        return self.resolved[prefix]

    def equal_patches(self, found: Sequence[Missing]) -> None:
        """A missing fix that the branch has by content, or in its very history."""
        if not found:
            return
        oids = [f.claim.oid for f in found]
        here = [o for o, got in zip(oids, self.git.fetch(oids)) if got]
        last = self.local[-1].commit
        assert last
        inside = set(here) - self.git.outside(here, [last.oid])
        own = [p.commit.oid for p in self.local if p.commit and len(p.commit.parents) < 2]
        try:
            ids = patch_ids([(self.reference, oids), (self.git, own)])
        except FetchFailed as e:        # content that cannot be had: what is known without it is told
            self.error("fetch-failed", "", f"patch-ids could not be compared: {e.cause}",
                       e.next_step or "fetch the missing objects")
            ids = {}
        equal: dict[str, list[str]] = {}
        for o in own:
            equal.setdefault(ids.get(o, ""), []).append(o)
        for f in found:
            oid, subject = f.claim.oid, f.claim.title
            if oid in inside and self.in_force(oid, oid, subject):
                f.status = "present in its history"
            elif here := [o for o in equal.get(ids.get(oid, "-"), ()) if self.in_force(o, oid, subject)]:
                f.status = f"present as {here[0][:12]} (equal patch-id)"

    def judge(self, found: Sequence[Missing]) -> None:
        """Of the missing ones: drop what upstream itself took back."""
        state = {f.claim.oid: f for f in found}
        undo: dict[str, list[Missing]] = {}
        for f in found:
            if f.claim.kind == REVERT:
                undo.setdefault(f.via, []).append(f)

        def live(oid: str, depth: int = 0) -> bool:
            """Missing, and in force upstream."""
            f = state[oid]
            return f.status == "missing" and (
                depth > 50 or not any(live(r.claim.oid, depth + 1) for r in undo.get(oid, ())))

        dead = {oid: next((r.claim.oid for r in undo.get(oid, ()) if live(r.claim.oid)), "")
                for oid, f in state.items() if f.status == "missing" and not live(oid)}
        for oid, by in dead.items():
            state[oid].status = f"reverted upstream by {by[:12]}"
        changed = True
        while changed:                  # what only concerns a dead or unneeded commit is not needed either
            changed = False
            for f in found:
                about = state.get(f.via)
                if f.status == "missing" and about and about.status.startswith(("reverted", "not needed")):
                    f.status = "not needed: what it concerns was reverted"
                    changed = True
        for f in found:
            if f.status == "missing":
                f.counts = True
                if f.claim.kind != FIX:
                    f.status = "missing (partial revert)" if f.claim.kind == PARTIAL else "missing (revert)"
                if f.via != f.root:
                    f.status += f", via {f.via[:12]}"

    def name_releases(self, found: Sequence[Missing]) -> None:
        """The first tag that has each fix: one `git name-rev`, remembered while the tags stay."""
        if not found:
            return
        tags = self.reference.run("for-each-ref", "--format=%(objectname) %(refname)", "refs/tags")
        stamp = hashlib.sha256(tags).hexdigest()[:16]
        path = Cache(self.reference, False).path.with_suffix(".releases")
        names: dict[str, str] = {}
        try:
            names = dict(json.loads(path.read_text())[stamp])
        except (OSError, ValueError, LookupError, TypeError):
            pass                        # another set of tags, or damaged
        ask = [f.claim.oid for f in found if f.claim.oid not in names]
        if ask:
            names.update({o: "not released" for o in ask})
            for at in range(0, len(ask) if tags else 0, 1000):
                # named as arguments: it then stops at the oldest of them; --annotate-stdin walks everything
                out = self.reference.run("name-rev", "--refs=refs/tags/*", *ask[at:at + 1000])
                for text in out.decode("utf-8", "replace").splitlines():
                    if m := re.match(r"([0-9a-f]{40,64}) (?:tags/)?([^~^]+)", text):
                        names[m[1]] = m[2] if m[2] != "undefined" else "not released"
            try:
                part = path.with_suffix(f".{os.getpid()}")
                part.write_text(json.dumps({stamp: names}))
                part.replace(path)
            except OSError:
                pass                    # only a memory
        for f in found:
            f.release = names[f.claim.oid]

    def report(self, spec: str, found: Sequence[Missing], everything: bool) -> Report:
        out = Report(f"Missing fixes of {spec}", COLUMNS, findings=self.findings)
        shown = [f for f in found if everything or not f.status.startswith("present")]
        for f in sorted(shown, key=lambda f: not f.counts):
            p, c = self.carried[f.root], f.claim
            where = f"{p.name} ({f.root[:12]})"
            key = f"{where} lacks {c.oid[:12]}"
            mood = BAD if f.counts else GOOD if f.status.startswith(PRESENT) else DOUBT
            out.keys.append(key)
            out.rows.append([*map(Cell, (where, c.oid[:12], c.title, f.release)), Cell(f.status, mood)])
            out.data.append({"local": p.key(), "picked": f.root, "fix": c.oid, "subject": c.title,
                             "about": f.via, "release": f.release, "status": f.status, "missing": f.counts})
            if f.counts:
                verb = "fixes" if c.kind == FIX else "reverts"
                self.error("missing-fix", key, f"{c.title!r} {verb} {f.via[:12]}",
                           "backport it, or put it on the ignore list with a date and a reason")
        for prefix, (day, reason) in self.ignored.entries.items():
            if prefix not in self.ignored.used:
                self.error("stale-ignore", prefix,
                           f"ignored since {day} ({reason}), but it is no missing fix of this branch",
                           "remove it from the ignore list", "warning")
        missing = sum(f.counts for f in found)
        present = sum(f.status.startswith(PRESENT) for f in found)
        out.summary = (f"{len(self.carried)} upstream commits carried, {len(found)} fixes and reverts of "
                       f"them "
                       f"upstream: {missing} missing, {present} present")
        return out


def alike(a: str, b: str) -> bool:
    """The same subject, however it was cut or cased."""
    short, long = sorted(map(msg.told, (a, b)), key=len)
    return bool(short) and (short == long or (len(short) >= 16 and long.startswith(short)))
