# SPDX-License-Identifier: GPL-2.0-only
"""make status: what is known of each base and each patch, and what of it is stale.

A verb that judged a base leaves its result here, with the state that it judged: the base's package and
hashes of the series and of the tools. A result whose state is another now is shown as stale, in
README.md's table, too, but for another package: its row is of the one before. A newer package in the
archive is named; UPDATE=1 tries the series on it, in a cache of its own, so that the base stays as it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import zip_longest
from typing import Any

from ..common import FAIL, TOP, Err, cache_dir, environment, flag, lock, remove, run, say, write
from ..results import Report, Result, Status, counted, failure, run_directory, table, worst
from . import archive, bases
from .store import Rejected, Store, digest, git, is_own, subject

README = TOP / "README.md"
# What a judgement depends on, apart from the base and its patches: every one, and each verb's
TOOLS = ("tools/kernel/build.py", "tools/machine.py", "drivers", "include", "configs", "patches/test")
KUNIT, CRASH = "tools/kernel/kunit.py", "tools/crash"
GATE = (KUNIT, "tools/kernel/gate.py", "tools/kernel/sparse.py")
VERBS = {"kunit": (KUNIT,), "gate": GATE, "mutants": (KUNIT, "tools/kernel/mutants.py", CRASH),
         "bench": (*GATE, "tools/kernel/bench.py", CRASH),
         **dict.fromkeys(("crash-test", "scenarios", "soak", "chaos"), (CRASH,))}
SHOWN = ("crash-test", "kunit")     # in README.md
NEWER = "newer"         # the record of the archive's newer package
KEYS = {"verdict": str, "said": str, "rows": dict, "when": float, "state": dict}    # of a result

Build = Callable[[str], object]     # makes the kernel of a base with the series


def state(base: str, name: str) -> dict[str, str]:
    """What a result of a base depends on; `name` is a verb, or begins with one."""
    store, parts = Store(base, ""), [TOP / part for part in (*TOOLS, *VERBS.get(name.split()[0], ()))]
    files = sorted(path for part in parts for path in [part, *part.rglob("*")]
                   if path.is_file() and path.suffix not in (".pyc", ".o", ".cmd"))
    return {"package": store.origin()[0], "series": store.series_hash(),
            "tools": digest(*(str(path.relative_to(TOP)) for path in files),
                            *(path.read_bytes() for path in files))[:12]}


def begin(base: str, name: str) -> dict[str, str]:
    """The state that a verb judges, for record(): it may run for an hour, in which somebody edits."""
    if os.environ.get("KSRC"):
        return {}
    with (store := Store(base, "")).lock():
        store.source()
    return state(base, name)


def record(base: str, name: str, verdict: Status, said: str, begun: Mapping[str, str],
           rows: Mapping[str, str] = {}) -> None:
    """Keep what a verb found on a base; `rows` are of single patches. Not of somebody's KSRC=."""
    if os.environ.get("KSRC"):
        return
    path = cache_dir("records") / f"{base}.json"
    with lock(path.with_suffix(".lock")):
        one = {"verdict": verdict, "said": said, "rows": dict(rows), "when": time.time(), "state": begun}
        write(path, json.dumps(read(base) | {name: one}, indent=1))


def read(base: str) -> dict[str, Any]:
    path = cache_dir("records") / f"{base}.json"
    try:
        known = dict(json.loads(path.read_text())) if path.exists() else {}
    except (ValueError, TypeError):      # cut short by a full disk, or edited
        known = {"": None}
    whole = {name: one for name, one in known.items() if name.split() and isinstance(one, dict)
             and all(isinstance(one.get(key), kind) for key, kind in KEYS.items())
             and one["verdict"] in [*Status]}
    if known != whole:
        say(f"{path} is damaged: {'some' if whole else 'all'} of its results count as never run")
    return whole


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
    names, left = [row(patch) for patch in store.queue()], 0
    with store.lock():
        try:
            store.apply(store.source(), store.queue())
        except Rejected as err:
            left = len(err.rest)
    good = len(names) - left
    return {name: "yes" if number < good else "NO" if number == good else "-"
            for number, name in enumerate(names)}


