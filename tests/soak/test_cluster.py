"""A region's Redis as a cluster: all its keys lie in one slot, and the master of that slot is killed."""

from pathlib import Path

import pytest

from tests.support.failover import NODES, survives_its_master
from tests.support.redissets import cluster

pytestmark = pytest.mark.soak


async def test_the_index_outlives_the_master_of_its_slot(tmp_path: Path) -> None:
    with cluster("eu", NODES) as servers:
        await survives_its_master(tmp_path, servers)
        slots = {
            server.admin.cluster("keyslot", key)
            for server in servers.servers
            if server.is_master()
            for key in server.admin.scan_iter()
        }
        assert len(slots) == 1
