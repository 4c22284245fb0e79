"""The announcement as a kernel lease, in a scratch network namespace: who dies, and when the address goes."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.parent.announce import AnnounceError, Announcer
from netlab.clock import now_ms, wait_until
from tests.support.marker import V4, V6, addresses, announcing, inside, scratch
from tests.support.node import Node

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace takes root"),
]

#: What is promised, from the death of whoever dies. The kernel alone is later at times: see edge/parent/guard.py.
BOUND_MS = 2500


@pytest.fixture(scope="module")
def namespace() -> Iterator[int]:
    with scratch() as fd:
        yield fd


@pytest.fixture(scope="module")
def shared(namespace):
    with announcing(namespace) as running:
        yield running


@pytest.fixture
def announced(shared):
    """A node that announces, whatever the test before did."""
    node, watch = shared
    wait_until(lambda: node.state["tree"]["announcement"] == "announced", "announced", within_s=30)
    watch.both(within_s=5)
    return node, watch


def test_the_addresses_carry_a_lease(announced, namespace):
    found = addresses(namespace)
    assert set(found) == {V4, V6}
    for info in found.values():
        assert 1 <= info["valid_life_time"] <= 2
        assert "tentative" not in info
        assert "deprecated" not in info
    assert (found[V4]["prefixlen"], found[V6]["prefixlen"]) == (32, 128)


def test_the_operator_withdraws_at_once_and_for_good(announced):
    node, watch = announced
    started_ms = now_ms()
    answer = node.admin("/edge/withdraw", method="POST")
    assert answer.status == 200, answer
    assert not watch.seen(), "deleted before the answer"
    assert now_ms() - started_ms < 500
    assert node.state["tree"]["announcement"] == "withdrawn: by the operator"
    watch.stays_away(1000)
    assert node.admin("/edge/announce", method="POST").status == 200
    watch.both(within_s=1)


def test_a_stopped_proxy_is_withdrawn_within_the_bound(announced):
    node, watch = announced
    pid = node.child("proxy")
    os.kill(pid, signal.SIGSTOP)
    try:
        assert watch.none(within_s=5) <= BOUND_MS
    finally:
        os.kill(pid, signal.SIGCONT)
    watch.both(within_s=2)


def test_a_stopped_parent_is_withdrawn_within_the_bound(announced):
    node, watch = announced
    node.process.send_signal(signal.SIGSTOP)
    try:
        assert watch.none(within_s=5) <= BOUND_MS
    finally:
        node.process.send_signal(signal.SIGCONT)
    watch.both(within_s=2)
    assert any(line["event"] == "the parent is silent: withdrawn" for line in node.log)


def test_a_parent_that_stalls_for_a_while_loses_nothing(announced):
    node, watch = announced
    node.process.send_signal(signal.SIGSTOP)
    try:
        watch.stays_there(900)
    finally:
        node.process.send_signal(signal.SIGCONT)
    watch.stays_there(600)


def test_a_killed_guard_is_replaced_and_nothing_is_withdrawn(announced):
    node, watch = announced
    before = guard_of(node)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: guard_of(node) not in (0, before), "another guard is there", within_s=5)
    watch.stays_there(600)


def test_without_the_guard_the_kernel_withdraws(announced):
    """The net below: no bound is promised for it, as a processor that sleeps is not woken."""
    node, watch = announced
    node.process.send_signal(signal.SIGSTOP)
    os.kill(guard_of(node), signal.SIGKILL)
    try:
        watch.none(within_s=10)
    finally:
        node.process.send_signal(signal.SIGCONT)
    watch.both(within_s=2)


def test_one_exit_is_forgiven_a_second_withdraws_at_once(announced):
    node, watch = announced
    first = node.kill("proxy")
    wait_until((node.directory / "run" / "admin.sock").exists, "still there", within_s=1)
    wait_until(lambda: node.child("proxy") != first, "a successor answers", within_s=20)
    watch.both(within_s=5)
    second, killed_ms = node.child("proxy"), now_ms()
    os.kill(second, signal.SIGKILL)
    assert watch.none(within_s=5) < 500
    wait_until(lambda: node.child("proxy") != second, "a third one answers", within_s=20)
    why = "withdrawn: the proxy exited twice within its trial"
    assert node.state["tree"]["announcement"] == why
    watch.stays_away(1000)
    watch.both(within_s=15)
    assert now_ms() - killed_ms >= 10_000, "not before it has lived for ten seconds"


def test_a_killed_parent_is_withdrawn_at_once_and_refuses_nobody_before():
    with scratch() as namespace, announcing(namespace) as (node, watch):
        proxy, guard = node.child("proxy"), guard_of(node)
        node.process.kill()
        assert watch.none(within_s=5) < 500
        assert _alive(proxy), "the proxy left before the address did"
        wait_until(lambda: not _alive(proxy) and not _alive(guard), "the others go too", within_s=10)
        node.process.wait(5)


@contextlib.contextmanager
def started_again(namespace: int, node: Node) -> Iterator[None]:
    """The node's program once more, after its end; it stops cleanly afterwards."""
    ready = node.directory / "run" / "ready"
    ready.unlink(missing_ok=True)
    with inside(namespace), (node.directory / "log").open("ab") as log:
        config, popctl = node.directory / "node.yaml", Path(sys.executable).with_name("popctl")
        again = subprocess.Popen([str(popctl), "serve", "-c", str(config)], stdout=log, stderr=log)
    try:
        wait_until(ready.exists, "ready again", within_s=40)
        yield
    finally:
        again.terminate()
        assert again.wait(20) == 0


