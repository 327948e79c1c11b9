# SPDX-License-Identifier: GPL-2.0-only
"""The event log of a BMC over Redfish (DMTF DSP0266), with GET alone.

By Python's own http.client, so that the server needs nothing installed.
A BMC is trusted with nothing here: not with the size, the types, the length or the links of its answers.
"""

from __future__ import annotations

import base64
import datetime
import getpass
import http.client
import json
import os
import re
import signal
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...common import USAGE, Err

TOP = "/redfish/v1"
ALL = 12                        # times the wait for one answer: for all of them
MAX_BODY, MAX_ANSWERS, MAX_ENTRIES = 4 << 20, 3000, 20_000
KEPT = ("Id", "Created", "EventTimestamp", "Severity", "EntryType", "MessageId", "Message", "SensorType")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Refused(Exception):
    """Why there is no event log."""


def login(path: Path | None) -> tuple[str, str]:
    """User and password: two lines of a file that nobody else can read, or asked for."""
    if not path:
        try:
            return input("BMC user: "), getpass.getpass("BMC password: ")
        except EOFError:
            raise Err("the BMC's login cannot be asked for", "--bmc-login FILE", USAGE) from None
    next_step = f"two lines, user and password, in a file of yours: chmod 600 {path}"
    try:
        info, lines = path.stat(), path.read_text().splitlines()
    except (OSError, UnicodeError) as err:
        raise Err(f"{path} cannot be read", next_step, USAGE) from err
    if info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o077:
        raise Err(f"{path} can be read by others", next_step, USAGE)
    if len(lines) != 2 or not all(lines) or ":" in lines[0]:
        raise Err(f"{path} does not have two lines", next_step, USAGE)
    return lines[0], lines[1]


class Service:
    def __init__(self, url: str, user: str, password: str, certificate: Path | None,
                 wait_s: float) -> None:
        try:
            self.where = urlsplit(url if "//" in url else f"https://{url}")
            self.port = self.where.port
        except ValueError as err:
            raise Err(f"--bmc: {err}", "a host, or an https:// address", USAGE) from None
        if self.where.scheme not in ("https", "http") or not self.where.hostname or self.where.username:
            raise Err(f"--bmc {self.where.hostname or '…'}: not a host or an https:// address", code=USAGE)
        if self.where.scheme == "http" and self.where.hostname not in LOOPBACK:
            raise Err("--bmc http://…: the password would go unencrypted", "give https://", USAGE)
        word = base64.b64encode(f"{user}:{password}".encode()).decode()
        self.headers = {"Authorization": f"Basic {word}", "Accept": "application/json",
                        "OData-Version": "4.0", "Connection": "close"}
        try:
            self.context = ssl.create_default_context(cafile=str(certificate) if certificate else None)
        except ssl.SSLError as err:
            raise Err(f"--bmc-cert {certificate} is no certificate in PEM form", code=USAGE) from err
        if certificate:         # it is this very one, whoever has signed it and whatever its name
            self.context.check_hostname = False
            self.context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        self.wait_s, self.answers = wait_s, 0

    def _connection(self) -> http.client.HTTPConnection:
        host = self.where.hostname or ""
        if self.where.scheme == "http":
            return http.client.HTTPConnection(host, self.port, timeout=self.wait_s)
        return http.client.HTTPSConnection(host, self.port, timeout=self.wait_s, context=self.context)

    def _body(self, answer: http.client.HTTPResponse) -> bytes:
        """Up to a limit."""
        body = b""
        while chunk := answer.read1(1 << 16):
            body += chunk
            if len(body) > MAX_BODY:
                raise Refused(f"an answer is larger than {MAX_BODY >> 20} MiB")
        if answer.length:
            raise Refused("an answer was cut short")
        return body

    def get(self, path: Any) -> dict[str, Any]:
        if not isinstance(path, str) or not re.fullmatch(rf"{TOP}[!-~]*", path):
            raise Refused(f"a link leads elsewhere: {str(path)[:80]!r}")
        self.answers += 1
        if self.answers > MAX_ANSWERS:
            raise Refused(f"it takes more than {MAX_ANSWERS} answers")
        connection = self._connection()
        try:
            connection.request("GET", path, headers=self.headers)
            answer = connection.getresponse()
            if answer.status in (401, 403):
                raise Refused(f"it refuses the login ({answer.status})")
            if answer.status != 200:
                raise Refused(f"{path[:80]}: HTTP {answer.status}, no answer")
            found = json.loads(self._body(answer))
        except TimeoutError as err:
            raise Refused(f"it does not answer within {self.wait_s:g} s") from err
        except (OSError, http.client.HTTPException) as err:     # a bad certificate is a ValueError, too
            raise Refused(f"{type(err).__name__}: {err}"[:200]) from err
        except (ValueError, RecursionError) as err:
            raise Refused(f"{path[:80]}: not JSON, or cut short") from err
        finally:
            connection.close()
        if not isinstance(found, dict):
            raise Refused(f"{path[:80]}: not an object")
        return found

    def members(self, path: Any) -> Iterator[dict[str, Any]]:
        """Of a collection, all its pages. An entry may be here or behind a link."""
        while path:
            page = self.get(path)
            listed = page.get("Members")
            if not isinstance(listed, list):
                raise Refused(f"{str(path)[:80]}: Members is no list")
            for member in listed:
                if not isinstance(member, dict):
                    raise Refused(f"{str(path)[:80]}: a member is no object")
                yield member if len(member) > 1 else self.get(member.get("@odata.id"))
            path = page.get("Members@odata.nextLink")


def _printable(value: Any) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in str(value)[:500])


def _link(value: Any) -> Any:
    return value.get("@odata.id") if isinstance(value, dict) else None


def seconds(text: Any) -> float | None:
    """Of an ISO 8601 time with its zone."""
    try:
        when = datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return when.timestamp() if when.tzinfo else when.replace(tzinfo=datetime.UTC).timestamp()


def _entries(service: Service) -> dict[str, Any]:
    """{"entries": …, "ahead": seconds of the BMC's clock before ours, if it tells}"""
    entries: list[dict[str, str]] = []
    ahead, seen = None, set()
    root = service.get(f"{TOP}/")
    for kind in ("Managers", "Systems", "Chassis"):
        for thing in service.members(_link(root.get(kind))):
            if kind == "Managers" and (clock := seconds(thing.get("DateTime"))):
                ahead = clock - time.time()
            for log in service.members(_link(thing.get("LogServices"))):
                where = _link(log.get("Entries"))
                if not where or str(where) in seen:
                    continue
                seen.add(str(where))
                for entry in service.members(where):
                    entries.append({key: _printable(entry[key]) for key in KEPT
                                    if entry.get(key) is not None})
                    if len(entries) > MAX_ENTRIES:
                        raise Refused(f"it has more than {MAX_ENTRIES} records")
    if not seen:
        raise Refused("it has no event log")
    return {"entries": entries, "ahead": ahead}


def read(service: Service) -> dict[str, Any]:
    """Or {"error": why}. A service may send a byte now and then for ever: an alarm ends it."""
    def end(*_: object) -> None:
        raise Refused(f"it takes longer than {ALL * service.wait_s:g} s")
    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, ALL * service.wait_s)
    try:
        return _entries(service)
    except Refused as err:
        return {"error": str(err)}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
