"""What a node's user of Redis may do, and that the index needs no more."""

import asyncio

import pytest

from edge.weights import index as index_module
from tests.support.indexnodes import (
    NODES,
    Node,
    X,
    joined,
)
from tests.support.redis import COMMANDS, running
from tests.support.wait import wait_until


@pytest.fixture
def server():
    with running("us", NODES) as one:
        yield one


async def test_a_nodes_user_can_do_this_and_no_more(server):
    documented = {word[1:] for word in index_module.__doc__.split() if word[0] == "+"}
    assert documented == set(COMMANDS)
    async with joined(server, "iad-a", disks=[{X: 1}]):
        for command in (
            ["FLUSHALL"], ["KEYS", "*"], ["CONFIG", "GET", "*"], ["SHUTDOWN"], ["ACL", "LIST"],
            ["SCRIPT", "FLUSH"], ["CLIENT", "LIST"], ["MONITOR"], ["SAVE"], ["FUNCTION", "LIST"], ["SUBSCRIBE", "x"],
            ["XSETID", server.key("ev"), "9-9"], ["XTRIM", server.key("ev"), "MAXLEN", "0"],
            ["SET", server.key("alive:iad-b"), "b1"], ["SET", "wc:{eu}:epoch", "x"], ["GETRANGE", "wc:{eu}:epoch", "0", "9"],
            ["EVAL", "return redis.call('SET', 'wc:{eu}:epoch', 'x')", "0"],
            ["EVAL", "return redis.call('FLUSHALL')", "0"],
        ):  # fmt: skip
            denied = server.denied("iad-a", *command)
            assert "permission" in denied or "can't" in denied, command


async def test_a_user_of_another_region_gets_nothing(server):
    node = Node(server, "iad-a", region="eu")
    node.task = asyncio.get_running_loop().create_task(node.index.run())
    await wait_until(lambda: "NoPermission" in node.index.state().last_error or None)
    assert server.admin.keys() == []
    await node.stop()
