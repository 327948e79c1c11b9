# SPDX-License-Identifier: GPL-2.0-only
"""What a commit message says: subject, provenance, sign-offs, notes, Fixes:.

Everything here is text in, data out.  The accepted forms are tables.
"""
from __future__ import annotations

import re
import unicodedata
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
    placed: bool        # where that kind belongs, not in the middle of the text


NAMED = rf"(?P<hash>{HASH})"
# what may follow it: a tree, a link
TREE = rf"(?P<link>(?:[\s,]+(?:in )?(?:{LINK}|[\w.]+[-/][\w./-]*)(?: [\w./-]+)?)?\s*)"
DEP3 = r"origin:\s*(?:upstream|backport)\s*,"
# (regular expression, stands below the sign-offs).  Groups: hash, link.
ORIGINS: Sequence[tuple[str, bool]] = (
    # git cherry-pick -x
    (rf"\(\s*cherry[ -]picked from (?:upstream )?(?:commit )?{NAMED}\b{TREE}\)", True),
    # an adjusted pick
    (rf"\(\s*back[ -]?ported from (?:upstream )?(?:commit )?{NAMED}\b{TREE}\)", True),
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
COMPILED = [(re.compile("^" + rx + r"[ \t\r]*$", re.I | re.A), below) for rx, below in ORIGINS]
KEYED = re.compile(r"^[A-Za-z][A-Za-z0-9-]*:\s*\S")
# what only looks like one of them
ATTEMPT = re.compile(r"^[\s>#*|-]*(?:[(\[]\s*(?:[^\s:]+[ -])?[^\s:]+\s+from\s+"
                     r"(?:upstream\s+)?commits?\s+[0-9a-f]{5}|"
                     r"[(\[]?\s*(?:(?:cherry[ -]?pick|back[ -]?port)(?:ed)?\s+"
                     r"(?:from\b|of\s+(?:upstream\s+)?commits?\s+[0-9a-f]{5})|"
                     r"upstream commit:?\s+[0-9a-f]{5}|commit\s+[0-9a-f]{5,}\s+upstream|"
                     r"git-commit:\s*[0-9a-f]|origin:\s*(?:upstream|backport))).*", re.I)
MAIL_HEADERS = ("Git-commit", "Patch-mainline", "Origin")

SIGNED = re.compile(r"^signed-off-by:\s*(.+?)\s*$", re.I)
NOTE = re.compile(r"^\[\s*(?!upstream commit\b|patch\b)(?P<name>[^\]\[:]{1,60}?)\s*:\s*(?P<why>\S.*)", re.I)
# a note says that it has another commit: a verb that starts a clause, then little else up to the hash
SQUASHED = re.compile(r"(?:^|[,;.:(&+]|\band|\bplus)\s*"
                      r"(?:(?:also|this|it|i|we|here|the|patch|commit|change|has|have|is|was|already)\s+)*"
                      r"(?:squash(?:e[ds])?|fold(?:s|ed)?|incorporate[ds]?|include[ds]|contains?|"
                      r"merge[ds]?|combine[ds]?|roll(?:s|ed)?)\s+"
                      r"(?:(?:in|into|with|also|here|up|the|fix|fixes|commits?|upstream|upstream's|"
                      rf"and|{HASH},?)[\s:]+)*$", re.I)
# what may stand behind the hash, and what takes it back all the same
GOES_ON = re.compile(r"\s*(?:(?:in|too|here|also)\b\s*)?(?:$|[\],;.:)&+]|(?:and|plus|as|because|since|for|"
                     r"which|to|with|without|from|into|except|minus|only|partially|in part)\b)", re.I)
RECANTED = re.compile(r"\b(?:revert\w*|und(?:o|id|one)|refus\w*|declin\w*|reject\w*|later|postpon\w*|"
                      r"defer\w*|left (?:out|for|to))\b", re.I)
TITLE = re.compile(r'\s*(?:\(".*?"\)|"[^"]*"|\([^()]*: [^()]*\))')
NEGATED = re.compile(r"\b(?:not|no|never|neither|nor|without|lacks?|missing|omit\w*|exclud\w*|skip\w*|cannot|"
                     r"to be|will|would|should|shall|could|may|might|must|needs?|refus\w*|declin\w*|instead|"
                     r"later|until|drop\w*|remov\w*)\b|n['’]t\b", re.I)
TAG = re.compile(r"^([^\W\d_]+(?:-[^\W\d_]+)*-by|fixes|link|closes|cc):\s*(\S.*?)\s*$", re.I)
LOOKS = str.maketrans("\u2010\u2011\u2012\u2013\u2014\u2212\uff0d\uff1a", "-------:")
# what is no text: trailers that are judged by themselves, or that come and go
KNOWN = re.compile(rf"{TAG.pattern}|^(?:bug\w*|change-id|references?|message-id|git-commit|patch-mainline|"
                   r"origin|depends-on|from):\s*\S", re.I)
TRAILER = re.compile(r"^[A-Za-z][A-Za-z0-9-]*-by:\s", re.I)

DOWNSTREAM = ("UBUNTU", "SAUCE", "NVIDIA", "UPSTREAM", "BACKPORT", "FROMLIST", "FROMGIT", "FROMEXTERN",
              "FROMTREE", "ANDROID", "CHROMIUM", "GKI", "DOWNSTREAM", "RHEL", "SUSE", "DEBIAN", "OPENEULER",
              "ANOLIS")
PREFIX = re.compile(rf"^(?:(?:{'|'.join(DOWNSTREAM)})(?:/[A-Z0-9.]+)?:\s*|\[(?:upstream|backport|backported|"
                    r"sauce|stable|\d+\.\d+(?:\.\d+)?(?:\.y)?)\]:?\s*)", re.I | re.A)
SAUCE = re.compile(rf"^(?:(?:{'|'.join(DOWNSTREAM)}):\s*|\[[^\]]*\]\s*)*(?:SAUCE:|\[SAUCE\])", re.A)
UBUNTU = re.compile(r"^UBUNTU:")
QUOTES = "\"'“”‘’„«»`"
# `drv: Revert "..."`, behind whatever prefixes
TAKES_BACK = (rf"^(?:\[[^\]]*\]:?\s*|[^\s:\[{QUOTES}][^\s:{QUOTES}]*(?: [^\s:{QUOTES}]+)?:\s*)*"
              rf"%s:?\s+[{QUOTES}](?P<subject>.+)[{QUOTES}]$")
REVERT = re.compile(TAKES_BACK % r"(?:revert|back(?:ed)?[ -]?out)", re.I)
REAPPLY = re.compile(TAKES_BACK % "reapply", re.I)
# a body names the commit: anywhere with the word, without it only where nothing else can be meant
REVERTED = re.compile(rf"(?:\b(?:(?P<part>partial\w*)\s+)?reverts?\s+(?:(?P<part2>part\w*)\s+(?:of\s+)?)?"
                      r"(?:the\s+)?(?:upstream\s+)?commits?\s+|"
                      r"^reverts?:\s*(?:commits?\s+)?|\bthis\s+(?:commit\s+)?reverts\s+|"
                      r"(?:^|\bthis\s+)back(?:s|ed)?[ -]?out\s+(?:of\s+)?(?:(?:commit|changeset)s?\s+)?)"
                      rf"(?P<hashes>{HASH}\b(?:(?:\s*,\s*|\s+and\s+|\s*,\s*and\s+){HASH}\b)*)", re.I | re.M)

FIXES = re.compile(r"^\s*fixes(?:\s*:|\s)\s*(?P<rest>.*(?:\n[ \t]+\S.*)*)", re.I | re.M)
FIXES_NEXT = re.compile(rf"(?<=[{QUOTES}]\))\s*(?:,|;|&|and)\s*(?=(?:commit )?[0-9a-fA-F]{{7,40}}\b)")
FIXES_HASH = re.compile(r"(?<![0-9A-Za-z])(?P<hash>[0-9a-fA-F]{5,40})(?![0-9A-Za-z])")
PLAIN_TITLE = r"[\w./,+-]+(?: [\w./+-]+)?: \S.*"
# a subject without a hash, or before it
FIXES_TITLE = re.compile(rf"(?:\(?\s*[{QUOTES}](?P<quoted>.+)[{QUOTES}]\s*\)?|"
                         rf"\((?P<bracketed>{PLAIN_TITLE})\)|(?P<plain>{PLAIN_TITLE}?))"
                         r"(?:[\s,]*\((?:commit )?(?P<hash>[0-9a-f]{5,40})\))?", re.I)


def squeeze(text: str) -> str:
    """White space as one blank; a no-break space is none."""
    return re.sub(r"[ \t\r\n\f\v]+", " ", text).strip(" ")


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


def like_sauce(subject: str) -> bool:
    """Whether a prefix reads SAUCE and is not taken for it: by its place, its case or its characters."""
    words = re.split(r"[:\[\]\s]+", plain(subject).rpartition(":")[0])
    return not SAUCE.match(subject) and any(
        re.fullmatch("".join(re.escape(c) if c.isascii() else "." for c in w), "sauce", re.I) for w in words)


def origins(message: str, headers: Sequence[tuple[str, str]] = ()) -> list[Origin]:
    """Every statement of provenance, in order."""
    found = []
    body = body_lines(message)
    lines = [(-1, f"{k}: {v}") for k, v in headers if k in MAIL_HEADERS]
    lines += list(enumerate(body))[1:]
    for k, (at, text) in enumerate(lines):
        if at >= 0 and text.startswith("(") and ")" not in text:       # wrapped
            text = squeeze(" ".join(more for _, more in lines[k:k + 3])).partition(")")[0] + ")"
        for rx, below in COMPILED:
            if m := rx.match(text):
                got = m.groupdict()
                link = (got.get("link") or "").strip()
                if got.get("hash"):
                    link = next(iter(re.findall(LINK, link)), "")
                named = (got.get("hash") or "").lower()
                found.append(Origin(named, link.strip("<>"), at, squeeze(text), below,
                                    placed(body, at, below)))
                break
    return found


def placed(body: Sequence[str], at: int, below: bool) -> bool:
    """Whether a provenance line stands among the trailers, or at the top of the text, by its kind."""
    if at < 0 or KEYED.match(body[at]):
        return True
    if below and at > 1 and re.match(r"\S", above := body[at - 1]) and not KEYED.match(above) \
            and not above.startswith(("[", "(")) and not above.rstrip().endswith(("]", ")")):
        return False                                    # a sentence that goes on
    rest, inside = body[at + 1:] if below else body[1:at], False
    for text in rest:
        if inside or text.startswith(("[", "(")):       # a note or another such line, maybe wrapped
            inside = not text.rstrip().endswith(("]", ")"))
        elif text.strip() and text[:1] not in " \t" and not KEYED.match(text) \
                and not any(rx.match(text) for rx, _ in COMPILED):
            return False
    return True


def plain(text: str) -> str:
    """Without invisible characters, and with look-alike forms as what they look like."""
    return "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")


