# SPDX-License-Identifier: GPL-2.0-only
"""make distro-image: a bootable arm64 disk image of Debian with both kernels, from the archive alone.

    SUITE=      bookworm or trixie; without it, this machine's
    BASE=       whose packages are in it (make deb, with the modules of MODULES= or of the machine)

apt resolves and fetches the packages; the host's dpkg unpacks them into a directory, without running
anything of them. What is left (their preinst and postinst scripts, the initrds, GRUB) runs once inside
the emulated machine, with the distribution's own kernel: no qemu-user is needed. As a user who is not
root all of it runs under fakeroot; no loop device is used.
"""

from __future__ import annotations

import io
import json
import lzma
import os
import re
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import deps, machine
from ..common import FAIL, TOP, USAGE, Err, beside, cache_dir, flag, full, lock, remove, run, say, stage
from ..crash.guest import compile_init, cpio
from ..kernel.build import ARCH
from ..queue import archive, config
from ..queue.store import digest
from . import deb

HERE = Path(__file__).resolve().parent / "guest"
MODULES = TOP / "configs" / "distro.modules"     # of the emulated machine, and what it has not
LESS = TOP / "configs" / "distro.config"
SUITES = ("bookworm", "trixie")
# What a server has at least; the rest comes by their dependencies. Without makedumpfile, which the
# distribution's kernel with its 52-bit virtual addresses is too new for, kdump-tools copies /proc/vmcore.
WANTED = ("?essential", "?priority(required)", "apt", "systemd-sysv", "udev", "dbus", "kmod", "iproute2",
          "initramfs-tools", "busybox", "zstd", "e2fsprogs", "dosfstools", "grub-efi-arm64", "kdump-tools",
          "python3", "linux-image-arm64")
AR_MAGIC, AR_HEAD = b"!<arch>\n", 60
BOOT_MODULES = ("nvme", "crc32c_generic", "ext4", "vfat", "nls_cp437", "nls_ascii")
MIB = 1 << 20
START = 1 * MIB                 # of the first partition
ESP, ROOT = 64 * MIB, 2048 * MIB
OFFSET = START + ESP            # of the root's file system
SPACE = 6 << 30
KEEP = 4                        # images of one suite that are kept
LIMIT_S = 3600                  # for the second stage
UUID = "5d3a1b0e-6b7c-4f7e-9a51-5a4d4d555633"
ESP_ID = "5A4D4D55"             # as mkfs.vfat takes it
DONE = "second stage: done"

FILES = {
    "etc/hostname": "crash\n",
    "etc/fstab": f"UUID={UUID} / ext4 noatime,errors=remount-ro 0 1\n"
                 f"UUID={ESP_ID[:4]}-{ESP_ID[4:]} /boot/efi vfat umask=0077 0 2\n"
                 "LABEL=crash /var/crash ext4 defaults 0 2\n",
    # Emulated, "most" would take minutes for each kernel.
    "etc/initramfs-tools/conf.d/modules": "MODULES=dep\nCOMPRESSLEVEL=1\n",
    "etc/default/grub.d/00-test.cfg":
        "GRUB_DEFAULT=saved\nGRUB_TIMEOUT=0\nGRUB_DISABLE_SUBMENU=y\n"
        "GRUB_CMDLINE_LINUX=\"console=ttyAMA0 iomem=relaxed\"\n"
        "GRUB_CMDLINE_LINUX_DEFAULT=\"\"\n",
    # As much as kdump-tools' own file, read before, takes of a machine of 2 GiB; this one has 1.
    "etc/default/grub.d/zz-test.cfg": "GRUB_CMDLINE_LINUX_DEFAULT=\"crashkernel=320M\"\n",
    # A server's network is up, in the crash kernel, too: with it the card gets a domain of its own.
    "etc/udev/rules.d/90-crash-kernel.rules":
        'ACTION=="add", SUBSYSTEM=="net", TEST=="/proc/vmcore", RUN+="/usr/sbin/ip link set $name up"\n',
    # An emulated machine may be slow.
    "etc/systemd/system.conf.d/test.conf":
        "[Manager]\nDefaultTimeoutStartSec=900s\nDefaultDeviceTimeoutSec=900s\n",
    "etc/systemd/system/crash-test.service":
        "[Unit]\nDescription=Crash test\nAfter=kdump-tools.service local-fs.target\n"
        "[Service]\nType=oneshot\nExecStart=/usr/local/sbin/crash-test\nStandardOutput=journal+console\n"
        "[Install]\nWantedBy=multi-user.target\n",
}


