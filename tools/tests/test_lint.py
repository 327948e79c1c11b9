# SPDX-License-Identifier: GPL-2.0-only
"""The tool from outside: git that misbehaves, output forms, exit codes, b4, random edits."""
from __future__ import annotations

import os
import pty
import random
import re
import resource
import select
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest

from tools.lint import diffing
from tools.lint import render as report
from tools.lint.__main__ import main

from .lintkit import BOB, FILE, TOOL, TOP, Repo, Tree, fake_git, message, put, run, sub
from .lintworld import C, World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("lint"))


def args(w: World, spec: str) -> tuple[str, ...]:
    return ("compare", "-C", str(w.local.path), "--reference", str(w.up.path), spec)


def test_objects_that_cannot_be_fetched(world: World, tmp_path: Path) -> None:
    """A reference that lost content: the rows say so, and the exit status is the environment's."""
    up = tmp_path / "up"
    shutil.copytree(world.up.path, up)
    b = world.branch()
    b.pick("docs")
    b.pick("getter")
    spec = b.range()
    gone = world.up.git("rev-parse", f"{world.ups['getter'].oid}:{C}").decode().strip()
    (up / ".git/objects" / gone[:2] / gone[2:]).unlink()
    r = run("compare", "-C", str(world.local.path), "--reference", str(up), spec)
    assert r.statuses() == ["match", "fetch failed"] and r.code == 3, r.out
    assert r.kinds() == ["fetch-failed"]


@pytest.mark.parametrize("evil", [False, True])
def test_a_merge_of_unrelated_histories(tmp_path: Path, evil: bool) -> None:
    r = Repo(tmp_path / "repo")
    base = r.commit({"a": (FILE, b"1\n")}, message("a: Start", signed=(BOB,)), [])
    other = r.commit({"b": (FILE, b"1\n")}, message("UBUNTU: SAUCE: b: Start", signed=(BOB,)), [])
    tip = r.commit({"a": (FILE, b"2\n" if evil else b"1\n"), "b": (FILE, b"1\n")},
                   message("Merge b", signed=(BOB,)), [base, other])
    r.ref("heads/master", tip)
    for verb in ("compare", "fixes"):
        got = run(verb, "-C", str(r.path), f"{base}..{tip}", env={"XDG_CACHE_HOME": str(tmp_path)})
        assert got.code == int(evil) and got.kinds() == ["merge"] * evil, got.out + got.err


@pytest.mark.parametrize("away", [False, True])
def test_a_merge_in_a_partial_clone(tmp_path: Path, away: bool) -> None:
    """What repeating it takes is fetched; where that fails the row says so, and the others are there."""
    r, home = Repo(tmp_path / "repo"), {"XDG_CACHE_HOME": str(tmp_path)}
    r.git("config", "uploadpack.allowFilter", "true")
    r.git("config", "uploadpack.allowAnySHA1InWant", "true")
    lines = [b"%d\n" % n for n in range(30)]
    one, two, both_ = ({"a": (FILE, b"".join(lines[n:m]))} for n, m in ((1, 30), (0, 29), (1, 29)))
    base = r.commit({"a": (FILE, b"".join(lines))}, message("a: Start", signed=(BOB,)), [])
    sides = [r.commit(tree, message(f"UBUNTU: SAUCE: a: {n}", signed=(BOB,)), [base])
             for n, tree in enumerate((one, two))]
    tip = r.commit(both_, message("Merge", signed=(BOB,)), sides)
    new = {"a": (FILE, b"all new\n")}      # a bare clone has the files of no commit below
    r.ref("heads/master", r.commit(new, message("UBUNTU: SAUCE: a: New", signed=(BOB,)), [tip]))
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--bare", "--filter=blob:none", f"file://{r.path}", str(clone)],
                   check=True)
    if away:
        r.path.rename(tmp_path / "moved")
    got = run("compare", "-C", str(clone), f"{sides[0]}..{tip}", env=home)
    assert got.statuses() == ["fetch failed" if away else "N/A"] * 2, got.out + got.err
    assert got.code == 3 * away
    got = run("fixes", "-C", str(clone), f"{sides[0]}..{tip}", env=home)
    assert got.kinds() == ["fetch-failed"] * away and got.code == 3 * away, got.out + got.err


# --- how it is called --------------------------------------------------------------------------------

