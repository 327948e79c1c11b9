# SPDX-License-Identifier: GPL-2.0-only
"""A BMC with an event log, played on loopback: an honest one, or whatever its caller makes of it."""

from __future__ import annotations

import base64
import datetime
import http.server
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

USER, PASSWORD = "operator", "correct horse battery"
V1 = "/redfish/v1"
MANAGER = f"{V1}/Managers/BMC"
LOG = f"{V1}/Systems/1/LogServices/SEL"
PCIE = "PCIe Error: Uncorrectable, Fatal, Bus 1 Device 0 Function 0"
Answer = tuple[int, bytes, dict[str, str]]
Change = Callable[["Bmc"], object]


def iso(when: float) -> str:
    return datetime.datetime.fromtimestamp(when, datetime.UTC).isoformat()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Bmc

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path))
        word = base64.b64encode(f"{USER}:{self.server.password}".encode()).decode()
        if self.headers["Authorization"] != f"Basic {word}":
            self.answer(401, b"{}", {})
        else:
            self.answer(*self.server.page(self.path.rstrip("/")))

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        time.sleep(self.server.delay)
        try:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            for at in range(0, len(body), self.server.piece):
                self.wfile.write(body[at:at + self.server.piece])
                time.sleep(self.server.drip)
        except OSError:         # it has heard enough
            pass

    def log_message(self, *_: object) -> None:
        pass


class Bmc(http.server.ThreadingHTTPServer):
    """One manager, one system with one log of two pages: an earlier error, and a boot after the crash.

    For a `with`, in which it answers."""
    daemon_threads = True

    def __init__(self, crash: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.crash, self.asked = crash, list[tuple[str, str]]()
        self.ahead = self.delay = self.drip = 0.0
        self.password = PASSWORD
        self.trap = ""
        self.piece = 1 << 30
        self.answers: dict[str, Answer] = {}
        self.set(V1, {kind: {"@odata.id": f"{V1}/{kind}"} for kind in ("Managers", "Systems")})
        for kind, thing in (("Managers", "BMC"), ("Systems", "1")):
            self.set(f"{V1}/{kind}", {"Members": [{"@odata.id": f"{V1}/{kind}/{thing}"}]})
        self.set(f"{V1}/Systems/1", {"LogServices": {"@odata.id": f"{V1}/Systems/1/LogServices"}})
        self.set(f"{V1}/Systems/1/LogServices", {"Members": [{"@odata.id": LOG}]})
        self.set(LOG, {"Id": "SEL", "Entries": {"@odata.id": f"{LOG}/Entries"}})
        self.records((crash - 9999, "Critical", PCIE), (crash + 1, "OK", "System boot"))

    def __enter__(self) -> Bmc:
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self.thread.start()
        return self

    def __exit__(self, *why: object) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def page(self, path: str) -> Answer:
        if path == MANAGER:     # its clock goes on
            return 200, json.dumps({"DateTime": iso(time.time() + self.ahead)}).encode(), {}
        return self.answers.get(path, (404, b"{}", {}))

    def set(self, path: str, body: object) -> Bmc:
        return self.raw(path, 200, json.dumps(body).encode())

    def clock(self, ahead: float) -> Bmc:
        self.ahead = ahead
        return self

    def slow(self, delay: float, drip: float) -> Bmc:
        """So long before an answer, so long for each of its bytes."""
        self.delay, self.drip, self.piece = delay, drip, 1 if drip else self.piece
        return self

    def locked(self) -> Bmc:
        """The login is another one."""
        self.password = f"not {PASSWORD}"
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


def login(path: Path) -> Path:
    """A file with the login, as the kit takes it."""
    path.write_text(f"{USER}\n{PASSWORD}\n")
    path.chmod(0o600)
    return path