@dataclass(frozen=True)
class Image:
    path: Path
    releases: dict[str, str]    # "unpatched", "patched": the kernels to crash, as of uname -r
    packages: deb.Packages      # of the patched one


def suite_of(name: str) -> str:
    name = name or archive.codename()
    if name not in SUITES:
        raise Err(f"SUITE={name}: there is an image of {' and of '.join(SUITES)} alone", code=USAGE)
    return name


def closure(suite: str, names: Sequence[str]) -> list[Path]:
    """The packages with all that they depend on, as apt resolves it; what was fetched once is kept."""
    view = archive.View(archive.OWN if suite == archive.codename() else suite, ARCH)
    record = cache_dir("distro", suite) / f"packages-{digest(*names)[:16]}.json"
    with lock(view.here / "lock"):
        if record.exists() and not flag("UPDATE"):
            kept = [Path(path) for path in json.loads(record.read_text())]
            if all(path.exists() for path in kept):
                return kept
        if not view.fresh():
            view.update()
        with stage(f"fetching the packages of {suite}") as step:
            done = view.apt("apt-get", "install", "--yes", "--no-install-recommends", "--download-only",
                            "-o", "APT::Keep-Downloaded-Packages=true", *names)
            if done.returncode:
                raise archive.explain(f"fetching the packages of {suite}", done)
            said = view.apt("apt-get", "install", "--yes", "--no-install-recommends", "--simulate", *names)
            found = [_downloaded(view, *match) for match in
                     re.findall(r"(?m)^Inst (\S+) .*?\((\S+) .*?\[(\w+)\]\)", said.stdout)]
            step.update(f"{len(found)} packages, {sum(path.stat().st_size for path in found) >> 20} MiB")
        record.write_text(json.dumps([str(path) for path in found]))
    return found


def _downloaded(view: archive.View, name: str, version: str, arch: str) -> Path:
    return view.here / "cache/archives" / f"{name.split(':')[0]}_{version.replace(':', '%3a')}_{arch}.deb"


