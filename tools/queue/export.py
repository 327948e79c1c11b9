# SPDX-License-Identifier: GPL-2.0-only
"""Exports of the series as files that a distribution's or stable's own tools take. Nothing is ever sent.

A style says where a patch tells its origin and how it is packed: mails for `git am` (plain, ubuntu,
stable) or a directory of patches with an index (suse, debian). What was written is applied again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from email.utils import formataddr
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
    def local(self) -> bool:
        """Is it of no use to anybody else?"""
        return bool(re.match(r'(?:UBUNTU: )?SAUCE: |Revert "', self.subject))

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
    last = max((number for number, (patch, own) in enumerate(pairs) if own and not patch.local), default=-1)
    for patch, _ in pairs[:last + 1]:
        if patch.local:
            raise Err(f"{patch.subject}: it is for this tree alone, and stands before what is for all",
                      "move it to the end of the series", FAIL)
    return list(pairs[:last + 1])


def patch_ids(repository: Path | str, commits: Sequence[str]) -> dict[str, str]:
    """Of each commit that changes anything."""
    steps = ["git", "-C", repository, "diff-tree", "-p", "--stdin"], ["git", "patch-id", "--stable"]
    done = pipeline(steps, "".join(f"{commit}\n" for commit in commits))
    if done.returncode:
        raise Err(f"{repository} lacks files of the commits to compare, a partial clone?",
                  f"this fetches them: git -C {repository} show {' '.join(commits)} >/dev/null")
    return dict(line.split()[::-1] for line in done.stdout.splitlines())


def compose(patch: Patch, me: Submitter, above: str = "", origin: str = "") -> str:
    """The message with its origin above the text or below it, and the submitter's trailers last."""
    sign = f"Signed-off-by: {me}"
    text = (above + "\n\n" + patch.text).strip("\n") if above else patch.text
    lines = text.rpartition("\n\n")[2].splitlines()
    news = [*([origin] if origin else []), *patch.notes]
    below = [*news, *(line for line in me.trailers if line not in lines)]
    if news or sign not in [line for line in lines if line.startswith("Signed-off-by: ")][-1:]:
        below.append(sign)
    gap = "\n" if lines and all(map(TRAILER.fullmatch, lines)) else "\n\n"
    return f"{patch.subject}\n\n{text}{gap if text and below else ''}" + "\n".join(below) + "\n"


Message = Callable[[Patch, Submitter], str]


def commit(where: Path, patches: Sequence[Patch], parent: str, me: Submitter, message: Message) -> str:
    """These patches with other messages, as commits that no branch of the repository has."""
    for patch in patches:
        env = {"GIT_AUTHOR_NAME": patch.author, "GIT_AUTHOR_EMAIL": patch.mail, "GIT_AUTHOR_DATE": patch.date,
               "GIT_COMMITTER_NAME": me.name, "GIT_COMMITTER_EMAIL": me.mail}
        parent = git("-C", where, "commit-tree", f"{patch.commit}^{{tree}}", "-p", parent, env=env,
                     data=message(patch, me).encode()).stdout.strip()
    return parent


def judged(name: str, good: object, detail: str) -> Result:
    return Result("export", name, Status.PASS if good else Status.FAIL, detail)


def comes_back(edit: EditTree, source: str, files: Sequence[Path], tip: str, name: str) -> Result:
    """Do the files, applied to the base, give what was exported?"""
    store = edit.store
    with store.lock():
        try:
            found = store.apply(source, files)
        except Rejected as err:
            return judged(name, False, err.cause)
    same = store.tree_of(found) == edit.in_edit("rev-parse", f"{tip}^{{tree}}")
    return judged(name, same, f"{len(files)} patches on {store.version()}" if same else
                  "they apply, and give another tree than was exported")


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
            names = [self._standing(patch, [line[:40] for line in done.stdout.splitlines()
                                            if line[41:] == patch.bare]) for patch in patches]
        theirs = patch_ids(self.path, [name for name in names if name])
        ours = patch_ids(edit.path, [patch.commit for patch in patches])
        # Upstream's message and author, and the notes of ours.
        return [replace(read(Path(self.path), name), commit=patch.commit, notes=patch.notes, upstream=name,
                        same=theirs.get(name) == ours.get(patch.commit)) if name else patch
                for patch, name in zip(patches, names)]

    def _standing(self, patch: Patch, names: Sequence[str]) -> str:
        """The newest of its commits that was not reverted, or nothing if there never was one."""
        undone = {name: self._reverted(name) for name in names}
        if undone and all(undone.values()):
            raise Err(f"{patch.bare}: upstream reverted {names[0][:12]} by {undone[names[0]][:12]}",
                      "see why it did; without LINUX_GIT= the patch goes as one that is not merged", FAIL)
        return next((name for name in names if not undone[name]), "")

    def _reverted(self, name: str) -> str:
        """The commit that reverts this one and was not reverted itself."""
        done = of_user("-C", self.path, "log", "--format=%H", "-F", f"--grep=This reverts commit {name[:12]}",
                       f"{name}..HEAD")
        return next((by for by in done.stdout.split() if not self._reverted(by)), "")

    def release(self, patch: Patch) -> str:
        """The first release with it."""
        done = of_user("-C", self.path, "describe", "--contains", "--match=v*", patch.upstream)
        return re.sub(r"[~^].*", "", done.stdout.strip())

    def queued(self) -> str:
        """What SUSE's header says of a commit in no release: where others find it, if it is known."""
        url = of_user("-C", self.path, "config", "remote.origin.url").stdout.strip()
        return f"Queued\nGit-repo: {url}" if re.match(r"(?:git|https)://", url) else ""


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


