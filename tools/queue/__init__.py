# SPDX-License-Identifier: GPL-2.0-only
"""The patch queue: which bases there are, where their source comes from, what is applied to it."""
