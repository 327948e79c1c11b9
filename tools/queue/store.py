# SPDX-License-Identifier: GPL-2.0-only
"""The store of a base: its source as a git commit, and commits made from it.

Everything of one base is in one directory, build/<base> of the cache:

    base.git    the base's source as a commit, and commits made from it (a bare repository)
    linux       the edit tree (tree.py): a git repository of the user's, borrowing base.git's objects
    test        the work tree of the test kernels

Patches are applied with git's plumbing, in an index alone (mailinfo, apply --cached, commit-tree).
`git am` gives the same commits, but it cannot take its place here: it wants a work tree, of 90,000
files, and changes it before the last patch has applied; it takes what it does from the user's
configuration; and it knows no commits that it made before, which are most of them here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import deps
from ..common import FAIL, TOP, USAGE, Err, cache_dir, flag, lock, made, remove, run, say, stage, write
from . import archive, bases

NOBODY = "smmuv3-kdump"
EPOCH = "2000-01-01T00:00:00+0000"
PREREQ = "prereq"       # patches in this subdirectory are not the series' own; they stay in it

# What a build leaves in a source tree. The tree's own .gitignore will not do: that of the
# archive's source packages ignores every file.
PRODUCTS = (".git *.o *.a *.ko *.mod *.mod.c *.cmd .*.d *.dtb *.order *.symvers *.orig *.rej *~ *.swp "
            "/.config* /include/config/ /include/generated/ /arch/*/include/generated/ /arch/*/boot/Image* "
            "/vmlinux* /System.map /tags /cscope.*").split()


def git(*args: str | Path, cwd: Path | None = None, check: bool = True, data: bytes | None = None,
        env: Mapping[str, str | None] | None = None) -> subprocess.CompletedProcess[str]:
    """git without anybody's configuration: the same result for every user."""
    clean: dict[str, str | None] = {name: None for name in os.environ if name.startswith("GIT_")}
    clean |= {
        "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C",
        "GIT_COMMITTER_NAME": NOBODY, "GIT_COMMITTER_EMAIL": NOBODY, "GIT_COMMITTER_DATE": EPOCH,
        "GIT_AUTHOR_NAME": NOBODY, "GIT_AUTHOR_EMAIL": NOBODY, "GIT_AUTHOR_DATE": EPOCH,
    }
    return run(["git", *args], cwd=cwd, check=check, data=data, env={**clean, **(env or {})},
               next_step="mend that and run the same command again")


def pipeline(steps: Sequence[Sequence[str | Path]], data: str = "") -> subprocess.CompletedProcess[str]:
    """Commands, each reading what the one before it writes; it fails if any of them does.

    git is run with the user's configuration: which repository to trust stands there. It must not
    fetch what a partial clone lacks.
    """
    line = " | ".join(shlex.join(map(str, step)) for step in steps)
    clean = {name: None for name in os.environ if name.startswith("GIT_") and name != "GIT_CONFIG_GLOBAL"}
    return run(["bash", "-o", "pipefail", "-c", line], data=data.encode(), check=False,
               env={**clean, "GIT_OPTIONAL_LOCKS": "0", "GIT_ALLOW_PROTOCOL": "none", "LC_ALL": "C"})


