# SPDX-License-Identifier: GPL-2.0-only
"""Packages from the distribution's archive, also of other suites and architectures.

apt does the work, with the machine's own settings (proxy, mirror, keyrings), but with index
files and entries of its own under our cache: the system's apt state is never touched. A
suite is looked at through a "view", one private apt state for one suite and architecture.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from ..common import DISK_FULL, Err, cache_dir, flag, lock, run, stage, tail
from . import deps

INDEX_AGE_S = 24 * 3600
OWN = "own"

# Fields of an entry which choose what is fetched; the others say how, and are kept.
CHOOSING = {"types", "uris", "suites", "components", "architectures", "languages", "targets", "enabled"}

CONF = """\
// Hooks of the system's configuration are not meant for this private state.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Architectures;
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Dir::State "{here}/state";
Dir::State::lists "{here}/state/lists";
Dir::State::status "{here}/status";
Dir::Cache "{here}/cache";
Dir::Cache::archives "{here}/cache/archives";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{here}/sources";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
"""

# What apt says: what it means, and what to do.
MEANINGS = (
    (r"NO_PUBKEY|not signed|GPG error|couldn't be verified|signature.*invalid|EXPKEYSIG|REVKEYSIG",
     "the archive's signature does not check out",
     "check Signed-By of the entry in /etc/apt, and that the archive's keyring package is up to date"),
    (r"is expired|not valid yet|invalid since",
     "the archive's index has expired",
     "check the clock, or choose a mirror that is kept up to date; then run the same command again"),
    (r"resolv|onnect(ion)? (to|timed out|refused|failed)|unreachable|annot initiate the connection|Could not connect",
     "the archive cannot be reached",
     "check the network and the proxy in apt's configuration; then run the same command again"),
    (r"does not have a Release file|404|File not found|no longer has",
     "the archive does not have it (any more)",
     "KSRC=<kernel tree> takes the kernel from elsewhere; or look whether the package has a new name"),
    (r"mismatch|unexpected size|cut short|Undetermined|closed connection|closed prematurely|reading from server",
     "the download was cut short or damaged",
     "run the same command again; it goes on where it stopped"),
)


def native() -> str:
    return run(["dpkg", "--print-architecture"]).stdout.strip()


def _explain(doing: str, output: str) -> Err:
    lines = [line for line in output.splitlines() if line.startswith(("E:", "W:", "Err:"))] or output.splitlines()
    for pattern, cause, next_step in MEANINGS:
        hits = [line for line in lines if re.search(pattern, line)]
        if hits:
            return Err(f"{doing}: {cause}: {hits[0].strip()}", next_step)
    return Err(f"{doing} failed:\n{tail(output)}", "mend that and run the same command again")


def _stanzas(path: Path) -> list[dict[str, str]]:
    """The entries of one file of apt's configuration, either format, as deb822 fields."""
    if path.suffix == ".sources":
        found = []
        text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
        for block in re.split(r"\n\s*\n", text):
            fields = re.findall(r"^(\S+?):[ \t]*(.*(?:\n[ \t].*)*)", block, re.MULTILINE)
            found.append({name.lower(): value for name, value in fields})
        return found
    found = []
    for line in path.read_text().splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)", line)
        if match:
            options = dict(word.split("=", 1) for word in (match[1] or "").split() if "=" in word)
            found.append({"uris": match[2], "suites": match[3],
                          **{name.lower(): value.replace(",", " ") for name, value in options.items()}})
    return found


def _machine() -> list[dict[str, str]]:
    """The machine's own entries for the distribution it runs, the main one first."""
    fields = ("Release", "Codename", "Component", "Repo-URI", "Sourcesentry", "Created-By", "Target-Of")
    # First what apt has index files of, with the codenames in them; then all that is configured,
    # which on a machine that never ran `apt-get update` is all there is.
    ask = ["apt-get", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "indextargets"]
    listing = run(ask).stdout + "\n\n" + run([*ask, "-o", "APT::Get::IndexTargets::ReleaseInfo=false"]).stdout
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    entries: dict[tuple[str, str], dict[str, str]] = {}
    for block in listing.split("\n\n"):
        target = dict(line.partition(": ")[::2] for line in block.splitlines())
        release, known_as, component, uri, source, created_by, kind = (target.get(name, "") for name in fields)
        if (kind, created_by) != ("deb", "Packages"):
            continue
        name = release if release.startswith(codename) else known_as
        if name not in [codename + end for end in ("", "-updates", "-security", "-backports")]:
            continue
        entry = entries.setdefault((uri, release), {"uris": uri, "suites": release, "components": "", "name": name})
        if component not in entry["components"].split():
            entry["components"] = f"{entry['components']} {component}".strip()
        for stanza in _stanzas(Path(source.rpartition(":")[0])):
            if (release in stanza.get("suites", "").split()
                    and uri.rstrip("/") in [word.rstrip("/") for word in stanza.get("uris", "").split()]):
                entry.update({name: value for name, value in stanza.items() if name not in CHOOSING | {"arch"}})
    own = sorted((entry for entry in entries.values() if "main" in entry["components"].split()),
                 key=lambda entry: entry["name"] != codename)
    if not own or own[0]["name"] != codename:
        raise Err(f"apt's configuration has no entry for this distribution's archive ({codename or 'unknown'} main)",
                  "add it under /etc/apt/sources.list.d and run the same command again")
    return own


