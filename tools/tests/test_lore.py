# SPDX-License-Identifier: GPL-2.0-only
"""make lore, black box: b4 of the archive, a small fake kernel with small fake scripts."""

from __future__ import annotations

import email.policy
import os
import re
import subprocess
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path

import pytest

from .conftest import (A_C, COVER, PYTHON, Project, as_prereq, clean_env, errors, git, identify, latest,
                       snapshot)
from .test_lint import unpacked
from .test_tree import as_repository

MAINTAINER = """\
print grep(/--nol$/, @ARGV) ? "A Maintainer <am\\@kernel.org>\\n" : "iommu\\@lists.linux.dev\\n";
"""
CHECKPATCH = """\
while (<STDIN>) {
\tprint "a.c:1: ERROR: an error\\n" if /^\\+.*an_error/;
\tprint "a.c:1: CHECK: a check\\n" if /^\\+.*a_check/ and grep(/--strict/, @ARGV);
\tprint "a.c:1: ERROR: Missing Signed-off-by\\n" if /^diff / and not $signed;
\t$signed = 1 if /^Signed-off-by: A Person <person\\@kernel.org>/;
}
"""
THREE = ((10, "ten", "p: Prerequisite"), (20, "twenty", "a: One"), (30, "thirty", "a: Two"),
         (40, "forty", "SAUCE: a: Three"))


def lend(project: Project) -> None:
    """Have the project's cache use the b4 that other tests' has fetched."""
    here = Path(unpacked(("b4", "trixie"))[0])
    for part in ("unpacked", "debs"):
        (project.cache / "smmuv3-kdump").mkdir(parents=True, exist_ok=True)
        (project.cache / "smmuv3-kdump" / part).symlink_to(here.parents[1 if part == "debs" else 0] / (
            "debs" if part == "debs" else ""))


@pytest.fixture
def ready(project: Project) -> Project:
    """A queue of a prerequisite, two patches and one that is not for the lists; somebody to submit it."""
    scripts = project.ksrc / "scripts"
    scripts.mkdir()
    (scripts / "get_maintainer.pl").write_text(MAINTAINER)
    (scripts / "checkpatch.pl").write_text(CHECKPATCH)
    as_repository(project.ksrc)
    project.queue(*THREE)
    as_prereq(project, 1)
    (project.patches / "0000-cover-letter").write_text(COVER)
    identify(project, more="[smmuv3-kdump]\ntrailer = Tested-by: A Tester <tester@kernel.org>\n")
    lend(project)
    return project


def mails(project: Project) -> list[EmailMessage]:
    found = []
    for path in sorted((latest(project, "lore") / "mails").glob("*.eml")):
        mail = BytesParser(EmailMessage, policy=email.policy.default).parsebytes(path.read_bytes())
        assert isinstance(mail, EmailMessage)
        found.append(mail)
    return found


def test_the_mails(ready: Project, tmp_path: Path) -> None:
    before = snapshot(ready.top), snapshot(ready.ksrc)
    done = ready.verb("lore")
    assert (snapshot(ready.top), snapshot(ready.ksrc)) == before, "not in the run's directory"
    assert "FAIL" not in done.stdout and "nothing was sent" in done.stderr
    made = mails(ready)
    assert [mail["Subject"] for mail in made] == ["[PATCH 0/3] a: Make it so", "[PATCH 1/3] p: Prerequisite",
                                                  "[PATCH 2/3] a: One", "[PATCH 3/3] a: Two"]
    for mail in made:
        assert mail["From"] == "A Person <person@kernel.org>"
        assert "am@kernel.org" in mail["To"] and "iommu@lists.linux.dev" in mail["Cc"]
        assert made[0] is mail or mail["In-Reply-To"] == made[0]["Message-Id"]
    text = str(made[0].get_content())
    assert "\n - an indented item\n" in text
    assert f"\nbase-commit: {git(ready.ksrc, 'rev-parse', 'HEAD')}\n" in text and "\nchange-id: " in text
    for mail in made[1:]:
        assert re.search(r"\nTested-by: A Tester <tester@kernel.org>\nSigned-off-by: A Person <person@kernel"
                         r".org>\n\n?---\n", str(mail.get_content()))
    # What comes back is taken by git am, on the commit that the cover letter names.
    box = next((latest(ready, "lore") / "am").glob("*.mbx"))
    git(ready.ksrc, "am", "-q", str(box))
    assert git(ready.ksrc, "log", "-3", "--format=%an %s").splitlines() == [
        "A Person a: Two", "A Person a: One", "A Person p: Prerequisite"]
    lines = (ready.ksrc / A_C).read_text().splitlines()
    assert [lines[at] for at in (9, 19, 29, 39)] == ["ten", "twenty", "thirty", "line 40 of a"]


def test_a_path_with_a_space(ready: Project) -> None:
    ready.cache = ready.cache.rename(ready.cache.parent / "a cache's")
    done = ready.verb("lore", XDG_CACHE_HOME=str(ready.cache))
    assert "FAIL" not in done.stdout and mails(ready)[0]["To"] == "A Maintainer <am@kernel.org>"


