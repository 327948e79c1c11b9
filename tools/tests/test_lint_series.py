# SPDX-License-Identifier: GPL-2.0-only
"""Posted series as the reference: mailboxes, maildirs, directories, ranges, versions, fetching."""
from __future__ import annotations

import base64
import gzip
import http.server
import quopri
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.lint.patches import parse_mbox

from .lintkit import ALICE, BOB, FILE, MIKE, Edit, Repo, Tree, message, put, run, sub, within
from .lintworld import C, CHANGES, World

NICK = "Nadia Noord <nadia@up.example>"
V6 = ("Add arm_smmu_kdump_adopt_strtab() for kdump", "Implement is_attach_deferred() for kdump",
      "Do not enable EVTQ/PRIQ interrupts in kdump kernel", "Skip EVTQ/PRIQ setup in kdump kernel",
      "Retain CR0_SMMUEN during kdump device reset", "Skip RMR bypass for kdump adoption",
      "Detect ARM_SMMU_OPT_KDUMP_ADOPT in probe()")
SMMU = "drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c"


def smmu_source() -> bytes:
    out = "/* made up */\n#include \"arm-smmu-v3.h\"\n\n"
    for n in range(9):
        out += f"static int arm_smmu_step_{n}(struct arm_smmu_device *smmu)\n{{\n\tint ret;\n\n"
        out += f"\tret = arm_smmu_do_{n}(smmu);\n"
        out += f"\tif (ret)\n\t\treturn ret;\n\n\treturn arm_smmu_done_{n}(smmu);\n}}\n\n"
    return out.encode()


def smmu_step(n: int, extra: str = "") -> Edit:
    return sub(SMMU, f"\treturn arm_smmu_done_{n}(smmu);\n",
               f"\tif (smmu->kdump)\n\t\treturn {n};\n{extra}\treturn arm_smmu_done_{n}(smmu);\n")


class Published:
    """A backport of v6's seven patches and one SAUCE patch; the contents are made up."""

    def __init__(self, path: Path, note: str = ""):
        self.repo = Repo(path)
        tree: Tree = {SMMU: (FILE, smmu_source())}
        self.base = parent = self.repo.commit(tree, message("base", signed=(MIKE,)), [])
        for n, title in enumerate(V6):
            smmu_step(n)(tree)
            parent = self.repo.commit(tree,
                                      f"iommu/arm-smmu-v3: {title}\n\nBecause of kdump.\n\nSigned-off-by: "
                                      f"{NICK}\n", [parent], author=NICK)
        self.repo.ref("heads/posted", parent)
        mails = []
        out = self.repo.git("format-patch", "--stdout", "-v6", "--thread", "--cover-letter",
                            f"{self.base}..posted").decode()
        cover = "cover.1779265413.git.nadia@up.example"
        for n, mail in enumerate(re.split(r"(?m)^(?=From [0-9a-f]{40} )", out)[1:]):
            mid = f"v6-{n}-nadia@up.example" if n else cover
            mail = re.sub(r"(?mi)^Message-I[Dd]: .*\n", f"Message-Id: <{mid}>\n", mail, count=1)
            mail = re.sub(r"(?m)^(In-Reply-To|References): .*\n", rf"\1: <{cover}>\n", mail)
            mail = re.sub(r"\*\*\* SUBJECT HERE \*\*\*", "Fix device crash on kdump kernel", mail)
            mails.append(mail)
        self.mbox = path / "v6.mbox"
        self.mbox.write_text("".join(mails))
        tree = {SMMU: (FILE, smmu_source())}
        parent = self.base
        for n, title in enumerate(V6):
            smmu_step(n, "\tdev_dbg(smmu->dev, \"downstream\\n\");\n" if n == 0 else "")(tree)
            verb = "cherry picked" if n else "backported"
            line = f"({verb} from https://lore.example/all/v6-{n + 1}-nadia@up.example/)\n"
            parent = self.repo.commit(tree,
                                      f"SAUCE: iommu/arm-smmu-v3: {title}\n\nBecause of "
                                      f"kdump.\n\nSigned-off-by: {NICK}\n{line}"
                                      + (note if n == 0 else "") + f"Signed-off-by: {BOB}\n", [parent],
                                      author=NICK, committer=BOB)
        put("mpam.c", "int mpam;\n")(tree)
        self.tip = self.repo.commit(tree,
                                    message("SAUCE: iommu/arm-smmu-v3: Block MPAM updates while the attach "
                                            "is deferred", signed=(BOB,)), [parent])
        self.repo.ref("heads/master", self.tip)


