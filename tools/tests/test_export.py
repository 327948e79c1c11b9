# SPDX-License-Identifier: GPL-2.0-only
"""make branch and make stable, black box: each style taken by the tools that its world has."""

from __future__ import annotations

import email.policy
import os
import re
import shutil
import subprocess
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path

import pytest

from .conftest import (A_C, COVER, Project, as_prereq, clean_env, errors, git, identify, kernel_tree, latest,
                       snapshot)
from .test_tree import as_repository

THREE = ((10, "ten", "p: Prerequisite"), (20, "twenty", "a: One"), (30, "thirty", "SAUCE: a: Two"))
UPSTREAM = """

Upstream's words.

Reviewed-by: R <r@kernel.org>
Signed-off-by: A Üser <user@example.com>"""
CONTROL = """\
Source: linux
Maintainer: A Person <person@kernel.org>

Package: linux-source
Architecture: all
Description: none
"""
CHANGELOG = """\
linux (9.8.7-1) unstable; urgency=low

  * None.

 -- A Person <person@kernel.org>  Sat, 01 Jan 2000 00:00:00 +0000
"""
AFTER = {9: "ten", 19: "twenty", 29: "thirty"}


@pytest.fixture
def ready(project: Project) -> Project:
    as_repository(project.ksrc)
    project.queue(*THREE)
    as_prereq(project, 1)
    (project.patches / "0000-cover-letter").write_text(COVER)
    identify(project)
    return project


def exported(project: Project, style: str, code: int | None = 0, **env: str) -> Path:
    before = snapshot(project.top), snapshot(project.ksrc)
    done = project.verb("stable" if style == "stable" else "branch", code=code, STYLE=style, **env)
    assert (snapshot(project.top), snapshot(project.ksrc)) == before
    assert ("FAIL" in done.stdout) == bool(code), done.stdout
    return latest(project, style)


def merged(project: Project, *subjects: str, change: str = "") -> Path:
    """An upstream where patches of these subjects are merged; `change` makes the first another one."""
    up = kernel_tree(project.cache.parent / "up")
    git(up, "init", "-q", "-b", "master")
    git(up, "add", "-f", ".")
    git(up, "commit", "-qm", "base")
    for line, text, subject in THREE:
        if subject in subjects:
            project.edit(up, line, change if change and subject == subjects[0] else text, subject + UPSTREAM)
    git(up, "tag", "v9.9-rc1")
    return up


def lines(tree: Path) -> dict[int, str]:
    text = (tree / A_C).read_text().splitlines()
    return {at: text[at] for at in AFTER}


