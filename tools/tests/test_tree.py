# SPDX-License-Identifier: GPL-2.0-only
"""make tree and make refresh, black box, on a small fake kernel."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from .conftest import (A_C, GIT, LINES, PYTHON, Project, clean_env, errors, git, identify, kernel_tree,
                       snapshot)

TWO = ((10, "ten", "a: One"), (40, "forty", "a: Two"))


def subjects(tree: Path) -> list[str]:
    return git(tree, "log", "--reverse", "--format=%s").splitlines()


def files(path: Path) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in sorted(path.iterdir())}


def as_repository(path: Path) -> Path:
    git(path, "init", "-q", "-b", "main")
    git(path, "add", "-f", ".")
    git(path, "commit", "-qm", "mine")
    return path


# make tree

def test_one_commit_for_the_base_and_one_a_patch(project: Project) -> None:
    project.queue(*TWO)
    tree = project.tree()
    assert subjects(tree) == ["Linux 9.8.7", "a: One", "a: Two"]
    assert (tree / A_C).read_text().splitlines()[39] == "forty"
    author = git(tree, "log", "-1", "--format=%an <%ae> %aI")
    assert author == "A Üser <user@example.com> 2001-02-03T04:05:06+01:00"
    assert git(tree, "log", "-1", "--format=%b") == "Why: naïve."
    assert git(tree, "status", "--porcelain") == ""


def test_the_base_is_the_source_byte_for_byte(project: Project) -> None:
    tree = project.tree()
    found = {name: (mode, content) for name, (mode, _, content) in snapshot(tree).items()
             if not name.startswith(".git/")}
    found.pop(".git")
    assert found == {name: (mode, content) for name, (mode, _, content) in snapshot(project.ksrc).items()}


def test_commits_are_those_of_git_am(project: Project) -> None:
    project.queue(*TWO)
    tree = project.tree()
    tip = git(tree, "rev-parse", "HEAD")
    base = git(tree, "rev-parse", "HEAD~2")
    git(tree, "checkout", "-q", "--detach", base)
    env = {**clean_env(), **GIT, "GIT_COMMITTER_NAME": "smmuv3-kdump", "GIT_COMMITTER_EMAIL": "smmuv3-kdump"}
    patches = sorted(project.patches.glob("*.patch"))
    subprocess.run(["git", "-C", tree, "am", "-q", "--committer-date-is-author-date", *patches],
                   check=True, env=env)
    assert git(tree, "rev-parse", "HEAD") == tip


def test_ids_do_not_depend_on_time_user_or_configuration(project: Project, tmp_path: Path) -> None:
    project.queue(*TWO)
    one = git(project.tree(), "rev-parse", "HEAD")
    (tmp_path / ".gitconfig").write_text(
        "[user]\nname=x\nemail=y@z\n[core]\nautocrlf=true\n[apply]\nwhitespace=fix\n"
        "[am]\nthreeWay=true\n[commit]\ngpgSign=true\n[init]\ndefaultBranch=zzz\n")
    time.sleep(1.1)
    other = git(project.tree(XDG_CACHE_HOME=str(tmp_path / "other")), "rev-parse", "HEAD")
    assert one == other
    project.queue(*TWO[:1])         # the control: another queue, another id
    assert git(project.tree(XDG_CACHE_HOME=str(tmp_path / "third")), "rev-parse", "HEAD") != one


def test_prints_only_the_path(project: Project) -> None:
    done = project.verb("tree")
    assert re.fullmatch(r"/\S+/linux\n", done.stdout)
    done = project.run("make", "-s", f"PYTHON={PYTHON}", "tree", MAKELEVEL="1")
    assert re.fullmatch(r"/\S+/linux\n", done.stdout)


# KSRC

@pytest.mark.parametrize("kind", ["directory", "repository", "shallow", "worktree"])
def test_ksrc_is_never_touched(project: Project, tmp_path: Path, kind: str) -> None:
    project.queue(*TWO)
    ksrc = project.ksrc
    if kind != "directory":
        as_repository(ksrc)
    if kind == "shallow":
        project.edit(ksrc, 60, "sixty", "more")
        git(tmp_path, "clone", "-q", "--depth=1", f"file://{ksrc}", "shallow")
        ksrc = tmp_path / "shallow"
    if kind == "worktree":
        git(ksrc, "worktree", "add", "-q", str(tmp_path / "wt"))
        ksrc = tmp_path / "wt"
    # A stale index is what git would like to write anew.
    os.utime(ksrc / A_C)
    before = snapshot(tmp_path / "ksrc"), snapshot(ksrc)
    tree = project.tree(KSRC=str(ksrc))
    assert subjects(tree)[1:] == ["a: One", "a: Two"]
    project.edit(tree, 20, "twenty", "a: Three")
    project.refresh(KSRC=str(ksrc))
    project.tree(KSRC=str(ksrc))
    assert (snapshot(tmp_path / "ksrc"), snapshot(ksrc)) == before


def test_the_snapshot_sees_a_touched_tree(project: Project) -> None:
    as_repository(project.ksrc)
    before = snapshot(project.ksrc)
    os.utime(project.ksrc / A_C)
    assert snapshot(project.ksrc) != before
    before = snapshot(project.ksrc)
    git(project.ksrc, "status")
    assert snapshot(project.ksrc) != before


def test_ksrc_repository_gives_its_head(project: Project) -> None:
    as_repository(project.ksrc)
    (project.ksrc / A_C).write_text("not committed\n")
    done = project.verb("tree")
    assert "uncommitted changes" in done.stderr
    assert (Path(done.stdout.strip()) / A_C).read_text() == "".join(LINES)


def test_ksrc_directory_without_what_a_build_left(project: Project) -> None:
    for name in ("vmlinux", "drivers/iommu/a.o", ".config", "include/config/auto.conf",
                 "drivers/iommu/.a.o.cmd"):
        (project.ksrc / name).parent.mkdir(parents=True, exist_ok=True)
        (project.ksrc / name).write_text("product")
    (project.ksrc / "tools" / "test.d").mkdir(parents=True)
    (project.ksrc / "tools" / "test.d" / "x").write_text("source\n")
    names = git(project.tree(), "ls-files").splitlines()
    assert not {"vmlinux", "drivers/iommu/a.o", ".config", "include/config/auto.conf"} & set(names)
    assert {A_C, ".gitignore", "script", "link", "tools/test.d/x"} <= set(names)


def test_ksrc_that_changes_is_read_again(project: Project) -> None:
    project.tree()
    (project.ksrc / A_C).write_text("".join(LINES).replace("line 60 of a", "changed"))
    (project.ksrc / "drivers" / "new.c").write_text("new\n")
    (project.ksrc / "crlf.txt").unlink()
    tree = project.tree()
    assert "changed" in (tree / A_C).read_text()
    assert (tree / "drivers" / "new.c").exists() and not (tree / "crlf.txt").exists()


@pytest.mark.parametrize("ksrc", ["/nonexistent", "/usr/share"])
def test_ksrc_that_is_no_kernel(project: Project, ksrc: str) -> None:
    if ksrc == "/usr/share":
        ksrc = str(project.patches)
    done = project.verb("tree", code=2, KSRC=ksrc)
    assert len(done.stderr.splitlines()) <= 4 and "next:" in done.stderr


@pytest.mark.parametrize("where", ["ksrc", "upstream"])
def test_a_repository_of_somebody_else(project: Project, where: str) -> None:
    """git's own words are many; the one command that is needed is named."""
    identify(project)
    upstream = kernel_tree(project.ksrc.with_name("upstream"))
    for tree in (as_repository(project.ksrc), as_repository(upstream)):
        git(tree, "config", "core.logAllRefUpdates", "false")
    project.queue(*TWO)
    project.tree()
    project.fake("git", f'case "$*" in *"{where}"*) export GIT_TEST_ASSUME_DIFFERENT_OWNER=1;; esac\n'
                 'exec "$REAL" "$@"')
    done = project.verb("tree" if where == "ksrc" else "branch", code=3, LINUX_GIT=str(upstream))
    there = project.ksrc.with_name(where)
    assert errors(done) == 1 and f"git does not trust {there}" in done.stderr
    assert f"next: git config --global --add safe.directory {there}\n" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_a_repository_of_sha256(project: Project) -> None:
    git(project.ksrc, "init", "-q", "--object-format=sha256")
    as_repository(project.ksrc)
    done = project.verb("tree", code=2)
    assert errors(done) == 1 and "sha256" in done.stderr and "git archive" in done.stderr
    assert len(done.stderr.splitlines()) == 2


