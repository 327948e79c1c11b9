# SPDX-License-Identifier: GPL-2.0-only
"""Is the local change the original's?  Proven by carrying the original over to the local file."""
from __future__ import annotations

import difflib
import itertools
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from .diffing import (FUNCTIONS, LABEL, WORD, Before, Edit, Heads, Lines, Outcome, blank_free, blocks, carry,
                      edits, slide, split)
from .placing import Placing, depth
from .patches import GITLINK, SYMLINK, FileChange, Hunk, Patch, all_places, nearest, place

MATCH, CONTEXT, WHITESPACE, UNPROVEN, MISMATCH = "match", "context", "whitespace", "unproven", "MISMATCH"
ASK = "ask a person"
LEFT_OUT = "upstream changes it, the local commit does not"
SHOWN = 60              # lines of a difference that a report shows
KINDS = {stat.S_IFREG: "file", stat.S_IFLNK: "link", GITLINK: "submodule"}
NESTS = re.compile(r"\.(?:py[ix]?|ya?ml|rst)$")             # indentation alone says what a line belongs to
MARKER = re.compile(rb"^(?:<{7}|\|{7}|>{7})(?: .*)?$", re.M)       # of a conflict
RANK = {MATCH: 0, CONTEXT: 1, WHITESPACE: 2, ASK: 3, UNPROVEN: 4, MISMATCH: 5}


@dataclass
class Verdict:
    status: str
    reasons: list[str]
    paths: set[str] = field(default_factory=set)        # the files that differ by more than context


def compare(up: Patch, local: Patch) -> Verdict:
    """The Patch-ID verdict of one pair."""
    for which, p in (("upstream", up), ("local", local)):
        if p.broken:
            return Verdict(UNPROVEN, [f"the {which} patch: {p.broken}"])
    reasons: list[str] = []
    status = MATCH

    paths: set[str] = set()

    def judge(verdict: str, why: str = "", path: str = "") -> None:
        nonlocal status
        if RANK[verdict] > RANK[status]:
            status = verdict
        if path and RANK[verdict] > RANK[CONTEXT]:
            paths.add(path)
        if why:
            reasons.append(why if verdict != CONTEXT else f"context: {why}")

    ours, theirs = by_path(up.changes()), by_path(local.changes())
    if theirs.keys() != ours.keys():
        pair_renames(ours, theirs)
    kin: Kin | None = None
    for path in sorted(ours.keys() & theirs.keys()):
        u, d = ours[path], theirs[path]
        verdict, why = compare_file(u, d)
        if verdict in (WHITESPACE, MISMATCH) and not u.old_mode and not d.old_mode:
            kin = kin or Kin({old: old_content(ours[old]) for old in ours.keys() & theirs.keys()
                              if ours[old].old_mode and not ours[old].new_mode and not theirs[old].new_mode
                              and theirs[old].old_mode})
            verdict, why = renamed(path, ours, theirs, kin) or (verdict, why)
        judge(verdict, why, path)
        u.drop()
        d.drop()
    lost = sorted(ours.keys() - theirs.keys())
    more = sorted(theirs.keys() - ours.keys())
    homes = Kin({q: old_content(theirs[q]) for q in more} if len(lost) * len(more) > 64 else {})
    for path in list(lost):
        near = homes.of(old_content(ours[path])) if homes.where else more
        twin = next((q for q in near if q in more and moved(ours[path], theirs[q], up, local)), None)
        if twin is None:
            continue
        verdict, why = compare_file(ours[path], theirs[twin])
        if verdict == MATCH:
            verdict = CONTEXT
        judge(verdict, why or f"{path} is {twin} here", twin)
        lost.remove(path)
        more.remove(twin)
    if lost and not theirs:
        judge(MISMATCH, "the local commit is empty")
        lost = []
    for path in lost:
        judge(MISMATCH, f"{path}: {LEFT_OUT}", path)
    for path in more:
        judge(MISMATCH, f"{path}: changed here, not upstream", path)
    return Verdict(status, reasons, paths)


def by_path(files: Iterable[FileChange]) -> dict[str, FileChange]:
    """Files by path; a rename counts as a deletion and an addition when its contents are known."""
    out: dict[str, FileChange] = {}
    for f in files:
        c = f.sides() if f.old_path != f.new_path and f.old_mode and f.new_mode and not f.opaque else None
        if c:
            mode = f.old_mode if f.old_mode > 0 else 0o100644
            new_mode = f.new_mode if f.new_mode > 0 else mode
            out[f.old_path] = FileChange(f.old_path, f.old_path, mode, 0, contents=(c[0], None))
            out[f.new_path] = FileChange(f.new_path, f.new_path, 0, new_mode, contents=(None, c[1]))
        else:
            out[f.path()] = f
    return out


