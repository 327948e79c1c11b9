# SPDX-License-Identifier: GPL-2.0-only
"""A sparse that a kernel tree accepts: the system's, or one built from a newer suite's source.

A tree refuses a sparse that is too old with one line of a warning and goes on without any
checking, so it is asked here, with its own script.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .. import deps
from ..common import Err, cache_dir, made, run, stage
from ..queue import archive

SUITES = ("forky", "sid")       # where newer ones are looked for, in this order


def accepts(tree: Path, sparse: str) -> bool:
    script = tree / "scripts" / "checker-valid.sh"
    if not script.is_file():
        return True
    return run(["sh", script, sparse, "-D__linux__", "-m64"], check=False).stdout.strip() == "1"


def version(sparse: str) -> str:
    done = run([sparse, "--version"], check=False)
    return (done.stdout + done.stderr).strip()


def _build(suite: str) -> str:
    source = archive.source("sparse", suites=[suite])

    def make(new: Path) -> None:
        deps.need("kernel")
        shutil.copytree(source, new, symlinks=True)
        with stage(f"building {source.name}"):
            # The checker alone: the other programs want libraries.
            run(["make", "-C", new, f"-j{os.cpu_count() or 1}", "sparse", "HAVE_LLVM=no", "HAVE_SQLITE=no",
                 "HAVE_LIBXML=no", "HAVE_GTK=no"], env={"MAKEFLAGS": None, "MFLAGS": None},
                next_step=f"the source: {source}")

    return str(made(cache_dir("sparse") / source.name, make) / "sparse")


def find(tree: Path) -> str:
    """The first that the tree accepts; Err when there is none."""
    own = shutil.which("sparse")
    if own and accepts(tree, own):
        return own
    reasons = [f"{own} ({version(own)}) is too old for this kernel" if own else "sparse is not installed"]
    for suite in SUITES:
        try:
            built = _build(suite)
        except Err as err:
            reasons.append(f"{suite}: {err.cause}")
            continue
        if accepts(tree, built):
            return built
        reasons.append(f"{suite}: {version(built)} is too old as well")
    raise Err("no sparse that this kernel accepts: " + "; ".join(reasons), "install a newer sparse")
