# SPDX-License-Identifier: GPL-2.0-only
"""Changes and where they come from: commits, mails, mailboxes, maildirs, directories of patches."""
from __future__ import annotations

import contextlib
import email.header
import email.message
import email.parser
import email.utils
import gzip
import hashlib
import itertools
import mailbox
import os
import re
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .diffing import Before, Edit, Lines, split
from .gitio import ENVIRONMENT, USAGE, Ambiguous, Commit, Err, FetchFailed, Git, Person
from .message import subject_of

GITLINK, SYMLINK = 0o160000, 0o120000
HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@ ?(.*)")
SEPARATOR = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\n\r\n))From \S+ .*\d\d:\d\d:\d\d")
TAG = re.compile(r"^(?:\s*(?:re|fwd?):\s*)*((?:\[[^\]]*\]\s*)*)(.*)", re.I | re.S)


class Truncated(Exception):
    """A patch that ends too early or does not parse."""


@dataclass
class Hunk:
    start: int                              # first line in the old file, from 0
    body: list[tuple[bytes, bytes]]         # (" ", "-" or "+", the line)
    section: bytes

    def old(self) -> Lines:
        return [t for sign, t in self.body if sign != b"+"]

    def new(self) -> Lines:
        return [t for sign, t in self.body if sign != b"-"]

    def edits(self, base: int) -> list[Edit]:
        out = []
        at = base
        for context, group in itertools.groupby(self.body, lambda line: line[0] == b" "):
            lines = list(group)
            start = at
            at += sum(sign != b"+" for sign, _ in lines)
            if not context:
                out.append(Edit(start, at, tuple(text for sign, text in lines if sign == b"+")))
        return out

    def tail(self) -> int:
        """Lines of context after the last change."""
        return next((n for n, (sign, _) in enumerate(reversed(self.body)) if sign != b" "), len(self.body))


@dataclass
class FileChange:
    """One file's change.  Mode 0: absent, -1: not said."""
    old_path: str
    new_path: str
    old_mode: int = -1
    new_mode: int = -1
    old_oid: str = ""
    new_oid: str = ""
    hunks: list[Hunk] = field(default_factory=list)
    opaque: bool = False                    # a binary patch: no lines
    git: Git | None = None               # where the contents are to be had
    contents: tuple[bytes | None, bytes | None] | None = None

    def path(self) -> str:
        return self.new_path if self.new_mode else self.old_path

    def sides(self) -> tuple[bytes | None, bytes | None] | None:
        """Old and new content (None: absent), or None when only the hunks are known."""
        if self.contents is None and self.git is not None:
            self.contents = (self.load(self.old_mode, self.old_oid), self.load(self.new_mode, self.new_oid))
        return self.contents

    def load(self, mode: int, oid: str) -> bytes | None:
        assert self.git is not None
        if not mode:
            return None
        if mode == GITLINK:
            return b"Subproject commit " + oid.encode() + b"\n"
        return self.git.blob(oid)

    def drop(self) -> None:
        if self.git is not None:
            self.contents = None

    def before(self) -> tuple[Before, list[Edit]]:
        """What the hunks tell of the file before, and the edits."""
        lines: Lines = []
        breaks: set[int] = set()
        out: list[Edit] = []
        bof = eof = False
        for n, h in enumerate(self.hunks):
            if lines:
                breaks.add(len(lines))
            if not n:
                bof = h.start <= 0
            out += h.edits(len(lines))
            lines += h.old()
            lead = next((k for k, (sign, _) in enumerate(h.body) if sign != b" "), 0)
            eof = h.tail() < 3 and (h.tail() < lead or (h.start <= 0 and lead <= h.tail()))
        return Before(lines, breaks, bof, eof), out


