# SPDX-License-Identifier: GPL-2.0-only
"""The layers of tools/, and what the archive's own checkers say."""

from __future__ import annotations

import ast
import subprocess
from collections import Counter
from pathlib import Path

from .conftest import TOP

TOOLS = TOP / "tools"
# The order of tools/__init__.py: each room may use those before it.
LAYERS = ["common", "deps", "results", "queue", "machine", "kernel", "crash", "distro", "check", "fresh",
          "__main__"]


def modules() -> dict[str, Path]:
    """Dotted name below tools -> file, without the tests."""
    found = {path.relative_to(TOOLS).with_suffix(""): path for path in TOOLS.rglob("*.py")}
    return {".".join(name.parts): path for name, path in found.items() if name.parts[0] != "tests"}


def used(name: str, path: Path) -> set[str]:
    """The rooms of tools that a module imports from."""
    rooms = {path.stem for path in TOOLS.iterdir()}
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = name.split(".")[: -node.level] if node.level <= name.count(".") + 1 else ["outside"]
            full = [*package, *(node.module.split(".") if node.module else [])]
            found |= {full[0]} if full else {alias.name for alias in node.names}
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            found |= {word.partition(".")[2].split(".")[0] for word in names if word.split(".")[0] == "tools"}
    return found & (rooms | {"outside"})


def wrong(name: str, path: Path) -> set[str]:
    """What a module uses and must not."""
    room = name.split(".")[0]
    if room == "lint":
        return used(name, path) - {"lint"}
    allowed = {*LAYERS[: LAYERS.index(room) + 1], *(["lint"] if room == "__main__" else [])}
    return used(name, path) - allowed


def test_layers(tmp_path: Path) -> None:
    found = modules()
    assert {name.split(".")[0] for name in found} == {*LAYERS, "lint", "__init__"}
    assert {
        name: bad for name, path in found.items() if name != "__init__" and (bad := wrong(name, path))
    } == {}
    # It does see what it looks for.
    lie = tmp_path / "bad.py"
    for room, text in (
        ("queue.x", "from ..machine import find"),
        ("queue.x", "from .. import kernel"),
        ("lint.x", "from ..common import Err"),
        ("common", "import tools.queue.bases"),
        ("results", "from .queue import bases"),
    ):
        lie.write_text(text)
        assert wrong(room, lie), text


def test_names_and_paths() -> None:
    """No two modules of one name, no sys.path."""
    names = Counter(
        path.name for path in modules().values() if path.name not in ("__init__.py", "__main__.py")
    )
    assert [name for name, count in names.items() if count > 1] == []
    this = Path(__file__).name
    assert [
        path for path in TOOLS.rglob("*.py") if path.name != this and "sys.path" in path.read_text()
    ] == []


def run(*command: str | Path) -> str:
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True)
    return done.stdout + done.stderr if done.returncode else ""


def test_types() -> None:
    assert (
        run(
            "mypy",
            "--config-file",
            "tools/mypy.ini",
            "--python-executable",
            "/usr/bin/python3",
            "-p",
            "tools",
        )
        == ""
    )


def test_lines() -> None:
    assert run("flake8", "--max-line-length=110", "tools") == ""


def test_shell() -> None:
    scripts = [*(TOOLS / "distro" / "guest").iterdir(), TOOLS / "distro" / "kit" / "kit"]
    assert run("shellcheck", ".ci/run", *scripts) == ""


def test_the_checkers_see(tmp_path: Path) -> None:
    """Each of them complains where there is something to complain of."""
    (tmp_path / "bad.py").write_text("import os\nx: int = 'a'\n" + "y" * 111 + " = 1\n")
    (tmp_path / "bad.sh").write_text("#!/bin/sh\nrm $1\n")
    said = run("flake8", "--max-line-length=110", tmp_path / "bad.py")
    assert "E501" in said and "F401" in said
    assert "Incompatible types" in run("mypy", "--config-file", "tools/mypy.ini", tmp_path / "bad.py")
    assert "SC2086" in run("shellcheck", tmp_path / "bad.sh")
