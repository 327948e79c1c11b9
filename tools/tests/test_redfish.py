# SPDX-License-Identifier: GPL-2.0-only
"""The event log of a BMC in the kit's verdict: honest services, and others. They are played on loopback."""

from __future__ import annotations

import base64
import http.server
import os
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..common import FAIL, INVALID, PASS, USAGE
from ..distro import bmc as bmcs
from ..distro import proof
from ..distro.bmc import LOG, PASSWORD, PCIE, USER, V1, Bmc, Change
from ..distro.kit import verdict
from ..results import Status
from .test_kit import Pair, bad, copy, honest, judged, kit, run, tarball, told

__all__ = ["honest", "kit", "tarball"]      # fixtures
RULE = "no event of the BMC"
World = tuple[Pair, Bmc, Path]


@pytest.fixture
def world(kit: Path, honest: Pair, tmp_path: Path) -> Iterator[World]:
    """Both crashes, below a root of their own; a BMC; the login to it."""
    (tmp_path / "var/lib").mkdir(parents=True)
    pair = copy(honest, tmp_path / "var/lib/smmu-kdump-kit")
    for name in ("proc/sys/kernel/random/boot_id", "dev/kmsg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("the boot after it\n")
    bmcs.login(tmp_path / "login")
    # The dumps are where they were: collect takes them again.
    root = Path(str(honest[0]).partition("/var/lib")[0])
    (tmp_path / "var/crash").symlink_to(root / "var/crash")
    with Bmc(told(pair[1])["when"]) as bmc:
        yield pair, bmc, tmp_path


def collect(kit: Path, world: World) -> tuple[str, str]:
    """What the rule says after ./kit collect. The service is only read, and the login is nowhere."""
    pair, bmc, root = world
    said = run(kit, "collect", "--root", root, pair[1].name, "--bmc", bmc.url,
               "--bmc-login", root / "login", "--bmc-wait", "0.4" if bmc.delay or bmc.drip else "5")
    assert {method for method, _ in bmc.asked} <= {"GET"}
    word = base64.b64encode(f"{USER}:{PASSWORD}".encode())
    for path in pair[1].iterdir():
        assert not any(secret in path.read_bytes() for secret in (PASSWORD.encode(), word)), path
    assert PASSWORD not in said
    status, why = verdict.no_event(verdict.Crash(pair[1], told(pair[1])))
    return str(status), why


HONEST: dict[str, Change] = {
    "a boot after the crash": lambda bmc: None,
    "its clock is ahead, and tells so": lambda bmc: bmc.clock(7200).records(
        (bmc.crash + 7100, "Critical", PCIE), (bmc.crash + 7300, "OK", "boot")),
    "its clock is behind, and tells so": lambda bmc: bmc.clock(-7200).records(
        (bmc.crash - 7300, "Critical", PCIE), (bmc.crash - 7100, "OK", "boot")),
    "the panic": lambda bmc: bmc.records((bmc.crash + 1, "Critical", "OS stop: run-time critical stop")),
}


@pytest.mark.parametrize("change", HONEST.values(), ids=HONEST.keys())
def test_an_honest_service(kit: Path, world: World, change: Change) -> None:
    change(world[1])
    assert collect(kit, world) == ("PASS", "1 records since the crash, none of a PCIe error")


ERRORS: dict[str, Change] = {
    "a PCIe error": lambda bmc: bmc.records((bmc.crash + 1, "Critical", PCIE)),
    "a CPER record": lambda bmc: bmc.records(
        (bmc.crash + 1, "OK", "boot"), (bmc.crash + 2, "Warning", "CPER 1")),
    "by its place": lambda bmc: bmc.records(
        (bmc.crash + 1, "Critical", "A fatal error was detected on a component at bus 64 device 0.")),
    "by its MessageId": lambda bmc: bmc.entries(
        {"Severity": "Critical", "Message": "error", "MessageId": "OpenBMC.0.1.PCIeFatal",
         "Created": bmcs.iso(bmc.crash + 5)}),
    "with letters that cannot be printed": lambda bmc: bmc.records(
        (bmc.crash + 1, "Critical", f"{PCIE} \ud800 \x1b[2J")),
    "by a clock that is behind": lambda bmc: bmc.clock(-7200).records((bmc.crash - 7100, "Critical", PCIE)),
}


@pytest.mark.parametrize("change", ERRORS.values(), ids=ERRORS.keys())
def test_a_service_that_tells_of_an_error(kit: Path, world: World, change: Change) -> None:
    change(world[1])
    status, why = collect(kit, world)
    assert status == "FAIL" and why.startswith("1, first: ")


def test_the_verdict_has_it(kit: Path, world: World) -> None:
    """Of the whole, the one rule decides."""
    pair, bmc, root = world
    steps: tuple[tuple[Change, int, dict[str, str]], ...] = (
        (lambda bmc: None, PASS, {}), (ERRORS["a PCIe error"], FAIL, {RULE: "FAIL"}),
        (LIES["an earlier error"][0], INVALID, {RULE: "INVALID"}),
        (LIES["broken"][0], INVALID, {RULE: "INVALID"}))
    for change, code, wrong in steps:
        change(bmc)
        collect(kit, world)
        assert bad(judged(kit, pair, root / "out", code)) == wrong


@pytest.mark.parametrize(("change", "wanted"), proof.BMCS.values(), ids=proof.BMCS.keys())
def test_the_lies_of_the_proof(kit: Path, honest: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                               change: Change, wanted: Status) -> None:
    """make distro-test KIT=1 tells them of a crash in the image; here they are told of a made-up one."""
    monkeypatch.setattr(proof, "WAIT_S", 1)
    before = {path.name: path.read_bytes() for path in honest[1].iterdir()}
    later = time.time() + 60            # it was taken out of the machine's disk
    os.utime(honest[1] / "vmcore", (later, later))
    here = proof.with_bmc(kit.parent, honest[1], tmp_path / "root", change)
    assert {path.name: path.read_bytes() for path in honest[1].iterdir()} == before
    found = proof.verdict(kit.parent, here, honest[0], tmp_path / "out")
    assert proof.lie("a BMC", found, RULE, wanted).status is Status.PASS, found
    assert found["verdict"] == wanted


class Trap(http.server.BaseHTTPRequestHandler):
    """Another host."""
    heard: list[str | None] = []

    def do_GET(self) -> None:
        self.heard.append(self.headers["Authorization"])
        self.send_error(404)


def boot(bmc: Bmc) -> dict[str, str]:
    return {"Severity": "OK", "Message": "boot", "Created": bmcs.iso(bmc.crash + 5)}


NO_RECORD = "is from after the crash"
LIES: dict[str, tuple[Change, str]] = {
    "it times out": (lambda bmc: bmc.slow(3, 0), "does not answer within 0.4 s"),
    # On a busy machine a byte may be late, too.
    "a byte now and then": (lambda bmc: bmc.slow(0, 0.2), "longer than 4.8 s|does not answer"),
    "only records from before": (lambda bmc: bmc.records((bmc.crash - 10, "OK", "boot")), NO_RECORD),
    "an earlier error": (lambda bmc: bmc.records((bmc.crash - 10, "Critical", PCIE)), NO_RECORD),
    "no records": (lambda bmc: bmc.entries(), "none of its 0 records"),
    "no log": (lambda bmc: bmc.set(f"{V1}/Systems/1", {}), "it has no event log"),
    "cut short": (lambda bmc: bmc.raw(LOG, 200, b'{"Entries": ', Content_Length="999"), "cut short"),
    "cut short, and it does not say so": (lambda bmc: bmc.raw(LOG, 200, b'{"Entries": '), "not JSON"),
    "a huge answer": (lambda bmc: bmc.raw(LOG, 200, b" " * (9 << 20)), "larger than 4 MiB"),
    "deep": (lambda bmc: bmc.raw(LOG, 200, b"[" * 99999), "not JSON"),
    "a list": (lambda bmc: bmc.set(V1, [1]), "not an object"),
    "a number of members": (lambda bmc: bmc.set(f"{LOG}/Entries", {"Members": 5}), "Members is no list"),
    "members that are numbers": (lambda bmc: bmc.entries(5), "no object"),
    "a time that is none": (lambda bmc: bmc.entries({"Id": 1, "Created": {"a": 1}, "Message": [PCIE]}),
                            "has no time: is the BMC's clock set"),
    "an error without a time beside a boot": (lambda bmc: bmc.entries(
        {"Severity": "Critical", "Message": PCIE}, boot(bmc)), "has no time"),
    "an error of 1970": (lambda bmc: bmc.entries(
        {"Severity": "Critical", "Message": PCIE, "Created": "1970-01-01T00:01:00Z"}, boot(bmc)),
                         "has no time"),
    "a redirect to another host": (lambda bmc: bmc.raw(V1, 302, b"", Location=bmc.trap), "HTTP 302"),
    "a link to another host": (lambda bmc: bmc.systems(bmc.trap), "leads elsewhere"),
    "a link that smuggles": (lambda bmc: bmc.systems(f"{V1}/a HTTP/1.1\r\nX: y"), "leads elsewhere"),
    "a link that is a number": (lambda bmc: bmc.systems(5), "leads elsewhere"),
    "pages without end": (lambda bmc: bmc.set(f"{LOG}/Entries", {
        "Members": [], "Members@odata.nextLink": f"{LOG}/Entries"}), "more than 3000|longer than 4.8 s"),
    "no HTTP": (lambda bmc: bmc.raw(LOG, 200, b"{}", Content_Length="x"), "no event log"),
    "broken": (lambda bmc: bmc.raw(LOG, 503, b"{}"), "HTTP 503"),
}


@pytest.mark.parametrize(("lie", "why"), LIES.values(), ids=LIES.keys())
def test_lies(kit: Path, world: World, lie: Change, why: str) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Trap) as trap:
        thread = threading.Thread(target=trap.serve_forever, args=(0.05,))
        thread.start()
        world[1].trap = f"http://127.0.0.1:{trap.server_port}{V1}"
        lie(world[1])
        status, said = collect(kit, world)
        trap.shutdown()
        thread.join()
    assert status == "INVALID" and re.search(why, said), said
    assert not Trap.heard


