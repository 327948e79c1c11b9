# SPDX-License-Identifier: GPL-2.0-only
"""The edit tree of a base: base commit, one commit a patch; and its commits back into patches/.

It is a git repository of the user's; whatever is in it is never lost.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..common import FAIL, USAGE, Err, beside, flag, remove, say, stage, write
from . import bases, config
from .store import PREREQ, PRODUCTS, Rejected, Store, digest, git, is_own, series, shown

BASE_REF = "refs/smmuv3-kdump/base"     # in the edit tree: the base commit it was made from
MADE_REF = "refs/smmuv3-kdump/made"     # and its tip when it and the queue were last the same
QUEUE_KEY = "smmuv3-kdump.queue"        # and a hash of the queue's files at that time

# All that git might take from a configuration or change between its versions is fixed.
FORMAT_PATCH = (
    "format-patch", "-q", "--zero-commit", "--no-signature", "--no-numbered", "--full-index", "--no-renames",
    "--no-attach", "--no-thread", "--no-cover-letter", "--no-base", "--no-notes", "--no-ext-diff", "--binary",
    "--no-textconv", "--diff-algorithm=myers", "--indent-heuristic", "-U3", "--no-stat", "--src-prefix=a/",
    "--dst-prefix=b/", "--subject-prefix=PATCH", "--filename-max-length=64", "--no-encode-email-headers",
    "--no-signoff", "--suffix=.patch")


class EditTree:
    """The git repository that the user edits."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.path = store.here / "linux"
        self.begun = store.here / "refresh.begun"       # of a refresh that writes: {file: [hash now, then]}

    def in_edit(self, *args: str | Path, check: bool = True) -> str:
        return git("-C", self.path, *args, check=check).stdout.rstrip()

    def sync(self, head: str) -> None:
        """Record that the edit tree and the queue are the same at this commit."""
        self.in_edit("update-ref", BASE_REF, self.store.source())
        self.in_edit("update-ref", MADE_REF, head)
        self.in_edit("config", QUEUE_KEY, self._queue_hash())
        self.begun.unlink(missing_ok=True)

    def _queue_hash(self) -> str:
        return digest(self.store.source(), *(patch.read_bytes() for patch in self.store.queue()))

    def _same(self, one: str, other: str) -> bool:
        """Two commits with the same patches, whoever committed them and when."""
        def content(tip: str) -> str:
            return self.in_edit("log", "--format=%T%n%an%n%ae%n%aI%n%B", f"{self.store.source()}..{tip}")
        return one == other or content(one) == content(other)

    def busy(self) -> str:
        names = {"rebase-merge": "a rebase", "rebase-apply": "a rebase or git am",
                 "CHERRY_PICK_HEAD": "a cherry-pick", "MERGE_HEAD": "a merge"}
        return next((what for name, what in names.items() if (self.path / ".git" / name).exists()), "")

    def _make(self, commit: str) -> None:
        """A new edit tree at this commit; it is there whole or not at all."""
        with stage(f"writing {self.path}"), beside(self.path) as new:
            git("init", "-q", "-b", "queue", new)
            objects = self.store.git_dir / "objects"
            (new / ".git" / "objects" / "info" / "alternates").write_text(f"{objects}\n")
            shutil.copy(self.store.git_dir / "info" / "attributes", new / ".git" / "info")
            git("-C", new, "reset", "-q", "--hard", commit)
        self.sync(commit)

    def tree(self) -> Path:
        """The edit tree with the queue applied. What the user has in it is never lost."""
        with self.store.lock():
            source = self.store.source()
            there = (self.path / ".git").is_dir()
            if there and self._interrupted():
                raise Err("a refresh was interrupted, the queue is half written",
                          f"{self.store.verb('refresh')}, which goes on with it", FAIL)
            try:
                tip = self.store.apply(source, self.store.queue())
            except Rejected as err:
                if not there:
                    self._make(err.tip)
                rest = " ".join(map(str, err.rest))
                raise Err(err.cause, f"cd {self.path} && git checkout --detach {err.tip[:12]} && "
                          f"git am --reject {rest}\n        mend what it rejects, `git am --continue`; "
                          f"then here: {self.store.verb('refresh')}", FAIL) from err
            if not there:
                self._make(tip)
                return self.path
            head = self.in_edit("rev-parse", "HEAD")
            note = f"that are not in the queue; {self.store.verb('refresh')} writes them there"
            if self._same(head, tip):
                self.sync(head)
            elif self.in_edit("config", QUEUE_KEY, check=False) == self._queue_hash():
                say(f"note: the tree holds changes {note}")
            elif head == self._made() and not self.busy() and not self.changes():
                with stage(f"bringing {self.path} to the queue"):
                    self.in_edit("reset", "-q", "--keep", tip)
                self.sync(tip)
            elif self._holds(tip):
                self.sync(tip)
                say(f"note: the tree holds commits {note}")
            else:
                raise Err(f"{self.path} has commits or changes of its own, and the queue or the base changed "
                          "as well; it is left as it is", f"commit what is there, then: git -C {self.path} "
                          f"rebase --onto {tip[:12]} {self._made()[:12]}; or move it away", FAIL)
            return self.path

    def commits(self) -> list[str]:
        """The tree's commits on the base, the oldest first."""
        try:
            self.tree()
        except Err as err:
            # The queue may not apply here: then what stands in the tree in its place is what is meant.
            if not isinstance(err.__cause__, Rejected) or self._made() == self.in_edit("rev-parse", "HEAD"):
                raise
        with self.store.lock():
            source = self.store.source()
            self._check_tree(source)
        return self.in_edit("rev-list", "--reverse", f"{source}..HEAD").split()

    def at_base(self) -> None:
        """Make the tree without any patch, if there is none. The caller holds the lock."""
        if not (self.path / ".git").is_dir():
            self._make(self.store.source())

    def _made(self) -> str:
        return self.in_edit("rev-parse", "-q", "--verify", MADE_REF, check=False)

    def _holds(self, tip: str) -> bool:
        """Is the tree built upon the queue as it is now, and not upon patches that it has lost since?"""
        made = self._made()
        return self._before(tip, "HEAD") and not (self._before(tip, made) and self._before(made, "HEAD"))

    def _before(self, one: str, other: str) -> bool:
        done = git("-C", self.path, "merge-base", "--is-ancestor", one, other, check=False)
        return done.returncode == 0

    def check_still(self) -> None:
        """Nothing is under way, and all is committed."""
        if self.busy():
            raise Err(f"{self.busy()} is under way in {self.path}", "finish or abort it first", FAIL)
        if changes := self.changes():
            raise Err(f"{self.path} has uncommitted changes: {', '.join(changes[:5])}"
                      + (f" and {len(changes) - 5} more" if len(changes) > 5 else ""),
                      "commit them (git add -f for new files) or undo them", FAIL)

    def changes(self) -> list[str]:
        """Files of the edit tree that are not as committed."""
        changed = self.in_edit("diff", "--name-only", "HEAD")
        new = self.in_edit("ls-files", "-o", *(f"--exclude={name}" for name in PRODUCTS))
        return [*changed.splitlines(), *new.splitlines()]

    def refresh(self, force: bool = False) -> Path:
        """The edit tree's commits into the patch directory. Bytes depend on the commits alone."""
        with self.store.lock():
            source = self.store.source()
            self._check_tree(source)
            self._check_seen(source)
            new = self.store.here / "refresh"
            remove(new)
            self.in_edit(*FORMAT_PATCH, "--output-directory", new, f"{source}..HEAD")
            made = sorted(new.glob("*.patch"))
            if not self._same(self.store.apply(source, made), "HEAD"):
                raise Err("the patches, applied again, do not give the tree's commits",
                          "look for lines `---` or `diff ` in a commit message, and for an author without a "
                          "name", FAIL)
            self._write(made, force)
            self.sync(self.in_edit("rev-parse", "HEAD"))
            return self.store.base.patches

    def _check_tree(self, source: str) -> None:
        """Refresh takes a line of commits on the base, all committed."""
        if not (self.path / ".git").is_dir():
            raise Err(f"there is no edit tree {self.path}", self.store.verb("tree"), USAGE)
        self.check_still()
        if not self._before(source, "HEAD"):
            raise Err(f"the tree's HEAD is not built on the base {self.store.version()} ({source[:12]})",
                      f"git -C {self.path} rebase --onto {source[:12]} {BASE_REF}", FAIL)
        if self.in_edit("rev-list", "--merges", f"{source}..HEAD"):
            raise Err("the tree has a merge: a queue is a line",
                      f"git -C {self.path} rebase {source[:12]}", FAIL)

    def _check_seen(self, source: str) -> None:
        """The queue must not hold anything that the tree's commits were made without."""
        if self._interrupted() or self.in_edit("config", QUEUE_KEY, check=False) == self._queue_hash():
            return
        try:
            tip = self.store.apply(source, self.store.queue())
        except Rejected as err:
            tip = err.tip
        if not self._holds(tip):
            raise Err(f"{shown(self.store.base.patches)} changed since the tree was made: refresh would undo "
                      "that", f"{self.store.verb('tree')} says how to bring the two together", FAIL)

    def _interrupted(self) -> bool:
        """Was a refresh killed while it wrote, and nobody there since? All is as it was, or was to be."""
        planned = self._planned()
        return bool(planned) and all(_hash(self.store.base.patches / name) in hashes
                                     for name, hashes in planned.items())

    def _planned(self) -> dict[str, list[str]]:
        """What a refresh that did not come to its end was about to write."""
        try:
            return dict(json.loads(self.begun.read_text()))
        except (OSError, ValueError, TypeError):
            return {}

    def _write(self, made: Sequence[Path], force: bool) -> None:
        there = self.store.base.patches
        queue = self.store.queue() if there.is_dir() else []
        old = {_slug(patch): patch for patch in queue}
        wanted: dict[str, bytes] = {}
        counts = {"": 0, PREREQ: 0}
        for patch in made:
            before = old.get(_slug(patch))
            where = PREREQ if (not is_own(before) if before else is_prereq(patch)) else ""
            counts[where] += 1
            content = patch.read_bytes()
            if before and not force and before.read_bytes() != content and _gist(before) == _gist(patch):
                say(f"{before.name}: only offsets changed, left as it is (FORCE=1 writes it)")
                content = before.read_bytes()
            wanted[os.path.join(where, f"{counts[where]:04d}-{_slug(patch)}")] = content
        # Those of the queue alone: what no series names is somebody's.
        known = {str(patch.relative_to(there)) for patch in queue} | self._planned().keys() - {"series"}
        gone = sorted(name for name in known - wanted.keys() if (there / name).is_file())
        wanted["series"] = "".join(f"{name}\n" for name in wanted).encode()
        changed = [name for name, content in wanted.items() if _hash(there / name) != digest(content)]
        then = {name: digest(content) for name, content in wanted.items()} | dict.fromkeys(gone, "")
        write(self.begun, json.dumps({name: [_hash(there / name), last] for name, last in then.items()}))
        # At no moment does `series` name a patch that is not there.
        for name in changed:
            (there / name).parent.mkdir(parents=True, exist_ok=True)
            write(there / name, wanted[name])
        for name in gone:
            (there / name).unlink()
        written = [*changed, *(f"{name} (removed)" for name in gone)]
        say(f"{shown(there)}: " + (f"written: {', '.join(written)}" if written else "nothing to change"))