def unread(message: str, headers: Sequence[tuple[str, str]] = ()) -> list[str]:
    """Lines that look like provenance and cannot be read."""
    read = {o.line for o in origins(message, headers)}
    return [text.strip() for at, text in enumerate(body_lines(message))
            if at and at not in read and ATTEMPT.match(plain(text))]


def undone(subject: str) -> str:
    """The subject of what a commit of that subject takes back, "" for others."""
    if m := REVERT.match(subject):
        return m["subject"]
    return f'Revert "{m["subject"]}"' if (m := REAPPLY.match(subject)) else ""


def told(subject: str) -> str:
    """A subject as those who quote it may write it: without case, quotes and what distributions put before
    it; a revert's without any prefix."""
    if m := REVERT.match(subject):
        return f"revert {told(m['subject'])}"
    return re.sub(r"\W+", " ", bare(subject)).casefold().strip()


def quotes(subject: str, upstream: str) -> bool:
    """Whether a commit of that subject reverts, so quotes, one of upstream's."""
    return bool(undone(subject)) and told(undone(subject)) == told(upstream)


def taken_back(history: Sequence[tuple[str, str, Sequence[str]]]) -> set[str]:
    """Which commits (hash, message, upstream's hashes; oldest first) a later one reverts as a whole: by hash,
    by upstream's, or, where it names none of them, by the subject. Who reverts a revert brings back."""
    takes: dict[str, set[str]] = {}
    gone: set[str] = set()
    for n, (oid, text, _) in enumerate(history):
        named, quoted = reverted(text), undone(subject_of(text))
        if not named and not quoted:
            continue
        before = [c for c in history[:n] if c[0] not in gone]
        targets = {c for h, part in named if not part for c, _, ups in before
                   if c.startswith(h) or any(u.startswith(h) for u in ups)}
        if not targets and quoted and not any(part for _, part in named):
            targets = {c for c, other, _ in before if told(subject_of(other)) == told(quoted)}
            targets = set([c for c, _, _ in before if c in targets][-1:])
        if targets:
            takes[oid], gone = targets, set()
            for by in reversed(takes):
                if by not in gone:
                    gone |= takes[by]
    return gone


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
        if whole.rstrip().endswith("]") and m and has_words(m["why"]):
            found.append((at, squeeze(whole)))
    return found


