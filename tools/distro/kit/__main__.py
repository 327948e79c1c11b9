# SPDX-License-Identifier: GPL-2.0-only
"""./kit check | crash | collect | verdict | send: the kit's command line. Its README has the steps."""

from __future__ import annotations

import argparse
from pathlib import Path

from ... import common
from . import collect, provoke, redfish, server, stream, verdict

HERE = Path(__file__).resolve().parents[3]
READS = 1024


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("kit", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, what in (("check", "is this machine ready?"), ("crash", "crash it on purpose"),
                       ("collect", "after the reboot: all that tells of the crash"),
                       ("verdict", "PASS, FAIL or INVALID, and why"),
                       ("send", "on a second machine: frames for crash --frames")):
        verb = verbs.add_parser(name, help=what, allow_abbrev=False)
        if name == "send":
            verb.add_argument("card", help="the network card, on the same Ethernet as the server's")
        elif name != "verdict":
            verb.add_argument("--root", type=Path, default=Path("/"), help="the machine's files are here")
        if name in ("check", "crash"):
            verb.add_argument("--reads", type=int, default=READS, help=f"of 128 KiB each ({READS})")
            verb.add_argument("--frames", default="", metavar="CARD", help="it hears ./kit send's frames")
            verb.add_argument("--on", default=server.STATE, metavar="DIR", help="on the disk that is read")
        if name == "crash":
            verb.add_argument("--crash-this-machine", action="store_true", help="do it")
            verb.add_argument("--confirm", default="", metavar="HOST", help="its name; else it is asked")
            verb.add_argument("--rehearse", action="store_true", help="the reads alone: do they last?")
        if name == "collect":
            verb.add_argument("name", nargs="?", default="", help="of the crash; else the last one")
            verb.add_argument("--console", type=Path, help="a log of the serial console from the crash on")
            verb.add_argument("--bmc", help="https://… of the BMC, whose event log is read")
            verb.add_argument("--bmc-login", type=Path, help="a file: user, password; else they are asked")
            verb.add_argument("--bmc-cert", type=Path, help="its certificate (PEM), if it is self-signed")
            verb.add_argument("--bmc-wait", type=float, default=10, help="seconds for an answer of it (10)")
        if name == "verdict":
            verb.add_argument("patched", type=Path, help="the collected directory")
            verb.add_argument("--control", type=Path, help="that of the kernel without the series")
            verb.add_argument("--out", type=Path, default=Path("verdict"), help="the reports (./verdict)")
    return parser.parse_args()


def main() -> int:
    told = _arguments()
    if told.verb == "verdict":
        return verdict.verdict(told.patched, told.control, told.out)
    if told.verb == "send":
        return stream.send(told.card)
    machine = server.Server(told.root.absolute())
    if told.verb == "collect":
        bmc = None
        if told.bmc:
            if told.bmc_cert and not told.bmc_cert.is_file():
                raise common.Err(f"--bmc-cert {told.bmc_cert}: no such file", code=common.USAGE)
            login = redfish.login(told.bmc_login)
            bmc = redfish.Service(told.bmc, *login, told.bmc_cert, max(told.bmc_wait, 0.1))
        return collect.collect(machine, told.name, told.console, bmc)
    if not 0 < told.reads < 1 << 16 or not told.on.startswith("/") or "/" in told.frames:
        raise common.Err("--reads is 1 to 65535, --on an absolute path, --frames a network card's name",
                         code=common.USAGE)
    machine = server.Server(machine.root, told.reads, told.on, told.frames)
    if told.verb == "check":
        return server.check(machine)
    return provoke.crash(machine, HERE / "workload", told.crash_this_machine, told.confirm, told.rehearse)


if __name__ == "__main__":
    common.main(main)
