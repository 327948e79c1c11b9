# SPDX-License-Identifier: GPL-2.0-only
"""The kernels of a base: building them, their unit tests, every patch through the gate, what it costs."""
