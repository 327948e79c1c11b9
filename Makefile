# SPDX-License-Identifier: GPL-2.0-only
#
# Every verb. BASE= and KSRC= choose the base kernel, CONFIG= a scenario of configs/ in place
# of .config, UPDATE=1 asks the archive for newer packages, V=1 shows the commands. make
# hands the variables of its command line on to the tools.

PYTHON ?= /usr/bin/python3

.DEFAULT_GOAL := crash-test
.PHONY: help crash-test check tree refresh menuconfig defconfig

crash-test:	## fetch, patch, build, crash, judge: unpatched beside patched
	@$(PYTHON) tools/crash

check:		## the tests: host tools and one crash test on the default base
	@$(PYTHON) tools/check.py

tree:		## a git tree of the base, one commit a patch; prints its path [BASE= KSRC=]
	@$(PYTHON) tools/tree.py tree

refresh:	## that tree's commits back into patches/ [BASE= KSRC= FORCE=1]
	@$(PYTHON) tools/tree.py refresh

menuconfig:	## choose base and crash scenario
	@$(PYTHON) tools/config.py menuconfig

defconfig:	## the default configuration; others: make <name>_defconfig, names in configs/
	@$(PYTHON) tools/config.py defconfig

%_defconfig:
	@$(PYTHON) tools/config.py $@

help:		## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14