def pair_renames(ours: dict[str, FileChange], theirs: dict[str, FileChange]) -> None:
    """A textual rename on one side, deletion and addition on the other: make both renames."""
    for a, b in ((ours, theirs), (theirs, ours)):
        for path, f in list(a.items()):
            gone, come = b.get(f.old_path), b.get(f.new_path)
            if f.old_path == f.new_path or not gone or not come or gone.new_mode or come.old_mode:
                continue
            x, y = gone.sides(), come.sides()
            if x and y:
                b[path] = FileChange(f.old_path, f.new_path, gone.old_mode, come.new_mode,
                                     contents=(x[0], y[1]))
                del b[f.old_path]


class Kin:
    """Which of many files a content is most like, by the lines that few of them share."""

    def __init__(self, files: dict[str, bytes | None]):
        self.where: dict[bytes, list[str]] = {}
        for path, data in files.items():
            for line in {x.strip() for x in split(data or b"")}:
                self.where.setdefault(line, []).append(path)

    def of(self, data: bytes | None) -> list[str]:
        hits = Counter(path for line in {x.strip() for x in split(data or b"")}
                       if len(found := self.where.get(line, ())) <= 16 for path in found)
        return [path for path, _ in hits.most_common(3)]


def old_content(f: FileChange) -> bytes | None:
    sides = f.sides()
    f.drop()
    return sides[0] if sides else None


def renamed(path: str, ours: dict[str, FileChange], theirs: dict[str, FileChange], kin: Kin
            ) -> tuple[str, str] | None:
    """A file that both sides add: the same edit of a file that both delete?"""
    a, b = ours[path].sides(), theirs[path].sides()
    for old in kin.of(a[1]) if a and b else ():
        x, y = ours[old].sides(), theirs[old].sides()
        if a and b and x and y and x[0] and y[0] and a[1] and b[1]:
            verdict, why = two_contents((x[0], a[1]), (y[0], b[1]), ours[path], theirs[path], path)
            if verdict in (MATCH, CONTEXT):
                return verdict, why
    return None


def touching(first: Patch, second: Patch) -> str:
    """Where the second of two changes touches lines of the first, or their neighbours; "" nowhere."""
    before = {f.path(): f for f in first.changes()}
    for f in second.changes():
        g = before.get(f.path())
        a, b = (x.sides() if x else None for x in (g, f))
        if not a or not b or any(map(is_binary, (*a, *b))):
            continue
        shift, spans = 0, []
        for e in edits(*(split(x or b"") for x in a)):
            spans.append((e.start + shift, e.start + shift + len(e.new)))
            shift += len(e.new) - (e.end - e.start)
        for e in edits(*(split(x or b"") for x in b)):
            if any(e.start <= hi and lo <= e.end for lo, hi in spans):
                return f"{f.path()}:{e.start + 1}"
    return ""


def interdiff(up: Patch, local: Patch) -> list[str]:
    """The difference between two patches, to look at."""
    def text(p: Patch) -> list[str]:
        out = []
        for f in p.changes():
            sides = f.sides()
            f.drop()
            out.append(f.path())
            if sides and not any(map(is_binary, sides)):
                old = split(sides[0] or b"")
                heads = Heads(old)
                for e in edits(old, split(sides[1] or b"")):
                    out.append("@@ " + (heads.at(e.start) or b"").decode("utf-8", "replace"))
                    out += [s + t.decode("utf-8", "replace").rstrip("\n") for s, t in signed(old, [e])]
            else:
                out += [s + t.decode("utf-8", "replace").rstrip("\n") for s, t in said(f.hunks)]
        return out
    if up.broken or local.broken:
        return []
    a, b = (text(p)[:SHOWN * 20] for p in (up, local))
    out = list(difflib.unified_diff(a, b, "upstream", "here", lineterm=""))
    return out[:SHOWN] + [f"... {len(out) - SHOWN} more lines"] * (len(out) > SHOWN)


