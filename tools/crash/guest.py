# SPDX-License-Identifier: GPL-2.0-only
"""The initramfs of both kernels: our init, and the archive's kexec and makedumpfile.

The arm64 packages are unpacked, never run here. Both archives are plain cpio: unpacking
one is cheaper for an emulated CPU than inflating it.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from .. import deps
from ..common import TOP, Err, cache_dir, made, run, stage
from ..kernel.build import ARCH, CROSS
from ..queue import archive

HERE = Path(__file__).resolve().parent

# program: (its package, where it is in it, where init.c expects it)
PROGRAMS = {
    "kexec": ("kexec-tools", ("sbin/kexec", "usr/sbin/kexec"), "sbin/kexec"),
    "makedumpfile": ("makedumpfile", ("usr/bin/makedumpfile", "usr/sbin/makedumpfile"),
                     "usr/bin/makedumpfile"),
}
KEEP = 8                    # initramfs that are kept, one for each kernel
LIBRARIES = "lib/aarch64-linux-gnu"


def needed(elf: Path) -> list[str]:
    """The shared libraries that an ELF file names."""
    listing = run([CROSS + "readelf", "-dW", elf], env={"LC_ALL": "C"}).stdout
    return re.findall(r"\(NEEDED\).*\[(.*)\]", listing)


def depends(deb: Path) -> list[str]:
    """The packages that a package depends on, the first of alternatives, without versions."""
    listing = run(["dpkg-deb", "-f", deb, "Depends"]).stdout
    return [re.split(r"[\s(|:]", word.strip())[0] for word in listing.split(",") if word.strip()]


def program(package: str, places: tuple[str, ...]) -> tuple[Path, dict[str, Path]]:
    """A program of the archive and all libraries it needs, by the name they are asked for.

    Packages are followed along Depends, and only while a library is still not found.
    """
    first = archive.fetch(package, arch=ARCH, suites=[archive.OWN])
    top = archive.unpack(first)
    binary = next((top / place for place in places if (top / place).is_file()), None)
    if not binary:
        raise Err(f"package {package} has no {' or '.join(places)}",
                  "it has another layout than this tool knows; mend tools/crash/guest.py")
    found: dict[str, Path] = {}
    files: dict[str, Path] = {}
    wanted = set(needed(binary))
    queue, seen = [first], {package}
    while wanted:
        # Libraries first: kexec-tools also depends on half of the base system.
        names = {name for deb in queue for name in depends(deb) if re.match(r"(lib|zlib)", name)
                 and not re.match(r"lib(perl|pam|debconf)", name)} - seen
        if not names:
            raise Err(f"no package has {', '.join(sorted(wanted))}, which {package} needs",
                      "mend tools/crash/guest.py")
        seen |= names
        queue = [archive.fetch(name, arch=ARCH, suites=[archive.OWN]) for name in sorted(names)]
        files |= {path.name: path for deb in queue for path in archive.unpack(deb).rglob("*.so*")
                  if path.is_file()}
        while hits := wanted & files.keys():
            found |= {soname: files[soname] for soname in hits}
            wanted = wanted.union(*(needed(files[soname]) for soname in hits)) - found.keys()
    return binary, found


def cpio(files: Mapping[str, bytes]) -> bytes:
    """A newc archive: directories as needed, every file executable, and /dev/console."""
    parents = {str(parent) for name in [*files, "dev/console"] for parent in Path(name).parents}
    entries: list[tuple[str, int, bytes, tuple[int, int]]] = [
        (parent, 0o40755, b"", (0, 0)) for parent in sorted(parents - {"."})]
    entries.append(("dev/console", 0o20600, b"", (5, 1)))
    entries += [(name, 0o100755, data, (0, 0)) for name, data in files.items()]
    entries.append(("TRAILER!!!", 0, b"", (0, 0)))
    out = bytearray()
    for inode, (name, mode, data, device) in enumerate(entries, 1):
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4)
        out += data + bytes(-len(data) % 4)
    return bytes(out)


@functools.cache                # a matrix crashes with what it was planned with, whatever is edited meanwhile
def compile_init() -> bytes:
    source = HERE / "guest" / "init.c"
    header = TOP / "include" / "linux" / "smmu-kdump-test.h"
    key = hashlib.sha256(source.read_bytes() + header.read_bytes()).hexdigest()[:16]
    cmd: list[str | Path] = [
        CROSS + "gcc", "-static", "-O2", "-s", "-Wall", "-Wextra", "-I", TOP / "include", source, "-o"]
    return made(cache_dir("crash", "tools") / f"init-{key}", lambda new: run([*cmd, new])).read_bytes()


def programs() -> dict[str, dict[str, bytes]]:
    """Per program: the files it needs in an initramfs."""
    sets = {}
    for name, (package, places, target) in PROGRAMS.items():
        binary, libraries = program(package, places)
        sets[name] = {target: binary.read_bytes()}
        for soname, path in sorted(libraries.items()):
            where = "lib" if soname.startswith("ld-linux") else LIBRARIES
            sets[name][f"{where}/{soname}"] = path.read_bytes()
    return sets


def initrd(image: Path) -> Path:
    """The first kernel's initramfs; it carries the crash kernel (`image`) and its initramfs."""
    deps.need("guest")
    with stage("preparing the guest"):
        init = compile_init()
        sets = programs()
        crash = cpio({"init": init, **sets["makedumpfile"]})
        data = cpio({"init": init, **sets["kexec"], "crash/Image": image.read_bytes(), "crash/initrd": crash})
        key = hashlib.sha256(data).hexdigest()[:16]
        path = cache_dir("crash", "initrd") / f"{key}.cpio"
        made(path, lambda new: new.write_bytes(data))
        os.utime(path)
        for old in sorted(path.parent.glob("*.cpio"), key=lambda p: p.stat().st_mtime)[:-KEEP]:
            old.unlink()
    return path
