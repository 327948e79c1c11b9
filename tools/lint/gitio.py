# SPDX-License-Identifier: GPL-2.0-only
"""Batch access to git repositories.

Git is not trusted blindly: every object is hashed again, every list of commits must be closed
under its parents, and a process that fails, stops talking or dies half-way raises GitError.

Why not plain `subprocess.run(["git", ...])`: a command per object would take minutes for a branch
of a thousand commits, so one `git cat-file --batch` answers all, and its two pipes must be served
in turn.  And git's exit status is no proof: a rev-list that was killed behind a wrapper, a damaged
object or a hung remote would leave a shorter list, and rows that were never compared would be green.
"""
from __future__ import annotations

import hashlib
import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

OK, FINDINGS, USAGE, ENVIRONMENT = 0, 1, 2, 3

NEEDED = 2, 39          # of git
CACHE_BYTES = 96 << 20
HEX = re.compile(r"[0-9a-f]{4,64}")
FETCH_TROUBLE = re.compile(r"could not fetch|promisor|unable to access|could not read from remote|"
                           r"missing blob|unable to read (?:tree|blob|[0-9a-f]{40})|early EOF", re.I)


class Err(Exception):
    """One clear line with the cause and the next step; `code` is the exit status."""

    def __init__(self, cause: str, next_step: str = "", code: int = ENVIRONMENT):
        super().__init__(cause)
        self.cause, self.next_step, self.code = cause, next_step, code


class GitError(Err):
    """Git failed, hung, lied or was killed: nothing may be concluded."""


class FetchFailed(Err):
    """Content that git knows of could not be had (partial clone, shallow clone, dead remote)."""


def silence() -> float:
    """How long git may say nothing before it counts as hung, in seconds."""
    text = os.environ.get("LINT_TIMEOUT", "300")
    try:
        return float(text)
    except ValueError:
        raise Err(f"LINT_TIMEOUT is no number: {text!r}", "give it in seconds", USAGE) from None


class Ambiguous(Exception):
    """An abbreviated name stands for more than one commit."""


@dataclass(frozen=True)
class Person:
    name: str
    email: str

    def __str__(self) -> str:
        return f"{self.name} <{self.email}>"


@dataclass(frozen=True)
class Commit:
    oid: str
    tree: str
    parents: tuple[str, ...]
    author: Person
    committer: Person
    committed: int
    message: str
    legible: bool       # the message and the names decode in the encoding the commit claims


class Entry(NamedTuple):
    """A path that differs between two trees; mode 0: absent there."""
    path: str
    mode0: int
    oid0: str
    mode1: int
    oid1: str


# Hooks set these: git would look into the hook's repository whatever directory it is given.
ELSEWHERE = ("GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_NAMESPACE",
             "GIT_SHALLOW_FILE", "GIT_ATTR_SOURCE",
             "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS")


def environment() -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if k not in ELSEWHERE}
    env.update(LC_ALL="C.UTF-8", GIT_TERMINAL_PROMPT="0", GIT_OPTIONAL_LOCKS="0",
               GIT_NO_REPLACE_OBJECTS="1", GIT_GRAFT_FILE=os.devnull, GIT_PAGER="cat")
    return env