# Patches that do not apply

def test_a_patch_that_does_not_apply(project: Project) -> None:
    project.queue(*TWO)
    tree = project.tree()
    before = snapshot(tree)
    patch = sorted(project.patches.glob("0002*"))[0]
    patch.write_text(patch.read_text().replace("-line 40 of a", "-line 40 of b"))
    done = project.verb("tree", code=1)
    assert patch.name in done.stderr and A_C in done.stderr and "hunk 1 (@@ -37,7 +37,7 @@" in done.stderr
    assert "Linux 9.8.7" in done.stderr and "git am --reject" in done.stderr
    assert snapshot(tree) == before


def test_going_on_after_a_patch_that_does_not_apply(project: Project) -> None:
    """The command that the error names leads to a mended queue."""
    project.queue(*TWO, (50, "fifty", "a: Three"))
    text = (project.ksrc / A_C).read_text()
    (project.ksrc / A_C).write_text(text.replace("line 40 of a", "line forty of a"))
    done = project.verb("tree", code=1)
    command = re.search(r"next: (cd .*)", done.stderr)
    assert command
    subprocess.run(["sh", "-c", command[1]], env={**clean_env(), **GIT}, capture_output=True)
    tree = next(project.cache.glob("smmuv3-kdump/build/*/linux"))
    assert (tree / f"{A_C}.rej").exists()
    assert "under way" in project.refresh(code=1).stderr
    (tree / A_C).write_text((tree / A_C).read_text().replace("line forty of a", "forty"))
    (tree / f"{A_C}.rej").unlink()
    git(tree, "add", "-f", A_C)
    git(tree, "am", "--continue")
    project.refresh()
    assert subjects(project.tree()) == ["Linux 9.8.7", "a: One", "a: Two", "a: Three"]
    shutil.rmtree(project.cache)
    assert (project.tree() / A_C).read_text().count("forty") == 1


