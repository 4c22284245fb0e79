"""Who should be away, drained or on trial, and is the only one: it announces, and says how it stands."""

import contextlib
import http.client
import os
import signal
from collections.abc import Iterator
from http.client import HTTPResponse

import pytest

from edge.weights.manifest import Catalogue, encode_catalogue
from netlab.ca import write_ca
from netlab.clock import wait_until
from tests.support.fleet import mesh_section
from tests.support.marker import V4, Watch, announcing, inside, scratch
from tests.support.node import Node, open_directory, running_node
from tests.support.ports import free_port

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace takes root"),
]

LAST = "announced as the last one: no other node announces"
DOOR, OTHER = "one-a", "one-b"


class Pair:
    """A node that announces, and another one that has nothing to announce."""

    def __init__(self, door: Node, watch: Watch, other: Node, namespace: int) -> None:
        self.door = door
        self.watch = watch
        self.other = other
        self._namespace = namespace

    def announcement(self) -> str:
        """ "" while its proxy does not answer."""
        try:
            return str(self.door.state["tree"]["announcement"])
        except OSError:
            return ""

    def order(self, what: str) -> None:
        assert self.door.admin(f"/edge/{what}", method="POST").status == 200

    def ask(self, path: str, body: bytes | None = None) -> HTTPResponse:
        """One request to the anycast address."""
        with inside(self._namespace):
            connection = http.client.HTTPConnection(V4, 80, timeout=10)
            connection.connect()
        with contextlib.closing(connection):
            connection.request("GET" if body is None else "POST", path, body)
            answer = connection.getresponse()
            answer.read()
            return answer


@pytest.fixture(scope="module")
def started() -> Iterator[Pair]:
    with scratch() as namespace, open_directory() as files, contextlib.ExitStack() as stack:
        authority = write_ca(files)
        (files / "catalog.json").write_bytes(encode_catalogue(Catalogue(epoch=1, models={})))
        ports = {DOOR: free_port(), OTHER: free_port()}

        def mesh(name: str, peer: str) -> str:
            return mesh_section(authority, files, name, ports, [peer])

        extra = mesh(DOOR, OTHER) + "drain: {lame_duck_ms: 50}\n"
        door, watch = stack.enter_context(announcing(namespace, extra=extra))
        with inside(namespace):
            other = stack.enter_context(
                running_node(name=OTHER, origin=f"file://{files}/", workers=(), extra=mesh(OTHER, DOOR))
            )
        yield Pair(door, watch, other, namespace)


@pytest.fixture
def pair(started: Pair) -> Pair:
    wait_until(lambda: started.door.state["peers"][0]["linked"], "they have met", within_s=10)
    started.order("undrain")
    wait_until(lambda: started.announcement() == "announced", "it announces", within_s=20)
    return started


def test_a_drained_one_refuses_what_is_new_and_answers_what_is_no_work(pair: Pair) -> None:
    pair.order("drain")
    pair.watch.both(within_s=5)
    assert (pair.door.state["phase"], pair.announcement()) == ("drained", LAST)
    refused = pair.ask("/run/anything", b"text")
    assert (refused.status, refused.headers["edge-drop-reason"]) == (503, "last-one")
    assert 1 <= int(refused.headers["retry-after"]) <= 3
    assert refused.headers["connection"] == "close"
    assert (pair.ask("/pop").status, pair.ask("/v2/health/live").status) == (200, 200)
    pair.order("undrain")
    assert pair.announcement() == "announced"
    assert pair.ask("/run/anything", b"text").headers["edge-drop-reason"] == "unknown-model"


def test_who_is_withdrawn_by_order_stays_away(pair: Pair) -> None:
    pair.order("drain")
    pair.watch.both(within_s=5)
    pair.order("withdraw")
    assert not pair.watch.seen()
    pair.watch.stays_away(1500)


def test_silence_of_the_others_is_no_reason(pair: Pair) -> None:
    """It may be this node that is cut off, and they may serve well."""
    frozen = (pair.other.process.pid, pair.other.child("proxy"))
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: pair.door.state["peers"][0]["standing"] == "out", "it is silent", within_s=10)
        pair.order("drain")
        pair.watch.stays_away(1500)
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    pair.watch.both(within_s=10)


def test_one_on_trial_serves(pair: Pair) -> None:
    before = pair.door.kill("proxy")
    wait_until(lambda: pair.announcement() and pair.door.child("proxy") != before, "another", within_s=20)
    pair.door.kill("proxy")
    pair.watch.none(within_s=5)
    pair.watch.both(within_s=8)
    assert pair.announcement() == LAST
    assert pair.ask("/run/anything", b"text").headers["edge-drop-reason"] == "unknown-model"
