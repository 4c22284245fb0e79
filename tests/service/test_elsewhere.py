"""What a node does for another that asks it to bring a model, and what it does not."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from edge.errors import EdgeError, Reason
from edge.fleet.snapshot import Fleet
from edge.proxy.acts import Act
from edge.proxy.elsewhere import MAX_BRINGS, Elsewhere
from edge.wire import calls
from tests.support.facts import a_node
from tests.support.wait import wait_until

DIGEST = "d" * 64


class Slow:
    """Acts whose prefetch waits until it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.running = 0

    async def prefetch(self, digest: str, tier: str, **_: Any) -> Act:
        assert (digest, tier) == (DIGEST, "disk")
        self.running += 1
        await self.go.wait()
        return Act(digest, "disk", "on-disk", (), "origin", 7, ms=5.0)


def elsewhere(acts: Slow) -> Elsewhere:
    fleet = Fleet(a_node("iad-a"), changed=lambda: None)
    models: Any = SimpleNamespace(of_digest=lambda digest: digest if digest == DIGEST else None)
    return Elsewhere("iad-a", acts, models, fleet, {})  # type: ignore[arg-type] # stands for Acts


async def test_it_is_brought_and_told() -> None:
    acts = Slow()
    acts.go.set()
    told = await elsewhere(acts).asked(calls.Ensure(DIGEST, hold=False))
    assert (told.residency, told.moved_bytes, told.hydrate_ms) == ("origin", 7, 5.0)


@pytest.mark.parametrize(
    ("sentence", "call", "reason"),
    [
        ("a hold is not given", calls.Ensure(DIGEST), Reason.PROTOCOL),
        ("what no catalogue names is not brought", calls.Ensure("e" * 64, hold=False), Reason.UNKNOWN_MODEL),
        ("nor what is no digest", calls.Ensure("../" * 999, hold=False), Reason.UNKNOWN_MODEL),
    ],
)
async def test_what_is_refused(sentence: str, call: calls.Ensure, reason: Reason) -> None:
    acts = Slow()
    acts.go.set()
    with pytest.raises(EdgeError) as caught:
        await elsewhere(acts).asked(call)
    assert (caught.value.reason, len(caught.value.message) < 200) == (reason, True), sentence


async def test_so_many_at_once_and_then_again() -> None:
    acts = Slow()
    node = elsewhere(acts)
    running = [
        asyncio.get_running_loop().create_task(node.asked(calls.Ensure(DIGEST, hold=False)))
        for _ in range(MAX_BRINGS)
    ]
    await wait_until(lambda: acts.running == MAX_BRINGS)
    with pytest.raises(EdgeError) as caught:
        await node.asked(calls.Ensure(DIGEST, hold=False))
    assert (caught.value.reason, caught.value.retryable) == (Reason.BUSY, True)
    acts.go.set()
    await asyncio.gather(*running)
    assert (await node.asked(calls.Ensure(DIGEST, hold=False))).moved_bytes == 7


async def test_who_asks_and_leaves_makes_no_room_for_more() -> None:
    acts = Slow()
    node = elsewhere(acts)
    call = calls.Ensure(DIGEST, hold=False)
    asking = [asyncio.get_running_loop().create_task(node.asked(call)) for _ in range(MAX_BRINGS)]
    await wait_until(lambda: acts.running == MAX_BRINGS)
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)
    with pytest.raises(EdgeError, match="for others already"):
        async with asyncio.timeout(5.0):
            await node.asked(call)
    acts.go.set()
    await wait_until(lambda: not node._bringing)
    assert (await node.asked(call)).moved_bytes == 7


async def test_one_node_that_can_not_does_not_keep_others_from_it() -> None:
    acts = Slow()
    acts.go.set()
    node = elsewhere(acts)
    assert node.chosen(("iad-a",), "us") == ("iad-a",)
    for nodes, region in ((("moon",), ""), ((), "moon")):
        with pytest.raises(EdgeError, match="moon"):
            node.chosen(nodes, region)
    (row,) = await node.bring(DIGEST, ("iad-a",))
    assert (row["node"], row["outcome"], row["moved_bytes"]) == ("iad-a", "on-disk", 7)