@pytest.mark.parametrize("note, first", [("", "MISMATCH"), ("[bob: print what is done]\n", "noted")])
def test_published_case(tmp_path: Path, note: str, first: str) -> None:
    p = Published(tmp_path / "r", note)
    args = ("compare", "-C", str(p.repo.path), "--series", str(p.mbox), f"{p.base}..master")
    r = run(*args)
    assert r.rows() == [(first, "match", "preserved + Bob Backporter")] + \
        [("match", "match", "preserved + Bob Backporter")] * 6 + [("N/A", "N/A", "N/A")], r.out
    assert (r.code, r.kinds()) == ((0, []) if note else (1, ["MISMATCH"]))
    print(run(*args, form="plain").out)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("series"))


def mail_of(w: World, name: str, *options: str) -> bytes:
    oid = w.ups[name].oid
    return w.up.git("format-patch", "--stdout", "-1", *options, oid)


def posted(w: World, tmp_path: Path, names: list[str], *options: str, version: int = 1) -> Path:
    """An mbox of a series, in the form that archives have."""
    out = b""
    for n, name in enumerate(names, 1):
        raw = mail_of(w, name, f"--subject-prefix=PATCH v{version} {n}/{len(names)}", *options)
        out += re.sub(rb"\nSubject:",
                      b"\nMessage-Id: <v%d-%d@up.example>\nReferences: <v%d-1@up.example>\nSubject:"
                      % (version, n, version), raw, count=1)
    path = tmp_path / f"v{version}.mbox"
    path.write_bytes(out)
    return path


TEXT = [n for n in CHANGES if n not in ("binary", "empty", "module", "link")]


@pytest.mark.parametrize("options", [[], ["--patience"], ["--histogram"], ["--minimal"], ["-U10"], ["-U1"],
                                     ["--no-prefix"], ["--full-index"],
                                     ["--src-prefix=x/", "--dst-prefix=y/"], ["-W"], ["--no-renames"]],
                         ids=" ".join)
def test_the_sender_s_diff_does_not_decide(world: World, tmp_path: Path, options: list[str]) -> None:
    """Patches made in every way, against a branch without upstream's objects: the same verdicts."""
    b = world.branch()
    names = [n for n in TEXT if n not in ("rmfile", "rename", "reorderA", "reorderB")]
    for n in names:
        b.pick(n, line="")
    series = posted(world, tmp_path, names, *options)
    r = run("compare", "-C", str(world.local.path), "--series", str(series), b.range())
    assert [r_ for r_ in zip(names, r.statuses()) if r_[1] not in ("match", "context")] == [], r.out
    assert (r.code, r.kinds()) == (0, [])


def test_sibling_function_is_seen_without_upstream_objects(world: World, tmp_path: Path) -> None:
    choices: list[list[str]] = [[], ["-U1"], ["-W"]]
    for options in choices:
        b = world.branch()
        b.pick("sibling", within(C, "foo_enable_priq(struct", "\tenables |= FOO_EN;\n",
                                 "\tenables |= FOO_EN | FOO_EVT;\n"), line="")
        r = run("compare", "-C", str(world.local.path), "--series",
                str(posted(world, tmp_path, ["sibling"], *options)), b.range())
        assert r.statuses() == ["MISMATCH"] and r.code == 1, (options, r.out)


def test_missing_extra_reordered(world: World, tmp_path: Path) -> None:
    names = ["const", "getter", "docs", "quirk"]
    series = posted(world, tmp_path, names)
    b = world.branch()
    for n in ("quirk", "const", "include", "docs"):
        b.pick(n, line="")
    r = run("compare", "-C", str(world.local.path), "--series", str(series), b.range())
    names = [x["local_subject"] or x["upstream_subject"] for x in r.data["rows"]]
    assert sorted(zip(names, r.statuses())) == sorted([
        ("foo: Add a quirk", "reordered"), ("foo: Wait longer", "match"),
        ("foo: Include what is used", "extra"),
        ("foo: Read field 5 from the shadow", "missing"), ("foo: Say more about errors", "match")]), r.out
    assert r.kinds() == ["extra", "missing", "reordered"] and r.code == 1


