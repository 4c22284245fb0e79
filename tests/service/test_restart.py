"""Planned restarts of a real tree: everything is replaced, nobody is refused, the lease goes on."""

import http.client
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netlab.clock import wait_until
from tests.support.marker import V4, Watch, announcing, inside, scratch
from tests.support.node import Answer, Node, open_directory

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace takes root"),
]

ROLES = ("weights", "worker-0", "worker-1", "proxy")
CPU = "device: cpu"


class Running:
    """A node with two workers that announces, and where its token lies."""

    def __init__(self, node: Node, watch: Watch, namespace: int, token: Path) -> None:
        self.node, self.watch, self.namespace, self.token = node, watch, namespace, token

    def restart(self) -> Answer:
        return self.node.admin("/edge/restart", method="POST")

    def tree(self) -> dict[str, object]:
        found: dict[str, object] = self.node.state["tree"]
        return found

    def pids(self) -> dict[str, int]:
        return {child["role"]: child["pid"] for child in self.node.state["tree"]["children"]}

    def exits(self) -> dict[str, int]:
        return {child["role"]: child["exits"] for child in self.node.state["tree"]["children"]}

    def wait_until_done(self) -> None:
        wait_until(lambda: not self.tree().get("restarting"), "the restart has ended", within_s=60)

    def events(self, name: str, since: int) -> list[str]:
        """The children of which the parent said this, after its log's first `since` lines."""
        return [line["child"] for line in self.node.log[since:] if line["event"] == name]

    def proxies(self) -> set[int]:
        """Every proxy process of the node that lives."""
        parent = self.node.process.pid
        found = set()
        for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            try:
                if b"edge.parent.child\0proxy" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.add(int(pid))
            except FileNotFoundError:
                continue
        return found

    def wait_until_two_proxies(self) -> tuple[int, int]:
        """The old one and the new one, as soon as both live."""
        before = self.pids()["proxy"]
        assert self.restart().status == 200
        wait_until(lambda: len(self.proxies()) == 2, "both proxies live", within_s=30, every_s=0.002)
        (new,) = self.proxies() - {before}
        return before, new


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    with scratch() as namespace, open_directory() as directory:
        token = directory / "token"
        token.write_text("a-token-of-thirty-two-characters\n")
        extra = f"admin: {{token_file: {token}}}\ndrain: {{lame_duck_ms: 100, finish_ms: 2000}}\n"
        with announcing(namespace, workers=(CPU, CPU), extra=extra) as (node, watch):
            yield Running(node, watch, namespace, token)


@pytest.fixture
def running(shared: Running) -> Running:
    """Ready and announced, whatever the test before did."""
    wait_until((shared.node.directory / "run" / "ready").exists, "ready", within_s=30)
    shared.wait_until_done()
    wait_until(lambda: shared.tree()["announcement"] == "announced", "announced", within_s=30)
    return shared


class Asking:
    """One client after another, each on a new connection, and a look at the address before each."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers: list[int | str] = []

    def __enter__(self) -> "Asking":
        self._thread.start()
        wait_until(lambda: self.answers, "a first answer", within_s=10)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        with inside(self._running.namespace):
            while not self._stop.is_set():
                self.answers.append(self._one())

    def _one(self) -> int | str:
        if len(self._running.watch.seen()) != 2:
            return "withdrawn"
        connection = http.client.HTTPConnection(V4, 80, timeout=20)
        try:
            connection.request("GET", "/pop", headers={"Connection": "close"})
            return connection.getresponse().status
        except OSError as error:
            return str(error)
        finally:
            connection.close()


def test_everything_is_replaced_in_order_and_nobody_notices(running):
    before, exits, lines = running.pids(), running.exits(), len(running.node.log)
    with Asking(running) as asking:
        assert running.restart().status == 200
        running.wait_until_done()
        wait_until(lambda: len(running.proxies()) == 1, "the old proxy is gone", within_s=10)
    assert set(asking.answers) == {200}, f"{len(asking.answers)} answers"
    after = running.pids()
    assert not set(after.values()) & set(before.values())
    assert running.exits() == exits, "nothing crashed"
    assert running.events("restart", lines) == list(ROLES)
    assert running.events("child replaced", lines) == ["proxy"]
    assert not running.events("child killed", lines)
    assert "restart_problem" not in running.tree() or not running.tree()["restart_problem"]


def test_a_second_call_while_one_runs_starts_no_second_round(running):
    lines = len(running.node.log)
    assert running.restart().status == 200
    seen = running.tree()["restarting"]
    assert seen == list(ROLES[-len(seen) :]), "what is left, the present one first"
    left = len(seen)
    assert running.restart().status == 200
    running.wait_until_done()
    done = running.events("restart", lines)
    assert done[:4] == list(ROLES)
    assert len(done) <= 4 + (4 - left + 1), f"only those that were done already may come again: {done}"


def test_a_new_proxy_that_does_not_come_up_leaves_the_old_one(running):
    with Asking(running) as asking:
        before, new = running.wait_until_two_proxies()
        os.kill(new, signal.SIGKILL)
        running.wait_until_done()
    assert set(asking.answers) == {200}
    assert running.pids()["proxy"] == before
    problem = running.tree()["restart_problem"]
    assert problem == "proxy: the new one ended with status -9; the old one stays"
    assert running.tree()["announcement"] == "announced"


def test_an_old_proxy_that_dies_meanwhile_is_followed_by_the_new_one(running):
    exits = running.exits()["proxy"]
    before, new = running.wait_until_two_proxies()
    os.kill(before, signal.SIGKILL)
    running.wait_until_done()
    assert running.pids()["proxy"] == new
    assert running.exits()["proxy"] == exits + 1
    assert running.proxies() == {new}


def test_a_secret_that_can_not_be_read_restarts_nothing(running):
    before, text = running.pids(), running.token.read_text()
    running.token.write_text("short")
    try:
        answer = running.restart()
        assert answer.status == 400, answer
        assert "holds 5 characters; write at least 16" in answer.json["error"]
    finally:
        running.token.write_text(text)
    assert running.pids() == before


def test_a_withdrawal_outlives_the_replacement(running):
    assert running.node.admin("/edge/withdraw", method="POST").status == 200
    before = running.pids()["proxy"]
    assert running.restart().status == 200
    running.wait_until_done()
    assert running.pids()["proxy"] != before
    assert running.tree()["announcement"] == "withdrawn: by the operator"
    running.watch.stays_away(500)
    assert running.node.admin("/edge/announce", method="POST").status == 200
    running.watch.both(within_s=1)


def test_a_stop_while_two_proxies_live_is_clean(running):
    running.wait_until_two_proxies()
    lines = len(running.node.log)
    assert running.node.stop() == 0
    assert not running.events("child killed", lines)
    assert json.loads(running.node.log_text.splitlines()[-1])["event"] == "stopped"
