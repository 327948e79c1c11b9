# SPDX-License-Identifier: GPL-2.0-only
"""The series in a distribution: what can be tested without building or booting one."""

from __future__ import annotations

import base64
import json
import re
import shutil
import struct
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from .. import machine
from ..common import ENVIRONMENT, USAGE, Err
from ..crash import judge
from ..crash.workload import Run
from ..distro import deb, image, kdump, proof
from ..queue import config
from ..results import Result, Status
from .conftest import Project

LSMOD = ("Module                  Size  Used by\n"
         "nvme                   53248  2\nnvme_core             143360  3 nvme\n")
RELEASES = {"unpatched": "6.12.117+deb13-arm64", "patched": "6.12.117+kdump.0123456789ab-arm64"}
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
    assert {"nvme", "e1000e", "ext4", "virtio_mmio"} <= set(deb.listed(image.MODULES))


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
    """Neither a build nor an image is begun."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 40, 0, 1 << 30))
    with pytest.raises(Err, match="the disk is full: .* has 1 GiB, such a build takes 32 GiB") as caught:
        deb.room(tmp_path, 39_500)
    assert caught.value.code == ENVIRONMENT
    with pytest.raises(Err, match="the disk is full: .* has 1024 MiB, making an image takes"):
        image.room(tmp_path)


def test_bad_variables(project: Project) -> None:
    for verb, env, said in (
            ("deb", {"BASE": "1.2"}, "BASE=1.2: no such base"),
            ("deb", {"MODULES": "nowhere"}, "MODULES=nowhere: no such file"),
            ("distro-image", {"SUITE": "sid"}, "SUITE=sid: there is an image of bookworm and of trixie"),
            ("distro-test", {"SUITE": "sid"}, "SUITE=sid"),
            ("deb", {"KCONFIG": "Makefile"}, "KCONFIG=Makefile is not a kernel configuration")):
        done = project.verb(verb, code=USAGE, **env)
        assert said in done.stderr, done.stderr


def package(where: Path, preinst: str) -> Path:
    """A small package with a file and, if asked for, a preinst."""
    top = where / "top"
    (top / "DEBIAN").mkdir(parents=True)
    (top / "etc").mkdir()
    (top / "etc" / "a").write_text("a\n")
    (top / "DEBIAN" / "control").write_text(
        "Package: a\nVersion: 1:1\nArchitecture: arm64\nMaintainer: A <a@example.com>\nDescription: a\n")
    (top / "DEBIAN" / "conffiles").write_text("/etc/a\n")
    if preinst:
        (top / "DEBIAN" / "preinst").write_text(preinst)
        (top / "DEBIAN" / "preinst").chmod(0o755)
    path = where / "a_1%3a1_arm64.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", top, path], check=True, capture_output=True)
    return path


@pytest.mark.parametrize("preinst", ["", "#!/bin/sh\nexit 1\n"])
def test_nothing_of_a_package_runs_here(tmp_path: Path, preinst: str) -> None:
    """dpkg unpacks what is left of it, whatever its preinst says."""
    old = package(tmp_path, preinst)
    new = tmp_path / "new.deb"
    assert image.without_preinst(old, new, tmp_path / "control") == preinst.encode()
    root = tmp_path / "root"
    for name in ("info", "updates"):
        (root / "var/lib/dpkg" / name).mkdir(parents=True)
    (root / "var/lib/dpkg/status").write_text("")
    unpack = ["fakeroot", "dpkg", f"--root={root}", "--force-architecture,not-root,script-chrootless",
              "--unpack"]
    done = subprocess.run([*unpack, new], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Status: install ok unpacked" in (root / "var/lib/dpkg/status").read_text()
    # A conffile is put in place when it is configured.
    assert (root / "etc/a.dpkg-new").read_text() == "a\n"
    if preinst:         # as it was, the script would have run
        assert subprocess.run([*unpack, old], capture_output=True).returncode != 0


def disk(where: Path, grubenv: bool = True) -> Path:
    """The image's root with no more than GRUB's environment block."""
    root = where / "root"
    (root / "boot/grub").mkdir(parents=True)
    if grubenv:
        (root / "boot/grub/grubenv").write_bytes(b"# GRUB Environment Block\n".ljust(1024, b"#"))
    path = where / "disk.raw"
    with open(path, "wb") as file:
        file.truncate(image.OFFSET + (64 << 20))
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", root, "-E", f"offset={image.OFFSET}",
                    path, "32m"], check=True, capture_output=True)
    return path


def test_the_kernel_that_grub_boots(tmp_path: Path) -> None:
    path = disk(tmp_path)
    for release in RELEASES.values():
        kdump.choose(path, release)
        subprocess.run(["debugfs", "-R", f"dump /boot/grub/grubenv {tmp_path}/said",
                        f"{path}?offset={image.OFFSET}"], check=True, capture_output=True)
        said = (tmp_path / "said").read_bytes()
        assert len(said) == 1024 and said.startswith(b"# GRUB Environment Block\n")
        assert f"\nsaved_entry=gnulinux-{release}-advanced-{image.UUID}\n".encode() in said
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(Err, match="no /boot/grub/grubenv"):
        kdump.choose(disk(other, grubenv=False), "1")


def ran(where: Path, *marks: str) -> Run:
    setup = kdump.Distribution(config.load("default_defconfig").starting("CRASH_"))
    return Run(where, setup, 1, [(float(number), mark) for number, mark in enumerate(marks)])


HELLO = f"hello first {RELEASES['unpatched']}"
FOUND = "found 6.12.117 1 /var/crash/202611270101/vmcore.202611270101 123456"


@pytest.mark.parametrize(
    ("marks", "bad"),
    [
        ([HELLO, FOUND, "taken "], {}),
        ([HELLO, FOUND, "taken it is cut short"], {"the reboot": "it is cut short"}),
        ([HELLO], {"the reboot": "finds no dump"}),
        ([HELLO, FOUND.replace(" 1 ", " 2 ")], {"the reboot": "2 dumps are found"}),
        (["hello first 6.1.0", FOUND], {"the kernel": "6.1.0"}),
        ([FOUND], {"the kernel": "nothing was booted"}),
    ])
def test_the_distribution_is_judged(tmp_path: Path, marks: list[str], bad: dict[str, str]) -> None:
    some = image.Image(tmp_path / "disk.raw", RELEASES, deb.Packages(tmp_path, "", "", []))
    found = kdump.distribution(ran(tmp_path, *marks), "unpatched", some)
    assert {result.name for result in found if result.status is not Status.PASS} == set(bad)
    for result in found:
        assert bad.get(result.name, "") in result.detail


def test_a_crash_kernel_that_is_not_loaded(tmp_path: Path) -> None:
    """Nothing is judged, and it is said why."""
    why = "kdump has loaded no crash kernel (Success)"
    run = ran(tmp_path, HELLO, "crash-memory 0x40000000 0x50000000", f"error {why}")
    run.lost = f"the guest gave up: {why}"
    judged = judge.judge_run(run)
    assert judged.verdict is Status.INVALID and why in judged.results[0].detail


@pytest.mark.parametrize(("said", "saves"), [
    ("running cp /proc/vmcore /var/crash/2/vmcore-incomplete", True),
    ("running makedumpfile -c -d 31 /proc/vmcore | compress > /var/crash/2/dump-incomplete", True),
    ("running makedumpfile --dump-dmesg /proc/vmcore /var/crash/2/dmesg.2", False)])
def test_the_dump_is_being_saved(said: str, saves: bool) -> None:
    """By kdump-tools of Debian 13 and of Debian 12; the log that is saved before is not the dump."""
    assert bool(re.search(kdump.FOLLOW["saving"], said)) is saves


def test_how_long_the_window_is(tmp_path: Path) -> None:
    """The ring and the reads last until the crash kernel comes to their devices, some 20 s later, but not
    much longer: udev reads the disk, too, and the driver waits for 30 s."""
    setup = kdump.Distribution(config.load("default_defconfig").starting("CRASH_"))
    assert setup.frames * 60 < 4096 and 30 <= setup.reads / setup.read_iops < 40
    argv = " ".join(setup.machine(["qemu"]))
    assert "-kernel" not in argv and "iommu=smmuv3" in argv and "trace:smmuv3_*" in argv
    assert "trace:" not in " ".join(setup.machine(["qemu"], "../", trace=False))


def test_what_a_console_shows_in_its_order(tmp_path: Path) -> None:
    """The crash kernel's line counts, not the same one of the crashed kernel before the panic."""
    script = ("sleep 0.1; echo kdump >console.log; sleep 0.1; echo sysrq triggered crash >>console.log; "
              "sleep 0.1; echo kdump >>console.log; sleep 0.1")
    seen: list[str] = []
    marks = proof.watch(tmp_path, ["sh", "-c", script], 20,
                        {"panic": judge.PANIC_TEXT, "shutdown": "kdump"}, lambda vm, mark: seen.append(mark))
    assert seen == ["panic", "shutdown"] and marks["shutdown"] >= marks["panic"] + 0.05
    with pytest.raises(Err, match="no end after"):
        proof.watch(tmp_path, ["sleep", "5"], 0.1, {}, lambda vm, mark: None)
    with pytest.raises(Err, match="QEMU does not start: no such device"):
        proof.watch(tmp_path, ["sh", "-c", "echo no such device; exit 1"], 20, {}, lambda vm, mark: None)


