# SPDX-License-Identifier: GPL-2.0-only
"""Lines, edits, and carrying an edit from one file over to another.

`carry` is the proof that a change is the same: the edits of the original are applied to the
local file at the places that an alignment of the two files gives them, never by searching for
look-alike context.  The caller compares the outcome with the local result byte by byte, so a
poor alignment can only refuse.

Why not git's own diff or difflib: git prints hunks, and applying these searches for context, which
finds a place in the wrong one of two functions that look alike; what is needed is which line of one
file is which of the other, whole.  difflib takes quadratic time on kernel files, and it anchors on
the longest common run, which in such code is often boilerplate; lines that are unique in both files
(patience) anchor better, and Myers' search between them is shortest.
"""
from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Lines = list[bytes]
CONTEXT = 3
EFFORT = 800            # lines by which two passages without unique lines may differ to be aligned
WORD = re.compile(rb"[A-Za-z_$]")
LABEL = re.compile(rb"[A-Za-z_]\w*:\s*(?:/[*/].*)?$")
ROOM = re.compile(rb"(?:inline\s+)?namespace\b|extern\s+\"C")      # holds functions, and is none
FUNCTIONS = re.compile(r"\.(?:c|h|cc|cpp|cxx|hpp|hh|rs|go|java|m|S|l|y)$")


class Edit(NamedTuple):
    """Lines [start, end) become `new`."""
    start: int
    end: int
    new: tuple[bytes, ...]


@dataclass
class Before:
    """What is known of a file before a change: all of it, or the hunks' own lines."""
    lines: Lines
    breaks: set[int] = field(default_factory=set)       # no line known between i - 1 and i
    bof: bool = True                                    # the first line is the file's first
    eof: bool = True


def split(data: bytes) -> Lines:
    parts = data.split(b"\n")
    tail = parts.pop()
    lines = [p + b"\n" for p in parts]
    if tail:
        lines.append(tail)
    return lines


def blocks(a: Sequence[bytes], b: Sequence[bytes], ends: bool = True) -> list[tuple[int, int, int]]:
    """Matching blocks (i, j, n), rising in both: patience, then Myers between the anchors.

    `ends`: what the two begin and end with alike is matched first, else their anchors."""
    found: list[tuple[int, int, int]] = []
    todo = [(0, len(a), 0, len(b))]
    if not ends:
        first = unique_anchors(a, 0, len(a), b, 0, len(b))
        found += [(i, j, 1) for i, j in first]
        todo = [(i0 + 1, i1, j0 + 1, j1)
                for (i0, j0), (i1, j1) in zip([(-1, -1), *first], [*first, (len(a), len(b))])]
    while todo:
        alo, ahi, blo, bhi = todo.pop()
        n = 0
        while alo + n < ahi and blo + n < bhi and a[alo + n] == b[blo + n]:
            n += 1
        if n:
            found.append((alo, blo, n))
            alo, blo = alo + n, blo + n
        n = 0
        while ahi - n > alo and bhi - n > blo and a[ahi - n - 1] == b[bhi - n - 1]:
            n += 1
        if n:
            ahi, bhi = ahi - n, bhi - n
            found.append((ahi, bhi, n))
        if alo == ahi or blo == bhi:
            continue
        anchors = unique_anchors(a, alo, ahi, b, blo, bhi)
        if not anchors:
            found += [(alo + i, blo + j, 1) for i, j in common(a[alo:ahi], b[blo:bhi])]
            continue
        i0, j0 = alo, blo
        for i, j in anchors:
            found.append((i, j, 1))
            todo.append((i0, i, j0, j))
            i0, j0 = i + 1, j + 1
        todo.append((i0, ahi, j0, bhi))
    found.sort()
    return found


def unique_anchors(a: Sequence[bytes], alo: int, ahi: int, b: Sequence[bytes], blo: int, bhi: int
                   ) -> list[tuple[int, int]]:
    once_a = Counter(a[alo:ahi])
    once_b = Counter(b[blo:bhi])
    where = {line: j for j, line in enumerate(b[blo:bhi], blo) if once_b[line] == 1}
    pairs = [(i, where[line]) for i, line in enumerate(a[alo:ahi], alo)
             if once_a[line] == 1 and line in where]
    return [pairs[k] for k in sorted(rising([j for _, j in pairs]))]


