# SPDX-License-Identifier: GPL-2.0-only
"""Does a carried edit stand where upstream's does?  By the names of what surrounds it, not by lines alone.

The rule, as lint.rst states it:

1. The blocks around a place (function, class, node, entry, case, branch, #if) are compared by name,
   outermost first.  Where the names part, neither side's block may exist on the other side as well.
   Comments are no blocks, nor are #if lines around the other side's, which that side lacks.
2. Where the lines fit at several places, those whose blocks agree best count; of them the place
   whose neighbours upwards and downwards go on alike for longest must be the branch's, and upstream's own
   place must likewise be the closest to the branch's.
3. Where one place fits better upwards and another downwards, nothing decides: a person must look.
"""
from __future__ import annotations

import re
from collections.abc import Sequence

from .diffing import FUNCTIONS, Edit, Heads, Lines

CONDITION = re.compile(rb"\s*#\s*(if|ifdef|ifndef|elif|else|endif)\b")
CPP = re.compile(r"\.dtsi?$")
SECTION = re.compile(rb"\[[^\]]+\]\s*$")
ALNUM = re.compile(rb"\w")
HEADING = re.compile(rb"(?:\w.*|\S.*{)(?<!;)\s*$|\bfor\s*\((?:[^()]|\([^()]*\))*;\s*$")
END = re.compile(rb"\s*[]})]")
NO_BLOCK = re.compile(rb"\s*(?:#(?!.*{\s*$)|/[*/])")      # a directive or a comment
FAR = 400               # lines of agreement beyond which one place is as close as another

Chain = tuple[bytes, ...]


def depth(line: bytes) -> int:
    """How far a line is indented."""
    text = line.expandtabs(8)
    return len(text) - len(text.lstrip())


def squeezed(line: bytes) -> bytes:
    return b" ".join(line.split())


class Scopes:
    """The blocks around each place of one file."""

    def __init__(self, path: str, lines: Lines):
        self.lines = lines
        self.heads = Heads(lines) if FUNCTIONS.search(path) else None
        self.where: dict[bytes, list[int]] = {}
        for i, text in enumerate(lines):
            self.where.setdefault(text, []).append(i)
        self.conditions: list[tuple[int, ...]] = []
        if self.heads or CPP.search(path):
            self.conditions = self.conditional()

    def conditional(self) -> list[tuple[int, ...]]:
        """For each place the lines of #if, #else and so on that it is below."""
        now: tuple[int, ...] = ()
        out = [now]
        for i, text in enumerate(self.lines):
            if m := CONDITION.match(text):
                word = m[1]
                now = (*(now if word.startswith(b"if") else now[:-1]), *([i] if word != b"endif" else []))
            out.append(now)
        return out

    def top(self, place: int) -> tuple[int, int]:
        """The function or section a place is in (its line, -1: none), and the last line of its heading."""
        if self.heads:
            t = self.heads.line(place)
            body = t
            while t >= 0 and body < place - 1 and b"{" not in self.lines[body]:
                body += 1
            return t, body
        for i in range(place - 1, -1, -1):
            if SECTION.match(self.lines[i]):
                return i, i
        return -1, -1

    def around(self, place: int, indent: int) -> list[int]:
        """The heading lines of the blocks around a line of that indent, outermost first."""
        t, stop = self.top(place)
        if self.heads and t < 0:            # between functions: in a macro, if in anything
            k = place
            while k and self.lines[k - 1].rstrip().endswith(b"\\"):
                k -= 1
            return [k] if k < place else []
        out = []
        ended = FAR         # how far the block is indented that ended here, further up than this line
        for i in range(place - 1, stop, -1):
            text, here = self.lines[i], depth(self.lines[i])
            if here >= min(indent, ended + 1) or NO_BLOCK.match(text) or not text.strip():
                continue
            head = HEADING.search(text)
            if here == ended and head:
                ended = here if END.match(text) else FAR
            elif head:
                out.append(i)
                indent, ended = here, FAR
            elif END.match(text):
                ended = here
        return ([t] if t >= 0 else []) + out[::-1]

    def name(self, i: int) -> bytes:
        """A heading; an `else` with what it belongs to."""
        name = squeezed(self.lines[i])
        k, level = i, 1
        if re.match(rb"#\s*el", name):          # and a part of an #if with that
            while level and k > 0:
                k -= 1
                if m := CONDITION.match(self.lines[k]):
                    level += {b"endif": 1, b"else": 0, b"elif": 0}.get(m[1], -1)
            return squeezed(self.lines[k]) + b" ... " + name
        while re.match(rb"}|else\b|elif\b|except\b|finally\b", name) and k > 0:
            k -= 1
            if ALNUM.search(self.lines[k]) and depth(self.lines[k]) <= depth(self.lines[i]):
                name = squeezed(self.lines[k]) + b" ... " + squeezed(self.lines[i])
        return name

    def extent(self, i: int) -> range:
        """The lines of the block below a heading; the whole file for -1."""
        if i < 0:
            return range(len(self.lines))
        end = i + 1
        while end < len(self.lines):
            text = self.lines[end]
            if text.strip() and depth(text) <= depth(self.lines[i]) and not NO_BLOCK.match(text) \
                    and not (self.heads and (text[:1] == b"{" or re.match(rb"\s*\w+:\s*$", text))):
                break
            end += 1
        return range(i, end)

    def count(self, name: bytes, within: range) -> int:
        return sum(squeezed(self.lines[i]) == name for i in within)


