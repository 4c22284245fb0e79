"""Small worlds for pure tests: a node's configuration, its beacon, its fleet."""

from typing import Any

from edge.config import NodeConfig, Public, Weights
from edge.fleet.own import OwnWorker
from edge.fleet.snapshot import Fleet
from edge.policy.facts import Beacon, State, WorkerBeacon


def a_node(name: str = "iad-a", region: str = "us", **more: Any) -> NodeConfig:
    """A node without sockets; its POP is the first part of its name."""
    return NodeConfig(
        node=name,
        pop=name.partition("-")[0],
        region=region,
        run_dir="/run/none",
        public=Public(listen=("127.0.0.1:1",)),
        weights=Weights(store="/var/none", origin="file:///none"),
        **more,
    )


def a_beacon(node: str = "fra-a", region: str = "eu", **more: Any) -> Beacon:
    """A node with one idle worker, unless said otherwise."""
    settings: dict[str, Any] = {"boot": 1, "seq": 1, "workers": (WorkerBeacon(State.UP, 32, 128),)}
    return Beacon(node=node, pop=node.partition("-")[0], region=region, **{**settings, **more})


def a_worker(fleet: Fleet, name: str = "iad-a/0") -> OwnWorker:
    """A worker of this node, up, in the fleet's books."""
    own = OwnWorker(
        name,
        device="cpu",
        device_bytes=1 << 30,
        soft_limit=2,
        hard_limit=4,
        capacity_freed=lambda: None,
        changed=fleet.touched,
    )
    fleet.add(own)
    own.set_state(State.UP)
    return own