def test_an_operators_withdrawal_survives_the_proxy_and_the_parent():
    with scratch() as namespace, announcing(namespace) as (node, watch):
        assert node.admin("/edge/withdraw", method="POST").status == 200
        killed = node.kill("proxy")
        wait_until(lambda: _proxy_of(node) not in (0, killed), "a successor answers", within_s=20)
        assert node.state["tree"]["announcement"] == "withdrawn: by the operator"
        assert node.stop() == 0
        with started_again(namespace, node):
            assert node.state["tree"]["announcement"] == "withdrawn: by the operator"
            watch.stays_away(1000)
            assert node.admin("/edge/announce", method="POST").status == 200
            watch.both(within_s=1)
            assert not (node.directory / "run" / "withdrawn").exists()


def test_a_drained_node_that_is_started_again_is_still_drained():
    """Killed with everything, as a machine that loses power; its run_dir is still there."""
    with scratch() as namespace, announcing(namespace, extra="drain: {lame_duck_ms: 50}\n") as (node, watch):
        assert node.admin("/edge/drain", method="POST").json["phase"] == "drained"
        node.process.kill()
        node.process.wait(5)
        with started_again(namespace, node):
            assert (node.state["phase"], node.state["tree"]["announcement"]) == (
                "drained",
                "withdrawn: drained by the operator",
            )
            watch.stays_away(1000)
            assert node.admin("/edge/undrain", method="POST").json["phase"] == "serving"
            watch.both(within_s=1)


def test_a_clean_stop_withdraws_before_anything_stops():
    with scratch() as namespace, announcing(namespace) as (node, watch):
        proxy = node.child("proxy")
        node.process.terminate()
        assert watch.none(within_s=2) < 1000
        assert _alive(proxy), "the proxy still serves who is under way"
        assert node.process.wait(20) == 0


def test_a_missing_interface_and_a_missing_right_are_told(namespace):
    with pytest.raises(AnnounceError, match="there is no interface 'nowhere0'; create it"):
        Announcer("nowhere0", (V4,), 2)
    with inside(namespace):
        announcer = Announcer("ann0", ("192.0.2.99", "2001:db8::99"), 1)
        announcer.delete()
        announcer.renew()
        announcer.renew()
        assert {"192.0.2.99", "2001:db8::99"} <= set(addresses(namespace))
        announcer.delete()
        announcer.delete()
        announcer.close()
    assert not {"192.0.2.99", "2001:db8::99"} & set(addresses(namespace))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _proxy_of(node) -> int:
    """0 while nobody answers."""
    try:
        return node.child("proxy")
    except OSError:
        return 0


def guard_of(node) -> int:
    """The pid of the process that watches the parent; 0 while there is none."""
    parent = node.process.pid
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        try:
            if b"edge.parent.guard" in Path(f"/proc/{pid}/cmdline").read_bytes() and _alive(int(pid)):
                return int(pid)
        except FileNotFoundError:
            continue
    return 0