def test_no_fuzz(project: Project) -> None:
    project.queue(*TWO)
    patch = sorted(project.patches.glob("0002*"))[0]
    patch.write_text(patch.read_text().replace(" line 37 of a", " line 37 of something"))
    assert patch.name in project.verb("tree", code=1).stderr
    # The control: with less context asked for, the patch does apply.
    subprocess.run(["git", "apply", "--check", "-C1", patch], cwd=as_repository(project.ksrc), check=True)


@pytest.mark.parametrize("damage, said", [
    (lambda text: text.split("diff --git")[0], "No valid patches"),
    (lambda text: text.replace("From: ", "X-From: "), "not a mail"),
    (lambda text: text[:-60], "does not apply"),
    (lambda text: text.replace("a/" + A_C, "a/none.c").replace("b/" + A_C, "b/none.c"), "none.c"),
])
def test_a_damaged_patch(project: Project, damage: Callable[[str], str], said: str) -> None:
    project.queue(*TWO)
    patch = sorted(project.patches.glob("0001*"))[0]
    patch.write_text(damage(patch.read_text()))
    done = project.verb("tree", code=1)
    assert patch.name in done.stderr and said in done.stderr


def test_series_that_names_a_missing_patch(project: Project) -> None:
    project.queue(*TWO)
    sorted(project.patches.glob("0001*"))[0].unlink()
    assert "0001-a-One.patch" in project.verb("tree", code=1).stderr


# What the user has in the tree is never lost

def test_the_users_commits_stay(project: Project) -> None:
    project.queue(*TWO)
    tree = project.tree()
    project.edit(tree, 20, "twenty", "a: Mine")
    before = snapshot(tree)
    assert "make refresh" in project.verb("tree").stderr
    assert snapshot(tree / "drivers") == {
        name.removeprefix("drivers/"): value for name, value in before.items() if name.startswith("drivers/")}
    assert subjects(tree)[-1] == "a: Mine"


