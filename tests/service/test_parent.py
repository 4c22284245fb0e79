"""The process tree for real: rights, sockets that outlive children, restarts, and the end."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from edge.clock import wall_s
from edge.config import Index, Mesh, NodeConfig, Public, Weights
from edge.parent import sockets
from edge.parent.boot import BootError, plan_roles
from edge.proxy.app import ProxyBoot
from edge.weights.app import WeightsBoot
from netlab.clock import now_s, wait_until
from tests.support.node import ROOT, config_text, free_port, open_directory, running_node
from tests.support.wait import wait_until as wait_until_async

NOBODY_HOME = "http://127.0.0.1:1/"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="dropping rights takes root")


@pytest.fixture(scope="module")
def node():
    with running_node(origin=NOBODY_HOME) as running:
        yield running


def proc(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split(":")[0]: line.split(":")[1].split() for line in lines}


def alive(pid: int) -> bool:
    try:
        return proc(pid)["State"][0] != "Z"
    except FileNotFoundError:
        return False


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


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


def test_no_child_sees_the_operators_environment_but_the_weights_process(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-the-origin")
    with running_node(origin=NOBODY_HOME) as running:
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


def test_a_stop_is_clean():
    with running_node(origin=NOBODY_HOME, workers=()) as running:
        pids = children_of(running.process.pid)
        assert len(pids) == 2
        started = now_s()
        assert running.stop() == 0
        assert now_s() - started < 5
        assert not [pid for pid in pids if alive(pid)]
        assert [path.name for path in (running.directory / "run").iterdir()] == ["lock"]
        assert not [line for line in running.log if line["event"] == "child killed"]


def test_children_do_not_outlive_a_killed_parent():
    with running_node(origin=NOBODY_HOME) as running:
        pids = children_of(running.process.pid)
        assert len(pids) == 3
        running.process.kill()
        wait_until(lambda: not any(map(alive, pids)), "all children are gone", within_s=10)


def test_a_successor_waits_for_the_address_of_a_killed_parent():
    with running_node(origin=NOBODY_HOME, workers=()) as first:
        first.process.kill()
        first.process.wait(5)
        with running_node(origin=NOBODY_HOME, workers=(), port=first.port) as second:
            assert second.request("/pop").status == 200


def popctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("popctl"))
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=30, check=False)


REFUSALS = [
    (
        "a port below 1024 of an address that is not here",
        "mesh: {listen: '192.0.2.7:7443', ca: /x, certificate: /x, key: /x}\n",
        1,
        "mesh.listen: can't listen on 192.0.2.7:7443: no interface of this machine has it",
    ),
    (
        "a token that is too short",
        "admin: {listen: '127.0.0.1:%(port)s', token_file: %(tmp)s/token}\n",
        1,
        "admin.token_file: %(tmp)s/token holds 5 characters; write at least 16",
    ),
    (
        "a key that is not there",
        "mesh: {listen: '127.0.0.1:%(port)s', ca: %(tmp)s/no.pem, certificate: /x, key: /x}\n",
        1,
        "mesh.ca: can't read %(tmp)s/no.pem: No such file or directory",
    ),
    (
        "an interface that is not there",
        "announce: {interface: nowhere0, addresses: [127.0.0.1]}\n",
        3,
        "announce.interface: there is no interface 'nowhere0'; create it",
    ),
]


@pytest.mark.parametrize(
    ("sentence", "extra", "status", "problem"), REFUSALS, ids=[row[0] for row in REFUSALS]
)
def test_what_can_not_start_says_why(tmp_path, sentence, extra, status, problem):
    (tmp_path / "token").write_text("short\n")
    names = {"port": free_port(), "tmp": tmp_path}
    config = tmp_path / "node.yaml"
    config.write_text(config_text(tmp_path, "n", free_port(), origin=NOBODY_HOME, extra=extra % names))
    ended = popctl("serve", "-c", str(config))
    last = json.loads(ended.stderr.splitlines()[-1])
    assert (ended.returncode, last["event"]) == (status, "not started"), sentence
    assert last["problem"].startswith(problem % names), last
    assert ended.stdout == ""


@pytest.fixture
def busy(monkeypatch):
    monkeypatch.setattr(sockets, "BIND_PATIENCE_S", 0.5)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder


def _config(tmp_path: Path, port: int) -> NodeConfig:
    return NodeConfig(
        node="n",
        pop="p",
        region="r",
        run_dir=str(tmp_path / "run"),
        public=Public(listen=("[::1]:0", f"127.0.0.1:{port}")),
        weights=Weights(store=str(tmp_path), origin=NOBODY_HOME),
    )


async def test_a_busy_address_is_waited_for(tmp_path, busy, monkeypatch):
    port, tried, bind = busy.getsockname()[1], [], sockets._tcp

    def bind_and_tell(setting: str, address: str, *, free: bool) -> socket.socket:
        tried.extend([address] if address.endswith(f":{port}") else [])
        return bind(setting, address, free=free)

    monkeypatch.setattr(sockets, "_tcp", bind_and_tell)
    (tmp_path / "run").mkdir()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        opening = group.create_task(sockets.open_listeners(_config(tmp_path, port), root=False))
        await wait_until_async(lambda: tried)
        assert not opening.done()
        busy.close()
        listeners = await opening
    assert [listener.getsockname()[1] for listener in listeners.public][1] == port
    listeners.close()


async def test_a_busy_address_is_not_waited_for_for_ever(tmp_path, busy):
    port = busy.getsockname()[1]
    (tmp_path / "run").mkdir()
    with pytest.raises(
        sockets.ListenError, match=rf"public.listen.1: can't listen on 127.0.0.1:{port}: another"
    ):
        await sockets.open_listeners(_config(tmp_path, port), root=False)


@pytest.fixture
def joined(tmp_path) -> NodeConfig:
    """A node with mesh, index, blobs and keys, whose files are there."""
    texts = {"ca": "CA", "certificate": "CERT", "key": "KEY", "password": " s3cret\n", "keys": "clés"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "run").mkdir()
    papers = {name: str(tmp_path / name) for name in ("ca", "certificate", "key")}
    return NodeConfig(
        node="n",
        pop="p",
        region="eu",
        run_dir=str(tmp_path / "run"),
        public=Public(listen=("127.0.0.1:0",), keys_file=str(tmp_path / "keys")),
        mesh=Mesh(listen="127.0.0.1:0", **papers),
        weights=Weights(
            store=str(tmp_path / "store"),
            origin=NOBODY_HOME,
            blobs="127.0.0.1:0",
            index=Index(url="redis://127.0.0.1:1", user="n", password_file=str(tmp_path / "password")),
        ),
    )


async def test_the_children_are_told_all_they_need(joined):
    listeners = await sockets.open_listeners(joined, root=False)
    try:
        weights_role, proxy_role = plan_roles(joined, listeners, lambda: True)
        weights, again = (told(weights_role, WeightsBoot) for _ in range(2))
        proxy = told(proxy_role, ProxyBoot)
        assert listeners.blobs is not None
        assert weights.blobs_fd == listeners.blobs.fileno()
        assert weights.blobs_fd in weights_role.fds
    finally:
        listeners.close()
    assert (weights.region, weights.index_password) == ("eu", "s3cret")
    assert (weights.mesh_ca, weights.mesh_certificate, weights.mesh_key) == ("CA", "CERT", "KEY")
    assert weights.boot != again.boot, "each start has an id of its own"
    assert int(weights.boot, 16) >= 0
    assert (proxy.keys_text, proxy.mesh_key) == ("clés", "KEY")
    assert abs(proxy.boot_ms - wall_s() * 1000) < 60_000
    assert proxy_role.boot(3)["drained"] is True


def told(role, struct):
    """What the child makes of its boot data."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(role.boot(3)), type=struct)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("password", b" \n", "weights.index.password_file: {} is empty; write the password"),
        ("password", None, "weights.index.password_file: can't read {}: No such file"),
        ("keys", b"\xff", "public.keys_file: {} is not plain text"),
        ("key", b"\xc3\xa9", "mesh.key: {} is not plain text"),
        ("keys", b"k" * (1 << 20) + b"k", "public.keys_file: {} is larger than 1048576 bytes"),
    ],
)
async def test_a_secret_that_can_not_be_used_is_named(joined, tmp_path, name, content, problem):
    path = tmp_path / name
    path.unlink() if content is None else path.write_bytes(content)
    listeners = await sockets.open_listeners(joined, root=False)
    try:
        with pytest.raises(BootError) as raised:
            plan_roles(joined, listeners, lambda: False)
    finally:
        listeners.close()
    assert str(raised.value).startswith(problem.format(path))