class Placing:
    """Judges the places of one file's edits: "" is right, else why not."""

    def __init__(self, path: str, up: Lines, local: Lines):
        self.path = path
        self.texts = up, local
        self.sides: tuple[Scopes, Scopes] | None = None

    def both(self) -> tuple[Scopes, Scopes]:
        if self.sides is None:
            self.sides = Scopes(self.path, self.texts[0]), Scopes(self.path, self.texts[1])
        return self.sides

    def judge(self, cut: Sequence[Edit], places: Sequence[tuple[int, int]]) -> tuple[str, bool]:
        """(why an edit stands in the wrong place, whether that is proven); ("", False): all is right."""
        doubt = ""
        for e, (i, j) in zip(cut, places):
            lines = self.texts[0][e.start:e.end] or list(e.new)
            indent = next((depth(x) for x in lines if ALNUM.search(x)), 0)
            why, sure = self.one(e, i, j, indent)
            if sure:
                return why, True
            doubt = doubt or why
        return doubt, False

    def one(self, e: Edit, i: int, j: int, indent: int) -> tuple[str, bool]:
        up, local = self.both()
        if why := self.refuted(i, j, indent):
            return why, True
        doubt = ""
        for back in (False, True):
            a, b, x, y = (local, up, j, i) if back else (up, local, i, j)
            why, sure = self.rivals(a, b, x, y, e, indent, back)
            if sure:
                return why, True
            doubt = doubt or why
        return doubt, False

    def refuted(self, i: int, j: int, indent: int) -> str:
        """Rule 1."""
        up, local = self.both()
        a, b = up.around(i, indent), local.around(j, indent)
        k = shared([up.name(x) for x in a], [local.name(x) for x in b])
        room = up.extent(a[k - 1] if k else -1), local.extent(b[k - 1] if k else -1)
        if why := self.parted(a[k:k + 1], b[k:k + 1], room):
            return why
        if not k or len(a) == len(b) == k:
            p, q = (list(s.conditions[x]) if s.conditions else [] for s, x in ((up, i), (local, j)))
            n = shared([up.name(x) for x in p], [local.name(x) for x in q])
            if wraps(up, p, local, q) or wraps(local, q, up, p):
                return ""
            return self.parted(p[n:n + 1], q[n:n + 1], room)
        return ""

    def parted(self, a: Sequence[int], b: Sequence[int], room: tuple[range, range]) -> str:
        """Whether one of two blocks that should be the same is on the other side, too."""
        up, local = self.both()
        names = [s.name(x[0]) if x else b"" for s, x in ((up, a), (local, b))]
        for name in filter(None, names):
            last = name.split(b" ... ")[-1]
            here, there = up.count(last, room[0]), local.count(last, room[1])
            if here and there and (there >= here if name is names[0] else here >= there):
                return f"{self.path}: the same lines, but in {say(names[1])} instead of {say(names[0])}"
        if up.heads and a and not b and a[0] == up.heads.line(a[0] + 1):
            return f"{self.path}: the same lines, but outside of {say(names[0])}"
        return ""

    def rivals(self, a: Scopes, b: Scopes, i: int, j: int, e: Edit, indent: int, back: bool
               ) -> tuple[str, bool]:
        """Rules 2 and 3: other places of `b` that are as close to place i of `a`."""
        n = e.end - e.start
        own = agreement(a, b, i, j, indent)
        mine = run(a.lines, b.lines, i, j, n)
        low, high = window(a, b, i, j, n)
        doubt = ""
        # Where nothing has a name, a paragraph may end in another one's last line.
        for r in candidates(a, b, i, n, not a.heads and not a.around(i, indent)):
            if r == j or not low < r < high or same_outcome(b.lines, e, j, r):
                continue
            if self.refuted(*((r, i) if back else (i, r)), indent):
                continue
            theirs, rank = run(a.lines, b.lines, i, r, n), agreement(a, b, i, r, indent)
            if rank < own:
                continue
            where = f"{self.path}: it also fits at line {r + 1} {'upstream' if back else 'here'}, "
            if rank > own or (own[2] and theirs[0] >= mine[0] and theirs[1] >= mine[1] and theirs != mine):
                return where + f"which is closer to line {i + 1}", True
            if not own[2] or theirs[0] > mine[0] or theirs[1] > mine[1] or theirs == mine:
                doubt = where + "and nothing decides between the two"
        return doubt, False