class Process:
    """A git process whose output is read in pieces, with a limit on its silence."""

    def __init__(self, argv: Sequence[str], stdin: bytes | None = None, feed: bool = False,
                 extra: Mapping[str, str] = MappingProxyType({})):
        self.argv = list(argv)
        self.feed = feed                # the input stays open for more
        self.patience = silence()
        self.err = b""
        try:
            self.child = subprocess.Popen(
                self.argv, env={**environment(), **extra}, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                stdin=subprocess.PIPE if feed or stdin is not None else subprocess.DEVNULL)
        except OSError as e:
            raise GitError(f"cannot run {self.argv[0]}: {e.strerror}", "install git") from e
        assert self.child.stdout and self.child.stderr
        self.out = self.child.stdout.fileno()
        self.fds = [self.out, self.child.stderr.fileno()]
        self.todo = memoryview(stdin) if stdin is not None else None
        if self.child.stdin:
            os.set_blocking(self.child.stdin.fileno(), False)
        if stdin == b"":
            self.close_stdin()

    def name(self) -> str:
        """The command without git's own options."""
        words = iter(self.argv[1:])
        for w in words:
            if w in ("-C", "-c"):
                next(words)
            elif not w.startswith("-"):
                return f"git {w}"
        return "git"

    def close_stdin(self) -> None:
        self.todo = None
        if self.child.stdin:
            try:
                self.child.stdin.close()
            except OSError:
                pass
            self.child.stdin = None

    def read(self) -> bytes:
        """Some output; b"" at its end."""
        deadline = time.monotonic() + self.patience
        while True:
            writers = [self.child.stdin] if self.todo is not None and self.child.stdin else []
            left = deadline - time.monotonic()
            ready, can_write, _ = select.select(self.fds, writers, [], max(left, 0))
            if not ready and not can_write:
                self.kill()
                raise GitError(f"{self.name()} said nothing for {self.patience:g} s and was stopped",
                               "look at the repository, or set LINT_TIMEOUT higher")
            if can_write:
                assert self.todo is not None and self.child.stdin
                try:
                    self.todo = self.todo[os.write(self.child.stdin.fileno(), self.todo[:65536]):]
                except OSError:
                    self.close_stdin()
                if self.todo is not None and not self.todo:
                    self.todo = None
                    if not self.feed:
                        self.close_stdin()
            if self.out in ready:
                return os.read(self.out, 1 << 20)
            for fd in ready:
                more = os.read(fd, 65536)
                self.err = (self.err + more)[-65536:]
                if not more:
                    self.fds.remove(fd)

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()

    def finish(self, allowed: Sequence[int] = (0,)) -> int:
        """Wait for the end; raises unless the status is an allowed one."""
        self.close_stdin()
        try:
            _, more = self.child.communicate(timeout=self.patience)
        except subprocess.TimeoutExpired:
            self.kill()
            raise GitError(f"{self.name()} did not end", "look at the repository") from None
        self.err += more or b""
        if self.child.returncode not in allowed:
            raise self.failure()
        return self.child.returncode

    def failure(self) -> Err:
        said = self.err.decode("utf-8", "replace").strip().splitlines()
        status = self.child.returncode
        how = f"was killed by signal {-status}" if status and status < 0 else f"failed with status {status}"
        cause = f"{self.name()} {how}: {said[-1] if said else 'no message'}"
        if FETCH_TROUBLE.search("\n".join(said)):
            return FetchFailed(cause, "make the remote reachable, or fetch the missing objects first")
        return GitError(cause, "run the same git command by hand")


class Batch:
    """`git cat-file --batch`: objects by name, hashed again on arrival."""

    def __init__(self, git: Git):
        self.process = Process(git.argv("cat-file", "--batch"), feed=True)
        self.buffer = bytearray()

    def ask(self, names: Sequence[str]) -> None:
        """Hand over requests; they are written while the answers are read."""
        self.process.todo = memoryview("".join(n + "\n" for n in names).encode("utf-8", "surrogateescape"))

    def fill(self) -> None:
        more = self.process.read()
        if not more:
            self.process.finish(())
        self.buffer += more

    def line(self) -> str:
        while True:
            end = self.buffer.find(b"\n")
            if end >= 0:
                text = self.buffer[:end].decode("utf-8", "surrogateescape")
                del self.buffer[:end + 1]
                return text
            self.fill()

    def data(self, size: int) -> bytes:
        while len(self.buffer) < size + 1:
            self.fill()
        body = bytes(self.buffer[:size])
        if self.buffer[size] != 10:
            raise GitError("git cat-file: object of another size than it said", "run git fsck")
        del self.buffer[:size + 1]
        return body

    def answer(self, name: str) -> tuple[str, str, bytes] | None:
        head = self.line()
        if head == f"{name} missing":
            return None
        if head == f"{name} ambiguous":
            raise Ambiguous(name)
        words = head.split(" ")
        if len(words) != 3 or not words[2].isdigit() or not HEX.fullmatch(words[0]):
            raise GitError(f"git cat-file gave a strange answer for {name}: {head[:80]!r}", "run git fsck")
        oid, kind, size = words[0], words[1], int(words[2])
        body = self.data(size)
        digest = hashlib.sha1 if len(oid) == 40 else hashlib.sha256
        if digest(b"%s %d\0" % (kind.encode(), size) + body).hexdigest() != oid:
            raise GitError(f"git cat-file gave other content than {oid[:12]}'s", "run git fsck")
        return oid, kind, body


