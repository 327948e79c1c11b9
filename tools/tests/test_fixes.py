# SPDX-License-Identifier: GPL-2.0-only
"""Missing fixes: every way people write Fixes:, what counts as present, the cache."""
from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from tools.lint import message as msg
from tools.lint.fixes import FORMAT

from .lintkit import BOB, FILE, MIKE, Repo, Result, fake_git, message, run

HASH = "0123456789abcdef0123456789abcdef01234567"
TITLE = "foo: Do it (again)"


@pytest.mark.parametrize("text, want", [
    (f'Fixes: {HASH} ("{TITLE}")', [(HASH, TITLE)]),
    (f'Fixes: {HASH[:7]} ("{TITLE}")', [(HASH[:7], TITLE)]),
    (f"Fixes: {HASH[:12]} ('{TITLE}')", [(HASH[:12], TITLE)]),
    (f"Fixes: {HASH[:12]} (“{TITLE}”)", [(HASH[:12], TITLE)]),
    (f'Fixes: {HASH[:12]} "{TITLE}"', [(HASH[:12], TITLE)]),
    (f"Fixes: {HASH[:12]} (foo: Do it)", [(HASH[:12], "foo: Do it")]),
    (f"Fixes: {HASH[:12]} foo: Do it", [(HASH[:12], "foo: Do it")]),
    (f"Fixes: {HASH[:12]}, foo: Do it", [(HASH[:12], "foo: Do it")]),
    (f"Fixes: {HASH[:12]}: foo: Do it", [(HASH[:12], "foo: Do it")]),
    (f"Fixes: {HASH[:12]}", [(HASH[:12], "")]),
    (f"Fixes: {HASH[:12]}.", [(HASH[:12], "")]),
    (f'Fixes: commit {HASH[:12]} ("{TITLE}")', [(HASH[:12], TITLE)]),
    (f'Fixes: Commit {HASH[:12]} ("{TITLE}")', [(HASH[:12], TITLE)]),
    (f'Fixes: commit: {HASH[:12]} ("{TITLE}")', [(HASH[:12], TITLE)]),
    (f'Fixes: linux commit {HASH[:12]} ("{TITLE}")', [(HASH[:12], TITLE)]),
    (f'Fixes commit {HASH[:12]} ("{TITLE}")', [(HASH[:12], TITLE)]),
    (f'Fixes {HASH[:12]} ("{TITLE}")', [(HASH[:12], TITLE)]),
    (f'fixes: {HASH[:12]} ("{TITLE}")', [(HASH[:12], TITLE)]),
    (f'FIXES: {HASH[:12].upper()} ("{TITLE}")', [(HASH[:12], TITLE)]),
    (f'  Fixes:{HASH[:12]} ("{TITLE}")', [(HASH[:12], TITLE)]),
    (f'Fixes : {HASH[:12]} ("{TITLE}")', [(HASH[:12], TITLE)]),
    (f'Fixes: ({HASH[:12]}) "{TITLE}"', [(HASH[:12], TITLE)]),
    (f'Fixes: [{HASH[:12]}] "{TITLE}"', [(HASH[:12], TITLE)]),
    (f'Fixes: <{HASH[:12]}> ("{TITLE}")', [(HASH[:12], TITLE)]),
    (f'Fixes: ("{HASH[:12]} foo: Do it")', [(HASH[:12], "foo: Do it")]),
    (f'Fixes: {HASH[:12]} ("foo: Do\n it (again)")', [(HASH[:12], TITLE)]),
    (f"Fixes: {HASH[:12]}, {HASH[8:20]}", [(HASH[:12], ""), (HASH[8:20], "")]),
    (f"Fixes: {HASH[:12]} and {HASH[8:20]}", [(HASH[:12], ""), (HASH[8:20], "")]),
    (f'Fixes: {HASH[:12]} ("{TITLE}"), {HASH[8:20]} ("a: b")', [(HASH[:12], TITLE), (HASH[8:20], "a: b")]),
    (f'Fixes: {HASH[:12]} ("{TITLE}") and commit {HASH[8:20]} ("a: b")',
     [(HASH[:12], TITLE), (HASH[8:20], "a: b")]),
    (f'Fixes: {HASH[:12]} ("foo: Undo \'a\', deadbeef1234")', [(HASH[:12], "foo: Undo 'a', deadbeef1234")]),
    (f'Fixes: {HASH[:12]} ("foo: Undo deadbeef1234")', [(HASH[:12], "foo: Undo deadbeef1234")]),
    (f"Fixes: https://git.example/linux/c/{HASH}", [(HASH, "")]),
    (f"Fixes: https://git.example/cgit/commit/?id={HASH[:12]}", [(HASH[:12], "")]),
    (f"Fixes: foo: Do it ({HASH[:12]})", [(HASH[:12], "foo: Do it")]),
    (f'Fixes: "{TITLE}" ({HASH[:12]})', [(HASH[:12], TITLE)]),
    (f'Fixes: {HASH[:5]} ("{TITLE}")', [(HASH[:5], TITLE)]),
    ("Fixes: (foo: Do it)", [("", "foo: Do it")]),
    ('Fixes: ("Do it")', [("", "Do it")]),
    ("Fixes: (the thing)", []),
    ("Fixes: 12345", []),
    ("Fixes: the thing", []),
    ("Fixes: 123456", []),
    ("Fixes a crash seen with 0123456789ab applied", []),
    ("Fixes: CVE-2024-1234567", []),
    ("Fixes: https://bugs.example/1234567", [("1234567", "")]),
    ("Prefixes: 0123456789ab", []),
], ids=lambda x: x[:60] if isinstance(x, str) else "")
def test_forms_of_fixes(text: str, want: list[tuple[str, str]]) -> None:
    assert msg.fixed(f"foo: Mend\n\nWhy.\n\n{text}\nSigned-off-by: {BOB}\n") == want


