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
BLOBS_PORT: Final = 7444
REDIS_PORT: Final = 6379
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

    @property
    def redis_password(self) -> Path:
        """The node's own password for its region's Redis, readable by root alone."""
        return self.home / "redis.password"


def node_settings(topology: Topology, node: Node, files: NodeFiles) -> dict[str, Any]:
    """node.yaml's settings, as plain values."""
    pop = topology.pop(node.pop)
    redis = topology.region(pop.region).redis
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
            "peers": [
                {"node": peer.name, "address": f"{peer.v4}:{MESH_PORT}"}
                for peer in topology.nodes
                if peer.name != node.name
            ],
        },
        "admin": {"listen": f"{node.v4}:{ADMIN_PORT}", "token_file": str(files.token)},
        "weights": {
            "store": str(files.store),
            "origin": f"http://{topology.origin4}:{topology.origin.port}/",
            "blobs": f"{node.v4}:{BLOBS_PORT}",
            **_said({"index": _index(topology, redis, node, files), "disk_bytes": node.disk_bytes}),
        },
        "workers": [_worker(node) for _ in range(node.workers)],
        "provider": node.provider,
    }
    for section in ("routing", "queue", "drain"):
        if said := _said(msgspec.structs.asdict(getattr(topology, section))):
            settings[section] = said
    if node.ingress:
        settings["public"]["listen"][:0] = [f"{topology.vip4}:80", f"[{topology.vip6}]:80"]
        settings["announce"] = {
            "interface": MARKER,
            "addresses": [str(topology.vip4), str(topology.vip6)],
            "lease_ms": round(topology.lease.valid_s * 1000),
            "renew_ms": topology.lease.renew_ms,
        }
    return settings


def _index(topology: Topology, redis: str | None, node: Node, files: NodeFiles) -> dict[str, str] | None:
    """Where the region's index is; a region without Redis has none, and its nodes ask the origin."""
    if redis is None:
        return None
    return {
        "url": f"redis://{topology.node(redis).v4}:{REDIS_PORT}",
        "user": node.name,
        "password_file": str(files.redis_password),
    }


def _worker(node: Node) -> dict[str, Any]:
    limits = {name: getattr(node, name) for name in ("device_bytes", "soft_limit", "hard_limit")}
    return {"device": node.device, "threads": node.threads, **_said(limits)}


def _said(settings: dict[str, Any]) -> dict[str, Any]:
    """What the planet's file says; the rest stays popctl's own default."""
    return {name: value for name, value in settings.items() if value is not None}


def node_yaml(topology: Topology, node: Node, files: NodeFiles) -> str:
    """node.yaml's text."""
    head = f"# {node.name}, written by poplab for the planet {topology.name!r}; gone with `poplab down`.\n"
    return head + yaml.safe_dump(node_settings(topology, node, files), sort_keys=False)
