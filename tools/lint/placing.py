# SPDX-License-Identifier: GPL-2.0-only
"""Does a carried edit stand where upstream's does?  By the names of what surrounds it, not by lines alone.

The rule, as lint.rst states it:

1. The blocks around a place (function, class, node, entry, case, branch, #if) are compared by name,
   outermost first.  Where the names part, neither side's block may exist on the other side as well.
   Comments are no blocks, nor are #if lines around the other side's, which that side lacks.
2. Where the lines fit at several places, by a neighbour above or below, those whose blocks agree best
   count; of them the place whose neighbours upwards and downwards go on alike for longest must be the
   branch's, and upstream's own place must likewise be the closest to the branch's.
3. Where one place fits better upwards and another downwards, the line that tells them apart decides which is
   in the same paragraph or block, while the other is beyond; else a person must look.
"""
from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from .diffing import FUNCTIONS, Edit, Heads, Lines

CONDITION = re.compile(rb"\s*#\s*(if|ifdef|ifndef|elif|else|endif)\b")
CPP = re.compile(r"\.dtsi?$")
SECTION = re.compile(rb"\[[^\]]+\]\s*$")
ALNUM = re.compile(rb"\w")
HEADING = re.compile(rb"(?:\w.*|[^\s},].*{)(?<!;)\s*$|\bfor\s*\((?:[^()]|\([^()]*\))*;\s*$")
END = re.compile(rb"\s*[]})]")
NO_BLOCK = re.compile(rb"\s*(?:#(?!.*{\s*$)|/[*/])")      # a directive or a comment
NOTE = re.compile(rb"\s*(?:/[*/]|#\s)")
FAR = 400               # lines of agreement beyond which one place is as close as another

Chain = tuple[int, ...]         # lines, outermost first


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
        self.sections = [] if self.heads else [i for i, text in enumerate(lines) if SECTION.match(text)]
        self.chains: dict[Chain, Chain] = {}
        self.names: dict[int, bytes] = {}
        self.conditions: list[Chain] = []
        if self.heads or CPP.search(path):
            self.conditions = self.conditional()

    def conditional(self) -> list[Chain]:
        """For each place the lines of #if, #else and so on that it is below."""
        now: Chain = ()
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
            return t, min(self.body(t), place - 1)
        k = bisect_left(self.sections, place) - 1
        return (self.sections[k], self.sections[k]) if k >= 0 else (-1, -1)

    def body(self, t: int) -> int:
        """The last line of a function's heading."""
        while 0 <= t < len(self.lines) - 1 and b"{" not in self.lines[t]:
            t += 1
        return t

    def around(self, place: int, indent: int) -> Chain:
        """The heading lines of the blocks around a line of that indent, outermost first."""
        t, stop = self.top(place)
        if self.heads and t < 0:            # between functions: in a macro, if in anything
            k = place
            while k and self.lines[k - 1].rstrip().endswith(b"\\"):
                k -= 1
            return (k,) if k < place else ()
        out: Chain = ()
        passed: list[tuple[Chain, bool]] = []       # the lines on the way up, and which of them are headings
        ended = FAR         # how far the block is indented that ended here, further up than this line
        for i in range(place - 1, stop, -1):
            known: Chain = (i, stop, indent, ended)
            if known in self.chains:
                out = self.chains[known]
                break
            passed.append((known, False))
            text, here = self.lines[i], depth(self.lines[i])
            if here >= min(indent, ended + 1) or NO_BLOCK.match(text) or not text.strip():
                continue
            head = HEADING.search(text)
            if here == ended and head:
                ended = here if END.match(text) else FAR
            elif head:
                passed[-1] = (known, True)
                indent, ended = here, FAR
            elif END.match(text):
                ended = here
        for known, is_head in reversed(passed):
            out = self.chains[known] = (*out, known[0]) if is_head else out
        return (t, *out) if t >= 0 else out

    def blocks(self, place: int, indent: int) -> tuple[Chain, Chain]:
        """The blocks and the conditions around a line of that indent."""
        return self.around(place, indent), self.conditions[place] if self.conditions else ()

    def name(self, i: int) -> bytes:
        """A heading; an `else` with what it belongs to."""
        if i not in self.names:
            self.names[i] = self.named(i)
        return self.names[i]

    def named(self, i: int) -> bytes:
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
        end = (self.body(i) if self.heads and self.heads.line(i + 1) == i else i) + 1
        while end < len(self.lines):
            text = self.lines[end]
            if text.strip() and depth(text) <= depth(self.lines[i]) and not NO_BLOCK.match(text) \
                    and not (self.heads and (text[:1] == b"{" or re.match(rb"\s*\w+:\s*$", text))):
                break
            end += 1
        return range(i, end)

    def count(self, name: bytes, within: range) -> int:
        if CONDITION.match(name):
            return sum(name == self.name(i) for i in within if CONDITION.match(self.lines[i]))
        return sum(name in (squeezed(self.lines[i]), self.names.get(i)) for i in within)


