# SPDX-License-Identifier: GPL-2.0-only
"""make status: what is known of each base and each patch, and what of it is stale.

A verb that judged a base leaves its result here, with the state that it judged: the base's package and
hashes of the series and of the tools. A result whose state is another now is shown as stale. The rows
of README.md's table are written from the results that are not.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ..common import TOP, cache_dir, lock, write
from ..results import Report, Result, Status, counted, run_directory, table, worst
from . import archive, bases
from .store import Rejected, Store, digest, git, is_own

README = TOP / "README.md"
# What a judgement depends on, apart from the base and its patches
TOOLS = ("tools/kernel", "tools/crash", "tools/machine.py", "drivers", "include", "configs", "patches/test")
VERBS = ("kunit", "gate", "mutants", "bench", "crash-test", "scenarios", "soak", "chaos")


def state(base: str) -> dict[str, str]:
    """What the results of a base depend on."""
    store = Store(base, "")
    files = sorted(path for name in TOOLS for path in [TOP / name, *(TOP / name).rglob("*")]
                   if path.is_file() and path.suffix not in (".pyc", ".o", ".cmd"))
    return {"package": store.origin()[0],
            "series": store.series_hash(),
            "tools": digest(*(str(path.relative_to(TOP)) for path in files),
                            *(path.read_bytes() for path in files))[:12]}


def begin(base: str) -> dict[str, str]:
    """The state that a verb judges, for record(): it may run for an hour, in which somebody edits."""
    if os.environ.get("KSRC"):
        return {}
    store = Store(base, "")
    with store.lock():
        store.source()
    return state(base)


def record(base: str, name: str, verdict: Status, said: str, begun: Mapping[str, str],
           rows: Mapping[str, str] = {}) -> None:
    """Keep what a verb found on a base; `rows` are of single patches. Not of somebody's KSRC=."""
    if os.environ.get("KSRC"):
        return
    path = cache_dir("records") / f"{base}.json"
    with lock(path.with_suffix(".lock")):
        new = {"verdict": verdict, "said": said, "rows": dict(rows), "when": time.time(),
               "state": dict(begun)}
        write(path, json.dumps(read(base) | {name: new}, indent=1))


def read(base: str) -> dict[str, Any]:
    path = cache_dir("records") / f"{base}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def stale(one: Mapping[str, Any], now: Mapping[str, str]) -> list[str]:
    """What has changed since a result, of package, series and tools."""
    return [part for part, value in now.items() if one["state"].get(part) != value]


def cell(one: Mapping[str, Any] | None, now: Mapping[str, str]) -> str:
    if not one:
        return "never run"
    old = stale(one, now)
    day = time.strftime("%Y-%m-%d", time.localtime(one["when"]))
    return f"{one['verdict']} {one['said']} ({day})" + (f", stale: other {' and '.join(old)}" if old else "")


def applies(store: Store) -> dict[str, str]:
    """Of each patch of the queue, on the base of today."""
    names = [row(patch) for patch in store.queue()]
    try:
        store.apply(store.source(), store.queue())
    except Rejected as err:
        bad = len(err.rest)
        return {name: "yes" if number < len(names) - bad else "NO" if number == len(names) - bad else "-"
                for number, name in enumerate(names)}
    return {name: "yes" for name in names}


def row(patch: Any) -> str:
    """A patch's name in tables: that of the gate's."""
    number = str(patch.name).split("-")[0]
    return number if is_own(patch) else f"{patch.parent.name}/{number}"


def same(store: Store, newest: Store) -> dict[str, str]:
    """Does each patch have the patch-id of the one of that subject on the newest base?"""
    def ids(queue: Iterable[Any]) -> dict[str, tuple[str, str]]:
        found = {}
        for patch in queue:
            text = patch.read_bytes()
            subject = " ".join(re.findall(r"(?ms)^Subject: (.*?)\n(?=\S|\n)", text.decode())[0].split())
            found[subject] = (row(patch), git("patch-id", "--stable", data=text).stdout.split(" ")[0])
        return found

    theirs = ids(newest.queue())
    return {name: "the same" if subject in theirs and theirs[subject][1] == mine else
            "differs" if subject in theirs else "only here"
            for subject, (name, mine) in ids(store.queue()).items()}