def of_user(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """git in a repository of the user's."""
    return pipeline([["git", *args]])


def digest(*parts: str | bytes) -> str:
    total = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        total.update(b"%d:" % len(raw) + raw)
    return total.hexdigest()


def series(directory: Path) -> list[Path]:
    """The patches that a directory's `series` names, or all of them if it has none."""
    table = directory / "series"
    if not table.is_file():
        return sorted(directory.glob("*.patch"))
    names = [line.split("#")[0].strip() for line in table.read_text().splitlines()]
    patches = [directory / name for name in names if name]
    for patch in patches:
        if not patch.is_file():
            raise Err(f"{table} names {patch.name}, which is not there", "mend the series", FAIL)
    return patches


def shown(path: Path) -> str:
    return str(path.relative_to(TOP) if path.is_relative_to(TOP) else path)


def is_own(patch: Path) -> bool:
    """Is it of the series itself, and not of what a base lacks for it?"""
    return patch.parent.name != PREREQ


def subject(patch: Path) -> str:
    """Of a mail, as git am takes it."""
    said = git("mailinfo", "-b", os.devnull, os.devnull, data=patch.read_bytes(), check=False).stdout
    return "".join(re.findall(r"(?m)^Subject: (.*)$", said))


class Rejected(Err):
    """A patch that does not apply; `tip` is the commit of those before it."""

    def __init__(self, cause: str, next_step: str, tip: str, rest: Sequence[Path]) -> None:
        super().__init__(cause, next_step, FAIL)
        self.tip = tip
        self.rest = rest


class Store:
    """One base's directory: its source as a git commit, and commits on top of it."""

    def __init__(self, base: str, ksrc: str | None = None) -> None:
        self.base = bases.get(base)
        ksrc = os.environ.get("KSRC", "") if ksrc is None else ksrc
        self.ksrc = Path(ksrc).expanduser().absolute() if ksrc else None
        name = base
        if self.ksrc:
            if not self.ksrc.is_dir():
                raise Err(f"KSRC={ksrc} is not a directory", "give a kernel tree or a git repository", USAGE)
            self.ksrc = self.ksrc.resolve()
            if cache_dir().resolve() in [self.ksrc, *self.ksrc.parents]:
                raise Err(f"KSRC={ksrc} is in this project's own cache", "give a tree of your own", USAGE)
            name += f"@{self.ksrc.name}-{digest(str(self.ksrc))[:8]}"
        self.here = cache_dir("build", name)
        self.git_dir = self.here / "base.git"
        self.test = self.here / "test"
        self._commit = ""

    def git(self, *args: str | Path, index: str = "scratch.index", work: Path | None = None,
            check: bool = True, data: bytes | None = None,
            env: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
        """git in base.git, with an index of ours and, if asked for, a work tree."""
        env = {"GIT_DIR": str(self.git_dir), "GIT_INDEX_FILE": str(self.here / index), **env,
               **({"GIT_WORK_TREE": str(work)} if work else {})}
        return git(*args, cwd=work or self.here, env=env, check=check, data=data)

    def lock(self) -> contextlib.AbstractContextManager[None]:
        return lock(self.here / "lock")

    # The base's source, as a commit.

    def source(self) -> str:
        """The base's commit. The caller holds the lock."""
        if not self._commit:
            deps.need("tree")
            made(self.git_dir, self._init)
            if self.ksrc is None:
                self._commit = self._from_archive()
            elif self.is_repository(self.ksrc):
                self._commit = self._from_repository(self.ksrc)
            else:
                self._commit = self._from_directory(self.ksrc)
        return self._commit

    @staticmethod
    def _init(new: Path) -> None:
        git("init", "-q", "--bare", new)
        for setting in ("gc.auto 0", "core.compression 1", "core.bigFileThreshold 1", "core.fsync none",
                        "core.autocrlf false"):
            git("-C", new, "config", *setting.split())
        # Bytes as they are, whatever the source's own attributes ask for.
        (new / "info").mkdir(exist_ok=True)
        (new / "info" / "attributes").write_text("* -text -ident -filter -working-tree-encoding\n")

    def origin(self) -> tuple[str, str]:
        """What the base's commit was made of last, and its id."""
        path = self.git_dir / "origin"
        name, commit = path.read_text().splitlines() if path.exists() else ("", "")
        return name, commit

    def _record(self, origin: str, tree: str) -> str:
        """The base's commit with this content."""
        text = self.git("cat-file", "blob", f"{tree}:Makefile", check=False).stdout
        found = dict(re.findall(r"(?m)^(VERSION|PATCHLEVEL|SUBLEVEL)\s*=\s*(\d+)", text))
        if "VERSION" not in found or "PATCHLEVEL" not in found:
            raise Err(f"{origin} is not a kernel source: its Makefile has no VERSION and PATCHLEVEL",
                      "give the top directory of a kernel tree", USAGE)
        version = f"{found['VERSION']}.{found['PATCHLEVEL']}.{found.get('SUBLEVEL', '0')}"
        message = f"Linux {version}\n\nThe source of {origin}, unchanged.\n"
        commit = self.git("commit-tree", tree, data=message.encode()).stdout.strip()
        self.git("update-ref", f"refs/bases/{commit}", commit)
        write(self.git_dir / "origin", f"{origin}\n{commit}\n")
        return commit

    def version(self) -> str:
        return self.git("log", "-1", "--format=%s", self.source()).stdout.strip()

    def _from_archive(self) -> str:
        origin, known = self.origin()
        if origin.startswith(f"{self.base.package}_") and not flag("UPDATE"):
            return known
        deb = archive.fetch(self.base.package, suites=self.base.suites)
        if origin == deb.stem:
            return known
        new = self.here / "test.new"
        remove(new)
        new.mkdir()
        (self.here / "new.index").unlink(missing_ok=True)
        with stage(f"unpacking {deb.name}"):
            _untar(deb, self.base.package, new)
        tops = list(new.iterdir())
        if len(tops) != 1:
            raise Err(f"{deb.name} is not what was expected: {len(tops)} directories at the top")
        with stage(f"making a commit of {self.base.package}"):
            self._add(tops[0], "new.index", [".git"])
            commit = self._record(deb.stem, self.git("write-tree", index="new.index").stdout.strip())
        # The unpacked files become the work tree of the test kernels: saves a checkout.
        remove(self.test)
        tops[0].rename(self.test)
        (self.here / "new.index").rename(self.here / "test.index")
        new.rmdir()
        return commit

    def _add(self, directory: Path, index: str, without: Sequence[str]) -> None:
        """Bring an index to what the directory holds."""
        # A lock can only be left from a run that was killed: we hold our own.
        (self.here / f"{index}.lock").unlink(missing_ok=True)
        changed = self.git("ls-files", "-m", "-d", "-o", "-z", *(f"--exclude={name}" for name in without),
                           index=index, work=directory).stdout
        self.git("update-index", "--add", "--remove", "-z", "--stdin", index=index, work=directory,
                 data=changed.encode(errors="surrogateescape"))

    @staticmethod
    def is_repository(path: Path) -> bool:
        done = of_user("-C", path, "rev-parse", "--git-dir", "--show-cdup", "--show-object-format")
        # Its top directory, or a bare repository, and not a directory inside another one.
        where, *top, hashes = done.stdout.splitlines() or ["", ""]
        if hashes not in ("sha1", ""):
            raise Err(f"{path} names its objects by {hashes}, which git cannot mix with sha1",
                      "give its files as a plain directory (git archive), or its commits as mails "
                      "(git format-patch)", USAGE)
        return done.returncode == 0 and (top in ([""], []) or where == ".")

    def _from_repository(self, ksrc: Path) -> str:
        done = of_user("-C", ksrc, "rev-parse", "HEAD^{commit}", "HEAD^{tree}")
        if done.returncode:
            raise Err(f"KSRC={ksrc}: the repository has no commit at HEAD", "check out a branch there", USAGE)
        if of_user("-C", ksrc, "status", "--porcelain", "-uno").stdout.strip():
            say(f"note: {ksrc} has uncommitted changes; its HEAD is taken, they are left out")
        head, tree = done.stdout.split()
        origin, known = self.origin()
        if origin == f"commit {head}":
            return known
        with stage(f"copying {head[:12]} of {ksrc}"):
            # Objects only, into our own repository: nothing is written over there.
            done = pipeline([["git", "-C", ksrc, "pack-objects", "--revs", "--stdout", "-q", "--window=0"],
                             ["git", f"--git-dir={self.git_dir}", "index-pack", "--stdin"]], f"{tree}\n")
            if done.returncode:
                raise Err(f"taking over {ksrc}: {done.stderr.strip().splitlines()[-1]}",
                          "a partial clone that lacks files of its HEAD will not do: there, `git archive "
                          "HEAD >/dev/null` fetches them; else git fsck")
            return self._record(f"commit {head}", tree)

    def _from_directory(self, ksrc: Path) -> str:
        with stage(f"reading {ksrc}"):
            self._add(ksrc, "ksrc.index", PRODUCTS)
            tree = self.git("write-tree", index="ksrc.index").stdout.strip()
            origin, known = self.origin()
            return known if origin == f"tree {tree}" else self._record(f"tree {tree}", tree)

    # Commits on top of it.

    def queue(self) -> list[Path]:
        """The base's patches in order, with those of prereq/."""
        return series(self.base.patches)

    def series_hash(self) -> str:
        """Of the patches, for people and file names."""
        return digest(*(patch.read_bytes() for patch in self.queue()))[:12]

    def apply(self, parent: str, patches: Sequence[Path]) -> str:
        """The commit that `git am` of these patches gives; each is remembered by what it stands on."""
        return self.commits(parent, patches)[-1]

    def commits(self, parent: str, patches: Sequence[Path]) -> list[str]:
        """`parent`, and the commit of each patch on top of it."""
        tips = [parent]
        indexed = ""            # the commit that the index holds
        for number, patch in enumerate(patches):
            key = digest(tips[-1], patch.read_bytes())
            tip = self._remembered(key)
            if not tip:
                if indexed != tips[-1]:
                    self._index(tips[-1])
                tip = indexed = self._apply(tips[-1], patch, patches[number:])
                self._remember(key, tip)
            tips.append(tip)
        return tips

    def _remembered(self, key: str) -> str:
        """The commit that was made before of all that the key stands for, or nothing."""
        return self.git("rev-parse", "-q", "--verify", f"refs/applied/{key}", check=False).stdout.strip()

    def _remember(self, key: str, commit: str) -> None:
        self.git("update-ref", f"refs/applied/{key}", commit)

    def _apply(self, tip: str, patch: Path, rest: Sequence[Path]) -> str:
        """The commit of one patch on top of `tip`, which the index holds."""
        def rejected(cause: str) -> Rejected:
            return Rejected(f"{shown(patch)} {cause} (on {self.version()})", self.verb("tree"), tip, rest)

        message, diff, mbox = self.here / "message", self.here / "diff", patch.read_bytes()
        done = self.git("mailinfo", "-b", "--encoding=UTF-8", message, diff, data=mbox, check=False)
        mail = dict(line.partition(": ")[::2] for line in done.stdout.splitlines())
        if done.returncode or not {"Author", "Email", "Subject"} <= mail.keys() or not diff.stat().st_size:
            raise rejected("is not a mail that git am takes (From, Subject, a diff)")
        done = self.git("apply", "--cached", "--whitespace=nowarn", diff, check=False)
        if "fatal:" in done.stderr:
            raise Err(f"git apply {shown(patch)}: {done.stderr.strip()}", "run the same command again")
        if done.returncode:
            raise rejected(f"does not apply: {_hunks(diff.read_text(errors='replace'), done.stderr)}")
        text = self.git("stripspace", data=(mail["Subject"] + "\n\n").encode() + message.read_bytes()).stdout
        date = mail.get("Date", EPOCH)
        return self._commit_index(tip, text, {"GIT_AUTHOR_NAME": mail["Author"], "GIT_AUTHOR_DATE": date,
                                              "GIT_AUTHOR_EMAIL": mail["Email"], "GIT_COMMITTER_DATE": date})

    def tree_of(self, commit: str) -> str:
        """The id of a commit's content."""
        return self.git("rev-parse", f"{commit}^{{tree}}").stdout.strip()

    def verb(self, verb: str) -> str:
        """The make command of a verb on this base."""
        return f"make {verb} BASE={self.base.name}" + (f" KSRC={self.ksrc}" if self.ksrc else "")

    def overlay(self, parent: str, files: Mapping[str, bytes], message: str, instead: bool = False) -> str:
        """The commit with these files laid over its tree; `instead` of files of its own, if that is meant."""
        key = digest(parent, message, *files, *files.values())
        if known := self._remembered(key):
            return known
        self._index(parent)
        there = set(self.git("ls-files", "-z", "--", *files).stdout.split("\0")) & files.keys()
        if there and not instead:
            raise Err(f"{sorted(there)[0]} is a file of the base kernel too", "give ours another name", FAIL)
        for name, content in files.items():
            blob = self.git("hash-object", "-w", "--stdin", data=content).stdout.strip()
            mode = "100755" if content.startswith(b"#!") else "100644"
            self.git("update-index", "--add", "--cacheinfo", f"{mode},{blob},{name}")
        tip = self._commit_index(parent, message, {})
        self._remember(key, tip)
        return tip

    def _index(self, commit: str) -> None:
        (self.here / "scratch.index.lock").unlink(missing_ok=True)
        self.git("read-tree", commit)

    def _commit_index(self, parent: str, message: str, author: Mapping[str, str]) -> str:
        tree = self.git("write-tree").stdout.strip()
        return self.git("commit-tree", tree, "-p", parent, data=message.encode(), env=author).stdout.strip()

    def check_out(self, commit: str, tree: Path | None = None) -> Path:
        """A work tree at this commit, the test kernels' if none is named; only what differs is written."""
        tree = tree or self.test
        index = tree.with_name(f"{tree.name}.index")
        index.with_name(f"{index.name}.lock").unlink(missing_ok=True)
        tree.mkdir(exist_ok=True)
        self.git("read-tree", "--reset", "-u", commit, index=str(index), work=tree)
        return tree


def _untar(deb: Path, package: str, to: Path) -> None:
    """The source archive inside the package, unpacked without being stored itself."""
    done = pipeline([["dpkg-deb", "--fsys-tarfile", deb], ["tar", "-xO", f"./usr/src/{package}.tar.xz"],
                     ["xz", "-dc", "-T0"], ["tar", "-x", "-C", to, "--no-same-owner"]])
    if done.returncode:
        raise Err(f"unpacking {deb.name}: {done.stderr.strip() or 'failed'}",
                  f"rm '{deb}' and run the same command again")


def _hunks(diff: str, said: str) -> str:
    """Which file and hunk, out of what git apply said."""
    found = []
    for name, line in re.findall(r"(?m)error: patch failed: (.+):(\d+)$", said):
        section = re.search(rf"(?ms)^diff --git a/{re.escape(name)} .*?(?=^diff --git |\Z)", diff)
        headers = re.findall(r"(?m)^@@ -.*$", section[0] if section else "")
        hunks = [f"hunk {number} ({header})" for number, header in enumerate(headers, 1)
                 if re.match(rf"@@ -{line}[, ]", header)]
        found.append(f"{name}, {hunks[0] if hunks else f'line {line}'}")
    return "; ".join(found or re.findall(r"(?m)^error: (.*)$", said) or [said])