JAIL = """
import os, sys
from pathlib import Path
from edge.parent.child import code_paths
from edge.parent.jail import Cell, JailError, enter
closed = Path(sys.argv[1])
try:
    enter(Cell(uid=64005, network=True, readable=(*code_paths(), *sys.argv[2:])))
except JailError as error:
    print(error)
    sys.exit()
import colorsys  # a module that nothing has imported yet: the code is still in reach
print(os.getuid(), *sorted(str(path.relative_to(closed)) for path in closed.rglob("*")))
try:
    (closed / "new").write_text("")
except OSError as error:
    print(error.strerror)
"""


@root_only
def test_a_child_sees_what_it_needs_below_a_closed_directory_and_nothing_else(tmp_path):
    closed = tmp_path / "home"
    for name in ("wanted/deep", "secret"):
        (closed / name).mkdir(parents=True)
        (closed / name / "file").write_text("")
    tmp_path.chmod(0o755)
    closed.chmod(0o700)
    seen = jailed(closed, closed / "wanted/deep").splitlines()
    assert seen == ["64005 wanted wanted/deep wanted/deep/file", "Read-only file system"]
    assert (closed.stat().st_mode & 0o777, (closed / "secret/file").exists()) == (0o700, True)


@root_only
def test_a_path_that_stays_closed_is_named_with_the_remedy(tmp_path):
    store = tmp_path / "store"
    store.mkdir(mode=0o700)
    problem = jailed(tmp_path, store)
    assert f"uid 64005 can't read {store}: {store} is closed to it; chmod a+rx {store}" in problem


