# SPDX-License-Identifier: GPL-2.0-only
"""The table of the verbs: `python3 -m tools <verb>` does what `make <verb>` does.

The variables of make's command line (BASE=, KSRC=, …) come in the environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from . import check, common, fresh
from .common import USAGE, Err
from .crash import test
from .distro import deb, image, proof
from .distro.kit import pack
from .kernel import bench, build, gate, kunit, mutants
from .lint import __main__ as lint
from .lint import speed
from .queue import bases, config, export, lore, rebase, status, tree
from .queue.store import Store


# A variable of make's command line, and lint's option of that meaning.
OPTIONS = {"REPO": "-C", "SERIES": "--series", "FORMAT": "--format", "IGNORE": "--ignore"}


def _options(*names: str) -> list[str]:
    return [word for name in names if os.environ.get(name) for word in (OPTIONS[name], os.environ[name])]


def lint_branch() -> int:
    """make lint: RANGE=A..B of any repository, or the queue of BASE beside the newest base's."""
    if os.environ.get("RANGE"):
        return lint.main(["compare", *_options("REPO", "SERIES", "FORMAT"), os.environ["RANGE"]])
    mine, newest = bases.get(os.environ.get("BASE") or bases.default().name), bases.newest()
    # Where a change stands can only be proved in the trees.
    mine_tree, newest_tree = (str(tree.EditTree(Store(base.name, "")).tree()) for base in (mine, newest))
    series = os.environ.get("SERIES") or str(newest.patches)
    return lint.main(["compare", "-C", mine_tree, "--onto", tree.BASE_REF, "--reference", newest_tree,
                      "--series", series, *_options("FORMAT"), str(mine.patches)])


def lint_fixes() -> int:
    """make fixes: RANGE=A..B of any repository."""
    if not os.environ.get("RANGE"):
        raise Err("no RANGE= given", "make fixes RANGE=A..B REPO=<repository> LINUX_GIT=<upstream>", USAGE)
    return lint.main(["fixes", *_options("REPO", "IGNORE", "FORMAT"), os.environ["RANGE"]])


VERBS: dict[str, Callable[[], int]] = {
    "crash-test": test.main,
    "scenarios": test.scenarios,
    "chaos": test.chaos,
    "soak": test.soak,
    "check": check.main,
    "check-all": check.everything,
    "check-fresh": fresh.main,
    "kunit": kunit.main,
    "mutants": lambda: mutants.main(test.catches),
    "gate": gate.main,
    "bench": lambda: bench.main(test.memory),
    "status": lambda: status.main(build.build),
    "tree": tree.tree,
    "refresh": tree.refresh,
    "rebase": rebase.main,
    "lore": lore.main,
    "stable": lambda: export.stable(lint.main),
    "branch": lambda: export.branch(lint.main),
    "lint": lint_branch,
    "fixes": lint_fixes,
    "bench-lint": lambda: speed.main([]),
    "deb": deb.main,
    "distro-image": image.main,
    "distro-test": proof.main,
    "repro-kit": pack.main,
    "lava-job": pack.lava_job,
    "menuconfig": config.menuconfig,
}


def main() -> int:
    verb = sys.argv[1] if len(sys.argv) == 2 else ""
    if verb.endswith("defconfig"):
        return config.write(verb)
    if verb not in VERBS:
        raise Err(f"one verb, of: {' '.join(VERBS)} <name>_defconfig", "make help", USAGE)
    return VERBS[verb]()


if __name__ == "__main__":
    common.main(main)
