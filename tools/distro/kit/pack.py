# SPDX-License-Identifier: GPL-2.0-only
"""make repro-kit: the kit as one tarball, of equal bytes from equal sources.
make lava-job: what runs it in a LAVA lab.

    BASE=       whose packages of make deb are in it, if there are any in the cache
    DEVICE=     LAVA's type of device;  KIT=  where it can fetch the tarball
    UNPATCHED=, PATCHED=    the two kernels that are installed there, as of uname -r
    ARGS=       for ./kit check and ./kit crash there: --on DIRECTORY, --reads NUMBER
"""

from __future__ import annotations

import gzip
import io
import json
import modulefinder
import os
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

from ... import deps
from ...common import ENVIRONMENT, TOP, USAGE, Err, beside, cache_dir, full, lock, say, stage, write
from ...crash.guest import compile_init
from ...kernel import build
from ...queue import config
from ...queue.store import Store

HERE = Path(__file__).resolve().parent
NAME = "smmu-kdump-kit"
PATCH = TOP / "patches" / "test" / "0001-Build-the-kdump-test-driver-into-test-kernels.patch"
SOURCES = ("tools/crash/guest/init.c", "include/linux/smmu-kdump-test.h")
SPACE = 64 << 20                # beside the packages
VARIABLES = ("DEVICE", "KIT", "UNPATCHED", "PATCHED")


def program() -> dict[str, bytes]:
    """The kit's own modules, and what they import of ours."""
    finder = modulefinder.ModuleFinder([str(TOP)])
    for module in ("__main__", "dump"):
        finder.import_hook(f"tools.distro.kit.{module}")
    files = [Path(name) for module in finder.modules.values() if (name := getattr(module, "__file__", None))]
    return {str(path.relative_to(TOP)): path.read_bytes() for path in files}


def delay_patch() -> bytes:
    """The test-only delay as one patch for git am: its files, in the patch that builds them."""
    head, _, rest = PATCH.read_text().partition("diff --git")
    new = []
    for name, data in sorted(build.overlay().items()):
        lines = data.decode().splitlines()
        new.append(f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n"
                   f"@@ -0,0 +1,{len(lines)} @@\n" + "".join(f"+{line}\n" for line in lines))
    return f"{head}{''.join(new)}diff --git{rest}".encode()


def packages(base: str) -> list[Path]:
    """The kernels that make deb has made of this series here, the last ones; with DELAY=1, too."""
    store = Store(base)
    found: dict[str, Path] = {}
    sets = [path for path in store.here.glob("debs*/*/series")
            if path.read_text().strip() in (store.series_hash(), "none")]
    for path in sorted(sets, key=lambda path: path.parent.stat().st_mtime):
        kernels = [deb for deb in path.parent.glob("linux-image-*.deb") if "-dbg_" not in deb.name]
        found |= {str(re.findall(r"delay\.\w+", deb.name)): deb for deb in kernels}
    return sorted(found.values())