def test_it_runs_without_any_network(ready: Project) -> None:
    # Root in a chroot may make no user namespace.
    done = ready.run("unshare", "-n" if os.geteuid() == 0 else "-rn", PYTHON, "-m", "tools", "lore")
    assert "FAIL" not in done.stdout


def test_a_signed_patch_keeps_its_author(ready: Project) -> None:
    patch = next(ready.patches.glob("0002-*"))
    signed = "\nSigned-off-by: A Üser <user@example.com>\n---\n"
    patch.write_text(patch.read_text().replace("\n---\n", signed, 1))
    ready.verb("lore")
    text = str(mails(ready)[2].get_content())
    assert text.startswith("From: A Üser <user@example.com>\n")
    assert re.search(r"Signed-off-by: A Üser <user@example.com>\nTested-by: .*\nSigned-off-by: A P", text)


@pytest.mark.parametrize("mail", ["", "person", "person@host.example"])
def test_without_an_identity_nothing_is_exported(ready: Project, mail: str) -> None:
    identify(ready, mail)
    done = ready.verb("lore", code=2)
    assert errors(done) == 1 and "git config --global user.name" in done.stderr
    assert not (ready.cache / "smmuv3-kdump" / "runs").exists()


@pytest.mark.parametrize("word", ["an_error", "a_check"])
def test_what_checkpatch_says_fails_it(ready: Project, word: str) -> None:
    patch = next(ready.patches.glob("0002-*"))
    patch.write_text(patch.read_text().replace("+twenty", f"+{word}"))
    done = ready.verb("lore", code=1)
    assert "a.c:1: " in done.stdout and word.replace("_", " ") in done.stdout


def test_mails_that_come_back_otherwise_fail_it(ready: Project) -> None:
    ready.fake("git", '"$REAL" "$@" || exit; for word; do case "$word" in -o*/split)'
               ' sed -i s/^+twenty/+twelve/ "${word#-o}"/000?;; esac; done')
    done = ready.verb("lore", code=1)
    assert re.search("b4 am, applied +FAIL", done.stdout)


def test_the_next_version(ready: Project) -> None:
    done = ready.verb("lore", code=2, VERSION="2")
    assert errors(done) == 1 and "no export of version 1" in done.stderr
    ready.verb("lore")
    change = mails(ready)[0]["X-Change-ID"]
    patch = next(ready.patches.glob("0002-*"))
    patch.write_text(patch.read_text().replace("+twenty", "+twelve"))
    ready.verb("lore", VERSION="2")
    made = mails(ready)
    assert made[2]["Subject"] == "[PATCH v2 2/3] a: One" and made[0]["X-Change-ID"] == change
    text = str(made[0].get_content())
    assert "Range-diff to v1:" in text and "-+twenty" in text and "++twelve" in text
    # The same version once more is compared with the version before.
    ready.verb("lore", VERSION="2")
    assert "-+twenty" in (latest(ready, "lore") / "range-diff").read_text()


def test_a_prerequisite_that_was_posted_is_named(ready: Project) -> None:
    patch = next(ready.patches.glob("prereq/0001-*"))
    patch.write_text(patch.read_text().replace("\n---\n", "\nLink: https://lore.kernel.org/r/a@b\n---\n", 1))
    ready.verb("lore")
    made = mails(ready)
    assert [mail["Subject"] for mail in made[1:]] == ["[PATCH 1/2] a: One", "[PATCH 2/2] a: Two"]
    done = subprocess.run(["git", "patch-id", "--stable"], input=patch.read_bytes(), capture_output=True,
                          env=clean_env())
    assert f"\nprerequisite-patch-id: {done.stdout.split()[0].decode()}\n" in str(made[0].get_content())


def test_a_package_has_no_base_commit(ready: Project) -> None:
    (ready.ksrc / ".git").rename(ready.ksrc.parent / "moved")
    done = ready.verb("lore")
    assert re.search(r"base-commit +SKIPPED", done.stdout)
    assert "base-commit:" not in str(mails(ready)[0].get_content())


@pytest.mark.parametrize("spoil, code, said", [
    (lambda project: (project.patches / "0000-cover-letter").unlink(), 1, "cover-letter has no line"),
    (lambda project: next(project.patches.glob("0002-*")).unlink(), 1, "series names"),
    (lambda project: project.env.update(BASE="9.7"), 2, "no such base"),
    (lambda project: identify(project, more="[smmuv3-kdump]\ntrailer = tested\n"), 2, "trailer"),
])
def test_bad_input(ready: Project, spoil, code: int, said: str) -> None:    # type: ignore[no-untyped-def]
    spoil(ready)
    if said == "no such base":
        said = "BASE=9.7"
    done = ready.verb("lore", code=code)
    assert errors(done) == 1 and said in done.stderr
    assert not list(ready.cache.glob("smmuv3-kdump/runs/lore/*/latest"))