def rising(numbers: Sequence[int], place: Callable[[list[int], int], int] = bisect_left) -> set[int]:
    """Which of the numbers are on a longest rising run; bisect_right lets equal ones follow each other."""
    tails: list[int] = []               # the smallest end of a run of each length, and where it is
    ends: list[int] = []
    back: list[int] = []
    for k, n in enumerate(numbers):
        at = place(tails, n)
        back.append(ends[at - 1] if at else -1)
        tails[at:at + 1], ends[at:at + 1] = [n], [k]
    run = set()
    k = ends[-1] if ends else -1
    while k >= 0:
        run.add(k)
        k = back[k]
    return run


def common(a: Sequence[bytes], b: Sequence[bytes]) -> list[tuple[int, int]]:
    """A longest common subsequence (Myers' greedy search); nothing when they differ by too much."""
    far = {1: 0}                                # diagonal -> furthest line of a
    steps: list[dict[int, int]] = []
    for d in range(min(EFFORT, len(a) + len(b)) + 1):
        steps.append(dict(far))
        for k in range(-d, d + 1, 2):
            down = k == -d or (k != d and far[k - 1] < far[k + 1])
            x = far[k + 1] if down else far[k - 1] + 1
            while x < len(a) and x - k < len(b) and a[x] == b[x - k]:
                x += 1
            far[k] = x
            if x >= len(a) and x - k >= len(b):
                return trace(steps, len(a), len(b))
    return []


def trace(steps: Sequence[dict[int, int]], x: int, y: int) -> list[tuple[int, int]]:
    pairs = []
    for d in range(len(steps) - 1, -1, -1):
        far, k = steps[d], x - y
        down = k == -d or (k != d and far[k - 1] < far[k + 1])
        before = k + 1 if down else k - 1
        px = far[before] if d else 0
        py = px - before if d else 0
        while x > px and y > py:
            x, y = x - 1, y - 1
            pairs.append((x, y))
        x, y = px, py
    return pairs[::-1]


def edits(old: Sequence[bytes], new: Sequence[bytes]) -> list[Edit]:
    out = []
    i = j = 0
    for bi, bj, n in [*blocks(old, new), (len(old), len(new), 0)]:
        if bi > i or bj > j:
            out.append(Edit(i, bi, tuple(new[j:bj])))
        i, j = bi + n, bj + n
    return out


def slide(old: Sequence[bytes], changes: Sequence[Edit], up: bool) -> list[Edit]:
    """The same result, every pure insertion or deletion slid as far as it goes."""
    out = list(changes)
    order = range(len(out)) if up else range(len(out) - 1, -1, -1)
    for k in order:
        start, end, new = out[k]
        low = out[k - 1].end if k else 0
        high = out[k + 1].start if k + 1 < len(out) else len(old)
        if start != end and new:
            continue
        body = list(new) if new else list(old[start:end])
        while body:
            if up:
                if start <= low or old[start - 1] != body[-1]:
                    break
                body.insert(0, body.pop())
                start, end = start - 1, end - 1
            else:
                if end >= high or old[end] != body[0]:
                    break
                body.append(body.pop(0))
                start, end = start + 1, end + 1
        out[k] = Edit(start, end, tuple(body) if new else ())
    return out


class Heads:
    """The function that each place of a file is in."""

    def __init__(self, lines: Lines):
        self.lines = lines
        self.top = [i for i, text in enumerate(lines) if self.starts(i, text)]

    def starts(self, i: int, text: bytes) -> bool:
        if text[:1] == b"}":
            return True
        if not WORD.match(text) or LABEL.match(text.rstrip()) or ROOM.match(text):
            return False
        for more in self.lines[i:i + 12]:       # a prototype or a variable is no function
            stop = more.split(b"//")[0].rstrip()
            if b"{" in stop:
                return stop.count(b"{") != stop.count(b"}")     # a body in one line holds no place
            if stop.endswith(b";"):
                return False
        return False

    def name(self, i: int) -> bytes:
        return b" ".join(self.lines[i].split())

    def line(self, place: int) -> int:
        """The line of the heading above a place; -1 between functions or when not known."""
        k = bisect_left(self.top, place) - 1
        return -1 if k < 0 or self.lines[self.top[k]][:1] == b"}" else self.top[k]

    def at(self, place: int) -> bytes | None:
        """Heading above a place."""
        line = self.line(place)
        return self.name(line) if line >= 0 else None


