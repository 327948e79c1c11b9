# SPDX-License-Identifier: GPL-2.0-only
"""The verbs' list, the configuration and the manifest."""

from __future__ import annotations

import re

import pytest
from .conftest import PYTHON, TOP, Project


def show(project: Project, what: str, code: int = 0, **env: str) -> str:
    done = project.call(what, code=code, **{"BASE": "", **env})
    return done.stdout.strip() if code == 0 else done.stderr


def test_help_names_every_verb_and_no_other(project: Project) -> None:
    text = project.run("make", "help").stdout
    named = [line.split()[0] for line in text.splitlines()]
    code = "from tools.__main__ import VERBS; print(*VERBS)"
    verbs = project.run(PYTHON, "-c", code).stdout.split()
    assert sorted(named) == sorted([*verbs, "defconfig", "help"])
    assert all(len(line.split()) > 1 and len(line) < 100 for line in text.splitlines())


def test_dry_runs_do_nothing(project: Project) -> None:
    named = [line.split()[0] for line in project.run("make", "help").stdout.splitlines()]
    for verb in [*named, "default_defconfig"]:
        assert f"-m tools {verb}" in project.run("make", "-n", verb).stdout or verb == "help"
    assert not project.cache.exists() and not (project.top / ".config").exists()


def test_every_named_configuration_loads(project: Project) -> None:
    (project.top / "patches" / "bases").write_text((TOP / "patches" / "bases").read_text())
    for path in (TOP / "configs").glob("*_defconfig"):
        project.run("make", f"PYTHON={PYTHON}", path.name)
        assert show(project, "config.load()['BASE']")


def test_scenarios_show_that_they_took_effect() -> None:
    """A moment, and what a kernel is told by its command line, can be ignored."""
    for path in (TOP / "configs").glob("*_defconfig"):
        text = path.read_text()
        if re.search("CRASH_MOMENT|(iommu.passthrough|iommu.strict)=", text):
            seen = re.search(r'(?m)^CONFIG_CRASH_SEEN="(.+)"$', text)
            assert seen, path.name
            re.compile(seen[1])


def test_values_have_types_and_an_order(project: Project) -> None:
    assert show(project, "config.load().base") == "9.8"
    assert show(project, "repr(config.load()['CRASH_DELAY_MS'])") == "0"
    (project.top / ".config").write_text("CONFIG_CRASH_DELAY_MS=5\n")
    assert show(project, "config.load()['CRASH_DELAY_MS']") == "5"
    (project.top / "configs" / "x_defconfig").write_text("CONFIG_CRASH_DELAY_MS=7\n")
    assert show(project, "config.load()['CRASH_DELAY_MS']", CONFIG="x_defconfig") == "7"


@pytest.mark.parametrize("line", ["CONFIG_NOPE=y", "CONFIG_CRASH_DELAY_MS=x",
                                  "CONFIG_CRASH_DELAY_MS=99999999", 'CONFIG_BASE="1.0"'])
def test_a_mistake_is_an_error(project: Project, line: str) -> None:
    (project.top / ".config").write_text(line + "\n")
    assert "error:" in show(project, "config.load().base", code=2)


def test_unknown_names(project: Project) -> None:
    assert "choose one of: 9.8" in show(project, "config.load().base", code=2, BASE="1.0")
    assert "default_defconfig" in project.verb("no_defconfig", code=2).stderr


@pytest.mark.parametrize("table", [
    "9.8 linux-source-9.8 own 9.8 supported\n", "9.8 linux-source-9.8 own 9.8\n",
    "9.8 p own 9.8 unheard-of\n",
    "9.8 p own 9.8 default\n9.8 p own 9.8 supported\n", "9.8 p own 9.8 default\n9.7 p own 9.7 default\n",
])
def test_a_broken_manifest(project: Project, table: str) -> None:
    (project.top / "patches" / "bases").write_text(table)
    assert "patches/bases" in show(project, "config.load().base", code=2)


def test_the_newest_base_is_told_by_numbers(project: Project) -> None:
    (project.top / "patches" / "bases").write_text(
        "6.9 p own 6.9 default\n6.12 p own 6.12 supported\n6.2 p own 6.2 supported\n")
    assert show(project, "bases.newest().name") == "6.12"
    with open(project.top / "patches" / "bases", "a") as manifest:
        manifest.write("10.1 p own 10.1 supported\n10.2 p own 10.2 best-effort\n")
    assert show(project, "bases.newest().name") == "10.1"
    assert show(project, "bases.newest('10.1').name") == "6.12"


def test_a_new_base_is_one_row(project: Project) -> None:
    with open(project.top / "patches" / "bases", "a") as manifest:
        manifest.write("10.1  linux-source-10.1  later  10.1  best-effort  # new\n")
    assert show(project, "config.load().base", BASE="10.1") == "10.1"
