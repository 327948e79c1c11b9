# SPDX-License-Identifier: GPL-2.0-only
"""What a commit message says: subject, provenance, sign-offs, notes, Fixes:.

Everything here is text in, data out.  The accepted forms are tables.
"""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

HASH = r"[0-9a-fA-F]{7,64}"
LINK = r"https?://[^\s)>\]]+"


class Origin(NamedTuple):
    """One statement of where a commit comes from."""
    hash: str           # lower case, "" when only a link or a message id is given
    link: str
    line: int           # index into the message's lines, -1: in a mail header
    text: str
    below: bool         # of the kind that stands below the original's sign-offs


NAMED = rf"(?P<hash>{HASH})"
DEP3 = r"origin:\s*(?:upstream|backport)\s*,"
# (regular expression, stands below the sign-offs).  Groups: hash, link.
ORIGINS: Sequence[tuple[str, bool]] = (
    # git cherry-pick -x
    (rf"\(\s*cherry[ -]picked from (?:upstream )?(?:commit )?{NAMED}\b(?P<link>[^)]*)\)", True),
    # an adjusted pick
    (rf"\(\s*back[ -]?ported from (?:upstream )?(?:commit )?{NAMED}\b(?P<link>[^)]*)\)", True),
    # a posted patch
    (rf"\(\s*(?:back[ -]?ported|cherry[ -]picked) from (?P<link><?{LINK}>?|<[^>\s]+@[^>\s]+>)[^)]*\)", True),
    # stable, two forms
    (rf"commit {NAMED} upstream\.?", False),
    (rf"\[\s*upstream commit {NAMED}\s*\]", False),
    # SUSE, merged and not merged
    (rf"git-commit:\s*{NAMED}", False),
    (rf"patch-mainline:\s*submitted,?.*?(?P<link>{LINK}|<[^>\s]+@[^>\s]+>).*", False),
    # DEP-3 with a hash, with a link
    (rf"{DEP3}.*?(?:commit[:/ ]|\bid=|linus/|/c/|\bh=|,\s*){NAMED}\b.*", False),
    (rf"{DEP3}\s*(?P<link>{LINK}).*", False),
)
COMPILED = [(re.compile(r"^\s*" + rx + r"\s*$", re.I), below) for rx, below in ORIGINS]
# what only looks like one of them
ATTEMPT = re.compile(r"^\s*[(\[]?\s*(?:(?:cherry[ -]?pick|back[ -]?port)(?:ed)?\s+from\b|"
                     r"upstream commit:?\s+[0-9a-f]{5}|commit\s+[0-9a-f]{5,}\s+upstream|"
                     r"git-commit:\s*[0-9a-f]|origin:\s*(?:upstream|backport)).*", re.I | re.M)
MAIL_HEADERS = ("Git-commit", "Patch-mainline", "Origin")

SIGNED = re.compile(r"^signed-off-by:\s*(.+?)\s*$", re.I)
NOTE = re.compile(r"^\[\s*(?!upstream commit\b|patch\b)(?P<name>[^\]\[:]{1,60}?)\s*:\s*(?P<why>\S.*)", re.I)
SQUASHED = re.compile(r"squash|\bfold|\binclu|\bincorporat|\bcontain|\bmerge|\bcombin|\broll", re.I)
NEGATED = re.compile(r"\b(?:not|no|without|lacks?|missing|omit\w*|exclud\w*)\b|n't\b", re.I)
TRAILER = re.compile(r"^[A-Za-z][A-Za-z0-9-]*-by:\s", re.I)

DOWNSTREAM = ("UBUNTU", "SAUCE", "NVIDIA", "UPSTREAM", "BACKPORT", "FROMLIST", "FROMGIT", "FROMEXTERN",
              "FROMTREE", "ANDROID", "CHROMIUM", "GKI", "DOWNSTREAM", "RHEL", "SUSE", "DEBIAN", "OPENEULER",
              "ANOLIS")