def row(patch: Any) -> str:
    """A patch's name in tables: that of the gate's."""
    number = str(patch.name).split("-")[0]
    return number if is_own(patch) else f"{patch.parent.name}/{number}"


def same(store: Store, newest: Store) -> dict[str, str]:
    """Does each patch have the patch-id of the one of that subject on the newest base?"""
    def ids(queue: Iterable[Any]) -> dict[str, tuple[str, str]]:
        return {subject(patch): (row(patch), git("patch-id", "--stable", data=patch.read_bytes()).stdout[:40])
                for patch in queue}

    theirs = ids(newest.queue())
    return {name: "the same" if title in theirs and theirs[title][1] == mine else
            "differs" if title in theirs else "only here"
            for title, (name, mine) in ids(store.queue()).items()}


def version(package: str) -> str:
    """Of a package's file name."""
    return re.sub(r"^[^_]*_|_[^_]*$", "", package).replace("%3a", ":")


def attempt(base: str, build: Build) -> None:
    """Does the series apply and build on the archive's newest package? Kept as a record of the base."""
    # In a cache in which nothing was fetched yet: the user's stays as it is.
    empty, ccache = cache_dir() / NEWER, cache_dir("ccache")
    with lock(empty.with_suffix(".lock")), environment(XDG_CACHE_HOME=str(empty)):
        remove(empty)
        (cache_dir() / ccache.name).symlink_to(ccache)
        try:
            bad = [name for name, said in applies(Store(base, "")).items() if said == "NO"]
            begun, said = state(base, NEWER), f"{bad[0]} does not apply" if bad else "applies, builds"
            if not bad:
                build(base)
        except Err as err:
            if err.code != FAIL:
                raise
            say(f"{base}: {err.cause}")
            said = "applies, does not build"
        finally:
            remove(empty)
    record(base, NEWER, Status.FAIL if " not " in said else Status.PASS, said, begun)


def newer(base: str, package: str, build: Build | None) -> str:
    """What the archive has that is newer than this package, and whether the series was tried on it."""
    of, known = bases.get(base), "newer: not known: "
    try:
        with environment(UPDATE="1" if build else ""):
            there = archive.newest(of.package, of.suites)
        if not there:
            return f"{known}the archive does not have {of.package} any more\n"
        if run(["dpkg", "--compare-versions", there, "gt", version(package)], check=False).returncode:
            return ""
        if build:
            attempt(base, build)
    except Err as err:
        return f"{known}{err.cause}\n"
    tried = read(base).get(NEWER)
    if not tried or version(tried["state"].get("package", "")) != there:
        return f"newer: {there}; make status UPDATE=1 tells whether the series applies and builds there\n"
    said = cell(tried, state(base, NEWER) | {"package": tried["state"]["package"]})
    return f"newer: {there}: {said}; make kunit BASE={base} UPDATE=1 makes it the base\n"


def page(base: str, build: Build | None) -> tuple[str, list[Result]]:
    """All that is known of a base."""
    store, newest = Store(base, ""), Store(bases.newest().name, "")
    try:
        applied, known = applies(store), read(base)
        # The verbs, and after them the controls of chaos
        now = {name: state(base, name) for name in (*VERBS, *sorted(known.keys() - {*VERBS, NEWER}))}
    except Err as err:      # does not hide the other bases
        return f"{base}: {err.line}\n", [Result(base, "source", failure(err), err.line)]
    ids = {}
    if base != newest.base.name:
        with contextlib.suppress(Err):      # of the newest base, which has a page of its own
            ids = same(store, newest)
    gate = known.get("gate", {"rows": {}})
    old = " (stale)" if gate["rows"] and stale(gate, now["gate"]) else ""
    rows = [["patch", "applies", *(f"{word}{old}" for word in ("builds", "gate", "KUnit")),
             f"patch-id of {newest.base.name}"]]
    rows += [[name, applied[name], *(gate["rows"].get(f"{name} {what}", "-") for what in
                                     ("builds", "gate", "kunit")), ids.get(name, "-")] for name in applied]
    cells = {name: cell(known.get(name), of) for name, of in now.items()}
    package = now["gate"]["package"]
    text = f"{base}: {store.base.package} {version(package)}\n{newer(base, package, build)}"
    text += f"\n{table(rows, left=6)}\n{table([*cells.items()], left=2)}"
    fresh = {verb: Status(known[verb]["verdict"]) for verb in now.keys() & known.keys()
             if not stale(known[verb], now[verb])}
    return text, [Result(base, verb, fresh.get(verb, Status.SKIPPED), cells[verb]) for verb in VERBS]


