# SPDX-License-Identifier: GPL-2.0-only
"""Exports of the series as files that a distribution's or stable's own tools take. Nothing is ever sent.

A style says where a patch tells its origin and how it is packed: mails for `git am` (plain, ubuntu,
stable) or a directory of patches with an index (suse, debian). What was written is applied again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..common import FAIL, USAGE, Err, say, stage, write
from ..results import Report, Result, Status, run_directory, table
from . import bases, config
from .store import PREREQ, Rejected, Store, git, is_own, of_user, pipeline, series, subject
from .tree import FORMAT_PATCH, EditTree, nearest

TRAILER = re.compile(r"[A-Z][\w-]*: \S.*|\((?:cherry picked|backported) from .*|\[[^\]]+: .*\]")
NOTE = re.compile(r"(?m)^\[(?!Upstream )[\w.-]+: [^\]]+\]\n(?:\n+|\Z)")      # as a paragraph of its own
NO_MAIL = re.compile(r"@(?:[\w.-]*\.)?(?:example|invalid|test|localhost)>?$")


@dataclass(frozen=True)
class Submitter:
    """Who exports, as their own git configuration says."""
    name: str
    mail: str
    trailers: tuple[str, ...]       # what they put above their sign-off

    def __str__(self) -> str:
        return f"{self.name} <{self.mail}>"


def submitter() -> Submitter:
    """Nobody else can sign for them, so there is no default."""
    name, mail = (of_user("config", f"user.{key}").stdout.strip() for key in ("name", "email"))
    trailers = of_user("config", "--get-all", "smmuv3-kdump.trailer").stdout.splitlines()
    how = 'git config --global user.name "Your Name"; git config --global user.email you@your.domain'
    if not name or not re.fullmatch(r"\S+@\S+", mail):
        raise Err("git's configuration does not say who you are: an export is signed off by you", how, USAGE)
    if NO_MAIL.search(mail):
        raise Err(f"{name} <{mail}> signs for nobody: no mail can reach that address", how, USAGE)
    for line in trailers:
        if not re.fullmatch(r"[A-Z][\w-]+: \S.*", line):
            raise Err(f"smmuv3-kdump.trailer: {line!r} is not a line `Name-of-it: text`",
                      "git config --global --edit", USAGE)
    return Submitter(name, mail, tuple(trailers))


@dataclass(frozen=True)
class Patch:
    """A commit of the series, and the one of upstream that it is."""
    commit: str
    author: str
    mail: str
    date: str
    subject: str
    text: str                       # the message without subject and notes
    notes: tuple[str, ...]          # `[name: why it differs]`
    upstream: str = ""
    same: bool = False              # upstream's change, without any difference

    @property
    def sauce(self) -> bool:
        return bool(re.match(r"(?:UBUNTU: )?SAUCE: ", self.subject))

    @property
    def bare(self) -> str:
        return re.sub(r"^(?:UBUNTU: )?(?:SAUCE: )?", "", self.subject)


def read(repository: Path, commit: str) -> Patch:
    form = "--format=%an%n%ae%n%aI%n%s%n%b"
    author, mail, date, subject, text = git("-C", repository, "log", "-1", form, commit).stdout.split("\n", 4)
    notes = tuple(note.strip() for note in NOTE.findall(text))
    return Patch(commit, author, mail, date, subject, NOTE.sub("", text).strip("\n"), notes)


def adopted(patch: Patch, me: Submitter) -> Patch:
    """A patch that nobody has signed becomes the submitter's, who answers for it on the list."""
    signed = re.search(r"(?m)^Signed-off-by: ", patch.text)
    return patch if signed else replace(patch, author=me.name, mail=me.mail)


def for_all(pairs: Sequence[tuple[Patch, bool]]) -> list[tuple[Patch, bool]]:
    """(patch, is it the series' own) of those that are not SAUCE, nor needed by such patches alone."""
    last = max((number for number, (patch, own) in enumerate(pairs) if own and not patch.sauce), default=-1)
    return [(patch, own) for patch, own in pairs[:last + 1] if not patch.sauce]


