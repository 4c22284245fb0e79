"""One POP with two doors: what open connections feel when one of them leaves and comes back."""

import contextlib
from collections.abc import Iterator

import pytest

from netlab import planetfile, start
from netlab.clock import wait_until
from netlab.lab import Lab
from tests.support.flow import BROKEN, Flow
from tests.support.lab import say

pytestmark = [pytest.mark.soak, pytest.mark.usefixtures("no_lab")]

FLOWS = 24


@pytest.fixture
def ecmp() -> Iterator[Lab]:
    lab, _ = start.up(start.Wish(planet=planetfile.find("ecmp")), say)
    yield lab
    start.down()


def door(flow: Flow) -> str:
    """The node at the other end; empty where it is gone."""
    try:
        return flow.node()
    except BROKEN:
        return ""


@pytest.mark.parametrize("family", [4, 6])
def test_flows_of_the_door_that_stays_stay(ecmp: Lab, family: int) -> None:
    nyc = ecmp.city("nyc")
    with contextlib.ExitStack() as opened:
        flows = [opened.enter_context(Flow(nyc, family=family)) for _ in range(FLOWS)]
        before = [door(flow) for flow in flows]
        assert set(before) == {"iad-a", "iad-b"}
        ecmp.node("iad-a").withdraw()
        wait_until(
            lambda: {nyc.get("/pop", family=family).node for _ in range(12)} == {"iad-b"},
            "iad-b alone answers",
            within_s=20,
        )
        after = [door(flow) for flow in flows]
        assert [now for now, was in zip(after, before, strict=True) if was == "iad-b"] == [
            "iad-b"
        ] * before.count("iad-b")
        assert {now for now, was in zip(after, before, strict=True) if was == "iad-a"} == {""}, (
            "reset, not silent"
        )
    ecmp.node("iad-a").announce()
    wait_until(
        lambda: {nyc.get("/pop", family=family).node for _ in range(40)} == {"iad-a", "iad-b"},
        "both answer again",
        within_s=20,
    )
