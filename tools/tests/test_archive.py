# SPDX-License-Identifier: GPL-2.0-only
"""Fetching packages, from a small signed archive on a loopback server."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import os
import platform
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
from .conftest import Project, errors, git, kernel_tree, show

CODENAME = platform.freedesktop_os_release()["VERSION_CODENAME"]
NATIVE = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True).stdout.strip()
FETCH = "archive.fetch({0!r}, arch={1!r}, suites={2!r})"


class Handler(http.server.SimpleHTTPRequestHandler):
    """A file server that can be told to misbehave."""

    seen: list[str] = []
    cut: str | tuple[str, ...] = "none"     # answers whose path ends so are cut in the middle

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.seen.append(self.path)
        if self.path.startswith("http://"):         # we are a proxy
            self.path = "/" + self.path.split("/", 3)[3]
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        start = 0
        ranged = self.headers.get("Range", "")
        if ranged.startswith("bytes="):
            start = int(ranged[6:].split("-")[0])
        if start >= len(content):
            start = 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Last-Modified", formatdate(path.stat().st_mtime, usegmt=True))
        self.end_headers()
        end = len(content)
        if self.path.endswith(self.cut):
            end = start + (end - start) // 2
            self.close_connection = True
        self.wfile.write(content[start:end])


class Repo:
    """An archive: suites with their packages, signed, and a machine that is set up to use it."""

    def __init__(self, root: Path) -> None:
        self.root = root / "repo"
        self.root.mkdir()
        self.etc = root / "etc"
        self.debs: dict[tuple[str, str], list[Path]] = {}
        self.keys = root / "gpg"
        self.keys.mkdir(mode=0o700)
        self.key = self.new_key("archive")

        class Knobs(Handler):
            seen: list[str] = []

        self.handler: type[Handler] = Knobs
        self.server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(self.handler, directory=str(self.root)))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        self.entry(f"deb [signed-by={self.key}] http://{self.address}/ {CODENAME} main\n")

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        subprocess.run(["gpgconf", "--homedir", self.keys, "--kill", "all"], check=True)

    def gpg(self, *args: str, data: bytes | None = None) -> bytes:
        return subprocess.run(["gpg", "--homedir", self.keys, "--batch", "-q", "--pinentry-mode=loopback",
                               "--passphrase=", *args], input=data, check=True, capture_output=True).stdout

    def new_key(self, name: str) -> Path:
        self.gpg("--quick-generate-key", name, "ed25519", "sign")
        path = self.keys / f"{name}.gpg"
        path.write_bytes(self.gpg("--export", name))
        return path

    def entry(self, text: str, name: str = "main.list") -> None:
        shutil.rmtree(self.etc, ignore_errors=True)
        for part in ("sources.list.d", "apt.conf.d", "preferences.d", "trusted.gpg.d", "auth.conf.d"):
            (self.etc / part).mkdir(parents=True)
        (self.etc / "sources.list.d" / name).write_text(text)

    def deb(self, package: str, version: str = "1.0-1", arch: str = "all", suite: str = CODENAME,
            payload: Path | None = None) -> Path:
        tree = self.root.parent / "deb" / package
        shutil.rmtree(tree, ignore_errors=True)
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN" / "control").write_text(
            f"Package: {package}\nVersion: {version}\nArchitecture: {arch}\n"
            "Maintainer: x <x@example.com>\nDescription: x\n")
        (tree / "usr" / "src").mkdir(parents=True)
        (tree / "usr" / "src" / "filler").write_bytes(os.urandom(300_000))
        if payload:
            shutil.copy(payload, tree / "usr" / "src" / payload.name)
        path = self.root / "pool" / f"{package}_{version.split(':')[-1]}_{arch}.deb"
        path.parent.mkdir(exist_ok=True)
        subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "-b", tree, path], check=True,
                       capture_output=True)
        self.debs.setdefault((suite, arch), []).append(path)
        return path

    def publish(self, key: str | None = "archive", valid: float = 3600,
                suites: tuple[str, ...] = (CODENAME, "later")) -> None:
        for suite in suites:
            where = self.root / "dists" / suite
            shutil.rmtree(where, ignore_errors=True)
            sums = ""
            for arch in {NATIVE, "arm64", "amd64"}:
                index = b""
                for name in (arch, "all"):
                    for path in self.debs.get((suite, name), []):
                        control = subprocess.run(["dpkg-deb", "-f", path], capture_output=True,
                                                 check=True).stdout
                        content = path.read_bytes()
                        index += control + (f"Filename: pool/{path.name}\nSize: {len(content)}\n"
                                            f"SHA256: {hashlib.sha256(content).hexdigest()}\n\n").encode()
                for name, content in (("Packages", index), ("Packages.gz", gzip.compress(index))):
                    path = where / "main" / f"binary-{arch}" / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                    digest = hashlib.sha256(content).hexdigest()
                    sums += f" {digest} {len(content)} main/binary-{arch}/{name}\n"
            now = time.time() - 2 * 3600
            until = formatdate(time.time() + valid, usegmt=True)
            release = (f"Origin: Test\nSuite: {suite}\nCodename: {suite}\nComponents: main\n"
                       f"Architectures: {NATIVE} arm64\nDate: {formatdate(now, usegmt=True)}\n"
                       f"Valid-Until: {until}\nSHA256:\n{sums}").encode()
            (where / "Release").write_bytes(release)
            if key:
                (where / "InRelease").write_bytes(self.gpg("--local-user", key, "--clearsign", data=release))

    def env(self) -> dict[str, str]:
        conf = self.root.parent / "apt.conf"
        conf.write_text(f'Dir::Etc "{self.etc}";\nDir::State::lists "{self.root.parent}/no-lists";\n'
                        'Acquire::Retries "0";\n')
        return {"APT_CONFIG": str(conf), "KSRC": "", "http_proxy": "", "no_proxy": "127.0.0.1"}


@pytest.fixture
def repo(project: Project, tmp_path: Path) -> Iterator[Repo]:
    made = Repo(tmp_path)
    project.env.update(made.env())
    yield made
    made.close()


def fetch(project: Project, package: str, arch: str = "all", suites: tuple[str, ...] = ("own",),
          code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    return project.call(FETCH.format(package, arch, suites), code=code, **env)


def kept(project: Project) -> list[str]:
    return [path.name for path in project.cache.rglob("debs/*/*.deb")]


def source_deb(repo: Repo, tmp_path: Path, version: str = "9.8.7-1") -> Path:
    tree = kernel_tree(tmp_path / f"src-{version}" / "linux-source-9.8", version.split("-")[0])
    tar = tmp_path / "linux-source-9.8.tar.xz"
    with tarfile.open(tar, "w:xz") as out:
        out.add(tree, "linux-source-9.8")
    return repo.deb("linux-source-9.8", version, payload=tar)


def test_fetched_once_and_kept(project: Project, repo: Repo) -> None:
    deb = repo.deb("thing")
    repo.publish()
    got = Path(fetch(project, "thing").stdout.strip())
    assert got.read_bytes() == deb.read_bytes()
    repo.handler.seen.clear()
    assert Path(fetch(project, "thing").stdout.strip()) == got
    assert repo.handler.seen == []      # the archive is not even asked


def test_update_takes_the_newer_version(project: Project, repo: Repo) -> None:
    repo.deb("thing", "1:1.0-9")
    repo.publish()
    fetch(project, "thing")
    repo.deb("thing", "1:1.0-10")
    repo.publish()
    assert "1.0-9" in fetch(project, "thing").stdout
    assert "1.0-10" in fetch(project, "thing", UPDATE="1").stdout
    assert "1.0-10" in fetch(project, "thing").stdout


@pytest.mark.parametrize("form", ["one line", "deb822", "deb822 with the key in it", "trusted.gpg.d"])
def test_every_form_of_entry(project: Project, repo: Repo, form: str) -> None:
    repo.deb("thing")
    repo.publish()
    stanza = (f"Types: deb deb-src\nURIs: http://{repo.address}\n"
              f"Suites: {CODENAME}-backports {CODENAME}\nComponents: main\n")
    if form == "deb822":
        repo.entry(f"# ours\n{stanza}Signed-By: {repo.key}\n", "x.sources")
    elif form == "deb822 with the key in it":
        armored = repo.gpg("--armor", "--export", "archive").decode()
        block = "".join(f" {line or '.'}\n" for line in armored.splitlines())
        repo.entry(f"{stanza}Signed-By:\n{block}", "x.sources")
    elif form == "trusted.gpg.d":
        repo.entry(f"deb http://{repo.address} {CODENAME} main\n")
        shutil.copy(repo.key, repo.etc / "trusted.gpg.d")
    repo.publish(suites=(CODENAME, f"{CODENAME}-backports", "later"))
    fetch(project, "thing")
    repo.deb("other", suite="later")
    repo.publish()
    fetch(project, "other", suites=("later",))


def test_other_suites_and_architectures(project: Project, repo: Repo) -> None:
    repo.deb("thing", "1", arch="arm64")
    repo.deb("thing", "2", arch=NATIVE)
    repo.deb("thing", "3", arch="arm64", suite="later")
    repo.publish()
    assert "thing_1_arm64.deb" in fetch(project, "thing", "arm64").stdout
    assert f"thing_2_{NATIVE}.deb" in fetch(project, "thing", NATIVE).stdout
    assert "thing_3_arm64.deb" in fetch(project, "thing", "arm64", ("later", "own")).stdout
    assert "thing_1_arm64.deb" in fetch(project, "thing", "arm64", ("own", "later")).stdout


def test_the_machines_proxy_is_used(project: Project, repo: Repo) -> None:
    repo.entry(f"deb [signed-by={repo.key}] http://archive.invalid/ {CODENAME} main\n")
    (repo.etc / "apt.conf.d" / "proxy").write_text(f'Acquire::http::Proxy "http://{repo.address}";\n')
    repo.deb("thing")
    repo.publish()
    fetch(project, "thing")
    assert any(path.startswith("http://archive.invalid/") for path in repo.handler.seen)


def test_only_the_distributions_own_entries(project: Project, repo: Repo) -> None:
    repo.entry(f"deb [signed-by={repo.key}] http://{repo.address}/ {CODENAME} main\n"
               f"deb http://127.0.0.1:9/vendor {CODENAME} stable\n"
               f"deb http://127.0.0.1:9/tool tool-{CODENAME} main\n")
    repo.deb("thing")
    repo.publish()
    fetch(project, "thing")


@pytest.mark.parametrize("suite", ["own", "later"])
@pytest.mark.parametrize("key", [None, "stranger"])
def test_an_archive_that_is_not_signed_is_refused(project: Project, repo: Repo, key: str | None,
                                                  suite: str) -> None:
    repo.deb("thing")
    repo.deb("thing", suite="later")
    if key:
        repo.new_key(key)
    repo.publish(key)
    done = fetch(project, "thing", suites=(suite,), code=3)
    assert "signature" in done.stderr and "next:" in done.stderr and kept(project) == []
    repo.publish()          # the control: the same, signed
    fetch(project, "thing", suites=(suite,))


def test_a_package_that_is_not_what_the_index_says(project: Project, repo: Repo) -> None:
    deb = repo.deb("thing")
    repo.publish()
    good = deb.read_bytes()
    deb.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    done = fetch(project, "thing", code=3)
    assert "cut short or damaged" in done.stderr and kept(project) == []
    deb.write_bytes(good)
    fetch(project, "thing")


def test_a_download_that_is_cut_short(project: Project, repo: Repo) -> None:
    deb = repo.deb("thing")
    repo.publish()
    repo.handler.cut = ".deb"
    done = fetch(project, "thing", code=3)
    assert "cut short" in done.stderr and "next:" in done.stderr and kept(project) == []
    assert errors(done) == 1
    repo.handler.cut = "none"
    assert Path(fetch(project, "thing").stdout.strip()).read_bytes() == deb.read_bytes()


def test_an_index_that_is_cut_short(project: Project, repo: Repo) -> None:
    repo.deb("thing")
    repo.publish()
    repo.handler.cut = ("Packages", "Packages.gz")
    done = fetch(project, "thing", code=3)
    assert errors(done) == 1
    repo.handler.cut = "none"
    fetch(project, "thing")


def test_left_over_rubbish_is_not_taken(project: Project, repo: Repo) -> None:
    deb = repo.deb("thing")
    repo.publish()
    fetch(project, "thing")
    got = next(project.cache.rglob("debs/*/*.deb"))
    got.unlink()
    partial = next(project.cache.glob("smmuv3-kdump/apt/*/partial")) / got.name
    partial.write_bytes(b"x" * len(deb.read_bytes()))
    assert Path(fetch(project, "thing").stdout.strip()).read_bytes() == deb.read_bytes()


def test_a_package_that_has_gone(project: Project, repo: Repo) -> None:
    repo.deb("other")
    repo.publish()
    done = fetch(project, "thing", code=3, suites=("own", "later"))
    assert "does not have thing" in done.stderr and "own, later" in done.stderr and "KSRC=" in done.stderr
    # It went after the index was read; a newer one came.
    repo.deb("thing", "1")
    repo.publish()
    fetch(project, "thing", UPDATE="1")
    shutil.rmtree(project.cache / "smmuv3-kdump" / "debs")
    for deb in repo.debs.pop((CODENAME, "all")):
        deb.unlink()
    repo.deb("thing", "2")
    repo.publish()
    assert "thing_2_all.deb" in fetch(project, "thing").stdout
    # It went, and nothing came.
    shutil.rmtree(project.cache / "smmuv3-kdump" / "debs")
    repo.debs.pop((CODENAME, "all"))[0].unlink()
    repo.publish()
    assert "does not have" in fetch(project, "thing", code=3).stderr


def test_an_expired_index(project: Project, repo: Repo) -> None:
    repo.deb("thing")
    repo.publish(valid=-60)
    done = fetch(project, "thing", code=3)
    assert "expired" in done.stderr and "clock" in done.stderr
    repo.publish(valid=3600)
    fetch(project, "thing")


def test_no_network(project: Project, repo: Repo) -> None:
    repo.deb("thing")
    repo.publish()
    good = repo.etc / "sources.list.d" / "main.list"
    text = good.read_text()
    good.write_text(text.replace(repo.address, "127.0.0.1:9"))
    done = fetch(project, "thing", code=3)
    assert "cannot be reached" in done.stderr and errors(done) == 1
    good.write_text(text)
    fetch(project, "thing")


def test_no_entry_for_this_distribution(project: Project, repo: Repo) -> None:
    repo.entry(f"deb http://{repo.address}/ unheard-of main\n")
    assert f"({CODENAME} main)" in fetch(project, "thing", code=3).stderr


def test_a_full_disk(project: Project, repo: Repo, tmp_path: Path) -> None:
    repo.deb("thing")
    repo.publish()
    small = tmp_path / "small"
    small.mkdir()
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    if subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", small], capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")

    def in_small(size: str, code: int) -> subprocess.CompletedProcess[str]:
        mount = f'mount -t tmpfs -o size={size} none {small} && exec "$@"'
        return project.run(*unshare, "sh", "-c", mount, "sh", *show(FETCH.format("thing", "all", ("own",))),
                           code=code, XDG_CACHE_HOME=str(small))

    for size in ("1m", "150k", "24k"):
        done = in_small(size, 3)
        assert "disk is full" in done.stderr, done.stderr
        assert errors(done) == 1
    in_small("64m", 0)


def test_the_systems_apt_is_not_touched(project: Project, repo: Repo) -> None:
    def state() -> list[tuple[str, int]]:
        return [(str(path), path.stat().st_mtime_ns) for top in ("/var/lib/apt", "/var/cache/apt", "/etc/apt")
                for path in [Path(top), *sorted(Path(top).rglob("*"))] if os.access(path, os.R_OK)]
    marker = repo.root.parent / "hook-ran"
    (repo.etc / "apt.conf.d" / "hooks").write_text(f'APT::Update::Post-Invoke {{ "touch {marker}"; }};\n')
    repo.deb("thing")
    repo.publish()
    before = state()
    fetch(project, "thing")
    assert state() == before and not marker.exists()


def test_two_at_once(project: Project, repo: Repo) -> None:
    repo.deb("thing")
    repo.publish()
    runs = [project.start(*show(FETCH.format("thing", "all", ("own",)))) for _ in range(3)]
    assert len({process.communicate()[0] for process in runs}) == 1
    assert [process.returncode for process in runs] == [0, 0, 0]
    assert sum(path.endswith(".deb") for path in repo.handler.seen) == 1


def test_a_tree_from_the_archives_source_package(project: Project, repo: Repo, tmp_path: Path) -> None:
    source_deb(repo, tmp_path)
    repo.publish()
    project.queue((10, "ten", "a: One"))
    done = project.verb("tree")
    tree = Path(done.stdout.strip())
    assert git(tree, "log", "--reverse", "--format=%s").splitlines() == ["Linux 9.8.7", "a: One"]
    assert "linux-source-9.8_9.8.7-1_all" in git(tree, "log", "-1", "--format=%b", "HEAD~1")
    assert (tree / "link").is_symlink() and (tree / "crlf.txt").read_bytes() == b"one\r\ntwo\r\n"
    repo.handler.seen.clear()
    done = project.verb("tree")
    assert "unpacking" not in done.stderr and repo.handler.seen == []
    source_deb(repo, tmp_path, "9.8.8-1")
    repo.publish()
    project.tree()
    assert git(tree, "log", "-1", "--format=%s", "HEAD~1") == "Linux 9.8.7"
    assert "unpacking" in project.verb("tree", UPDATE="1").stderr
    assert git(tree, "log", "-1", "--format=%s", "HEAD~1") == "Linux 9.8.8"
    assert "unpacking" not in project.verb("tree").stderr


@pytest.mark.parametrize("step", ["tar", "xz", "dpkg-deb"])
@pytest.mark.parametrize("fault", ["fails", "is killed with us", "meets a full disk"])
def test_unpacking_that(project: Project, repo: Repo, tmp_path: Path, step: str, fault: str) -> None:
    source_deb(repo, tmp_path)
    repo.publish()
    fetch(project, "linux-source-9.8")
    does = {"fails": "cat | head -c 1000; echo broken >&2; exit 2",
            "is killed with us": "kill -9 $VERB; exit 1",
            "meets a full disk": "echo 'Cannot write: No space left on device' >&2; exit 2"}[fault]
    fake = project.fake(step, does)
    done = project.verb("tree", code=None)
    if fault == "is killed with us":
        assert done.returncode == -signal.SIGKILL
    else:
        assert done.returncode == 3 and errors(done) == 1
        assert "disk is full" in done.stderr or fault == "fails"
    fake.unlink()
    assert git(project.tree(), "log", "--format=%s") == "Linux 9.8.7"


def test_unpacked_once_and_whole(project: Project, repo: Repo) -> None:
    repo.deb("thing")
    repo.publish()
    deb = fetch(project, "thing").stdout.strip()
    unpack = f"archive.unpack(pathlib.Path({deb!r}))"
    broken = project.cache / "smmuv3-kdump" / "unpacked" / ".thing_1.0-1_all.new"
    broken.mkdir(parents=True)
    (broken / "half").write_text("left by a run that was killed")
    done = project.call(unpack)
    there = Path(done.stdout.strip())
    assert (there / "usr" / "src" / "filler").is_file() and not (there / "half").exists()
    assert "unpacking" not in project.call(unpack).stderr
