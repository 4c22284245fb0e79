"""The region's Redis may be lost in every way: whoever is warm does not notice."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from netlab.clock import wait_until
from netlab.lab import Lab
from netlab.regions import RedisHandle
from tests.support.joined import IDENTITY, ask, evict, wait_until_joined
from tests.support.load import Load

pytestmark = pytest.mark.lab


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
    wait_until(lambda: index_of(lab, "fra-a").get("state") == "up", "the index is up again", within_s=15)


def wrong_password(redis: RedisHandle) -> None:
    redis.cli("ACL", "SETUSER", "fra-a", "resetpass", ">another")
    redis.cli("CLIENT", "KILL", "USER", "fra-a")


FAULTS: list[tuple[str, Callable[[RedisHandle], object], Callable[[RedisHandle], object]]] = [
    ("killed and restarted empty", RedisHandle.kill, lambda redis: redis.start()),
    ("frozen", RedisHandle.stop, RedisHandle.cont),
    ("flushed", lambda redis: redis.cli("FLUSHALL"), lambda redis: None),
    (
        "read-only",
        lambda redis: redis.cli("CONFIG", "SET", "min-replicas-to-write", "1"),
        lambda redis: redis.cli("CONFIG", "SET", "min-replicas-to-write", "0"),
    ),
]


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
    evict(lab, "fra-a", "mlp")
    with Load(ber, "/run/identity", IDENTITY, connections=4) as load:
        load.wait_until_asked(50)
        fail(eu)
        load.wait_until_asked(len(load.history) + 200)
        cold = ask(ber, "mlp", edge_cold="wait")
        heal(eu)
        load.wait_until_asked(len(load.history) + 50)
    outcomes = Counter(asked.outcome for asked in load.history)
    assert set(outcomes) == {"200"}, f"{what}: {outcomes}"
    assert (cold.status, cold.headers["edge-served-by"]) == (200, "fra-a/0"), what

    def whole() -> bool:
        found = index_of(lab, "fra-a")
        return bool(found.get("state") == "up" and found.get("blobs", 0) > 0)

    wait_until(whole, f"{what}: the index is whole again", within_s=15)
