# SPDX-License-Identifier: GPL-2.0-only
"""The initramfs of both kernels: our init, and the archive's kexec and makedumpfile.

The arm64 packages are unpacked, never run here. Both archives are plain cpio: unpacking
one is cheaper for an emulated CPU than inflating it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from ..common import TOP, Err, cache_dir, run, stage
from ..queue import archive, deps

HERE = Path(__file__).resolve().parent
CROSS = "aarch64-linux-gnu-"
ARCH = "arm64"

# program: (its package, where it is in it, where init.c expects it)
PROGRAMS = {
    "kexec": ("kexec-tools", ("sbin/kexec", "usr/sbin/kexec"), "sbin/kexec"),
    "makedumpfile": ("makedumpfile", ("usr/bin/makedumpfile", "usr/sbin/makedumpfile"),
                     "usr/bin/makedumpfile"),
}
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
    wanted = set(needed(binary))
    queue, seen = [first], {package}
    while wanted:
        # Libraries first: kexec-tools also depends on half of the base system.
        names = [name for deb in queue for name in depends(deb) if name not in seen]
        names = list(dict.fromkeys(name for name in names if re.match(r"(lib|zlib)", name)
                                   and not re.match(r"lib(perl|pam|debconf)", name)))
        if not names:
            raise Err(f"no package has {', '.join(sorted(wanted))}, which {package} needs",
                      "mend tools/crash/guest.py")
        queue = []
        for name in names:
            seen.add(name)
            deb = archive.fetch(name, arch=ARCH, suites=[archive.OWN])
            queue.append(deb)
            files = {path.name: path for path in archive.unpack(deb).rglob("*.so*")
                     if path.is_file()}
            while hits := wanted & files.keys():
                for soname in hits:
                    found[soname] = files[soname]
                    wanted |= set(needed(files[soname]))
                wanted -= found.keys()
    return binary, found


def cpio(files: Mapping[str, bytes]) -> bytes:
    """A newc archive: directories as needed, every file executable, and /dev/console."""
    out = bytearray()
    inode = 0

    def add(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        nonlocal inode
        inode += 1
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
        out.extend(b"070701" + b"".join(b"%08X" % field for field in fields))
        out.extend(name.encode() + b"\0")
        out.extend(bytes(-len(out) % 4))
        out.extend(data)
        out.extend(bytes(-len(out) % 4))

    parents = {str(parent) for name in [*files, "dev/console"] for parent in Path(name).parents}
    for parent in sorted(parents - {"."}):
        add(parent, 0o40755)
    add("dev/console", 0o20600, device=(5, 1))
    for name, data in files.items():
        add(name, 0o100755, data)
    add("TRAILER!!!", 0)
    return bytes(out)


def _keep(path: Path, data: bytes) -> Path:
    """Write a file of the cache, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(data)
    partial.rename(path)
    return path


def compile_init() -> bytes:
    source = HERE / "guest" / "init.c"
    header = TOP / "include" / "linux" / "smmu-kdump-test.h"
    key = hashlib.sha256(source.read_bytes() + header.read_bytes()).hexdigest()[:16]
    binary = cache_dir("crash", "tools") / f"init-{key}"
    if not binary.exists():
        partial = binary.with_name(f".{binary.name}.{os.getpid()}")
        run([CROSS + "gcc", "-static", "-O2", "-s", "-Wall", "-Wextra", "-I", TOP / "include",
             "-o", partial, source])
        partial.rename(binary)
    return binary.read_bytes()


def _programs() -> dict[str, dict[str, bytes]]:
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
        sets = _programs()
        crash = cpio({"init": init, **sets["makedumpfile"]})
        data = cpio({"init": init, **sets["kexec"], "crash/Image": image.read_bytes(),
                     "crash/initrd": crash})
        key = hashlib.sha256(data).hexdigest()[:16]
        path = cache_dir("crash", "initrd") / f"{key}.cpio"
        if not path.exists():
            for old in sorted(path.parent.glob("*.cpio"), key=lambda p: p.stat().st_mtime)[:-8]:
                old.unlink()
            _keep(path, data)
        os.utime(path)
    return path
