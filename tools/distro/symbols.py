# SPDX-License-Identifier: GPL-2.0-only
"""What drgn finds in a vmcore with the symbols of its kernel, as JSON.

    python3 -m tools.distro.symbols VMCORE VMLINUX

A program of its own, as crash/vmcore.py is.
"""

from __future__ import annotations

import json
import sys


def main(vmcore: str, vmlinux: str) -> dict[str, str | int]:
    import drgn
    from drgn.helpers.linux.pid import for_each_task
    program = drgn.Program()
    program.set_core_dump(vmcore)
    program.load_debug_info([vmlinux])
    tasks = [task.comm.string_().decode(errors="replace") for task in for_each_task(program)]
    return {"release": program["init_uts_ns"].name.release.string_().decode(), "tasks": len(tasks),
            "workload": sum(name == "crash-workload" for name in tasks)}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2])))