def readme(text: str) -> str:
    """README.md with its table written anew: a row for each base, and in it what its results say.

    They are this machine's of today, or those that the row was written from, as long as series and tools
    are what they were then: a line below the table has their hash.
    """
    rows, marks = "", dict(re.findall(r"([\d.]+)=(\w+)", "".join(re.findall("(?m)^<!-- .* -->$", text))))
    for name, base in bases.read().items():
        old = re.search(rf"(?m)^\| {re.escape(name)} +\|([^|]*)\|[^|]*\|([^|]*)\|([^|]*)\|$", text)
        source, *cells = (one.strip() for one in old.groups()) if old else (f"`{base.package}`", "-", "-")
        try:
            now = {verb: state(name, verb) for verb in SHOWN}
        except Err as err:      # nothing is known of today's series: the row stays
            say(f"{name}: {err.line}")
            now = {}
        mark = digest(*(of[part] for of in now.values() for part in ("series", "tools")))[:12]
        kept = not now or marks.get(name) == mark
        marks[name] = mark if now else marks.get(name, "-")
        fresh = {verb: one["said"] for verb, one in read(name).items()
                 if verb in now and not stale(one, now[verb])}
        cells = [cell if verb not in fresh and (kept or cell == "-") or alike(cell, fresh.get(verb, "stale"))
                 else fresh.get(verb, "stale") for verb, cell in zip(SHOWN, cells)]
        rows += f"| {name:<4} | {source:<44} | {base.status:<11} | {cells[0]:<31} | {cells[1]:<7} |\n"
    rows += f"\n<!-- series and tools: {' '.join(f'{name}={marks[name]}' for name in bases.read())} -->\n"
    return re.sub(r"(?m)(^\| Base .*\n\|[-|]+\n)(?:\|.*\n)*(?:\n<!-- .* -->\n)?",
                  lambda found: found[1] + rows, text)


def alike(old: str, new: str) -> bool:
    """Which rules a kernel without the series breaks is not always the same."""
    return re.sub(r" \(.*?\)", "", old) == re.sub(r" \(.*?\)", "", new)


def differs() -> str:
    """What of README.md's table is not what the results say, or nothing."""
    text = README.read_text()
    new = readme(text)
    return next((f"README.md says {old!r}, it should be {now!r}: make status writes it"
                 for old, now in zip_longest(text.splitlines(), new.splitlines()) if old != now), "")


def main(build: Build) -> int:
    """make status"""
    attempting = build if flag("UPDATE") else None
    for name in ("UPDATE", "KSRC"):     # neither may make another source the base
        os.environ.pop(name, None)
    pages = [page(base, attempting) for base in bases.read()]
    results = [result for _, found in pages for result in found]
    report = Report("status", "all", results)
    text = README.read_text()
    new = readme(text)
    if new != text:
        write(README, new)
    last = f"{counted(results)} (stale, or never run)" + "; README.md is written anew" * (new != text)
    report.text = "\n".join([*(one for one, _ in pages), last])
    report.show(run_directory("status", "all"))
    return worst(results).code if {result.status for result in results} - {Status.SKIPPED} else 0
