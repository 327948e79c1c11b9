# SPDX-License-Identifier: GPL-2.0-only
# flake8: noqa: E101,W191
"""An upstream history and a distribution's base, for the tests of tools/lint.

Upstream went on after the base was cut off: the base lacks the refactoring in the middle, and
has changes of its own.  Each upstream change is an `Edit`, so a test can carry it over to the base
by hand and knows what an honest backport is.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .lintkit import (ALICE, BOB, EXEC, FILE, LINK, MIKE, MODULE, Edit, Repo, Tree, both, drop, message, put,
                      sub, text, within)

C = "drivers/foo/foo.c"
H = "drivers/foo/foo.h"


def enable(queue: str) -> str:
    return f"""static int foo_enable_{queue}(struct foo_device *foo)
{{
	struct foo_queue *q = &foo->queue;
	u32 enables = readl(foo->base + FOO_CR0);
	int ret;

	ret = foo_write_sync(foo, q->prod, FOO_PROD);
	if (ret)
		return ret;

	enables |= FOO_EN;
	ret = foo_write_sync(foo, enables, FOO_CR0);
	if (ret) {{
		dev_err(foo->dev, "failed to enable the queue\\n");
		return ret;
	}}
	return 0;
}}

"""


def getter(n: int) -> str:
    return f"""static u32 foo_get_{n}(struct foo_device *foo)
{{
	u32 reg = readl(foo->base + FOO_REG({n}));

	if (reg & FOO_BUSY)
		return 0;
	return FIELD_GET(FOO_FIELD_{n}, reg);
}}

"""


SOURCE = """// SPDX-License-Identifier: GPL-2.0-only
/* A device that does not exist. */

#include <linux/bitfield.h>
#include <linux/io.h>
#include <linux/module.h>

#include "foo.h"

""" + "".join(f"#define FOO_OFFSET_{n}\t0x{n * 4:x}\n" for n in range(12)) + """
#define FOO_TIMEOUT_US	100
#define FOO_RETRIES	3

static int foo_legacy(struct foo_device *foo)
{
	foo->legacy = true;
	return 0;
}

""" + "".join(enable(q) for q in ("cmdq", "evtq", "priq")) + "".join(map(getter, range(8))) \
    + """static int foo_reset(struct foo_device *foo)
{
	int ret;

	ret = foo_disable(foo);
	if (ret)
		return ret;

	/* Clear what was latched */
	writel(0, foo->base + FOO_ERR);

	ret = foo_enable_cmdq(foo);
	if (ret)
		goto out_disable;

	ret = foo_enable_evtq(foo);
	if (ret)
		goto out_disable;
	return 0;

out_disable:
	foo_disable(foo);
	return ret;
}

static int foo_probe(struct platform_device *pdev)
{
	struct foo_device *foo;
	int ret;

	foo = devm_kzalloc(&pdev->dev, sizeof(*foo), GFP_KERNEL);
	if (!foo)
		return -ENOMEM;

	foo->dev = &pdev->dev;
	ret = foo_reset(foo);
	if (ret)
		return ret;

	platform_set_drvdata(pdev, foo);
	return foo_register(foo);
}

static const struct foo_quirk foo_quirks[] = {
	{ .id = 1, .flags = FOO_Q_SLOW },
	{ .id = 2, .flags = FOO_Q_FAST },
	{ .id = 3, .flags = FOO_Q_SLOW },
};