@dataclass
class Patch:
    """A change with its message, from whatever source."""
    name: str                               # short hash, file name or message id
    subject: str
    message: str
    author: Person | None
    commit: Commit | None = None
    git: Git | None = None
    files: list[FileChange] | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    msgid: str = ""
    version: int = 1
    number: int = 0
    total: int = 0
    legible: bool = True
    broken: str = ""                        # why the change cannot be read
    thread: str = ""
    where: Onto | None = None               # the tree it was applied to
    seen: dict[str, bool] = field(default_factory=dict)

    def key(self) -> str:
        return self.commit.oid if self.commit else self.msgid or self.name

    def short(self) -> str:
        """What a table shows: a file's number will do."""
        number = re.match(r"(\d{4})-.*\.patch$", self.name)
        return number[1] if number else self.name

    def changes(self) -> list[FileChange]:
        if self.files is None:
            assert self.commit and self.git
            self.files = [FileChange(e.path, e.path, e.mode0, e.mode1, e.oid0, e.oid1, git=self.git)
                          for e in self.git.changes(self.git.parent_tree(self.commit), self.commit.tree)]
        return self.files

    def had(self, path: str) -> bool | None:
        """Whether the tree before the change had a path; None: not known."""
        if self.commit and self.git:
            return self.git.lookup(self.git.parent_tree(self.commit), path) is not None
        return self.seen.get(path) if self.where is None else self.where.had(self, path)


def person(text: str) -> Person:
    """Of a line `From: …`; git writes and reads a name with a comma without quotes there."""
    plain = re.fullmatch(r'([^"<>]*?)\s*<([^<>]+)>\s*', text)
    return Person(*(plain.groups() if plain else email.utils.parseaddr(text)))


def of_commit(git: Git, oid: str) -> Patch:
    c = git.commit(oid)
    body = c.message.strip("\n").split("\n\n", 1)[1:]
    said = re.match(r"\n*From: *(.*<\S+@\S+>) *(?:\n|$)", body[0]) if body else None
    author = person(said[1]) if said else c.author
    return Patch(oid[:12], subject_of(c.message), c.message, author, c, git, legible=c.legible)


# --- mails ------------------------------------------------------------------------------------

def unquote(name: bytes) -> bytes:
    """Git's C-style quoting of a path."""
    name = name.rstrip(b"\r\n")
    quoted = re.match(rb'"((?:[^"\\]|\\.)*)"', name)
    if not quoted:
        return name.split(b"\t")[0]
    plain = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}
    return re.sub(rb"\\([0-7]{3}|.)", lambda m: bytes([int(m[1], 8) & 255]) if len(m[1]) == 3
                  else plain.get(m[1], m[1]), quoted[1])


def strip_prefix(name: bytes, prefixed: bool) -> str:
    name = unquote(name)
    if prefixed and name != b"/dev/null":
        name = name.split(b"/", 1)[-1]
    return name.decode("utf-8", "surrogateescape")


def parse_diff(text: bytes) -> list[FileChange]:
    """The files of a patch; raises Truncated."""
    lines = split(text)
    out: list[FileChange] = []
    now: FileChange | None = None
    prefixed = True
    i = 0
    while i < len(lines):
        line = lines[i].rstrip(b"\r\n")
        if line.startswith(b"diff --git "):
            a, b, prefixed = header_names(line[11:])
            now = FileChange(a, b)
            out.append(now)
        elif line.startswith(b"--- ") and i + 1 < len(lines) and lines[i + 1].startswith(b"+++ "):
            if now is None or now.hunks:
                prefixed = True
                now = FileChange("", "")
                out.append(now)
            old, new = strip_prefix(lines[i][4:], prefixed), strip_prefix(lines[i + 1][4:], prefixed)
            if old == "/dev/null":
                now.old_mode = 0
                old = new
            if new == "/dev/null":
                now.new_mode = 0
                new = old
            now.old_path, now.new_path = old, new
            i += 1
        elif now is None:
            pass
        elif m := HUNK.match(line):
            i = parse_hunk(lines, i, m, now)
            continue
        elif line.rstrip() == b"--":
            now = None          # a mail's signature; another patch may follow
        elif not extended_header(line, now) and (line[:1] in (b"+", b"@")
                                                 or (line[:1] == b"-" and line[:2] != b"--")):
            raise Truncated(f"{now.new_path}: a line that belongs to no hunk: {lines[i][:40]!r}")
        i += 1
    return out


