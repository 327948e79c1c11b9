# SPDX-License-Identifier: GPL-2.0-only
"""The crash test: a scenario, the machine's workload, the guest, the judge and its table."""