def markers(p: Patch) -> Counter[bytes]:
    """The lines of a merge conflict that a change adds."""
    out: Counter[bytes] = Counter()
    for f in p.changes():
        sides = f.sides()
        f.drop()
        old, new = sides or (b"".join(t for h in f.hunks for t in lines(h)) for lines in (Hunk.old, Hunk.new))
        out.update(MARKER.findall(new or b""))
        out.subtract(MARKER.findall(old or b""))
    return +out


def stamped(f: FileChange, numbers: set[bytes]) -> bool:
    """Whether a file changes by nothing but to these numbers."""
    old, new = (x or b"" for x in f.sides() or (b"", b"unknown"))
    f.drop()
    bare = [re.sub(rb"[-+.~]?(?:rc|pre)?\d+", b"", x) for x in (old, new)]
    return bare[0] == bare[1] \
        and (Counter(re.findall(rb"\d+", new)) - Counter(re.findall(rb"\d+", old))).keys() <= numbers


def moved(u: FileChange, d: FileChange, up: Patch, local: Patch) -> bool:
    """The same file under two paths: each tree has only its own."""
    if u.old_mode == 0 or d.old_mode == 0 or u.new_mode == 0 or d.new_mode == 0:
        return False
    if local.had(u.old_path) or up.had(d.old_path):
        return False
    known = local.had(u.old_path) is False and up.had(d.old_path) is False
    a, b = u.sides(), d.sides()
    if a and b and not alike(a[0] or b"", b[0] or b""):
        return False
    same_name = u.old_path.rsplit("/", 1)[-1] == d.old_path.rsplit("/", 1)[-1]
    return same_name or known


def alike(a: bytes, b: bytes) -> bool:
    """Whether half of the smaller file's lines, blank ones and braces left out, are in the other."""
    x, y = (Counter(t for t in split(data) if any(c > 47 and c not in b"{}" for c in t)) for data in (a, b))
    return 2 * (x & y).total() >= min(x.total(), y.total())


# --- one file ------------------------------------------------------------------------------------

def compare_file(u: FileChange, d: FileChange) -> tuple[str, str]:
    path = d.path()
    if why := modes_differ(u, d):
        return MISMATCH, f"{path}: {why}"
    if u.old_oid and u.old_oid == d.old_oid and u.new_oid == d.new_oid and len(u.old_oid) >= 40:
        return MATCH, ""
    a, b = u.sides(), d.sides()
    if a is None and b is None:
        return two_texts(u, d, path)
    if a is not None and b is not None:
        return two_contents(a, b, u, d, path)
    if u.opaque or d.opaque:
        return opaque(u, d, path)
    if b is not None:
        return text_on_content(u, b, path, "upstream")
    assert a is not None
    return text_on_content(d, a, path, "local")


def modes_differ(u: FileChange, d: FileChange) -> str:
    if bool(u.old_mode) != bool(d.old_mode) or bool(u.new_mode) != bool(d.new_mode):
        def verb(f: FileChange) -> str:
            return "adds" if not f.old_mode else "deletes" if not f.new_mode else "changes"
        return f"upstream {verb(u)} the file, the local commit {verb(d)} the file"

    def step(f: FileChange) -> tuple[int, int]:
        known = f.old_mode > 0 and f.new_mode > 0
        return (f.old_mode, f.new_mode) if known and f.old_mode != f.new_mode else (0, 0)
    if step(u) != step(d):
        def say(f: FileChange) -> str:
            a, b = step(f)
            return f"{a:o} to {b:o}" if b else "kept"
        return f"file mode: upstream {say(u)}, local {say(d)}"
    for a, b in ((u.old_mode, d.old_mode), (u.new_mode, d.new_mode)):
        if a > 0 and b > 0 and stat.S_IFMT(a) != stat.S_IFMT(b):
            return f"a {KINDS.get(stat.S_IFMT(a))} upstream, a {KINDS.get(stat.S_IFMT(b))} here"
    if not u.old_mode and u.new_mode > 0 and d.new_mode > 0 and u.new_mode != d.new_mode:
        return f"file mode: upstream {u.new_mode:o}, local {d.new_mode:o}"
    return ""


def is_binary(data: bytes | None) -> bool:
    return data is not None and b"\0" in data[:8000]