def extended_header(line: bytes, now: FileChange) -> bool:
    """Take in one of git's lines between `diff --git` and the hunks; False when it is none."""
    if m := re.match(rb"index ([0-9a-f]+)\.\.([0-9a-f]+)(?: (\d+))?$", line):
        now.old_oid, now.new_oid = ("" if set(oid) == {48} else oid.decode() for oid in (m[1], m[2]))
        if m[3]:
            now.old_mode = now.new_mode = int(m[3], 8)
    elif m := re.match(rb"(old|new|new file|deleted file) mode (\d+)$", line):
        mode = int(m[2], 8)
        now.old_mode, now.new_mode = {b"old": (mode, now.new_mode), b"new": (now.old_mode, mode),
                                      b"new file": (0, mode), b"deleted file": (mode, 0)}[m[1]]
    elif m := re.match(rb"(rename|copy) (from|to) (.*)", line):
        path = unquote(m[3]).decode("utf-8", "surrogateescape")
        if m[2] == b"to":
            now.new_path = path
        else:
            now.old_path = path
        now.opaque = now.opaque or m[1] == b"copy"
    elif line.startswith((b"GIT binary patch", b"Binary files ")):
        now.opaque = True
    else:
        return False
    return True


def header_names(rest: bytes) -> tuple[str, str, bool]:
    if rest.startswith(b'"'):
        end = re.match(rb'"(?:[^"\\]|\\.)*"', rest)
        a, b = (rest[:end.end()], rest[end.end() + 1:]) if end else (rest, rest)
    elif m := re.fullmatch(rb'([a-z])/(.+) ([a-z])/\2', rest):
        a, b = m[1] + b"/" + m[2], m[3] + b"/" + m[2]
    elif m := re.fullmatch(rb"(.+) \1", rest):
        name = m[1].decode("utf-8", "surrogateescape")
        return name, name, False
    else:
        a, _, b = rest.partition(b' "') if rest.endswith(b'"') else rest.partition(b" ")
        b = b'"' + b if rest.endswith(b'"') else b
    return strip_prefix(a, True), strip_prefix(b, True), True


def parse_hunk(lines: Lines, i: int, m: re.Match[bytes], now: FileChange) -> int:
    old = int(m[2]) if m[2] is not None else 1
    new = int(m[4]) if m[4] is not None else 1
    start = int(m[1]) - 1 if old else int(m[1])
    hunk = Hunk(max(start, 0), [], m[5].rstrip())
    i += 1
    while old or new:
        if i >= len(lines):
            raise Truncated(f"{now.new_path}: the patch ends in the middle of a hunk")
        sign, text = lines[i][:1], lines[i][1:]
        if sign in (b"\n", b"\r"):           # a mailer ate the blank that marks an empty line of context
            sign, text = b" ", lines[i]
        if sign not in (b" ", b"-", b"+"):
            if sign == b"\\":
                no_newline(hunk)
                i += 1
                continue
            raise Truncated(f"{now.new_path}: the patch breaks off in a hunk at {lines[i][:40]!r}")
        hunk.body.append((sign, text if text.endswith(b"\n") else text + b"\n"))
        old -= sign != b"+"
        new -= sign != b"-"
        if old < 0 or new < 0:
            raise Truncated(f"{now.new_path}: a hunk has other lengths than it says")
        i += 1
    if i < len(lines) and lines[i].startswith(b"\\"):
        no_newline(hunk)
        i += 1
    now.hunks.append(hunk)
    return i


def no_newline(hunk: Hunk) -> None:
    if hunk.body:
        sign, text = hunk.body[-1]
        hunk.body[-1] = (sign, text.rstrip(b"\n"))