@pytest.mark.parametrize("mine", ["commit", "amended", "uncommitted"])
def test_both_changed_is_refused(project: Project, mine: str) -> None:
    project.queue(*TWO)
    tree = project.tree()
    if mine == "uncommitted":
        (tree / A_C).write_text("mine\n")
    elif mine == "commit":
        project.edit(tree, 20, "twenty", "a: Mine")
    else:
        git(tree, "commit", "-q", "--amend", "-m", "a: Two, better")
    before = git(tree, "rev-parse", "HEAD"), (tree / A_C).read_text()
    project.queue(*TWO, (55, "fiftyfive", "a: Theirs"))
    done = project.verb("tree", code=1)
    assert "left as it is" in done.stderr
    assert (git(tree, "rev-parse", "HEAD"), (tree / A_C).read_text()) == before
    if mine == "commit":        # the command it names brings the two together
        command = re.search(r"(git -C \S+ rebase --onto \S+ [0-9a-f]+)", done.stderr)
        assert command
        subprocess.run(["sh", "-c", command[1]], env={**clean_env(), **GIT}, check=True, capture_output=True)
        project.tree()
        assert subjects(tree) == ["Linux 9.8.7", "a: One", "a: Two", "a: Theirs", "a: Mine"]
        project.refresh()
        assert len(list(project.patches.glob("*.patch"))) == 4


def test_an_untouched_tree_follows_the_queue(project: Project) -> None:
    project.queue(*TWO)
    tree = project.tree()
    project.queue(*TWO[:1])
    project.tree()
    assert subjects(tree) == ["Linux 9.8.7", "a: One"]
    assert (tree / A_C).read_text().splitlines()[39] == "line 40 of a"


# make refresh

def test_refresh_is_byte_stable(project: Project, tmp_path: Path) -> None:
    project.queue(*TWO)
    project.tree()
    project.refresh()
    first = files(project.patches)
    assert "nothing to change" in project.refresh().stderr
    shutil.rmtree(project.cache)
    (tmp_path / ".gitconfig").write_text(
        "[format]\nsignature=x\nnumbered=true\nsubjectPrefix=RFC\nattach=true\nnoprefix=true\n"
        "[diff]\nnoprefix=true\ncontext=9\nalgorithm=patience\n[core]\nabbrev=7\n")
    project.tree()
    assert "nothing to change" in project.refresh(FORCE="1").stderr
    assert files(project.patches) == first
    # The control: this configuration does change what plain git writes.
    tree = project.tree()
    env = {**clean_env(), "HOME": str(tmp_path)}
    plain = subprocess.run(["git", "-C", tree, "format-patch", "--stdout", "-1"], env=env,
                           capture_output=True).stdout
    assert b"diff --git drivers" in plain


def test_refresh_writes_what_the_tree_has(project: Project) -> None:
    project.queue(*TWO)
    tree = project.tree()
    git(tree, "reset", "-q", "--hard", "HEAD~1")
    project.edit(tree, 30, "thirty", "a: Other")
    (tree / "new.c").write_text("new\n")
    git(tree, "add", "-f", "new.c")
    git(tree, "commit", "-qm", "new: A file")
    project.refresh()
    names = ["0001-a-One.patch", "0002-a-Other.patch", "0003-new-A-file.patch"]
    assert sorted(files(project.patches)) == [*names, "series"]
    assert (project.patches / "series").read_text().split() == names
    text = (project.patches / names[1]).read_text()
    assert text.startswith("From " + "0" * 40) and "Subject: [PATCH] a: Other\n" in text
    shutil.rmtree(project.cache)
    assert subjects(project.tree()) == ["Linux 9.8.7", "a: One", "a: Other", "new: A file"]


def test_refresh_leaves_offsets_alone(project: Project) -> None:
    project.queue(*TWO)
    project.tree()
    project.refresh()
    before = files(project.patches)
    (project.ksrc / A_C).write_text("one more line\n" + "".join(LINES))
    project.tree()
    done = project.refresh()
    assert "only offsets" in done.stderr and files(project.patches) == before
    project.refresh(FORCE="1")
    after = files(project.patches)
    assert after != before and b"@@ -38,7 +38,7 @@" in after["0002-a-Two.patch"]
    # The control: a change that is more than offsets is written without FORCE.
    tree = project.tree()
    git(tree, "commit", "-q", "--amend", "-m", "a: Two\n\nBecause.")
    project.refresh()
    assert b"Because." in files(project.patches)["0002-a-Two.patch"]