@pytest.mark.parametrize("text, want", [
    (f"This reverts commit {HASH}.", [(HASH, False)]),
    (f"This reverts commit {HASH[:12]} (\"foo\").", [(HASH[:12], False)]),
    (f"This partially reverts commit {HASH}.", [(HASH, True)]),
    (f"This reverts part of commit {HASH}.", [(HASH, True)]),
    (f"This reverts commits {HASH[:12]} and\n{HASH[8:20]}.", [(HASH[:12], False), (HASH[8:20], False)]),
    (f"Revert commit {HASH}", [(HASH, False)]),
    ("This reverts to the old way", []),
    (f"This reverts {HASH[:12]}.", [(HASH[:12], False)]),
    (f"Back out commit {HASH[:12]}", [(HASH[:12], False)]),
    (f"Backed out {HASH[:12]}, it broke", [(HASH[:12], False)]),
    (f"Backed out changeset {HASH[:12]} (bug 1)", [(HASH[:12], False)]),
    (f"Reverts: {HASH[:12]} (\"foo\")", [(HASH[:12], False)]),
    (f"This reverts commit\n{HASH}.", [(HASH, False)]),
])
def test_forms_of_reverts(text: str, want: list[tuple[str, bool]]) -> None:
    assert msg.reverted(f"foo: Back\n\n{text}\n") == want


@pytest.mark.parametrize("subject, want", [
    (f'Revert "{TITLE}"', TITLE), (f'UBUNTU: SAUCE: Revert "{TITLE}"', TITLE),
    (f'[6.1] Revert "{TITLE}"', TITLE),
    (f'drv: a b: Revert "{TITLE}"', TITLE), (f'revert "{TITLE}"', TITLE), (f"Revert “{TITLE}”", TITLE),
    (f'Back out "{TITLE}"', TITLE), (f'Reapply "{TITLE}"', f'Revert "{TITLE}"'),
    (f'UBUNTU: reapply “{TITLE}”', f'Revert "{TITLE}"'),
    ("Revert to the old way", ""), ('foo: Do not revert "bar"', ""), ('foo: Add revert "bar"', ""),
])
def test_subjects_of_reverts(subject: str, want: str) -> None:
    assert msg.undone(subject) == want


class History:
    """Upstream commits on a line, and a branch that picks some."""

    def __init__(self, path: Path):
        self.up, self.local = Repo(path / "up"), Repo(path / "local")
        self.cache = path / "cache"
        self.n = 0
        self.tree = {"f": (FILE, b"0\n")}
        self.tip = self.up.commit(self.tree, message("start"), [])
        self.base = self.here = self.local.commit(self.tree, message("start"), [])
        self.local_tree = dict(self.tree)
        self.subjects: dict[str, str] = {}

    def add(self, subject: str, body: str = "") -> str:
        self.n += 1
        self.tree[f"d{self.n}"] = (FILE, b"%d\n" % self.n)
        self.tip = self.up.commit(self.tree, f"{subject}\n\n{body}\nSigned-off-by: {MIKE}\n", [self.tip])
        self.up.ref("heads/master", self.tip)
        self.subjects[self.tip] = subject
        return self.tip

    def fix(self, of: str, subject: str = "", digits: int = 12) -> str:
        return self.add(subject or f"fix {self.n}",
                        f'Fixes: {of[:digits]} ("{self.subjects.get(of, "x")}")\n')

    def revert(self, of: str) -> str:
        return self.add(f'Revert "{self.subjects[of]}"', f"This reverts commit {of}.\n")

    def pick(self, oid: str, line: str | None = None, extra: str = "", content: bytes = b"") -> str:
        self.n += 1
        self.local_tree[f"l{self.n}"] = (FILE, content or b"%d\n" % self.n)
        line = f"(cherry picked from commit {oid})\n" if line is None else line
        self.here = self.local.commit(self.local_tree,
                                      f"{self.subjects.get(oid, 'ours')}\n\n{line}{extra}Signed-off-by: "
                                      f"{BOB}\n", [self.here])
        self.local.ref("heads/master", self.here)
        return self.here

    def run(self, *args: str, env: dict[str, str] | None = None, form: str = "json") -> Result:
        return run("fixes", "-C", str(self.local.path), "--reference", str(self.up.path), *args,
                   f"{self.base}..{self.here}", form=form,
                   env={"XDG_CACHE_HOME": str(self.cache), **(env or {})})

    def missing(self, *args: str) -> set[str]:
        r = self.run(*args)
        assert r.data, r.err
        got = {x["fix"] for x in r.data["rows"] if x["missing"]}
        assert r.code == (1 if r.data["errors"] else 0) and bool(got) <= bool(r.data["errors"])
        return got

    def status(self, oid: str) -> str:
        statuses: dict[str, str] = {x["fix"]: x["status"] for x in self.run("--all").data["rows"]}
        return statuses.get(oid, "")