def _suse(patch: Patch, upstream: Upstream) -> list[str]:
    references = "References: " + ", ".join(os.environ.get("BUG", "").split())
    if patch.upstream and (where := upstream.release(patch) or upstream.queued()):
        return [f"Git-commit: {patch.upstream}", f"Patch-mainline: {where}", references]
    state = "Never, for trees of this kind only" if patch.local else "Not yet, not submitted"
    if link := re.search(r"(?m)^Link: (\S+)$", patch.text):
        state = f"Submitted, {patch.date[:10]} {link[1]}"
    return [f"Patch-mainline: {state}", references]


def _debian(patch: Patch, upstream: Upstream) -> list[str]:
    how = "upstream" if patch.same else "backport"
    lines = [f"Origin: {how}, commit:{patch.upstream}" if patch.upstream else "Origin: vendor"]
    lines += _bugs("Bug-Debian: https://bugs.debian.org/{}").splitlines()
    return [*lines, f"Forwarded: {'not-needed' if patch.upstream or patch.local else 'no'}"]


@dataclass(frozen=True)
class Style:
    message: Message
    needs: Mapping[str, str] = field(default_factory=dict)      # variables, and the form of their words
    prefix: str = "PATCH"                   # of the mails' subjects
    header: Callable[[Patch, Upstream], list[str]] | None = None    # of a patch file's
    where: str = "patches"                  # the directory below the run's
    index: str = ""                         # and the file that has the order of patch files


