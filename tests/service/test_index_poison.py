"""The region's index against a Redis into which somebody writes whatever can be written."""

import pytest

from edge.weights.index import Holder
from tests.support.indexnodes import ADDRESSES, MIB, NODES, X, Y, Z, joined, two_with_x, whole_again
from tests.support.redis import running


@pytest.fixture
def server():
    with running("us", NODES) as one:
        yield one


@pytest.fixture
async def pair(server):
    """iad-b has X, iad-a knows it."""
    async with two_with_x(server) as nodes:
        yield nodes


def poison(server):
    """Everything that one who may write could leave in the index, keys of living nodes included."""
    admin, key = server.admin, server.key
    big, lying = b"x" * MIB, {"boot": "b1", "blobs": "169.254.169.254:80", "bytes": "-5"}
    epoch = admin.get(key("epoch")).decode()

    def say(**fields):
        return lambda: admin.xadd(
            key("ev"), {"epoch": epoch, "node": "iad-b", "digest": Y, "state": "here", **fields}
        )

    return {
        "a node whose name is not UTF-8": lambda: admin.hset(
            key("node:").encode() + b"\xff\xfe", mapping=lying
        ),
        "a node whose name has a newline": lambda: admin.hset(key("node:iad\nx"), mapping=lying),
        "a node called ../etc": lambda: admin.hset(key("node:../etc"), mapping=lying),
        "an address that is a lie": lambda: admin.hset(key("node:iad-c"), mapping=lying),
        "a living node's address is a lie": lambda: admin.hset(key("node:iad-b"), mapping=lying),
        "an address of 1 MiB": lambda: admin.hset(key("node:iad-d"), mapping={"boot": "b1", "blobs": big}),
        "a node that is a list": lambda: admin.rpush(key("node:iad-e"), "x"),
        "a key of 1 MiB": lambda: admin.set(key("loc:").encode() + big, "x"),
        "a location that is a string of 1 MiB": lambda: admin.set(key(f"loc:{Y}"), big),
        "a good location turned into a set": lambda: (
            admin.delete(key(f"loc:{X}")),
            admin.sadd(key(f"loc:{X}"), "x"),
        ),
        "a digest in upper case": lambda: admin.hset(key(f"loc:{X.upper()}"), "iad-b", "b1"),
        "a digest that is too short": lambda: admin.hset(key("loc:abc"), "iad-b", "b1"),
        "a digest with a path": lambda: admin.hset(key("loc:../../etc/passwd"), "iad-b", "b1"),
        "a holder that is not UTF-8": lambda: admin.hset(key(f"loc:{Z}"), b"\xff", "b1"),
        "a holder of 1 MiB": lambda: admin.hset(key(f"loc:{Z}"), big, "b1"),
        "a boot of 1 MiB": lambda: admin.hset(key(f"loc:{'d' * 64}"), "iad-b", big),
        "10,000 holders": lambda: admin.hset(
            key(f"loc:{'e' * 64}"), mapping={f"n{i}": "b1" for i in range(10_000)}
        ),
        "a key of no known kind": lambda: admin.set(key("zzz"), "x"),
        "a living node's list is a string": lambda: admin.set(key("have:iad-b"), "x"),
        "a living node's list has strangers": lambda: admin.sadd(key("have:iad-a"), "../x", big, Z),
        "an event from the future": say(state="warmed"),
        "an event in another epoch": say(epoch="f" * 32),
        "an event of a digest in upper case": say(digest=Y.upper()),
        "an event of a node with a newline": say(node="iad-b\nx"),
        "an event that is not UTF-8": say(node=b"\xff\xfe"),
        "an event of 1 MiB": say(digest=big),
        "an event of 100 fields": say(**{f"f{i}": "x" for i in range(100)}),
        "an event with nothing in it": lambda: admin.xadd(key("ev"), {"": ""}),
        "an event that takes away what is there": say(digest=X, state="gone", node="iad-c"),
        "an event of size -1": say(size="-1", state="here-1"),
        "a sign of life that is a list": lambda: (
            admin.delete(key("alive:iad-c")),
            admin.rpush(key("alive:iad-c"), "x"),
        ),
        "an epoch that is none": lambda: admin.set(key("epoch"), b"\xff" * 32),
        "an epoch that is a list": lambda: (admin.delete(key("epoch")), admin.rpush(key("epoch"), "x")),
        "a Stream that is a string": lambda: (admin.delete(key("ev")), admin.set(key("ev"), "x")),
        "a Stream at its last number": lambda: (
            admin.delete(key("ev")),
            admin.xadd(key("ev"), {"a": "b"}, id="18446744073709551615-18446744073709551615"),
        ),
    }


async def test_poison_changes_nothing_and_is_counted(server, pair):
    """After each poison the last good holder is still there, and the index still works."""
    a, b = pair
    count = len(poison(server))
    assert count >= 20
    for number, name in enumerate(poison(server)):
        poison(server)[name]()
        digest = f"{number + 1:064x}"
        b.put(digest)
        try:
            await a.until(digest, "iad-b")
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
        assert a.names(X) == ["iad-b"], name
        assert a.index.holders(X) == (Holder("iad-b", ADDRESSES["iad-b"]),), name
    assert a.index.state().refused >= 10
    await whole_again(server, a, b)
    print(f"{count} poisoned entries: {a.index.state().refused} refused")


async def test_a_node_that_starts_among_poison_reads_what_is_good(server, pair):
    a, b = pair
    for name, write in poison(server).items():
        if not name.startswith(("an epoch", "a Stream", "a good location")):
            write()
    async with joined(server, "iad-c") as (c,):
        await c.until(X, "iad-b")
        assert c.index.state().refused >= 10
        assert set(c.index.nodes()) == set(NODES)
        assert not a.task.done()
        assert not b.task.done()