def patch_id(repository: Path | str, commit: str) -> str:
    done = pipeline([["git", "-C", repository, "diff-tree", "-p", commit], ["git", "patch-id", "--stable"]])
    return done.stdout.partition(" ")[0]


def compose(patch: Patch, me: Submitter, above: str = "", origin: str = "") -> str:
    """The message with its origin above the text or below it, and the submitter's trailers last."""
    below = [*([origin] if origin else []), *patch.notes, *me.trailers, f"Signed-off-by: {me}"]
    text = (above + "\n\n" + patch.text).strip("\n") if above else patch.text
    lines = text.rpartition("\n\n")[2].splitlines()
    if below[0] == (lines[-1] if lines else ""):
        below = below[1:]           # the submitter has signed it before, at the very end
    gap = "\n" if lines and all(map(TRAILER.fullmatch, lines)) else "\n\n"
    return f"{patch.subject}\n\n{text}{gap if text else ''}" + "\n".join(below) + "\n"


def commit(where: Path, patches: Sequence[Patch], parent: str, message: Callable[[Patch], str]) -> str:
    """These patches with other messages, as commits that no branch of the repository has."""
    for patch in patches:
        env = {"GIT_AUTHOR_NAME": patch.author, "GIT_AUTHOR_EMAIL": patch.mail,
               "GIT_AUTHOR_DATE": patch.date}
        parent = git("-C", where, "commit-tree", f"{patch.commit}^{{tree}}", "-p", parent, env=env,
                     data=message(patch).encode()).stdout.strip()
    return parent


def comes_back(edit: EditTree, source: str, files: Sequence[Path], tip: str, name: str) -> Result:
    """Do the files, applied to the base, give what was exported?"""
    store = edit.store
    with store.lock():
        try:
            found = store.apply(source, files)
        except Rejected as err:
            return Result("export", name, Status.FAIL, err.cause)
    same = store.tree_of(found) == edit.in_edit("rev-parse", f"{tip}^{{tree}}")
    return Result("export", name, Status.PASS if same else Status.FAIL, f"{len(files)} patches on "
                  f"{store.version()}" if same else "they apply, and give another tree than was exported")


class Upstream:
    """The repository that LINUX_GIT names: what of the series is merged there."""

    def __init__(self) -> None:
        self.path = os.environ.get("LINUX_GIT", "")
        if self.path and of_user("-C", self.path, "rev-parse", "HEAD^{commit}").returncode:
            raise Err(f"LINUX_GIT={self.path} is not a git repository with a commit at HEAD",
                      "give a clone of upstream", USAGE)

    def find(self, patches: Sequence[Patch], edit: EditTree) -> list[Patch]:
        """The patches, each with the merged commit of its subject, if there is one."""
        if not self.path:
            return list(patches)
        with stage("looking for the series upstream"):
            done = of_user("-C", self.path, "log", "--format=%H %s", "-F",
                           *(f"--grep={patch.bare}" for patch in patches), "HEAD")
        merged = {subject: name for name, _, subject in
                  (line.partition(" ") for line in reversed(done.stdout.splitlines()))}
        return [self._taken(patch, merged[patch.bare], edit) if patch.bare in merged else patch
                for patch in patches]

    def _taken(self, patch: Patch, name: str, edit: EditTree) -> Patch:
        """Upstream's message and author, and the notes of ours."""
        return replace(read(Path(self.path), name), commit=patch.commit, notes=patch.notes, upstream=name,
                       same=patch_id(self.path, name) == patch_id(edit.path, patch.commit))

    def release(self, patch: Patch) -> str:
        """The first release with it."""
        done = of_user("-C", self.path, "describe", "--contains", "--match=v*", patch.upstream)
        return re.sub(r"[~^].*", "", done.stdout.strip())


def _picked(patch: Patch) -> str:
    how = "cherry picked" if patch.same else "backported"
    return f"({how} from commit {patch.upstream})" if patch.upstream else ""


def _bugs(form: str) -> str:
    return "\n".join(form.format(bug) for bug in os.environ.get("BUG", "").split())