def name_functions(sides: tuple[Scopes, Scopes]) -> None:
    """Name each function by its heading's lines, by as many as tell it from the others of both files."""
    tops = [[(t, s.body(t)) for t in s.heads.top if s.lines[t][:1] != b"}"] if s.heads else [] for s in sides]
    more = [[t for t, _ in part] for part in tops]
    n = 0
    while any(more):
        n += 1
        for s, part, todo in zip(sides, tops, more):
            ends = dict(part)
            s.names.update((t, squeezed(b" ".join(s.lines[t:min(t + n, ends[t] + 1)])).rstrip(b" {"))
                           for t in todo)
        found = [Counter(s.names[t] for t, _ in part) for s, part in zip(sides, tops)]
        more = [[t for t, end in part if t + n <= end and max(f[s.names[t]] for f in found) > 1]
                for s, part in zip(sides, tops)]


class Placing:
    """Judges the places of one file's edits: "" is right, else why not."""

    def __init__(self, path: str, up: Lines, local: Lines):
        self.path = path
        same: dict[bytes, bytes] = {}       # equal lines as one object are compared at once
        self.texts = [same.setdefault(x, x) for x in up], [same.setdefault(x, x) for x in local]
        self.sides: tuple[Scopes, Scopes] | None = None
        self.anchors: dict[bool, list[tuple[int, int]]] = {}
        self.verdicts: dict[tuple[Chain, ...], str] = {}
        self.judged: dict[tuple[Edit, int, int], tuple[str, bool]] = {}

    def both(self) -> tuple[Scopes, Scopes]:
        if self.sides is None:
            self.sides = Scopes(self.path, self.texts[0]), Scopes(self.path, self.texts[1])
            name_functions(self.sides)
        return self.sides

    def judge(self, cut: Sequence[Edit], places: Sequence[tuple[int, int]]) -> tuple[str, bool]:
        """(why an edit stands in the wrong place, whether that is proven); ("", False): all is right."""
        doubt = ""
        for e, (i, j) in zip(cut, places):
            if (e, i, j) not in self.judged:
                self.judged[e, i, j] = self.one(e, i, j, self.indent(e))
            why, sure = self.judged[e, i, j]
            if sure:
                return why, True
            doubt = doubt or why
        return doubt, False

    def twin(self, e: Edit) -> tuple[range, range] | None:
        """The innermost block around an edit that both files have once by name."""
        up, local = self.both()
        found, rooms = None, (up.extent(-1), local.extent(-1))
        for x in up.around(e.start, self.indent(e)):
            name = up.name(x).split(b" ... ")[-1]
            y = [k for k in rooms[1] if name in (squeezed(local.lines[k]), local.names.get(k))]
            if up.count(name, rooms[0]) != 1 or len(y) != 1 or self.refuted(x, y[0], depth(up.lines[x])):
                break
            rooms = up.extent(x), local.extent(y[0])
            if not rooms[0].start < e.start <= e.end <= rooms[0].stop:
                break
            found = rooms
        return found

    def indent(self, e: Edit) -> int:
        """How far what an edit changes is indented."""
        lines = self.texts[0][e.start:e.end] or list(e.new)
        return next((depth(x) for x in lines if ALNUM.search(x)), 0)

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
        key = *up.blocks(i, indent), *local.blocks(j, indent)
        if key not in self.verdicts:
            self.verdicts[key] = self.differ(*key)
        return self.verdicts[key]

    def differ(self, a: Chain, p: Chain, b: Chain, q: Chain) -> str:
        """Why blocks a in conditions p are not what blocks b in q are here; "": they may be."""
        up, local = self.both()
        k = shared([up.name(x) for x in a], [local.name(x) for x in b])
        room = up.extent(a[k - 1] if k else -1), local.extent(b[k - 1] if k else -1)
        if why := self.parted(a[k:k + 1], b[k:k + 1], room):
            return why
        if not k or len(a) == len(b) == k:
            n = shared([up.name(x) for x in p], [local.name(x) for x in q])
            if wraps(up, p, local, q) or wraps(local, q, up, p):
                return ""
            if any(x not in within for y, within in ((p, room[0]), (q, room[1])) for x in y[n:n + 1]):
                room = up.extent(-1), local.extent(-1)
            return self.parted(p[n:n + 1], q[n:n + 1], room)
        return ""

    def parted(self, a: Sequence[int], b: Sequence[int], room: tuple[range, range]) -> str:
        """Whether one of two blocks that should be the same is on the other side, too."""
        up, local = self.both()
        names = [s.name(x[0]) if x else b"" for s, x in ((up, a), (local, b))]
        for name in filter(None, names):
            last = name if CONDITION.match(name) else name.split(b" ... ")[-1]
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
        slides = reach(b.lines, e, j)
        doubt = ""
        low, high = self.window(back, i, j, n)
        for r, fits in candidates(a, b, i, n):
            if r == j or same_outcome(b.lines, e, j, r, slides):
                continue
            closer = nearer(a, b, (i, j, r), e, indent)
            if own[2] and (closer < 0 or doubt and not closer):
                continue
            if not low < r <= high - n and not (own[2] and closer >= 0 and self.moved(back, (i, j, r), n)):
                continue
            rank = agreement(a, b, i, r, indent)
            alike = own[2] or rank > own or b.blocks(r, indent) == b.blocks(j, indent)
            if rank < own or not (fits or alike) or self.refuted(*((r, i) if back else (i, r)), indent):
                continue
            where = f"{self.path}: it also fits at line {r + 1} {'upstream' if back else 'here'}, "
            if fits and rank > own or alike and closer > 0:
                return where + f"which is closer to line {i + 1}", True
            if not alike or closer == 0 and (fits or twins(a, b, (i, j, r), n)):
                doubt = where + "and nothing decides between the two"
        return doubt, False

    def moved(self, back: bool, places: tuple[int, int, int], n: int) -> bool:
        """Whether a line that both files have once tells the last place from the second."""
        a, b = self.both()[::-1] if back else self.both()
        i, j, r = places
        mine, theirs = run(a.lines, b.lines, i, j, n), run(a.lines, b.lines, i, r, n)
        told = (a.lines[at] for at, x, y in zip((i - 1 - mine[0], i + n + mine[1]), mine, theirs) if x < y)
        return any(len(a.where[x]) == len(b.where.get(x, ())) == 1 for x in told)

    def window(self, back: bool, i: int, j: int, n: int) -> tuple[int, int]:
        """The nearest lines above and below that both files have once, as lines of the second."""
        if back not in self.anchors:
            up, local = self.both()
            a, b = (local, up) if back else (up, local)
            once = [(at[0], b.where[text][0]) for text, at in a.where.items()
                    if len(at) == 1 and len(b.where.get(text, ())) == 1]
            self.anchors[back] = sorted(once)
        anchors = self.anchors[back]
        k = bisect_left(anchors, (i, 0))
        low = next((m for _, m in reversed(anchors[:k]) if m < j), -1)
        k = bisect_left(anchors, (i + n, 0))
        high = next((m for _, m in anchors[k:] if m >= j + n), len(self.texts[not back]))
        return low, high


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
    (x, p), (y, q) = ([[s.name(k) for k in part] for part in s.blocks(at, indent)]
                      for s, at in ((a, i), (b, j)))
    return shared(x, y), shared(p, q), (x, p) == (y, q)


