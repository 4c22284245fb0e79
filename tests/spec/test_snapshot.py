"""The fleet counts, freezes, and tells waiters that something changed."""

import pytest

from edge.fleet.snapshot import EndpointState, Fleet
from edge.policy.facts import State


@pytest.fixture
def heard():
    return []


@pytest.fixture
def fleet(heard):
    made = Fleet(max_waiting=5, max_wait_ms=2000.0, max_cold_wait_ms=30_000.0)
    made.add(
        EndpointState(
            "n/0",
            home=True,
            soft_limit=2,
            hard_limit=4,
            capacity_freed=lambda: heard.append("freed"),
            changed=lambda: heard.append("changed"),
        )
    )
    return made


def test_a_snapshot_does_not_move_when_the_fleet_does(fleet):
    endpoint = fleet.endpoints["n/0"]
    endpoint.set_state(State.UP)
    endpoint.warm.add("d1")
    before = fleet.current("d1")
    endpoint.begin()
    fleet.waiting += 1
    assert (before.endpoints[0].in_flight, before.waiting, before.endpoints[0].warm) == (0, 0, True)
    now = fleet.current("d2")
    assert (now.endpoints[0].in_flight, now.waiting, now.endpoints[0].warm) == (1, 1, False)


def test_service_time_is_learned_from_successes_only(fleet):
    endpoint = fleet.endpoints["n/0"]
    for service_ms in (100.0, None, 200.0):
        endpoint.begin()
        endpoint.end(service_ms)
    assert endpoint.service_ms == pytest.approx(110.0)
    assert endpoint.in_flight == 0


def test_what_is_lost_is_no_longer_warm(fleet, heard):
    endpoint = fleet.endpoints["n/0"]
    endpoint.set_state(State.UP)
    endpoint.warm.add("d1")
    endpoint.set_state(State.STARTING)
    assert not fleet.current("d1").endpoints[0].warm
    assert heard == ["changed", "changed"]


def test_names_are_unique(fleet):
    with pytest.raises(ValueError, match="n/0"):
        fleet.add(fleet.endpoints["n/0"])


def test_repr_fits_one_line(fleet):
    assert repr(fleet) == "<Fleet n/0 down 0/4; 0 waiting>"
