# SPDX-License-Identifier: GPL-2.0-only
"""The configuration: what to build and how to crash it (Kconfig, configs/, .config)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from .. import deps
from ..common import TOP, USAGE, Err, say
from . import bases

if TYPE_CHECKING:
    import kconfiglib

DOTCONFIG = TOP / ".config"
Value = str | int | bool


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

    def __getitem__(self, name: str) -> Value:
        import kconfiglib
        symbol = self._kconf.syms[name]
        if symbol.orig_type in (kconfiglib.BOOL, kconfiglib.TRISTATE):
            return bool(symbol.str_value == "y")
        return int(symbol.str_value) if symbol.orig_type == kconfiglib.INT else str(symbol.str_value)

    def starting(self, prefix: str) -> dict[str, Value]:
        """The values of all symbols CONFIG_<prefix>…, by the rest of their names in small letters."""
        names = [symbol.name for symbol in self._kconf.unique_defined_syms if symbol.name.startswith(prefix)]
        return {name.removeprefix(prefix).lower(): self[name] for name in names}

    def write(self, path: Path) -> None:
        self._kconf.write_config(str(path))

    @property
    def base(self) -> str:
        """BASE= on the command line comes before the configuration."""
        return bases.get(os.environ.get("BASE") or str(self["BASE"])).name


def line(name: str, value: Value) -> str:
    """As a file of configs/ has it."""
    if isinstance(value, bool):
        return f"CONFIG_{name}={'y' if value else 'n'}"
    if isinstance(value, int):
        return f"CONFIG_{name}={value}"
    escaped = re.sub(r'(["\\])', r"\\\1", value)
    return f'CONFIG_{name}="{escaped}"'


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


def menuconfig() -> int:
    """make menuconfig"""
    load()
    import menuconfig as kconfiglib_menu
    os.environ["KCONFIG_CONFIG"] = str(DOTCONFIG)
    kconfiglib_menu.menuconfig(_kconfig())
    load()
    return 0


def write(defconfig: str) -> int:
    """make <name>_defconfig: a file of configs/ becomes .config."""
    defconfig = "default_defconfig" if defconfig == "defconfig" else defconfig
    load(defconfig).write(DOTCONFIG)
    say(f"{DOTCONFIG} written from configs/{defconfig}")
    return 0
