# SPDX-License-Identifier: GPL-2.0-only
"""Lint of backport branches: what each commit comes from, whether it is the same, which fixes are missing.

The folder imports nothing outside itself and the standard library: copy it anywhere and run
`python3 -m lint` from the directory above it.

  __main__            the command line; main(argv) for callers in the same process
  series, pairing     what a commit comes from: posted versions, provenance lines, subjects
  judging             what one pair, or one commit without a counterpart, must keep to
  digest              all rows of a branch, what only shows in the whole, the report
  compare, diffing    whether two changes are the same
  placing             whether they stand in the same place, by the names of the blocks around it
  fixes               upstream's fixes and reverts that the branch lacks
  patches, message    changes from commits and mails; what their messages say
  gitio               git, with all its answers checked
  render              reports as text, Markdown, JSON, JUnit, TSV
  speed               time and memory on synthetic histories
"""
