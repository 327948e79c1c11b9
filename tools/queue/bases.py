# SPDX-License-Identifier: GPL-2.0-only
"""The manifest of base kernels, patches/bases."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..common import TOP, USAGE, Err

MANIFEST = TOP / "patches" / "bases"
STATUSES = ("default", "supported", "best-effort")


@dataclass(frozen=True)
class Base:
    name: str                   # the kernel series, "6.12"
    package: str                # the archive's source package
    suites: tuple[str, ...]     # where to look for it, in this order; "own" is the machine's own
    patches: Path               # its patch directory
    status: str


def read(path: Path = MANIFEST) -> dict[str, Base]:
    found: dict[str, Base] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if (len(words) != 5 or words[4] not in STATUSES or words[0] in found
                or not re.fullmatch(r"\d+(\.\d+)*", words[0])):
            raise Err(f"{path}:{number}: not a row `base package suites directory status`: {line}",
                      "mend the manifest", USAGE)
        name, package, suites, directory, status = words
        found[name] = Base(name, package, tuple(suites.split(",")), path.parent / directory, status)
    if sum(base.status == "default" for base in found.values()) != 1:
        raise Err(f"{path}: exactly one base has the status `default`", "mend the manifest", USAGE)
    return found


def get(name: str) -> Base:
    known = read()
    if name not in known:
        raise Err(f"BASE={name}: no such base", f"choose one of: {' '.join(known)}", USAGE)
    return known[name]


def default() -> Base:
    return next(base for base in read().values() if base.status == "default")


def newest(but: str = "") -> Base:
    """The one of the highest kernel version that is more than best-effort, this one left out."""
    known = [base for base in read().values() if base.name != but and base.status != "best-effort"]
    if not known:
        raise Err(f"there is no base but {but}", "add one to patches/bases", USAGE)
    return max(known, key=lambda base: tuple(map(int, base.name.split("."))))