def test_stale_version_names_both(world: World, tmp_path: Path) -> None:
    v6 = posted(world, tmp_path, ["const", "getter"], version=6)
    v7 = posted(world, tmp_path, ["const", "getter"], version=7)
    v7.write_bytes(v7.read_bytes().replace(b"1000", b"2000"))
    both = tmp_path / "both.mbox"
    both.write_bytes(v7.read_bytes() + v6.read_bytes())
    b = world.branch()
    b.pick("const", line="")
    b.pick("getter", line="")
    r = run("compare", "-C", str(world.local.path), "--series", str(both), b.range())
    assert r.statuses() == ["match", "match"] and r.kinds() == ["stale"] and r.code == 1, r.out
    text = r.data["findings"][0]["text"]
    assert "v6 (v6-1@up.example)" in text and "v7 (v7-1@up.example)" in text
    fresh = world.branch()
    fresh.pick("const", sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t2000\n"), line="")
    fresh.pick("getter", line="")
    assert run("compare", "-C", str(world.local.path), "--series", str(both), fresh.range()).code == 0
    # a link decides, whatever the content
    linked = world.branch()
    linked.pick("const", sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t2000\n"),
                line="(backported from https://lore.example/r/v6-1@up.example)\n")
    linked.pick("getter", line="(backported from https://lore.example/r/v6-2@up.example)\n")
    r = run("compare", "-C", str(world.local.path), "--series", str(both), linked.range())
    assert r.statuses() == ["MISMATCH", "match"] and r.kinds() == ["MISMATCH", "stale"], r.out


def test_forms_of_the_reference(world: World, tmp_path: Path) -> None:
    """mbox, its gzip, a maildir, a directory with and without `series`, and a range say the same."""
    names = ["reorderA", "reorderB"]
    b = world.branch()
    for n in names:
        b.pick(n, line="")
    mbox = posted(world, tmp_path, names)
    zipped = tmp_path / "x.mbox.gz"
    zipped.write_bytes(gzip.compress(mbox.read_bytes()))
    mails = re.split(rb"(?m)^(?=From [0-9a-f]{40} )", mbox.read_bytes())[1:]
    maildir, plain, series = tmp_path / "md", tmp_path / "dir", tmp_path / "ser"
    for d in (maildir / "cur", maildir / "new", maildir / "tmp", plain, series):
        d.mkdir(parents=True)
    for k, m in enumerate(mails):
        (maildir / "cur" / f"{9 - k}.x:2,S").write_bytes(m)
        (plain / f"000{k}-x.patch").write_bytes(m)
        (series / f"z{9 - k}.patch").write_bytes(re.sub(rb"PATCH v1 \d/\d", b"PATCH", m))
    (series / "series").write_text("# the order\nz9.patch\nz8.patch  # second\n")
    for where in (mbox, zipped, maildir, plain, series,
                  f"{world.ups['reorderA'].oid}~1..{world.ups['reorderB'].oid}"):
        r = run("compare", "-C", str(world.local.path), "--reference", str(world.up.path), "--series",
                str(where), b.range())
        assert (r.statuses(), r.code, r.kinds()) == (["match", "match"], 0, []), (where, r.out, r.err)
        swapped = world.branch()
        swapped.pick("reorderB", line="")
        swapped.pick("reorderA", line="")
        r = run("compare", "-C", str(world.local.path), "--reference", str(world.up.path), "--series",
                str(where), swapped.range())
        assert sorted(r.statuses()) == ["match", "reordered"] and r.code == 1, (where, r.out)


def test_a_directory_of_patches_on_the_left(world: World, tmp_path: Path) -> None:
    b = world.branch()
    for n in ("adopt", "sibling", "binary"):
        b.pick(n)
    tip = b.range().split("..")[1]
    d = tmp_path / "patches"
    d.mkdir()
    world.local.git("format-patch", "-o", str(d), "--binary", f"{b.base}..{tip}")
    both = ("--reference", str(world.up.path))
    r = run("compare", "-C", str(world.local.path), *both, str(d))
    # contents by the index lines
    assert (r.statuses(), r.code) == (["context", "match", "match"], 0), r.out
    for f in d.iterdir():
        f.write_bytes(re.sub(rb"(?m)^index [0-9a-f]+\.\.[0-9a-f]+.*\n", b"", f.read_bytes())
                      if b"GIT binary" not in f.read_bytes() else f.read_bytes())
    next(d.glob("0003*")).unlink()
    r = run("compare", "-C", str(world.local.path), *both, "--onto", b.base, str(d))
    assert (r.statuses(), r.code) == (["context", "match"], 0), r.out
    r = run("compare", "-C", str(world.local.path), *both, str(d))
    # carried over to upstream's tree instead
    assert r.statuses() == ["context", "match"] and r.code == 0, r.out
    bad = next(d.glob("0002*"))
    bad.write_bytes(bad.read_bytes().replace(b"FOO_EVT", b"FOO_EVIL"))
    r = run("compare", "-C", str(world.local.path), *both, "--onto", b.base, str(d))
    assert r.statuses() == ["context", "MISMATCH"] and r.code == 1, r.out
    bad.write_bytes(bad.read_bytes().replace(b" \tint ret;", b" \tint nothing;"))
    r = run("compare", "-C", str(world.local.path), *both, "--onto", b.base, str(d))
    assert r.statuses() == ["context", "MISMATCH"] or r.statuses() == ["context", "unproven"], r.out
    assert r.code == 1


def test_two_directories(world: World, tmp_path: Path) -> None:
    """Nothing but text on both sides: equal patches match, other context is not guessed at."""
    w = tmp_path / "w"
    for name, dir_ in (("a", w / "a"), ("b", w / "b")):
        dir_.mkdir(parents=True)
    raw = re.sub(rb"(?m)^index .*\n", b"", mail_of(world, "sibling"))
    (w / "a" / "1.patch").write_bytes(raw)

    def verdict(other: bytes) -> list[str]:
        (w / "b" / "1.patch").write_bytes(other)
        return run("compare", "-C", str(world.local.path), "--series", str(w / "a"), str(w / "b")).statuses()
    assert verdict(raw) == ["match"]
    assert verdict(raw.replace(b"@@ -", b"@@ -1")) == ["match"]
    assert verdict(re.sub(rb"@@ -(.*) @@ .*", rb"@@ -1\1 @@", raw)) == ["unproven"]
    assert verdict(raw.replace(b"FOO_EVT", b"FOO_EVE")) == ["MISMATCH"]
    assert verdict(raw.replace(b"foo_enable_evtq", b"foo_enable_priq")) == ["MISMATCH"]
    assert verdict(raw.replace(b" \tret = foo_write_sync(foo, enables",
                               b" \tret = foo_sync(foo, enables")) == ["unproven"]
    assert verdict(raw.replace(b"+\tenables", b"+        enables")) == ["whitespace"]


def test_quilt_and_dep3_patches(world: World, tmp_path: Path) -> None:
    """Patches that are no mails, as in debian/patches."""
    d = tmp_path / "patches"
    d.mkdir()
    diff = mail_of(world, "const").partition(b"\n---\n")[2].partition(b"\n\n")[2]
    oid = world.ups["const"].oid
    (d / "series").write_text("wait.patch -p1\n")
    signed = f"Signed-off-by: {ALICE}\nSigned-off-by: {MIKE}\n"
    for origin, status in ((f"upstream, https://git.example/linus/{oid}", "match"),
                           (f"backport, commit:{oid}", "match"), ("vendor", "unresolved")):
        (d / "wait.patch").write_bytes(f"Description: foo: Wait longer\n Longer text.\nOrigin: "
                                       f"{origin}\nAuthor: {ALICE}\n{signed}---\n".encode() + diff)
        r = run("compare", "-C", str(world.local.path), "--reference", str(world.up.path), "--onto",
                world.base, str(d))
        assert (r.statuses(), r.code) == ([status], int(status != "match")), (origin, r.out)
        assert status != "match" or r.rows() == [("match", "match", "preserved")]


def break_off(raw: bytes) -> bytes:
    at = raw.index(b"@@ ")
    return raw[:raw.index(b"\n", raw.index(b"\n", at) + 1) + 1]


def encode(raw: bytes, how: str) -> bytes:
    head, _, body = raw.partition(b"\n\n")
    head = re.sub(rb"(?mi)^(Content-.*|MIME-Version:.*)\n?", b"", head).rstrip(b"\n")
    data = base64.encodebytes(body) if how == "base64" else quopri.encodestring(body)
    return (head + b"\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
            b"Content-Transfer-Encoding: " + how.encode() + b"\n\n" + data)


@pytest.mark.parametrize("name, mangle, status", [
    ("as it is", lambda r: r, "match"),
    ("base64", lambda r: encode(r, "base64"), "match"),
    ("quoted-printable", lambda r: encode(r, "quoted-printable"), "match"),
    ("CRLF mail", lambda r: r.replace(b"\n", b"\r\n"), "match"),
    ("in-body From", lambda r: r.replace(b"\n\n", b"\n\nFrom: Alice Adler <alice@up.example>\n\n",
                                         1).replace(b"From: Alice Adler <alice@up.example>\n",
                                                    b"From: List <list@up.example>\n", 1), "match"),
    ("breaks off in a hunk", break_off, "unproven"),
    ("wrong hunk lengths", lambda r: re.sub(rb"@@ -(\d+),(\d+)", rb"@@ -\1,9", r), "unproven"),
    ("no patch", lambda r: r.split(b"diff --git")[0], None),
], ids=lambda x: x if isinstance(x, str) else "")
def test_mails(world: World, tmp_path: Path, name: str, mangle: object, status: str) -> None:
    b = world.branch()
    b.pick("const", line="")
    path = tmp_path / "m.mbox"
    path.write_bytes(mangle(mail_of(world, "const")))       # type: ignore[operator]
    r = run("compare", "-C", str(world.local.path), "--series", str(path), b.range())
    if status is None:
        assert r.code == 2 and "no patch" in r.err
    else:
        assert r.statuses() == [status] and r.kinds() == ([] if status == "match" else [status]), r.out
        assert r.code == (status != "match")


def test_versions_as_people_write_them(world: World, tmp_path: Path) -> None:
    path = posted(world, tmp_path, ["const"], version=7)
    new = path.read_bytes().replace(b"PATCH v7", b"PATCHv7")
    path.write_bytes(new.replace(b"1000", b"2000") + new.replace(b"v7", b"v6"))
    b = world.branch()
    b.pick("const", line="")
    r = run("compare", "-C", str(world.local.path), "--series", str(path), b.range())
    assert r.kinds() == ["stale"] and "v6" in r.out and "v7" in r.out


def test_patches_of_one_subject(tmp_path: Path) -> None:
    """Two patches of a series may have the same subject: each wants its own."""
    r = Repo(tmp_path / "r")
    text, more = (FILE, b"1\n2\n"), (FILE, b"1\n2\n3\n")
    trees: list[Tree] = [{"a": text, "b": text}, {"a": more, "b": text}, {"a": more, "b": more}]
    up = [r.commit(trees[0], message("base"), [])]
    local = up[:]
    for t in trees[1:]:
        up.append(r.commit(t, message("treewide: Fix"), up[-1:]))
        local.append(r.commit(t, message("treewide: Fix") + f"Signed-off-by: {BOB}\n", local[-1:]))
    r.ref("heads/up", up[-1])
    r.ref("heads/master", local[-1])
    argv = ("compare", "-C", str(r.path), "--series", f"{up[0]}..up")
    assert run(*argv, f"{up[0]}..{local[2]}").statuses() == ["match", "match"]
    assert run(*argv, f"{up[0]}..{local[1]}").statuses() == ["match", "missing"]


def test_a_provenance_that_cannot_be_had_is_not_passed_over(world: World, tmp_path: Path) -> None:
    """A patch of the series has the subject; that does not make a wrong hash or link right."""
    path = posted(world, tmp_path, ["const"])
    for line in (f"(cherry picked from commit {'dead' * 10})\n",
                 "(cherry picked from https://lore.example/nobody@up.example/)\n"):
        b = world.branch()
        b.pick("const", line=line)
        r = run("compare", "-C", str(world.local.path), "--series", str(path), b.range())
        assert (r.statuses(), r.code) == (["unresolved"], 1), r.out
    # the posted patch says the same of itself: inherited
    signed = b"\nSigned-off-by: Alice"
    origin = b"\n[ Upstream commit %s ]\n" % (b"dead" * 10)
    path.write_bytes(path.read_bytes().replace(signed, origin + signed, 1))
    b = world.branch()
    u = world.ups["const"]
    b.commit(u.message.replace("\nSigned-off-by: Alice",
                               f"\n[ Upstream commit {'dead' * 10} ]\n\nSigned-off-by: Alice", 1)
             + f"Signed-off-by: {BOB}\n", u.edit)
    r = run("compare", "-C", str(world.local.path), "--series", str(path), b.range())
    assert (r.statuses(), r.code) == (["match"], 0), r.out
    # a directory has no message ids to look a link up in
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "1.patch").write_bytes(mail_of(world, "const"))
    b = world.branch()
    b.pick("const", line="(cherry picked from https://lore.example/nobody@up.example/)\n")
    r = run("compare", "-C", str(world.local.path), "--series", str(tmp_path / "d"), b.range())
    assert (r.statuses(), r.kinds("warning"), r.code) == (["match"], ["link"], 0), r.out