def without_preinst(package: Path, new: Path, scratch: Path) -> bytes:
    """A package that dpkg can unpack here, where its preinst must not run; returns that script."""
    run(["dpkg-deb", "--control", package, scratch])
    files = {path.name: path.read_bytes() for path in sorted(scratch.iterdir())}
    modes = {path.name: path.stat().st_mode & 0o777 for path in scratch.iterdir()}
    remove(scratch)
    script = files.pop("preinst", b"")
    if not script:
        new.symlink_to(package)
        return b""
    control = io.BytesIO()
    with tarfile.open(fileobj=control, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size, info.mode = len(content), modes[name]
            tar.addfile(info, io.BytesIO(content))
    with open(package, "rb") as old, open(new, "wb") as out:
        out.write(old.read(len(AR_MAGIC)))
        while head := old.read(AR_HEAD):
            size = int(head[48:58])
            body = old.read(size + size % 2)[:size]
            if head.startswith(b"control.tar"):
                body = control.getvalue()
                head = b"%-16s%s%-10d`\n" % (b"control.tar", head[16:48], len(body))
            out.write(head + body + b"\n" * (len(body) % 2))
    return script


def _tree(where: Path, debs: Sequence[Path]) -> None:
    """What the root is made of: debs/ to be unpacked, files/ to be laid over that."""
    files = where / "files"
    (where / "debs").mkdir(parents=True)
    late = files / "second-stage.d"
    late.mkdir(parents=True)
    for number, package in enumerate(debs):
        name = package.name.split("_")[0]
        script = without_preinst(package, where / "debs" / f"{number:03}-{package.name}", where / "control")
        if script:
            _file(late / f"{name}.preinst", script, 0o755)
    _file(late / "uuid", UUID)
    _file(late / "esp", f"{ESP_ID[:4]}-{ESP_ID[4:]}")
    _file(files / "etc/initramfs-tools/hooks/nvme", (HERE / "nvme").read_bytes(), 0o755)
    _file(files / "second-stage", (HERE / "second-stage").read_bytes(), 0o755)
    for name in ("crash-test", "kit-test"):
        _file(files / "usr/local/sbin" / name, (HERE / name).read_bytes(), 0o755)
    _file(files / "usr/local/sbin/crash-workload", compile_init(), 0o755)
    for name, text in FILES.items():
        _file(files / name, text)
    (files / "boot/efi").mkdir(parents=True)
    (files / "var/crash").mkdir(parents=True)


def _file(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)


def _assemble(where: Path, image: Path) -> None:
    """The disk, with the packages unpacked on it."""
    with open(image, "wb") as disk:
        disk.truncate(OFFSET + ROOT + MIB)
    table = ("label: gpt", f"label-id: {UUID}", f"start={START >> 9},size={ESP >> 9},type=U",
             f"size={ROOT >> 9},type=L")
    run(["sfdisk", "--quiet", image], data="\n".join(table).encode() + b"\n")
    run(["mkfs.vfat", "-F", "32", "-s", "1", "-i", ESP_ID, f"--offset={START >> 9}", image, str(ESP >> 10)])
    root = where / "root"
    fake = [] if os.geteuid() == 0 else ["fakeroot"]
    run([*fake, "sh", "-e", "-c", UNPACK, "unpack", where, root, image],
        env={"SOURCE_DATE_EPOCH": deb.EPOCH, "LC_ALL": "C"})


# $1: the directory of _tree(), $2: the root, $3: the disk
UNPACK = f"""
umask 022
mkdir -p "$2/usr/bin" "$2/usr/sbin" "$2/usr/lib" "$2/var/lib/dpkg/info" "$2/var/lib/dpkg/updates"
for name in bin sbin lib; do ln -s "usr/$name" "$2/$name"; done
: >"$2/var/lib/dpkg/status"
dpkg --root="$2" --force-architecture,depends,not-root,bad-path,unsafe-io,script-chrootless \
     --path-exclude='/usr/share/man/*' --path-exclude='/usr/share/locale/*' \
     --path-exclude='/usr/share/info/*' --log="$1/dpkg.log" --unpack "$1"/debs/*.deb >"$1/unpack.log" 2>&1 ||
     {{ tail -n 20 "$1/unpack.log" >&2; exit 1; }}
cp -R --preserve=mode "$1/files/." "$2/"
chown -R 0:0 "$2/second-stage.d" "$2/usr/local/sbin"
mke2fs -q -t ext4 -U {UUID} -L root -m 0 -d "$2" \
       -E "offset={OFFSET},hash_seed={UUID},lazy_itable_init=0,root_owner=0:0" "$3" {ROOT >> 10}k
"""


def _boot_initrd(kernel: Path, release: str) -> bytes:
    """An initrd that goes on in the image: a shell, and the modules of its disk and file systems."""
    # A merged /usr or not: depmod looks in lib/modules.
    top = kernel if (kernel / "lib/modules").is_dir() else kernel / "usr"
    where = top / "lib/modules" / release
    if not (where / "modules.dep").exists():
        run(["depmod", "-b", top, release])
    needs = {Path(name).name.split(".")[0].replace("-", "_"): (name, after.split()) for name, _, after in
             (line.partition(": ") for line in re.sub(r":$", ": ", (where / "modules.dep").read_text(),
                                                      flags=re.MULTILINE).splitlines())}
    names: list[str] = []
    for module in BOOT_MODULES:
        if module in needs:             # else it is built in
            names += [*reversed(needs[module][1]), needs[module][0]]
    files = {f"modules/{number:02}": _plain(where / name)
             for number, name in enumerate(dict.fromkeys(names))}
    shell = archive.unpack(archive.fetch("busybox-static", arch=ARCH, suites=[archive.OWN]))
    busybox = next(path for path in (shell / "bin/busybox", shell / "usr/bin/busybox") if path.is_file())
    return cpio({"init": (HERE / "init").read_bytes(), "bin/busybox": busybox.read_bytes(), **files})


def _plain(module: Path) -> bytes:
    data = module.read_bytes()
    return lzma.decompress(data) if module.suffix == ".xz" else data


def _second_stage(where: Path, image: Path, package: Path, release: str) -> None:
    """Boot it once, and let it configure itself."""
    qemu, _ = machine.find()
    kernel = archive.unpack(package)
    initrd = where / "initrd"
    initrd.write_bytes(_boot_initrd(kernel, release))
    argv = [*machine.command(qemu, kernel / "boot" / f"vmlinuz-{release}", "console=ttyAMA0 quiet panic=-1",
                             memory="2G"),
            "-bios", machine.FIRMWARE, "-initrd", str(initrd),
            "-drive", f"file={image},if=none,id=root,format=raw,cache=unsafe",
            "-device", "nvme,drive=root,serial=root"]
    console = where / machine.CONSOLE
    with (stage("configuring the packages inside the machine") as step,
          machine.Machine(where, argv, LIMIT_S) as vm):
        while vm.running(1):
            lines = console.read_text(errors="replace").splitlines()
            step.update(lines[-1].strip()[:60] if lines else "")
    said = console.read_text(errors="replace")
    if DONE not in said:
        why = vm.lost or ", ".join(re.findall(r"second stage: (.*)", said)) or "it ended early"
        raise Err(f"the image could not be configured: {why}", f"its console: {console}", FAIL)


def room(where: Path) -> None:
    if (free := shutil.disk_usage(where).free) < SPACE:
        raise full(f"{where} has {free >> 20} MiB, making an image takes {SPACE >> 20} MiB")


def image(suite: str, base: str, modules: Path, kit: bool = False) -> Image:
    """The image of a suite with the packages of a base, from what is kept if nothing has changed.

    With `kit` both kernels are ours, and have the repro kit's test-only delay."""
    deps.need("image", "guest", "qemu", "uefi")
    less = LESS if modules == MODULES else None
    ours = {which: deb.packages(base, modules, less, which if kit else "")
            for which in ("unpatched", "patched") if kit or which == "patched"}
    found = closure(suite, WANTED)
    kernel = next(path for path in found if re.match(r"linux-image-\d.*-arm64_", path.name))
    own = kernel.name.removeprefix("linux-image-").split("_")[0]
    parts = [path.read_bytes() for path in (Path(__file__), *sorted(HERE.iterdir()))]
    key = digest(*(path.name for path in found), *(str(one.directory) for one in ours.values()),
                 compile_init(), *parts)[:16]
    there = cache_dir("distro", suite, "images") / key
    with lock(there.parent / "lock"):
        if not there.is_dir():
            room(there.parent)
            with beside(there) as new:
                new.mkdir()
                _make(new, [*found, *(one.get("image") for one in ours.values())], kernel, own)
        os.utime(there)
        for old in sorted(there.parent.glob("*/"), key=lambda path: path.stat().st_mtime)[:-KEEP]:
            remove(old)
    releases = {"unpatched": own} | {which: one.release for which, one in ours.items()}
    return Image(there / "disk.raw", releases, ours["patched"])


def _make(new: Path, debs: Sequence[Path], kernel: Path, release: str) -> None:
    disk = new / "disk.raw"
    work = new / "work"
    with stage("unpacking the packages"):
        _tree(work, debs)
        _assemble(work, disk)
    remove(work / "root")
    _second_stage(work, disk, kernel, release)
    (work / machine.CONSOLE).rename(new / machine.CONSOLE)
    remove(work)


def main() -> int:
    """make distro-image"""
    suite = suite_of(os.environ.get("SUITE", ""))
    base = os.environ.get("BASE") or config.load().base
    given = os.environ.get("MODULES")
    found = image(suite, base, Path(given).expanduser() if given else MODULES)
    say(f"{suite} with {' and '.join(found.releases.values())}, "
        f"{found.path.stat().st_blocks * 512 >> 20} MiB on disk; log in as root on its console")
    print(found.path)
    return 0
