"""The process tree for real: rights, sockets that outlive children, restarts, and the end."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from netlab.clock import now_s, wait_until
from tests.support.children import alive, children_of, popctl, proc
from tests.support.node import empty_origin, running_node

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="dropping rights takes root")


@pytest.fixture(scope="module")
def origin():
    with empty_origin() as url:
        yield url


@pytest.fixture(scope="module")
def node(origin):
    with running_node(origin=origin) as running:
        yield running


def listening_inode(port: int) -> str:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == f"0100007F:{port:04X}" and fields[3] == "0A":
            return fields[9]
    return "nobody listens"


@root_only
@pytest.mark.parametrize(("role", "uid"), [("proxy", "64001"), ("weights", "64002"), ("worker-0", "64003")])
def test_a_child_has_its_own_uid_and_no_capability(node, role, uid):
    status = proc(node.child(role))
    assert status["Uid"] == [uid] * 4
    assert status["Gid"] == [uid] * 4
    assert status["Groups"] == []
    assert status["NoNewPrivs"] == ["1"]
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert status[kind] == ["0" * 16], kind
    limits = Path(f"/proc/{node.child(role)}/limits").read_text().splitlines()
    assert next(line for line in limits if line.startswith("Max core file size")).split()[4:6] == ["0", "0"]


@root_only
def test_a_worker_has_no_network(node):
    pid = node.child("worker-0")
    assert Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    links = json.loads(
        subprocess.run(
            ["nsenter", "-t", str(pid), "-n", "ip", "-j", "link"], check=True, capture_output=True
        ).stdout
    )
    assert [(link["ifname"], "UP" in link["flags"]) for link in links] == [("lo", False)]


@root_only
def test_a_worker_has_a_memory_cap(node):
    limits = Path(f"/proc/{node.child('worker-0')}/limits").read_text()
    line = next(line for line in limits.splitlines() if line.startswith("Max data size"))
    assert line.split()[3:5] == [str(8 << 30)] * 2


@root_only
@pytest.mark.parametrize(
    ("name", "mode", "uid", "gid"),
    [
        ("admin.sock", 0o660, 0, 64001),
        ("weights.sock", 0o600, 64001, 64001),
        ("worker-0.sock", 0o600, 64001, 64001),
    ],
)
def test_a_socket_opens_for_those_it_is_for(node, name, mode, uid, gid):
    found = (node.directory / "run" / name).stat()
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (mode, uid, gid)


@root_only
def test_the_store_belongs_to_the_weights_process_and_is_open_to_read(node):
    found = (node.directory / "store").stat()
    assert (found.st_mode & 0o777, found.st_uid) == (0o755, 64002)


def test_no_child_sees_the_operators_environment_but_the_weights_process(monkeypatch, origin):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-the-origin")
    with running_node(origin=origin) as running:
        seen = {
            role: b"a-secret-of-the-origin" in Path(f"/proc/{running.child(role)}/environ").read_bytes()
            for role in ("proxy", "weights", "worker-0")
        }
    assert seen == {"proxy": False, "weights": True, "worker-0": False}


def test_the_parent_is_small_and_has_one_thread(node):
    pid = node.process.pid
    assert proc(pid)["Threads"] == ["1"]
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    pss_kib = int(next(line for line in rollup if line.startswith("Pss:")).split()[1])
    assert pss_kib < 40 * 1024


def test_a_killed_proxy_refuses_nobody(node):
    before, inode = node.child("proxy"), listening_inode(node.port)
    node.kill("proxy")
    # The parent's own record of the exit: from here until the successor serves, only the backlog is there.
    wait_until(lambda: not alive(before), "the proxy is dead", within_s=5, every_s=0.001)
    wait_until(lambda: not (node.directory / "run" / "ready").exists(), "ready is taken back", within_s=2)
    for _ in range(20):
        answer = node.request("/pop")
        assert answer.status == 200, answer
    assert listening_inode(node.port) == inode
    assert node.child("proxy") != before
    wait_until((node.directory / "run" / "ready").exists, "the node says ready again", within_s=30)


def test_a_connection_made_while_no_proxy_lives_is_served(node):
    before = node.kill("proxy")
    wait_until(lambda: not alive(before), "the proxy is dead", within_s=5, every_s=0.001)
    served_before = starts(node)
    with socket.create_connection(("127.0.0.1", node.port), timeout=30) as waiting:
        waiting.sendall(b"GET /pop HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert starts(node) == served_before, "the successor was already there; nothing was shown"
        answer = b""
        while data := waiting.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert starts(node) == served_before + 1


def starts(node) -> int:
    """How many proxies of this node ever began to serve."""
    return sum(line["event"] == "serving" for line in node.log)


@pytest.mark.parametrize("role", ["weights", "worker-0"])
def test_a_killed_sibling_comes_back_and_the_proxy_stays(node, role):
    proxy, before = node.child("proxy"), node.kill(role)
    wait_until(
        lambda: any(
            child["role"] == role and child.get("ready") and child["pid"] != before
            for child in node.state["tree"]["children"]
        ),
        f"{role} is back",
        within_s=30,
    )
    assert node.child("proxy") == proxy
    exits = {child["role"]: child["exits"] for child in node.state["tree"]["children"]}
    assert exits[role] >= 1


def test_a_proxy_that_hangs_is_replaced(node):
    before = node.child("proxy")
    os.kill(before, signal.SIGSTOP)
    assert node.request("/pop", timeout_s=40).status == 200
    assert node.child("proxy") != before
    assert any(line["event"] == "child killed" and "silent" in line["why"] for line in node.log)


def test_a_parent_that_was_stopped_blames_no_child(node):
    """It heard nothing meanwhile, and that was its own fault."""
    proxy, kills = node.child("proxy"), node.log_text.count("child killed")
    stopped_s = now_s()
    node.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: now_s() - stopped_s > 6.0, "a proxy may be silent for 5 s", within_s=10)
    finally:
        node.process.send_signal(signal.SIGCONT)
    wait_until(lambda: node.admin("/edge/state").status == 200, "the parent answers", within_s=10)
    wait_until(lambda: now_s() - stopped_s > 8.0, "it has looked at its children again", within_s=10)
    assert node.child("proxy") == proxy
    assert node.log_text.count("child killed") == kills


def test_two_nodes_do_not_share_a_run_dir(node):
    config = node.directory / "node.yaml"
    second = popctl("serve", "-c", str(config))
    assert second.returncode == 1
    assert f"a node already runs in {node.directory}/run; stop it, or write another run_dir" in second.stderr
    assert node.request("/pop").status == 200


def test_a_stop_is_clean(origin):
    with running_node(origin=origin, workers=()) as running:
        pids = children_of(running.process.pid)
        assert len(pids) == 2
        started = now_s()
        assert running.stop() == 0
        assert now_s() - started < 5
        assert not [pid for pid in pids if alive(pid)]
        assert [path.name for path in (running.directory / "run").iterdir()] == ["lock"]
        assert not [line for line in running.log if line["event"] == "child killed"]


def test_children_do_not_outlive_a_killed_parent(origin):
    with running_node(origin=origin) as running:
        pids = children_of(running.process.pid)
        assert len(pids) == 3
        running.process.kill()
        wait_until(lambda: not any(map(alive, pids)), "all children are gone", within_s=10)


def test_a_successor_waits_for_the_address_of_a_killed_parent(origin):
    with running_node(origin=origin, workers=()) as first:
        first.process.kill()
        first.process.wait(5)
        with running_node(origin=origin, workers=(), port=first.port) as second:
            assert second.request("/pop").status == 200