def _plain(patch: Patch, me: Submitter) -> str:
    return compose(patch, me, origin=_picked(patch))


def _ubuntu(patch: Patch, me: Submitter) -> str:
    mark = "" if patch.upstream or patch.subject.startswith('Revert "') else "UBUNTU: SAUCE: "
    return compose(replace(patch, subject=mark + patch.bare), me, origin=_picked(patch),
                   above=_bugs("BugLink: https://bugs.launchpad.net/bugs/{}"))


def _stable(patch: Patch, me: Submitter) -> str:
    return compose(patch, me, above=f"commit {patch.upstream} upstream." if patch.upstream else "")


def _unmarked(patch: Patch, me: Submitter) -> str:
    """Its header says the origin."""
    return compose(patch, me)


def _suse(patch: Patch, upstream: Upstream) -> list[str]:
    bugs = ", ".join(os.environ.get("BUG", "").split())
    if patch.upstream:
        return [f"Git-commit: {patch.upstream}",
                f"Patch-mainline: {upstream.release(patch) or 'Queued'}", f"References: {bugs}"]
    why = "Never, for trees of this kind only" if patch.sauce else "Not yet, not submitted"
    return [f"Patch-mainline: {why}", f"References: {bugs}"]


def _debian(patch: Patch, upstream: Upstream) -> list[str]:
    how = "upstream" if patch.same else "backport"
    lines = [f"Origin: {how}, commit:{patch.upstream}" if patch.upstream else "Origin: vendor"]
    lines += _bugs("Bug-Debian: https://bugs.debian.org/{}").splitlines()
    return [*lines, f"Forwarded: {'not-needed' if patch.upstream or patch.sauce else 'no'}"]


@dataclass(frozen=True)
class Style:
    message: Callable[[Patch, Submitter], str]
    needs: tuple[str, ...] = ()             # variables that have no default
    prefix: str = "PATCH"                   # of the mails' subjects
    header: Callable[[Patch, Upstream], list[str]] | None = None    # of a patch file's
    where: str = "patches"                  # the directory below the run's
    index: str = ""                         # and the file that has the order of patch files


STYLES = {
    "plain": Style(_plain),
    "ubuntu": Style(_ubuntu, ("BUG", "SUITE"), "SRU][{SUITE}][PATCH"),
    "stable": Style(_stable, ("LINUX_GIT",), "PATCH {base}.y"),
    "suse": Style(_unmarked, ("BUG",), header=_suse, where="patches.suse", index="series.conf"),
    "debian": Style(_unmarked, header=_debian, where="debian/patches/features/arm64/smmuv3-kdump",
                    index="debian/patches/series"),
}
EXAMPLES = {"BUG": "BUG=2012345 (the bug that this is for)", "SUITE": "SUITE=noble (the release it goes to)",
            "LINUX_GIT": "LINUX_GIT=~/linux (upstream's repository)"}

# Ubuntu's justification of an update, from the sections of the series' cover letter.
SRU = {"Impact": "Problem", "Fix": "Approach", "Test Plan": "Tests",
       "Where problems could occur": "Not tested"}


def cover(base: bases.Base) -> tuple[str, str]:
    """Subject and text of a base's cover letter."""
    path = base.patches / "0000-cover-letter"
    found = re.match(r"Subject: (?:\[[^\]]*\] )?(.+)\n\n", path.read_text()) if path.is_file() else None
    if not found:
        raise Err(f"{path} has no line `Subject: …`, an empty one and a text", "write the cover letter", FAIL)
    return found[1], path.read_text()[found.end():].strip("\n")


def justification(*texts: str) -> str:
    """From the sections of cover letters; one that has a section comes before those after it."""
    sections: dict[str, str] = {}
    for text in texts:
        parts = re.split(r"(?m)^(\S.*)\n=+\n", text)
        sections = dict(zip(parts[1::2], parts[2::2])) | sections
    return "SRU Justification\n\n" + "\n\n".join(
        f"[{name}]\n\n{sections.get(section, 'to be written').strip()}" for name, section in SRU.items())