def page(base: str) -> tuple[str, list[Result]]:
    """All that is known of a base."""
    store, newest = Store(base, ""), Store(bases.newest().name, "")
    with store.lock():
        now, applied = state(base), applies(store)
    known = read(base)
    gate = known.get("gate", {"rows": {}})
    old = " (stale)" if gate["rows"] and stale(gate, now) else ""
    ids = same(store, newest) if base != newest.base.name else {}
    rows = [["patch", "applies", *(f"{word}{old}" for word in ("builds", "gate", "KUnit")),
             f"patch-id of {newest.base.name}"]]
    for patch in store.queue():
        name = row(patch)
        rows.append([name, applied[name], *(gate["rows"].get(f"{name} {what}", "-") for what in
                                            ("builds", "gate", "kunit")), ids.get(name, "-")])
    more = sorted(known.keys() - set(VERBS))    # the controls of chaos
    whole = [[verb, cell(known.get(verb), now)] for verb in [*VERBS, *more]]
    there = archive.newest(store.base.package, store.base.suites)
    mine = re.sub(r"^[^_]*_|_[^_]*$", "", now["package"]).replace("%3a", ":")
    text = f"{base}: {store.base.package} {mine}\n"
    if there != mine:
        text += f"newer: {there}; make kunit BASE={base} UPDATE=1 tells whether it applies, builds, passes\n"
    text += f"\n{table(rows, left=6)}\n{table(whole, left=2)}"
    fresh = {verb: Status(one["verdict"]) for verb, one in known.items() if not stale(one, now)}
    return text, [Result(base, verb, fresh.get(verb, Status.SKIPPED), cell(known.get(verb), now))
                  for verb in VERBS]


def readme(text: str) -> str:
    """README.md with the cells of its table that results of today's state know."""
    for base in bases.read():
        now, known = state(base), read(base)
        fresh = {verb: known[verb]["said"] for verb in ("crash-test", "kunit")
                 if verb in known and not stale(known[verb], now)}

        def line(found: re.Match[str], fresh: dict[str, str] = fresh) -> str:
            crash, unit = (newer(old.strip(), fresh.get(verb, old.strip()))
                           for verb, old in zip(("crash-test", "kunit"), (found[2], found[3])))
            return f"{found[1]}| {crash:<31} | {unit:<7} |"
        text = re.sub(rf"(?m)^(\| {re.escape(base)} +\|[^|]*\|[^|]*)\|([^|]*)\|([^|]*)\|$", line, text)
    return text


def newer(old: str, new: str) -> str:
    """Which rules a kernel without the series breaks is not always the same."""
    return old if re.sub(r" \(.*?\)", "", old) == re.sub(r" \(.*?\)", "", new) else new


def differs() -> str:
    """What of README.md's table is not what the results say, or nothing."""
    text = README.read_text()
    new = readme(text)
    return next((f"README.md says {old!r}, the results {now!r}: make status writes it"
                 for old, now in zip(text.splitlines(), new.splitlines()) if old != now), "")


def main() -> int:
    """make status"""
    pages = [page(base) for base in bases.read()]
    results = [result for _, found in pages for result in found]
    report = Report("status", "all", results)
    text = README.read_text()
    new = readme(text)
    if new != text:
        write(README, new)
    report.text = "\n".join(text for text, _ in pages)
    report.text += f"\n{counted(results)} (stale, or never run)"
    report.text += "; README.md is written anew" * (new != text)
    report.show(run_directory("status", "all"))
    return worst(results).code if {result.status for result in results} - {Status.SKIPPED} else 0