class Git:
    """One repository."""

    def __init__(self, path: str):
        self.path = path
        self.batch: Batch | None = None
        self.commits: dict[str, Commit] = {}
        self.store: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self.stored = 0
        if not os.path.isdir(path):
            raise Err(f"{path}: no such directory", "name a git repository", USAGE)
        check_version()
        try:
            out = self.run("rev-parse", "--absolute-git-dir", "--git-common-dir")
        except GitError as e:
            raise Err(f"{path} is no git repository, or git cannot read it ({e.cause})",
                      "name a repository with -C or --reference (LINUX_GIT)") from e
        lines = out.decode("utf-8", "surrogateescape").splitlines()
        if len(lines) < 2:
            raise GitError(f"git rev-parse in {path} gave no directory", "run it by hand")
        self.gitdir = os.path.realpath(os.path.join(path, lines[1]))

    def argv(self, *args: str) -> list[str]:
        return ["git", "-C", self.path, "-c", "core.quotePath=false", "-c", "log.showSignature=false",
                "-c", "core.commitGraph=true", *args]

    def shallow(self) -> bool:
        return os.path.exists(os.path.join(self.gitdir, "shallow"))

    def run(self, *args: str, stdin: bytes | None = None) -> bytes:
        return b"".join(self.stream(*args, stdin=stdin))

    def stream(self, *args: str, stdin: bytes | None = None) -> Iterator[bytes]:
        """The output in pieces; a failure is raised after the last one."""
        p = Process(self.argv(*args), stdin)
        done = False
        try:
            while piece := p.read():
                yield piece
            done = True
        finally:
            if not done:
                p.kill()
        p.finish()

    def records(self, *args: str, stdin: bytes | None = None) -> Iterator[bytes]:
        """Records that end in NUL."""
        rest = b""
        for piece in self.stream(*args, stdin=stdin):
            parts = (rest + piece).split(b"\0")
            rest = parts.pop()
            yield from parts
        if rest.strip():
            raise GitError(f"git {args[0]} ended in the middle of a record", "run git fsck")

    # --- objects -------------------------------------------------------------------------

    def fetch(self, names: Sequence[str]) -> list[tuple[str, str, bytes] | None]:
        if self.batch is None:
            self.batch = Batch(self)
        try:
            self.batch.ask(names)
            return [self.batch.answer(name) for name in names]
        except Ambiguous:
            if len(names) == 1:
                raise
            raise GitError("git calls a full name ambiguous", "run git fsck") from None
        except Err:
            self.batch = None
            raise

    def object(self, name: str) -> tuple[str, str, bytes] | None:
        if name in self.store:
            self.store.move_to_end(name)
            return (name, *self.store[name])
        got = self.fetch([name])[0]
        if got is not None:
            if not (got[0].startswith(name) or not HEX.fullmatch(name)):
                if len(name) < 40:      # a branch or a tag of that name goes before
                    raise Ambiguous(name)
                raise GitError(f"git cat-file gave {got[0][:12]} for {name[:12]}", "run git fsck")
            self.keep(*got)
        return got

    def keep(self, oid: str, kind: str, body: bytes) -> None:
        if oid in self.store or len(body) > CACHE_BYTES // 4:
            return
        self.store[oid] = (kind, body)
        self.stored += len(body)
        while self.stored > CACHE_BYTES:
            _, (_, old) = self.store.popitem(last=False)
            self.stored -= len(old)

    def need(self, oid: str, kind: str) -> bytes:
        got = self.object(oid)
        if got is None:
            raise FetchFailed(f"{self.path} lacks the {kind} {oid[:12]}",
                              "the repository is shallow, partial or damaged: fetch it in full")
        if got[1] != kind:
            raise GitError(f"{oid[:12]} is a {got[1]}, not a {kind}", "run git fsck")
        return got[2]

    def blob(self, oid: str) -> bytes:
        return self.need(oid, "blob")

    def commit(self, oid: str) -> Commit:
        if oid not in self.commits:
            self.commits[oid] = parse_commit(oid, self.need(oid, "commit"))
        return self.commits[oid]

    def parent_tree(self, commit: Commit) -> str:
        """The tree before a commit; "" is the empty one."""
        return self.commit(commit.parents[0]).tree if commit.parents else ""

    def load_commits(self, oids: Iterable[str]) -> None:
        """Read many commits in one go."""
        want = [o for o in dict.fromkeys(oids) if o not in self.commits]
        for name, got in zip(want, self.fetch(want)):
            if got is not None and got[1] == "commit":
                if got[0] != name:
                    raise GitError(f"git cat-file gave {got[0][:12]} for {name[:12]}", "run git fsck")
                self.commits[name] = parse_commit(name, got[2])

    def resolve(self, name: str) -> str | None:
        """The commit that a (possibly abbreviated) hash names; raises Ambiguous."""
        if len(name) in (40, 64) and name in self.commits:
            return name
        got = self.object(f"{name}^{{commit}}")
        if got is None:
            self.object(name)           # says so if it is ambiguous
            return None
        if not got[0].startswith(name.lower()) or got[1] != "commit":
            other = self.object(name)       # an annotated tag's hash names its commit
            if other is None or other[1] != "tag":
                raise GitError(f"git cat-file gave {got[0][:12]} for {name}", "run git fsck")
        self.commits.setdefault(got[0], parse_commit(got[0], got[2]))
        return got[0]

    def revision(self, rev: str) -> str:
        """The commit that a revision (branch, tag, hash, HEAD~3) names."""
        if rev.startswith("-"):
            raise Err(f"{rev!r} is no revision", "name a branch, a tag or a commit", USAGE)
        try:
            got = self.object(f"{rev}^{{commit}}")
        except Ambiguous:
            got = None
        if got is None:
            raise Err(f"{self.path} has no commit {rev!r}", "check the name, or fetch it"
                      + (" (the repository is shallow: git fetch --unshallow)" if self.shallow() else ""),
                      USAGE)
        return got[0]

    # --- trees -----------------------------------------------------------------------------

    def tree(self, oid: str) -> dict[bytes, tuple[int, str]]:
        if not oid:
            return {}
        data = self.need(oid, "tree")
        out: dict[bytes, tuple[int, str]] = {}
        at, size = 0, len(oid) // 2
        while at < len(data):
            space = data.index(b" ", at)
            nul = data.index(b"\0", space)
            out[data[space + 1:nul]] = (int(data[at:space], 8), data[nul + 1:nul + 1 + size].hex())
            at = nul + 1 + size
        return out

    def changes(self, old: str, new: str, prefix: bytes = b"") -> list[Entry]:
        """Every file that differs between two trees ("" is the empty tree)."""
        if old == new:
            return []
        a, b = self.tree(old), self.tree(new)
        out: list[Entry] = []
        for name in sorted(a.keys() | b.keys()):
            m0, o0 = a.get(name, (0, ""))
            m1, o1 = b.get(name, (0, ""))
            if (m0, o0) == (m1, o1):
                continue
            t0, t1 = (o0 if m0 == 0o40000 else ""), (o1 if m1 == 0o40000 else "")
            if t0 or t1:
                out += self.changes(t0, t1, prefix + name + b"/")
            m0, o0 = (0, "") if t0 else (m0, o0)
            m1, o1 = (0, "") if t1 else (m1, o1)
            if m0 or m1:
                out.append(Entry((prefix + name).decode("utf-8", "surrogateescape"), m0, o0, m1, o1))
        return out

    def lookup(self, tree: str, path: str) -> tuple[int, str] | None:
        """Mode and name of what stands at a path."""
        here = (0o40000, tree)
        for part in path.encode("utf-8", "surrogateescape").split(b"/"):
            if here[0] != 0o40000:
                return None
            found = self.tree(here[1]).get(part)
            if found is None:
                return None
            here = found
        return here

    # --- histories --------------------------------------------------------------------------

    def range(self, spec: str) -> list[str]:
        """Commits of A..B, oldest first; the list is proven to be whole."""
        old, _, new = spec.partition("..")
        old, new = old or "HEAD", new.lstrip(".") or "HEAD"
        a, b = self.revision(old), self.revision(new)
        out = self.run("rev-list", "--topo-order", "--reverse", "--boundary", b, f"^{a}", "--")
        inside, edge = [], {a}
        for word in out.decode("ascii", "replace").split():
            if word.startswith("-"):
                edge.add(word[1:])
            elif HEX.fullmatch(word):
                inside.append(word)
            else:
                raise GitError(f"git rev-list printed {word[:60]!r}", "run it by hand")
        self.load_commits(inside)
        known = set(inside) | edge
        closed = all(p in known for c in inside for p in self.commit(c).parents)
        if not closed and self.shallow():
            raise FetchFailed(f"{self.path} is shallow, and lacks commits of {spec}", "git fetch --unshallow")
        if not closed or len(set(inside)) != len(inside) or (inside and inside[-1] != b):
            raise GitError(f"git rev-list {spec} left commits out", "run git fsck")
        if not inside and not self.ancestor(b, a):
            raise GitError(f"git rev-list {spec} printed nothing, yet {new} is not in {old}", "run git fsck")
        return inside

    def ancestor(self, old: str, new: str) -> bool:
        p = Process(self.argv("merge-base", "--is-ancestor", old, new))
        while p.read():
            pass
        return p.finish((0, 1)) == 0

    def outside(self, oids: Iterable[str], tips: Sequence[str]) -> set[str]:
        """Which of these commits are in the history of none of the tips."""
        want = set(oids)
        if not want or not tips:
            return want
        # the tips themselves are asked for, without their parents: one at least must be in the answer
        text = "\n".join([*sorted(want), *(t + "^!" for t in tips)]) + "\n"
        asked = want.union(tips)
        seen: set[str] = set()
        rest = b""
        for piece in self.stream("rev-list", "--stdin", "--reverse", stdin=text.encode()):
            lines = (rest + piece).split(b"\n")
            rest = lines.pop()
            seen.update(o for o in (line.decode("ascii", "replace") for line in lines) if o in asked)
        if rest or seen.isdisjoint(tips):
            raise GitError("git rev-list left commits out", "run git fsck, and again")
        return (seen & want).difference(tips)

    def tips(self, *patterns: str) -> list[str]:
        out = self.run("for-each-ref", "--format=%(objectname) %(objecttype) %(*objectname) %(*objecttype)",
                       *patterns)
        tips = []
        for line in out.decode().splitlines():
            words = line.split()
            if "commit" in words:
                tips.append(words[words.index("commit") - 1])
        return sorted(set(tips))

    def mainline_tips(self, given: Sequence[str], alone: bool, tags: bool) -> list[str]:
        """What counts as merged upstream; `alone`: the branch lives in this repository too."""
        if given:
            return sorted({self.revision(r) for r in given})
        if alone:
            return self.tips("refs/heads", "refs/remotes", "refs/tags")     # no stash, no notes
        usual = ["refs/heads/master", "refs/heads/main", "refs/remotes/*/HEAD", "refs/remotes/*/master",
                 "refs/remotes/*/main"]
        tips = set(self.tips(*usual, *(["refs/tags/v*"] if tags else [])))
        try:
            tips.add(self.revision("HEAD"))
        except Err:
            pass
        return sorted(tips) or self.tips()

    def odd_merges(self, merges: Sequence[str]) -> dict[str, FetchFailed | None]:
        """Merges whose tree is not what merging the parents by machine gives, or that lack what it takes.

        They are repeated in an empty repository that only borrows the objects: neither attributes nor merge
        drivers nor configuration, of the branch or of the machine, have a say.
        """
        odd: dict[str, FetchFailed | None] = {}
        with tempfile.TemporaryDirectory() as scratch:
            kind = "sha1" if len(merges[0]) == 40 else "sha256"
            run_git("init", "-q", "--bare", "--template=", f"--object-format={kind}", scratch)
            (Path(scratch) / "objects/info").mkdir(parents=True, exist_ok=True)
            (Path(scratch) / "objects/info/alternates").write_bytes(
                os.fsencode(os.path.join(self.gitdir, "objects")) + b"\n")
            if self.shallow():
                shutil.copy(os.path.join(self.gitdir, "shallow"), scratch)
            for oid in merges:
                c = self.commit(oid)
                try:
                    if self.merged(scratch, c.parents) != c.tree:
                        odd[oid] = None
                except FetchFailed as e:
                    odd[oid] = e
        return odd

    def merged(self, scratch: str, parents: Sequence[str]) -> str:
        """The tree that merging by machine gives, "" for a conflict; a partial clone fetches for it."""
        asked: set[str] = set()
        while True:
            try:
                status, out = run_git("--git-dir=" + scratch, "merge-tree", "--write-tree", "--no-messages",
                                      "--allow-unrelated-histories", *parents, allowed=(0, 1))
            except FetchFailed as e:
                lacks = re.search(r"unable to read \D*?([0-9a-f]{40,64})", e.cause)
                if not lacks or lacks[1] in asked or self.fetch([lacks[1]]) == [None]:
                    raise
                asked.add(lacks[1])
                continue
            tree = out.split(b"\n")[0].decode("ascii", "replace")
            if not re.fullmatch(r"[0-9a-f]{40,64}", tree):
                raise GitError(f"git merge-tree printed {tree[:60]!r}", "run it by hand")
            return "" if status else tree