def parse_mail(raw: bytes, name: str) -> Patch | None:
    """A patch (or cover letter) from a mail; None for replies and other mails."""
    raw = re.sub(rb"^From [^\n]*\n", b"", raw.lstrip(b"\r\n"))
    msg = email.parser.BytesParser().parsebytes(raw)
    if not msg.get("Subject") and not msg.get("Message-Id"):
        return parse_bare(raw, name)
    title, good_title = header_text(msg.get("Subject"))
    m = TAG.match(title)
    assert m
    tags, subject = m[1], m[2]
    body, charset = mail_body(msg)
    if re.match(r"\s*re:", title, re.I) or not title:
        return None
    author, good_author = None, True
    if msg.get("From"):
        text, good_author = header_text(msg.get("From"))
        author = person(text)
    talk, diff = split_body(body)
    good = True
    try:
        message = talk.decode(charset)
    except (UnicodeDecodeError, LookupError):
        message, good = talk.decode("utf-8", "replace"), False
    lines = message.replace("\r\n", "\n").strip("\n").split("\n")
    while lines and (h := re.match(r"(From|Subject|Date):\s*(.*)", lines[0])):
        if h[1] == "From":
            author, good_author = person(h[2]), True
        elif h[1] == "Subject":
            subject = TAG.match(h[2])[2]    # type: ignore[index]
        lines.pop(0)
    message = "\n".join([" ".join(subject.split()), "", *"\n".join(lines).strip("\n").split("\n")]) + "\n"
    v = re.search(r"(?:\b|PATCH|RFC)v(\d+)\b", tags, re.I)
    n = re.search(r"\b(\d+)/(\d+)\b", tags)
    headers = [(k, header_text(msg.get(k))[0]) for k in ("Git-commit", "Patch-mainline", "Origin")
               if msg.get(k)]
    patch = Patch(name, " ".join(subject.split()), message, author, headers=headers,
                  msgid=(msg.get("Message-Id") or "").strip().strip("<>"),
                  version=int(v[1]) if v else 1, number=int(n[1]) if n else 0, total=int(n[2]) if n else 0,
                  legible=good and good_title and good_author,
                  thread=((msg.get("References") or msg.get("In-Reply-To") or "").split()
                          or [""])[0].strip("<>"))
    read_diff(patch, diff)
    if not patch.files and not patch.broken and diff.strip():
        patch.broken = "no patch could be read"
    return patch


def parse_bare(raw: bytes, name: str) -> Patch | None:
    """A patch that is no mail: what stands above the diff is the message (quilt, DEP-3)."""
    talk, diff = split_body(raw)
    if not diff:
        return None
    text = talk.decode("utf-8", "replace").replace("\r\n", "\n").strip("\n")
    m = re.search(r"^(?:Description|Subject):[ \t]*(.+)", text, re.M | re.I)
    subject = m[1].strip() if m else re.sub(r"\.(?:patch|diff)$", "", name)
    who = re.search(r"^(?:Author|From):[ \t]*(.+)", text, re.M | re.I)
    patch = Patch(name, subject, f"{subject}\n\n{text}\n",
                  person(who[1]) if who else None)
    read_diff(patch, diff)
    return patch


def read_diff(patch: Patch, diff: bytes) -> None:
    try:
        patch.files = parse_diff(diff)
    except Truncated as e:
        patch.files, patch.broken = [], str(e)


def header_text(value: object) -> tuple[str, bool]:
    """A decoded header, and whether it decodes."""
    if value is None:
        return "", True
    out, good = [], True
    try:
        parts = email.header.decode_header(value)       # type: ignore[arg-type]
    except (email.errors.HeaderParseError, ValueError):
        return str(value), False
    for text, charset in parts:
        if isinstance(text, bytes):
            try:
                text = text.decode(charset if charset and charset != "unknown-8bit" else "utf-8")
            except (UnicodeDecodeError, LookupError):
                text, good = text.decode("utf-8", "replace"), False
        out.append(text)
    return " ".join("".join(out).split()), good


def mail_body(msg: email.message.Message) -> tuple[bytes, str]:
    parts = []
    charset = "utf-8"
    for part in msg.walk():
        if part.get_content_maintype() != "text" or part.get_content_subtype() == "html":
            continue
        data = part.get_payload(decode=True)
        if isinstance(data, bytes):
            parts.append(data)
            charset = part.get_content_charset() or charset
    body = b"\n".join(parts)
    lines = body.split(b"\n")[:-1]
    if lines and all(x.endswith(b"\r") for x in lines):         # the mail's line ends, not the file's
        body = body.replace(b"\r\n", b"\n")
    return body, charset if charset != "us-ascii" else "utf-8"


