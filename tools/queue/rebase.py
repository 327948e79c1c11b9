# SPDX-License-Identifier: GPL-2.0-only
"""make rebase: the series of another base, or of anybody's git tree, brought to a base.

git does it, `git am -3` in the edit tree, on a branch of its own. What a three-way merge needs of the
other side, the files before each patch, is copied in first; so at a conflict all of git's own commands
work, and nothing of ours has to be there. Run again, it goes on from whatever state it finds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path

from ..common import FAIL, USAGE, Err, flag, remove, say, stage, write
from ..results import run_directory
from . import bases, lore
from .store import Store, git, is_own, of_user, pipeline, series, subject
from .tree import FORMAT_PATCH, EditTree, is_prereq, nearest

AM = ("am", "-q", "-3", "--keep-cr", "--keep-non-patch", "--no-scissors", "--whitespace=nowarn",
      "--committer-date-is-author-date", "--no-gpg-sign")

# An earlier public version of the idea, where it is a tree's own: its subjects, and what its code is called.
PUBLIC = {line.lower() for line in (
    "Add arm_smmu_kdump_adopt_strtab() for kdump", "Implement is_attach_deferred() for kdump",
    "Do not enable EVTQ/PRIQ interrupts in kdump kernel", "Skip EVTQ/PRIQ setup in kdump kernel",
    "Retain CR0_SMMUEN during kdump device reset", "Skip RMR bypass for kdump adoption",
    "Detect ARM_SMMU_OPT_KDUMP_ADOPT in probe()")}
DRIVERS = "drivers/iommu"
SYMBOLS = r"(arm_smmu_kdump|OPT_KDUMP|kdump_adopt)"


class Source:
    """FROM: where the series comes from; its patches, and the repository that has their files."""

    def __init__(self, name: str, here: Path) -> None:
        self.name, self.range = name, ""        # the patches as commits of the repository, if it has one
        repository, _, span = name.rpartition(":")
        path = Path(repository or name).expanduser().absolute()
        self.repository, self.new = path, here / "from"
        if name in bases.read():
            self._of_base(Store(name, ""))
        elif ".." in span and Store.is_repository(path):
            self._of_repository(span)
        elif (path / "series").is_file():
            self.patches = series(path)
        elif boxes := [path] if path.is_file() else sorted([*path.glob("*.patch"), *path.glob("*.eml")]):
            self.patches = lore.taken(here, boxes)
        else:
            raise Err(f"FROM={name} is no base, no <repository>:A..B, no mailbox and no directory of patches",
                      f"one of: {' '.join(bases.read())}; or FROM=~/linux:v7.1..series", USAGE)

    def _of_base(self, store: Store) -> None:
        with store.lock():
            self.patches, root = store.queue(), store.source()
            self.repository, self.range = store.git_dir, f"{root}..{store.apply(root, store.queue())}"

    def _of_repository(self, span: str) -> None:
        found = of_user("-C", self.repository, "rev-list", "--min-parents=2", span, "--")
        if "..." in span or found.returncode or found.stdout:
            why = ("a series is a range with two dots" if "..." in span else
                   found.stderr.strip().splitlines()[0] if found.returncode else "a series has no merge")
            raise Err(f"FROM={self.name}: {why}", f"git -C {self.repository} log {span}", USAGE)
        remove(self.new)
        done = of_user("-C", self.repository, *FORMAT_PATCH, "-o", self.new, span)
        self.patches = sorted(self.new.glob("*.patch"))
        if done.returncode or not self.patches:
            raise Err(f"FROM={self.name}: {done.stderr.strip() or 'no commits'}", "give a range A..B of "
                      "commits that the repository has in full: nothing is fetched into it", USAGE)
        self.range = "..".join(of_user("-C", self.repository, "rev-parse", end or "HEAD").stdout.strip()
                               for end in span.split("..", 1))

    def range_diff(self, edit: EditTree, new: str) -> str:
        where = of_user("-C", self.repository, "rev-parse", "--path-format=absolute", "--git-path", "objects")
        env = {"GIT_ALTERNATE_OBJECT_DIRECTORIES": where.stdout.strip()}
        return git("-C", edit.path, "range-diff", "--no-color", self.range, new, env=env).stdout


def give(repository: Path, patches: Sequence[Path], to: Path) -> None:
    """Copy the files before each patch: what git am needs to fall back on a merge."""
    text = "".join(patch.read_text(errors="replace") for patch in patches)
    names = set(re.findall(r"(?m)^index ([0-9a-f]{40})\.\.", text)) - {"0" * 40}
    if names and pipeline([["git", "-C", repository, "pack-objects", "--stdout", "-q"],
                           ["git", "-C", to, "unpack-objects", "-q"]],
                          "\n".join(sorted(names)) + "\n").returncode:
        say(f"note: {repository} lacks files that the patches are of: where one does not apply there is no "
            "three-way merge")


def earlier(store: Store) -> list[tuple[str, str]]:
    """(commit, subject) of an earlier version of the idea that the tree has, the newest first."""
    if not store.ksrc or store.git("grep", "-q", "-E", SYMBOLS, store.source(), "--", DRIVERS,
                                   check=False).returncode:
        return []
    if not store.is_repository(store.ksrc):
        say(f"note: {store.ksrc} carries an earlier version of this idea, and has no history to revert it by")
        return []
    # A commit without a parent, as the oldest of a shallow clone, adds the whole driver, not one idea.
    log = ("-C", store.ksrc, "log", "--min-parents=1", "--max-parents=1", "HEAD")
    with stage("looking for an earlier version of the idea"):
        added = set(of_user(*log, "--format=%H", f"-G{SYMBOLS}", "--", DRIVERS).stdout.split())
        listing = of_user(*log, "--format=%H%x09%s%x09%b%x00", "--", DRIVERS).stdout
    commits = [entry.strip("\n").split("\t", 2) for entry in listing.split("\0") if entry.strip()]
    mark = "This reverts commit "
    undone = {name for _, _, body in commits for name in re.findall(mark + "([0-9a-f]{40})", body)}
    undone |= {name for name, _, body in commits if mark in body}
    if of_user("-C", store.ksrc, "rev-parse", "--is-shallow-repository").stdout == "true\n":
        say(f"note: {store.ksrc} carries an earlier version of this idea, and its history is cut short: "
            "commits before that are not found")
    return [(name, title) for name, title, _ in commits if name not in undone
            and (name in added or re.sub(r"^.*smmu-v3: ", "", title).lower() in PUBLIC)]


def revert(ksrc: Path, who: str, name: str, title: str, to: Path) -> Path:
    """The revert of a commit, as a mail of today."""
    of_user("-C", ksrc, "diff-tree", "-p", "-R", "--full-index", "--binary", "--no-renames", "--no-commit-id",
            f"--output={to}", name)
    head = (f"From: {who}\nDate: {formatdate(localtime=True)}\nSubject: Revert \"{title}\"\n\n"
            f"This reverts commit {name}.\n\n"
            "It is of an earlier version of the series that takes its place.\n\n---\n")
    write(to, head.encode() + to.read_bytes())
    return to


class Rebase:
    def __init__(self, store: Store, name: str) -> None:
        self.store, self.edit = store, EditTree(store)
        self.source = store.source()
        self.edit.at_base()
        self.here = store.here / "rebase"
        self.here.mkdir(exist_ok=True)
        self.name = name
        self.branch = "rebase/" + re.sub(r"[^\w.-]+|\.\.+", "-", Path(name).name).strip("-.")
        self.again = f"{store.verb('rebase')} FROM={name}" + " REVERT=1" * flag("REVERT")

    # What to apply.

    def _unneeded(self, patch: Path) -> str:
        """Of a patch for what a base lacks: the names it defines, if the base has them all."""
        text = patch.read_text(errors="replace")
        names = set(re.findall(r"(?m)^\+(?!static)(?:[a-z][\w \t*]*[ \t*])?(\w+)\([^;]*$", text))
        files = sorted(set(re.findall(r"(?m)^\+\+\+ b/(.*)$", text)))
        has = [name for name in names if not git("-C", self.edit.path, "grep", "-q", "-w", "-e", name,
                                                 self.source, "--", *files, check=False).returncode]
        return ", ".join(sorted(f"{name}()" for name in names)) if names and len(has) == len(names) else ""

    def _patches(self, source: Source) -> list[Path]:
        patches = []
        for patch in source.patches:
            if (not is_own(patch) or is_prereq(patch)) and (there := self._unneeded(patch)):
                say(f"{patch.name} is not needed: the tree has {there}")
            else:
                patches.append(patch)
        return [*self._reverts(), *patches]

    def _reverts(self) -> list[Path]:
        """Reverts of an earlier version in the tree's history; without REVERT=1 it is only pointed out."""
        found, ksrc = earlier(self.store), self.store.ksrc
        if not found or not ksrc:
            return []
        listing = "\n".join(f"    {name[:12]} {title}" for name, title in found)
        carries = f"{ksrc} carries an earlier version of this idea:\n{listing}"
        who = of_user("-C", ksrc, "-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT")
        if who.returncode:
            raise Err(f"{carries}\nIts reverts are yours, and git's configuration does not say who you are",
                      'git config --global user.name "Your Name"; git config --global user.email '
                      "you@your.domain", USAGE)
        new = run_directory("rebase", self.store.here.name) / "reverts"
        new.mkdir()
        author = who.stdout.rpartition("> ")[0] + ">"
        made = [revert(ksrc, author, *one, new / f"{number:04d}-revert.patch")
                for number, one in enumerate(found, 1)]
        give(ksrc, made, self.edit.path)
        if not flag("REVERT"):
            raise Err(carries, f"{self.again} REVERT=1 reverts them first\n        (the reverts as a series "
                      f"of their own: {new})", FAIL)
        return made

    # The states.

    def run(self) -> Path:
        there = self.edit.in_edit("symbolic-ref", "-q", "--short", "HEAD", check=False)
        head = self.edit.in_edit("rev-parse", "HEAD")
        ours = there == self.branch
        busy = ours and self.edit.busy()
        if busy:
            self._go_on()
        else:
            self.edit.check_still()
        if ours and self.edit.in_edit("merge-base", self.source, "HEAD", check=False) != self.source:
            raise Err(f"{self.branch} in {self.edit.path} stands on another state of the tree than today's",
                      f"git -C {self.edit.path} branch -m NAME keeps it as NAME; then run it again", FAIL)
        source = Source(self.name, self.here)
        if not busy and not (ours and head != self.source):
            self._start(source, ours)
        return self._finish(source)

    def _start(self, source: Source, ours: bool) -> None:
        patches = self._patches(source)
        if not ours:
            if self.edit.in_edit("rev-parse", "-q", "--verify", f"refs/heads/{self.branch}", check=False):
                raise Err(f"{self.edit.path} has a branch {self.branch} of an earlier rebase",
                          f"git -C {self.edit.path} checkout {self.branch}, to go on with it; or git branch "
                          "-m, to keep it under another name, and run it again", FAIL)
            self.edit.in_edit("checkout", "-q", "-b", self.branch, self.source)
        # From here on the tree, not the queue, has the last word: refresh may replace what there is.
        self.edit.sync(self.source)
        if source.range:
            give(source.repository, source.patches, self.edit.path)
        with stage(f"rebasing {len(patches)} patches of {self.name}"):
            done = git("-C", self.edit.path, *AM, *patches, check=False)
        if done.returncode:
            self._stop(done.stderr)

    def _go_on(self) -> None:
        left = self.edit.in_edit("diff", "--name-only", "--diff-filter=U")
        marks = self.edit.in_edit("diff", "--cached", "--check", check=False)
        if left or "leftover conflict marker" in marks:
            self._stop("")
        # One that was killed may have committed the patch already.
        patch = self.edit.path / ".git" / "rebase-apply" / "patch"
        back = git("-C", self.edit.path, "apply", "--check", "--cached", "-R", patch, check=False)
        done_before = not back.returncode and not self.edit.in_edit("diff", "--name-only", "HEAD")
        done = git("-C", self.edit.path, "am", "--skip" if done_before else "--continue", check=False)
        if done.returncode:
            self._stop(done.stderr)

    def _stop(self, said: str) -> None:
        """git am has stopped: one conflict that a person must decide."""
        state = self.edit.path / ".git" / "rebase-apply"
        if not state.is_dir():
            raise Err(f"git am: {said.strip() or 'failed'}", f"mend it, then: {self.again}", FAIL)
        number = (state / "next").read_text().strip()
        total = (state / "last").read_text().strip()
        title = subject(state / number.zfill(4))
        left = self.edit.in_edit("diff", "--name-only", "--diff-filter=U").split()
        if left:
            what = f"conflict in {', '.join(left)}"
            how = "mend it (`git am --show-current-patch=diff` is what was wanted), `git add -u`"
        else:
            reasons = re.findall(r"(?m)^(?:error|fatal): (.*)$", said)
            what = reasons[0] if reasons else "nothing was changed"
            if re.search("lacking or useless|lacks necessary blobs|invalid object", said):
                what = "does not apply, and the tree lacks the files it is of: no three-way merge"
            how = "apply it by hand (git apply --reject .git/rebase-apply/patch), `git add -f` what changed"
        raise Err(f"patch {number} of {total}, {title}: {what}", f"cd {self.edit.path}; {how}, or `git am "
                  f"--skip` if the tree has it already;\n        then here: {self.again}", FAIL)

    def _finish(self, source: Source) -> Path:
        new = f"{self.source}..HEAD"
        got = set(self.edit.in_edit("log", "--format=%s", new).splitlines())
        for patch in source.patches:
            if subject(patch) not in got:
                say(f"left out: {subject(patch)}")
        if source.range:
            diff = source.range_diff(self.edit, new)
            write(self.here / "range-diff", diff)
            print(diff.rstrip())
            say(f"range-diff: {self.here / 'range-diff'}")
        say(f"branch {self.branch} of {self.edit.path} has it; next: "
            + self.store.verb("branch" if self.store.ksrc else "refresh"))
        return self.edit.path


def main() -> int:
    """make rebase"""
    store = nearest()
    name = os.environ.get("FROM") or (store.base.name if store.ksrc else "")
    if not name:
        raise Err("no FROM= given", f"{store.verb('rebase')} FROM=<base, repository:A..B, or mails>", USAGE)
    if name == store.base.name and not store.ksrc:
        raise Err(f"FROM={name} is the base itself", "name another base, a git range or mails", USAGE)
    with store.lock():
        print(Rebase(store, name).run())
    return 0