def run_git(*args: str, allowed: Sequence[int] = (0,)) -> tuple[int, bytes]:
    """Git of no repository and without anybody's configuration and attributes: exit status, output."""
    p = Process(["git", "-c", "core.attributesFile=" + os.devnull, *args],
                extra={"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1",
                       "GIT_CONFIG_COUNT": "0", "GIT_CONFIG_PARAMETERS": ""})
    out = b""
    while piece := p.read():
        out += piece
    return p.finish(allowed), out


def check_version() -> None:
    """What `merge-tree --write-tree` and `patch-id --verbatim` need."""
    _, out = run_git("version")
    m = re.search(rb"version (\d+)\.(\d+)", out)
    if m and (int(m[1]), int(m[2])) < NEEDED:
        raise Err(f"git {m[1].decode()}.{m[2].decode()} is too old",
                  f"install git {NEEDED[0]}.{NEEDED[1]} or newer")


def parse_person(raw: bytes, encoding: str) -> tuple[Person, int, bool]:
    m = re.fullmatch(rb"(.*?)\s*<([^>]*)>\s*(-?\d+)?.*", raw, re.S)
    name, email, when = m.groups() if m else (raw, b"", b"0")
    (n, ok1), (e, ok2) = decode(name, encoding), decode(email, encoding)
    return Person(n.strip(), e.strip()), int(when or 0), ok1 and ok2