@pytest.fixture()
def h(tmp_path: Path) -> History:
    return History(tmp_path)


def test_a_fix_of_a_pick_and_only_that(h: History) -> None:
    a, b = h.add("foo: A"), h.add("foo: B")
    fa, fb = h.fix(a, digits=7), h.fix(b)
    h.pick(a)
    assert h.missing() == {fa}
    assert fb not in h.run("--all").out         # what is not picked needs no fix


def test_fixes_of_fixes(h: History) -> None:
    a = h.add("foo: A")
    f1 = h.fix(a)
    f2 = h.fix(f1)
    f3 = h.fix(f2, digits=40)
    h.pick(a)
    assert h.missing() == {f1, f2, f3}
    assert f"via {f1[:12]}" in h.status(f2)
    h.pick(f1)
    assert h.missing() == {f2, f3}


def test_reverts(h: History) -> None:
    a, b, c = h.add("foo: A"), h.add("foo: B"), h.add("foo: C")
    ra = h.revert(a)
    fb = h.fix(b)
    rfb = h.revert(fb)                          # the fix was no good: neither is needed
    rc = h.revert(c)
    h.revert(rc)                                # taken back: nor is this
    part = h.add("foo: Less", f"This partially reverts commit {b}.\n")
    for x in (a, b, c):
        h.pick(x)
    assert h.missing() == {ra, part}
    assert h.status(fb) == f"reverted upstream by {rfb[:12]}"
    h.pick(fb)
    assert h.missing() == {ra, part, rfb}       # now the branch has it, and lacks its revert


def test_present_under_another_hash(h: History) -> None:
    a = h.add("foo: A")
    fixes = [h.fix(a, f"foo: fix {n}") for n in range(6)]
    h.pick(a)
    h.pick(fixes[0], f"commit {fixes[0]} upstream.\n")
    h.pick(fixes[1], f"[ Upstream commit {fixes[1]} ]\n")
    h.pick(fixes[2], f"Git-commit: {fixes[2]}\n")
    h.pick(fixes[3], f"(backported from commit {fixes[3][:12]})\n")
    assert h.missing() == set(fixes[4:])
    # the same content, nothing said
    h.n += 1
    where = next(k for k in h.up.trees[fixes[4]] if k not in h.up.trees[fixes[3]])
    h.local_tree[where] = h.up.trees[fixes[4]][where]
    h.here = h.local.commit(h.local_tree, f"SAUCE: ours\n\nSigned-off-by: {BOB}\n", [h.here])
    assert h.missing() == {fixes[5]} and "equal patch-id" in h.status(fixes[4])


def test_present_below_the_range(h: History) -> None:
    a = h.add("foo: A")
    f = h.fix(a)
    h.pick(f, f"commit {f} upstream.\n")        # stable had the fix before the branch began
    h.base = h.here
    h.pick(a)
    assert h.missing() == set() and h.status(f).startswith("present as")


def test_squashed_and_noted(h: History) -> None:
    a = h.add("foo: A")
    f, g = h.fix(a), h.fix(a)
    h.pick(a, extra=f'[bob: squashed in {f[:12]} ("foo: fix")]\n')
    assert h.missing() == {g} and h.status(f).startswith("squashed into")


def test_notes_that_mention_a_fix(h: History) -> None:
    a = h.add("foo: A")
    f, g, k = h.fix(a), h.fix(a), h.fix(a)
    h.pick(a, extra=f"[bob: does not include {f[:12]}]\n[bob: conflicts with {g[:12]}]\n[bob: folded in "
                    f"{k[:12]}, no change otherwise]\n")
    assert h.missing() == {f, g}