# what is no reason: where something is written, when, and words that only hold the place of one
NO_REASON = re.compile(
    rf"{LINK}|\b(?:[\w-]+\.)+[a-z]{{2,}}/\S*|\bwww\.\S+|\S+@\S+|\w*\d\w*|"
    r"\b(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?\b|"
    r"\b(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|"
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?|utc|gmt)\b|"
    r"\bn/a\b|\b(?:todo|fixme|tbd|none|nothing|why|yes|no|ok(?:ay)?|lgtm|see|above|below|commits?|links?|"
    r"message-id)\b|\b([^\W\d_])\1+\b", re.I)


def has_words(why: str) -> bool:
    """Whether a reason says something."""
    words = re.findall(r"[^\W\d_]{2,}", NO_REASON.sub(" ", plain(why)))
    return len(words) > 1 or any(len(w) > 3 or ord(w[0]) > 0x2e80 for w in words)


# what a note of context alone says
CONTEXT_WORDS = re.compile(r"(?:context\w*|conflict\w*|adjust\w*|resolv\w*|fix\w*|fuzz\w*|offset\w*|minor|"
                           r"trivial\w*|clean\w*|surrounding|pick\w*|cherry|appl\w+|change\w*|lines?|"
                           r"adapt\w*|rebase\w*|refresh\w*|backport\w*|modif\w*|"
                           r"only|just|the|in|for|of|a|to|due|and|up|no)", re.I)
