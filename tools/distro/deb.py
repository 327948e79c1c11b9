# SPDX-License-Identifier: GPL-2.0-only
"""make deb: Debian packages of a base with the series, by the kernel's own bindeb-pkg.

    BASE=, KSRC=    the kernel
    KCONFIG=        a configuration, in place of the distribution's (its package linux-config-<base>)
    MODULES=        a list of modules, as of lsmod: of the modules only these are built
    DELAY=1         in their place two kernels for the repro kit, with its test-only delay: without and
                    with the series

The packages of equal inputs are equal, wherever and whenever they are built. A build that was
stopped goes on where it was: make's rule for a file runs again until its .cmd file is written,
which is done after the file, so that nothing half-written is taken for done.
"""

from __future__ import annotations

import dataclasses
import lzma
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from .. import deps
from ..common import USAGE, Err, beside, flag, full, lock, remove, run, say, stage
from ..kernel.build import ARCH, FIXED, compiler, make, run_make
from ..queue import archive, config
from ..queue.store import NOBODY, Store, digest
from .kit import pack

FLAVOUR = "config.arm64_none_arm64.xz"      # of the package linux-config-<base>
# What would differ between two builds: the changelog's date, and comments with the path of the build.
FIXES = {"scripts/package/mkdebian": ("$(date -R)", '$(date -R -u -d "@$SOURCE_DATE_EPOCH")'),
         "scripts/package/install-extmod-build": ("-name '*.o'", "-name '*.[os]'")}
KEEP = 2                        # sets of packages that are kept
# With the repro kit's delay. That with the series sorts above the other, so that GRUB boots it first.
DELAYED = {"unpatched": "delay.control", "patched": "delay.series"}
ALONE = "pkg.linux-upstream.nokerneldbg pkg.linux-upstream.nokernelheaders"
GIB = 1 << 30
STEPS, STEP_S = 1400, 1.2       # of any build; of one CPU, each
STEP_SPACE = 850_000            # bytes, with the debug symbols and their package
EPOCH = "946684800"             # of FIXED, in seconds
ENV = FIXED | {
    "KBUILD_BUILD_USER": NOBODY, "KBUILD_BUILD_HOST": NOBODY, "SOURCE_DATE_EPOCH": EPOCH,
    "DEBFULLNAME": NOBODY, "DEBEMAIL": f"{NOBODY}@localhost", "KDEB_CHANGELOG_DIST": "unstable",
    # Of dpkg-deb: with another number of threads it may write other bytes.
    "KDEB_COMPRESS": "zstd", "DPKG_DEB_COMPRESSOR_LEVEL": "5", "DPKG_DEB_THREADS_MAX": "2"}
# A key made by chance would be in the kernel: the modules are not signed.
CHANGED = ("# CONFIG_MODULE_SIG_ALL is not set", 'CONFIG_MODULE_SIG_KEY=""', 'CONFIG_SYSTEM_TRUSTED_KEYS=""',
           'CONFIG_BUILD_SALT=""')
# What names the compiler and its like differs anyhow.
TOOLCHAIN = re.compile(r"CONFIG_(\w*_VERSION(_TEXT)?|(CC|AS|LD|GCC|CLANG|RUSTC?|PAHOLE|TOOLS|BINDGEN)_\w+)\b")
# pkg-config as it is, but for a libcrypto that the headers' sign-file can be linked with for arm64.
PKG_CONFIG = """\
#!/bin/sh
case " $* " in
*" libcrypto "*) echo "{flags}" ;;
*) exec pkg-config "$@" ;;
esac
"""


@dataclasses.dataclass(frozen=True)
class Packages:
    directory: Path
    release: str                # as of uname -r
    version: str                # of the packages
    debs: list[Path]

    def get(self, what: str) -> Path:
        """image, image-dbg or headers."""
        name = {"image": "linux-image", "image-dbg": "linux-image", "headers": "linux-headers"}[what]
        end = "-dbg" if what == "image-dbg" else ""
        return next(deb for deb in self.debs if deb.name.startswith(f"{name}-{self.release}{end}_"))


def versions(source: str, linux: str, series: str) -> tuple[str, str]:
    """The suffix of the release and the version of the packages, which name the series' hash.

    Both sort above the distribution's own of the same source, and below its next ones. `source` is
    the version of the archive's package, which a backport continues with ~; empty for a KSRC=.
    """
    own = re.sub(r"~.*", "", source) or f"{linux}-1"
    return f"+kdump.{series}-{ARCH}", f"{own}+kdump.{series}"