def test_a_note_does_not_excuse_a_broken_patch(world: World, tmp_path: Path) -> None:
    path = posted(world, tmp_path, ["const"])
    path.write_bytes(break_off(path.read_bytes()))
    b = world.branch()
    b.pick("const", line="(backported from https://lore.example/v1-1@up.example/)\n", note="bob: larger")
    r = run("compare", "-C", str(world.local.path), "--series", str(path), b.range())
    assert (r.statuses(), r.code) == (["unproven"], 1), r.out


def test_what_git_am_would_apply_is_read(world: World, tmp_path: Path) -> None:
    """A second patch below a mail's signature counts; lines that belong to no hunk are an error."""
    b = world.branch()
    b.pick("const")
    raw = world.local.git("format-patch", "--stdout", b.range())
    more = b"diff --git a/x.c b/x.c\nnew file mode 100644\n--- /dev/null\n+++ b/x.c\n@@ -0,0 +1 @@\n+evil\n"
    for mail, status in ((raw, "match"), (raw + more, "MISMATCH"),
                         (raw.replace(b"\n-- \n", b"\n@ -200,2 +200,3 @@\n a\n+evil\n b\n-- \n"),
                          "unproven")):
        (tmp_path / "1.patch").write_bytes(mail)
        r = run("compare", "-C", str(world.local.path), "--reference", str(world.up.path),
                str(tmp_path / "1.patch"))
        assert (r.statuses(), r.code) == ([status], int(status != "match")), r.out