def test_a_fix_that_the_branch_took_back(h: History) -> None:
    a = h.add("foo: A")
    f = h.fix(a)
    h.pick(a)
    undo = h.pick("", "", f"This reverts commit {h.pick(f)}.\n")
    assert h.missing() == {f}
    start, h.base = h.base, h.here
    h.pick(a)
    assert h.missing() == {f}               # also when that was below the range
    h.base = start
    h.pick("", "", f"This reverts commit {undo}.\n")
    assert h.missing() == set()


def test_nothing_to_look_at_is_not_clean(h: History, tmp_path: Path) -> None:
    a = h.add("foo: A")
    h.fix(a)
    h.pick(a)
    clone = tmp_path / "shallow"
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{h.up.path}", str(clone)], check=True)
    r = h.run("--reference", str(clone))
    assert r.code == 3 and "is shallow" in r.err
    h.base = h.here
    r = h.run()
    assert r.code == 1 and [x["kind"] for x in r.data["findings"]] == ["empty"]


def test_reverted_locally(h: History) -> None:
    a = h.add("foo: A")
    f = h.fix(a)
    mine = h.pick(a)
    undo = h.pick("", "", f"This reverts commit {mine}.\n")
    assert h.missing() == set()
    h.pick("", "", f"This reverts commit {undo}.\n")
    assert h.missing() == {f}


def test_prefix_collisions_are_told_apart_by_subject(h: History) -> None:
    tree = h.up.tree(h.tree)
    seen: dict[str, tuple[bytes, str]] = {}
    n = 0
    while True:
        subject = f"foo: Number {n}"
        raw = (f"tree {tree}\nparent {h.tip}\nauthor a <a@b> {n} +0000\n"
               f"committer a <a@b> 1700000100 +0000\n\n{subject}\n").encode()
        oid = hashlib.sha1(b"commit %d\0" % len(raw) + raw).hexdigest()
        if oid[:7] in seen:
            other, other_subject = seen[oid[:7]]
            break
        seen[oid[:7]] = raw, subject
        n += 1
    a, b = h.up.write("commit", raw), h.up.write("commit", other)
    h.subjects.update({a: subject, b: other_subject})
    h.tip = h.up.commit(h.tree, message("Merge both"), [a, b])
    fa, fb = h.fix(a, "mends a", 7), h.fix(b, "mends b", 7)
    plain = h.add("mends whatever", f"Fixes: {a[:7]}\n")
    h.pick(a)
    assert h.missing() == {fa, plain}           # without a subject, better told than lost
    h.base = h.here
    h.pick(b)
    assert h.missing() == {fb, plain}


def test_a_wrong_hash_with_the_right_subject(h: History) -> None:
    a, b = h.add("foo: A long enough subject"), h.add("foo: B")
    f = h.add("foo: mend", 'Fixes: dead00beef00 ("foo: A long enough subject")\n')
    h.add("foo: mend b", f'Fixes: {b[:12]} ("foo: A long enough subject")\n')       # that hash is B's
    h.pick(a)
    assert h.missing() == {f}


def test_ignore_list(h: History, tmp_path: Path) -> None:
    a = h.add("foo: A")
    f, g = h.fix(a), h.fix(a)
    child = h.fix(f)
    h.pick(a)
    path = tmp_path / "ignore"
    path.write_text(f"# comment\n\n{f[:12]} 2026-01-02 not built here\n")
    assert h.missing("--ignore", str(path)) == {g}
    assert "ignored 2026-01-02: not built here" in h.run("--ignore", str(path)).out and child
    path.write_text(f"{f[:12]} 2026-01-02 not built here\n{'ab' * 6} 2026-01-02 gone\n")
    r = h.run("--ignore", str(path))
    assert [x["kind"] for x in r.data["findings"] if x["level"] == "warning"] == ["stale-ignore"]
    h.pick(f)
    r = h.run("--ignore", str(path))
    # present now: not needed any more
    assert sum(x["kind"] == "stale-ignore" for x in r.data["findings"]) == 2
    for bad in (f"{f[:12]} not built here\n", f"{f[:12]} 2026-01-02\n", f"{f[:5]} 2026-01-02 x\n"):
        path.write_text(bad)
        assert h.run("--ignore", str(path)).code == 2
    assert h.run("--ignore", str(tmp_path / "none")).code == 2