@pytest.mark.parametrize("state, said", [
    ("uncommitted", "uncommitted"), ("untracked", "new.c"), ("merge", "merge"), ("none", "no edit tree"),
    ("elsewhere", "not built on the base"),
])
def test_refresh_refuses(project: Project, state: str, said: str) -> None:
    project.queue(*TWO)
    if state != "none":
        tree = project.tree()
    if state == "uncommitted":
        (tree / A_C).write_text("mine\n")
    elif state == "untracked":
        (tree / "new.c").write_text("mine\n")
    elif state == "merge":
        git(tree, "checkout", "-q", "-b", "side", "HEAD~1")
        project.edit(tree, 5, "five", "side", "drivers/iommu/b.c")
        git(tree, "checkout", "-q", "queue")
        git(tree, "merge", "-q", "side")
    elif state == "elsewhere":
        git(tree, "checkout", "-q", "--orphan", "other")
        git(tree, "commit", "-qm", "Other")
    before = files(project.patches)
    done = project.refresh(code=None)
    assert done.returncode in (1, 2) and said in done.stderr and files(project.patches) == before


def test_refresh_does_not_undo_what_was_edited_in_the_queue(project: Project) -> None:
    project.queue(*TWO)
    project.tree()
    patch = project.patches / "0002-a-Two.patch"
    patch.write_text(patch.read_text().replace("+forty", "+fourty"))
    before = files(project.patches)
    assert "would undo" in project.refresh(code=1).stderr and files(project.patches) == before


@pytest.mark.parametrize("verb, name", [
    ("tree", "index.lock"), ("refresh", "refs/smmuv3-kdump/made.lock")])
def test_a_lock_that_a_killed_git_left(project: Project, verb: str, name: str) -> None:
    project.queue(*TWO)
    tree = project.tree()
    left = tree / ".git" / name
    if verb == "tree":
        project.queue(*TWO[:1])         # so that there is something to do
    else:
        git(tree, "reset", "-q", "--hard", "HEAD~1")
    left.touch()
    done = project.verb(verb, code=3)
    assert errors(done) == 1 and f"next: wait for it; if none runs: rm {left}," in done.stderr
    left.unlink()
    project.verb(verb)


def test_a_message_that_git_am_would_cut(project: Project) -> None:
    project.queue(*TWO)
    tree = project.tree()
    before = files(project.patches)
    git(tree, "commit", "-q", "--amend", "-m", "a: Two\n\nfirst\n---\nlost")
    assert "do not give the tree's commits" in project.refresh(code=1).stderr
    assert files(project.patches) == before


# Faults: one clear error, and the same command again recovers

@pytest.mark.parametrize("command", [
    "init", "update-index", "write-tree", "commit-tree", "apply", "read-tree", "reset"])
@pytest.mark.parametrize("fault", ["fails", "is killed with us", "meets a full disk"])
def test_a_git_that(project: Project, command: str, fault: str) -> None:
    project.queue(*TWO)
    does = {"fails": "echo 'fatal: broken' >&2; exit 128",
            "is killed with us": "kill -9 $VERB; exit 1",
            "meets a full disk": "echo 'fatal: write error: No space left on device' >&2; exit 128"}[fault]
    script = f'for word; do [ "$word" = {command} ] && {{ {does}; }}; done; exec "$REAL" "$@"'
    fake = project.fake("git", script)
    done = project.verb("tree", code=None)
    if fault == "is killed with us":
        assert done.returncode == -signal.SIGKILL
    else:
        assert done.returncode == 3
        assert errors(done) == 1
        assert "disk is full" in done.stderr or fault == "fails"
    fake.unlink()
    assert subjects(project.tree()) == ["Linux 9.8.7", "a: One", "a: Two"]
    assert git(project.tree(), "status", "--porcelain") == ""


