"""`popctl` for whoever runs a node: how it stands, leave, come back, restart, why a request went where."""

from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from edge.cli import tables
from edge.cli.node import FAILURE, USAGE, Node, fail, node_options, tell

#: A drain answers when its lame duck is over and the address withdrawn.
DRAIN_S: Final = 600.0
_WITHIN = click.option(
    "--within",
    "within_s",
    type=click.FloatRange(1),
    default=120.0,
    show_default=True,
    help="Seconds that --wait waits.",
)


@click.command()
@node_options
def status(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """What a running node says of itself: processes, announcement, endpoints, peers, weights."""
    tell(Node(config_path, socket_path).get("/edge/state"), as_json=as_json, as_text=tables.status)


@click.command()
@node_options
def peers(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """Every other node of the fleet: how it stands, how far it is, how old its state is."""
    tell(Node(config_path, socket_path).get("/edge/peers"), as_json=as_json, as_text=tables.peers)


@click.command()
@node_options
def withdraw(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """Stop attracting clients until `announce`; running requests end as they may."""
    tell(Node(config_path, socket_path).post("/edge/withdraw"), as_json=as_json)


@click.command()
@node_options
def announce(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """Attract clients again, as soon as the proxy is well."""
    tell(Node(config_path, socket_path).post("/edge/announce"), as_json=as_json)


@click.command()
@click.option("--wait", is_flag=True, help="Until nothing runs here any more.")
@_WITHIN
@node_options
def drain(
    config_path: Path | None, socket_path: Path | None, *, as_json: bool, wait: bool, within_s: float
) -> None:
    """Leave without losing a request: answers say Connection: close, then the address is withdrawn."""
    node = Node(config_path, socket_path)
    answer = node.post("/edge/drain", timeout_s=DRAIN_S)
    if wait:
        left = node.wait_until(
            "/edge/drain",
            lambda seen: seen["running"] == 0,
            lambda seen: f"{seen['running']} requests still run",
            within_s=within_s,
        )
        answer = {**answer, **left}
    tell(answer, as_json=as_json)


@click.command()
@node_options
def undrain(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """Take part again after `drain`."""
    tell(Node(config_path, socket_path).post("/edge/undrain"), as_json=as_json)


@click.command()
@click.argument("roles", nargs=-1)
@click.option("--wait", is_flag=True, help="Until all of them are up again.")
@_WITHIN
@node_options
def restart(
    config_path: Path | None,
    socket_path: Path | None,
    *,
    as_json: bool,
    wait: bool,
    within_s: float,
    roles: tuple[str, ...],
) -> None:
    """Start children anew from the code on disk: ROLES (weights, worker, worker-0, proxy), or all.

    The new proxy runs before the old one stops; no request is refused.
    """
    node = Node(config_path, socket_path)
    answer = node.post("/edge/restart", {"roles": list(roles)})
    if wait:
        state = node.wait_until("/edge/state", _is_restarted, _restarting, within_s=within_s)
        answer = {"schema_version": 1, **state["tree"]}
        if answer.get("restart_problem"):
            fail(f"the restart stopped: {answer['restart_problem']}; what follows it was not tried", FAILURE)
    tell(answer, as_json=as_json)


def _is_restarted(state: Any) -> bool:
    tree = state.get("tree")
    if tree is None or tree.get("restarting"):
        return False
    return bool(tree.get("restart_problem")) or all(
        child["up"] and child.get("ready") for child in tree["children"]
    )


def _restarting(state: Any) -> str:
    tree = state.get("tree") or {}
    return f"restarting {', '.join(tree.get('restarting') or ('the last one',))}"


@click.command()
@click.argument("request_id", required=False)
@click.option("--model", help="A dry run: where would a request for this model run now?")
@click.option("--version", help="Its version; without, the current one.")
@click.option("--prefer", multiple=True, help="As Edge-Prefer-Region; may be repeated.")
@click.option("--force", multiple=True, help="As Edge-Force-Region; may be repeated.")
@click.option("--cold", type=click.Choice(["far", "wait", "reject"]), help="As Edge-Cold.")
@click.option("--reject-if-busy", is_flag=True, default=None, help="As Edge-Reject-If-Busy.")
@click.option("--session", help="As Edge-Session.")
@click.option("--deadline-ms", type=click.IntRange(1), help="As Edge-Deadline-Ms.")
@click.option("--body-bytes", type=click.IntRange(0), help="How large the body would be.")
@node_options
def explain(config_path: Path | None, socket_path: Path | None, *, as_json: bool, **wanted: Any) -> None:
    """Why a request ran where it ran (REQUEST_ID is in its Edge-Request-Id), or where one would (--model)."""
    request_id = wanted.pop("request_id")
    wishes = {key: value for key, value in wanted.items() if value not in (None, ())}
    if (request_id is None) == ("model" not in wishes):
        fail("give either a REQUEST_ID or --model M", USAGE)
    if request_id is not None and wishes:
        fail(f"a REQUEST_ID takes no wishes: {', '.join(wishes)} go with --model", USAGE)
    node = Node(config_path, socket_path)
    if request_id is not None:
        answer = node.get(f"/edge/explain/{quote(request_id, safe='', errors='surrogateescape')}")
    else:
        answer = node.post("/edge/explain", wishes)
    tell(answer, as_json=as_json, as_text=tables.explained)


OPERATE: Final = (status, peers, withdraw, announce, drain, undrain, restart, explain)
