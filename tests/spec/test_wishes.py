"""What a client's headers mean, and what is refused."""

import pytest

from edge.errors import EdgeError, Reason
from edge.http.headers import Headers
from edge.policy.facts import Cold
from edge.proxy.wishes import MAX_PLACES, Wishes, read


def wishes(**headers: str) -> Wishes:
    named = {name.replace("_", "-"): (value,) for name, value in headers.items()}
    return read(Headers(named), deadline_ms=30_000, max_deadline_ms=60_000)


@pytest.mark.parametrize(
    ("sentence", "headers", "field", "expected"),
    [
        ("nothing is asked", {}, "deadline_ms", 30_000),
        ("a deadline", {"edge_deadline_ms": "250"}, "deadline_ms", 250),
        ("a deadline above the node's own", {"edge_deadline_ms": "999999999"}, "deadline_ms", 60_000),
        ("one region", {"edge_force_region": "eu"}, "force", frozenset({"eu"})),
        ("regions in order", {"edge_prefer_region": "eu, us"}, "prefer", ("eu", "us")),
        ("any ends the list", {"edge_prefer_region": "eu,any,us"}, "prefer", ("eu",)),
        ("any alone is no wish", {"edge_force_region": "any"}, "force", frozenset()),
        ("cold: wait", {"edge_cold": "wait"}, "cold", Cold.WAIT),
        ("a structured boolean", {"edge_reject_if_busy": "?1"}, "reject_if_busy", True),
        ("a plain one", {"edge_reject_if_busy": "False"}, "reject_if_busy", False),
    ],
)
def test_read(sentence: str, headers: dict[str, str], field: str, expected: object) -> None:
    assert getattr(wishes(**headers), field) == expected, sentence


def test_a_session_is_a_number_that_stays_the_same() -> None:
    assert wishes(edge_session="anna").session == wishes(edge_session="anna").session
    assert wishes(edge_session="anna").session != wishes(edge_session="bert").session


@pytest.mark.parametrize(
    ("sentence", "headers", "names"),
    [
        ("no number", {"edge_deadline_ms": "soon"}, "Edge-Deadline-Ms"),
        ("less than nothing", {"edge_deadline_ms": "-1"}, "Edge-Deadline-Ms"),
        ("nothing", {"edge_deadline_ms": "0"}, "Edge-Deadline-Ms"),
        ("a number without end", {"edge_deadline_ms": "9" * 400}, "Edge-Deadline-Ms"),
        ("other digits", {"edge_deadline_ms": "\u0661"}, "Edge-Deadline-Ms"),
        ("an empty region", {"edge_force_region": "eu,,us"}, "Edge-Force-Region"),
        ("a path", {"edge_force_region": "../eu"}, "Edge-Force-Region"),
        ("too many", {"edge_prefer_region": ",".join(["eu"] * (MAX_PLACES + 1))}, "Edge-Prefer-Region"),
        ("no such word", {"edge_cold": "lukewarm"}, "Edge-Cold"),
        ("no boolean", {"edge_reject_if_busy": "maybe"}, "Edge-Reject-If-Busy"),
        ("a session with a blank", {"edge_session": "a b"}, "Edge-Session"),
        ("a session that is a book", {"edge_session": "x" * 257}, "Edge-Session"),
    ],
)
def test_refused_by_name(sentence: str, headers: dict[str, str], names: str) -> None:
    with pytest.raises(EdgeError, match=names) as refused:
        wishes(**headers)
    assert refused.value.reason is Reason.BAD_REQUEST, sentence