def opaque(u: FileChange, d: FileChange, path: str) -> tuple[str, str]:
    def same(a: str, b: str) -> bool:
        n = min(len(a), len(b))
        return n >= 12 and a[:n] == b[:n]
    if u.new_mode == 0 or same(u.new_oid, d.new_oid):
        if same(u.old_oid, d.old_oid) or u.old_mode == 0:
            return MATCH, ""
        return CONTEXT, f"{path}: another version before"
    if u.new_oid and d.new_oid and u.new_oid[:7] != d.new_oid[:7]:
        return MISMATCH, f"{path}: another binary content"
    return UNPROVEN, f"{path}: a binary patch without its contents"


def two_contents(a: tuple[bytes | None, bytes | None], b: tuple[bytes | None, bytes | None],
                 u: FileChange, d: FileChange, path: str) -> tuple[str, str]:
    (u0, u1), (l0, l1) = a, b
    if u1 is None or l1 is None:                    # deleted by both: modes_differ saw the rest
        return (MATCH, "") if u0 == l0 else deleted(u0 or b"", l0 or b"", path)
    if u0 == l0 and u1 == l1:
        return MATCH, ""
    if u.new_mode in (GITLINK, SYMLINK) or any(map(is_binary, (u0, u1, l0, l1))):
        if u1 == l1:
            return CONTEXT, f"{path}: another version before"
        what = {GITLINK: "submodule commit", SYMLINK: "link target"}.get(u.new_mode, "binary content")
        return MISMATCH, f"{path}: another {what}"
    up0, up1 = split(u0 or b""), split(u1)
    lo0, lo1 = split(l0 or b""), split(l1)
    if u0 is None or u0 == l0:
        if up1 == lo1:
            return MATCH, ""
        if blank_free(up1) == blank_free(lo1):
            return whitespace((up0, up1, lo0, lo1), path, l1, u1)
        return MISMATCH, difference(path, up0, up1, lo0, lo1)
    placing = Placing(path, up0, lo0)
    status, why = prove(up0, up1, lo0, lo1, placing)
    if status == MISMATCH and not why and (white := but_for_white(up0, up1, lo0, lo1, placing)):
        return white if white[1] else whitespace((up0, up1, lo0, lo1), path, l1, u1)
    if status == MISMATCH and not why and by_blocks(up0, up1, lo0, lo1, placing):
        return CONTEXT, f"{path}: what it changes stands elsewhere in the file"
    return status, why or ("" if status == MATCH else path if status == CONTEXT
                           else difference(path, up0, up1, lo0, lo1))


def by_blocks(up0: Lines, up1: Lines, lo0: Lines, lo1: Lines, placing: Placing) -> bool:
    """The same change, block by block, of blocks that both files have once by name, wherever they stand."""
    theirs, mine = edits(up0, up1), edits(lo0, lo1)
    pairs = {placing.twin(e) for e in theirs}
    parts = {(x, y) for x, y in (p for p in pairs if p)}
    if None in pairs or len({y for _, y in parts}) < len(parts):
        return False

    def part(lines: Lines, cut: Sequence[Edit], within: range) -> tuple[Lines, Lines, int]:
        """A block before and after, and how many edits are in it."""
        new, at, inside = [], within.start, 0
        for e in cut:
            if within.start < e.start and e.end <= within.stop:
                new += [*lines[at:e.start], *e.new]
                at, inside = e.end, inside + 1
        return lines[within.start:within.stop], new + lines[at:within.stop], inside
    seen = [0, 0]
    for x, y in parts:
        old, new, n = part(up0, theirs, x)
        here, there, m = part(lo0, mine, y)
        seen[0] += n
        seen[1] += m
        if prove(old, new, here, there, Placing(placing.path, old, here))[0] not in (MATCH, CONTEXT):
            return False
    return seen == [len(theirs), len(mine)]


def deleted(up: bytes, local: bytes, path: str) -> tuple[str, str]:
    """A file that both sides delete, not quite the same."""
    if not any(map(is_binary, (up, local))) and min(len(split(up)), len(split(local))) > 1 \
            and not alike(up, local):
        return ASK, f"{path}: the file that is deleted here is quite another one"
    return CONTEXT, f"{path}: deleted with other content"


def whitespace(sides: tuple[Lines, Lines, Lines, Lines], path: str, local: bytes, up: bytes
               ) -> tuple[str, str]:
    """Two changes that are alike without white space."""
    if NESTS.search(path) and indents(*sides[:2]) != indents(*sides[2:]):
        return MISMATCH, f"{path}: the same lines, but in another block by their indentation"
    return WHITESPACE, whitespace_reason(path, local, up)