def jailed(*arguments: Path) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", JAIL, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout


@root_only
def test_without_root_a_node_runs_with_a_notice(tmp_path):
    """The jail itself makes the other uid: it then runs `popctl serve` as an ordinary user would."""
    port, uid = free_port(), 64005
    (tmp_path / "node.yaml").write_text(config_text(tmp_path, "plain", port, origin=NOBODY_HOME))
    os.chown(tmp_path, uid, uid)
    script = (
        "import os, sys; from edge.parent.jail import Cell, enter; from edge.parent.child import code_paths\n"
        f"enter(Cell(uid={uid}, network=True, readable=(*code_paths(), {str(tmp_path)!r})))\n"
        f"os.execv(sys.executable, [sys.executable, '-m', 'edge.cli', 'serve', '-c', {str(tmp_path / 'node.yaml')!r}])"
    )
    log = tmp_path / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=sink
        )
    try:
        ready = tmp_path / "run" / "ready"
        wait_until(lambda: ready.exists() or process.poll() is not None, "the node is ready", within_s=40)
        assert process.poll() is None, log.read_text()
        assert {tuple(proc(pid)["Uid"]) for pid in children_of(process.pid)} == {(str(uid),) * 4}
        assert "not root: children keep this uid" in log.read_text()
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_a_child_that_can_not_run_here_ends_the_node_with_one_sentence_and_no_traceback():
    with open_directory() as directory:
        store = directory / "store"
        store.mkdir()
        (store / "node.json").mkdir()
        config = directory / "node.yaml"
        config.write_text(config_text(directory, "one-a", free_port(), origin=f"file://{directory}/"))
        popctl = Path(sys.executable).with_name("popctl")
        ran = subprocess.run(
            [str(popctl), "serve", "-c", str(config)], capture_output=True, text=True, timeout=30, check=False
        )
    events = [json.loads(line) for line in ran.stderr.splitlines()]
    assert ran.returncode == 3, ran.stderr
    assert any("the weight store can't begin" in line["event"] for line in events), ran.stderr
    assert "weights can't run here" in events[-1]["problem"]
