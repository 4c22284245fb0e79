"""A region's Redis as a Sentinel set: its master is killed, and nobody who asks for a model notices."""

from pathlib import Path

import pytest

from tests.support.failover import NODES, survives_its_master
from tests.support.redissets import sentinel_set

pytestmark = pytest.mark.soak


async def test_the_index_outlives_a_master_that_sentinels_replace(tmp_path: Path) -> None:
    with sentinel_set("eu", NODES) as servers:
        await survives_its_master(tmp_path, servers)
