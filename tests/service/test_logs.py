"""A running node that is told to say more: each request by its id, at the door, across the mesh, at the worker."""

import signal
from typing import Any

import pytest

from netlab.clock import wait_until
from tests.support.fleet import Wanted, running_fleet, wait_until_joined
from tests.support.node import Node
from tests.support.rolling import ROW


@pytest.fixture(scope="module")
def fleet():
    with running_fleet(Wanted("iad-a", "us"), Wanted("iad-b", "us", ("device: cpu",))) as nodes:
        yield nodes


def asked(fleet: dict[str, Node], request_id: str) -> None:
    headers = {"X-Request-Id": request_id, "Edge-Cold": "wait"}
    assert fleet["iad-a"].request("/run/identity", ROW, headers).status == 200


def said(fleet: dict[str, Node], request_id: str) -> set[tuple[str, str]]:
    lines: list[dict[str, Any]] = [line for node in fleet.values() for line in node.log]
    return {(line["who"], line["event"]) for line in lines if line.get("id") == request_id}


def level(fleet: dict[str, Node], number: signal.Signals) -> None:
    for node in fleet.values():
        node.process.send_signal(number)


WHOLE = {
    ("iad-a/proxy", "request"),
    ("iad-b/proxy", "request forwarded here"),
    ("iad-b/worker-0", "request taken"),
}


def wait_until_told(fleet: dict[str, Node], name: str) -> None:
    """A signal takes its way through the parent: ask until a request is told of whole."""
    count = 0

    def whole() -> bool:
        nonlocal count
        count += 1
        asked(fleet, f"{name}-{count}")
        return said(fleet, f"{name}-{count}") == WHOLE

    wait_until(whole, f"each part tells of a request, {name}", within_s=10)


def test_a_node_says_more_and_less_as_it_runs(fleet: dict[str, Node]) -> None:
    asked(fleet, "before")
    assert said(fleet, "before") == set()
    level(fleet, signal.SIGUSR1)
    wait_until_told(fleet, "more")
    fleet["iad-b"].kill("worker-0")
    fleet["iad-a"].kill("proxy")
    wait_until_joined(fleet["iad-a"], 1, within_s=30)
    wait_until_told(fleet, "again")
    level(fleet, signal.SIGUSR2)

    count = 0

    def silent() -> bool:
        nonlocal count
        count += 1
        asked(fleet, f"less-{count}")
        return said(fleet, f"less-{count}") == set()

    wait_until(silent, "nobody tells of requests", within_s=10)
