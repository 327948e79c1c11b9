# SPDX-License-Identifier: GPL-2.0-only
"""Packages from the distribution's archive, also of other suites and architectures.

apt does the work, with the machine's own settings (proxy, mirror, keyrings), but with index
files and entries of its own under our cache: the system's apt state is never touched. A
suite is looked at through a "view", one private apt state for one suite and architecture.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from string import Template

from .. import deps
from ..common import Err, cache_dir, flag, full, lock, made, remove, run, stage, tail

INDEX_AGE_S = 24 * 3600
OWN = "own"
CONF = Path(__file__).with_name("apt.conf")
ELSEWHERE = "KSRC=<kernel tree> takes a kernel from elsewhere; or look whether the package has a new name"

# Fields of an entry which choose what is fetched; the others say how, and are kept.
CHOOSING = {"types", "uris", "suites", "components", "architectures", "languages", "targets", "enabled"}

# What apt says: what it means, and what to do.
MEANINGS = (
    (r"NO_PUBKEY|not signed|GPG error|couldn't be verified|signature.*invalid|EXPKEYSIG|REVKEYSIG",
     "the archive's signature does not check out",
     "check Signed-By of the entry in /etc/apt, and that the archive's keyring package is up to date"),
    (r"is expired|not valid yet|invalid since", "the archive's index has expired",
     "check the clock, or choose a mirror that is kept up to date; then run the same command again"),
    (r"resolv|onnect(ion)? (to|timed out|refused|failed)|unreachable|annot initiate the connection",
     "the archive cannot be reached",
     "check the network and the proxy in apt's configuration; then run the same command again"),
    (r"does not have a Release file|404|File not found|no longer has",
     "the archive does not have it (any more)", ELSEWHERE),
    (r"mismatch|unexpected size|cut short|Undetermined|closed connection|closed prematurely|from server",
     "the download was cut short or damaged", "run the same command again; it goes on where it stopped"),
)


def native() -> str:
    return run(["dpkg", "--print-architecture"]).stdout.strip()


def explain(doing: str, done: subprocess.CompletedProcess[str]) -> Err:
    """What apt said, as one error."""
    output = done.stdout + done.stderr
    lines = output.splitlines()
    marked = [line for line in lines if line.startswith(("E:", "W:", "Err:"))]
    for pattern, cause, next_step in MEANINGS:
        for line in marked or lines:
            if re.search(pattern, line):
                return Err(f"{doing}: {cause}: {line.strip()}", next_step)
    return Err(f"{doing} failed:\n{tail(output)}", "mend that and run the same command again")


def _options(entry: str) -> dict[str, str]:
    """What an entry of apt's configuration, `file:number`, says on how to fetch, as deb822 fields."""
    name, _, number = entry.rpartition(":")
    text = Path(name).read_text()
    if name.endswith(".sources"):
        blocks = [block for block in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n?", "", text)) if block.strip()]
        fields = re.findall(r"(?m)^(\S+?):[ \t]*(.*(?:\n[ \t].*)*)", blocks[int(number) - 1])
    else:
        options = re.search(r"\[(.*?)\]", text.splitlines()[int(number) - 1])
        fields = re.findall(r"([\w-]+)=(\S+)", options[1].replace(",", " ")) if options else []
    return {name.lower(): value for name, value in fields if name.lower() not in CHOOSING}


def codename() -> str:
    """Of the distribution that this machine runs."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "unknown")


def machine() -> dict[str, list[dict[str, str]]]:
    """The machine's own entries for its distribution's `main`: "" the suite itself, "-updates" and so on."""
    ask = ["apt-get", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "indextargets",
           "Target-Of: deb", "Created-By: Packages", "Component: main",
           "--format=$(RELEASE)|$(CODENAME)|$(REPO_URI)|$(SOURCESENTRY)"]
    # First what apt has index files of, with the codenames in them; then all that is configured,
    # which on a machine that never ran `apt-get update` is all there is.
    listing = run(ask).stdout + run([*ask, "-o", "APT::Get::IndexTargets::ReleaseInfo=false"]).stdout
    own: dict[str, dict[tuple[str, str], dict[str, str]]] = {
        end: {} for end in ("", "-updates", "-security", "-backports")}
    for line in listing.splitlines():
        release, known_as, uri, entry = line.split("|", 3)
        name = release if release.startswith(codename()) else known_as
        end = name.removeprefix(codename())
        if end in own and end != name:
            own[end][uri, release] = {"uris": uri, "suites": release, "components": "main", **_options(entry)}
    if not own[""]:
        raise Err(f"apt's configuration has no entry for this distribution's archive ({codename()} main)",
                  "add it under /etc/apt/sources.list.d and run the same command again")
    return {end: list(entries.values()) for end, entries in own.items()}


def sources(entries: Sequence[dict[str, str]], arch: str, types: str = "deb") -> str:
    """A .sources file with these entries."""
    fields = ({"types": types, "architectures": arch, **entry} for entry in entries)
    return "\n".join("".join(f"{name.title()}: {value}\n" for name, value in entry.items())
                     for entry in fields)


class View:
    """One suite for one architecture, with index files of its own; `types` is deb or deb-src."""

    def __init__(self, suite: str, arch: str, types: str = "deb") -> None:
        self.suite, self.arch, self.types = suite, arch, types
        self.here = cache_dir("apt", f"{suite}-{arch if types == 'deb' else 'source'}")
        self.conf = self.here / "apt.conf"
        self.stamp = self.here / "updated"
        self.name = ("this machine's suites" if suite == OWN else suite) + f" ({arch})"

    def _configure(self) -> None:
        own = machine()
        entries = [entry for entries in own.values() for entry in entries]
        if self.suite != OWN:
            entries = [{**own[""][0], "suites": self.suite}]
        for name in ("state/lists/partial", "cache/archives/partial", "sources"):
            (self.here / name).mkdir(parents=True, exist_ok=True)
        (self.here / "status").write_text("")
        self.conf.write_text(Template(CONF.read_text()).substitute(arch=self.arch, here=self.here))
        text = sources(entries, self.arch, self.types)
        (self.here / "sources" / "archive.sources").write_text(text)

    def update(self) -> None:
        self.stamp.unlink(missing_ok=True)
        self._configure()
        with stage(f"reading the archive's index of {self.name}"):
            done = self.apt("apt-get", "update")
            if done.returncode:
                raise explain(f"reading the index of {self.name}", done)
        self.stamp.touch()

    def apt(self, tool: str, *args: str, cwd: Path | None = None,
            watch: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
        return run([tool, "-c", self.conf, *args], cwd=cwd, env={"LC_ALL": "C"}, check=False, watch=watch)

    def fresh(self) -> bool:
        """Is the index young enough, and none asked for?"""
        age = time.time() - self.stamp.stat().st_mtime if self.stamp.exists() else -1
        return 0 <= age < INDEX_AGE_S and not flag("UPDATE")

    def find(self, package: str) -> dict[str, str]:
        """The index's record of a package; empty if there is none."""
        done = self.apt("apt-cache", "show", "--no-all-versions", package)
        return dict(re.findall(r"(?m)^(\S+): (.*)$", done.stdout.split("\n\n")[0]))

    def get(self, package: str) -> Path | None:
        """The package, downloaded; None if the suite does not have it."""
        # The archive may have moved on since the index was read: then once more with a new index.
        for new in (False, True) if self.fresh() else (True,):
            if new:
                self.update()
            record = self.find(package)
            try:
                if record:
                    return self._download(record)
            except Err:
                if new:
                    raise
        return None

    def _download(self, record: dict[str, str]) -> Path:
        """Into our own directory; what an earlier run left of it is taken up again by apt."""
        partial = self.here / "partial"
        partial.mkdir(exist_ok=True)
        name, version, size = record["Package"], record["Version"], int(record["Size"])
        for old in partial.glob(f"{name}_*.deb"):
            # apt does not look at the content of one that has its size.
            if old.stem.split("_")[1].replace("%3a", ":") != version or old.stat().st_size >= size:
                old.unlink()
        free = shutil.disk_usage(partial).free
        if free < size + (16 << 20):
            raise full(f"{name} takes {size >> 20} MiB, {partial} has {free >> 20} MiB")
        with stage(f"fetching {name} {version}") as step:
            def watch() -> None:
                got = sum(path.stat().st_size for path in partial.glob(f"{name}_*"))
                step.update(f"{got >> 20}/{size >> 20} MiB")

            done = self.apt("apt-get", "download", f"{name}={version}", cwd=partial, watch=watch)
            debs = list(partial.glob(f"{name}_*.deb"))
            if done.returncode or len(debs) != 1:
                raise explain(f"fetching {name} {version}", done)
            step.update(f"{size >> 20} MiB")
        return debs[0]


def _kept(where: Path, package: str, arch: str) -> Path | None:
    """What was fetched last, unless the archive is to be asked."""
    found = [path for path in where.glob(f"{package}_*.deb") if path.stem.rpartition("_")[2] in (arch, "all")]
    found.sort(key=lambda path: path.stat().st_mtime)
    return found[-1] if found and not flag("UPDATE") else None


def _views(suites: Sequence[str], arch: str, types: str = "deb") -> Iterator[View]:
    """Each suite in turn, locked."""
    deps.need("archive")
    for suite in suites:
        view = View(suite, native() if arch == "all" else arch, types)
        with lock(view.here / "lock"):
            yield view


def newest(package: str, suites: Sequence[str], arch: str = "all") -> str:
    """The version that fetch() would take with UPDATE=1, by an index that is no older than a day."""
    for view in _views(suites, arch):
        if not view.fresh():
            view.update()
        if record := view.find(package):
            return record["Version"]
    return ""


def fetch(package: str, *, arch: str = "all", suites: Sequence[str]) -> Path:
    """The .deb, from the first of the suites that has it; "own" are the machine's own suites.

    What was fetched once is kept and used, so that results can be compared; UPDATE=1 in the
    environment asks the archive again.
    """
    where = cache_dir("debs", "+".join(suites))
    if kept := _kept(where, package, arch):
        return kept
    for view in _views(suites, arch):
        if kept := _kept(where, package, arch):
            return kept
        if deb := view.get(package):
            deb.touch()
            return deb.rename(where / deb.name)
    raise Err(f"the archive does not have {package} (any more); looked in: {', '.join(suites)}", ELSEWHERE)


def unpack(deb: Path) -> Path:
    """The directory with the package's files; unpacked once."""
    def make(new: Path) -> None:
        with stage(f"unpacking {deb.name}"):
            run(["dpkg-deb", "-x", deb, new], next_step="run the same command again")
    return made(cache_dir("unpacked") / deb.stem, make)


def _extract(tar: Path, to: Path) -> None:
    to.mkdir()
    run(["tar", "-xf", tar, "-C", to, "--strip-components=1", "--no-same-owner"])


def source(package: str, *, suites: Sequence[str]) -> Path:
    """The directory with a package's upstream source, of the first suite that has it; unpacked once."""
    deps.need("tree")
    root = cache_dir("unpacked")
    for view in _views(suites, native(), "deb-src"):
        kept = sorted(root.glob(f"{package}_*_source-{view.suite}"))
        if kept and not flag("UPDATE"):
            return kept[-1]
        if not view.fresh():
            view.update()
        partial = view.here / "partial" / package
        remove(partial)
        partial.mkdir(parents=True)
        with stage(f"fetching the source of {package}"):
            done = view.apt("apt-get", "source", "--download-only", "--only-source", package, cwd=partial)
        if "Unable to find a source package" in done.stderr:
            continue
        tars = [path for path in partial.glob(f"{package}_*.tar.*")
                if ".debian." not in path.name and path.suffix != ".asc"]
        if done.returncode or len(tars) != 1:
            raise explain(f"fetching the source of {package}", done)
        return made(root / f"{re.split('[.](?:orig|tar)', tars[0].name)[0]}_source-{view.suite}",
                    lambda new: _extract(tars[0], new))
    raise Err(f"the archive does not have the source of {package}; looked in: {', '.join(suites)}",
              "look whether the package has a new name")