def kit_says(verdict: str, control: str, heard: str = "FAIL", **rules: str) -> dict[str, object]:
    """Of the kit's result.json what is looked at."""
    def listed(**rules: str) -> list[dict[str, str]]:
        return [{"name": name.replace("_", " "), "status": status, "detail": ""}
                for name, status in rules.items()]
    return {"verdict": verdict, "control": listed(data_lands=control, frames_land=heard),
            "results": listed(**rules)}


@pytest.mark.parametrize(
    ("kit", "trace", "good"),
    [
        (("FAIL", "PASS"), ("FAIL", "PASS"), (True, True)),
        (("FAIL", "FAIL"), ("FAIL", "FAIL"), (True, False)),        # agreed, and not as it must be
        (("FAIL", "PASS"), ("FAIL", "FAIL"), (True, False)),        # the kit did not see it
        (("FAIL", "INVALID"), ("FAIL", "PASS"), (True, False)),
        (("INVALID", "PASS"), ("FAIL", "PASS"), (False, True)),
        (("FAIL", "PASS"), ("PASS", "PASS"), (False, True)),
    ])
def test_the_kit_beside_the_trace(tmp_path: Path, kit: tuple[str, str], trace: tuple[str, str],
                                  good: tuple[bool, bool]) -> None:
    crashes = {which: proof.Crash(tmp_path, [Result(which, "rule 2", Status(status))])
               for which, status in zip(("unpatched", "patched"), trace)}
    for heard, frames in (("FAIL", "PASS"), (True, True)), (("PASS", "SKIPPED"), (False, False)):
        found = proof.agreement(kit_says(kit[1], kit[0], heard[0], frames_land=heard[1]), crashes)
        passed = [result.status is Status.PASS for result in found]
        assert (tuple(passed[::2]), tuple(passed[1::2])) == (good, frames)