def test_the_folder_alone(world: World, tmp_path: Path) -> None:
    """Copied out and run from the directory above it, with nothing else of the repository in reach."""
    shutil.copytree(TOP / "tools" / "lint", tmp_path / "lint", ignore=shutil.ignore_patterns("__pycache__"))
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    b = world.branch()
    b.pick("docs")
    spec = b.range()

    def alone(*words: str) -> str:
        p = subprocess.run([sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert p.returncode == 0, p.stdout + p.stderr
        return p.stdout
    assert "1 rows: 1 match; 0 errors" in alone("-m", "lint", *args(world, spec))
    assert "1 upstream commits carried" in alone("-m", "lint", "fixes", *args(world, spec)[1:])
    assert "usage: " in alone("-m", "lint.speed", "--help")
    names = sorted(f.stem for f in (tmp_path / "lint").glob("*.py"))
    every = (f"import importlib, sys\nfor name in {names}:\n    importlib.import_module('lint.' + name)\n"
             "print(*(getattr(m, '__file__', None) or '' for m in list(sys.modules.values())))")
    files = alone("-c", every).split()
    assert sum(f.startswith(str(tmp_path / "lint")) for f in files) > len(names)
    assert not [f for f in files if f.startswith(f"{TOP}/")]


def test_modules_of_the_directory_are_not_loaded(world: World, tmp_path: Path) -> None:
    """With -P a branch's own json.py stays out."""
    b = world.branch()
    b.pick("docs")
    spec = b.range()
    (tmp_path / "json.py").write_text("raise SystemExit('loaded')\n")
    assert run(*args(world, spec), cwd=tmp_path).code == 0


def test_main_in_the_same_process(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    b = world.branch()
    b.pick("const", sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t2000\n"))
    assert main([*args(world, b.range()), "--format", "tsv"]) == 1 and "MISMATCH" in capsys.readouterr().out
    assert main(["compare"]) == 2 and "usage: " in capsys.readouterr().err
    assert main(["--help"]) == 0


# --- usage and forms --------------------------------------------------------------------------------

def test_usage(world: World, tmp_path: Path) -> None:
    b = world.branch()
    b.pick("const")
    spec = b.range()
    here = ("-C", str(world.local.path))
    for argv, say in (((*here, "nothing"), "neither a range"), ((*here, "a..b"), "has no commit"),
                      (("-C", "/nowhere", spec), "no such directory"),
                      ((*here, "--series", str(tmp_path), spec), "holds no patches"),
                      ((*here, "--mainline", "nope", spec), "has no commit")):
        r = run("compare", *argv)
        assert r.code in (2, 3) and say in r.err and r.err.count("\n") == 1, (argv, r.err)
    assert run("compare", "-C", str(tmp_path), "a..b").code == 3          # no repository
    assert run("compare", *here, "--format", "no", spec, form="").code == 2
    empty = run("compare", *here, f"{b.parents[0]}..{b.parents[0]}")
    assert empty.code == 1 and empty.kinds() == ["empty"]
    r = run("compare", *here, "-o", str(tmp_path / "no" / "x"), spec)
    assert r.code == 3 and r.err.startswith("error: ")


def test_alone_in_one_repository(tmp_path: Path) -> None:
    """Upstream and the branch in one repository, no LINUX_GIT, run from within it."""
    r = Repo(tmp_path)
    root = r.commit({"a": (FILE, b"1\n2\n3\n")}, message("a: Start"), [])
    up = r.commit({"a": (FILE, b"1\n2\n3\n4\n")}, message("a: Four"), [root])
    local = r.commit({"a": (FILE, b"1\n2\n3\n4\n")}, message("a: Four")
                     + f"(cherry picked from commit {up})\nSigned-off-by: {BOB}\n", [root], step=99)
    own = r.commit({"a": (FILE, b"1\n2\n3\n4\n5\n")}, message("a: Five")
                   + f"(cherry picked from commit {local})\nSigned-off-by: {BOB}\n", [local])
    r.ref("heads/upstream", up)
    r.ref("heads/master", own)
    got = run("compare", f"{root}..{local}", cwd=tmp_path)
    assert (got.statuses(), got.code) == (["match"], 0)
    got = run("compare", f"{root}..{own}", cwd=tmp_path)
    assert got.statuses() == ["match", "unresolved"] and "this very branch" in got.out


@pytest.fixture(scope="module")
def mixed(world: World) -> str:
    b = world.branch()
    b.pick("docs")
    b.pick("const", sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t2000\n"))
    u = world.ups["quirk"]
    b.commit("SAUCE: foo: \x1b[31mRed | `x` <b>&\n\nNo.\n\nSigned-off-by: Ren\u00e9 \u6f22\u5b57 "
             "<r@x.example>\n", put("x", "y"))
    b.commit(u.message.replace("quirk", "Quirk")
             + f"(cherry picked from commit {u.oid})\nSigned-off-by: {BOB}\n", u.edit)
    return b.range()


def test_formats(world: World, mixed: str, tmp_path: Path) -> None:
    base = args(world, mixed)
    plain = run(*base, form="plain")
    assert plain.code == 1 and "\x1b" not in plain.out
    lines = plain.out.splitlines()
    assert [c.strip() for c in lines[2].split(" | ")] == ["Local", "Referenced upstream / Patch subject",
                                                          "Patch-ID", "Subject", "SoB chain"]
    assert sum(x.startswith("error: ") for x in lines) == 1 and sum(x.startswith("warning: ")
                                                                    for x in lines) == 1
    data = run(*base).data
    assert [x["patch_id"] for x in data["rows"]] == ["match", "MISMATCH", "N/A", "match"]
    assert data["errors"] == 1 and data["warnings"] == 1
    md = run(*base, form="markdown").out
    assert md.count("\n| ") == 6 and "\x1b" not in md
    assert all(x in md for x in ("❌ MISMATCH", "\\|", "&lt;b&gt;"))
    root = xml.etree.ElementTree.fromstring(run(*base, form="junit").out)
    suite = root[0]
    assert (suite.get("tests"), suite.get("failures")) == ("4", "1") and len(root.findall(".//failure")) == 1
    tsv = run(*base, form="tsv")
    assert [len(x.split("\t")) for x in tsv.out.splitlines()] == [5] * 5 and "error: " in tsv.err
    out = tmp_path / "o.md"
    assert run(*base, "-o", str(out), form="markdown").code == 1 and out.read_text() == md
    assert "\x1b[1;31mMISMATCH" in run(*base, "--color", "always", form="table").out


@pytest.fixture(scope="module")
def told(world: World) -> str:
    """A MISMATCH, a noted row and one whose context differs."""
    b = world.branch()
    b.pick("const", sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t2000\n"))
    b.pick("docs", sub("Documentation/foo.rst", "It has errors.\n", "It counts errors.\n"),
           note="bob: shorter here")
    b.pick("context")
    return b.range()


@pytest.mark.parametrize("form", ["table", "plain", "markdown", "junit", "json"])
def test_notes_reasons_and_differences_show(world: World, told: str, form: str) -> None:
    out = run(*args(world, told), form=form).out.replace("\\", "")
    assert "shorter here" in out and "context: drivers/foo/foo.c" in out, out
    assert "-+#define FOO_TIMEOUT_US" in out and "++#define FOO_TIMEOUT_US" in out, out


def test_the_older_bot_s_form(world: World, told: str) -> None:
    r = run(*args(world, told), form="box")
    lines = r.out.splitlines()
    assert r.code == 1 and lines[0] == lines[2] and set(lines[0]) == {"+", "-"}
    assert len({len(x) for x in lines if x[0] in "+|"}) == 1
    assert re.fullmatch(r'E: [0-9a-f]{12} \("foo: Wait longer"\): diff MISMATCH with lore patch '
                        r'\(add \[Author: reason\] annotation if intentional\)', lines[-1]), lines[-1]


@pytest.mark.parametrize("rows, bad, notes", [
    (600, 0, 0), (600, 20, 0), (600, 600, 0), (400, 3, 40), (400, 3, 900)])
def test_markdown_fits_a_forge_s_comment(rows: int, bad: int, notes: int) -> None:
    """Two of them, and what is left out is counted: first rows without a finding, last errors."""
    r = report.Report("Patch lint", ("Local", "Upstream", "Patch-ID"), summary=f"{rows} rows")
    for n in range(rows):
        r.keys.append(f"{n:012x} foo: {'x' * 60}")
        r.rows.append([report.Cell(f"{n:012x}"), report.Cell("x" * 90), report.Cell("match")])
        if n < bad:
            r.findings.append(report.Finding("error", "MISMATCH", r.keys[-1], "y" * 200, "restore it"))
            r.diffs[r.keys[-1]] = ["+" + "z" * 80] * 60
    r.notes = [report.Finding("note", "note", r.keys[n % rows], "w" * 90, "") for n in range(notes)]
    text = report.as_markdown(r)
    lines = text.splitlines()
    counts = {"rows": sum(x.startswith("| 0") for x in lines), "findings": text.count("- **error**"),
              "notes": text.count("- **note**"), "diffs": text.count("<details>")}
    whole = {"rows": rows, "findings": bad, "notes": notes, "diffs": bad}
    assert 24000 < len(text.encode()) < 32768 and lines[-1] == f"{rows} rows"
    assert [x for x in lines if "Left out" in x] == ["*Left out for length: " + ", ".join(
        f"{whole[k] - n} {k}" for k, n in counts.items() if n < whole[k]) + ".*"]
    assert bad == rows or (counts["findings"] == bad and all(f"| {n:012x} " in text for n in range(bad)))
    assert not counts["rows"] > bad or counts["notes"] == notes


def test_renames_of_a_whole_library_are_quick(tmp_path: Path) -> None:
    """Adds times deletes would take minutes."""
    r = Repo(tmp_path)

    def files(where: str, extra: str = "", edited: str = "") -> Tree:
        return {f"{where}/f{n}.c": (FILE,
                                    "".join(f"{extra}line {n} {k}{edited}\n" for k in range(60)).encode())
                for n in range(150)}
    old, down = files("lib"), {k: (m, d + b"own\n") for k, (m, d) in files("lib").items()}
    root, base = r.commit(old, message("Start"), []), r.commit(down, message("Own"), [])
    up = r.commit({k: (m, d.replace(b" 30\n", b" 31\n")) for k, (m, d) in files("src").items()},
                  message("lib: Move"), [root])
    tip = r.commit({k: (m, d.replace(b" 30\n", b" 31\n") + b"own\n") for k, (m, d) in files("src").items()},
                   message("lib: Move") + f"(cherry picked from commit {up})\nSigned-off-by: {BOB}\n", [base])
    r.ref("heads/up", up)
    r.ref("heads/master", tip)
    start = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    got = run("compare", "-C", str(tmp_path), f"{base}..{tip}")
    assert got.statuses() == ["context"], got.out
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - start < 8


def test_an_old_git_is_named(world: World, tmp_path: Path) -> None:
    b = world.branch()
    b.pick("docs")
    env = fake_git(tmp_path / "bin", 'case "$*" in *version*) echo git version 2.30.2; exit 0;; esac')
    r = run(*args(world, b.range()), env=env)
    assert r.code == 3 and "git 2.30 is too old" in r.err and "2.39" in r.err


def test_a_stash_and_notes_are_not_merged(tmp_path: Path) -> None:
    r = Repo(tmp_path)
    root = r.commit({"a": (FILE, b"1\n")}, message("a: Start"), [])
    up = r.commit({"a": (FILE, b"1\n2\n")}, message("a: Two"), [root])
    tip = r.commit({"a": (FILE, b"1\n2\n")}, message("a: Two") + f"(cherry picked from commit {up})\n"
                   f"Signed-off-by: {BOB}\n", [root], step=99)
    r.ref("heads/master", tip)
    for name in ("stash", "notes/commits"):
        r.ref(name, up)
    got = run("compare", f"{root}..{tip}", cwd=tmp_path)
    assert got.statuses() == ["unresolved"] and "never merged" in got.out


@pytest.mark.parametrize("ref", ["heads/master", "remotes/origin/main", "tags/v1-ours"])
def test_a_commit_of_the_range_is_no_origin(tmp_path: Path, ref: str) -> None:
    """Whatever of the reference reaches it."""
    up, here = Repo(tmp_path / "up"), Repo(tmp_path / "here")
    one, two = ({"a": (FILE, text)} for text in (b"a\n", b"b\n"))
    base = here.commit(one, message("Start"), [])
    own = here.commit(two, message("UBUNTU: SAUCE: a: Ours"), [base])
    back = here.commit(one, message('Revert "UBUNTU: SAUCE: a: Ours"', f"This reverts commit {own}."), [own])
    tip = here.commit(two, message("UBUNTU: SAUCE: a: Ours") + f"(cherry picked from commit {own})\n"
                      f"Signed-off-by: {BOB}\n", [back])
    here.ref("heads/work", tip)
    up.ref("heads/master", up.commit(one, message("Start"), []))
    up.git("fetch", "-q", str(here.path), "work")
    up.ref(ref, tip)
    r = run("compare", "-C", str(here.path), "--reference", str(up.path), f"{base}..{tip}")
    assert r.statuses() == ["N/A", "N/A", "unresolved"] and "this very branch" in r.out and r.code == 1, r.out


def test_the_documented_hook(world: World, tmp_path: Path) -> None:
    """HEAD pushed to a backport's name is checked; a first push says how to go on."""
    text = (TOP / "Documentation/lint-reference.rst").read_text()
    body = text[text.index("    #!/bin/sh\n"):].split("\n\n", 1)[0]
    hook = tmp_path / "hook"
    hook.write_text(re.sub(r"(?m)^    ", "", body).replace("-m lint", "-m tools.lint").replace(
        "$HOME/bin", str(TOP)).replace("$HOME/linux", str(world.up.path)) + "\n")
    b = world.branch()
    b.pick("const", sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t2000\n"))
    new = b.range().split("..")[1]

    def push(old: str, **env: str) -> tuple[int, str]:
        line = f"HEAD {new} refs/heads/backport-foo {old}\n"
        p = subprocess.run(["sh", str(hook)], input=line, cwd=world.local.path, capture_output=True,
                           text=True,
                           env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", **env})
        return p.returncode, p.stdout + p.stderr
    assert push(b.base)[0] == 1 and "MISMATCH" in push(b.base)[1]
    code, said = push("0" * 40)
    assert code == 1 and "BASE=" in said
    assert "MISMATCH" in push("0" * 40, BASE=b.base)[1]


def documented_job(forge: str) -> dict[str, Any]:
    """The job of that name in the document, as the forge reads it."""
    text = (TOP / "Documentation/lint-reference.rst").read_text()
    block = re.search(rf"(?m)^    # {re.escape(forge)}.*\n((?:    .*\n|\n)+)", text)
    assert block
    import yaml
    # As text: plain YAML takes `on` for a truth.
    return dict(yaml.load(re.sub(r"(?m)^    ", "", block[1]), Loader=yaml.BaseLoader))


def github(values: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """The environment and the commands of the documented job."""
    job = documented_job(".github")
    assert "pull_request_target" in job["on"], "the branch's own author could edit the job"
    steps = job["jobs"]["lint"]

    def filled(text: str) -> str:
        return re.sub(r"\$\{\{ (.*?) \}\}", lambda m: values[m[1]], text)
    return ({name: filled(value) for name, value in steps["env"].items()},
            [filled(step["run"]) for step in steps["steps"] if "run" in step])


def gitlab(values: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    job = documented_job("lint.yml")["patch lint"]
    commands = "\n".join([*job["before_script"], *job["script"]])
    return {name: value.replace("$CI_PROJECT_DIR", values["dir"])
            for name, value in job["variables"].items()}, [commands]


@pytest.mark.parametrize("forge", ["github", "gitlab"])
@pytest.mark.parametrize("good", [True, False])
def test_the_documented_jobs(tmp_path: Path, forge: str, good: bool) -> None:
    """Each command of a job, as the forge would run it; whoever edits the tool does not edit the judge."""
    up, branch = Repo(tmp_path / "up"), Repo(tmp_path / "branch")
    tree: Tree = {f"tools/lint/{f.name}": (FILE, f.read_bytes()) for f in (TOP / "tools/lint").glob("*.py")}
    tree["a.c"] = (FILE, b"int a;\n")
    root = up.commit(tree, message("Start"), [])
    new = {**tree, "a.c": (FILE, b"int a;\nint b;\n")}
    pick = up.commit(new, message("a: Add b"), [root])
    up.ref("heads/master", pick)
    up.git("tag", "v1", pick)
    base = branch.commit(tree, message("Start"), [])
    new = {**new, **({} if good else {"a.c": (FILE, b"int a;\nint c;\n")}),
           "tools/lint/__main__.py": (FILE, b"print('all is well')\n")}
    edited = branch.commit({**tree, "tools/lint/__main__.py": new["tools/lint/__main__.py"]},
                           message("UBUNTU: SAUCE: lint: Improve", signed=(BOB,)), [base])
    head = branch.commit(new, message("a: Add b") + f"(cherry picked from commit {pick})\n"
                         f"Signed-off-by: {BOB}\n", [edited])
    branch.ref("heads/master", head)
    branch.git("reset", "-q", "--hard", "master")
    where = tmp_path if forge == "github" else branch.path
    values = {"dir": str(where), "github.workspace": str(where), "github.token": "t", "github.run_id": "1",
              "github.event.pull_request.base.sha": base, "github.event.pull_request.head.sha": head,
              "github.event.number": "7", "github.repository": "o/r"}
    env, commands = (github if forge == "github" else gitlab)(values)
    for name, script in {"gh": 'echo "gh $*"', "curl": 'echo "curl $*"', "apt-get": ""}.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "opt").mkdir()
    env = {name: value.replace("/opt", str(tmp_path / "opt")) for name, value in env.items()}
    env = {**os.environ, **env, "UPSTREAM": str(up.path), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
           "GIT_CONFIG_GLOBAL": "/dev/null", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
           "XDG_CACHE_HOME": str(tmp_path), "CI_MERGE_REQUEST_DIFF_BASE_SHA": base, "CI_COMMIT_SHA": head,
           "CI_API_V4_URL": "https://api", "CI_PROJECT_ID": "3", "CI_MERGE_REQUEST_IID": "7",
           "LINT_TOKEN": "t"}
    codes, said = [], ""
    for command in commands:
        p = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", command.replace("/opt", f"{tmp_path}/opt")],
                           cwd=where, env=env, capture_output=True, text=True)
        codes.append(p.returncode)
        said += p.stdout + p.stderr
    assert sorted(codes)[-1] == (0 if good else 1) and sum(codes) == (0 if good else 1), said
    digest = (where / ("comment.md" if forge == "github" else "lint.md")).read_text()
    assert "a: Add b" in digest and ("MISMATCH" in digest) == (not good), digest
    told = {"github": "gh pr comment 7 --repo o/r", "gitlab": "body@lint.md https://api/projects/3/"}
    assert told[forge] in said


@pytest.mark.parametrize("columns", [200, 100, 72, 40])
def test_a_terminal_gets_colours_and_a_table_that_fits(world: World, mixed: str, columns: int) -> None:
    main, child = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "LINUX_GIT")}
    env.update(COLUMNS=str(columns), TERM="xterm", PYTHONPATH=str(TOP))
    p = subprocess.Popen([*TOOL, *args(world, mixed)], stdout=child, stderr=subprocess.DEVNULL, env=env)
    os.close(child)
    raw = b""
    while select.select([main], [], [], 60)[0]:
        try:
            more = os.read(main, 65536)
        except OSError:
            break
        if not more:
            break
        raw += more
    assert p.wait() == 1
    text = raw.decode().replace("\r\n", "\n")
    assert "\x1b[1;31m" in text and "\x1b[31mRed" not in text
    table = [x for x in re.sub(r"\x1b\[[0-9;]*m", "", text).split("\n") if " | " in x or "-+-" in x]
    assert len(table) == 6 and max(map(len, table)) <= columns, table


# --- b4 ------------------------------------------------------------------------------------------

def test_check_speaks_b4(world: World, tmp_path: Path) -> None:
    """A mail on the standard input; ERROR and WARNING lines; silence and 0 is success."""
    b = world.branch()
    good, bad = b.pick("docs"), b.pick("const", sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t2000\n"))
    b.range()
    env = {"LINUX_GIT": str(world.up.path)}

    def check(oid: str) -> tuple[int, str, str]:
        r = run("check", cwd=world.local.path, env=env,
                stdin=world.local.git("format-patch", "--stdout", "-1", oid))
        return r.code, r.out, r.err
    assert check(good) == (0, "", "")
    code, out, err = check(bad)
    assert code == 1 and out.startswith("ERROR: ") and out.count("\n") == 1 and not err
    r = run("check", cwd=world.local.path, env={"LINUX_GIT": "/nowhere"},
            stdin=world.local.git("format-patch", "--stdout", "-1", good))
    assert r.code == 2 and r.out.startswith("ERROR: ")
    assert run("check", cwd=world.local.path, env=env, stdin=b"").out.startswith("ERROR: ")


# How the tests reach the archive: run at the checkout's top, prints where each package was unpacked.
FETCH = """
from tools import common
from tools.queue import archive
def fetch():
    for name, suite in {wanted!r}:
        print(archive.unpack(archive.fetch(name, suites=[suite])))
common.main(fetch)
"""
# Packages that are not called python3-MODULE; requests takes chardet where it is there.
PACKAGES = {"charset_normalizer": "python3-chardet", "dns": "python3-dnspython", "nacl": "python3-nacl"}


def unpacked(*wanted: tuple[str, str]) -> list[str]:
    """The directories of packages (name, suite) of the archive; without an archive the test is skipped."""
    done = subprocess.run([sys.executable, "-c", FETCH.format(wanted=wanted)], cwd=TOP, capture_output=True,
                          text=True)
    if done.returncode and "cannot be reached" in done.stderr:
        pytest.skip(f"no {wanted[0][0]}: {done.stderr.strip().splitlines()[-2]}")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def b4() -> tuple[list[str], dict[str, str]]:
    """A b4 with `prep --check`, which older releases lack: from the archive, with what it imports."""
    tops = unpacked(("b4", "trixie"), ("git-filter-repo", "own"))       # `b4 prep` runs git filter-repo
    while True:
        env = {"PYTHONPATH": ":".join(f"{top}/usr/lib/python3/dist-packages" for top in tops),
               "PATH": ":".join([*(f"{top}/usr/bin" for top in tops), os.environ["PATH"]])}
        done = subprocess.run([sys.executable, "-c", "import b4.command, b4.ez"], env={**os.environ, **env},
                              cwd=TOP,
                              capture_output=True, text=True)
        if done.returncode == 0:
            return [sys.executable, "-m", "b4.command"], env
        lacks = re.search(r"No module named '(\w+)", done.stderr)
        assert lacks, done.stderr
        found = unpacked((PACKAGES.get(lacks[1], f"python3-{lacks[1]}"), "own"))
        assert found[0] not in tops, f"{found[0]} does not have {lacks[1]}"
        tops += found


def test_b4_itself(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool, env = b4()
    work = tmp_path / "w"
    subprocess.run(["git", "clone", "-q", str(world.local.path), str(work)], check=True)
    env = {**os.environ, **env, "LINUX_GIT": str(world.up.path), "HOME": str(tmp_path),
           "XDG_CONFIG_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path),
           "XDG_DATA_HOME": str(tmp_path)}

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(work), *words], check=True, capture_output=True, text=True,
                              env=env).stdout.strip()
    for k, v in (("user.name", "Bob"), ("user.email", "bob@distro.example"),
                 ("b4.prep-perpatch-check-cmd", f"env PYTHONPATH={TOP} {shlex.join(TOOL)} check")):
        git("config", k, v)
    b = world.branch()
    good, bad = b.pick("docs"), b.pick("const", sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t2000\n"))
    b.range()
    git("fetch", "-q", str(world.local.path), "work")
    git("checkout", "-q", b.base)
    git("checkout", "-q", "-b", "start")
    p = subprocess.run([*tool, "prep", "-n", "backport", "-f", "start"], cwd=work, env=env,
                       capture_output=True, text=True)
    assert p.returncode == 0, p.stdout + p.stderr
    git("cherry-pick", good, bad)
    p = subprocess.run([*tool, "prep", "--check", "--no-cache"], cwd=work, env=env, capture_output=True,
                       text=True)
    said = p.stdout + p.stderr
    with capsys.disabled():
        print("\n" + said)
    assert "Success: 1, Warning: 0, Error: 1" in said and "2000" in said


# --- the diff underneath ---------------------------------------------------------------------------

def test_edits_turn_one_text_into_the_other() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        a, b = ([b"%d" % rng.randrange(4) for _ in range(rng.randrange(14))] for _ in range(2))
        pairs = diffing.common(a, b)
        best = [0] * (len(b) + 1)
        for x in a:                         # the length of a longest common subsequence, by the book
            row = [0]
            for j, y in enumerate(b):
                row.append(best[j] + 1 if x == y else max(best[j + 1], row[j]))
            best = row
        assert len(pairs) == best[-1] and all(a[i] == b[j] for i, j in pairs)
        for cut in (diffing.edits(a, b), diffing.slide(a, diffing.edits(a, b), True),
                    diffing.slide(a, diffing.edits(a, b), False)):
            out, at = [], 0
            for e in cut:
                out += [*a[at:e.start], *e.new]
                at = e.end
            assert out + a[at:] == b


# --- random edits, the truth known by construction ---------------------------------------------------

def random_source(rng: random.Random, functions: int) -> list[list[str]]:
    """Functions as lists of lines; many are alike."""
    kinds = [["\tret = prep(d);", "\tif (ret)", "\t\treturn ret;", "", "\td->state = A;", "\td->count++;", "",
              "\tlog(d);"],
             ["\tspin_lock(&d->lock);", "\tx = get(d);", "\tspin_unlock(&d->lock);", "", "\tif (!x)",
              "\t\treturn -1;", "", "\tput(d);"]]
    return [[f"static int fn_{n}(struct dev *d)", "{", "\tint ret;", "", *rng.choice(kinds), "",
             "\treturn 0;", "}", ""] for n in range(functions)]


def render(functions: list[list[str]]) -> bytes:
    return ("/* a file */\n\n" + "\n".join("\n".join(f) for f in functions) + "\n").encode()


Code = list[list[str]]
Place = tuple[int, int, str, list[str]]         # function, line, kind of edit, new lines


def diverge(rng: random.Random, side: Code, places: list[int]) -> None:
    """Changes of a side's own, away from the places that are edited."""
    for n in range(len(side)):
        if n in places or rng.random() < .6:
            continue
        at = rng.randrange(4, len(side[n]) - 3)
        side[n].insert(at, f"\tother_{rng.randrange(1000)}(d);")
    extra = [[f"static int own_{rng.randrange(10 ** 6)}(struct dev *d)", "{", "\treturn 0;", "}", ""]
             for _ in range(rng.randint(0, 3))]
    side.insert(0, sum(extra, []) or ["", ""])


def spoil(rng: random.Random, defect: str, edit: Place, places: list[int], local0: Code, local1: Code) -> str:
    """Put a defect into the backport; the one that it is, as not every edit can have each."""
    n, at, kind, new = edit
    if defect == "lost":
        local1[n] = list(local0[n])
    elif defect == "extra":
        local1[n].insert(at, "\tbackdoor(d);")
    elif defect == "changed":
        local1[n][at:at] = ["\tif (odd)"]
    elif defect == "white":
        if kind == "delete":
            local1[n].insert(at, "")
        else:
            local1[n][at] = local1[n][at].replace("\t", "        ")
    elif defect in ("moved", "sibling"):
        same = [m for m in range(1, len(local0)) if m - 1 not in places and local0[m][2:] == local0[n][2:]]
        if defect == "sibling" and same:
            m = rng.choice(same)
            local1[n], local1[m] = list(local0[n]), [local0[m][0], *local1[n][1:]]
        elif kind == "insert" and at + 2 < len(local0[n]) and local0[n][at] != new[0]:
            local1[n] = list(local0[n])
            local1[n][at + 1:at + 1] = new
        else:
            defect = "none"
    return defect


SEED = int(os.environ.get("LINT_SEED", "20260"))


@pytest.mark.parametrize("seed", range(SEED, SEED + 40))
def test_random_edits(tmp_path: Path, seed: int) -> None:
    """The seed is in the test's name; LINT_SEED starts elsewhere."""
    rng = random.Random(seed)
    r = Repo(tmp_path)
    start = random_source(rng, rng.randint(6, 30))
    r_root = r.commit({"a.c": (FILE, render(start))}, message("a: Start"), [])
    up0 = [list(f) for f in start]
    local0 = [list(f) for f in start]
    places = rng.sample(range(len(start)), 3)       # nobody else touches the functions that are edited
    diverge(rng, up0, places)                       # each side has gone its own way
    diverge(rng, local0, places)
    edits: list[Place] = []
    for n in places:
        # blank lines would be white space
        at = rng.choice([k for k in range(4, len(start[n]) - 4) if start[n][k]])
        kind = rng.choice(("insert", "delete", "replace"))
        edits.append((n + 1, at, kind,
                      [f"\tnew_{rng.randrange(10 ** 6)}(d);" for _ in range(rng.randint(1, 4))]))

    def apply(side: list[list[str]]) -> list[list[str]]:
        out = [list(f) for f in side]
        for n, at, kind, new in edits:
            out[n][at:at + (kind != "insert")] = [] if kind == "delete" else new
        return out
    up1, local1 = apply(up0), apply(local0)
    defect = rng.choice(("none", "none", "none", "lost", "extra", "changed", "white", "moved", "sibling"))
    defect = spoil(rng, defect, edits[0], places, local0, local1)
    up_parent = r.commit({"a.c": (FILE, render(up0))}, message("a: Up"), [r_root])
    up = r.commit({"a.c": (FILE, render(up1))}, message("a: Change"), [up_parent])
    base = r.commit({"a.c": (FILE, render(local0))}, message("a: Down"), [r_root])
    tip = r.commit({"a.c": (FILE, render(local1))},
                   message("a: Change") + f"(cherry picked from commit {up})\nSigned-off-by: {BOB}\n", [base])
    r.ref("heads/up", up)
    r.ref("heads/master", tip)
    got = run("compare", "-C", str(tmp_path), f"{base}..{tip}")
    want = {"none": ("match", "context"), "white": ("whitespace",)}.get(defect, ("MISMATCH",))
    assert got.statuses()[0] in want and got.code == (defect != "none"), (defect, edits, got.out)
    ids = [subprocess.run(["sh", "-c", f"git show {o} | git patch-id --stable"], cwd=tmp_path,
                          capture_output=True, text=True).stdout.split()[0]
           for o in (up, tip)]
    if got.statuses() == ["match"]:
        assert ids[0] == ids[1], "match, but git patch-id does not think so"
    elif got.statuses() == ["context"]:
        assert ids[0] != ids[1], "context, but git patch-id sees none"