def indents(old: Lines, new: Lines) -> list[tuple[bytes, int]]:
    """The lines that a change adds, and whether each goes in or out from the one above it."""
    out = []
    old, new = ([x.rstrip() for x in lines] for lines in (old, new))        # CRLF is no indentation
    for e in edits(old, new):
        above = next((depth(x) for x in reversed(old[:e.start]) if x.strip()), 0)
        for line in filter(bytes.strip, e.new):
            here = depth(line)
            out.append((b"".join(line.split()), (here > above) - (here < above)))
            above = here
    return out


def whitespace_reason(path: str, local: bytes, up: bytes) -> str:
    if b"\r\n" in local and b"\r\n" not in up:
        return f"{path}: differs in white space: CRLF line ends"
    if local.endswith(b"\n") != up.endswith(b"\n"):
        return f"{path}: differs in white space: newline at the end of the file"
    return f"{path}: differs in white space"


def variants(old: Lines, new: Lines) -> Iterator[list[Edit]]:
    """The same change as different diffs would cut it."""
    first = edits(old, new)
    yield first
    seen = [first]
    for up in (False, True):
        other = slide(old, first, up)
        if other not in seen:
            seen.append(other)
            yield other


def alignments(a: Sequence[bytes], b: Sequence[bytes]) -> Iterator[list[tuple[int, int, int]]]:
    seen = []
    for ends in (True, False):
        there = blocks(a, b, ends)
        back = sorted((len(a) - i - n, len(b) - j - n, n) for i, j, n in blocks(a[::-1], b[::-1], ends))
        for pairs in (there, back):
            if pairs not in seen:
                seen.append(pairs)
                yield pairs


def prove(up0: Lines, up1: Lines, lo0: Lines, lo1: Lines, placing: Placing) -> tuple[str, str]:
    """MATCH or CONTEXT when carrying the change over gives exactly the local file, in the right places; else
    ASK or MISMATCH, and why if that is known."""
    best, why = MISMATCH, ""
    before = Before(up0)
    cuts = list(variants(up0, up1))
    for pairs in alignments(up0, lo0):
        for cut in cuts:
            done = carry(before, cut, lo0, pairs, lo1)
            if not done or done.lines != lo1:
                continue
            wrong, sure = placing.judge(cut, done.places)
            status = MISMATCH if sure else ASK if wrong else MATCH if done.exact else CONTEXT
            if RANK[status] < RANK[best] or (status == best == MISMATCH and not why):
                best, why = status, wrong
            if status == MATCH:
                return MATCH, ""
    return best, why


def solid(lines: Lines) -> tuple[Lines, list[int]]:
    """Lines without white space, and where each came from."""
    kept = [(t, i) for i, t in ((i, b"".join(x.split())) for i, x in enumerate(lines)) if t]
    return [t for t, _ in kept], [i for _, i in kept]


def but_for_white(up0: Lines, up1: Lines, lo0: Lines, lo1: Lines, placing: Placing
                  ) -> tuple[str, str] | None:
    """None when more than white space differs; else WHITESPACE, or what is wrong with the place."""
    a, from_up = solid(up0)
    b, from_lo = solid(lo0)
    want = blank_free(lo1)
    from_up.append(len(up0))
    from_lo.append(len(lo0))
    cuts = list(variants(a, blank_free(up1)))
    full = {b"".join(x.split()): x for x in up1}
    best: tuple[str, str] | None = None
    for pairs in alignments(a, b):
        for cut in cuts:
            done = carry(Before(a), cut, b, pairs, want)
            if not done or done.lines != want:
                continue
            wrong, sure = placing.judge(
                [Edit(from_up[e.start], from_up[e.end - 1] + 1 if e.end > e.start else from_up[e.start],
                      tuple(full[t] for t in e.new)) for e in cut],
                [(from_up[i], from_lo[j]) for i, j in done.places])
            if not wrong:
                return WHITESPACE, ""
            if best is None or not sure:
                best = MISMATCH if sure else ASK, wrong
    return best


def show(line: bytes) -> str:
    text = line.decode("utf-8", "replace").strip()
    return repr(text if len(text) <= 60 else text[:57] + "...")


