"""When a fault was felt, and by whom."""

import pytest

from netlab import chaosblame, planetfile
from netlab.chaosblame import Blame, Window, windows
from netlab.chaoshistory import Event

PLANET = planetfile.load(planetfile.PLANET)
NEVER = float("inf")


def deed(t: float, what: str, target: str = "fra-a", kind: str = "node", how: str = "kill") -> Event:
    return Event(t=t, at="chaos", what=what, target=target, kind=kind, how=how)


SETTLED = 20.0 + chaosblame.SETTLE_S["node"]


@pytest.mark.parametrize(
    ("sentence", "events", "felt"),
    [
        ("none", [], []),
        ("healed", [deed(10, "breaking"), deed(19, "healing"), deed(20, "healed")], [(10, SETTLED)]),
        ("never healed", [deed(10, "breaking"), deed(19, "healing")], [(10, NEVER)]),
        ("twice", [deed(10, "breaking"), deed(20, "healed"), deed(50, "breaking")], [(10, SETTLED), (50, NEVER)]),
        ("out of order", [deed(20, "healed"), deed(10, "breaking")], [(10, SETTLED)]),
        ("a drain is felt from its end on",
         [deed(10, "breaking", how="drain"), deed(19, "healing", how="drain"), deed(20, "healed", how="drain")],
         [(19, SETTLED)]),
        ("and in the moment of its withdrawal",
         [deed(10, "breaking", how="drain"), deed(12, "broken", how="drain")],
         [(11.5, 12.5)]),
        ("a drain without end", [deed(10, "breaking", how="drain")], []),
    ],
)  # fmt: skip
def test_windows(sentence: str, events: list[Event], felt: list[tuple[float, float]]) -> None:
    assert [(window.from_s, window.until_s) for window in windows(events)] == felt, sentence


def window(target: str, kind: str, how: str) -> Window:
    return Window(target=target, kind=kind, how=how, from_s=10.0, healed_s=20.0, until_s=30.0)


@pytest.mark.parametrize(
    ("sentence", "felt", "cities"),
    [
        ("an ingress", [window("fra-a", "node", "kill")], {"ber"}),
        ("a worker node without a door", [window("iad-b", "node", "kill")], set()),
        ("a router's BIRD", [window("r-nrt/bird", "bird", "stop")], {"tyo", "syd"}),
        ("a node's BIRD", [window("ams-a/bird", "bird", "stop")], {"lon"}),
        ("a link between POPs that serve their own", [window("iad-fra", "link", "cut")], set()),
        ("the origin", [window("origin", "origin", "kill")], set()),
        ("a worker", [window("fra-a/worker", "worker", "kill")], set()),
    ],
)
def test_who_is_touched(sentence: str, felt: list[Window], cities: set[str]) -> None:
    blame = Blame(PLANET, felt)
    touched = {city.name for city in PLANET.cities if blame.explains(city.name, "reset", 15.0, 16.0)}
    assert touched == cities, sentence
    assert not blame.quiet(15.0, 16.0)
    assert blame.quiet(31.0, 32.0)