WITHOUT = re.compile(r'\[[^:]*:(?:[^"]*;)?\s*without\s+'
                     r'(?P<what>"[^"]+"(?:(?:,|,?\s+and)\s+"[^"]+")*)(?P<why>[^"]*)', re.I)
FILE = re.compile(r"[\w./-]*\w\.(?:[chS]|cc|cpp|cxx|hh|hpp|rs|go|java|py|pl|sh|rst|txt|md|dtsi?|ya?ml|json|"
                  r"toml|mk|am|ac|in|xml)\b|\b(?:Makefile|Kconfig|Kbuild)\b")


def does_without(note: str, subject: str) -> bool:
    """Whether a note says that the branch goes without the patch of that subject, and why:
    `[name: without "SUBJECT" and "SUBJECT": why]`."""
    m = WITHOUT.match(note)
    left = re.findall(r'"([^"]+)"', m["what"]) if m and has_words(m["why"]) else []
    return bare(subject).casefold() in {bare(other).casefold() for other in left}


def of_context(note: str) -> bool:
    """Whether a note speaks of context alone."""
    words = re.findall(r"[^\W\d_]+", note[1:-1].partition(":")[2])
    return bool(words) and all(map(CONTEXT_WORDS.fullmatch, words))


def files(note: str) -> set[str]:
    """The files that a note names, without their directories."""
    return {x.rsplit("/", 1)[-1] for x in FILE.findall(note)}


