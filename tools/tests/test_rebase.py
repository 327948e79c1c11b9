# SPDX-License-Identifier: GPL-2.0-only
"""make rebase, black box: ten kinds of trees that the series may have to go to, and what can go wrong.

Each either gives a branch that compiles, or stops with the one conflict that a person must decide; the
user's tree is never touched.
"""

from __future__ import annotations

import email.utils
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest

from .conftest import (COVER, GIT, TOP, Project, as_prereq, clean_env, errors, git, identify, kernel_tree,
                       latest, snapshot)
from .test_lore import lend

SMMU, CORE, HEADER = "drivers/iommu/smmu.c", "drivers/iommu/core.c", "include/core.h"
STEPS = "".join(f"""\
int smmu_step_{number}(int id)
{{
\tint ret = {number};

\t/* Step {number} is made up */
\tret += id;
\treturn ret;
}}

""" for number in range(4))
PROBE = """\
int smmu_probe(int id)
{
\tint ret;

\tret = smmu_write(id, 0);
\tif (ret)
\t\treturn ret;

\treturn smmu_step_1(id);
}

"""
SOURCE = {
    HEADER: "int core_first(int id);\n\n/* Of the driver */\n\nint smmu_write(int id, int what);\n",
    CORE: '#include "core.h"\n\nint core_first(int id)\n{\n\treturn id;\n}\n',
    SMMU: ('#include "core.h"\n\n/* The driver */\n\n' + STEPS + PROBE
           + "int smmu_last(int id)\n{\n\treturn id;\n}\n"),
}
# The series: subject, file, what it replaces, by what.
HOOK = ("core: Add core_hook()", ((HEADER, "int core_first(int id);\n",
                                   "int core_first(int id);\nint core_hook(int id);\n"),
                                  (CORE, "\treturn id;\n}\n",
                                   "\treturn id;\n}\n\nint core_hook(int id)\n{\n\treturn id + 1;\n}\n")))
ADOPT = "static int smmu_kdump_adopt(int id)\n{\n\treturn id & 1;\n}\n\n"
ADD = ("smmu: Add adoption", ((SMMU, "/* The driver */\n\n", "/* The driver */\n\n" + ADOPT),))
USE = ("smmu: Adopt in the probe", ((SMMU, "\tret = smmu_write(id, 0);\n",
                                     "\tret = smmu_kdump_adopt(id) ? 0 : smmu_write(id, 0);\n"),))
LAST = "int smmu_last(int id)\n{\n"
REFUSE = ("SAUCE: smmu: Refuse the hook", ((SMMU, LAST, LAST + "\tif (core_hook(id))\n\t\treturn -1;\n"),))
SERIES = (HOOK, ADD, USE, REFUSE)
Change = tuple[str, tuple[tuple[str, str, str], ...]]


def write(tree: Path) -> Path:
    for name, text in SOURCE.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    return tree


def put(tree: Path, *edits: tuple[str, str, str]) -> None:
    for name, old, new in edits:
        text = (tree / name).read_text()
        assert old in text, old
        (tree / name).write_text(text.replace(old, new, 1))


def add(tree: Path, *changes: Change) -> None:
    for subject, edits in changes:
        put(tree, *edits)
        git(tree, "commit", "-qam", f"{subject}\n\nWhy: naïve.")


def repository(path: Path, version: str = "9.8.7") -> Path:
    write(kernel_tree(path, version))
    git(path, "init", "-q", "-b", "main")
    git(path, "add", "-f", ".")
    git(path, "commit", "-qm", "base")
    return path


@pytest.fixture
def ready(project: Project) -> Project:
    """Base 9.8, as if from the archive, with the series; project.ksrc is a tree to bring it to."""
    root = project.cache.parent
    old = repository(root / "old")
    add(old, *SERIES)
    git(old, "format-patch", "-q", "--full-index", "-o", str(project.patches), "HEAD~4")
    names = sorted(path.name for path in project.patches.glob("*.patch"))
    (project.patches / "series").write_text("".join(f"{name}\n" for name in names))
    (project.patches / "0000-cover-letter").write_text(COVER)
    as_prereq(project, 1)
    git(old, "checkout", "-q", "HEAD~4")
    project.tree(KSRC=str(old))
    made = next((project.cache / "smmuv3-kdump" / "build").glob("9.8@*"))
    shutil.rmtree(made / "linux")
    made.rename(made.with_name("9.8"))
    origin = made.with_name("9.8") / "base.git" / "origin"
    origin.write_text("linux-source-9.8_9.8.7\n" + origin.read_text().splitlines()[1] + "\n")
    git(old, "checkout", "-q", "main")
    shutil.rmtree(project.ksrc)
    repository(project.ksrc, "9.9.1")
    identify(project)
    project.env["FROM"] = "9.8"
    return project


