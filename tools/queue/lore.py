# SPDX-License-Identifier: GPL-2.0-only
"""make lore: the newest base's patches as the mails that would go to the lists. Nothing is ever sent.

b4 makes them, in a repository of its own that borrows the edit tree's objects and has no files. It
is run without network and without a way to send: offline, a proxy that is not there, no mail server.
"""

from __future__ import annotations

import contextlib
import json
import mailbox
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import deps
from ..common import FAIL, USAGE, Err, remove, run, say, stage, write
from ..results import Result, Status, run_directory
from . import archive, bases
from .export import (Patch, Submitter, adopted, comes_back, commit, compose, cover, for_all, judged,
                     patch_ids, read, report, submitter)
from .store import Store, digest, git, is_own, of_user, series
from .tree import EditTree

REFS = "refs/smmuv3-kdump/lore"         # in the edit tree: what each version's last export was
BRANCH = "b4/smmuv3-kdump"
# The base is a release's source without history: commits that a message names cannot be looked up.
IGNORED = "UNKNOWN_COMMIT_ID"

TEMPLATE = """\
${{cover}}

---
${{shortlog}}

${{diffstat}}
---
{base}
change-id: ${{change_id}}
${{prerequisites}}
--{blank}
${{signature}}
"""


class B4:
    """b4 in its own repository."""

    def __init__(self, here: Path) -> None:
        deps.need("b4")
        # `prep --check` is in 0.14, which older releases of Debian lack.
        self.package = archive.unpack(archive.fetch("b4", suites=("trixie",)))
        self.repository, self.config = here / "git", here / "gitconfig"
        git("init", "-q", "-b", BRANCH, self.repository)
        git("config", "-f", self.config, "b4.attestation-policy", "off")        # it would ask the network

    def prepare(self, edit: EditTree, me: Submitter, base: str, tip: str, about: str,
                tracking: dict[str, object]) -> None:
        """Make these commits of the edit tree the branch that b4 makes mails of, without any file."""
        def here(*args: str) -> None:
            git("-C", self.repository, *args)

        write(self.repository / ".git/objects/info/alternates", f"{edit.path / '.git' / 'objects'}\n")
        quoted = shlex.quote(str(edit.path))
        maintainers = (f"cd {quoted} && exec perl scripts/get_maintainer.pl --nogit "
                       "--nogit-fallback --nogit-chief-penguins --norolestats ")
        for key, value in {
                "user.name": me.name, "user.email": me.mail, "sendemail.smtpserver": "/bin/false",
                "b4.prep-cover-strategy": "branch-description",
                "b4.prep-cover-template": str(self.config.parent / "template"),
                "b4.send-auto-to-cmd": shlex.join(["sh", "-c", maintainers + "--nol"]),
                "b4.send-auto-cc-cmd": shlex.join(["sh", "-c", maintainers + "--nom"]),
                "b4.prep-perpatch-check-cmd": f"perl {quoted}/scripts/checkpatch.pl --root={quoted} -q "
                f"--strict --terse --no-summary --mailback --showfile --ignore {IGNORED}"}.items():
            git("config", "-f", self.config, key, value)
        here("update-ref", "refs/heads/base", base)
        here("update-ref", f"refs/heads/{BRANCH}", tip)
        here("sparse-checkout", "set", "--no-cone", "/nothing")
        here("read-tree", "-m", "-u", "HEAD")
        here("config", f"branch.{BRANCH}.description", about)
        here("config", f"branch.{BRANCH}.b4-tracking", json.dumps({"series": tracking}))

    def __call__(self, *args: str | Path) -> str:
        nowhere, state = "http://127.0.0.1:9", str(self.config.parent / "b4")
        env = {"GIT_CONFIG_GLOBAL": str(self.config), "GIT_CONFIG_NOSYSTEM": "1",
               "GIT_ALLOW_PROTOCOL": "none", "XDG_CACHE_HOME": state, "XDG_DATA_HOME": state,
               "PYTHONPATH": str(self.package / "usr/lib/python3/dist-packages"), "NO_COLOR": "1",
               "http_proxy": nowhere, "https_proxy": nowhere, "no_proxy": None}
        done = run([sys.executable, "-m", "b4.command", "-n", "--offline-mode", *args], cwd=self.repository,
                   env=env, check=False)
        said = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)
        if done.returncode or "CRITICAL" in said:
            raise Err(f"b4 {' '.join(map(str, args[:2]))}: {said.strip().splitlines()[-1]}",
                      f"look at {self.repository}, then run it again", FAIL)
        return said


