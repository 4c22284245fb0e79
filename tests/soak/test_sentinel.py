"""A region's Redis as a Sentinel set: another server becomes the master, and nobody who asks for a model notices."""

import asyncio
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from edge import clock
from tests.service.test_carrier import KEY, NODE, carrier
from tests.support.failover import NODES, survives_its_master
from tests.support.redissets import sentinel_set
from tests.support.wait import wait_until

pytestmark = pytest.mark.soak


async def test_the_index_outlives_a_master_that_sentinels_replace(tmp_path: Path) -> None:
    with sentinel_set("eu", NODES) as servers:
        await survives_its_master(tmp_path, servers)


async def test_a_master_that_steps_down_is_left() -> None:
    """It lives on as a replica, which writes nothing: what it says to that sends the writer away."""
    write = "return redis.call('SET', KEYS[1], ARGV[1]).ok"
    with sentinel_set("us", (NODE,)) as servers:
        async with carrier(**servers.place) as one:
            assert await one.run(write, [KEY], "x") == b"OK"
            before = servers.master
            servers.watchers[0].admin.execute_command("SENTINEL FAILOVER us")
            await asyncio.to_thread(servers.wait_until_led_by_another, before)
            begun_ms = clock.now_ms()

            async def written() -> bool:
                try:
                    return bool(await one.run(write, [KEY], "y") == b"OK")
                except (RedisError, OSError, TimeoutError):
                    return False

            async def at_the_new_one() -> bool:
                return await written() and servers.master.admin.get(KEY) == b"y"

            await wait_until(at_the_new_one, within_s=20)
            print(f"written to the new master {clock.now_ms() - begun_ms:.0f} ms after it led")