class Export:
    """One export of a base's commits in a style."""

    def __init__(self, name: str, store: Store) -> None:
        self.name, self.store, self.style, self.me = name, store, STYLES[name], submitter()
        for variable in self.style.needs:
            if not os.environ.get(variable):
                raise Err(f"style {name} needs {variable}=", EXAMPLES[variable], USAGE)
        self.upstream, self.edit = Upstream(), EditTree(store)
        with store.lock():
            self.source = store.source()
        commits = self.edit.commits()
        if not commits:
            raise Err(f"{self.edit.path} has no commits on its base", f"put the series there: "
                      f"{store.verb('tree')}", USAGE)
        self.patches = self.upstream.find([read(self.edit.path, one) for one in commits], self.edit)
        if name == "stable":
            needed = {subject(path) for path in store.queue() if not is_own(path)}
            pairs = for_all([(patch, patch.bare not in needed) for patch in self.patches])
            self.patches = [patch if patch.upstream else adopted(patch, self.me) for patch, _ in pairs]
            missing = [one.subject for one, own in pairs if not one.upstream and (own or not one.notes)]
            if missing:
                raise Err(f"not merged in {self.upstream.path}: {'; '.join(missing)}", "make lore first; of "
                          f"{PREREQ}/ what upstream never needed says so: `[{store.base.name}: why]`", FAIL)

    def write(self, here: Path) -> tuple[list[Path], str]:
        """The files, in their order, and the commit that they give."""
        tip = self._commit(self.edit.path, self.source)
        form = [*FORMAT_PATCH, "--stat", "-p", f"--from={self.me}", f"{self.source}..{tip}"]
        if self.style.header:
            return self._files(here, form), tip
        prefix = self.style.prefix.format(base=self.store.base.name, **os.environ)
        to = ["--to=stable@vger.kernel.org", *self._people()] if self.name == "stable" else []
        where = here / self.style.where
        self.edit.in_edit(*form, "--numbered", f"--subject-prefix={prefix}", *to, "-o", where)
        made = sorted(where.glob("*.patch"))
        if self.name in ("ubuntu", "stable"):
            subject, text = cover(self.store.base)
            if self.name == "ubuntu":
                text = justification(text, cover(bases.newest())[1])
            write(here / "0000-cover-letter.patch", f"From: {self.me}\nSubject: [{prefix} "
                  f"{0:0{len(str(len(made)))}d}/{len(made)}] {subject}\n\n{text}\n")
        return made, tip

    def _commit(self, where: Path, parent: str) -> str:
        return commit(where, self.patches, parent, lambda patch: self.style.message(patch, self.me))

    def _people(self) -> list[str]:
        """Who wrote, signed or reviewed it upstream: stable's reviewers want them to know."""
        found = {f"{patch.author} <{patch.mail}>" for patch in self.patches}
        for patch in self.patches:
            found |= set(re.findall(r"(?m)^[\w-]+-by: (.+ <\S+>)$", patch.text))
        return [f"--cc={who}" for who in sorted(found - {str(self.me)}) if not NO_MAIL.search(who)]

    def _files(self, here: Path, form: Sequence[str | Path]) -> list[Path]:
        """Patch files with the style's header, and the index that names them."""
        where = here / self.style.where
        self.edit.in_edit(*form, "-o", where)
        made = sorted(where.glob("*.patch"))
        assert self.style.header
        for path, patch in zip(made, self.patches):
            head, _, body = path.read_text(errors="surrogateescape").partition("\n\n")
            lines = [*head.replace("\nSubject: [PATCH] ", "\nSubject: ").splitlines()[1:],
                     *self.style.header(patch, self.upstream)]
            text = "\n".join(lines) + "\n\n" + body
            write(path, text.encode(errors="surrogateescape"))
        index = here / self.style.index
        names = [os.path.relpath(path, here if self.name == "suse" else index.parent) for path in made]
        there = self.store.git("cat-file", "blob", f"{self.source}:{self.style.index}", check=False).stdout
        indent = "\t" if self.name == "suse" else ""
        write(index, there + "".join(f"{indent}{name}\n" for name in names))
        return made

    def _branch(self, here: Path) -> list[str]:
        """The branch that git am will make, on the tree's own history: lint's arguments for it."""
        ksrc = self.store.ksrc
        if not ksrc or not self.store.is_repository(ksrc) or self.style.header:
            return ["-C", str(self.edit.path), "--onto", self.source, str(here / self.style.where)]
        git("init", "-q", "--bare", here / "git")
        head, *paths = of_user("-C", ksrc, "rev-parse", "HEAD", "--path-format=absolute", "--git-path",
                               "objects", "--git-path", "shallow").stdout.splitlines()
        write(here / "git/objects/info/alternates", f"{paths[0]}\n{self.edit.path}/.git/objects\n")
        if Path(paths[1]).exists():
            write(here / "git" / "shallow", Path(paths[1]).read_text())
        return ["-C", str(here / "git"), f"{head}..{self._commit(here / 'git', head)}"]

    def lint_of(self, here: Path) -> list[str]:
        """lint's arguments: the result beside what it names, or beside the newest base's patches."""
        newest, beside = bases.newest(), here / "beside"
        # A prerequisite that the tree has by itself is not missed, nor by stable what upstream has not.
        stable = self.name == "stable"
        had = {patch.bare for patch in self.patches if patch.upstream or not stable}
        wanted = [one for one in series(newest.patches) if is_own(one) and not stable or subject(one) in had]
        beside.mkdir()
        write(beside / "series", "".join(f"{patch}\n" for patch in wanted))
        there = self.edit.path if self.store.base == newest else EditTree(Store(newest.name, "")).tree()
        reference = self.upstream.path or str(there)
        posted = ["--series", str(beside)] if any(not patch.upstream for patch in self.patches) else []
        return ["compare", *self._branch(here), "--reference", reference, *posted]