PREFIX = re.compile(rf"^(?:(?:{'|'.join(DOWNSTREAM)})(?:/[A-Z0-9.]+)?:\s*|\[(?:upstream|backport|backported|"
                    r"sauce|stable|\d+\.\d+(?:\.\d+)?(?:\.y)?)\]:?\s*)", re.I)
SAUCE = re.compile(r"^(?:[A-Z0-9_-]+:\s*|\[[^\]]*\]\s*)*(?:SAUCE:|\[SAUCE\])")
UBUNTU = re.compile(r"^UBUNTU:")
REVERT = re.compile(r'^(?:[A-Z0-9_-]+:\s*)*Revert "(?P<subject>.+)"$')
REVERTED = re.compile(rf"\b(?:(?P<part>partial\w*)\s+)?reverts?\s+(?:(?P<part2>part\w*)\s+(?:of\s+)?)?"
                      r"(?:the\s+)?(?:upstream\s+)?commits?\s+"
                      rf"(?P<hashes>{HASH}\b(?:(?:\s*,\s*|\s+and\s+|\s*,\s*and\s+){HASH}\b)*)", re.I)

QUOTES = "\"'“”‘’„«»`"
FIXES = re.compile(r"^\s*fixes(?:\s*:|\s)\s*(?P<rest>.*(?:\n[ \t]+\S.*)*)", re.I | re.M)
FIXES_HASH = re.compile(r"(?<![0-9A-Za-z])(?P<hash>[0-9a-fA-F]{7,40})(?![0-9A-Za-z])")


def squeeze(text: str) -> str:
    return " ".join(text.split())


def subject_of(message: str) -> str:
    """The first paragraph in one line, as git has it."""
    return squeeze(message.lstrip("\n").split("\n\n", 1)[0])


def bare(subject: str) -> str:
    """The subject without what distributions put before it."""
    if m := SAUCE.match(subject):
        subject = subject[m.end():].lstrip()
    while (m := PREFIX.match(subject)) and subject[m.end():]:
        subject = subject[m.end():]
    return squeeze(subject)


def body_lines(message: str) -> list[str]:
    return message.rstrip("\n").split("\n")


def origins(message: str, headers: Sequence[tuple[str, str]] = ()) -> list[Origin]:
    """Every statement of provenance, in order."""
    found = []
    lines = [(-1, f"{k}: {v}") for k, v in headers if k in MAIL_HEADERS]
    lines += list(enumerate(body_lines(message)))[1:]
    for k, (at, text) in enumerate(lines):
        if at >= 0 and text.lstrip().startswith("(") and ")" not in text:       # wrapped
            text = squeeze(" ".join(more for _, more in lines[k:k + 3])).partition(")")[0] + ")"
        for rx, below in COMPILED:
            if m := rx.match(text):
                got = m.groupdict()
                link = (got.get("link") or "").strip()
                if got.get("hash"):
                    link = next(iter(re.findall(LINK, link)), "")
                named = (got.get("hash") or "").lower()
                found.append(Origin(named, link.strip("<>"), at, squeeze(text), below))
                break
    return found


def sign_offs(message: str) -> list[tuple[int, str]]:
    """(line, identity) of each Signed-off-by."""
    return [(at, squeeze(m[1])) for at, text in enumerate(body_lines(message)) if (m := SIGNED.match(text))]


def notes(message: str) -> list[tuple[int, str]]:
    """(line, text) of each `[name: why]`, which may run over several lines."""
    lines = body_lines(message)
    found = []
    for at, text in enumerate(lines):
        if not NOTE.match(text):
            continue
        whole = text
        for more in lines[at + 1:at + 12]:
            if whole.rstrip().endswith("]") or not more.strip() or TRAILER.match(more):
                break
            whole += " " + more.strip()
        m = NOTE.match(whole)
        if whole.rstrip().endswith("]") and m and m["why"].rstrip(" ]"):
            found.append((at, squeeze(whole)))
    return found