def run(a: Lines, b: Lines, i: int, j: int, n: int) -> tuple[int, int]:
    """How many lines above and below two places are alike."""
    u = d = 0
    for step in (FAR, 64, 8, 1):
        while u < FAR and u + step <= min(i, j) and a[i - u - step:i - u] == b[j - u - step:j - u]:
            u += step
        x, y = i + n, j + n
        while d < FAR and x + d + step <= len(a) and y + d + step <= len(b) \
                and a[x + d:x + d + step] == b[y + d:y + d + step]:
            d += step
    return u + (u == i == j), d + (i + n + d == len(a) and j + n + d == len(b))     # and the file's ends


def twins(a: Scopes, b: Scopes, places: tuple[int, int, int], n: int) -> bool:
    """Whether the first place's nearest line that says something, above or below, is next to both others."""
    i, j, r = places
    above, below = (min(x, y) for x, y in zip(run(a.lines, b.lines, i, j, n), run(a.lines, b.lines, i, r, n)))
    return any(map(ALNUM.search, a.lines[i - above:i] + a.lines[i + n:i + n + below]))


def nearer(a: Scopes, b: Scopes, places: tuple[int, int, int], e: Edit, indent: int) -> int:
    """Which of two places agrees better with the first one: 1 the last, -1 the second, 0: nothing decides.

    Where one does upwards and the other downwards, the nearer of the two lines that tell them apart
    counts, by the blocks and paragraphs in between, if it is in the same paragraph.  Where nothing has
    a name, a new paragraph is not one with its neighbours."""
    (i, j, r), n = places, e.end - e.start
    mine, theirs = run(a.lines, b.lines, i, j, n), run(a.lines, b.lines, i, r, n)
    above, below = ((x > y) - (x < y) for x, y in zip(theirs, mine))
    if above * below >= 0:
        return above or below
    ways, bare = [], not a.heads and not a.around(i, indent)
    for k, better in enumerate((above, below)):
        far, edge = min(mine[k], theirs[k]) + 1, (e.new or a.lines[i:i + n])[-k]
        ways.append(max(crossed(lines[at + n:at + n + far] if k else lines[max(at - far, 0):at][::-1],
                                indent, not k, bare and not edge.strip())
                        for lines, at in ((a.lines, i), (b.lines, j if better > 0 else r))))
    if ways[0] == ways[1] or min(ways)[1]:
        return 0
    return above if ways[0] < ways[1] else below


