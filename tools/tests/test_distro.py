# SPDX-License-Identifier: GPL-2.0-only
"""The series in a distribution: what can be tested without building or booting one."""

from __future__ import annotations

import shutil
import subprocess
from collections import namedtuple
from pathlib import Path

import pytest

from ..common import ENVIRONMENT, USAGE, Err
from ..distro import deb
from .conftest import Project

LSMOD = ("Module                  Size  Used by\n"
         "nvme                   53248  2\nnvme_core             143360  3 nvme\n")
Usage = namedtuple("Usage", "total used free")


def later(one: str, other: str) -> bool:
    return subprocess.run(["dpkg", "--compare-versions", one, "gt", other]).returncode == 0


@pytest.mark.parametrize(
    ("source", "below", "above"),
    [
        ("6.12.117-1~deb12u1", ["6.12.117-1~deb12u1", "6.12.117-1~bpo12+1", "6.12.117-1"],
         ["6.12.117-2", "6.12.118-1~deb12u1"]),
        ("6.12.117-1", ["6.12.117-1", "6.12.100-9"], ["6.12.117-2"]),
        ("7.3.4-1~bpo13+1", ["7.3.4-1~bpo13+1", "7.3.4-1"], ["7.3.4-2~bpo13+1", "7.3.5-1~bpo13+1"]),
        ("", ["6.12.50-1"], ["6.12.50-2"]),
    ])
def test_versions(source: str, below: list[str], above: list[str]) -> None:
    """Above the distribution's own of the same source, below its next."""
    release, version = deb.versions(source, "6.12.50", "0123456789ab")
    assert all(later(version, other) for other in below)
    assert all(later(other, version) for other in above)
    assert "0123456789ab" in release and version.endswith("+kdump.0123456789ab")
    # What GRUB and linux-version go by is the release.
    assert later(f"6.12.117{release}", "6.12.117+deb13-arm64")


@pytest.mark.parametrize("text", ["", "nvme\n", LSMOD.splitlines()[0] + "\n", "\0\1\2", LSMOD + "a/b 1 2\n"])
def test_a_list_that_lsmod_did_not_print(tmp_path: Path, text: str) -> None:
    path = tmp_path / "modules"
    path.write_text(text)
    with pytest.raises(Err, match="not a list as lsmod prints it") as caught:
        deb.listed(path)
    assert caught.value.code == USAGE
    with pytest.raises(Err, match="no such file"):
        deb.listed(tmp_path / "none")


def test_a_list_of_lsmod(tmp_path: Path) -> None:
    (tmp_path / "modules").write_text(LSMOD)
    assert deb.listed(tmp_path / "modules") == ["nvme", "nvme_core"]


def test_expected_time(tmp_path: Path) -> None:
    """Told before anything was counted; then what was counted."""
    whole, local = (deb.steps_of("CONFIG_A=y\n" * built_in + "CONFIG_B=m\n" * modules + 'CONFIG_C="y"\n')
                    for built_in, modules in ((3063, 4165), (2253, 31)))
    assert "hours" in deb.hours(deb.estimate(whole, tmp_path / "counted", 2))
    assert "minutes" in deb.hours(deb.estimate(local, tmp_path / "counted", 2))
    (tmp_path / "counted").write_text("4000 2000\n")
    assert deb.estimate(6000, tmp_path / "counted", 2) == 3000
    assert deb.hours(5) == "1 minutes"


def test_what_is_not_as_asked() -> None:
    before = 'CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_CC_VERSION_TEXT="gcc-14"\n'
    assert deb.differences(before, "CONFIG_A=y\nCONFIG_B=y\n") == ["CONFIG_B=m"]


def test_too_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No build is begun."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 40, 0, 1 << 30))
    with pytest.raises(Err, match="the disk is full: .* has 1 GiB, such a build takes 32 GiB") as caught:
        deb.room(tmp_path, 39_500)
    assert caught.value.code == ENVIRONMENT


def test_bad_variables(project: Project) -> None:
    for verb, env, said in (
            ("deb", {"BASE": "1.2"}, "BASE=1.2: no such base"),
            ("deb", {"MODULES": "nowhere"}, "MODULES=nowhere: no such file"),
            ("deb", {"KCONFIG": "Makefile"}, "KCONFIG=Makefile is not a kernel configuration")):
        done = project.verb(verb, code=USAGE, **env)
        assert said in done.stderr, done.stderr
