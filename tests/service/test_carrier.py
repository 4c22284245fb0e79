"""Which server is the master: asked of real sentinels and of a real cluster, some of which say nothing."""

import contextlib
import signal

import pytest

from edge import config
from edge.weights.carrier import Carrier, most_said
from tests.support.redis import RedisServer
from tests.support.redissets import cluster, free_port, sentinel_set

NODE = "iad-a"
KEY = "wc:{us}:epoch"
SCRIPT = "return redis.call('GETRANGE', KEYS[1], 0, 32)"


@contextlib.asynccontextmanager
async def carrier(timeout_ms=1_000, **place):
    settings = config.Index(**place, user=NODE, timeout_ms=timeout_ms)
    made = Carrier(settings, RedisServer.password(NODE), 2, KEY)
    try:
        yield made
    finally:
        await made.aclose()


@pytest.mark.parametrize(
    ("sentence", "answers", "found"),
    [
        ("nobody says anything", [None, None], None),
        ("one that is behind is outvoted", [("a", 1), ("b", 1), None, ("b", 1)], ("b", 1)),
        ("of as many for each, the first", [None, ("a", 1), ("b", 1)], ("a", 1)),
    ],
)
def test_what_most_say(sentence, answers, found):
    assert most_said(answers) == found, sentence


async def test_sentinels_that_are_dead_or_frozen_are_passed_over():
    with sentinel_set("us", (NODE,)) as servers:
        servers.master.admin.set(KEY, "x")
        dead, frozen = servers.watchers[0], servers.watchers[1]
        dead.kill()
        frozen.signal(signal.SIGSTOP)
        try:
            async with carrier(**servers.place) as one:
                assert await one.run(SCRIPT, [KEY]) == b"x"
        finally:
            frozen.signal(signal.SIGCONT)
        async with carrier(sentinels=servers.place["sentinels"], master="nowhere") as one:
            with pytest.raises(ConnectionError, match="knows no master 'nowhere'") as caught:
                await one.run(SCRIPT, [KEY])
            assert all(address in str(caught.value) for address in servers.place["sentinels"])


async def test_any_member_of_a_cluster_names_the_master_of_the_slot():
    with cluster("us", (NODE,)) as servers:
        servers.master.admin.set(KEY, "x")
        nobody = f"127.0.0.1:{free_port()}"
        for member in servers.servers:
            async with carrier(cluster=(nobody, member.address)) as one:
                assert await one.run(SCRIPT, [KEY]) == b"x"
        async with carrier(cluster=(nobody,)) as one:
            with pytest.raises(ConnectionError, match=f"nobody says which server is the master: {nobody}"):
                await one.run(SCRIPT, [KEY])
