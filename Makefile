# SPDX-License-Identifier: GPL-2.0-only
#
# Every verb is one of tools/__main__.py. BASE= and KSRC= choose the base kernel, CONFIG= a
# scenario of configs/ in place of .config, UPDATE=1 asks the archive for newer packages, V=1
# shows the commands. make hands the variables of its command line on in the environment.

PYTHON ?= /usr/bin/python3

.DEFAULT_GOAL := crash-test

crash-test:	## fetch, patch, build, crash, judge: unpatched beside patched
scenarios:	## the crash test in every scenario of configs/ [BASE= ONLY= JOBS=]
soak:		## crashes at moments that chance has chosen [BASE= N= SEED= JOBS=]
chaos:		## crashes with a stream table that chance has damaged [BASE= N= SEED= JOBS= WITHOUT=]
check:		## the tests: host tools, unit tests and a few crashes on the default base
check-all:	## every verb that judges, on each base: hours [BASE=]
check-fresh:	## the same in a new minimal root of each distribution [SUITE=]
kunit:		## the driver's unit tests under QEMU [BASE= FILTER= ARGS= FLAVOUR=]
mutants:	## which unit test catches which fault put into the driver [BASE= MUTANTS=]
gate:		## every patch on each base: W=1, sparse, checkpatch, cocci, KUnit [BASE= CHECKS=]
bench:		## what the series costs: time of the adoption, memory, size [BASE=]
status:		## what is known of each base and patch, what is stale; writes README.md [UPDATE=1]
deb:		## Debian packages of the base with the series [BASE= KSRC= KCONFIG= MODULES= DELAY=1]
distro-image:	## a disk image of Debian that has them [SUITE= BASE= MODULES=]
distro-test:	## crash that image: Debian's kernel beside the series' [SUITE= BASE= MODULES= KIT=1]
repro-kit:	## one tarball that crashes a real server and judges: see deploying.rst [BASE=]
lava-job:	## that kit as a job for a LAVA lab [DEVICE= KIT= UNPATCHED= PATCHED= ARGS=]
tree:		## a git tree of the base, one commit a patch; prints its path [BASE= KSRC=]
refresh:	## that tree's commits back into patches/ [BASE= KSRC= FORCE=1]
rebase:		## another base's or tree's series, onto BASE [FROM=base|repo:A..B KSRC= REVERT=1]
lore:		## the newest base's series as mails for the lists; none is sent [VERSION= KSRC=]
stable:		## BASE's series in the form that stable takes [BASE= KSRC= LINUX_GIT=]
branch:		## the series for a distribution [KSRC= BASE= STYLE=ubuntu|suse|debian|plain BUG=]
lint:		## digest of a branch [RANGE=A..B REPO= LINUX_GIT= SERIES= FORMAT=], or of BASE's queue
fixes:		## upstream fixes that a branch lacks [RANGE=A..B REPO= LINUX_GIT= IGNORE= FORMAT=]
bench-lint:	## lint's time and memory on synthetic histories, up to 1.3 million commits
menuconfig:	## choose base and crash scenario
defconfig:	## the default configuration; others: make <name>_defconfig, names in configs/

VERBS := $(shell sed -n 's/^\([a-z-]*\):.*\#\# .*/\1/p' $(firstword $(MAKEFILE_LIST)))
.PHONY: help $(VERBS)

$(filter-out help,$(VERBS)):
	@$(PYTHON) -m tools $@

%_defconfig:
	@$(PYTHON) -m tools $@

help:		## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14
