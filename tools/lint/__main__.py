# SPDX-License-Identifier: GPL-2.0-only
"""Prove what a backport branch carries.

  lint compare RANGE|PATCHES   each commit beside what it says it comes from
  lint fixes RANGE             upstream's fixes and reverts of what the branch carries, and it lacks
  lint check < MAIL            one patch from a mail, in the words of b4's per-patch check

Exit status: 0 clean, 1 findings, 2 usage, 3 environment (git failed, a fetch failed).
"""
from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from .digest import Digest
from .fixes import Fixes
from .gitio import ENVIRONMENT, FINDINGS, OK, USAGE, Err, Git
from .patches import find_contents, is_range, parse_mail, source
from .render import FORMATS, Report, progress, render


def arguments() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="lint", description=__doc__,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="compare|fixes|check")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-C", dest="repo", metavar="DIR", default=".",
                        help="the repository of the branch (default: here)")
    common.add_argument("--reference", metavar="DIR", default=os.environ.get("LINUX_GIT") or None,
                        help="upstream's repository (default: $LINUX_GIT, else the branch's own)")
    common.add_argument("--mainline", metavar="REV", action="append", default=[],
                        help="what is merged upstream (default: the reference's HEAD, master, main, v* tags)")

    output = argparse.ArgumentParser(add_help=False)
    output.add_argument("--format", choices=list(FORMATS), default="table",
                        help="default: table, fitted to the terminal")
    output.add_argument("--color", choices=("auto", "always", "never"), default="auto")
    output.add_argument("-o", "--output", metavar="FILE", help="write there instead of the standard output")

    series = argparse.ArgumentParser(add_help=False)
    series.add_argument("--series", metavar="WHERE", action="append", default=[],
                        help="a posted series: mbox, maildir, directory, or a range A..B of the reference")
    series.add_argument("--fetch", action="store_true",
                        help="fetch the threads that provenance lines link to")

    c = verbs.add_parser("compare", parents=[common, series, output], help="the digest of a branch")
    c.add_argument("local", metavar="RANGE|PATCHES", help="A..B, or an mbox, maildir or directory of patches")
    c.add_argument("--onto", metavar="REV", default="",
                   help="the tree that a directory of patches applies to")
    c.add_argument("--exempt", metavar="REGEX", default="",
                   help="subjects that need no origin (release commits)")
    c.add_argument("--unsigned", action="store_true", help="whoever picks a commit does not sign it off here")

    f = verbs.add_parser("fixes", parents=[common, output], help="fixes that the branch lacks")
    f.add_argument("local", metavar="RANGE", help="A..B")
    f.add_argument("--ignore", metavar="FILE", help="fixes not wanted, a line each: HASH YYYY-MM-DD REASON")
    f.add_argument("--all", action="store_true", help="list also the fixes that the branch has")

    verbs.add_parser("check", parents=[common, series],
                     help="one mail on the standard input (b4.prep-perpatch-check-cmd)")
    return top


def repositories(args: argparse.Namespace, needed: bool) -> tuple[Git | None, Git | None]:
    """The branch's repository and the reference; `needed`: the branch must be in one."""
    git: Git | None = None
    try:
        git = Git(args.repo)
    except Err:
        if needed or args.repo != ".":
            raise
    return git, Git(args.reference) if args.reference else None


def digest(args: argparse.Namespace, needed: bool = False) -> Digest:
    """A digest with its repositories and posted series; `needed`: the branch is in a repository."""
    git, reference = repositories(args, needed)
    for rev in args.mainline:
        (reference or git or Git(args.repo)).revision(rev)
    made = Digest(git, reference, args.mainline, args.fetch, getattr(args, "exempt", ""),
                  not getattr(args, "unsigned", False))
    for where in args.series:
        made.posted.load(*source(where, made.reference, made.posted.stores))
    return made


def compare(args: argparse.Namespace) -> int:
    try:
        re.compile(args.exempt)
    except re.error as e:
        raise Err(f"--exempt {args.exempt!r}: {e}", "give a regular expression", USAGE) from None
    made = digest(args, bool(args.onto) or (not os.path.exists(args.local) and is_range(args.local)))
    local, _ = source(args.local, made.git, made.posted.stores, args.onto)
    report = made.run(f"Patch lint of {args.local}", local)
    put(report, args)
    return status(made, report)


def status(made: Digest, report: Report) -> int:
    return ENVIRONMENT if made.failed_fetch() else FINDINGS if report.errors() else OK


def fixes(args: argparse.Namespace) -> int:
    if not is_range(args.local):
        raise Err(f"{args.local} is no range", "give A..B", USAGE)
    git, reference = repositories(args, True)
    assert git
    report = Fixes(git, reference, args.mainline, args.ignore).run(args.local, args.all)
    put(report, args)
    return ENVIRONMENT if any(f.kind == "fetch-failed" for f in report.findings) \
        else FINDINGS if report.errors() else OK


def check(args: argparse.Namespace) -> int:
    """b4: findings on the standard output, ERROR: and WARNING: lines; silence is success."""
    try:
        patch = parse_mail(sys.stdin.buffer.read(), "-")
        if patch is None or (not patch.files and not patch.broken):
            print("ERROR: the mail holds no patch")
            return USAGE
        made = digest(args)
        find_contents([patch], made.posted.stores)
        # the rest of the series is in other mails: only what this one says counts
        report = made.run("Patch lint", [patch], single=True)
    except Err as e:
        print(f"ERROR: {e.cause}; {e.next_step}")
        return e.code
    for f in report.findings:
        print(f"{f.level.upper()}: {f.text}; {f.remedy}")
    return status(made, report)


def put(report: Report, args: argparse.Namespace) -> None:
    text = render(report, args.format, args.color, args.output)
    if not args.output:
        sys.stdout.buffer.write(text.encode("utf-8", "replace"))
        sys.stdout.flush()
        if args.format == "tsv":        # its table holds no findings
            for f in report.findings:
                print(f"{f.level}: {f.where}: {f.text}; {f.remedy}", file=sys.stderr)
        return
    try:
        Path(args.output).write_bytes(text.encode("utf-8", "replace"))
    except OSError as e:
        raise Err(f"{args.output}: {e.strerror}", "choose a file that can be written") from None


def main(argv: Sequence[str]) -> int:
    """Run one verb; the exit status."""
    try:
        args = arguments().parse_args(argv)
    except SystemExit as e:             # argparse has said what is wrong, or printed its help
        return int(e.code or OK)
    try:
        return {"compare": compare, "fixes": fixes, "check": check}[args.verb](args)
    except Err as e:
        progress("")
        print(f"error: {e.cause}" + (f"; next: {e.next_step}" if e.next_step else ""), file=sys.stderr)
        return e.code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return ENVIRONMENT
    except KeyboardInterrupt:
        progress("")
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except (MemoryError, OSError, RecursionError) as e:
        print(f"error: {type(e).__name__}: {e}; next: check memory, disk and the repository", file=sys.stderr)
        return ENVIRONMENT
    except Exception:
        progress("")
        traceback.print_exc()
        print("error: a bug of this tool: nothing was proven; next: report the lines above", file=sys.stderr)
        return ENVIRONMENT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