def _hash(path: Path) -> str:
    """Of a file's content; nothing if there is none."""
    return digest(path.read_bytes()) if path.is_file() else ""


def _slug(patch: Path) -> str:
    return re.sub(r"^\d+-", "", patch.name)


def is_prereq(patch: Path) -> bool:
    """Is a patch of this name in prereq/ of any base?"""
    return any(bases.MANIFEST.parent.glob(f"*/{PREREQ}/*-{_slug(patch)}"))


def _gist(patch: Path) -> list[bytes]:
    """A patch without what moves when only its surroundings do."""
    return [b"@@" if line.startswith(b"@@ -") else line for line in patch.read_bytes().splitlines()
            if not line.startswith((b"index ", b"From "))]


def _rejected(store: Store, patches: Sequence[Path]) -> list[Path]:
    """Those that do not apply after the others, on the store's base."""
    tip, left = store.source(), []
    for patch in patches:
        try:
            tip = store.apply(tip, [patch])
        except Rejected:
            left.append(patch)
    return left


def nearest() -> Store:
    """The base that BASE= names; for a KSRC= alone the one of whose patches most apply."""
    base, ksrc = (os.environ.get(name, "") for name in ("BASE", "KSRC"))
    if base or not ksrc:
        return Store(base or config.load().base)
    trial = Store(bases.newest().name)
    with trial.lock():
        version = trial.version().removeprefix("Linux ")
        left = {base.name: _rejected(trial, series(base.patches)) for base in bases.read().values()}

    def numbers(text: str) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", text)[:2]]

    def distance(name: str) -> tuple[int, ...]:
        return len(left[name]), *(abs(one - other) for one, other in zip(numbers(name), numbers(version)))

    for name in sorted(left, key=distance):
        which = f": {', '.join(shown(patch) for patch in left[name][:2])}" if left[name] else ""
        say(f"patches of {name} on {version}: {len(left[name]) or 'none'} rejected{which}"
            + (", …" if len(left[name]) > 2 else ""))
    best = min(left, key=distance)
    say(f"BASE={best} is the nearest")
    return Store(best)


def tree() -> int:
    """make tree"""
    print(EditTree(nearest()).tree())
    return 0


def refresh() -> int:
    """make refresh"""
    print(EditTree(nearest()).refresh(force=flag("FORCE")))
    return 0