def split_body(body: bytes) -> tuple[bytes, bytes]:
    """The message and the patch."""
    diff = re.search(rb"^(?:diff --git |--- \S[^\n]*\n\+\+\+ )", body, re.M)
    patch = body[diff.start():] if diff else b""
    talk = body[:diff.start()] if diff else body
    cut = re.search(rb"^---[ \t]*\r?$", talk, re.M)
    talk = talk[:cut.start()] if cut else talk
    if not diff:
        talk = re.split(rb"^-- \r?$", talk, flags=re.M)[0]
    return talk, patch


def parse_mbox(raw: bytes, name: str) -> list[Patch]:
    """The patches of an mbox, or of a single mail."""
    def guard(m: re.Match[bytes]) -> bytes:
        return m[0] if SEPARATOR.match(raw, m.start()) else b">" + m[0]
    mails = [raw]
    if SEPARATOR.search(raw):
        with tempfile.NamedTemporaryFile() as f:        # the standard library reads files only
            # `git format-patch --stdout` leaves "From " in a message as it is, and mailbox splits at any
            f.write(re.sub(rb"^From ", guard, raw, flags=re.M))
            f.flush()
            with contextlib.closing(mailbox.mbox(f.name, create=False)) as box:
                raws = [box.get_bytes(key) for key in box.iterkeys()]
            mails = [re.sub(rb"^>(>*From )", rb"\1", mail, flags=re.M) for mail in raws]
    return [p for mail in mails if (p := parse_mail(mail, name))]


def read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as f:
            raw = f.read()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as e:
        raise Err(f"{path}: cannot be read ({e})", "check or fetch the file again", ENVIRONMENT) from None


def files_of(path: str) -> list[str]:
    """The files of a maildir or of a directory of patches, in the order of its series."""
    maildir = [os.path.join(path, d) for d in ("cur", "new") if os.path.isdir(os.path.join(path, d))]
    series = os.path.join(path, "series")
    if maildir:
        files = [os.path.join(d, f) for d in maildir for f in sorted(os.listdir(d))]
    elif os.path.exists(series):
        names = [line.split("#")[0].split() for line in read_file(series).decode().splitlines()]
        files = [os.path.join(path, n[0]) for n in names if n]
    else:
        files = [os.path.join(path, f) for f in sorted(os.listdir(path))
                 if f.endswith((".patch", ".diff", ".eml", ".mbox"))]
    if not files:
        raise Err(f"{path} holds no patches", "name a directory of *.patch, a maildir or an mbox", USAGE)
    return files


def load_mails(path: str) -> list[Patch]:
    """Patches from an mbox, a maildir, a single mail or a directory of patches."""
    directory = os.path.isdir(path)
    out = []
    for name in files_of(path) if directory else [path]:
        out += parse_mbox(read_file(name), os.path.basename(name))
    for p in out:
        if directory and not p.files and not p.broken and not p.number and not p.total:
            p.broken = "the file holds no patch"
    if not any(p.files or p.broken for p in out):
        raise Err(f"{path} holds no patch", "name an mbox, a maildir or a directory of patches", USAGE)
    return out


# --- from text to contents ----------------------------------------------------------------------

def blob_name(data: bytes, like: str) -> str:
    digest = hashlib.sha256 if len(like) == 64 else hashlib.sha1
    return digest(b"blob %d\0" % len(data) + data).hexdigest()


def apply_hunks(hunks: Sequence[Hunk], old: Lines, exact: bool) -> Lines | None:
    """Strict application: all context, in order; `exact`: also at the very lines."""
    out: Lines = []
    done = shift = 0
    for h in hunks:
        want = h.old()
        at = place(want, old, done, h.start + shift, exact)
        if at is None:
            return None
        shift = at - h.start
        out += old[done:at]
        out += h.new()
        done = at + len(want)
    return out + old[done:]


def place(want: Lines, old: Lines, low: int, near: int, exact: bool = False) -> int | None:
    """The place nearest to `near` where the lines stand."""
    if exact:
        return near if near >= low and old[near:near + len(want)] == want else None
    spots = all_places(want, old, low) if want else [min(max(near, low), len(old))]
    return nearest(spots, near)


def nearest(spots: Sequence[int], near: int) -> int | None:
    return min(spots, key=lambda s: abs(s - near)) if spots else None