@pytest.mark.parametrize(
    ("verdict", "status", "good"),
    [("INVALID", "INVALID", True), ("PASS", "INVALID", False), ("FAIL", "INVALID", False),
     ("FAIL", "PASS", False), ("PASS", "PASS", False)])
def test_a_lie_is_seen_by_its_rule(verdict: str, status: str, good: bool) -> None:
    found = kit_says(verdict, "FAIL", reads_were_in_flight=status)
    told = proof.lie("a fast disk", found, "reads were in flight", Status.INVALID)
    assert (told.status is Status.PASS) == good


def test_a_cper_record() -> None:
    """Each length is that of what follows, the kit takes what a kernel says of it for an error."""
    record = proof.cper()
    length, severity = struct.unpack_from("<II", record, 12)
    assert length == len(record) - 20 == 72 + 208 and severity == 0
    assert struct.unpack_from("<I", record, 20 + 24) == (208,)
    assert record[20:36] == bytes.fromhex("54e995d9c1bb0f43ad91b44dcb3c6f35")


MONITOR = """
import json, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind("monitor.sock")
server.listen()
file = server.accept()[0].makefile("rw")
print(json.dumps({"QMP": {}}), file=file, flush=True)
for line in file:
    with open("told", "a") as out:
        out.write(line)
    told = json.loads(line)
    answer = {} if told["execute"] == "qmp_capabilities" else json.loads(sys.argv[1])
    print(json.dumps({"event": "RESUME"}), file=file, flush=True)
    print(json.dumps(answer if "error" in answer else {"return": answer}), file=file, flush=True)
"""


@pytest.mark.parametrize(
    ("name", "answer", "good"),
    [("aer", "OK id: root-port root bus: pcie.0", True), ("cper", {}, True),
     ("aer", "Error: no such port", False), ("cper", {"error": {"class": "CommandNotFound"}}, False),
     ("fast", {}, True)])
def test_an_error_by_the_monitor(tmp_path: Path, name: str, answer: object, good: bool) -> None:
    """QEMU's monitor must have taken it."""
    with machine.Machine(tmp_path, [sys.executable, "-c", MONITOR, json.dumps(answer)], 20) as vm:
        try:
            proof.inject(vm, name)
        except Err as err:
            assert not good and "does not take" in err.line
        else:
            assert good
    told = (tmp_path / "told").read_text() if name != "fast" else ""
    assert {"aer": "pcie_aer_inject_error root-port", "cper": base64.b64encode(proof.cper()).decode(),
            "fast": ""}[name] in told
