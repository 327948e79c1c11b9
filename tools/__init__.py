# SPDX-License-Identifier: GPL-2.0-only
"""What the verbs do: `python3 -m tools <verb>`, which `make <verb>` calls.

Each room may use those above it in this list and none below (tests/test_style.py asserts it):

    common      errors, the cache, progress, commands, locks
    deps        the packages that each verb needs
    results     the one result of whatever is judged, its reports, the directory of a run
    queue       a base's source and its patches: manifest, archive, configuration, store, edit tree,
                exports, rebase, status
    machine     QEMU: which one, its start, its deadline, its end, its console
    kernel      the kernels of a base: build, unit tests, mutants, gate, bench
    crash       the crash test: scenario, workload, guest, judge, report, picture; many of them: matrix
    distro      the series in a distribution: its packages, a disk image, a crash of that; and the
                repro kit, for a real server
    check       make check
    fresh       make check-fresh
    __main__    the table of the verbs

`lint` stands alone: it uses no other room, and its folder works anywhere.
"""
