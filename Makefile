# SPDX-License-Identifier: GPL-2.0-only
#
# Every verb. BASE= and KSRC= choose the base kernel, CONFIG= a scenario of configs/ in place
# of .config, UPDATE=1 asks the archive for newer packages, V=1 shows the commands. make
# hands the variables of its command line on to the tools.

PYTHON ?= /usr/bin/python3

.DEFAULT_GOAL := crash-test
.PHONY: help crash-test scenarios check kunit gate bench tree refresh menuconfig defconfig lint fixes bench-lint

crash-test:	## fetch, patch, build, crash, judge: unpatched beside patched
	@$(PYTHON) tools/crash

scenarios:	## the crash test in every scenario of configs/ [BASE=]
	@$(PYTHON) tools/crash scenarios

check:		## the tests: host tools and one crash test on the default base
	@$(PYTHON) tools/check.py

kunit:		## the driver's unit tests under QEMU [BASE= FILTER= ARGS= FLAVOUR=]
	@$(PYTHON) tools/kunit.py

gate:		## every patch on each base: W=1, sparse, checkpatch, cocci, KUnit [BASE= CHECKS=]
	@$(PYTHON) tools/gate.py

bench:		## what the series costs: time of the adoption, memory, size [BASE=]
	@$(PYTHON) tools/bench.py

tree:		## a git tree of the base, one commit a patch; prints its path [BASE= KSRC=]
	@$(PYTHON) tools/tree.py tree

refresh:	## that tree's commits back into patches/ [BASE= KSRC= FORCE=1]
	@$(PYTHON) tools/tree.py refresh

# One range of any repository, or (lint without RANGE) the queue of a base beside the newest base's.
lint_queue = $(shell awk -v b='$(BASE)' '!/^\#/ && NF && ((b == "" && $$5 == "default") || $$1 == b) {print $$4}' patches/bases)
lint_newest = $(shell awk '!/^\#/ && NF {d = $$4} END {print d}' patches/bases)
lint_tree = $(wildcard $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/smmuv3-kdump/build/$(1)/linux)
lint_form = $(if $(FORMAT),--format $(FORMAT))

lint:		## digest of a branch [RANGE=A..B REPO= LINUX_GIT= SERIES= FORMAT=], or of BASE's queue
ifdef RANGE
	@$(PYTHON) tools/lint compare $(if $(REPO),-C $(REPO)) $(if $(SERIES),--series $(SERIES)) $(lint_form) $(RANGE)
else
	@$(PYTHON) tools/lint compare $(addprefix -C ,$(call lint_tree,$(lint_queue))) \
		$(addprefix --reference ,$(call lint_tree,$(lint_newest))) \
		--series $(or $(SERIES),patches/$(lint_newest)) $(lint_form) patches/$(lint_queue)
endif

fixes:		## upstream fixes that a branch lacks [RANGE=A..B REPO= LINUX_GIT= IGNORE= FORMAT=]
	@$(PYTHON) tools/lint fixes $(if $(REPO),-C $(REPO)) $(if $(IGNORE),--ignore $(IGNORE)) $(lint_form) $(or $(RANGE),RANGE)

bench-lint:	## lint's time and memory on synthetic histories, up to 1.3 million commits
	@$(PYTHON) tools/lint/bench.py

menuconfig:	## choose base and crash scenario
	@$(PYTHON) tools/config.py menuconfig

defconfig:	## the default configuration; others: make <name>_defconfig, names in configs/
	@$(PYTHON) tools/config.py defconfig

%_defconfig:
	@$(PYTHON) tools/config.py $@

help:		## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14
