"""`popctl` for whoever runs a node: how it stands, leave, come back, restart, why a request went where."""

from pathlib import Path
from typing import Any, Final

import click

from edge.cli.node import FAILURE, TIMEOUT, USAGE, asked, fail, node_options, show

WAIT_S: Final = 120.0
LOOK_S: Final = 0.25
#: A drain answers when its lame duck is over and the address withdrawn.
DRAIN_S: Final = 60.0


@click.command()
@node_options
def status(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """What a running node says of itself: processes, announcement, endpoints, peers, weights."""
    show(asked("GET", "/edge/state", config_path, socket_path), as_json=as_json)


@click.command()
@node_options
def peers(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """Every other node of the fleet: how it stands, how far it is, how old its state is."""
    answer = asked("GET", "/edge/peers", config_path, socket_path)
    show(answer if as_json else answer.get("peers", answer), as_json=as_json)


@click.command()
@node_options
def withdraw(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """Stop attracting clients until `announce`; running requests end as they may."""
    show(asked("POST", "/edge/withdraw", config_path, socket_path), as_json=as_json)


@click.command()
@node_options
def announce(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """Attract clients again, as soon as the proxy is well."""
    show(asked("POST", "/edge/announce", config_path, socket_path), as_json=as_json)


@click.command()
@click.option("--wait", is_flag=True, help="Until nothing runs here any more.")
@node_options
def drain(config_path: Path | None, socket_path: Path | None, *, as_json: bool, wait: bool) -> None:
    """Leave without losing a request: answers say Connection: close, then the address is withdrawn."""
    answer = asked("POST", "/edge/drain", config_path, socket_path, timeout_s=DRAIN_S)
    if wait:
        answer = _wait_for(
            lambda: asked("GET", "/edge/drain", config_path, socket_path),
            lambda state: state["running"] == 0,
            lambda state: f"{state['running']} requests still run",
        )
    show(answer, as_json=as_json)


@click.command()
@node_options
def undrain(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """Take part again after `drain`."""
    show(asked("POST", "/edge/undrain", config_path, socket_path), as_json=as_json)


@click.command()
@click.argument("roles", nargs=-1)
@click.option("--wait", is_flag=True, help="Until all of them are up again.")
@node_options
def restart(
    config_path: Path | None,
    socket_path: Path | None,
    *,
    as_json: bool,
    wait: bool,
    roles: tuple[str, ...],
) -> None:
    """Start children anew from the code on disk: ROLES (weights, worker, worker-0, proxy), or all.

    The new proxy runs before the old one stops; no request is refused.
    """
    answer = asked("POST", "/edge/restart", config_path, socket_path, {"roles": list(roles)})
    if wait:
        answer = _wait_for(
            lambda: asked("GET", "/edge/state", config_path, socket_path)["tree"],
            lambda tree: not tree.get("restarting") and all(child["up"] for child in tree["children"]),
            lambda tree: f"restarting {', '.join(tree.get('restarting', ())) or 'the last one'}",
        )
        if answer.get("restart_problem"):
            fail(answer["restart_problem"], FAILURE)
    show(answer, as_json=as_json)


@click.command()
@click.argument("request_id", required=False)
@click.option("--model", help="A dry run: where would a request for this model run now?")
@click.option("--version", default="", help="Its version; without, the current one.")
@click.option("--prefer", multiple=True, help="As Edge-Prefer-Region; may be repeated.")
@click.option("--force", multiple=True, help="As Edge-Force-Region; may be repeated.")
@click.option("--cold", type=click.Choice(["far", "wait", "reject"]), help="As Edge-Cold.")
@click.option("--deadline-ms", type=click.IntRange(1), help="As Edge-Deadline-Ms.")
@click.option("--body-bytes", type=click.IntRange(0), default=0, help="How large the body would be.")
@node_options
def explain(config_path: Path | None, socket_path: Path | None, *, as_json: bool, **wanted: Any) -> None:
    """Why a request ran where it ran (REQUEST_ID is in its Edge-Request-Id), or where one would (--model)."""
    request_id, model = wanted.pop("request_id"), wanted.pop("model")
    if (request_id is None) == (model is None):
        fail("give either a REQUEST_ID or --model M", USAGE)
    if request_id is not None:
        answer = asked("GET", f"/edge/explain/{_segment(request_id)}", config_path, socket_path)
    else:
        body = {key: value for key, value in wanted.items() if value not in (None, "", ())}
        answer = asked("POST", "/edge/explain", config_path, socket_path, {"model": model, **body})
    if as_json:
        show(answer, as_json=True)
        return
    steps = answer.pop("decisions", None)
    for step in [answer] if steps is None else [answer, *steps]:
        show(step, as_json=False)


def _segment(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def _wait_for(look: Any, is_over: Any, progress: Any) -> Any:
    """Look again and again; one line of progress on a terminal."""
    import time

    until_s = time.monotonic() + WAIT_S  # noqa: TID251 -- a program of its own, not a node
    said = ""
    while True:
        state = look()
        if is_over(state):
            return state
        line = progress(state)
        if line != said:
            click.echo(line, err=True)
            said = line
        if time.monotonic() >= until_s:  # noqa: TID251 -- as above
            fail(f"not over within {WAIT_S:.0f} s: {line}", TIMEOUT)
        time.sleep(LOOK_S)  # noqa: TID251 -- as above


OPERATE: Final = (status, peers, withdraw, announce, drain, undrain, restart, explain)
