# SPDX-License-Identifier: GPL-2.0-only
"""The series in a distribution: its packages, a disk image that has them, a crash of that."""