def archive(path: Path, files: dict[str, bytes], programs: set[str]) -> None:
    """Names in order, nobody's, of no time."""
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed, \
            tarfile.TarFile(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in sorted(files.items()):
            info = tarfile.TarInfo(f"{NAME}/{name}")
            info.size, info.mode = len(data), 0o755 if name in programs else 0o644
            tar.addfile(info, io.BytesIO(data))


def repro_kit(base: str) -> Path:
    debs = packages(base)
    there = cache_dir("distro", "kit")
    space = SPACE + sum(deb.stat().st_size for deb in debs)
    if shutil.disk_usage(there).free < space:
        raise full(f"{there} has no {space >> 20} MiB")
    deps.need("guest")
    license_ = next((TOP / "LICENSES").rglob("GPL-2.0"))
    files = {"kit": HERE / "kit", "README.rst": HERE / "README.rst",
             "COPYING": TOP / "COPYING", str(license_.relative_to(TOP)): license_,
             **{f"source/{Path(name).name}": TOP / name for name in SOURCES},
             **{f"packages/{deb.name}": deb for deb in debs}}
    with stage("packing the kit"), lock(there / ".lock"):
        content = {name: path.read_bytes() for name, path in files.items()} | program()
        content |= {"delay.patch": delay_patch(), "workload": compile_init()}
        path = there / f"{NAME}-{base}.tar.gz"
        with beside(path) as new:
            archive(new, content, {"kit", "workload"})
    said = ", ".join(deb.name for deb in debs) or f"no packages of {base}: make deb has made none here"
    say(f"{path.stat().st_size / (1 << 20):.1f} MiB, {said}")
    return path


def main() -> int:
    """make repro-kit"""
    print(repro_kit(os.environ.get("BASE") or config.load().base))
    return 0


KIT_HOME, CRASHES = "/root", "/var/lib/smmu-kdump-kit"
BOOT = {"method": "minimal", "prompts": [r"root@.*[#] "], "timeout": {"minutes": 30},
        "auto_login": {"login_prompt": "login:", "username": "root"},
        "transfer_overlay": {"download_command": "wget", "unpack_command": "tar -C / -xzf"}}
# GRUB's next boot is this kernel. Its menu has a submenu, or has none.
NEXT = ("menu=$(grep -o \"gnulinux-advanced-[^']*\" /boot/grub/grub.cfg | head -n 1); "
        "entry=$(grep -o \"gnulinux-{release}-advanced-[^']*\" /boot/grub/grub.cfg | head -n 1); "
        'test -n "$entry" && grub-reboot "${{menu:+$menu>}}$entry" && sync')
# Each rule is a case, out of its line of KTAP.
CASES = ("sed -n 's/^\\(not \\)\\{0,1\\}ok [0-9]* \\(.*\\)/\\1|\\2/p' verdict/result.ktap | tr ' ' _ | "
         "while IFS='|' read -r bad name; do test \"$bad\" && bad=fail; "
         'case "$name" in *_#_SKIP*) bad=skip;; esac; '
         "lava-test-case \"${name%%_#_SKIP*}\" --result \"${bad:-pass}\"; done")


def _inline(name: str, *steps: str) -> dict[str, Any]:
    about = {"format": "Lava-Test Test Definition 1.0", "name": name, "description": f"repro kit: {name}"}
    return {"test": {"timeout": {"minutes": 30}, "definitions": [
        {"from": "inline", "name": name, "path": f"inline/{name}.yaml",
         "repository": {"metadata": about, "run": {"steps": list(steps)}}}]}}


def _round(which: str, release: str, kit: str, args: str) -> list[dict[str, Any]]:
    """One kernel: boot it, crash it, come back, collect. LAVA resets hard: what must last is synced."""
    crash = f"{kit} crash{args} --crash-this-machine --confirm $(hostname)"
    return [
        _inline(f"{which}-next", NEXT.format(release=release)),
        {"boot": BOOT},
        _inline(f"{which}-check", f"lava-test-case {which}-kernel --shell test $(uname -r) = {release}",
                f"lava-test-case {which}-check --shell {kit} check{args}"),
        {"test": {"timeout": {"minutes": 10}, "interactive": [
            {"name": f"{which}-crash", "prompts": ["sysrq triggered crash"], "script": [
                {"name": "crash", "command": crash,
                 "failures": [{"message": "error: ", "exception": "JobError"}]}]}]}},
        {"boot": {**BOOT, "reset": False, "timeout": {"hours": 1}}},
        _inline(f"{which}-collect", f"lava-test-case {which}-collect --shell {kit} collect",
                f"ls -d {CRASHES}/2* | tail -n 1 >{KIT_HOME}/{which}-crash", "sync"),
    ]


def job(device: str, url: str, unpatched: str, patched: str, *, args: str = "") -> dict[str, Any]:
    kit, args = f"{KIT_HOME}/{NAME}/kit", args and f" {args}"
    limits = {"job": {"hours": 6}, "action": {"hours": 1}, "connection": {"minutes": 5}}
    return {
        "job_name": f"SMMUv3 kdump adoption on {device}", "device_type": device, "visibility": "public",
        "priority": "medium", "timeouts": limits,
        "actions": [
            {"deploy": {"to": "overlay", "timeout": {"minutes": 10}}}, {"boot": BOOT},
            _inline("install", f"wget -O /tmp/kit.tar.gz '{url}'", f"tar -C {KIT_HOME} -xzf /tmp/kit.tar.gz",
                    "sync"),
            *_round("unpatched", unpatched, kit, args), *_round("patched", patched, kit, args),
            _inline("verdict", f"cd {KIT_HOME}", "rm -rf verdict",
                    f"lava-test-case verdict --shell {kit} verdict --control $(cat unpatched-crash) "
                    "$(cat patched-crash)", CASES)]}


def validate(text: str) -> None:
    """By LAVA's own schema."""
    deps.need("lava")
    import yaml
    from lava_common import schemas
    from voluptuous import Invalid
    try:
        schemas.validate(yaml.safe_load(text))
    except Invalid as err:
        raise Err(f"LAVA's schema refuses the job: {err}", "check DEVICE=", USAGE) from err


def lava_job() -> int:
    """make lava-job"""
    given = {name: os.environ.get(name, "") for name in VARIABLES}
    bad = [name for name, value in given.items() if not re.fullmatch(r"[\w.:/+~%?&=@-]+", value)]
    if bad:
        raise Err(f"{bad[0]}={given[bad[0]]} is no good", "make lava-job DEVICE=<type of device> "
                  "KIT=<address of the tarball> UNPATCHED=<uname -r> PATCHED=<uname -r>", USAGE)
    args = os.environ.get("ARGS", "")
    if not re.fullmatch(r"(--(on /[\w./-]+|reads \d+|frames [\w.-]+) ?)*", args):
        raise Err(f"ARGS={args} is no good", 'ARGS="--on /srv/nvme --reads 16000"', USAGE)
    deps.need("yaml")
    import yaml
    # By way of JSON, as YAML would write what comes twice as an anchor.
    text = yaml.safe_dump(json.loads(json.dumps(job(*given.values(), args=args))), sort_keys=False, width=100)
    code = 0
    try:
        validate(text)
    except Err as err:
        if err.code != ENVIRONMENT:
            raise
        say(f"ENVIRONMENT: the job was not validated: {err.cause}")
        code = ENVIRONMENT
    path = cache_dir("distro", "kit") / "lava-job.yaml"
    write(path, text)
    print(path)
    return code