class View:
    """One suite for one architecture, with index files of its own; `types` is deb or deb-src."""

    def __init__(self, suite: str, arch: str, types: str = "deb") -> None:
        self.suite = suite
        self.arch = arch
        self.types = types
        self.here = cache_dir("apt", f"{suite}-{arch if types == 'deb' else 'source'}")
        self.conf = self.here / "apt.conf"
        self.stamp = self.here / "updated"
        self.name = f"{'this machine' + chr(39) + 's suites' if suite == OWN else suite} ({arch})"

    def _configure(self) -> None:
        entries = _machine()
        if self.suite != OWN:
            entries = [{**entries[0], "suites": self.suite, "components": "main"}]
        text = ""
        for entry in entries:
            fields = {"types": self.types, "architectures": self.arch, **entry}
            del fields["name"]
            text += "".join(f"{name.title()}: {value}\n" for name, value in fields.items()) + "\n"
        for name in ("state/lists/partial", "cache/archives/partial", "sources"):
            (self.here / name).mkdir(parents=True, exist_ok=True)
        (self.here / "status").write_text("")
        self.conf.write_text(CONF.format(arch=self.arch, here=self.here))
        (self.here / "sources" / "archive.sources").write_text(text)

    def update(self) -> None:
        self.stamp.unlink(missing_ok=True)
        self._configure()
        with stage(f"reading the archive's index of {self.name}"):
            done = run(["apt-get", "-c", self.conf, "update"], env={"LC_ALL": "C"}, check=False)
            if done.returncode:
                raise _explain(f"reading the index of {self.name}", done.stdout + done.stderr)
        self.stamp.touch()

    def fresh(self) -> bool:
        try:
            return 0 <= time.time() - self.stamp.stat().st_mtime < INDEX_AGE_S
        except FileNotFoundError:
            return False

    def find(self, package: str, version: str | None) -> dict[str, str] | None:
        """The index's record of a package, or None."""
        name = f"{package}={version}" if version else package
        done = run(["apt-cache", "-c", self.conf, "show", "--no-all-versions", name], env={"LC_ALL": "C"}, check=False)
        fields = re.findall(r"^(\S+): (.*)$", done.stdout.split("\n\n")[0], re.MULTILINE)
        return dict(fields) if done.returncode == 0 and fields else None

    def download(self, record: dict[str, str]) -> Path:
        """Into our own directory; what an earlier run left of it is taken up again by apt."""
        partial = self.here / "partial"
        partial.mkdir(exist_ok=True)
        name, version, size = record["Package"], record["Version"], int(record["Size"])
        free = shutil.disk_usage(partial).free
        if free < size + (16 << 20):
            raise Err(f"no space left for {name} ({size >> 20} MiB): {partial} has {free >> 20} MiB",
                      "free some space, or set XDG_CACHE_HOME to a larger disk, and run the same command again")
        with stage(f"fetching {name} {version}") as step:
            with open(partial / f"{name}.log", "w+") as log:
                apt = subprocess.Popen(["apt-get", "-c", str(self.conf), "download", f"{name}={version}"],
                                       cwd=partial, env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=log)
                try:
                    while True:
                        try:
                            apt.wait(0.2)
                            break
                        except subprocess.TimeoutExpired:
                            got = sum(path.stat().st_size for path in partial.glob(f"{name}_*"))
                            step.update(f"{got >> 20}/{size >> 20} MiB")
                finally:
                    apt.terminate()
                    apt.wait()
                log.seek(0)
                output = log.read()
            if DISK_FULL.search(output):
                raise Err(f"no space left on the disk of {partial} for {name} ({size >> 20} MiB)",
                          "free some space, or set XDG_CACHE_HOME to a larger disk, and run the same command again")
            debs = list(partial.glob(f"{name}_*.deb"))
            if apt.returncode or len(debs) != 1:
                raise _explain(f"fetching {name} {version}", output)
            with open(debs[0], "rb") as handle:
                found = hashlib.file_digest(handle, "sha256").hexdigest()
            if found != record["SHA256"]:
                debs[0].unlink()
                raise Err(f"fetching {name} {version}: the download was cut short or damaged (SHA256 {found})",
                          "run the same command again")
            step.update(f"{size >> 20} MiB")
        return debs[0]


