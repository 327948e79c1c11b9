# SPDX-License-Identifier: GPL-2.0-only
"""One row of the digest: a local commit, what it comes from, and what was found out about the two."""
from __future__ import annotations

from dataclasses import dataclass, field

from . import message as msg
from .compare import ASK, CONTEXT, MATCH, MISMATCH, UNPROVEN, WHITESPACE, Verdict
from .gitio import Err
from .patches import Patch
from .render import Finding

NOTED, MISSING, EXTRA, REORDERED = "noted", "missing", "extra", "reordered"
UNRESOLVED, FETCH_FAILED, NA = "unresolved", "fetch failed", "N/A"
FINE = (MATCH, CONTEXT, NOTED)

REMEDY = {
    MISMATCH: "restore the upstream change, or say why it differs in a line `[name: why]` between the "
              "provenance line and your Signed-off-by",
    WHITESPACE: "restore upstream's white space, or add a line `[name: why]` above your Signed-off-by",
    ASK: "let a person look, and say in a line `[name: why]` why the place is right",
    UNPROVEN: "give the tree that the patches apply to with --onto REV, or compare commits instead of "
              "patches",
    UNRESOLVED: "name the upstream commit in full, and give a repository that has it with --reference "
                "(LINUX_GIT)",
    FETCH_FAILED: "make the source reachable and run again: nothing was compared",
    EXTRA: "name where it comes from, mark it SAUCE, say in a `[name: why]` line why it is here, or drop it",
    MISSING: "pick it, or say in a note of another patch of the series `[name: without \"SUBJECT\": why]`",
    REORDERED: "put the commits in upstream's order, so that every step builds as upstream's did, or say why "
               "not in a `[name: why]` line",
}


@dataclass
class Row:
    """Without `up` the local commit has no counterpart; without `local` the branch lacks a patch."""
    local: Patch | None
    up: Patch | None = None
    named: str = ""                 # what is shown when there is no upstream patch
    status: str = NA
    subject: str = NA
    sob: str = NA
    verdict: Verdict | None = None
    kind: str = "pick"              # pick, sauce, ubuntu, revert, merge, exempt, missing
    origin: msg.Origin | None = None
    note: str = ""                  # the backporter's, that excuses what differs
    diff: list[str] = field(default_factory=list)       # between upstream's patch and the local one
    signs: bool = True              # whoever carried it over signed off
    findings: list[Finding] = field(default_factory=list)

    def name(self) -> str:
        """What the first column shows."""
        return self.local.short() if self.local else "-"

    def where(self) -> str:
        """What findings call the row."""
        if self.local:
            return f"{self.local.short()} {self.local.subject}".strip()
        return self.up.subject if self.up else ""

    def add(self, kind: str, text: str, remedy: str, level: str = "error") -> None:
        self.findings.append(Finding(level, kind, self.where(), text, remedy))

    def unresolved(self, why: str, remedy: str = REMEDY[UNRESOLVED]) -> None:
        self.status = UNRESOLVED
        self.add(UNRESOLVED, why, remedy)

    def fetch_failed(self, e: Err) -> None:
        self.status = FETCH_FAILED
        self.add("fetch-failed", e.cause, e.next_step or REMEDY[FETCH_FAILED])