def test_a_login_that_is_refused(kit: Path, world: World) -> None:
    world[1].locked()
    status, why = collect(kit, world)
    assert status == "INVALID" and "it refuses the login (401)" in why


def test_encrypted(kit: Path, world: World) -> None:
    """By the BMC's own certificate; by no other does it get the login."""
    pair, bmc, root = world
    for name in ("own", "other"):
        files = ["-keyout", f"{root}/{name}.key", "-out", f"{root}/{name}.pem"]
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                        "-subj", "/CN=bmc", *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(root / "own.pem", root / "own.key")
    bmc.socket = context.wrap_socket(bmc.socket, server_side=True)
    url = f"https://127.0.0.1:{bmc.server_port}"
    words = ["--bmc", url, "--bmc-login", str(root / "login"), "--bmc-cert"]
    assert "no such file" in run(kit, "collect", "--root", root, *words, root / "none", code=USAGE)
    for name, status in (("other", "INVALID"), ("own", "PASS")):
        assert not bmc.asked
        run(kit, "collect", "--root", root, pair[1].name, *words, root / f"{name}.pem")
        found, why = verdict.no_event(verdict.Crash(pair[1], told(pair[1])))
        assert found == status and ("CERTIFICATE_VERIFY_FAILED" in why) == (name == "other")


