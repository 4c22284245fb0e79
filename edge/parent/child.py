"""The entry of every child: read the boot data, give up all rights, become the role.

    python -m edge.parent.child ROLE --boot-fd N --of NODE/NAME

The order matters: the role's module, and with it every library that reads bytes from
outside, is imported by a process that has no rights left.
"""

import argparse
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import Final

import msgspec

from edge.logs import log_to_stderr
from edge.parent.jail import Cell, JailError, enter

log = logging.getLogger(__name__)

#: Role -> its module and the struct in it that `main` takes.
ROLES: Final = {
    "proxy": ("edge.proxy.app", "ProxyBoot"),
    "weights": ("edge.weights.app", "WeightsBoot"),
    "worker": ("edge.worker.app", "WorkerBoot"),
}
#: A child that exits with this can't be helped by starting it again.
EXIT_UNFIT: Final = 3
MAX_BOOT_BYTES: Final = 8 * 1024 * 1024


class Envelope(msgspec.Struct):
    """What travels through the boot fd: the rights, for this file, and the rest, for the role."""

    cell: Cell
    log_level: str
    boot: msgspec.Raw


def read_boot(fd: int) -> Envelope:
    """The envelope; the fd is closed, so that no secret stays open."""
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        raw = file.read(MAX_BOOT_BYTES)
    return msgspec.msgpack.decode(raw, type=Envelope)


def code_paths() -> tuple[str, ...]:
    """Everything that this process may import, and its interpreter's own files."""
    found = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sys.path}
    return tuple(sorted(path for path in found if path and Path(path).exists()))


def confine(cell: Cell) -> str:
    """Give up the rights; why that is impossible, or nothing."""
    try:
        for notice in enter(cell):
            log.warning("rights kept", extra={"problem": notice})
    except (JailError, OSError) as error:
        return str(error)
    return ""


def main(arguments: list[str]) -> int:
    """Become a role; returns the exit status."""
    parser = argparse.ArgumentParser(prog="edge.parent.child", description="Started by `popctl serve`.")
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--boot-fd", type=int, required=True)
    parser.add_argument(
        "--of", default="", help="node and child, as in iad-a/worker-0, for logs and process lists"
    )
    given = parser.parse_args(arguments)
    envelope = read_boot(given.boot_fd)
    log_to_stderr(given.of or given.role, envelope.log_level)
    cell = msgspec.structs.replace(envelope.cell, readable=(*code_paths(), *envelope.cell.readable))
    problem = confine(cell)
    if problem:
        log.error("unfit", extra={"problem": problem})
        return EXIT_UNFIT
    module_name, struct_name = ROLES[given.role]
    module = importlib.import_module(module_name)
    boot = msgspec.msgpack.decode(envelope.boot, type=getattr(module, struct_name))
    status = module.main(boot)
    return int(status or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
