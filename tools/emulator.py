# SPDX-License-Identifier: GPL-2.0-only
"""Which QEMU the virtual machines run in."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil

import archive
import deps
from common import Err, cache_dir, run

MIN_QEMU = (10, 0)              # the first that models GBPA
# What of the newer QEMU is unpacked; its libraries are those that the system's QEMU needs.
QEMU_PACKAGES = ("qemu-system-arm", "qemu-system-data", "qemu-system-common")


def version(command: list[str]) -> tuple[int, ...]:
    said = run([*command, "--version"]).stdout
    match = re.search(r"version (\d+)\.(\d+)\.(\d+)", said)
    if not match:
        raise Err(f"{command[0]} does not tell its version: {said.strip()[:80]}")
    return tuple(map(int, match.groups()))


def find() -> tuple[list[str], str]:
    """The system's QEMU if it models GBPA, else a newer one of the backports suite."""
    deps.need("qemu")
    own = version(["qemu-system-aarch64"])
    if own >= MIN_QEMU:
        return ["qemu-system-aarch64"], "QEMU " + ".".join(map(str, own))
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"] + "-backports"
    trees = [archive.unpack(archive.fetch(name, arch=archive.native(), suites=[suite]))
             for name in QEMU_PACKAGES]
    # One directory with the files of all, as the packages refer to each other.
    key = hashlib.sha256(" ".join(tree.name for tree in trees).encode()).hexdigest()[:16]
    top = cache_dir("crash", "tools") / f"qemu-{key}"
    if not top.is_dir():
        partial = top.with_name(f".{top.name}.{os.getpid()}")
        for tree in trees:
            shutil.copytree(tree, partial, symlinks=True, dirs_exist_ok=True)
        partial.rename(top)
    command = [str(top / "usr/bin/qemu-system-aarch64"), "-L", str(top / "usr/share/qemu")]
    found = version(command)
    if found < MIN_QEMU:
        raise Err(f"{suite} has QEMU {'.'.join(map(str, found))}, and GBPA needs 10.0",
                  "install a QEMU that is newer")
    return command, "QEMU " + ".".join(map(str, found))