def difference(path: str, up0: Lines, up1: Lines, lo0: Lines, lo1: Lines) -> str:
    """One line that says what differs first."""
    mine, theirs = edits(lo0, lo1), edits(up0, up1)
    if not mine:
        return f"{path}: {LEFT_OUT}"
    if why := wordy(path, signed(up0, theirs), signed(lo0, mine)):
        return why
    there, here = (Counter((x, heads.at(e.start)) for e in cut for x in signed(old, [e]))
                   for old, cut, heads in ((up0, theirs, Heads(up0)), (lo0, mine, Heads(lo0))))
    for (x, b), (y, a) in itertools.product(here - there, there - here):
        if x == y and a and b:
            return f"{path}: the same lines, but in {show(b)} instead of {show(a)}"
    known = [(up0[e.start:e.end], e.new) for e in theirs]
    other = next((e for e in mine if (lo0[e.start:e.end], e.new) not in known), mine[0])
    return f"{path}: the same lines, but at another place (line {other.start + 1})"


def signed(old: Lines, cut: Sequence[Edit]) -> list[tuple[str, bytes]]:
    return [x for e in cut for x in ([("-", t) for t in old[e.start:e.end]] + [("+", t) for t in e.new])]


def said(hunks: Sequence[Hunk]) -> list[tuple[str, bytes]]:
    return [(s.decode(), t) for h in hunks for s, t in h.body if s != b" "]


def wordy(path: str, theirs: Sequence[tuple[str, bytes]], mine: Sequence[tuple[str, bytes]]) -> str:
    a, b = Counter(theirs), Counter(mine)
    more, less = list((b - a).elements()), list((a - b).elements())
    parts = []
    for lines, who in ((more, "only here"), (less, "only upstream")):
        if lines:
            sign, text = lines[0]
            rest = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
            parts.append(f"{who} {sign}{show(text)}{rest}")
    return f"{path}: {', '.join(parts)}" if parts else ""


# --- patches without contents ---------------------------------------------------------------------

def text_on_content(text: FileChange, content: tuple[bytes | None, bytes | None], path: str, which: str
                    ) -> tuple[str, str]:
    """Carry a patch of which only the hunks are known over to a known file."""
    old, new = content
    if text.old_mode == 0 or text.new_mode == 0:
        known = b"".join(t for h in text.hunks for t in (h.new() if text.old_mode == 0 else h.old()))
        other = (new if text.old_mode == 0 else old) or b""
        if known == other:
            return MATCH, ""
        if text.new_mode == 0:
            return deleted(known, other, path)
        if blank_free(split(known)) == blank_free(split(other)):
            here, there = (other, known) if which == "upstream" else (known, other)
            return WHITESPACE, whitespace_reason(path, here, there)
        return MISMATCH, f"{path}: the new file differs"
    if is_binary(old) or is_binary(new):
        return UNPROVEN, f"{path}: binary content against a textual patch"
    lo0, lo1 = split(old or b""), split(new or b"")
    before, cut = text.before()
    for pairs in hunk_alignments(text.hunks, lo0):
        done = carry(before, cut, lo0, pairs, lo1)
        if done and done.lines == lo1 and right_sections(text.hunks, cut, done, lo0, path):
            return (MATCH, "") if done.exact else (CONTEXT, path)
    if text_but_white(text, lo0, lo1, path):
        return WHITESPACE, f"{path}: differs in white space"
    theirs, mine = said(text.hunks), signed(lo0, edits(lo0, lo1))
    if which == "local":
        theirs, mine = mine, theirs
    return MISMATCH, wordy(path, theirs, mine) or f"{path}: the same lines, but at another place"


def section_fits(section: bytes, lines: Lines, at: int) -> bool | None:
    """Whether a hunk's section names what a place is in; None: nothing can be said."""
    if not section:
        return None
    for labels in (False, True):
        i = min(at, len(lines)) - 1
        while i >= 0 and (not WORD.match(lines[i]) or (not labels and LABEL.match(lines[i].rstrip()))):
            i -= 1
        if i >= 0 and lines[i].rstrip()[:len(section)].rstrip() == section:
            return True
    if any(x.startswith(section) for x in lines):
        return False
    return None


def right_sections(hunks: Sequence[Hunk], cut: Sequence[Edit], done: Outcome, local: Lines,
                   path: str) -> bool:
    """Whether each edit landed in the function that its hunk tells of."""
    if not FUNCTIONS.search(path):
        return True
    heads = Heads(local)
    base = k = 0
    for h in hunks:
        lines = h.old()
        while k < len(cut) and cut[k].start <= base + len(lines) and cut[k].end <= base + len(lines):
            i, j = done.places[k]
            k += 1
            told = h.section
            for text in lines[:i - base]:
                if text[:1] == b"}":
                    told = b""
                elif WORD.match(text) and not LABEL.match(text.rstrip()):
                    told = text.rstrip()
            here = heads.at(j)
            if not told or here is None or here.startswith(b" ".join(told.split())):
                continue
            if all(section_fits(told, local, at) is False for at in (max(j - (i - base), 0), j)):
                return False
        base += len(lines)
    return True