def crossed(lines: Lines, indent: int, up: bool, blank: bool) -> tuple[int, int, bool]:
    """How many blocks one leaves and paragraphs one passes along these lines, and whether one enters a block.

    `blank`: they start next to a blank line.  A heading or a comment above, a bracket below and a blank
    line are the last ones of what they belong to."""
    left = passed = 0
    entered = ended = note = False
    for text in lines:
        was, note = note, bool(NOTE.match(text))
        left += ended
        passed += blank or (was if up else note) and was != note
        blank = not text.strip()
        here = indent if blank or NO_BLOCK.match(text) else depth(text)
        ended = here < indent and (up or bool(END.match(text)))
        left += here < indent and not ended
        entered = entered or here > indent
        indent = min(here, indent)
    return left, passed, entered


def candidates(a: Scopes, b: Scopes, i: int, n: int) -> list[tuple[int, bool]]:
    """Where an edit of the lines [i, i + n) fits, too: what it removes, or its neighbours; and whether not
    only one of these."""
    if n:
        return [(r, True) for r in found(b, a.lines[i:i + n], 0)]
    start, end = i, i           # as far as the next lines that say anything
    while start > 0 and (start == i or not ALNUM.search(a.lines[start])):
        start -= 1
    while end < len(a.lines) and (end == i or not ALNUM.search(a.lines[end - 1])):
        end += 1
    above = found(b, a.lines[start:i], i - start) if start < i else []
    below = found(b, a.lines[i:end], 0) if i < end else []
    both = set(above) & set(below)
    return [(r, r in both) for r in sorted({*above, *below})]


def found(b: Scopes, want: Lines, shift: int) -> list[int]:
    """The places that are `shift` lines below the start of these lines."""
    key = min(range(len(want)), key=lambda k: len(b.where.get(want[k], ())))
    return [x - key + shift for x in b.where.get(want[key], ())
            if x >= key and b.lines[x - key:x - key + len(want)] == want]


def reach(lines: Lines, e: Edit, j: int) -> tuple[int, int]:
    """How far up and down an insertion or a deletion at a place can slide."""
    n = e.end - e.start
    body = list(e.new) or lines[j:j + n]
    up, down = j, j + n
    while up > 0 and not (n and e.new) and lines[up - 1] == body[(up - 1 - j) % len(body)]:
        up -= 1
    while down < len(lines) and not (n and e.new) and lines[down] == body[(down - j - n) % len(body)]:
        down += 1
    return up, down - n


def same_outcome(lines: Lines, e: Edit, j: int, r: int, slide: tuple[int, int]) -> bool:
    """Whether an edit at either of two places gives the same file."""
    n = e.end - e.start
    body = list(e.new) or lines[j:j + n]
    k = (r - j) % len(body)
    if not (n and e.new):
        return slide[0] <= r <= slide[1] and body[k:] + body[:k] == body
    lo, hi = min(j, r), max(j, r) + n
    if e.new[0] != lines[lo]:
        return False
    one, two = ([*lines[lo:p], *e.new, *lines[p + n:hi]] for p in (j, r))
    return one == two
