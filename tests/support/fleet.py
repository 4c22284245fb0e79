"""Several real nodes on loopback, joined by mutual TLS: a fleet without a network of its own."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from netlab.ca import Ca, issue, write_ca
from netlab.clock import wait_until
from tests.support.node import Node, open_directory, running_node
from tests.support.ports import free_port


class Wanted(NamedTuple):
    """One node of a fleet; `extra` are further sections of its node.yaml, `origin` one that is its own."""

    name: str
    region: str = "us"
    workers: Sequence[str] = ()
    extra: str = ""
    origin: str | None = None

    @property
    def pop(self) -> str:
        return self.name.partition("-")[0]


def mesh_section(
    authority: Ca,
    pki: Path,
    name: str,
    ports: Mapping[str, int],
    peers: Sequence[str],
    timing: str = "",
) -> str:
    """A node's `mesh:` section, its certificate issued by `authority`."""
    certificate, key = issue(authority, name, ["127.0.0.1"], pki)
    lines = [
        "mesh:",
        f"  listen: 127.0.0.1:{ports[name]}",
        f"  ca: {authority.path}",
        f"  certificate: {certificate}",
        f"  key: {key}",
    ]
    if timing:
        lines.append(f"  {timing}")
    if peers:
        lines.append("  peers:")
        lines += [f'    - {{node: {peer}, address: "127.0.0.1:{ports[peer]}"}}' for peer in peers]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def running_fleet(
    *wanted: Wanted, timing: str = "", joined: bool = True, origin: str | None = None
) -> Iterator[dict[str, Node]]:
    """All nodes, ready, each having heard of every other one."""
    with open_directory() as pki, contextlib.ExitStack() as stack:
        authority = write_ca(pki)
        ports = {one.name: free_port() for one in wanted}
        names = [one.name for one in wanted]
        nodes: dict[str, Node] = {}
        for one in wanted:
            others = [name for name in names if name != one.name]
            mesh = mesh_section(authority, pki, one.name, ports, others, timing)
            nodes[one.name] = stack.enter_context(
                running_node(
                    name=one.name,
                    pop=one.pop,
                    region=one.region,
                    workers=one.workers,
                    extra=mesh + one.extra,
                    origin=one.origin or origin,
                )
            )
        if joined:
            for node in nodes.values():
                wait_until_joined(node, len(wanted) - 1)
        yield nodes


def wait_until_joined(node: Node, others: int, within_s: float = 10.0) -> None:
    """It has a link to so many other nodes and finds them good."""
    wait_until(
        lambda: sum(peer["linked"] and peer["standing"] == "good" for peer in node.state["peers"]) >= others,
        f"{node.name} has joined {others} others",
        within_s=within_s,
    )