MODULE_DESCRIPTION("A device that does not exist");
MODULE_LICENSE("GPL");
"""

ROOT: Tree = {
    C: (FILE, text(SOURCE)),
    H: (FILE, b"/* SPDX-License-Identifier: GPL-2.0-only */\n#ifndef FOO_H\n#define FOO_H\n\nint "
              b"foo_disable(struct foo_device *foo);\n"
        b"int foo_register(struct foo_device *foo);\n\n#endif\n"),
    "drivers/foo/Makefile": (FILE, b"obj-$(CONFIG_FOO) += foo.o\nobj-$(CONFIG_FOO_PCI) += foo-pci.o\n"),
    "drivers/foo/Kconfig": (FILE,
                            b"config FOO\n\ttristate \"Foo\"\n\tdepends on HAS_IOMEM\n\thelp\n\t  A "
                            b"device.\n\nconfig FOO_PCI\n\tbool \"Foo on PCI\"\n"
                            b"\tdepends on FOO\n"),
    "drivers/foo/table.h": (FILE, "".join(f"#define FOO_T{n} {n * 7}\n" for n in range(3000)).encode()),
    "drivers/foo/tail.txt": (FILE, b"one\ntwo\nthree\nfour\nfive"),
    "drivers/foo/dos.txt": (FILE, b"".join(b"line %d\r\n" % n for n in range(12))),
    "scripts/foo.sh": (FILE, b"#!/bin/sh\nset -e\necho foo\n"),
    "firmware/foo.bin": (FILE, b"\0\1\2\3" * 64),
    "Documentation/foo.rst": (FILE,
                              b"Foo\n===\n\nA device.\n\nIt has queues.\n\nThey are rings.\n\nIt has "
                              b"errors.\n"),
    "Documentation/na\u00efve \"file\"\tname.rst": (FILE, b"Quoted\n======\n\nAll of it.\n"),
    "current": (LINK, b"drivers/foo"),
    "lib/sub": (MODULE, b"1" * 40),
    "MAINTAINERS": (FILE, b"FOO\nM:\tMike\n"),
}

# what the distribution has of its own: other lines near, and before, the places upstream changes
DOWNSTREAM = both(
    sub(C, "#define FOO_OFFSET_5", "#define FOO_FIRST_SILICON\t1\n#define FOO_OFFSET_5"),
    sub(C, "static int foo_reset(",
        "static void foo_erratum(struct foo_device "
        "*foo)\n{\n\twritel(1, foo->base + FOO_ERRATUM);\n}\n\nstatic int foo_reset("),
    sub(C, "\tfoo->dev = &pdev->dev;\n", "\tfoo->dev = &pdev->dev;\n\tfoo_erratum(foo);\n"),
    sub("drivers/foo/Makefile", "obj-$(CONFIG_FOO_PCI) += foo-pci.o\n", ""),
    sub("drivers/foo/table.h", "#define FOO_T9 ", "#define FOO_NINE 9\n#define FOO_T9 "),
    sub("drivers/foo/tail.txt", "one\n", "zero\none\n"),
)

# upstream's own way between the base and the patches
REFACTOR = both(
    sub(C, "#define FOO_OFFSET_7", "#define FOO_DEPTH\t64\n#define FOO_MAX\t2\n#define FOO_OFFSET_7"),
    sub(C, "static u32 foo_get_3(",
        "static void foo_dump(struct foo_device *foo)\n{\n\tpr_info(\"foo\\n\");\n}\n\n"
        "static u32 foo_get_3("),
    sub(C, "\t/* Clear what was latched */\n", "\t/* Clear latched errors before the queues come up */\n"),
    sub("Documentation/foo.rst", "It has queues.\n", "It has three queues.\n"),
)

ADOPT = ("static int foo_adopt(struct foo_device *foo)\n{\n\tu32 cr0 = readl(foo->base + FOO_CR0);\n\n"
         "\tif (!(cr0 & FOO_EN))\n\t\treturn -ENODEV;\n\n\tfoo->adopted = true;\n\treturn 0;\n}\n\n")

# name -> (subject, edit)
CHANGES: dict[str, tuple[str, Edit]] = {
    "sibling": ("foo: Mark the event queue", within(C, "foo_enable_evtq(struct", "\tenables |= FOO_EN;\n",
                                                    "\tenables |= FOO_EN | FOO_EVT;\n")),
    "adopt": ("foo: Adopt a running device", both(
        sub(C, "static int foo_reset(", ADOPT + "static int foo_reset("),
        sub(C, "\tret = foo_reset(foo);\n",
            "\tret = foo_adopt(foo);\n\tif (ret)\n\t\tret = foo_reset(foo);\n"),
        sub(H, "int foo_register(", "int foo_adopt(struct foo_device *foo);\nint foo_register("))),
    "const": ("foo: Wait longer", sub(C, "FOO_TIMEOUT_US\t100\n", "FOO_TIMEOUT_US\t1000\n")),
    "context": ("foo: Clear the other error register too",
                sub(C, "\twritel(0, foo->base + FOO_ERR);\n",
                    "\twritel(0, foo->base + FOO_ERR);\n\twritel(0, foo->base + FOO_ERR2);\n")),
    "getter": ("foo: Read field 5 from the shadow",
               within(C, "foo_get_5(", "\tif (reg & FOO_BUSY)\n\t\treturn 0;\n",
                      "\tif (reg & FOO_BUSY)\n\t\treturn foo->shadow;\n")),
    "newfile": ("foo: Split out the adoption", both(
        put("drivers/foo/foo-adopt.c",
            "// SPDX-License-Identifier: GPL-2.0-only\n#include \"foo.h\"\n\nint foo_adopted(struct "
            "foo_device *foo)\n{\n\treturn foo->adopted;\n}\n"),
        sub("drivers/foo/Makefile", "obj-$(CONFIG_FOO) += foo.o\n",
            "obj-$(CONFIG_FOO) += foo.o foo-adopt.o\n"))),
    "makefile": ("foo: Build the platform glue",
                 lambda t: t.__setitem__("drivers/foo/Makefile",
                                         (FILE, t["drivers/foo/Makefile"][1]
                                          + b"obj-$(CONFIG_FOO_PLAT) += foo-plat.o\n"))),
    "delete": ("foo: Remove the legacy path",
               sub(C, "static int foo_legacy(struct foo_device "
                      "*foo)\n{\n\tfoo->legacy = true;\n\treturn 0;\n}\n\n", "")),
    "rmfile": ("foo: Drop the helper script", drop("scripts/foo.sh")),
    "mode": ("foo: Make the script executable",
             lambda t: t.__setitem__("scripts/foo.sh", (EXEC, t["scripts/foo.sh"][1]))),
    "binary": ("foo: Update the firmware", put("firmware/foo.bin", b"\0\1\2\4" * 80)),
    "link": ("foo: Point to the new directory", put("current", "drivers/foo2", LINK)),
    "module": ("foo: Update the submodule", put("lib/sub", "2" * 40, MODULE)),
    "rename": ("foo: Rename the manual", both(
        lambda t: t.__setitem__("Documentation/devices/foo.rst", t["Documentation/foo.rst"]),
        drop("Documentation/foo.rst"),
        sub("Documentation/devices/foo.rst", "A device.\n", "A fine device.\n"))),
    "docs": ("foo: Say more about errors",
             sub("Documentation/foo.rst", "It has errors.\n", "It has errors, and counts them.\n")),
    "quoted": ("foo: Improve a file with an odd name",
               sub("Documentation/na\u00efve \"file\"\tname.rst", "All of it.\n", "All of it, twice.\n")),
    "tail": ("foo: Say six", lambda t: t.__setitem__("drivers/foo/tail.txt",
                                                     (FILE, t["drivers/foo/tail.txt"][1] + b"\nsix"))),
    "dos": ("foo: Change a DOS file", sub("drivers/foo/dos.txt", "line 5\r\n", "line five\r\n")),
    "huge": ("foo: Regenerate the table", lambda t: t.__setitem__("drivers/foo/table.h", (FILE, b"".join(
        (x.replace(b"#define FOO_T", b"#define FOO_TABLE_") if x.rstrip()[-1] in b"13579"
         else x) for x in t["drivers/foo/table.h"][1].splitlines(True))))),
    "quirk": ("foo: Add a quirk",
              sub(C, "\t{ .id = 3, .flags = FOO_Q_SLOW },\n",
                  "\t{ .id = 3, .flags = FOO_Q_SLOW },\n\t{ .id = 4, .flags = FOO_Q_FAST },\n")),
    "include": ("foo: Include what is used",
                sub(C, "#include <linux/io.h>\n", "#include <linux/io.h>\n#include <linux/iopoll.h>\n")),
    "kconfig": ("foo: Depend on OF", within("drivers/foo/Kconfig", "config FOO_PCI", "\tdepends on FOO\n",
                                            "\tdepends on FOO && OF\n")),
    "reorderA": ("foo: Prepare the reset",
                 sub(C, "\tret = foo_disable(foo);\n", "\tfoo_prepare(foo);\n\tret = foo_disable(foo);\n")),
    "reorderB": ("foo: Announce the probe",
                 sub(C, "\tplatform_set_drvdata(pdev, foo);\n",
                     "\tdev_info(foo->dev, \"hello\\n\");\n\tplatform_set_drvdata(pdev, foo);\n")),
    "empty": ("foo: An empty commit that asks for CI", lambda t: None),
    "latin": ("foo: Fix a comment",
              sub(C, "A device that does not exist. */", "A device that never was. */")),
    "many": ("foo: Work of several people", sub(C, "#define FOO_RETRIES\t3\n", "#define FOO_RETRIES\t5\n")),
    "noted": ("foo: Tidy the table", sub(C, "\t{ .id = 1, .flags = FOO_Q_SLOW },\n",
                                         "\t{ .id = 1, .flags = FOO_Q_SLOW | FOO_Q_OLD },\n")),
}


@dataclass
class Up:
    """An upstream commit as a test sees it."""
    oid: str
    subject: str
    message: str
    edit: Edit


class World:
    """The upstream repository, the branch's repository, and the base of every test's branch."""

    def __init__(self, path: Path):
        self.up = Repo(path / "upstream")
        self.local = Repo(path / "distro")
        root = self.up.commit(ROOT, message("foo: Add the driver"), [])
        tree = dict(ROOT)
        REFACTOR(tree)
        tip = self.up.commit(tree, message("foo: Refactor"), [root])
        self.fork = root
        self.refactored = tip
        self.ups: dict[str, Up] = {}
        for name, (subject, edit) in CHANGES.items():
            here = dict(tree)       # each on its own, on top of the refactoring: a test picks any
            edit(here)
            body, author, encoding = message(subject), ALICE, ""
            if name == "latin":
                author = "J\u00f6rg M\u00fcller <jm@up.example>"
                body = message(subject, signed=(author, MIKE))
            if name == "many":
                body = (f"{subject}\n\nTwo wrote this.\n\nCo-developed-by: {BOB.replace('distro', 'up')}\n"
                        f"Signed-off-by: {BOB.replace('distro', 'up')}\nSigned-off-by: {ALICE}\nReviewed-by: "
                        f"{MIKE}\nSigned-off-by: {MIKE}\n")
            if name == "noted":
                body = (f"{subject}\n\nIt was crooked.\n\nSigned-off-by: {ALICE}\n[mike: fixed a typo]\n"
                        f"Signed-off-by: {MIKE}\n")
            oid = self.up.commit(here, body, [tip], author=author, encoding=encoding)
            self.ups[name] = Up(oid, subject, body, edit)
        # all of them are merged
        merged = self.up.commit(tree, message("Merge everything", signed=(MIKE,)),
                                [tip, *(u.oid for u in self.ups.values())])
        # a pair that follows each other
        here = dict(tree)
        parent = merged
        for name in ("reorderA", "reorderB"):
            subject, edit = CHANGES[name]
            edit(here)
            parent = self.up.commit(here, message(subject), [parent])
            self.ups[name] = Up(parent, subject, message(subject), edit)
        self.up.ref("heads/master", parent)
        self.tip = parent
        # never merged
        here = dict(tree)
        CHANGES["const"][1](here)
        self.stray = self.up.commit(here, message("foo: Wait longer", "An earlier version."), [tip])
        # the distribution
        base = dict(ROOT)
        base_oid = self.local.commit(base, message("foo: Add the driver"), [])
        DOWNSTREAM(base)
        self.base = self.local.commit(base, message("UBUNTU: SAUCE: foo: First silicon", signed=(BOB,)),
                                      [base_oid])
        self.base_tree = base
        self.local.ref("heads/master", self.base)

    def branch(self, tree: Tree | None = None) -> Branch:
        return Branch(self, tree)


class Branch:
    """A backport branch under construction."""

    def __init__(self, world: World, tree: Tree | None = None):
        self.world = world
        self.tree = dict(tree or world.base_tree)
        self.parents = [world.base if tree is None
                        else world.local.commit(self.tree, message("base", signed=(BOB,)), [world.base])]
        self.base = self.parents[0]
        self.commits: list[str] = []

    def commit(self, msg: str | bytes, edit: Edit | None = None, author: str | bytes = ALICE,
               encoding: str = "",
               parents: list[str] | None = None) -> str:
        if edit:
            edit(self.tree)
        oid = self.world.local.commit(self.tree, msg, parents or self.parents, author=author, committer=BOB,
                                      encoding=encoding)
        self.parents = [oid]
        self.commits.append(oid)
        return oid

    def pick(self, name: str, edit: Edit | None = None, *, line: str | None = None, note: str = "",
             signed: tuple[str, ...] = (BOB,),
             subject: str = "", author: str | bytes | None = None, verb: str = "cherry picked") -> str:
        """A pick as `git cherry-pick -x -s` leaves it, `edit` in place of upstream's change."""
        up = self.world.ups[name]
        body = up.message if not subject else up.message.replace(up.subject, subject, 1)
        line = f"({verb} from commit {up.oid})\n" if line is None else line
        body += line + (f"[{note}]\n" if note else "") + "".join(f"Signed-off-by: {s}\n" for s in signed)
        who = author if author is not None else ("J\u00f6rg M\u00fcller <jm@up.example>" if name == "latin"
                                                 else ALICE)
        return self.commit(body, edit or up.edit, author=who)

    def range(self) -> str:
        self.world.local.ref("heads/work", self.parents[0])
        return f"{self.base}..{self.parents[0]}"