def wraps(a: Scopes, outer: Sequence[int], b: Scopes, inner: Sequence[int]) -> bool:
    """Whether one side has the other's #if blocks, and around them some that the other lacks (a guard)."""
    more = outer[:len(outer) - len(inner)]
    return [a.name(x) for x in outer[len(more):]] == [b.name(x) for x in inner] \
        and not any(b.where.get(a.lines[x]) for x in more)


def say(name: bytes) -> str:
    text = name.decode("utf-8", "replace")
    return repr(text if len(text) <= 60 else text[:57] + "...") if text else "no block"


def shared(a: Sequence[bytes], b: Sequence[bytes]) -> int:
    """How many names agree from the start."""
    k = 0
    while k < min(len(a), len(b)) and a[k] == b[k]:
        k += 1
    return k


def agreement(a: Scopes, b: Scopes, i: int, j: int, indent: int) -> tuple[int, int, bool]:
    """How well the blocks around two places agree by name, and whether in full."""
    x, y = ([s.name(k) for k in s.around(at, indent)] for s, at in ((a, i), (b, j)))
    p, q = ([s.name(k) for k in s.conditions[at]] if s.conditions else [] for s, at in ((a, i), (b, j)))
    return shared(x, y), shared(p, q), (x, p) == (y, q)


def run(a: Lines, b: Lines, i: int, j: int, n: int) -> tuple[int, int]:
    """How many lines above and below two places are alike."""
    u = d = 0
    while u < FAR and i - u > 0 and j - u > 0 and a[i - u - 1] == b[j - u - 1]:
        u += 1
    while d < FAR and i + n + d < len(a) and j + n + d < len(b) and a[i + n + d] == b[j + n + d]:
        d += 1
    return u, d


def window(a: Scopes, b: Scopes, i: int, j: int, n: int) -> tuple[int, int]:
    """The nearest lines above and below that both files have once, as lines of the second."""
    def image(k: int) -> int:
        twin = b.where.get(a.lines[k], [])
        return twin[0] if len(twin) == 1 and len(a.where[a.lines[k]]) == 1 else -1
    low = next((m for k in range(i - 1, -1, -1) if 0 <= (m := image(k)) < j), -1)
    high = next((m for k in range(i + n, len(a.lines)) if (m := image(k)) >= j + n), len(b.lines) + 1)
    return low, high


def candidates(a: Scopes, b: Scopes, i: int, n: int, bare: bool) -> list[int]:
    """Where else an edit of the lines [i, i + n) fits: what it removes, or both its neighbours.

    `bare`: at the end of a paragraph the one above will do."""
    start, end = i, i + n
    if not n:               # as far as the next lines that say anything
        while start > 0 and (start == i or not ALNUM.search(a.lines[start])):
            start -= 1
        below = not (bare and i and not ALNUM.search(a.lines[i - 1]))
        while below and end < len(a.lines) and (end == i or not (bare or ALNUM.search(a.lines[end - 1]))):
            end += 1
        if start == i or end == i and below:        # the file's first or last line
            return []
    want = a.lines[start:end]
    key = min(range(len(want)), key=lambda k: len(b.where.get(want[k], ())))
    return [s + i - start for at in b.where.get(want[key], ()) if (s := at - key) >= 0
            and b.lines[s:s + len(want)] == want]


def same_outcome(lines: Lines, e: Edit, j: int, r: int) -> bool:
    """Whether an edit at either of two places gives the same file."""
    n = e.end - e.start
    lo, hi = min(j, r), max(j, r) + n
    one, two = ([*lines[lo:p], *e.new, *lines[p + n:hi]] for p in (j, r))
    return one == two