class Lore:
    def __init__(self) -> None:
        name = os.environ.get("BASE") or bases.newest().name
        if name != bases.newest().name:
            raise Err(f"BASE={name}: the lists take the series on the newest base, {bases.newest().name}",
                      "make stable and make branch are for the others", USAGE)
        self.me = submitter()
        self.store = Store(name)
        self.edit = EditTree(self.store)
        self.edit.tree()
        self.subject, self.text = cover(self.store.base)
        self.version = self._version()
        self.posted, self.patches = self._patches()

    def _version(self) -> int:
        said = os.environ.get("VERSION", "1")
        if not re.fullmatch(r"[1-9]\d?", said):
            raise Err(f"VERSION={said} is not a version of the series", "make lore VERSION=2", USAGE)
        if int(said) > 1 and not self._exported(int(said) - 1):
            raise Err(f"there is no export of version {int(said) - 1} to compare version {said} with",
                      "check out what was sent, and: make lore VERSION=" + str(int(said) - 1), USAGE)
        return int(said)

    def _exported(self, version: int) -> str:
        return self.edit.in_edit("rev-parse", "-q", "--verify", f"{REFS}/v{version}-base", check=False)

    def _patches(self) -> tuple[list[Patch], list[Patch]]:
        """Prerequisites that were posted by themselves, and the series: the rest of them leads it."""
        queue = self.store.queue()
        with self.store.lock():
            source = self.store.source()
            pairs = [(read(self.edit.path, made), is_own(path)) for made, path
                     in zip(self.store.commits(source, queue)[1:], queue)]
            taken = for_all(pairs)
            posted = [patch for patch, own in taken if not own and re.search(r"(?m)^Link: \S", patch.text)]
            if posted != [patch for patch, _ in taken[:len(posted)]]:
                raise Err("a patch that was posted by itself stands among the others", "move it to the first "
                          "place", FAIL)
        return posted, [adopted(patch, self.me) for patch, _ in taken[len(posted):]]

    def _base(self) -> tuple[str, str]:
        """The lines that say what the mails apply to, and the commit, if it is one that others have."""
        if self.store.ksrc and self.store.is_repository(self.store.ksrc):
            head = of_user("-C", self.store.ksrc, "rev-parse", "HEAD").stdout.strip()
            return f"base-commit: {head}", head
        return f"Applies to {self.store.version()} as in {self.store.base.package}.", ""

    def about(self, diff: str) -> str:
        compared = f"\n\nRange-diff to v{self.version - 1}:\n\n{diff}" if diff else ""
        return f"{self.subject}\n\n{self.text}{compared}\n\nSigned-off-by: {self.me}\n"

    def tracking(self) -> dict[str, object]:
        ids = patch_ids(self.edit.path, [patch.commit for patch in self.posted])
        change = f"20261122-smmuv3-kdump-{digest(self.me.mail)[:12]}"       # the same for all versions
        return {"revision": self.version, "change-id": change, "prefixes": [], "base-branch": "base",
                "prerequisites": [f"patch-id: {one}" for one in ids.values()]}

    def range_diff(self, base: str, tip: str) -> str:
        """The last version beside this one."""
        old = f"{REFS}/v{self.version - 1}"
        return self.edit.in_edit("range-diff", "--no-color", f"{old}-base..{old}", f"{base}..{tip}"
                                 ) if self._exported(self.version - 1) else ""

    def run(self) -> int:
        here = run_directory("lore", self.store.here.name)
        base = self.posted[-1].commit if self.posted else self.store.source()
        tip = commit(self.edit.path, self.patches, base, self.me, compose)
        diff = self.range_diff(base, tip)
        write(here / "range-diff", diff + "\n")
        lines, public = self._base()
        write(here / "template", TEMPLATE.format(base=lines, blank=" "))
        b4 = B4(here)
        b4.prepare(self.edit, self.me, base, tip, self.about(diff), self.tracking())
        results = [Result("export", "base-commit", Status.PASS if public else Status.SKIPPED, public or "the "
                          "base is a package; KSRC=<upstream repository> names a commit that others have"),
                   Result("export", "range-diff", Status.PASS if diff else Status.SKIPPED,
                          f"to v{self.version - 1}" if diff else "this is the first version")]
        with stage("maintainers, checkpatch, mails"):
            results += [self.maintainers(b4), self.checkpatch(b4), self.preflight(b4), self.mails(b4, here)]
        mails = sorted((here / "mails").glob("*.eml"))
        results.append(self.back(here, mails, tip, base))
        self.edit.in_edit("update-ref", f"{REFS}/v{self.version}", tip)
        self.edit.in_edit("update-ref", f"{REFS}/v{self.version}-base", base)
        code = report("lore", self.store, results, mails, here).show(here, "mails/  range-diff")
        say(f"nothing was sent; read {here / 'mails'}, and Documentation/submitting.rst")
        return code

    # What is judged.

    def maintainers(self, b4: B4) -> Result:
        b4("prep", "--auto-to-cc")
        about = git("-C", b4.repository, "config", f"branch.{BRANCH}.description").stdout
        to, cc = (re.findall(rf"(?m)^{name}: (.*)$", about) for name in ("To", "Cc"))
        return Result("export", "maintainers", Status.PASS if to and cc else Status.FAIL,
                      f"To: {len(to)}, Cc: {len(cc)}", {"to": to, "cc": cc})

    def checkpatch(self, b4: B4) -> Result:
        said = b4("prep", "--check", "--no-cache")
        counts = re.search(r"Success: (\d+), Warning: (\d+), Error: (\d+)", said)
        good = counts and counts.groups() == (str(len(self.patches)), "0", "0")
        return judged("b4 prep --check (checkpatch --strict)", good, f"{len(self.patches)} patches, nothing "
                      "said" if good else said.partition("---\n")[2])

    def preflight(self, b4: B4) -> Result:
        # Whether the lists have the prerequisites can only be asked with a network.
        needs = set(re.findall(r"(?m)^needs-([\w-]+): True$", b4("prep", "--show-info"))) - {"checking-deps"}
        return judged("b4's checks before sending", not needs,
                      "needs: " + ", ".join(sorted(needs)) if needs else "nothing is left to do")

    def mails(self, b4: B4, here: Path) -> Result:
        said = b4("send", "--no-sign", "-o", here / "mails")
        count, warned = len(list((here / "mails").glob("*.eml"))), re.findall("WARNING.*", said)
        return judged("b4 send -o", count and not warned, "; ".join([f"{count} mails, none sent", *warned]))

    def back(self, here: Path, mails: Sequence[Path], tip: str, base: str) -> Result:
        """What a reader's b4 makes of the mails, applied."""
        try:
            patches = taken(here, mails)
        except Err as err:
            return judged("b4 am", False, err.cause)
        return comes_back(self.edit, base, patches, tip, "b4 am, applied")


