"""The text of each node's node.yaml. Pure.

It knows the shape that `popctl serve` reads (edge/node.yaml is the annotated sample) and where
the lab keeps a node's files, and nothing of how a node works.
"""

from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from netlab.names import MARKER
from netlab.topology import Node, Topology

MESH_PORT: Final = 7443
ADMIN_PORT: Final = 9901


class NodeFiles(msgspec.Struct, frozen=True):
    """Where one node's files lie, all below the lab's state directory."""

    home: Path
    ca: Path

    @property
    def config(self) -> Path:
        """node.yaml itself."""
        return self.home / "node.yaml"

    @property
    def run_dir(self) -> Path:
        """The node's sockets; `ready` appears here."""
        return self.home / "run"

    @property
    def store(self) -> Path:
        """The node's weights."""
        return self.home / "store"

    @property
    def certificate(self) -> Path:
        """PEM, issued by the lab's CA."""
        return self.home / f"{self.home.name}.pem"

    @property
    def key(self) -> Path:
        """PEM, readable by root alone."""
        return self.home / f"{self.home.name}.key"

    @property
    def token(self) -> Path:
        """The operator's token for admin over TCP."""
        return self.home / "admin.token"


def node_settings(topology: Topology, node: Node, files: NodeFiles) -> dict[str, Any]:
    """node.yaml's settings, as plain values."""
    pop = topology.pop(node.pop)
    settings: dict[str, Any] = {
        "node": node.name,
        "pop": node.pop,
        "region": pop.region,
        "run_dir": str(files.run_dir),
        "public": {"listen": [f"{node.v4}:80", f"[{node.v6}]:80"]},
        "mesh": {
            "listen": f"{node.v4}:{MESH_PORT}",
            "ca": str(files.ca),
            "certificate": str(files.certificate),
            "key": str(files.key),
            "peers": [_peer(peer) for peer in pop.nodes if peer.name != node.name],
        },
        "admin": {"listen": f"{node.v4}:{ADMIN_PORT}", "token_file": str(files.token)},
        "weights": {
            "store": str(files.store),
            "origin": f"http://{topology.origin4}:{topology.origin.port}/",
        },
        "workers": [{"device": node.device, "threads": node.threads} for _ in range(node.workers)],
    }
    if node.ingress:
        settings["public"]["listen"][:0] = [f"{topology.vip4}:80", f"[{topology.vip6}]:80"]
        settings["announce"] = {
            "interface": MARKER,
            "addresses": [str(topology.vip4), str(topology.vip6)],
            "lease_ms": round(topology.lease.valid_s * 1000),
            "renew_ms": topology.lease.renew_ms,
        }
    return settings


def _peer(peer: Node) -> dict[str, Any]:
    address = f"{peer.v4}:{MESH_PORT}"
    return {"node": peer.name, "pop": peer.pop, "address": address, "workers": peer.workers}


def node_yaml(topology: Topology, node: Node, files: NodeFiles) -> str:
    """node.yaml's text."""
    head = f"# {node.name}, written by poplab for the planet {topology.name!r}; gone with `poplab down`.\n"
    return head + yaml.safe_dump(node_settings(topology, node, files), sort_keys=False)