def test_first_release_and_columns(h: History) -> None:
    a = h.add("foo: A")
    f = h.fix(a)
    h.up.ref("tags/v6.1", h.tip)
    h.add("more")
    h.up.ref("tags/v6.2", h.tip)
    g = h.fix(a)
    h.pick(a)
    r = h.run()
    assert {x["fix"]: x["release"] for x in r.data["rows"]} == {f: "v6.1", g: "not released"}
    h.up.ref("tags/v6.3", h.tip)
    # remembered, yet not stale
    assert {x["fix"]: x["release"] for x in h.run().data["rows"]} == {f: "v6.1", g: "v6.3"}
    lines = h.run(form="plain").out.splitlines()
    assert [c.strip() for c in lines[2].split(" | ")] == ["Picked commit", "Fix", "Subject", "First release",
                                                          "Status"]


def test_unresolved_picks_are_errors(h: History) -> None:
    h.add("foo: A")
    h.pick("f" * 40)
    r = h.run()
    assert r.code == 1 and [x["kind"] for x in r.data["findings"]] == ["unresolved"]
    h.pick("", "")
    assert "nameless" in [x["kind"] for x in h.run().data["findings"]]


# --- the cache ---------------------------------------------------------------------------------------

def files(h: History) -> list[Path]:
    return sorted((h.cache / "smmuv3-kdump" / "lint").glob("*.tsv"))


def reference_cache(h: History) -> Path:
    return next(f for f in files(h) if f.read_bytes().startswith(FORMAT.encode() + b"\tfixes"))


def test_cache_is_appended_to(h: History, tmp_path: Path) -> None:
    a = h.add("foo: A")
    f = h.fix(a)
    h.pick(a)
    assert h.missing() == {f}
    before = reference_cache(h).read_bytes()
    trap = fake_git(tmp_path / "bin", 'case "$*" in *"log --stdin -z"*) exit 9;; esac')
    assert h.run(env=trap).code == 1            # warm: the history is not read
    g = h.fix(a)
    assert h.run(env=trap).code == 3
    assert h.missing() == {f, g}
    after = reference_cache(h).read_bytes()
    assert after.startswith(before) and after.count(b"\n=\t") == 2
    assert h.missing() == {f, g}


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other version", "garbage", "half a record",
                                    "half an append", "two seals"])
def test_a_damaged_cache_is_rebuilt(h: History, damage: str) -> None:
    a = h.add("foo: A")
    f = h.fix(a)
    h.pick(a)
    assert h.missing() == {f}
    h.add("foo: more")
    g = h.fix(a)
    assert h.missing() == {f, g}
    path = reference_cache(h)
    data = path.read_bytes()
    path.write_bytes({
        "cut": data[:-5], "flipped": data.replace(b"foo: A", b"foo: B"), "empty": b"",
        "garbage": os.urandom(4000),
        "other version": data.replace(FORMAT.encode(), b"lint cache 1"),
        "half a record": data[:data.index(b"\nF\t") + 20],
        "half an append": data + b"F\tdead", "two seals": data + data[data.rindex(b"=\t"):]}[damage])
    assert h.missing() == {f, g}
    assert h.missing() == {f, g}


def test_rewritten_history_is_read_anew(h: History) -> None:
    a = h.add("foo: A")
    kept = h.tip
    tree = dict(h.tree)
    f = h.fix(a)
    h.pick(a)
    assert h.missing() == {f}
    h.tip, h.tree = kept, tree
    g = h.fix(a, "another fix")
    assert h.missing() == {g}


def test_other_branches_of_the_reference(h: History) -> None:
    """A copy of a fix (stable's, or a topic branch's) is not told apart from the fix itself."""
    a = h.add("foo: A")
    f = h.fix(a, "foo: mend")
    copy = h.add("foo: mend", f'commit {f} upstream.\n\nFixes: {a[:12]} ("foo: A")\n')
    h.pick(a)
    assert h.missing() == {f} and copy not in h.run("--all").out


def test_vanished_tips_do_not_cost_a_new_reading(h: History, tmp_path: Path) -> None:
    a = h.add("foo: A")
    f = h.fix(a)
    h.up.ref("remotes/next/master", h.add("foo: next", f"Fixes: {a[:12]}\n"))
    gone = h.tip
    h.up.ref("heads/master", f)
    h.pick(a)
    assert h.missing() == {f, gone}
    (h.up.dir / "refs/remotes/next/master").unlink()
    trap = fake_git(tmp_path / "bin", 'case "$*" in *"log --stdin -z"*) exit 9;; esac')
    r = h.run(env=trap)
    assert r.code == 1 and {x["fix"] for x in r.data["rows"]} == {f}