def _kept(where: Path, package: str, arch: str, version: str | None) -> Path | None:
    best: tuple[str, Path] | None = None
    for path in where.glob(f"{package}_*.deb"):
        _, found, found_arch = path.stem.replace("%3a", ":").split("_")
        if found_arch not in (arch, "all") or version not in (None, found):
            continue
        if best is None or run(["dpkg", "--compare-versions", found, "gt", best[0]], check=False).returncode == 0:
            best = found, path
    return best[1] if best else None


def fetch(package: str, *, arch: str = "all", suites: Sequence[str], version: str | None = None) -> Path:
    """The .deb, from the first of the suites that has it; "own" are the machine's own suites.

    What was fetched once is kept and used, so that results can be compared; UPDATE=1 in the
    environment asks the archive again.
    """
    ask = flag("UPDATE")
    where = cache_dir("debs", "+".join(suites))
    kept = None if ask else _kept(where, package, arch, version)
    if kept:
        return kept
    deps.need("archive")
    for suite in suites:
        view = View(suite, native() if arch == "all" else arch)
        with lock(view.here / "lock"):
            kept = None if ask else _kept(where, package, arch, version)
            if kept:
                return kept
            asked = ask or not view.fresh()
            if asked:
                view.update()
            record = view.find(package, version)
            if not record and not asked:
                view.update()
                record = view.find(package, version)
                asked = True
            if not record:
                continue
            for old in (view.here / "partial").glob(f"{package}_*.deb"):
                if old.stem.split("_")[1].replace("%3a", ":") != record["Version"]:
                    old.unlink()
            try:
                deb = view.download(record)
            except Err:
                # The archive moved on since the index was read: once more with a new index.
                if asked:
                    raise
                view.update()
                record = view.find(package, version)
                if not record:
                    continue
                deb = view.download(record)
            return deb.rename(where / deb.name)
    wanted = package + (f" {version}" if version else "")
    raise Err(f"the archive does not have {wanted} (any more); looked in: {', '.join(suites)}",
              "KSRC=<kernel tree> takes a kernel from elsewhere; or look whether the package has a new name")


def unpack(deb: Path) -> Path:
    """The directory with the package's files; unpacked once."""
    root = cache_dir("unpacked")
    there = root / deb.stem
    if there.is_dir():
        return there
    with lock(root / "lock"):
        if not there.is_dir():
            partial = root / f".{deb.stem}"
            shutil.rmtree(partial, ignore_errors=True)
            with stage(f"unpacking {deb.name}"):
                run(["dpkg-deb", "-x", deb, partial], next_step="run the same command again")
            partial.rename(there)
    return there


def source(package: str, *, suites: Sequence[str]) -> Path:
    """The directory with a package's upstream source, of the first suite that has it; unpacked once."""
    deps.need("archive", "tree")
    root = cache_dir("unpacked")
    for suite in suites:
        view = View(suite, native(), "deb-src")
        with lock(view.here / "lock"):
            kept = sorted(root.glob(f"{package}_*_source-{suite}"))
            if kept and not flag("UPDATE"):
                return kept[-1]
            if not view.fresh() or flag("UPDATE"):
                view.update()
            partial = view.here / "partial" / package
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            with stage(f"fetching the source of {package}"):
                done = run(["apt-get", "-c", view.conf, "source", "--download-only", "--only-source", package],
                           cwd=partial, env={"LC_ALL": "C"}, check=False)
            tars = [path for path in partial.glob(f"{package}_*.tar.*") if ".debian." not in path.name]
            tars = [path for path in tars if path.suffix != ".asc"]
            if "Unable to find a source package" in done.stderr:
                continue
            if done.returncode or len(tars) != 1:
                raise _explain(f"fetching the source of {package}", done.stdout + done.stderr)
            there = root / f"{tars[0].name.split('.orig')[0].split('.tar')[0]}_source-{suite}"
            if not there.is_dir():
                unpacked = partial / "unpacked"
                unpacked.mkdir()
                run(["tar", "-xf", tars[0], "-C", unpacked, "--strip-components=1", "--no-same-owner"],
                    next_step="run the same command again")
                unpacked.rename(there)
            return there
    raise Err(f"the archive does not have the source of {package}; looked in: {', '.join(suites)}",
              "look whether the package has a new name")
