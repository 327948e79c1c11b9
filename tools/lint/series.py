# SPDX-License-Identifier: GPL-2.0-only
"""Posted series as references: their versions, covers and threads."""
from __future__ import annotations

import gzip
import http.client
import re
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import message as msg
from .compare import CONTEXT, MATCH, Verdict
from .gitio import FetchFailed, Git, silence
from .patches import Patch, find_contents, parse_mbox
from .render import Finding, progress
from .rows import FETCH_FAILED, REMEDY

FETCH_SECONDS = 60.0


@dataclass
class Series:
    """One posted version, or a directory or range given as the reference."""
    patches: list[Patch]
    version: int
    cover: Patch | None

    def subjects(self) -> set[str]:
        return {msg.bare(p.subject).casefold() for p in self.patches + ([self.cover] if self.cover else [])}

    def label(self) -> str:
        first = self.cover or self.patches[0]
        return f"v{self.version}" + (f" ({first.msgid})" if first.msgid else "")


class Posted:
    """All series that are given, and the mails that links can lead to."""

    def __init__(self, stores: Sequence[Git], fetch: bool) -> None:
        self.stores = stores            # where contents are looked for
        self.fetch = fetch              # threads that links name are fetched
        self.series: list[Series] = []
        self.mails: dict[str, Patch] = {}
        self.fetched: dict[str, str] = {}       # link -> why it failed, "" if it did not
        self.findings: list[Finding] = []

    def load(self, patches: Sequence[Patch], posted: bool) -> None:
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
            # a resent patch replaces the first
            group = list({str(p.number or p.key() + p.subject): p for p in group}.values())
            numbered = all(p.number for p in group)
            if numbered:
                group.sort(key=lambda p: p.number)
            version, total, _ = key
            self.series.append(Series(group, version, covers.get(key)))
            lost = sorted(set(range(1, total + 1)) - {p.number for p in group})
            if numbered and lost:
                self.findings.append(Finding(
                    "error", "incomplete", "",
                    f"the reference has only {len(group)} of the {total} patches of "
                    f"v{version}: {', '.join(map(str, lost))} missing", "fetch the whole thread"))

    def families(self) -> list[list[Series]]:
        """Versions of the same series together."""
        out: list[list[Series]] = []
        for s in self.series:
            names = s.subjects()
            kin = [f for f in out if any(names & o.subjects() for o in f)]
            out = [f for f in out if f not in kin] + [[s] + [x for f in kin for x in f]]
        return out

    def patch(self, link: str, subject: str) -> tuple[Patch | None, str]:
        """The patch that a link leads to, or why there is none."""
        name = link_id(link)
        if name not in self.mails and self.fetch and link.startswith("http"):
            self.fetch_thread(link)
        found = self.mails.get(name)
        if found is None:
            return None, f"{link} is not among the posted patches" + ("" if self.mails
                                                                      else ": none are given")
        if found.files or found.broken:
            return found, ""
        for s in self.series:               # a cover letter's link
            if s.cover is found and (twin := by_subject(s.patches, subject)):
                return twin, ""
        return None, f"{link} is a cover letter, and no patch below it has this subject"

    def fetch_thread(self, link: str) -> None:
        """Fetch what an archive has of a link's thread, once."""
        url = link.rstrip("/") + "/t.mbox.gz"
        if url not in self.fetched:
            progress(f"fetching {url}")
            try:
                with urllib.request.urlopen(url, timeout=min(FETCH_SECONDS, silence())) as answer:
                    raw = answer.read()
                got = parse_mbox(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw, url)
                if not got:
                    raise ValueError("no patches in it")
                find_contents(got, self.stores)
                self.mails.update({m.msgid: m for m in got if m.msgid})
                self.fetched[url] = ""
            except (OSError, EOFError, ValueError, zlib.error, http.client.HTTPException) as e:
                self.fetched[url] = str(e) or type(e).__name__
        if self.fetched[url]:
            raise FetchFailed(f"{url}: {self.fetched[url]}", REMEDY[FETCH_FAILED])


def carried(family: Sequence[Series], local: Sequence[Patch],
            compare: Callable[[Patch, Patch], Verdict]) -> Series:
    """The version that the branch carries: by its links, then by how many patches prove equal."""
    links = {link_id(o.link) for p in local for o in msg.origins(p.message, p.headers) if o.link}

    def score(s: Series) -> tuple[int, int, int]:
        named = sum(p.msgid in links for p in s.patches + ([s.cover] if s.cover else []) if p.msgid)
        equal = 0
        for p in local if len(family) > 1 else ():
            twin = by_subject(s.patches, p.subject)
            equal += twin is not None and compare(twin, p).status in (MATCH, CONTEXT)
        return named, equal, s.version
    return max(family, key=score)


def by_subject(patches: Sequence[Patch], subject: str) -> Patch | None:
    """The patch of that subject: as it is, then in other case, then after its prefix."""
    views: Sequence[Callable[[str], str]] = (str, str.casefold, lambda text: msg.headline(text).casefold())
    for view in views:
        want = view(msg.bare(subject))
        for p in patches:
            if view(msg.bare(p.subject)) == want:
                return p
    return None


def link_id(link: str) -> str:
    """The message id in a link of any archive, or a bare one."""
    parts = [x for x in re.sub(r"[?#].*", "", link).strip("<>").split("/") if x]
    ids = [x for x in parts if "@" in x]
    return urllib.parse.unquote((ids or parts or [""])[-1])