def test_cut_or_lying_log_never_ends_in_the_cache(h: History, tmp_path: Path) -> None:
    a = h.add("foo: A")
    f = h.fix(a)
    for n in range(20):
        h.add(f"more {n}")
    h.pick(a)
    for n, script in enumerate((
            'case "$*" in *"log --stdin -z"*) $REAL "$@" | head -c 1500; exit 0;; esac',
            'case "$*" in *"log --stdin -z"*) $REAL "$@" | head -c 1500; kill -9 $$;; esac',
            'case "$*" in *"log --stdin -z"*) exit 0;; esac',
            'case "$*" in *"log --stdin -z"*) exec sleep 60;; esac',
            'case "$*" in *"log --stdin -z"*) $REAL "$@" | tr "\\0" "\\1"; exit 0;; esac',
            'case "$*" in *"log --stdin -z"*) $REAL "$@" | LC_ALL=C sed -z 3d; exit 0;; esac',
            'case "$*" in *patch-id*) exit 1;; esac',
            'case "$*" in *name-rev*) exit 1;; esac; case "$*" in *for-each-ref*tags) echo x;; esac')):
        env = {**fake_git(tmp_path / f"bin{n}", script), "LINT_TIMEOUT": "2"}
        if "name-rev" in script:
            h.up.ref("tags/v1", h.tip)
        r = h.run(env=env)
        assert r.code == 3 and r.err.startswith("error: "), (script, r.out, r.err)
    assert h.missing() == {f}


def test_unwritable_cache(h: History) -> None:
    a = h.add("foo: A")
    h.pick(a)
    h.cache.mkdir()
    (h.cache / "smmuv3-kdump").write_text("in the way")
    r = h.run()
    assert r.code == 3 and "XDG_CACHE_HOME" in r.err


# --- said to be present, and not so ---------------------------------------------------------------------

def reverted(h: History, a: str, f: str) -> None:
    """The last commit has reverted the fix: it is missing, until it is picked again."""
    assert h.missing() == {f}
    start, h.base = h.base, h.here              # also when that was below the range
    h.pick(a)
    assert h.missing() == {f}
    h.base = start
    h.pick(f)
    assert h.missing() == set()                 # picked again


@pytest.mark.parametrize("pad", ["", "    "])
def test_a_revert_that_quotes_the_pick_line(h: History, pad: str) -> None:
    a = h.add("foo: A")
    f = h.fix(a)
    h.pick(a)
    mine = h.pick(f)
    h.subjects[""] = f'Revert "{h.subjects[f]}"'
    h.pick("", "", f"This reverts commit {mine}.\n\n{pad}(cherry picked from commit {f})\n")
    reverted(h, a, f)


def test_an_empty_commit_is_no_fix(h: History) -> None:
    a = h.add("foo: A")
    f = h.fix(a)
    h.here = h.local.commit(h.local_tree, f"fix\n\n(cherry picked from commit {f})\nSigned-off-by: {BOB}\n",
                            [h.here])
    below = h.here
    h.pick(a)
    assert h.missing() == {f}
    h.base = below
    assert h.missing() == {f}


@pytest.mark.parametrize("quoted", [
    "We do not take\n\ncommit {} upstream.\n\nas it breaks the first silicon.\n\n",
    "We do not take\n(cherry picked from commit {})\nas it breaks.\n\n",
    "Not taken:\n\n(cherry picked from commit {})\n\nas it breaks.\n\n",
    "We do not take, as it breaks,\n(cherry picked from commit {})\n\n"])
def test_a_message_that_only_quotes_a_fix(h: History, quoted: str) -> None:
    a = h.add("foo: A")
    f = h.fix(a)
    h.pick(a)
    h.pick("", quoted.format(f))
    assert h.missing() == {f}
    h.base = h.here
    h.pick(a)
    assert h.missing() == {f}


@pytest.mark.parametrize("said", ["is to be merged later: {}",
                                  "cannot be folded in {}", "drop the include that {} adds",
                                  "conflict with {}", "squash it into {} later", "will be included with {}",
                                  "never squashed {}", "needs to have merged {}", "may include {}",
                                  "doesn’t include {}", "squash {} was refused",
                                  "folding in {} is left for later",
                                  "{} is to be squashed later", "merge {} later", "fold {} in once it lands",
                                  "squashed in {} is broken, so left out", "contains {} but reverted",
                                  "squashed {}, undone since", "merges {}? no",
                                  "if squashed {} breaks the build",
                                  "once merged {} will apply", "avoid the merge {}", "hardly includes {}",
                                  "pre-merge {}", "to merge {} is for next week"])
def test_notes_that_do_not_squash(h: History, said: str) -> None:
    a = h.add("foo: A")
    f = h.fix(a)
    h.pick(a, extra=f"[bob: {said.format(f[:12])}]\n")
    assert h.missing() == {f}