def quilt(tree: Path, patches: Path, index: str) -> str:
    env = {**clean_env(), "QUILT_PATCHES": str(patches), "QUILT_SERIES": index, "QUILT_PC": ".pc"}
    done = subprocess.run(["quilt", "--quiltrc=-", "push", "-a", "--fuzz=0"], cwd=tree, env=env, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_plain(ready: Project) -> None:
    here = exported(ready, "plain")
    git(ready.ksrc, "am", "-q", *map(str, sorted((here / "patches").iterdir())))
    assert lines(ready.ksrc) == AFTER
    assert git(ready.ksrc, "log", "-3", "--format=%s|%an|%(trailers:key=Signed-off-by)").split("\n\n") == [
        f"{subject}|A Üser|Signed-off-by: A Person <person@kernel.org>"
        for subject in ("SAUCE: a: Two", "a: One", "p: Prerequisite")]


def test_plain_from_upstream(ready: Project) -> None:
    up = merged(ready, "p: Prerequisite", "a: One")
    here = exported(ready, "plain", LINUX_GIT=str(up))
    git(ready.ksrc, "am", "-q", *map(str, sorted((here / "patches").iterdir())))
    log = git(ready.ksrc, "log", "-1", "HEAD~1", "--format=%an%n%b").splitlines()
    picked = f"(cherry picked from commit {git(up, 'rev-parse', 'HEAD')})"
    assert log[0] == "A Üser" and log[2:] == [
        "Upstream's words.", "", "Reviewed-by: R <r@kernel.org>", "Signed-off-by: A Üser <user@example.com>",
        "", "Why: naïve.", picked, "Signed-off-by: A Person <person@kernel.org>"][-len(log[2:]):]
    # As anybody would look at the branch.
    ready.verb("lint", RANGE="HEAD~3..HEAD", REPO=str(ready.ksrc), LINUX_GIT=str(up))


def test_a_difference_needs_a_note(ready: Project) -> None:
    up = merged(ready, "p: Prerequisite", change="zehn")
    here = exported(ready, "plain", code=1, LINUX_GIT=str(up))
    assert "MISMATCH" in (here / "lint.txt").read_text()
    patch = next(ready.patches.glob("prereq/0001-*"))
    text = patch.read_text()
    patch.write_text(text.replace("Why: naïve.\n", "Why: naïve.\n\n[9.8: spelled in\nEnglish]\n"))
    here = exported(ready, "plain", LINUX_GIT=str(up))
    text = next(here.glob("patches/0001-*")).read_text()
    assert re.search(r"\(backported from commit [0-9a-f]{40}\)\n\[9.8: spelled in\nEnglish\]\nSigned", text)


def test_ubuntu(ready: Project) -> None:
    here = exported(ready, "ubuntu", BUG="2012345 2012346", SUITE="noble")
    made = sorted((here / "patches").iterdir())
    assert "Subject: [SRU][noble][PATCH 1/3] UBUNTU: SAUCE: p: Prerequisite\n" in made[0].read_text()
    letter = (here / "0000-cover-letter.patch").read_text()
    assert "Subject: [SRU][noble][PATCH 0/3] a: Make it so" in letter and "[Impact]\n\nNone." in letter
    git(ready.ksrc, "am", "-q", *map(str, made))
    assert lines(ready.ksrc) == AFTER
    assert git(ready.ksrc, "log", "--format=%s", "-3").splitlines() == [
        f"UBUNTU: SAUCE: {subject}" for subject in ("a: Two", "a: One", "p: Prerequisite")]
    assert git(ready.ksrc, "log", "-1", "--format=%b").startswith("".join(
        f"BugLink: https://bugs.launchpad.net/bugs/{bug}\n" for bug in (2012345, 2012346)) + "\nWhy")
    ready.verb("lint", RANGE="HEAD~3..HEAD", REPO=str(ready.ksrc))


def test_suse(ready: Project) -> None:
    up = merged(ready, "p: Prerequisite")
    (ready.ksrc / "series.conf").write_text("# Kernel patches configuration file\n")
    git(ready.ksrc, "add", "-f", ".")
    git(ready.ksrc, "commit", "-qm", "series.conf")
    here = exported(ready, "suse", BUG="bsc#1234567 jsc#PED-1", LINUX_GIT=str(up))
    index = (here / "series.conf").read_text()
    assert index.startswith("# Kernel") and "\n\tpatches.suse/0001-p-Prerequisite.patch\n" in index
    heads = [path.read_text().partition("\n\n")[0] for path in sorted((here / "patches.suse").iterdir())]
    assert f"Git-commit: {git(up, 'rev-parse', 'HEAD')}\nPatch-mainline: v9.9-rc1\n" in heads[0]
    assert "Patch-mainline: Not yet, not submitted\n" in heads[1] and "Patch-mainline: Never, " in heads[2]
    assert all("\nReferences: bsc#1234567, jsc#PED-1" in head for head in heads)
    quilt(ready.ksrc, here, str(here / "series.conf"))
    assert lines(ready.ksrc) == AFTER


def test_debian(ready: Project, tmp_path: Path) -> None:
    up = merged(ready, "p: Prerequisite")
    here = exported(ready, "debian", BUG="1234567", LINUX_GIT=str(up))
    top = tmp_path / "linux-9.8.7"
    shutil.copytree(ready.ksrc, top, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    subprocess.run(["tar", "-cJf", "linux_9.8.7.orig.tar.xz", top.name], cwd=tmp_path, check=True)
    shutil.copytree(here / "debian", top / "debian")
    for name, text in {
            "source/format": "3.0 (quilt)\n", "rules": "#!/usr/bin/make -f\n",
            "control": CONTROL, "changelog": CHANGELOG}.items():
        (top / "debian" / name).parent.mkdir(exist_ok=True)
        (top / "debian" / name).write_text(text)
    for command in (["dpkg-source", "-b", top.name], ["rm", "-rf", top.name],
                    ["dpkg-source", "-x", "linux_9.8.7-1.dsc"]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0 and "fuzz" not in done.stdout, done.stdout + done.stderr
    assert lines(top) == AFTER
    heads = [path.read_text().partition("\n\n")[0] for path in sorted(
        (top / "debian/patches/features/arm64/smmuv3-kdump").iterdir())]
    assert f"\nOrigin: upstream, commit:{git(up, 'rev-parse', 'HEAD')}\n" in heads[0]
    assert heads[1].endswith("\nOrigin: vendor\nBug-Debian: https://bugs.debian.org/1234567\nForwarded: no")
    assert heads[2].endswith("\nForwarded: not-needed") and "\nSubject: SAUCE: a: Two\n" in heads[2]


def test_stable(ready: Project) -> None:
    up = merged(ready, "p: Prerequisite", "a: One")
    here = exported(ready, "stable", LINUX_GIT=str(up))
    made = sorted((here / "patches").iterdir())
    assert [path.name for path in made] == ["0001-p-Prerequisite.patch", "0002-a-One.patch"]
    assert "\nSubject: [PATCH 9.8.y 0/2] a: Make it so\n" in (here / "0000-cover-letter.patch").read_text()
    text = made[1].read_text()
    assert "\nSubject: [PATCH 9.8.y 2/2] a: One\n" in text and "\nTo: stable@vger.kernel.org\n" in text
    assert re.search(r"\nCc: .*\n\nFrom: A Üser <user@example.com>\n\ncommit " + git(up, "rev-parse", "HEAD")
                     + r" upstream\.\n\n", text.replace(",\n    ", ", "))
    assert "Signed-off-by: A Person <person@kernel.org>\n---\n" in text
    git(ready.ksrc, "am", "-q", *map(str, made))
    ready.verb("lint", RANGE="HEAD~2..HEAD", REPO=str(ready.ksrc), LINUX_GIT=str(up))


def test_stable_takes_what_upstream_has(ready: Project) -> None:
    done = ready.verb("stable", code=1, LINUX_GIT=str(merged(ready, "p: Prerequisite")))
    assert errors(done) == 1 and "a: One" in done.stderr and "p: Prereq" not in done.stderr
    assert not (ready.cache / "smmuv3-kdump" / "runs").exists()


def test_stable_and_what_upstream_never_had(ready: Project) -> None:
    """What only this base needs comes with its note; what SAUCE alone needs stays out."""
    extra = (15, "fifteen", "o: Old kernels alone"), (25, "stand-in", "q: For SAUCE alone")
    shutil.rmtree(ready.patches / "prereq")
    ready.queue(THREE[0], extra[0], THREE[1], extra[1], THREE[2])
    for number in (1, 2, 4):
        as_prereq(ready, number)
    (ready.patches / "0000-cover-letter").write_text(COVER)
    up = merged(ready, "p: Prerequisite", "a: One")
    done = ready.verb("stable", code=1, LINUX_GIT=str(up))
    assert errors(done) == 1 and "not merged in" in done.stderr
    assert "o: Old" in done.stderr and "SAUCE alone" not in done.stderr and "`[9.8: why]`" in done.stderr
    patch = next(ready.patches.glob("prereq/0002-*"))
    text = patch.read_text()
    patch.write_text(text.replace("Why: naïve.\n", "Why: naïve.\n\n[9.8: newer ones have no o]\n"))
    made = sorted((exported(ready, "stable", LINUX_GIT=str(up)) / "patches").iterdir())
    assert [path.name for path in made] == ["0001-p-Prerequisite.patch", "0002-o-Old-kernels-alone.patch",
                                            "0003-a-One.patch"]
    text = made[1].read_text()
    assert " upstream.\n" not in text and "\n[9.8: newer ones have no o]\nSigned-off-by: A Person" in text
    assert "From: A Üser" not in text, "nobody signed it: it is the submitter's"
    # A note does not do for the series' own patches.
    git(up, "reset", "-q", "--hard", "HEAD~1")
    own = next(ready.patches.glob("0003-*"))
    own.write_text(own.read_text().replace("Why: naïve.\n", "Why: naïve.\n\n[9.8: newer ones have no a]\n"))
    assert "a: One" in ready.verb("stable", code=1, LINUX_GIT=str(up)).stderr


SIGNED = "Signed-off-by: A Person <person@kernel.org>"


def test_the_submitter_has_signed_it_upstream(ready: Project) -> None:
    """Whoever exports is the committer, too: lint fails a branch of nobody's."""
    up = merged(ready, "a: One", "p: Prerequisite")
    git(up, "commit", "-q", "--amend", "-m", f"a: One{UPSTREAM}\n{SIGNED}")
    here = exported(ready, "stable", LINUX_GIT=str(up))
    assert next(here.glob("patches/0002-*")).read_text().count(SIGNED) == 1
    exported(ready, "plain", LINUX_GIT=str(up))


def test_a_sign_off_stands_once(ready: Project) -> None:
    identify(ready, more="[smmuv3-kdump]\ntrailer = Tested-by: A Tester <tester@kernel.org>\n")
    patch = next(ready.patches.glob("0002-*"))
    tested = "Tested-by: A Tester <tester@kernel.org>"
    for before, after in (("", f"{tested}\n{SIGNED}"), (SIGNED, f"{SIGNED}\n{tested}"),
                          (f"{tested}\n{SIGNED}", f"{tested}\n{SIGNED}"),
                          (f"{SIGNED}\nSigned-off-by: R <r@kernel.org>",
                           f"{SIGNED}\nSigned-off-by: R <r@kernel.org>\n{tested}\n{SIGNED}")):
        text = patch.read_text()
        patch.write_text(text.replace("\n---\n", f"\n\n{before}\n---\n", 1) if before else text)
        here = exported(ready, "plain")
        made = next(here.glob("patches/0002-*")).read_text()
        assert made.partition("Why: naïve.\n")[2].lstrip().startswith(f"{after}\n---\n")
        patch.write_text(text)


def test_what_upstream_has_reverted(ready: Project) -> None:
    up = merged(ready, "p: Prerequisite", "a: One")
    one = git(up, "rev-parse", "HEAD")
    git(up, "revert", "--no-edit", one)
    by = git(up, "rev-parse", "HEAD")
    for verb in "branch", "stable":
        done = ready.verb(verb, code=1, LINUX_GIT=str(up))
        assert errors(done) == 1 and one[:12] in done.stderr and by[:12] in done.stderr
    # The controls: it is there again, by the revert of the revert, or under its own name.
    git(up, "revert", "--no-edit", by)
    assert f"commit {one} upstream" in next(
        exported(ready, "stable", LINUX_GIT=str(up)).glob("patches/0002-*")).read_text()
    git(up, "revert", "--no-edit", "HEAD")
    assert "upstream reverted" in ready.verb("stable", code=1, LINUX_GIT=str(up)).stderr
    git(up, "cherry-pick", one)
    assert f"commit {git(up, 'rev-parse', 'HEAD')} upstream" in next(
        exported(ready, "stable", LINUX_GIT=str(up)).glob("patches/0002-*")).read_text()


def test_a_partial_clone_of_upstream(ready: Project) -> None:
    """What cannot be compared is not called another change; and nothing is fetched into it."""
    up = merged(ready, "p: Prerequisite", "a: One")
    git(up, "config", "uploadpack.allowFilter", "true")
    git(up.parent, "clone", "-q", "--bare", "--filter=blob:none", f"file://{up}", "few")
    few = up.parent / "few"
    before = snapshot(few)
    done = ready.verb("branch", code=3, LINUX_GIT=str(few))
    assert errors(done) == 1 and f"{few} lacks files of" in done.stderr and snapshot(few) == before
    command = re.search(r"git -C \S+ show [0-9a-f ]+ >/dev/null", done.stderr)
    assert command
    subprocess.run(command[0], shell=True, check=True, env=clean_env())
    assert "(cherry picked from" in next(
        exported(ready, "plain", LINUX_GIT=str(few)).glob("patches/0002-*")).read_text()


@pytest.mark.parametrize("style", ["suse", "debian"])
def test_a_patch_file_is_from_its_author(ready: Project, style: str) -> None:
    patch = next(ready.patches.glob("0002-*"))
    text = re.sub("(?m)^From: .*$", 'From: "Author, An" <an@author.net>', patch.read_text(), count=1)
    patch.write_text(text)
    here = exported(ready, style, BUG="bsc#1" if style == "suse" else "1")
    texts = [path.read_text() for path in sorted(here.rglob("000?-*.patch"))]
    assert '\nFrom: "Author, An" <an@author.net>\n' in "\n" + texts[1] and "\nFrom: " not in texts[1][6:]
    assert email.message_from_string(texts[0])["From"].endswith("<user@example.com>")
    # lint reads the line `From:` in a mail's text as git does, without quotes.
    (ready.ksrc / ".git").rename(ready.ksrc.parent / "moved")
    text = next((exported(ready, "plain")).glob("patches/0002-*")).read_text()
    assert "\n\nFrom: Author, An <an@author.net>\n" in text


def test_names_with_a_comma_or_an_umlaut(ready: Project) -> None:
    up = merged(ready, "p: Prerequisite", "a: One")
    git(up, "commit", "-q", "--amend", "--author=Author, An <an@author.net>", "-m",
        f"a: One{UPSTREAM}\nReviewed-by: Rüdiger <r@author.net>")
    cover = ready.patches / "0000-cover-letter"
    cover.write_text(cover.read_text() + "\nNaïve.\n")
    here = exported(ready, "stable", LINUX_GIT=str(up))
    for path in here / "0000-cover-letter.patch", next(here.glob("patches/0002-*")):
        mail = BytesParser(EmailMessage, policy=email.policy.default).parsebytes(path.read_bytes())
        assert isinstance(mail, EmailMessage)
        assert [str(who.addr_spec) for who in mail["To"].addresses] == ["stable@vger.kernel.org"]
        assert [(who.display_name, who.addr_spec) for who in mail["Cc"].addresses] == [
            ("A Üser", "user@example.com"), ("Author, An", "an@author.net"), ("R", "r@kernel.org"),
            ("Rüdiger", "r@author.net")]
        assert mail["From"] == "A Person <person@kernel.org>" and mail.get_content_charset() == "utf-8"
        assert "ïve." in mail.get_content() or path.parent.name == "patches"
    made = sorted((here / "patches").iterdir())
    git(ready.ksrc, "am", "-q", *map(str, made))
    assert git(ready.ksrc, "log", "-1", "--format=%an") == "Author, An"


def in_tree(project: Project, **files: str) -> None:
    for name, text in files.items():
        path = project.ksrc / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(project.ksrc, "add", "-f", ".")
    git(project.ksrc, "commit", "-qm", "its own")


def test_a_series_of_the_trees_own(ready: Project) -> None:
    project = ready
    project.edit(project.ksrc, 40, "forty", "own: Forty")
    own = git(project.ksrc, "format-patch", "--stdout", "HEAD~1") + "\n"
    in_tree(project, **{"debian/patches/own.patch": own, "debian/patches/series": "# Ours\nown.patch"})
    here = exported(project, "debian")
    series = (here / "debian/patches/series").read_text().splitlines()
    assert series[:2] == ["# Ours", "own.patch"] and len(series) == 5
    # Exported again into a tree that has the first one's files, they stand there once.
    shutil.copytree(here / "debian", project.ksrc / "debian", dirs_exist_ok=True)
    in_tree(project)
    assert (exported(project, "debian") / "debian/patches/series").read_text().splitlines() == series
    # In a tree where its patches are not applied quilt would give another one than was exported.
    project.edit(project.ksrc, 40, "line 40 of a", "own: Not forty")
    done = project.verb("branch", code=1, STYLE="debian")
    assert errors(done) == 1 and "is not the tree that its debian/patches/series makes" in done.stderr


@pytest.mark.parametrize("url, state", [
    ("https://git.kernel.org/torvalds/linux.git",
     "Git-commit: {}\nPatch-mainline: Queued\nGit-repo: https://git.kernel.org/torvalds/linux.git\n"),
    ("/srv/linux", "Patch-mainline: Not yet, not submitted\n")])
def test_suse_and_no_release(ready: Project, url: str, state: str) -> None:
    up = merged(ready, "p: Prerequisite")
    git(up, "tag", "-d", "v9.9-rc1")
    git(up, "config", "remote.origin.url", url)
    here = exported(ready, "suse", BUG="bsc#1", LINUX_GIT=str(up))
    assert state.format(git(up, "rev-parse", "HEAD")) in next(here.glob("*/0001-*")).read_text()


def test_suse_and_what_was_posted(ready: Project) -> None:
    patch = next(ready.patches.glob("0002-*"))
    link = "Link: https://lore.kernel.org/r/a@b"
    patch.write_text(patch.read_text().replace("Why: naïve.\n", f"Why: naïve.\n\n{link}\n"))
    text = next(exported(ready, "suse", BUG="bsc#1").glob("*/0002-*")).read_text()
    assert "\nPatch-mainline: Submitted, 2001-02-03 https://lore.kernel.org/r/a@b\n" in text


def test_a_variable_named_base(ready: Project) -> None:
    exported(ready, "ubuntu", BUG="1", SUITE="noble", base="0")


def test_a_patch_for_this_tree_alone_stands_last(ready: Project) -> None:
    """Left out from among the others, its change would be in the next one's mail."""
    shutil.rmtree(ready.patches / "prereq")
    ready.queue(THREE[2], THREE[1])
    (ready.patches / "0000-cover-letter").write_text(COVER)
    done = ready.verb("stable", code=1, LINUX_GIT=str(merged(ready, "a: One")))
    assert errors(done) == 1 and "SAUCE: a: Two: it is for this tree alone" in done.stderr


@pytest.mark.parametrize("env, code, said", [
    ({"STYLE": "ubuntu", "BUG": "LP#1", "SUITE": "noble"}, 2, "needs BUG=, not 'LP#1'"),
    ({"STYLE": "debian", "BUG": "#1234567"}, 2, "needs BUG=, not '#1234567'"),
    ({"STYLE": "suse", "BUG": "bsc#1 1234567"}, 2, "needs BUG=, not '1234567'"),
    ({"STYLE": "suse", "BUG": " "}, 2, "needs BUG="),
    ({"STYLE": "arch"}, 2, "plain ubuntu suse debian"), ({"STYLE": "ubuntu"}, 2, "needs BUG="),
    ({"STYLE": "ubuntu", "BUG": "1"}, 2, "needs SUITE="), ({"STYLE": "suse"}, 2, "needs BUG="),
    ({"STYLE": "plain", "LINUX_GIT": "/usr"}, 2, "not a git repository"),
])
def test_bad_input(ready: Project, env: dict[str, str], code: int, said: str) -> None:
    done = ready.verb("branch", code=code, **env)
    assert errors(done) == 1 and said in done.stderr
    assert not (ready.cache / "smmuv3-kdump" / "runs").exists()


def test_a_tree_with_changes_is_not_exported(ready: Project) -> None:
    tree = ready.tree()
    (tree / A_C).write_text("changed\n")
    done = ready.verb("branch", code=1)
    assert errors(done) == 1 and "uncommitted changes" in done.stderr
    assert os.listdir(tree.parent) and (tree / A_C).read_text() == "changed\n"