def rebase(project: Project, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
    ksrc = Path(env.get("KSRC") or project.env["KSRC"])
    before = snapshot(ksrc) if ksrc.is_dir() else {}
    done = project.verb("rebase", code=code, **env)
    assert errors(done) == bool(done.returncode)
    assert (snapshot(ksrc) if ksrc.is_dir() else {}) == before, "the user's tree was touched"
    return done


def edit(project: Project) -> Path:
    return next((project.cache / "smmuv3-kdump" / "build").glob("9.*@*/linux"))


def compiles(tree: Path) -> None:
    """What is committed, that is."""
    assert git(tree, "status", "--porcelain", "-uno") == ""
    for name in (SMMU, CORE):
        subprocess.run(["gcc", "-Wall", "-Werror", "-Wno-unused-function", "-fsyntax-only", "-Iinclude",
                        name], cwd=tree, check=True)


def subjects(tree: Path) -> list[str]:
    return git(tree, "log", "--reverse", "--format=%s").splitlines()[1:]


ALL = [subject for subject, _ in SERIES]


# The trees. Each takes project.ksrc, gives the KSRC= and says what is expected: the branch's commits, or
# the commit that stops, and how a person would mend it.

def drift(ksrc: Path) -> Path:
    """The lines around the changes are others."""
    put(ksrc, (SMMU, "\tint ret;\n\n\tret = smmu_write", "\tint ret = 0;\n\n\tret = smmu_write"),
        (SMMU, "\treturn smmu_step_1(id)", "\treturn smmu_step_2(id)"),
        (SMMU, "/* The driver */", "/* A driver */"),
        (HEADER, "int core_first(int id);\n", "int core_zero(void);\nint core_first(int id);\n"))
    git(ksrc, "commit", "-qam", "drift")
    return ksrc


def moved(ksrc: Path) -> Path:
    """A function that a patch changes stands somewhere else."""
    put(ksrc, (SMMU, PROBE, ""), (SMMU, "int smmu_step_2", PROBE + "int smmu_step_2"))
    git(ksrc, "commit", "-qam", "moved")
    return ksrc


def moved_and_renamed(ksrc: Path) -> Path:
    return renamed(moved(ksrc))


def renamed_file(ksrc: Path) -> Path:
    git(ksrc, "mv", SMMU, "drivers/iommu/smmu-new.c")
    git(ksrc, "commit", "-qam", "renamed")
    return ksrc


def renamed(ksrc: Path) -> Path:
    """A helper that a patch's lines call has another name."""
    for name in (SMMU, HEADER):
        put(ksrc, (name, "smmu_write(", "smmu_issue("))
    git(ksrc, "commit", "-qam", "renamed")
    return ksrc


def hook(ksrc: Path) -> Path:
    """What prereq/ is for is there, in other words."""
    put(ksrc, (HEADER, "int smmu_write", "int core_hook(int id);\nint smmu_write"),
        (CORE, "int core_first", "int core_hook(int id)\n{\n\treturn -id;\n}\n\nint core_first"))
    git(ksrc, "commit", "-qam", "core: A hook of our own")
    return ksrc


def taken(ksrc: Path) -> Path:
    """One of the patches has been merged there."""
    add(ksrc, HOOK)
    return ksrc


def shallow(ksrc: Path) -> Path:
    drift(ksrc)
    git(ksrc.parent, "clone", "-q", "--depth=1", f"file://{ksrc}", "shallow")
    return ksrc.parent / "shallow"


def partial(ksrc: Path) -> Path:
    drift(ksrc)
    git(ksrc, "config", "uploadpack.allowFilter", "true")
    git(ksrc.parent, "clone", "-q", "--filter=blob:none", f"file://{ksrc}", "partial")
    return ksrc.parent / "partial"


def changes(ksrc: Path) -> Path:
    put(ksrc, (SMMU, "/* The driver */", "/* Not committed */"))
    return ksrc


def worktree(ksrc: Path) -> Path:
    drift(ksrc)
    git(ksrc, "worktree", "add", "-q", "--detach", "../detached")
    return ksrc.parent / "detached"


def plain(ksrc: Path) -> Path:
    shutil.rmtree(drift(ksrc) / ".git")
    return ksrc


CLEAN: dict[Callable[[Path], Path], list[str]] = {
    drift: ALL, moved: ALL, renamed_file: ALL, hook: ALL[1:], taken: ALL[1:], shallow: ALL, partial: ALL,
    changes: ALL, worktree: ALL, plain: ALL}


@pytest.mark.parametrize("kind", CLEAN, ids=[kind.__name__ for kind in CLEAN])
def test_a_branch(ready: Project, kind: Callable[[Path], Path]) -> None:
    ksrc = kind(ready.ksrc)
    done = rebase(ready, KSRC=str(ksrc))
    tree = Path(done.stdout.splitlines()[-1])
    assert subjects(tree) == CLEAN[kind]
    if kind is not renamed_file:
        compiles(tree)
    assert re.search(r"(?m)^4: .* 4: .*SAUCE: smmu: Refuse|^4: .* 3: ", done.stdout), "no range-diff"
    assert ("is not needed: the tree has core_hook()" in done.stderr) == (kind in (hook, taken))
    assert ("uncommitted changes" in done.stderr) == (kind is changes)
    # Run again, it only shows what there is.
    assert Path(rebase(ready, KSRC=str(ksrc)).stdout.splitlines()[-1]) == tree
    assert subjects(tree) == CLEAN[kind]


def mend(tree: Path, *edits: tuple[str, str, str]) -> None:
    """What a person does: the other side's file, and the change made by hand."""
    for name in git(tree, "diff", "--name-only", "--diff-filter=U").split():
        git(tree, "checkout", "--ours", name)
    put(tree, *edits)
    git(tree, "add", "-f", *(name for name, _, _ in edits))


@pytest.mark.parametrize("kind, at, new", [
    (moved_and_renamed, 3, "\tret = smmu_kdump_adopt(id) ? 0 : smmu_issue(id, 0);\n"),
    (renamed, 3, "\tret = smmu_kdump_adopt(id) ? 0 : smmu_issue(id, 0);\n")], ids=["moved", "renamed"])
def test_one_conflict(ready: Project, kind: Callable[[Path], Path], at: int, new: str) -> None:
    kind(ready.ksrc)
    done = rebase(ready, code=1)
    assert f"patch {at} of 4, {ALL[at - 1]}: conflict in {SMMU}" in done.stderr
    tree = edit(ready)
    assert subjects(tree) == ALL[:at - 1]
    # Run again without having mended anything, it says the same.
    assert f"conflict in {SMMU}" in rebase(ready, code=1).stderr
    assert "under way" in ready.verb("refresh", code=1).stderr
    mend(tree, (SMMU, new.replace("smmu_kdump_adopt(id) ? 0 : ", ""), new))
    done = rebase(ready)
    assert subjects(tree) == ALL
    compiles(tree)
    assert re.search(rf"(?m)^{at}: +\w+ ! {at}: ", done.stdout), done.stdout


def test_a_conflict_that_is_committed_by_hand(ready: Project) -> None:
    """git's own commands do as well."""
    renamed(ready.ksrc)
    rebase(ready, code=1)
    tree = edit(ready)
    new = "\tret = smmu_kdump_adopt(id) ? 0 : smmu_issue(id, 0);\n"
    mend(tree, (SMMU, new.replace("smmu_kdump_adopt(id) ? 0 : ", ""), new))
    subprocess.run(["git", "-C", tree, "am", "--continue"], check=True, capture_output=True,
                   env={**clean_env(), **GIT})
    assert "range-diff" in rebase(ready).stderr
    assert subjects(tree) == ALL


def test_marks_left_in_a_file(ready: Project) -> None:
    renamed(ready.ksrc)
    rebase(ready, code=1)
    git(edit(ready), "add", "-f", SMMU)
    done = rebase(ready, code=1)
    assert "<<<<<<<" in (edit(ready) / SMMU).read_text() and "patch 3 of 4" in done.stderr


def test_skipped_and_aborted(ready: Project) -> None:
    renamed(ready.ksrc)
    rebase(ready, code=1)
    tree = edit(ready)
    git(tree, "am", "--abort")
    rebase(ready, code=1)           # from the start
    git(tree, "am", "--skip")
    done = rebase(ready)
    assert f"left out: {ALL[2]}" in done.stderr
    assert subjects(tree) == [ALL[0], ALL[1], ALL[3]]


# A tree that has an earlier version.

def carrying(ready: Project) -> list[str]:
    """An older version of the series among other commits; the hashes of its commits."""
    mark = "NVIDIA: SAUCE: iommu/arm-smmu-v3: "
    add(ready.ksrc, HOOK,
        (f"{mark}Add arm_smmu_kdump_adopt_strtab() for kdump",
         ((SMMU, "/* The driver */\n", "/* The driver */\n\nstatic int arm_" + ADOPT.strip() + "\n"),)),
        ("smmu: Something else", ((SMMU, "Step 1 is", "Step 1 was"),)),
        (f"{mark}Skip EVTQ/PRIQ setup in kdump kernel", ((SMMU, "\tif (ret)\n", "\tif (ret && !id)\n"),)))
    return [git(ready.ksrc, "rev-parse", f"HEAD~{back}") for back in (0, 2)]


def test_an_earlier_version_is_named(ready: Project) -> None:
    names = carrying(ready)
    done = rebase(ready, code=1)
    assert "carries an earlier version of this idea" in done.stderr and "REVERT=1" in done.stderr
    assert re.findall(r"(?m)^    ([0-9a-f]{12}) ", done.stderr) == [name[:12] for name in names]
    assert subjects(edit(ready)) == []
    # The reverts are a series that git am takes there.
    found = re.search(r"the reverts as a series of their own: (\S+)\)", done.stderr)
    assert found
    copy = ready.ksrc.parent / "copy"
    shutil.copytree(ready.ksrc, copy, symlinks=True)
    git(copy, "am", "-q", *map(str, sorted(Path(found[1]).iterdir())))
    assert git(copy, "diff", "--stat", f"{names[1]}~1", "HEAD", "--", SMMU).count("+") <= 2
    assert f"This reverts commit {names[0]}." in git(copy, "log", "-1", "--format=%b", "HEAD~1")
    # By the user, now.
    assert git(copy, "log", "-1", "--format=%an <%ae>") == "A Person <person@kernel.org>"
    assert abs(int(git(copy, "log", "-1", "--format=%at")) - time.time()) < 3600
    done = rebase(ready, REVERT="1")
    tree = edit(ready)
    assert subjects(tree)[:2] == [f'Revert "{subject}"' for subject in (
        git(ready.ksrc, "log", "-1", "--format=%s", name) for name in names)]
    assert subjects(tree)[2:] == ALL[1:]
    compiles(tree)
    # And what was made of it goes to the branch: the reverts are the submitter's, of today.
    for style in "plain", "debian", "suse":
        assert "FAIL" not in ready.verb("branch", STYLE=style, BUG="bsc#1" if style == "suse" else "1").stdout
        text = next(latest(ready, style).rglob("0001-Revert*")).read_text()
        said = dict(re.findall(r"(?m)^([A-Z][\w-]+): (.*)$", text.partition("\n\n")[0]))
        assert re.search(r"(?m)^From: A Person <person@kernel.org>$", text)
        assert time.time() - email.utils.mktime_tz(email.utils.parsedate_tz(said["Date"]) or (0,) * 10) < 3600
        assert "\nSigned-off-by: A Person <person@kernel.org>\n" in text
        assert said.get("Forwarded", "not-needed") == "not-needed"
        assert said.get("Patch-mainline", "Never").startswith("Never")


def test_reverts_are_somebodys(ready: Project) -> None:
    """Who has no identity hears what there is to revert, and what git must know; the tree's one counts."""
    names = carrying(ready)
    (ready.ksrc.parent / ".gitconfig").unlink()
    done = rebase(ready, code=2, REVERT="1")
    assert "does not say who you are" in done.stderr and "next: git config --global user.name" in done.stderr
    assert re.findall(r"(?m)^    ([0-9a-f]{12}) ", done.stderr) == [name[:12] for name in names]
    for key, value in (("name", "Ünal, A"), ("email", "u@kernel.org")):
        git(ready.ksrc, "config", f"user.{key}", value)
    rebase(ready, REVERT="1")
    assert git(edit(ready), "log", "--reverse", "--format=%an <%ae>").splitlines()[1:3] == [
        "Ünal, A <u@kernel.org>"] * 2


def test_an_earlier_version_that_was_reverted(ready: Project) -> None:
    """The control: nothing is said of what is gone, nor of a tree that never had it."""
    for name in carrying(ready):
        git(ready.ksrc, "revert", "--no-edit", name)
    rebase(ready)
    assert subjects(edit(ready)) == ALL[1:]


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_an_earlier_version_in_a_shallow_clone(ready: Project, depth: int) -> None:
    """Its oldest commit seems to add everything, and is no patch of anybody's."""
    names = carrying(ready)
    assert int(git(ready.ksrc, "rev-list", "--count", "HEAD")) > 4
    git(ready.ksrc.parent, "clone", "-q", f"--depth={depth}", f"file://{ready.ksrc}", "few")
    done = rebase(ready, code=None, KSRC=str(ready.ksrc.parent / "few"))
    known = [name[:12] for name in names[:depth - 1]]
    assert re.findall(r"(?m)^    ([0-9a-f]{12}) ", done.stderr) == known, done.stderr
    assert "its history is cut short" in done.stderr and ("REVERT=1" in done.stderr) == bool(known)


def test_a_tree_that_went_on(ready: Project) -> None:
    """What was made on its state of before is not passed off as made on today's."""
    rebase(ready)
    tree = edit(ready)
    made = git(tree, "rev-parse", "HEAD")
    drift(ready.ksrc)
    said = rebase(ready, code=1).stderr
    assert "another state of the tree" in said and git(tree, "rev-parse", "HEAD") == made
    git(tree, "branch", "-m", "before")
    rebase(ready)
    assert subjects(tree) == ALL and git(tree, "rev-parse", "before") == made
    assert "int ret = 0;" in (tree / SMMU).read_text()


# Other sources.

@pytest.mark.parametrize("kind", ["repository", "shallow", "mailbox", "directory"])
def test_from_elsewhere(ready: Project, kind: str) -> None:
    old = drift(ready.ksrc) and ready.ksrc.parent / "old"
    lend(ready)
    mails = git(old, "format-patch", "--stdout", "--full-index", "--cover-letter", "HEAD~4")
    where = f"{old}:HEAD~4..main"
    for name, value in (("format.signOff", "true"), ("format.suffix", ".txt")):     # of a user
        git(old, "config", name, value)
    if kind == "shallow":
        git(old.parent, "clone", "-q", "--depth=5", f"file://{old}", "few")
        where = f"{old.parent / 'few'}:HEAD~4.."
    if kind == "mailbox":
        where = str(old.parent / "box")
        Path(where).write_text(mails + "\n")
    if kind == "directory":
        where = str(old.parent / "mails")
        git(old, "format-patch", "-q", "--full-index", "--suffix=.patch", "-n", "-o", where, "HEAD~4")
    done = rebase(ready, FROM=where, code=None)
    tree = edit(ready)
    if kind in ("repository", "shallow"):
        assert subjects(tree) == ALL and re.search("(?m)^4: ", done.stdout)
        assert "Signed-off-by" not in git(tree, "log", "-4", "--format=%B")
        compiles(tree)
        ready.refresh()         # prereq/ stays prereq/
        assert next(ready.patches.glob("prereq/0001-core-Add*"))
    else:
        # The tree does not have the files that the mails are of.
        assert done.returncode == 1 and "no three-way merge" in done.stderr and subjects(tree) == []


def without(text: str, number: int) -> str:
    parts = re.split(r"(?m)^(?=From [0-9a-f]{40} )", text)
    return "".join(part for part in parts if f" {number}/4]" not in part)


@pytest.mark.parametrize("change, said", [
    (lambda text: without(text, 2), "lacks 2"),
    (lambda text: text.replace("\n+\treturn id & 1;\n", "\n+\treturn id &\n 1;\n"), f"patch failed: {SMMU}"),
    (lambda text: text.replace("\t", "    "), "patch failed"),
    (lambda text: text[:text.index("diff --git")], "lacks every patch"),
])
def test_mails_that_were_changed_on_the_way(ready: Project, change: Callable[[str], str], said: str) -> None:
    lend(ready)
    box = ready.ksrc.parent / "box"
    box.write_text(change(git(ready.ksrc.parent / "old", "format-patch", "--stdout", "-n", "HEAD~4") + "\n"))
    done = rebase(ready, code=None, FROM=str(box))
    assert done.returncode in (1, 2) and errors(done) == 1 and said in done.stderr


def as_mails(old: Path, *form: str) -> list[str]:
    mails = git(old, "format-patch", "--stdout", "--cover-letter", "-n", *form, "HEAD~4") + "\n"
    return re.split(r"(?m)^(?=From [0-9a-f]{40} )", mails)[1:]


def mime(mail: str, cte: str) -> str:
    """The same mail, its body in another encoding of MIME."""
    head, _, body = mail.partition("\n\n")
    made = EmailMessage()
    for line in re.sub("\n ", " ", head).splitlines()[1:]:
        if not line.startswith(("MIME-", "Content-")):
            made[line.partition(": ")[0]] = line.partition(": ")[2]
    made.set_content(body, cte=cte)
    return head.splitlines()[0] + "\n" + made.as_string() + "\n"


def reply(mail: str) -> str:
    """An answer with a change of its own, below the whole of what it answers."""
    head, _, body = mail.partition("\n\n")
    quoted = "".join(f"> {line}\n" for line in body.splitlines())
    diff = body[body.index("diff --git"):].replace("+\t", "+\t\t")
    return re.sub("(?m)^Subject: ", "Subject: Re: ", head, count=1) + f"\n\n{quoted}\nLike this?\n\n{diff}"


Box = Callable[[list[str], list[str]], list[str]]
MAILBOXES: dict[str, Box] = {
    "replies": lambda v1, v2: [*v1, *map(reply, v1[1:])],
    "versions": lambda v1, v2: [*v1, *(mail.replace("+\treturn id & 1", "+\treturn id & 3") for mail in v2)],
    "the newest first": lambda v1, v2: v2 + v1,
    "older ones that are not all there": lambda v1, v2: v1[:2] + v2,
    "twice the same": lambda v1, v2: [*v1, *v1],
    "without numbers": lambda v1, v2: [re.sub(r" \d/4\]", "]", mail) for mail in v1[1:]],
    "base64": lambda v1, v2: [mime(mail, "base64") for mail in v1],
    "quoted-printable": lambda v1, v2: [mime(mail, "quoted-printable") for mail in v1],
    "CRLF": lambda v1, v2: [mail.replace("\n", "\r\n") for mail in v1],
}


@pytest.mark.parametrize("kind", [*MAILBOXES, "eml"])
def test_a_mailbox(ready: Project, kind: str) -> None:
    lend(ready)
    old = ready.ksrc.parent / "old"
    v1, v2 = as_mails(old), as_mails(old, "-v2")
    box = ready.ksrc.parent / "box"
    if kind == "eml":
        box.mkdir()
        for number, mail in enumerate(v1):
            (box / f"{number:04d}-a.eml").write_text(mail.partition("\n")[2])
    else:
        box.write_bytes("".join(MAILBOXES[kind](v1, v2)).encode())
    rebase(ready, FROM=str(box))
    tree = edit(ready)
    assert subjects(tree) == ALL
    compiles(tree)
    text = (tree / SMMU).read_text()
    assert "\r" not in text and f"\treturn id & {3 if kind == 'versions' else 1};\n" in text
    assert git(tree, "log", "-4", "--format=%an %b").split("\n\n") == ["A Üser Why: naïve."] * 4


@pytest.mark.parametrize("kind, said", [
    (lambda v1, v2: [*v1, *v2[:3], *v2[4:]], "has a hole, or two series: b4 am lacks 3"),
    (lambda v1, v2: [*v1, v1[1].replace("\treturn id;", "\treturn 0;").replace("1/4", "2/4")], "has a hole"),
    (lambda v1, v2: [*v1, v1[1].replace(" 1/4]", "]")], "has a hole"),
])
def test_a_mailbox_of_more(ready: Project, kind: Box, said: str) -> None:
    lend(ready)
    old = ready.ksrc.parent / "old"
    box = ready.ksrc.parent / "box"
    box.write_text("".join(kind(as_mails(old), as_mails(old, "-v2"))))
    assert said in rebase(ready, code=2, FROM=str(box)).stderr


@pytest.mark.parametrize("where, said", [
    ("", "no FROM="), ("9.7", "is no base"), ("/usr", "is no base"), ("/usr:a..b", "FROM=/usr:a..b"),
    ("9.8", "itself"), ("OLD:main~4...main", "two dots")])
def test_bad_from(ready: Project, where: str, said: str) -> None:
    where = where.replace("OLD", str(ready.ksrc.parent / "old"))
    done = ready.verb("rebase", code=2, FROM=where, KSRC="", BASE="9.8")
    assert errors(done) == 1 and said in done.stderr


def test_a_partial_clone_without_its_files(ready: Project) -> None:
    ksrc = partial(ready.ksrc)
    git(ready.ksrc.parent, "clone", "-q", "--bare", "--filter=blob:none", f"file://{ready.ksrc}", "bare")
    done = rebase(ready, code=3, KSRC=str(ksrc.parent / "bare"))
    assert "partial clone" in done.stderr


def test_work_in_the_edit_tree_is_not_lost(ready: Project) -> None:
    tree = ready.tree()
    put(tree, (SMMU, "/* The driver */", "/* Mine */"))
    assert "uncommitted changes" in rebase(ready, code=1).stderr
    git(tree, "commit", "-qam", "mine")
    mine = git(tree, "rev-parse", "HEAD")
    rebase(ready)
    assert git(tree, "rev-parse", "queue") == mine
    git(tree, "checkout", "-q", "queue")
    assert "has a branch rebase/9.8" in rebase(ready, code=1).stderr
    git(tree, "cherry-pick", "--no-commit", "HEAD")
    git(tree, "reset", "-q", "--hard")


def test_a_new_base(ready: Project) -> None:
    """Its directory is empty: what is in prereq/ for another base goes there."""
    bases = ready.top / "patches" / "bases"
    bases.write_text(bases.read_text() + "9.9 linux-source-9.9 own 9.9 supported\n")
    there = ready.top / "patches" / "9.9"
    there.mkdir()
    rebase(ready, BASE="9.9")
    ready.verb("refresh", BASE="9.9")
    names = (there / "series").read_text().split()
    assert [name.startswith("prereq/0001-core-Add") for name in names] == [True, False, False, False]
    assert sorted(names) == sorted(str(path.relative_to(there)) for path in there.glob("**/*.patch"))


def test_one_that_was_killed(ready: Project) -> None:
    """git am is killed after it has committed a patch; the next run goes on."""
    hook = ready.tree() / ".git" / "hooks" / "post-applypatch"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text('#!/bin/sh\ncase $(git log -1 --format=%s) in *adoption) kill -9 $PPID;; esac\n')
    hook.chmod(0o755)
    done = ready.verb("rebase", code=None)
    assert done.returncode == 1 and errors(done) == 1
    assert subjects(edit(ready)) == ALL[:2]
    hook.unlink()
    rebase(ready)
    assert subjects(edit(ready)) == ALL
    compiles(edit(ready))


# Which base is the nearest.

def test_the_nearest_base(ready: Project) -> None:
    bases = ready.top / "patches" / "bases"
    bases.write_text(bases.read_text() + "9.9 linux-source-9.9 own 9.9 supported\n")
    other = ready.top / "patches" / "9.9"
    shutil.copytree(ready.patches, other)
    patch = next(other.glob("0003-*"))
    patch.write_text(patch.read_text().replace("smmu_write", "smmu_issue"))
    done = rebase(ready, BASE="", FROM="")
    assert "patches of 9.8 on 9.9.1: none rejected" in done.stderr
    assert "BASE=9.8 is the nearest" in done.stderr
    assert "patches of 9.9 on 9.9.1: 1 rejected: patches/9.9/0003" in done.stderr
    # The control: a tree that the other's suit better.
    done = rebase(ready, BASE="", FROM="9.8", KSRC=str(renamed(ready.ksrc)), code=1)
    assert "BASE=9.9 is the nearest" in done.stderr


def test_the_documents_count_the_patches() -> None:
    """Their examples are of these bases: a new patch changes what a reader sees."""
    counts = {base: len((TOP / "patches" / base / "series").read_text().split()) for base in ("6.12", "7.3")}
    there = (TOP / "Documentation" / "backporting.rst").read_text()
    assert set(re.findall(r"patch \d+ of (\d+)|rebasing (\d+) patches", there)) == {
        (str(counts["7.3"]), ""), ("", str(counts["7.3"]))}
    there = (TOP / "Documentation" / "submitting.rst").read_text()
    assert re.findall(r"(\d+) patches on Linux 6.12|/00(\d+)-SAUCE", there) == [
        (str(counts["6.12"]), ""), ("", str(counts["6.12"]))]