def taken(here: Path, boxes: Sequence[Path]) -> list[Path]:
    """The patches in mails or mailboxes, as `b4 am` reads them: decoded, the newest version's, in order."""
    for name in "split", "mails.mbx", "am":
        remove(here / name)
    (here / "split").mkdir()
    git("mailsplit", "-b", "--keep-cr", "-d4", f"-o{here / 'split'}", *boxes)
    mails = sorted((here / "split").iterdir())
    if not any(re.search(rb"(?mi)^Subject: .*\d/\d+\]", mail.read_bytes()) for mail in mails):
        return mails                # nothing says another order
    with contextlib.closing(mailbox.mbox(here / "mails.mbx")) as box:
        for mail in mails:
            message = mailbox.mboxMessage(mail.read_bytes())
            if "Message-ID" not in message:     # b4 takes none without it
                message["Message-ID"] = f"<{digest(mail.read_bytes())}@mailbox>"
            box.add(message)
    said = B4(here)("am", "-T", "-Q", "-m", here / "mails.mbx", "-o", here / "am", "-n", "taken")
    lacks = re.findall(r"ERROR: missing \[(\d+)/", said)
    if lacks or not (here / "am/taken.patches").is_dir():
        raise Err(f"{boxes[0]} has a hole, or two series: b4 am lacks {', '.join(lacks) or 'every patch'}",
                  "give all mails of one series", USAGE)
    return series(here / "am/taken.patches")


def main() -> int:
    return Lore().run()