@pytest.mark.parametrize("said", ["squashed in {}", "squash {}", "also includes the fix {}",
                                  'folded in commit {} ("x: y")',
                                  'squashed in 0123456789ab ("a: b") and {}',
                                  'squashed in 0123456789ab ("a: do not b"), {} ("Revert "x: y"")',
                                  "squashed {}, minus its hunk in foo.c", "includes {} partially",
                                  "adjusted context and squashed {}", "no foo_depth here; folded {} in",
                                  "squashed in {}, as the build breaks without it"])
def test_notes_that_squash(h: History, said: str) -> None:
    a = h.add("foo: A")
    f = h.fix(a)
    h.pick(a, extra=f"[bob: {said.format(f[:12])}]\n")
    assert h.missing() == set()


def test_white_space_that_means_something(h: History) -> None:
    a = h.add("foo: A")
    h.tree["p.py"] = (FILE, b"if a:\n    b()\nc()\n")
    h.local_tree["p.py"] = h.tree["p.py"]
    h.add("foo: Python")
    h.pick("")
    h.tree["p.py"] = (FILE, b"if a:\n    b()\n    d()\nc()\n")
    f = h.fix(a)
    h.pick(a)
    parent = h.up.git("rev-parse", f"{f}^").decode().strip()
    only = {k: v for k, v in h.tree.items() if k not in h.up.trees[parent]}
    h.local_tree.update({**only, "p.py": (FILE, b"if a:\n    b()\nd()\nc()\n")})
    h.here = h.local.commit(h.local_tree, f"SAUCE: ours\n\nSigned-off-by: {BOB}\n", [h.here])
    assert h.missing() == {f}


@pytest.mark.parametrize("named", ["the pick", "upstream's", "its subject", "upstream's subject"])
@pytest.mark.parametrize("line", [True, False])
def test_an_equal_patch_that_was_reverted(tmp_path: Path, line: bool, named: str) -> None:
    """Its patch-id is upstream's, and it is not there all the same; whether it says what it is or not."""
    up, here = Repo(tmp_path / "up"), Repo(tmp_path / "here")
    one, two, three = ({"a": (FILE, text)} for text in (b"a\n", b"a\nb\n", b"a\nc\n"))
    root = up.commit(one, message("drv: Start"), [])
    bad = up.commit(two, message("drv: Add b"), [root])
    fix = up.commit(three, message("drv: It is c", f'Fixes: {bad[:12]} ("drv: Add b")'), [bad])
    up.ref("heads/master", fix)
    base = here.commit(one, message("drv: Start"), [])
    tip = here.commit(two, message("drv: Add b") + f"(cherry picked from commit {bad})\n", [base])
    title = "drv: It is c" if line else "SAUCE: drv: Ours"
    text = message(title) + (f"(cherry picked from commit {fix})\n" if line else "")
    pick = here.commit(three, text, [tip])
    what = "drv: It is c" if named.startswith("upstream") else title
    why = {"the pick": f"This reverts commit {pick}.", "upstream's": f"This reverts commit {fix}."}
    back = here.commit(two, message(f'Revert "{what}"', why.get(named, "It broke."), signed=(BOB,)), [pick])
    again = here.commit(three, text, [back])
    for end, rows in ((pick, []), (back, ["missing"]), (again, [])):
        r = run("fixes", "-C", str(here.path), "--reference", str(up.path), f"{base}..{end}",
                env={"XDG_CACHE_HOME": str(tmp_path)})
        assert [row["status"] for row in r.data["rows"]] == rows, r.out


def test_a_fix_below_the_branch_that_it_reverted(tmp_path: Path) -> None:
    """The branch began at a release that has the fix itself."""
    repo = Repo(tmp_path / "repo")
    one, two, three = ({"a": (FILE, text)} for text in (b"a\n", b"a\nb\n", b"a\nc\n"))
    bad = repo.commit(two, message("drv: Add b"), [repo.commit(one, message("drv: Start"), [])])
    fix = repo.commit(three, message("drv: It is c", f'Fixes: {bad[:12]} ("drv: Add b")'), [bad])
    repo.ref("heads/master", fix)
    pick = repo.commit({**three, "b": (FILE, b"b\n")}, message("drv: Add b")
                       + f"(cherry picked from commit {bad})\n", [fix])
    back = repo.commit({**two, "b": (FILE, b"b\n")}, message('Revert "drv: It is c"', signed=(BOB,)), [pick])
    for end, rows in ((pick, []), (back, ["missing"])):
        r = run("fixes", "-C", str(repo.path), "--mainline", "master", f"{fix}..{end}",
                env={"XDG_CACHE_HOME": str(tmp_path)})
        assert [row["status"] for row in r.data["rows"]] == rows, r.out


