# SPDX-License-Identifier: GPL-2.0-only
"""The event log of a BMC in the kit's verdict: honest services, and others. They are played on loopback."""

from __future__ import annotations

import base64
import datetime
import http.server
import json
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..common import FAIL, INVALID, PASS, USAGE
from ..distro.kit import verdict
from .test_kit import Pair, bad, copy, honest, judged, kit, run, tarball, told

__all__ = ["honest", "kit", "tarball"]      # fixtures
USER, PASSWORD = "operator", "correct horse battery"
V1 = "/redfish/v1"
LOG = f"{V1}/Systems/1/LogServices/SEL"
RULE = "no event of the BMC"
PCIE = "PCIe Error: Uncorrectable, Fatal, Bus 1 Device 0 Function 0"
Answer = tuple[int, bytes, dict[str, str]]
Change = Callable[["Bmc"], object]


def iso(when: float) -> str:
    return datetime.datetime.fromtimestamp(when, datetime.UTC).isoformat()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Bmc

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path))
        word = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers["Authorization"] != f"Basic {word}":
            self.answer(401, b"{}", {})
        else:
            self.answer(*self.server.answers.get(self.path.rstrip("/"), (404, b"{}", {})))

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        time.sleep(self.server.delay)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for at in range(0, len(body), self.server.piece):
                self.wfile.write(body[at:at + self.server.piece])
                time.sleep(self.server.drip)
        except OSError:         # it has heard enough
            pass

    def log_message(self, *_: object) -> None:
        pass


class Bmc(http.server.ThreadingHTTPServer):
    """One manager, one system with one log of two pages: an earlier error, and a boot after the crash."""
    daemon_threads = True

    def __init__(self, crash: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.crash, self.asked = crash, list[tuple[str, str]]()
        self.delay = self.drip = 0.0
        self.trap = ""
        self.piece = 1 << 30
        self.answers: dict[str, Answer] = {}
        self.set(V1, {kind: {"@odata.id": f"{V1}/{kind}"} for kind in ("Managers", "Systems")})
        self.clock(0)
        for kind, thing in (("Managers", "BMC"), ("Systems", "1")):
            self.set(f"{V1}/{kind}", {"Members": [{"@odata.id": f"{V1}/{kind}/{thing}"}]})
        self.set(f"{V1}/Systems/1", {"LogServices": {"@odata.id": f"{V1}/Systems/1/LogServices"}})
        self.set(f"{V1}/Systems/1/LogServices", {"Members": [{"@odata.id": LOG}]})
        self.set(LOG, {"Id": "SEL", "Entries": {"@odata.id": f"{LOG}/Entries"}})
        self.records((crash - 9999, "Critical", PCIE), (crash + 1, "OK", "System boot"))

    def set(self, path: str, body: object) -> Bmc:
        return self.raw(path, 200, json.dumps(body).encode())

    def clock(self, ahead: float) -> Bmc:
        return self.set(f"{V1}/Managers/BMC", {"DateTime": iso(time.time() + ahead)})

    def slow(self, delay: float, drip: float) -> Bmc:
        """So long before an answer, so long for each of its bytes."""
        self.delay, self.drip, self.piece = delay, drip, 1 if drip else self.piece
        return self

    def entries(self, *members: object) -> Bmc:
        return self.set(f"{LOG}/Entries", {"Members": list(members)})

    def systems(self, link: object) -> Bmc:
        return self.set(V1, {"Systems": {"@odata.id": link}})

    def records(self, *records: tuple[float, str, str]) -> Bmc:
        found = [{"@odata.id": f"{LOG}/Entries/{number}", "Created": iso(when), "Severity": severity,
                  "Message": text} for number, (when, severity, text) in enumerate(records)]
        more = f"{LOG}/Entries?$skip=1"
        self.set(f"{LOG}/Entries", {"Members": found[:1], "Members@odata.nextLink": more})
        links = [{"@odata.id": entry["@odata.id"]} for entry in found]
        self.set(f"{LOG}/Entries?$skip=1", {"Members": links[1:]})
        for entry in found:
            self.set(entry["@odata.id"], entry)
        return self

    def raw(self, path: str, status: int, body: bytes, **headers: str) -> Bmc:
        self.answers[path] = status, body, {name.replace("_", "-"): value for name, value in headers.items()}
        return self


World = tuple[Pair, Bmc, Path]


@pytest.fixture
def world(kit: Path, honest: Pair, tmp_path: Path) -> Iterator[World]:
    """Both crashes, below a root of their own; a BMC; the login to it."""
    (tmp_path / "var/lib").mkdir(parents=True)
    pair = copy(honest, tmp_path / "var/lib/smmu-kdump-kit")
    for name in ("proc/sys/kernel/random/boot_id", "dev/kmsg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("the boot after it\n")
    login = tmp_path / "login"
    login.write_text(f"{USER}\n{PASSWORD}\n")
    login.chmod(0o600)
    # The dumps are where they were: collect takes them again.
    root = Path(str(honest[0]).partition("/var/lib")[0])
    (tmp_path / "var/crash").symlink_to(root / "var/crash")
    with Bmc(told(pair[1])["when"]) as bmc:
        thread = threading.Thread(target=bmc.serve_forever, args=(0.05,))
        thread.start()
        yield pair, bmc, tmp_path
        bmc.shutdown()
        thread.join()


def collect(kit: Path, world: World, login: str = "login") -> tuple[str, str]:
    """What the rule says after ./kit collect. The service is only read, and the login is nowhere."""
    pair, bmc, root = world
    said = run(kit, "collect", "--root", root, pair[1].name, "--bmc", f"http://127.0.0.1:{bmc.server_port}",
               "--bmc-login", root / login, "--bmc-wait", "0.4" if bmc.delay or bmc.drip else "5")
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


class Trap(http.server.BaseHTTPRequestHandler):
    """Another host."""
    heard: list[str | None] = []

    def do_GET(self) -> None:
        self.heard.append(self.headers["Authorization"])
        self.send_error(404)


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
                            "none of its 1 records"),
    "a redirect to another host": (lambda bmc: bmc.raw(V1, 302, b"", Location=bmc.trap), "HTTP 302"),
    "a link to another host": (lambda bmc: bmc.systems(bmc.trap), "leads elsewhere"),
    "a link that smuggles": (lambda bmc: bmc.systems(f"{V1}/a HTTP/1.1\r\nX: y"), "leads elsewhere"),
    "a link that is a number": (lambda bmc: bmc.systems(5), "leads elsewhere"),
    "pages without end": (lambda bmc: bmc.set(f"{LOG}/Entries", {
        "Members": [], "Members@odata.nextLink": f"{LOG}/Entries"}), "more than 300 answers"),
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
    (world[2] / "wrong").write_text(f"{USER}\nnot {PASSWORD[1:]}\n")
    (world[2] / "wrong").chmod(0o600)
    status, why = collect(kit, world, "wrong")
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
    error = run(kit, "collect", "--root", root, pair[1].name, "--bmc", f"http://127.0.0.1:{bmc.server_port}",
                "--bmc-login", root / "login", code=USAGE)
    assert said in error and PASSWORD not in error and "next: two lines" in error and not bmc.asked


def test_an_address_that_is_no_good(kit: Path, world: World) -> None:
    pair, bmc, root = world
    for url, said in (("http://bmc.example.org", "unencrypted"), ("ftp://bmc", "not a host"),
                      ("https://me:secret@bmc", "not a host"), ("https://", "not a host")):
        error = run(kit, "collect", "--root", root, pair[1].name, "--bmc", url,
                    "--bmc-login", root / "login", code=USAGE)
        assert said in error and "secret" not in error