def reverted(message: str) -> list[tuple[str, bool]]:
    """(hash, only in part) that a message says it reverts."""
    out = []
    for m in REVERTED.finditer(message.replace("\n", " ")):
        part = bool(m["part"] or m["part2"])
        out += [(h.lower(), part) for h in re.findall(HASH, m["hashes"])]
    return out


def fixed(message: str) -> list[tuple[str, str]]:
    """(hash, quoted subject or "") of each Fixes: in all the forms that people write."""
    out = []
    for m in FIXES.finditer(message):
        rest = squeeze(m["rest"])
        # a subject may hold hex words: only hashes outside quotes and links' other parts count
        found = list(FIXES_HASH.finditer(rest))
        if not found:
            continue
        first = found[0]
        lead = rest[:first.start()]
        colon = re.match(r"\s*fixes\s*:", m[0], re.I)
        if not colon and not re.fullmatch(r"(?:linux |upstream )?(?:commit )?", lead, re.I):
            continue            # a sentence that starts with "Fixes"
        if colon and not re.fullmatch(r"(?:(?:linux|upstream|mainline|kernel|commits?|gitid|git|id)[\s:]*)*"
                                      rf"(?:{LINK_LEAD})?[\s({QUOTES}\[<#:]*", lead, re.I):
            continue
        end = first.end()
        hashes = [first["hash"]]
        for more in found[1:]:
            if not re.fullmatch(r"\s*(?:,|and|&|/|\+)\s*(?:commit\s+)?", rest[end:more.start()]):
                break
            hashes.append(more["hash"])
            end = more.end()
        subject = rest[end:].lstrip(" \t.,;:->])").rstrip(" \t.,;:-")
        inner = re.fullmatch(r"\(\s*(.*?)\s*\)?", subject)
        subject = (inner[1] if inner else subject).strip(" \t])>").strip(QUOTES + " ")
        out += [(h.lower(), squeeze(subject) if len(hashes) == 1 else "") for h in hashes]
    return out


LINK_LEAD = r"https?://\S*?(?:/|=)"


@dataclass(frozen=True)
class Chain:
    """How the original's sign-offs fare in the local message."""
    missing: tuple[str, ...]
    added: tuple[str, ...]
    ordered: bool
    last: int           # line of the original's last sign-off, -1 without

    def cell(self) -> str:
        who = [name_of(p) for p in self.missing or self.added]
        if self.missing:
            return "MISSING " + ", ".join(who)
        if not self.ordered:
            return "ORDER"
        return "preserved" + "".join(f" + {w}" for w in who)


def name_of(identity: str) -> str:
    return identity.split("<")[0].strip() or identity


def chain(local: Sequence[tuple[int, str]], upstream: Sequence[str]) -> Chain:
    missing = tuple((Counter(upstream) - Counter(who for _, who in local)).elements())
    want = [w for w in upstream if w not in missing]
    at, last, added, ordered = 0, -1, [], True
    for line, who in local:
        if at < len(want) and who == want[at]:
            at, last = at + 1, line
        else:
            added.append(who)
            if at < len(want):
                ordered = False
    for who in want[at:]:       # present, but out of order: those left over are not additions
        if who in added:
            added.remove(who)
    return Chain(missing, tuple(added), ordered and at == len(want), last)


def headline(subject: str) -> str:
    """The subject after its last `subsystem: ` prefix."""
    return re.sub(r"^(?:[^\s:\"]+(?: [^\s:\"]+)?: )+", "", subject)


def compare_subjects(local: str, upstream: str) -> str:
    a, b = bare(local), bare(upstream)
    if a == b:
        return "match"
    if a.casefold() == b.casefold():
        return "case"
    if headline(a).casefold() == headline(b).casefold():
        return "prefix"
    return "MISMATCH"


def first_hash_in(text: str, oid: str) -> str | None:
    """A word of the text that abbreviates the hash."""
    return next((w for w in re.findall(r"\b[0-9a-f]{7,64}\b", text.lower()) if oid.startswith(w)), None)