STYLES = {
    "plain": Style(_plain),
    "ubuntu": Style(_ubuntu, {"BUG": r"\d+", "SUITE": r"[\w-]+"}, "SRU][{SUITE}][PATCH"),
    "stable": Style(_stable, {"LINUX_GIT": ".+"}, "PATCH {base}.y"),
    "suse": Style(compose, {"BUG": r"[a-z]+#([A-Z]+-)?\d+|CVE-\d{4}-\d{4,}|git-fixes"}, header=_suse,
                  where="patches.suse", index="series.conf"),
    "debian": Style(compose, {"BUG": r"\d*"}, header=_debian,
                    where="debian/patches/features/arm64/smmuv3-kdump", index="debian/patches/series"),
}
EXAMPLES = {"BUG": 'BUG=2012345 (the bug that this is for), of SUSE BUG="bsc#1234567 jsc#PED-1234"',
            "SUITE": "SUITE=noble (the release)", "LINUX_GIT": "LINUX_GIT=~/linux (upstream's repository)"}

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
        for variable, form in self.style.needs.items():
            for word in os.environ.get(variable, "").split() or [""]:
                if not re.fullmatch(form, word):
                    raise Err(f"style {name} needs {variable}=" + f", not {word!r}" * bool(word),
                              EXAMPLES[variable], USAGE)
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
        where = here / self.style.where
        form: list[str | Path] = [*FORMAT_PATCH, "--stat", "-p", "-o", where, f"{self.source}..{tip}"]
        if self.style.header:
            return self._files(here, form), tip
        prefix = self.style.prefix.format_map({**os.environ, "base": self.store.base.name})
        to, cc = (["stable@vger.kernel.org"], self._people()) if self.name == "stable" else ([], [])
        self.edit.in_edit(*form, f"--from={self.me}", "--numbered", f"--subject-prefix={prefix}",
                          *(f"--to={who}" for who in to), *(f"--cc={who}" for who in cc))
        made = sorted(where.glob("*.patch"))
        if self.name in ("ubuntu", "stable"):
            subject, text = cover(self.store.base)
            if self.name == "ubuntu":
                text = justification(text, cover(bases.newest())[1])
            letter = EmailMessage()
            letter["From"] = formataddr((self.me.name, self.me.mail))
            letter["Subject"] = f"[{prefix} {0:0{len(str(len(made)))}d}/{len(made)}] {subject}"
            for name, who in ("To", to), ("Cc", cc):
                if who:
                    letter[name] = ", ".join(who)
            letter.set_content(f"{text}\n", cte="8bit")
            write(here / "0000-cover-letter.patch", bytes(letter))
        return made, tip

    def _commit(self, where: Path, parent: str) -> str:
        return commit(where, self.patches, parent, self.me, self.style.message)

    def _people(self) -> list[str]:
        """Who wrote, signed or reviewed it upstream: stable's reviewers want them to know."""
        found = {(patch.author, patch.mail) for patch in self.patches}
        for patch in self.patches:
            found |= set(re.findall(r"(?m)^[\w-]+-by: (.+) <([!-~]+)>$", patch.text))
        return [formataddr(who) for who in sorted(found - {(self.me.name, self.me.mail)})
                if not NO_MAIL.search(who[1])]

    def _files(self, here: Path, form: Sequence[str | Path]) -> list[Path]:
        """Patch files with the style's header, and the index that names them."""
        self.edit.in_edit(*form, "--no-from", "--subject-prefix=")
        made = sorted((here / self.style.where).glob("*.patch"))
        assert self.style.header
        for path, patch in zip(made, self.patches):
            new = "".join(f"{line}\n" for line in self.style.header(patch, self.upstream)).encode()
            # Without the line `From <hash>`, and with ours at the end of the header.
            write(path, re.sub(rb"\A.*\n((?:.+\n)*)", lambda found: found[1] + new, path.read_bytes()))
        index = here / self.style.index
        names = [os.path.relpath(path, index.parent) for path in made]
        indent = "\t" if self.name == "suse" else ""
        lines = [*self._theirs(names), *(indent + name for name in names)]
        write(index, "".join(f"{line}\n" for line in lines))
        return made

    def _theirs(self, ours: Sequence[str]) -> list[str]:
        """The lines of the tree's own index, but for those of an earlier export."""
        old = {re.sub(r".*/\d+-", "", name) for name in ours}
        store, where = self.store, f"--git-dir={self.store.git_dir}"
        there = store.git("cat-file", "blob", f"{self.source}:{self.style.index}", check=False).stdout
        lines = [line for line in there.splitlines() if re.sub(r".*/\d+-", "", line) not in old]
        # A line that begins with + is guarded: SUSE's tree is made without it.
        names = [f"{self.source}:{Path(self.style.index).parent / word}" for line in lines
                 for word in re.sub(r"#.*|^\s*\+.*", "", line).split() if word[0] != "-"]
        apply = ["env", f"GIT_INDEX_FILE={store.here / 'scratch.index'}", "git", where, "apply", "--cached"]
        with store.lock():
            store.git("read-tree", self.source)
            done = pipeline([["git", where, "show", *names], [*apply, "--check", "-R"]])
        if names and done.returncode:
            raise Err(f"{store.ksrc} is not the tree that its {self.style.index} makes: "
                      f"{done.stderr.strip().splitlines()[0]}", "apply the series there: quilt push -a", FAIL)
        return lines

    def _branch(self, here: Path) -> list[str]:
        """What lint judges: the branch that git am will make, or the files, on the tree's own history."""
        ksrc = self.store.ksrc
        known = ksrc and self.store.is_repository(ksrc)
        if not known or not ksrc or self.style.header:
            tree, base = (ksrc, "HEAD") if known else (self.edit.path, self.source)
            return ["-C", str(tree), "--onto", base, str(here / self.style.where)]
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
    code = lint([*made.lint_of(here), "--format", "table", "-o", str(here / "lint.txt")])
    said = (here / "lint.txt").read_text() if code and (here / "lint.txt").exists() else ""
    results.append(judged("make lint", not code, said))
    code = report(name, store, results, files, here).show(here, "lint.txt")
    say("next: " + NEXT[name].format(here=here))
    return code


NEXT = {
    "plain": "in the branch: git am {here}/patches/*",
    "ubuntu": "in the branch: git am {here}/patches/*; complete {here}/0000-cover-letter.patch, and git "
              "send-email it with them",
    "stable": "read them, then git send-email {here}/0000-cover-letter.patch {here}/patches",
    "suse": "copy {here}/patches.suse, and the lines of series.conf to where they belong",
    "debian": "copy {here}/debian over the package's own directory",
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