def test_a_real_full_disk(project: Project, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    with open(project.ksrc / "big", "wb") as big:
        big.write(os.urandom(8 << 20))
    inner = f"mount -t tmpfs -o size=4m none {small} && exec {PYTHON} -m tools tree"
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    if subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", small], capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    done = project.run(*unshare, "sh", "-c", inner, code=3, XDG_CACHE_HOME=str(small))
    assert "disk is full" in done.stderr
    assert errors(done) == 1


def test_interrupted(project: Project) -> None:
    project.fake("git", 'for word; do [ "$word" = write-tree ] && touch "$HOME/there" && sleep 60; done; '
                 'exec "$REAL" "$@"')
    process = project.start(PYTHON, "-m", "tools", "tree")
    while not (project.top.parent / "there").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130 and "Traceback" not in err
    (project.bin / "git").unlink()
    project.tree()


KILLS = """
import os, pathlib, signal
left = int(os.environ["STEPS"])
def after(real):
    def step(self, *args, **kwargs):
        global left
        if "/patches/9.8/" in str(self):
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        return real(self, *args, **kwargs)
    return step
for name in ("rename", "unlink"):
    setattr(pathlib.Path, name, after(getattr(pathlib.Path, name)))
"""


@pytest.mark.parametrize("edited", [False, True])
def test_a_refresh_that_is_killed(project: Project, tmp_path: Path, edited: bool) -> None:
    """At any file that it writes or removes: run again, it goes on. What somebody wrote since is not lost."""
    project.queue((10, "ten", "a: One"), (20, "twenty", "a: Between"), (40, "forty", "a: Two"))
    before, tree = files(project.patches), project.tree()
    old = git(tree, "rev-parse", "HEAD")
    between = git(tree, "log", "-1", "--format=%h", "--grep=Between", "HEAD")
    git(tree, "rebase", "-q", "--onto", f"{between}~1", between)
    project.edit(tree, 30, "thirty", "a: New")
    tip = git(tree, "rev-parse", "HEAD")
    (project.patches / "0009-somebody-s.patch").write_text("in no series")
    before = files(project.patches)
    done = project.refresh()
    after = files(project.patches)
    assert "0009-somebody-s.patch" in after
    assert before.keys() - after.keys() and after.keys() - before.keys(), done.stderr
    (tmp_path / "site" / "sitecustomize.py").parent.mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(KILLS)
    for steps in range(1, 4) if edited else range(20):
        for name in files(project.patches):
            (project.patches / name).unlink()
        for name, content in before.items():
            (project.patches / name).write_bytes(content)
        git(tree, "reset", "-q", "--hard", old)
        project.verb("tree", code=None)
        git(tree, "reset", "-q", "--hard", tip)
        killed = project.refresh(code=None, STEPS=str(steps), PYTHONPATH=str(tmp_path / "site"))
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        if edited:
            one = project.patches / "0001-a-One.patch"
            one.write_text(one.read_text().replace("+ten", "+ten, by hand"))
            assert "changed since" in project.refresh(code=1).stderr
            assert "by hand" in one.read_text()
            continue
        assert steps != 2 or "a refresh was interrupted" in project.verb("tree", code=1).stderr
        project.refresh()
        assert files(project.patches) == after
    assert steps == 3 if edited else steps > 4
    for text in ("", '{"a"', '["x"]'):      # of a machine that lost its power
        next(tree.parent.glob("refresh.begun*"), tree.parent / "refresh.begun").write_text(text)
        if not edited:
            project.refresh()
    assert edited or "interrupted" not in project.verb("tree").stderr


def test_two_at_once(project: Project) -> None:
    project.queue(*TWO)
    runs = [project.start(PYTHON, "-m", "tools", "tree") for _ in range(4)]
    for process in runs:
        out, err = process.communicate()
        assert process.returncode == 0, err
    assert subjects(Path(out.strip())) == ["Linux 9.8.7", "a: One", "a: Two"]


def test_only_patches_that_changed_are_applied_again(project: Project) -> None:
    project.fake("git", 'case "$*" in apply*) echo x >>"$HOME/applied";; esac; exec "$REAL" "$@"')
    applied = project.top.parent / "applied"
    project.queue(*TWO)
    project.tree()
    assert applied.read_text() == "x\n" * 2
    one, two = sorted(project.patches.glob("*.patch"))
    two.write_text(two.read_text().replace("+forty", "+FORTY"))
    project.tree()
    assert applied.read_text() == "x\n" * 3
    one.write_text(one.read_text().replace("+ten", "+TEN"))     # what stands on it is made again as well
    tree = project.tree()
    assert applied.read_text() == "x\n" * 5
    text = (tree / A_C).read_text()
    assert "TEN\n" in text and "FORTY\n" in text


def test_unknown_base(project: Project) -> None:
    done = project.verb("tree", code=2, BASE="1.0")
    assert "choose one of: 9.8" in done.stderr
