"""The region's Redis may be lost in every way: whoever is warm does not notice."""

import contextlib
import json
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netlab import regions, state
from netlab.clock import wait_until
from netlab.lab import Lab
from netlab.probe import Answer
from netlab.regions import RedisHandle
from tests.support.joined import IDENTITY, ask, evict, wait_until_joined
from tests.support.load import Load

pytestmark = pytest.mark.lab

EU = ("fra-a", "ams-a")


def index_of(lab: Lab, node: str) -> Any:
    return json.loads(lab.node(node).admin("GET", "/edge/weights").body)["weights"]["index"]


@pytest.fixture
def eu(lab: Lab) -> Iterator[RedisHandle]:
    wait_until_joined(lab)
    redis = lab.region("eu").redis
    yield redis
    redis = Lab.running().region("eu").redis
    redis.cont()
    redis.start()
    redis.cli("CONFIG", "SET", "min-replicas-to-write", "0")
    right_password(redis)
    wait_until(lambda: index_of(lab, "fra-a").get("state") == "up", "the index is up again", within_s=15)


def wrong_password(redis: RedisHandle) -> None:
    for node in EU:
        redis.cli("ACL", "SETUSER", node, "resetpass", ">another")
        redis.cli("CLIENT", "KILL", "USER", node)


def right_password(redis: RedisHandle) -> None:
    for node in EU:
        password = (Lab.running().node(node).home / "redis.password").read_text().strip()
        redis.cli("ACL", "SETUSER", node, "resetpass", f">{password}")


def dump(redis: RedisHandle) -> None:
    """All that it knows now is written down. Its own user may write nothing there, but for this once."""
    home = state.redis_home(redis.region.name)
    os.chown(home, regions.REDIS_UID, -1)
    try:
        assert redis.cli("SAVE") == "OK"
    finally:
        os.chown(home, 0, -1)


def restore(redis: RedisHandle) -> None:
    """What was written down is all that it knows: what has come since is missing, what has gone is back."""
    redis.kill()
    redis.start()
    (state.redis_home(redis.region.name) / "dump.rdb").unlink()


def listed(redis: RedisHandle, node: str) -> set[str]:
    """The blobs and manifests that the index says a node has."""
    found = redis.cli("SMEMBERS", f"wc:{{eu}}:have:{node}")
    return {str(digest) for digest in found} if isinstance(found, list) else set()


def on_disk(lab: Lab, node: str) -> set[str]:
    store = lab.node(node).home / "store"
    return {
        path.name.removesuffix(".json")
        for shelf in ("blobs", "manifests")
        for path in (store / shelf).iterdir()
    }


def to_redis(lab: Lab, node: str, role: str) -> int:
    """TCP connections to the region's Redis that processes of this role have."""
    redis = lab.region("eu").redis
    address, port = socket.inet_aton(redis.address)[::-1].hex().upper(), f"{redis.port:04X}"
    count = 0
    for pid in lab.node(node).pids(role):
        rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
        there = {f"socket:[{row[9]}]" for row in rows if row[2] == f"{address}:{port}"}
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                count += str(descriptor.readlink()) in there
    return count


ELSEWHERE = ("region", "far", "origin")
TRIES = 5


def cold_start(lab: Lab) -> Answer:
    """mlp, asked for as soon as nothing of it is on fra-a."""
    evict(lab, "fra-a", "mlp", disk=True)
    return ask(lab.city("ber"), "mlp", edge_cold="wait")


FAULTS: list[tuple[str, Callable[[RedisHandle], object], Callable[[RedisHandle], object]]] = [
    ("killed and restarted empty", RedisHandle.kill, lambda redis: redis.start()),
    ("frozen", RedisHandle.stop, RedisHandle.cont),
    ("flushed", lambda redis: redis.cli("FLUSHALL"), lambda redis: None),
    (
        "read-only",
        lambda redis: redis.cli("CONFIG", "SET", "min-replicas-to-write", "1"),
        lambda redis: redis.cli("CONFIG", "SET", "min-replicas-to-write", "0"),
    ),
    ("another password", wrong_password, right_password),
    ("restored from an old dump", dump, restore),
]


def test_no_request_can_wait_for_redis(lab: Lab, eu: RedisHandle) -> None:
    """Only the weights process has a connection to it; what answers requests has none to wait on."""
    with Load(lab.city("ber"), "/run/identity", IDENTITY, connections=4) as load:
        load.wait_until_asked(200)
        assert to_redis(lab, "fra-a", "weights") > 0
        assert [to_redis(lab, "fra-a", role) for role in ("parent", "proxy", "worker")] == [0, 0, 0]
        assert [to_redis(lab, "ams-a", role) for role in ("parent", "proxy")] == [0, 0]
    assert set(load.outcomes()) == {"200"}
    assert eu.cli("PING") == "PONG"


@pytest.mark.parametrize(("what", "fail", "heal"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_warm_requests_see_nothing_and_cold_starts_still_work(
    lab: Lab,
    eu: RedisHandle,
    what: str,
    fail: Callable[[RedisHandle], object],
    heal: Callable[[RedisHandle], object],
) -> None:
    ber = lab.city("ber")
    assert ask(ber, "identity", edge_cold="wait").status == 200
    with Load(ber, "/run/identity", IDENTITY, connections=4) as load:
        load.wait_until_asked(50)
        fail(eu)
        load.wait_until_asked(len(load.history) + 200)
        colds = [cold_start(lab)]
        # Who has just asked for it may have brought it near again in the background.
        while colds[-1].headers.get("edge-residency") not in ELSEWHERE and len(colds) < TRIES:
            colds.append(cold_start(lab))
        heal(eu)
        load.wait_until_asked(len(load.history) + 50)
    outcomes = Counter(asked.outcome for asked in load.history)
    assert set(outcomes) == {"200"}, f"{what}: {outcomes}"
    for cold in colds:
        assert (cold.status, cold.headers["edge-served-by"]) == (200, "fra-a/0"), what
    assert colds[-1].headers["edge-residency"] in ELSEWHERE, "it was nowhere on fra-a"

    def whole() -> bool:
        up = all(index_of(lab, node).get("state") == "up" for node in EU)
        return up and all(listed(lab.region("eu").redis, node) == on_disk(lab, node) for node in EU)

    # A thousandth of 10,000 blobs is within the time that a connection takes to be tried again.
    wait_until(whole, f"{what}: the index lists what lies on the disks", within_s=5)