def test_addresses_that_are_none(kit: Path, world: World) -> None:
    pair, bmc, root = world
    (root / "bad.pem").write_text("nothing\n")
    login = ["--bmc-login", str(root / "login")]
    for words in (["--bmc", f"https://{USER}:{PASSWORD}@b:99999", *login], ["--bmc", "https://[bmc", *login],
                  ["--bmc", "https://127.0.0.1:1", *login, "--bmc-cert", str(root / "bad.pem")],
                  ["--bmc", "https://127.0.0.1:1"]):
        said = run(kit, "collect", "--root", root, pair[1].name, *words, code=USAGE)
        assert said.count("error: ") == 1 and PASSWORD not in said


def test_nobody_listens(kit: Path, world: World) -> None:
    world[1].shutdown()
    world[1].server_close()
    status, why = collect(kit, world)
    assert status == "INVALID" and "ConnectionRefusedError" in why


@pytest.mark.parametrize(("text", "mode", "said"), [
    (f"{USER}\n{PASSWORD}\n", 0o644, "can be read by others"),
    (f"{USER}\n", 0o600, "does not have two lines"),
    ("a:b\nc\n", 0o600, "does not have two lines"), (None, 0, "cannot be read")])
def test_a_bad_login(kit: Path, world: World, text: str | None, mode: int, said: str) -> None:
    pair, bmc, root = world
    (root / "login").unlink()
    if text:
        (root / "login").write_text(text)
        (root / "login").chmod(mode)
    error = run(kit, "collect", "--root", root, pair[1].name, "--bmc", bmc.url,
                "--bmc-login", root / "login", code=USAGE)
    assert said in error and PASSWORD not in error and "next: two lines" in error and not bmc.asked


def test_an_address_that_is_no_good(kit: Path, world: World) -> None:
    pair, bmc, root = world
    for url, said in (("http://bmc.example.org", "unencrypted"), ("ftp://bmc", "not a host"),
                      ("https://me:secret@bmc", "not a host"), ("https://", "not a host")):
        error = run(kit, "collect", "--root", root, pair[1].name, "--bmc", url,
                    "--bmc-login", root / "login", code=USAGE)
        assert said in error and "secret" not in error