def hunk_alignments(hunks: Sequence[Hunk], local: Lines) -> Iterator[list[tuple[int, int, int]]]:
    """Where the hunks' lines are in the local file; hunks that do not fit as they are, are aligned
    within the function they tell of, then within all that lies between their neighbours."""
    spots: list[int | None] = []
    low = shift = 0
    for h in hunks:
        want = h.old()
        at = best_place(h, want, local, low, h.start + shift)
        spots.append(at)
        if at is not None:
            low, shift = at + len(want), at - h.start
    for narrow in (True, False):
        pairs: list[tuple[int, int, int]] = []
        base = 0
        for k, h in enumerate(hunks):
            want, at = h.old(), spots[k]
            if at is not None:
                pairs.append((base, at, len(want)))
            else:
                lo = pairs[-1][1] + pairs[-1][2] if pairs else 0
                hi = next((s for s in spots[k + 1:] if s is not None), len(local))
                if narrow:
                    lo, hi = section_window(h, local, lo, hi)
                pairs += [(base + i, lo + j, n) for i, j, n in blocks(want, local[lo:hi])]
            base += len(want)
        yield pairs
        if None not in spots:
            break


def best_place(h: Hunk, want: Lines, local: Lines, low: int, near: int) -> int | None:
    if not want:
        return place(want, local, low, near)
    spots = all_places(want, local, low)
    fits = {s: section_fits(h.section, local, s) for s in spots}
    spots = [s for s in spots if fits[s]] or [s for s in spots if fits[s] is None]
    return nearest(spots, near)


def section_window(h: Hunk, local: Lines, lo: int, hi: int) -> tuple[int, int]:
    """The part of the file that a hunk's section names."""
    for i in range(lo, hi) if h.section else ():
        if local[i].startswith(h.section):
            end = next((j + 1 for j in range(i + 1, hi) if local[j][:1] == b"}"), hi)
            return i, min(end + len(h.body), hi)
    return lo, hi


def text_but_white(text: FileChange, lo0: Lines, lo1: Lines, path: str) -> bool:
    def thin(lines: Lines) -> Lines:
        return [b"".join(x.split()) for x in lines]
    hunks = [Hunk(h.start, [(s, b"".join(t.split())) for s, t in h.body], b"") for h in text.hunks]
    copy = FileChange(text.old_path, text.new_path, text.old_mode, text.new_mode, hunks=hunks)
    before, cut = copy.before()
    local, want = thin(lo0), thin(lo1)
    for pairs in hunk_alignments(hunks, local):
        done = carry(before, cut, local, pairs, want)
        if done and blank_free(done.lines) == blank_free(want) \
                and right_sections(text.hunks, cut, done, lo0, path):
            return True
    return False


def two_texts(u: FileChange, d: FileChange, path: str) -> tuple[str, str]:
    """Two patches of which only the hunks are known: no tree to prove a place in."""
    if u.opaque or d.opaque:
        return opaque(u, d, path)
    if not u.hunks and not d.hunks:
        return MATCH, ""

    if [h.body for h in u.hunks] == [h.body for h in d.hunks]:
        pairs = list(zip(u.hunks, d.hunks))
        if all(a.section == b.section if a.section and b.section else a.start == b.start for a, b in pairs):
            return MATCH, ""
        if FUNCTIONS.search(path) and any(a.section and b.section and a.section != b.section
                                          for a, b in pairs):
            return MISMATCH, f"{path}: the same lines, but in another function"
        return UNPROVEN, f"{path}: the same lines at another place, and no tree to prove it in"
    theirs, mine = said(u.hunks), said(d.hunks)
    if theirs == mine:
        return UNPROVEN, f"{path}: the same lines in other context, and no tree to prove the place in"
    thick, thin = ([(s, b"".join(t.split())) for s, t in lines if t.strip()] for lines in (theirs, mine))
    if thick == thin:
        return WHITESPACE, f"{path}: differs in white space"
    return MISMATCH, wordy(path, theirs, mine) or f"{path}: the same lines in another order"
