# SPDX-License-Identifier: GPL-2.0-only
"""What each verb needs from the distribution's archive.

As root what is missing is installed; anybody else is given the apt-get line that would.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from .common import Err, run, stage

# need: {package: what shows that it is there (a command, a Python module "py:…", a file)}
NEEDS: dict[str, dict[str, str]] = {
    "config": {"python3-kconfiglib": "py:kconfiglib"},
    "archive": {"apt": "apt-get", "dpkg": "dpkg-deb", "gpgv": "gpgv"},
    "tree": {"git": "git", "xz-utils": "xz", "tar": "tar"},
    "b4": {"python3-requests": "py:requests", "git-filter-repo": "py:git_filter_repo", "perl": "perl",
           # b4 does not start without the certificates' file.
           "ca-certificates": "/etc/ssl/certs/ca-certificates.crt"},
    "kernel": {"gcc-aarch64-linux-gnu": "aarch64-linux-gnu-gcc", "gcc": "gcc", "make": "make",
               "libc6-dev": "/usr/include/stdio.h", "flex": "flex", "bison": "bison", "bc": "bc",
               "perl": "perl", "ccache": "ccache"},
    "deb": {"debhelper": "dh", "dpkg-dev": "dpkg-buildpackage", "rsync": "rsync", "kmod": "depmod",
            "cpio": "cpio", "libelf-dev": "/usr/include/libelf.h", "libssl-dev": "/usr/include/openssl/ssl.h",
            "libdw-dev": "/usr/include/dwarf.h", "dwarves": "pahole", "pkg-config": "pkg-config",
            "python3": "python3", "zstd": "zstd"},
    "gate": {"sparse": "sparse", "coccinelle": "spatch",
             "binutils-aarch64-linux-gnu": "aarch64-linux-gnu-nm"},
    "guest": {"gcc-aarch64-linux-gnu": "aarch64-linux-gnu-gcc",
              "libc6-dev-arm64-cross": "/usr/aarch64-linux-gnu/include/stdio.h"},
    "qemu": {"qemu-system-arm": "qemu-system-aarch64"},
    "uefi": {"qemu-efi-aarch64": "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"},
    "dtb": {"device-tree-compiler": "fdtput"},
    "vmcore": {"python3-drgn": "py:drgn"},
    "yaml": {"python3-yaml": "py:yaml"},
    "lava": {"lava-common": "py:lava_common"},
    "picture": {"python3-matplotlib": "py:matplotlib"},
    "image": {"apt": "apt-get", "dpkg": "dpkg-deb", "fakeroot": "fakeroot", "kmod": "depmod",
              "fdisk": "sfdisk", "dosfstools": "mkfs.vfat", "e2fsprogs": "mke2fs"},
    "fresh": {"mmdebstrap": "mmdebstrap", "util-linux": "unshare", "mount": "mount", "git": "git"},
    "tests": {"python3-pytest": "py:pytest", "gnupg": "gpg", "cpio": "cpio", "gcc": "gcc",
              "libc6-dev": "/usr/include/stdio.h", "mypy": "mypy", "flake8": "flake8",
              "shellcheck": "shellcheck", "openssl": "openssl",
              "quilt": "quilt", "dpkg-dev": "dpkg-source", "fakeroot": "fakeroot", "e2fsprogs": "mke2fs",
              # b4, which a test fetches, does not start without the certificates' file.
              "ca-certificates": "/etc/ssl/certs/ca-certificates.crt"},
}


def _there(probe: str) -> bool:
    if probe.startswith("py:"):
        return importlib.util.find_spec(probe[3:]) is not None
    if probe.startswith("/"):
        return Path(probe).exists()
    return shutil.which(probe) is not None


def missing(*needs: str) -> list[str]:
    wanted = {package: probe for need in needs for package, probe in NEEDS[need].items()}
    return sorted(package for package, probe in wanted.items() if not _there(probe))


def need(*needs: str) -> None:
    """Make sure that everything these needs name is installed."""
    lacking = missing(*needs)
    if not lacking:
        return
    line = "apt-get install --no-install-recommends " + " ".join(lacking)
    if os.geteuid() != 0:
        raise Err("not installed: " + " ".join(lacking), f"sudo {line}")
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    with stage("installing " + " ".join(lacking)):
        install = [*line.split(), "--yes"]
        if run(install, env=env, check=False).returncode:
            run(["apt-get", "update"], env=env, next_step=line)
            run(install, env=env, next_step=line)
    importlib.invalidate_caches()
    lacking = missing(*needs)
    if lacking:
        raise Err("installed, and still not found: " + " ".join(lacking), line)
