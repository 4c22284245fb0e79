"""Questions about a joined planet, shared by the lab's tests."""

import json
from typing import Any

from netlab import probe
from netlab.clock import DeadlineMissed, wait_until
from netlab.handles import User
from netlab.lab import Lab
from netlab.probe import Answer

IDENTITY = json.dumps({"input": [[1.0] * 16]}).encode()
MLP = json.dumps({"input": [[0.5] * 256]}).encode()
#: Those of the narrow planet that are identity by another name.
OTHERS = ("home-a", "home-b", "home-c", "eu-only")
BODIES = {"identity": IDENTITY, "mlp": MLP} | dict.fromkeys(OTHERS, IDENTITY)


def ask(user: User, model: str, *, timeout_s: float = 30.0, **headers: str) -> Answer:
    """One request as a user of a city makes it; headers by keyword, as in edge_force_region="eu"."""
    words = {name.replace("_", "-"): value for name, value in headers.items()}
    body = BODIES.get(model, b"How near is it?")
    return user.request("POST", f"/run/{model}", body=body, timeout_s=timeout_s, headers=words)


def route(answer: Answer) -> tuple[str, dict[str, str]]:
    """("spill", {"reason": "cold-here", ...}) of an Edge-Route header."""
    word, *parts = answer.headers["edge-route"].split(";")
    return word, dict(part.split("=", 1) for part in parts)


def state(lab: Lab, node: str) -> Any:
    """What a node says of itself."""
    return json.loads(lab.node(node).admin("GET", "/edge/state").body)


def digest_of(lab: Lab, node: str, model: str) -> str:
    """The manifest digest of a model's current version."""
    rows = json.loads(lab.node(node).admin("GET", "/edge/models").body)["models"]
    return str(next(row["digest"] for row in rows if row["model"] == model and row["current"]))


def wait_until_warm(lab: Lab, seen_by: str, endpoint: str, model: str, *, warm: bool = True) -> None:
    """Until one node knows that a model is (not) on a device."""
    digest = digest_of(lab, seen_by, model)
    wait_until(
        lambda: any(
            e["name"] == endpoint and (digest in e["warm"]) is warm for e in state(lab, seen_by)["endpoints"]
        ),
        f"{seen_by} knows that {model} is {'' if warm else 'not '}on {endpoint}",
        within_s=20,
    )


def wait_until_joined(lab: Lab, within_s: float = 10.0) -> None:
    """Until every node has a link to every other one and has not given it up."""
    names = [node.name for node in lab.topology.nodes]

    def joined() -> bool:
        return all(
            sum(
                peer["linked"] and peer["standing"] in ("good", "suspect")
                for peer in state(lab, name)["peers"]
            )
            == len(names) - 1
            for name in names
        )

    wait_until(joined, "all nodes are joined", within_s=within_s)


def evict(lab: Lab, node: str, model: str, *, disk: bool = False) -> None:
    """The model leaves the devices of a node, and its disk if that is wanted; also if it was on its way there."""
    said = ""

    def gone() -> bool:
        nonlocal said
        for tier in ("device", "disk") if disk else ("device",):
            answer = _act(lab, node, model, "evict", tier)
            said = answer.text
            if answer.status != 200:
                return False
        return True

    try:
        wait_until(gone, f"{model} has left {node}", within_s=10)
    except DeadlineMissed as missed:
        raise DeadlineMissed(f"{missed}: {said}") from missed


def prefetch(lab: Lab, node: str, model: str) -> None:
    """The model comes to a device of a node."""
    answer = _act(lab, node, model, "prefetch", "device")
    assert answer.status == 200, answer.text


def _act(lab: Lab, node: str, model: str, act: str, tier: str) -> Answer:
    """What `popctl models` asks: a process of its own for each would give the others time to undo it."""
    path, body = str(lab.node(node).admin_socket), json.dumps({"tier": tier}).encode()
    return probe.ask_unix(path, "POST", f"/edge/models/{model}/{act}", body=body, timeout_s=60.0)
