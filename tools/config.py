# SPDX-License-Identifier: GPL-2.0-only
"""The configuration: what to build and how to crash it (Kconfig, configs/, .config).

    config.py menuconfig | defconfig | <name>_defconfig
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import bases
import deps
from common import TOP, USAGE, Err, main, say

if TYPE_CHECKING:
    import kconfiglib

DOTCONFIG = TOP / ".config"


def _kconfig() -> kconfiglib.Kconfig:
    deps.need("config")
    import kconfiglib
    os.environ["srctree"] = str(TOP)
    os.environ["BASES"] = " ".join(bases.read())
    os.environ["DEFAULT_BASE"] = bases.default().name
    kconf = kconfiglib.Kconfig("Kconfig", warn_to_stderr=False)
    kconf.warn_assign_undef = True
    return kconf


def _load(kconf: kconfiglib.Kconfig, path: Path) -> None:
    try:
        kconf.load_config(str(path))
    except OSError as err:
        raise Err(f"{path}: {os.strerror(err.errno or 0)}", "make defconfig", USAGE) from err
    for symbol in kconf.unique_defined_syms:
        _ = symbol.str_value    # only now a value out of its range is noticed
    if kconf.warnings:
        raise Err(kconf.warnings[0].strip(), f"mend {path}, or `make menuconfig`", USAGE)


class Config:
    """`config["BASE"]`: the value of CONFIG_BASE as str, int or bool, after its type in Kconfig."""

    def __init__(self, kconf: kconfiglib.Kconfig) -> None:
        self._kconf = kconf

    def __getitem__(self, name: str) -> str | int | bool:
        import kconfiglib
        symbol = self._kconf.syms[name]
        if symbol.orig_type in (kconfiglib.BOOL, kconfiglib.TRISTATE):
            return symbol.str_value == "y"
        if symbol.orig_type == kconfiglib.INT:
            return int(symbol.str_value)
        return symbol.str_value

    def text(self) -> str:
        """Every symbol and its value, for a report."""
        return "".join(symbol.config_string for symbol in self._kconf.unique_defined_syms)

    @property
    def base(self) -> str:
        """BASE= on the command line comes before the configuration."""
        return bases.get(os.environ.get("BASE") or str(self["BASE"])).name


def load(defconfig: str | None = None) -> Config:
    """A file of configs/ by name (CONFIG= names it), or the user's .config, or else the defaults."""
    kconf = _kconfig()
    defconfig = defconfig or os.environ.get("CONFIG")
    if defconfig:
        if not (TOP / "configs" / defconfig).is_file():
            names = " ".join(sorted(path.name for path in (TOP / "configs").glob("*_defconfig")))
            raise Err(f"no configuration configs/{defconfig}", f"choose one of: {names}", USAGE)
        _load(kconf, TOP / "configs" / defconfig)
    elif DOTCONFIG.exists():
        _load(kconf, DOTCONFIG)
    config = Config(kconf)
    bases.get(str(config["BASE"]))
    return config


def cli() -> int:
    if len(sys.argv) != 2:
        raise Err("one argument: menuconfig, defconfig or <name>_defconfig", "make help", USAGE)
    what = sys.argv[1]
    if what == "menuconfig":
        load()
        import menuconfig
        os.environ["KCONFIG_CONFIG"] = str(DOTCONFIG)
        menuconfig.menuconfig(_kconfig())
        load()
        return 0
    if what == "defconfig":
        what = "default_defconfig"
    load(what)._kconf.write_config(str(DOTCONFIG))
    say(f"{DOTCONFIG} written from configs/{what}")
    return 0


if __name__ == "__main__":
    main(cli)