def all_places(want: Lines, old: Lines, low: int = 0) -> list[int]:
    out = []
    at = low - 1
    while want:
        try:
            at = old.index(want[0], at + 1)
        except ValueError:
            break
        if old[at:at + len(want)] == want:
            out.append(at)
    return out


class Onto:
    """A tree that patches are applied to one after another, in memory."""

    def __init__(self, git: Git, rev: str):
        self.git = git
        self.oid = git.revision(rev)
        self.tree = git.commit(self.oid).tree
        self.over: dict[str, tuple[int, bytes | None]] = {}
        self.existed: dict[int, dict[str, bool]] = {}

    def get(self, path: str) -> tuple[int, bytes | None]:
        if path not in self.over:
            found = self.git.lookup(self.tree, path)
            if found is None or found[0] == 0o40000:
                return 0, None
            return found[0], self.git.blob(found[1]) if found[0] != GITLINK else found[1].encode()
        return self.over[path]

    def had(self, patch: Patch, path: str) -> bool | None:
        return self.existed.get(id(patch), {}).get(path, self.git.lookup(self.tree, path) is not None)

    def apply(self, patch: Patch) -> None:
        patch.where = self
        self.existed[id(patch)] = {p: data is not None for p, (_, data) in self.over.items()}
        for f in patch.files or []:
            mode, data = self.get(f.old_path)
            if f.opaque:
                patch.broken = patch.broken or f"{f.path()}: a binary patch cannot be applied in memory"
                continue
            if (data is None) != (f.old_mode == 0):
                what = "is missing" if data is None else "exists already"
                patch.broken = f"does not apply: {f.old_path} {what}"
                return
            new = apply_hunks(f.hunks, split(data or b""), False)
            if new is None:
                patch.broken = f"does not apply to {f.old_path}"
                return
            f.old_mode = mode
            f.new_mode = 0 if f.new_mode == 0 else f.new_mode if f.new_mode > 0 else mode
            f.contents = (data, b"".join(new) if f.new_mode else None)
            if f.old_path != f.new_path:
                self.over[f.old_path] = (0, None)
            self.over[f.path()] = (f.new_mode, f.contents[1])


def find_contents(patches: Iterable[Patch], stores: Sequence[Git]) -> None:
    """Fill in contents by the patches' index lines, from repositories and from the patches before."""
    made: dict[str, bytes] = {}

    def look(oid: str) -> bytes | None:
        for full, data in made.items():
            if full.startswith(oid):
                return data
        for git in stores:
            try:
                got = git.object(oid)
            except (Ambiguous, FetchFailed):
                continue
            if got and got[1] == "blob":
                return got[2]
        return None

    for patch in patches:
        for f in patch.files or []:
            if f.contents is not None:
                continue
            old = look(f.old_oid) if f.old_oid and f.old_mode else None
            if f.old_mode and old is None and (f.new_mode or not f.hunks):
                continue
            if old is not None:
                patch.seen[f.old_path] = True
            elif f.old_mode:            # deleted: the patch has it all
                f.contents = (b"".join(f.hunks[0].old()), None)
                continue
            if f.opaque:
                new = look(f.new_oid) if f.new_oid else None
            else:
                lines = apply_hunks(f.hunks, split(old or b""), True)
                new = None if lines is None else b"".join(lines)
            if not f.new_mode and (f.opaque or new is not None):
                f.contents = (old, None)
            elif new is not None:
                name = blob_name(new, f.new_oid)
                if name.startswith(f.new_oid):      # else edited by hand: the index line does not hold
                    f.contents = (old, new)
                    made[name] = new


def is_range(spec: str) -> bool:
    return ".." in spec and not spec.startswith((".", "/"))


def source(spec: str, git: Git | None, stores: Sequence[Git], onto: str = "") -> tuple[list[Patch], bool]:
    """Patches of a range or from files; and whether they were posted (mails)."""
    if not os.path.exists(spec):
        if not is_range(spec):
            raise Err(f"{spec}: neither a range A..B nor a file or directory",
                      "give a range, an mbox, a maildir or a directory of patches", USAGE)
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