def report(name: str, store: Store, results: list[Result], files: Sequence[Path], here: Path) -> Report:
    """The files, and what was judged of them."""
    rows = [[str(path.relative_to(here))] for path in files] + [[]]
    rows += [[result.name, str(result.status), result.detail.partition("\n")[0]] for result in results]
    more = "".join(f"\n{result.detail}\n" for result in results if "\n" in result.detail.strip())
    return Report(name, store.here.name, results, text=table(rows, left=3) + more)


Lint = Callable[[list[str]], int]


def export(name: str, store: Store, lint: Lint) -> int:
    made = Export(name, store)
    here = run_directory(name, store.here.name)
    files, tip = made.write(here)
    results = [comes_back(made.edit, made.source, files, tip, "applied again")]
    judged = here / "lint.txt"
    code = lint([*made.lint_of(here), "--format", "table", "-o", str(judged)])
    results.append(Result(name, "make lint", Status.FAIL if code else Status.PASS,
                          judged.read_text() if code and judged.exists() else ""))
    code = report(name, store, results, files, here).show(here, "lint.txt")
    say(NEXT[name].format(here=here))
    return code


NEXT = {
    "plain": "next, in the branch: git am {here}/patches/*",
    "ubuntu": "next, in the branch: git am {here}/patches/*; complete {here}/0000-cover-letter.patch, and "
              "git send-email it with them",
    "stable": "next: read them, then git send-email {here}/0000-cover-letter.patch {here}/patches",
    "suse": "next: copy {here}/patches.suse, and the lines of series.conf to where they belong",
    "debian": "next: copy {here}/debian over the package's own directory",
}


def stable(lint: Lint) -> int:
    """make stable"""
    return export("stable", Store(os.environ.get("BASE") or config.load().base), lint)


def branch(lint: Lint) -> int:
    """make branch"""
    name = os.environ.get("STYLE") or "plain"
    if name not in STYLES or name == "stable":
        raise Err(f"STYLE={name} is none of: {' '.join(one for one in STYLES if one != 'stable')}",
                  "make branch KSRC=<tree> STYLE=plain", USAGE)
    return export(name, nearest(), lint)