@pytest.mark.parametrize("subject, body", [
    ('UBUNTU: SAUCE: Revert "foo: mend a"', "It broke."), ('foo: Revert "foo: mend a"', "It broke."),
    ('revert "foo: mend a"', "It broke."), ("Revert “foo: mend a”", "It broke."),
    ('Revert "foo: mend a"', f"This reverts commit {HASH}."),      # rebased since
    ("foo: Back out the fix", "Back out commit {}."), ("foo: Undo it", "Backed out {}"),
    ("foo: Undo it", "Reverts: {}"), ("foo: Undo it", "This reverts {}.")])
def test_forms_of_reverts_that_the_branch_has(h: History, subject: str, body: str) -> None:
    a = h.add("foo: A")
    f = h.fix(a, "foo: mend a")
    h.pick(a)
    h.subjects[""] = subject
    h.pick("", "", body.format(h.pick(f)) + "\n")
    reverted(h, a, f)


def test_a_revert_of_another_commit_of_the_same_subject(h: History) -> None:
    a = h.add("foo: A")
    f = h.fix(a, "foo: mend a")
    h.pick(a)
    h.subjects["ours"] = "foo: mend a"
    ours = h.pick("ours", "")
    h.pick(f)
    h.subjects[""] = 'Revert "foo: mend a"'
    h.pick("", "", f"This reverts commit {ours}.\n")
    assert h.missing() == set()


def test_a_revert_that_names_only_the_subject(h: History) -> None:
    a = h.add("foo: A")
    f = h.fix(a, "foo: mend a")
    h.pick(a)
    h.pick(f)
    h.subjects[""] = 'Revert "foo: something else"'
    h.pick("", "")
    assert h.missing() == set()
    h.subjects[""] = 'Revert "foo: mend a"'
    h.pick("", "")
    reverted(h, a, f)


def test_upstream_s_revert_that_names_only_the_subject(h: History) -> None:
    a = h.add("foo: A")
    h.add('Revert "foo: B"', "It broke.\n")     # of an earlier one
    b = h.add("foo: B")
    r = h.add('Revert "foo: A"', "It broke.\n")
    h.pick(a)
    h.pick(b)
    assert h.missing() == {r}


def merge(h: History, body: str, fix: str, kept: bool = True) -> None:
    """A side branch with a pick of a fix, or of nothing, merged; `kept`: with what it brings."""
    line = f"(cherry picked from commit {fix})\n" if fix else ""
    side = h.local.commit({**h.local_tree, "side": (FILE, b"1\n")},
                          f"SAUCE: side\n\n{line}Signed-off-by: {BOB}\n", [h.here])
    h.pick("", "")
    if kept:
        h.local_tree["side"] = (FILE, b"1\n")
    h.here = h.local.commit(h.local_tree, f"Merge branch 'side'\n\n{body}Signed-off-by: {BOB}\n",
                            [h.here, side])
    h.local.ref("heads/master", h.here)


def test_a_merge_is_no_pick(h: History) -> None:
    a = h.add("foo: A")
    f, g = h.fix(a), h.fix(a)
    h.pick(a)
    merge(h, f"(cherry picked from commit {f})\n", g)
    assert h.missing() == {f}                   # the side branch's own is there
    h.base = h.here
    h.pick(a)
    assert h.missing() == {f}


@pytest.mark.parametrize("kept", [True, False])
def test_what_a_merge_dropped_is_not_called_present(h: History, kept: bool) -> None:
    a = h.add("foo: A")
    f = h.fix(a)
    h.pick(a)
    merge(h, "", f, kept)
    errors = [x["kind"] for x in h.run().data["findings"] if x["level"] == "error"]
    assert errors == ([] if kept else ["merge"])


@pytest.mark.parametrize("tag", ["drv: add b", '("drv: add b")', '{6} ("drv: add b")', '{5} ("drv: add b")',
                                 "(drv: add b)", "drv: Add b", "drv: add b ({12})"])
def test_fixes_that_name_a_subject(h: History, tag: str) -> None:
    a, b = h.add("drv: add b"), h.add("drv: add c")
    f = h.add("drv: mend", f"Fixes: {re.sub('{(.*?)}', lambda m: a[:int(m[1])], tag)}\n")
    h.add("drv: mend c", f"Fixes: {b[:6]}\n")       # nothing decides
    h.pick(a)
    h.pick(b)
    assert h.missing() == {f}


def test_a_missing_blob_does_not_lose_the_report(h: History) -> None:
    a = h.add("foo: A")
    f = h.fix(a)
    h.pick(a)
    gone = h.up.git("rev-parse", f"{f}:d{h.n - 1}").decode().strip()
    (h.up.dir / "objects" / gone[:2] / gone[2:]).unlink()
    r = h.run()
    assert r.code == 3 and f in r.out and "fetch-failed" in [x["kind"] for x in r.data["findings"]], r.out
