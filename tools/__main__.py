# SPDX-License-Identifier: GPL-2.0-only
"""The table of the verbs: `python3 -m tools <verb>` does what `make <verb>` does.

The variables of make's command line (BASE=, KSRC=, …) come in the environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from . import check, common
from .common import USAGE, Err
from .crash import test
from .kernel import bench, gate, kunit
from .queue import bases, config, tree
from .queue.store import Store


def _lint_options(*names: str) -> list[str]:
    """`--repo X` for REPO=X of the command line, and so on."""
    given = [name for name in names if os.environ.get(name)]
    return [word for name in given for word in (f"--{name.lower()}", os.environ[name])]


def lint_branch() -> int:
    """make lint: RANGE=A..B of any repository, or the queue of BASE beside the newest base's."""
    options = _lint_options("REPO", "SERIES", "FORMAT")
    if os.environ.get("RANGE"):
        from .lint import __main__ as lint
    return lint.main(["compare", *options, os.environ["RANGE"]])
    mine, newest = bases.get(os.environ.get("BASE") or bases.default().name), bases.newest()
    trees = [str(tree.EditTree(Store(base.name, "")).path) for base in (mine, newest)]
    there = [word for option, path in zip(("--repo", "--reference"), trees) if os.path.isdir(path)
             for word in (option, path)]
    series = [] if "--series" in options else ["--series", str(newest.patches)]
    from .lint import __main__ as lint
    return lint.main(["compare", *there, *series, *options, str(mine.patches)])


def lint_fixes() -> int:
    """make fixes: RANGE=A..B of any repository."""
    if not os.environ.get("RANGE"):
        raise Err("no RANGE= given", "make fixes RANGE=A..B REPO=<repository> LINUX_GIT=<upstream>", USAGE)
    from .lint import __main__ as lint
    return lint.main(["fixes", *_lint_options("REPO", "IGNORE", "FORMAT"), os.environ["RANGE"]])


VERBS: dict[str, Callable[[], int]] = {
    "crash-test": test.main,
    "scenarios": test.scenarios,
    "check": check.main,
    "kunit": kunit.main,
    "gate": gate.main,
    "bench": lambda: bench.main(test.memory),
    "tree": tree.tree,
    "refresh": tree.refresh,
    "lint": lint_branch,
    "fixes": lint_fixes,
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