def listed(path: Path) -> list[str]:
    """The modules of a list as lsmod prints it."""
    if not path.is_file():
        raise Err(f"MODULES={path}: no such file", "lsmod >modules on the machine that is to run it", USAGE)
    lines = [line.split() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    names = [words[0] for words in lines[1:]]
    if not names or lines[0][0] != "Module" or not all(re.fullmatch(r"\w+", name) for name in names):
        raise Err(f"MODULES={path}: not a list as lsmod prints it (Module, Size, Used by; one a line)",
                  "lsmod >modules on the machine that is to run it", USAGE)
    return names


def wanted(store: Store) -> tuple[str, str]:
    """The configuration to start from, and where it comes from."""
    if given := os.environ.get("KCONFIG"):
        path = Path(given).expanduser()
        if not path.is_file() or "CONFIG_" not in (text := path.read_text(errors="replace")):
            raise Err(f"KCONFIG={given} is not a kernel configuration", "give a file like .config", USAGE)
        return text, str(path)
    base = store.base
    deb = archive.fetch(f"linux-config-{base.name}", arch=ARCH, suites=base.suites)
    path = archive.unpack(deb) / "usr/src" / f"linux-config-{base.name}" / FLAVOUR
    if not path.is_file():
        raise Err(f"{deb.name} has no {FLAVOUR}", "give a configuration with KCONFIG=")
    return lzma.decompress(path.read_bytes()).decode(), deb.name


def steps_of(text: str) -> int:
    """About as many steps as a build of this configuration takes; a module takes the most."""
    return STEPS + len(re.findall("=y$", text, re.M)) * 8 // 5 + len(re.findall("=m$", text, re.M)) * 8


def estimate(steps: int, counted: Path, cpus: int) -> float:
    """The seconds that so many steps take: as the last build here did, or as is usual."""
    if counted.exists():
        count, seconds = counted.read_text().split()
        return steps * float(seconds) / int(count)
    return steps * STEP_S / cpus


def hours(seconds: float) -> str:
    minutes = max(round(seconds / 60), 1)
    return f"{minutes} minutes" if minutes < 100 else f"{minutes / 60:.1f} hours"


def differences(before: str, after: str) -> list[str]:
    """What was asked for and is not as asked, toolchain apart."""
    def lines(text: str) -> set[str]:
        return {line for line in text.splitlines() if line.startswith("CONFIG_")}
    lost = lines(before) - lines(after)
    return sorted(line for line in lost if not TOOLCHAIN.match(line))


class Build:
    """The build directory of a base: a source tree, and the objects of all modules or of some."""

    def __init__(self, store: Store, modules: Path | None, profiles: str = "") -> None:
        self.store = store
        self.profiles = profiles
        self.modules = modules
        self.source = store.here / "deb" / "source"
        self.here = store.here / "deb" / ("some" if modules else "all")     # the packages come into it
        self.obj = self.here / "obj"
        self.log = self.here / "build.log"
        self.counted = self.here / "counted"

    def make(self, *targets: str) -> tuple[list[str], dict[str, str]]:
        cmd, env = make(self.store, self.obj, *targets, tree=self.source)
        maps = " ".join(f"-ffile-prefix-map={path}={there}" for path, there in (
            (self.obj, "/usr/src/linux-obj"), (self.source, "/usr/src/linux")))
        return [*cmd, "PAHOLE=pahole", f"KCFLAGS={maps}", f"KAFLAGS={maps}"], env | ENV

    def configure(self, text: str, suffix: str) -> str:
        """The configuration that the kernel makes of this one."""
        (self.obj / ".config").write_text(text)
        with stage("configuring") as step:
            for target in ["olddefconfig", *(["localmodconfig"] if self.modules else [])]:
                cmd, env = self.make(target, f"LOCALVERSION={suffix}")
                run_make(step, cmd, env | {"LSMOD": str(self.modules)}, self.log, 0)
        return (self.obj / ".config").read_text()

    def build(self, suffix: str, version: str, steps: int) -> None:
        seconds = estimate(steps, self.counted, os.cpu_count() or 1)
        say(f"expected time: {hours(seconds)} from nothing on this machine with nothing else to do, less if "
            "it goes on after an interruption")
        for old in self.here.glob("*.deb"):
            old.unlink()
        first = not (self.obj / "vmlinux").exists()
        with stage(f"building the packages of {self.store.base.name}") as step:
            pkg_config = self.here / "pkg-config"
            pkg_config.write_text(PKG_CONFIG.format(flags=" ".join(libcrypto())))
            pkg_config.chmod(0o755)
            # What it would miss are arm64's packages; the native ones are deps.need()'s.
            cmd, env = self.make("bindeb-pkg", f"LOCALVERSION={suffix}", "DPKG_FLAGS=--no-check-builddeps",
                                 f"HOSTPKG_CONFIG={pkg_config}")
            env |= {"KDEB_PKGVERSION": version, "DEB_BUILD_PROFILES": self.profiles}
            count = run_make(step, cmd, env, self.log, steps if first else 0)
            if first:
                self.counted.write_text(f"{count} {step.seconds:.0f}\n")


def libcrypto() -> list[str]:
    """How to compile and link with arm64's libcrypto, for programs of the headers package."""
    flags = []
    dev = archive.fetch("libssl-dev", arch=ARCH, suites=[archive.OWN])
    library = run(["dpkg-deb", "-f", dev, "Depends"]).stdout.split()[0]
    for deb in (dev, archive.fetch(library, arch=ARCH, suites=[archive.OWN])):
        top = archive.unpack(deb) / "usr"
        flags += [f"-I{top}/include", f"-I{top}/include/aarch64-linux-gnu", f"-L{top}/lib/aarch64-linux-gnu"]
    return [*flags, "-lcrypto"]


def _commit(store: Store, delay: str) -> str:
    """Base and series, or the base alone; with the repro kit's delay, if there is to be one; with FIXES."""
    patches = [] if delay == "unpatched" else store.queue()
    if delay:
        patches.append(store.here / "deb" / "delay.patch")
        patches[-1].parent.mkdir(exist_ok=True)
        patches[-1].write_bytes(pack.delay_patch())
    commit = store.apply(store.source(), patches)
    files = {}
    for name, (old, new) in FIXES.items():
        text = store.git("cat-file", "blob", f"{commit}:{name}", check=False).stdout
        if old in text:
            files[name] = text.replace(old, new).encode()
    return store.overlay(commit, files, "Equal packages of equal builds", instead=True) if files else commit


def _source(store: Store) -> str:
    """The version of the archive's package."""
    name = store.git_dir / "origin"
    found = re.match(r"linux-source-[\d.]+_(.+)_all\n", name.read_text())
    return found[1].replace("%3a", ":") if found else ""


def _packages(there: Path) -> Packages:
    release, version = (there / "release").read_text().split()
    return Packages(there, release, version, sorted(there.glob("*.deb")))


def packages(base: str, modules: Path | None = None, less: Path | None = None, delay: str = "") -> Packages:
    """The packages of a base, from what is kept if nothing has changed; `less` changes the configuration.

    `delay`, "unpatched" or "patched": the kernel alone, with the repro kit's test-only delay."""
    store = Store(base)
    deps.need("kernel", "deb", "archive")
    names = listed(modules) if modules else []
    text, origin = wanted(store)
    text += "\n".join(["", *CHANGED, less.read_text() if less else "", ""])
    with store.lock():
        commit = _commit(store, delay)
        linux = store.version().removeprefix("Linux ")
        named = DELAYED[delay] if delay else store.series_hash()
        suffix, version = versions(_source(store), linux, named)
    key = digest(store.tree_of(commit), text, *names, compiler(), repr(ENV), version)[:16]
    build = Build(store, modules and modules.absolute(), ALONE if delay else "")
    # What an image's kernel is without is a server's lack: these packages are not make deb's.
    there = store.here / ("image-" * bool(less) + "debs" + "-delay" * bool(delay)) / key
    build.obj.mkdir(parents=True, exist_ok=True)
    if not there.is_dir():
        with lock(store.here / "deb" / "lock"):
            if not there.is_dir():
                _build(build, commit, text, origin, suffix, version, there)
            for old in sorted(there.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEEP]:
                remove(old)
    os.utime(there)
    return _packages(there)


def room(obj: Path, steps: int) -> None:
    """For what the build takes, less what it has from the last time."""
    free, space = shutil.disk_usage(obj).free, GIB + steps * STEP_SPACE
    used = int(run(["du", "-sB1", obj]).stdout.split()[0])
    if free + used < space:
        raise full(f"{obj} has {free // GIB} GiB, such a build takes {space // GIB} GiB")


def _build(build: Build, commit: str, text: str, origin: str, suffix: str, version: str, there: Path) -> None:
    store = build.store
    build.log.write_text("")
    with stage("writing the source tree"), store.lock():
        store.check_out(commit, build.source)
    took = build.configure(text, suffix)
    lost = [] if build.modules else differences(text, took)
    say(f"configuration of {origin}" + (f", with the modules of {build.modules}" if build.modules else "")
        + (f"; not as there: {', '.join(lost[:8])}" + (f" and {len(lost) - 8} more" * (len(lost) > 8))
           if lost else ""))
    steps = steps_of(took)
    room(build.obj, steps)
    build.build(suffix, version, steps)
    there.parent.mkdir(exist_ok=True)
    with beside(there) as new:
        new.mkdir()
        for deb in build.here.glob("*.deb"):
            if not deb.name.startswith("linux-libc-dev"):       # the distribution's stays
                deb.rename(new / deb.name)
        release = (build.obj / "include/config/kernel.release").read_text().strip()
        (new / "release").write_text(f"{release}\n{version}\n")
        control = DELAYED["unpatched"] in version
        (new / "series").write_text("none\n" if control else f"{store.series_hash()}\n")
        shutil.copy(build.obj / ".config", new / "config")


def sizes(debs: Sequence[Path]) -> str:
    return "".join(f"  {deb.stat().st_size / (1 << 20):8.1f} MiB  {deb.name}\n" for deb in debs)


def main() -> int:
    """make deb"""
    given = os.environ.get("MODULES")
    for delay in DELAYED if flag("DELAY") else ("",):
        found = packages(os.environ.get("BASE") or config.load().base,
                         Path(given).expanduser() if given else None, delay=delay)
        say(f"{found.release}, packages of version {found.version}:\n{sizes(found.debs).rstrip()}")
        print(found.directory)
    return 0
