# SPDX-License-Identifier: GPL-2.0-only
"""The repro kit: what runs on a real server, where there is no QEMU and no trace.

`make repro-kit` (pack.py) packs the other modules, with what they import, into one tarball. There
`./kit check`, `crash`, `collect` and `verdict` are __main__.py's; check, crash and collect need
nothing but Python.
"""