def signed_by(name: str, identity: str) -> bool:
    """Whether a note's `name` is a sign-off's: a part of name or address, initials and a part, or two to four
    letters of one of them in their order, the first its first."""
    who, _, mail = identity.partition("<")
    words = re.findall(r"[^\W_]+", f"{who} {mail.split('@')[0]}".casefold())
    known = {*words, "".join(words), mail.split("@")[0].casefold(), squeeze(who).casefold()}
    known |= {x for a in words for b in words if a != b for x in (a[:1] + b, a[:2] + b, a + b[:1])}
    given = squeeze(name).casefold()
    if re.fullmatch(r"[^\W\d_]{2,4}", given) and any(
            re.match(".*".join(map(re.escape, given)), "".join(re.findall(r"[^\W_]+", part.casefold())))
            for part in (who, mail.split("@")[0])):
        return True
    return given in known or any(w in known for w in re.findall(r"[^\W_]{2,}", given))


def reverted(message: str) -> list[tuple[str, bool]]:
    """(hash, only in part) that a message says it reverts."""
    out = []
    for m in REVERTED.finditer(message):
        part = bool(m["part"] or m["part2"])
        out += [(h.lower(), part) for h in re.findall(HASH, m["hashes"])]
    return out


def fixed(message: str) -> list[tuple[str, str]]:
    """(hash, quoted subject or "") of each Fixes: in all the forms that people write."""
    out = []
    each = ((m, rest) for m in FIXES.finditer(message) for rest in FIXES_NEXT.split(squeeze(m["rest"])))
    for m, rest in each:
        # a subject may hold hex words: only hashes outside quotes and links' other parts count
        found = list(FIXES_HASH.finditer(rest))
        colon = re.match(r"\s*fixes\s*:", m[0], re.I)
        if colon and (t := FIXES_TITLE.fullmatch(rest)):
            named = squeeze(t["quoted"] or t["bracketed"] or t["plain"])
            if not found or not re.match(r"(?:linux |upstream )?(?:commit:? )?[0-9a-f]{5,40}\b", named, re.I):
                out.append(((t["hash"] or "").lower(), named))
                continue
        if not found:
            continue
        first = found[0]
        lead = rest[:first.start()]
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
        out += [(h.lower(), squeeze(subject) if len(hashes) == 1 else "") for h in hashes
                if len(h) > 6 or (subject and len(hashes) == 1)]        # five or six digits need a subject
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
    if a == b and odd(local) <= odd(upstream):
        return "match"
    if plain(a) == plain(b):
        return "characters"
    if a.casefold() == b.casefold():
        return "case"
    if headline(a).casefold() == headline(b).casefold():
        return "prefix"
    return "MISMATCH"


def odd(text: str) -> set[str]:
    """Characters that cannot be told from others, or not be seen."""
    return {c for c in text if plain(c) != c or (c.isspace() and c != " ")}


def tags(message: str) -> list[tuple[int, str, str]]:
    """(line, name, value) of the trailers that people and tools go by, or that look so; no sign-offs."""
    return [(at, text[:m.end(1)].lower(), squeeze(text[m.start(2):]))
            for at, text in enumerate(body_lines(message))
            if (m := TAG.match(text.translate(LOOKS))) and not SIGNED.match(text)]


def prose(message: str) -> str:
    """The text without trailers, provenance and notes."""
    skip = {o.line for o in origins(message)}
    out, inside = [], False
    for at, text in enumerate(body_lines(message.lstrip("\n"))[1:], 1):
        if inside or NOTE.match(text):
            inside = not text.rstrip().endswith("]") and bool(text.strip())
        elif at not in skip and not SIGNED.match(text) and not KNOWN.match(text.translate(LOOKS)):
            out.append(text)
    return squeeze(" ".join(out))


def undeveloped(message: str) -> list[str]:
    """Who is named as a co-developer, but did not sign off."""
    signed = {who for _, who in sign_offs(message)}
    return [who for _, name, who in tags(message) if name == "co-developed-by" and who not in signed]


def squashes(note: str, oid: str) -> bool:
    """Whether a note says that the commit has another one in it."""
    text = TITLE.sub("", note.strip("[]").partition(":")[2])
    for m in re.finditer(rf"\b{HASH}\b", text):
        before, after = text[:m.start()], text[m.end():]
        if oid.startswith(m[0].lower()) and SQUASHED.search(before) and GOES_ON.match(after) \
                and not NEGATED.search(re.split("[;.]", before)[-1]) and not RECANTED.search(after):
            return True
    return False