def test_incomplete_series_is_an_error(world: World, tmp_path: Path) -> None:
    path = posted(world, tmp_path, ["const", "getter"])
    mails = re.split(rb"(?m)^(?=From [0-9a-f]{40} )", path.read_bytes())[1:]
    path.write_bytes(mails[0])
    b = world.branch()
    b.pick("const", line="")
    r = run("compare", "-C", str(world.local.path), "--series", str(path), b.range())
    assert r.kinds() == ["incomplete"] and r.code == 1


class Archive(http.server.BaseHTTPRequestHandler):
    answers: dict[str, tuple[int, bytes]] = {}

    def do_GET(self) -> None:
        code, body = self.answers.get(self.path, (404, b""))
        if code == 0:                       # promises more than it sends
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) + 100))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_response(code)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture()
def archive() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Archive)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_fetching(world: World, tmp_path: Path, archive: str) -> None:
    raw = gzip.compress(posted(world, tmp_path, ["const"]).read_bytes())
    Archive.answers = {f"/{k}/v1-1@up.example/t.mbox.gz": v for k, v in {
        "good": (200, raw), "gone": (404, b""), "dead": (500, b"oops"), "half": (200, raw[:-20]),
        "short": (0, raw[:40]),
        "html": (200, b"<html>no</html>")}.items()}
    for k, status, code in (("good", "match", 0), ("gone", "fetch failed", 3), ("dead", "fetch failed", 3),
                            ("half", "fetch failed", 3),
                            ("short", "fetch failed", 3), ("html", "fetch failed", 3)):
        b = world.branch()
        b.pick("const", line=f"(cherry picked from {archive}/{k}/v1-1@up.example/)\n")
        env = {"no_proxy": "127.0.0.1"}
        r = run("compare", "-C", str(world.local.path), "--fetch", b.range(), env=env)
        assert (r.statuses(), r.code) == ([status], code), (k, r.out, r.err)
        r = run("compare", "-C", str(world.local.path), b.range(), env=env)         # not asked to fetch
        assert (r.statuses(), r.code) == (["unresolved"], 1)


def test_a_sentence_that_starts_with_from() -> None:
    """`git format-patch --stdout` leaves it as it is; it does not cut the mail in two."""
    mail = (b"From %s Mon Sep 17 00:00:00 2001\nFrom: A <a@x.example>\nSubject: [PATCH] a: Two\n\nWhy.\n\n"
            b"From here on it is two.\n>From there it was one.\n---\n a | 1 +\n\ndiff --git a/a b/a\n"
            b"new file mode 100644\n--- /dev/null\n+++ b/a\n@@ -0,0 +1 @@\n+x\n-- \n2.39\n\n" % (b"0" * 40))
    got = parse_mbox(mail * 2, "x.mbox")
    assert [(len(p.files or []), p.broken) for p in got] == [(1, ""), (1, "")]
    assert "\n\nFrom here on it is two.\nFrom there it was one.\n" in got[0].message