@dataclass
class Outcome:
    lines: Lines
    exact: bool                             # all context was found as it was
    places: list[tuple[int, int]]           # (place in the original, place in the local file)


def carry(before: Before, changes: Sequence[Edit], local: Lines, pairs: Sequence[tuple[int, int, int]],
          wanted: Lines | None = None) -> Outcome | None:
    """Apply `changes`, made against `before`, to `local` along the alignment `pairs`.

    None when a changed line has no counterpart or an insertion has no proven place.  Where two
    places are proven (the local file has lines of its own just there) `wanted` picks one.
    """
    image = [-1] * len(before.lines)
    for i, j, n in pairs:
        image[i:i + n] = range(j, j + n)
    out: Lines = []
    done = 0
    exact = True
    places = []
    for start, end, new in changes:
        if end > start:
            first = image[start]
            if first < done or any(image[start + k] != first + k for k in range(end - start)):
                return None
        else:
            spots = sorted(s for s in insertion_places(before, image, start, len(local)) if s >= done)
            if not spots:
                return None
            base = len(out) - done
            first = next((s for s in spots if wanted is not None
                          and tuple(wanted[base + s:base + s + len(new)]) == new), spots[0])
        last = first + end - start
        exact = exact and same_context(before, image, (start, end), (first, last), len(local))
        out += local[done:first]
        out += new
        places.append((start, first))
        done = last
    out += local[done:]
    return Outcome(out, exact, places)


def insertion_places(before: Before, image: Sequence[int], at: int, size: int) -> set[int]:
    """Where lines before line `at` go in a local file of `size` lines, seen from either neighbour."""
    spots = set()
    if at not in before.breaks:
        if at > 0 and image[at - 1] >= 0:
            spots.add(image[at - 1] + 1)
        if at < len(image) and image[at] >= 0:
            spots.add(image[at])
    if at == 0 and before.bof:
        spots.add(0)
    if at == len(image) and before.eof:
        spots.add(size)
    if not spots and (gap := gap_place(before, image, at, size)) is not None:
        spots.add(gap)
    return spots


def same_context(before: Before, image: Sequence[int], old: tuple[int, int], new: tuple[int, int],
                 size: int) -> bool:
    """Whether the lines around an edit are around its place, too."""
    for k in range(1, CONTEXT + 1):
        for i, want, step in ((old[0] - k, new[0] - k, -1), (old[1] + k - 1, new[1] + k - 1, 1)):
            if i < 0 or i >= len(image):
                if 0 <= want < size and (before.bof if i < 0 else before.eof):
                    return False
            elif not crosses(before, old[0] if step < 0 else old[1], i, step) and image[i] != want:
                return False
    return True


def crosses(before: Before, place: int, line: int, step: int) -> bool:
    """Whether lines that nobody knows lie between a place and a line."""
    span = range(line + 1, place + 1) if step < 0 else range(place, line + 1)
    return any(i in before.breaks for i in span)


def gap_place(before: Before, image: Sequence[int], at: int, size: int) -> int | None:
    """The place of an insertion whose both neighbours changed locally."""
    i = at - 1
    while i >= 0 and image[i] < 0 and i + 1 not in before.breaks:
        i -= 1
    j = at
    while j < len(image) and image[j] < 0 and j not in before.breaks:
        j += 1
    if (i >= 0 and i + 1 in before.breaks) or (j < len(image) and j in before.breaks):
        return None
    if (i < 0 and not before.bof) or (j >= len(image) and not before.eof):
        return None
    low = image[i] + 1 if i >= 0 else 0
    high = image[j] if j < len(image) else size
    here = j - i - 1
    if high - low == 0:
        return low
    if high - low == here and here <= 2 * CONTEXT:
        return low + (at - i - 1)
    return None


def blank_free(lines: Sequence[bytes]) -> Lines:
    """Lines without any white space; those with nothing else vanish."""
    return [t for t in (b"".join(x.split()) for x in lines) if t]