def decode(raw: bytes, encoding: str) -> tuple[str, bool]:
    try:
        return raw.decode(encoding), True
    except (UnicodeDecodeError, LookupError):
        return raw.decode("utf-8", "replace"), False


def parse_commit(oid: str, raw: bytes) -> Commit:
    head, _, body = raw.partition(b"\n\n")
    fields: dict[bytes, list[bytes]] = {}
    for line in head.split(b"\n"):
        key, _, value = line.partition(b" ")
        if key:
            fields.setdefault(key, []).append(value)
    encoding = fields.get(b"encoding", [b"utf-8"])[0].decode("ascii", "replace")
    author, _, ok1 = parse_person(fields.get(b"author", [b""])[0], encoding)
    committer, when, ok2 = parse_person(fields.get(b"committer", [b""])[0], encoding)
    message, ok3 = decode(body, encoding)
    return Commit(oid, fields[b"tree"][0].decode(), tuple(p.decode() for p in fields.get(b"parent", [])),
                  author, committer, when, message, ok1 and ok2 and ok3)


# Nothing of anybody's configuration decides what a patch looks like.
DIFF = ("-p", "-U3", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--full-index",
        "--diff-algorithm=myers", "--text", "--src-prefix=a/", "--dst-prefix=b/", "--ignore-submodules=none",
        "--no-relative")


def patch_ids(sources: Sequence[tuple[Git, Sequence[str]]]) -> dict[str, str]:
    """Patch-id by commit, white space and all, for commits of several repositories: one `git patch-id`."""
    text = b"".join(git.run("diff-tree", "--stdin", *DIFF, stdin="".join(o + "\n" for o in oids).encode())
                    for git, oids in sources if oids)
    out = sources[0][0].run("patch-id", "--verbatim", stdin=text).decode("ascii", "replace")
    return {oid.strip(): pid for pid, _, oid in (line.partition(" ") for line in out.splitlines())}
