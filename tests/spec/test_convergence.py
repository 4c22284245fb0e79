"""The convergence bench's pure parts: what a row says of its rounds, and what a flap cost."""

from types import SimpleNamespace
from typing import Any

import pytest

from netlab import planetfile
from netlab.wanwatch import Seen
from tests.bench.flaps import Flapped, judged
from tests.bench.flaps import summary as flaps_summary
from tests.bench.steady import Asked
from tests.bench.waitstable import flap_table, summary, table
from tests.support.deaths import DEATHS, WITHOUT_BFD
from tests.support.waits import Round, Waited

LAB: Any = SimpleNamespace(topology=planetfile.load(planetfile.PLANET))
BY_NAME = {death.name: death for death in (*DEATHS, *WITHOUT_BFD)}
CALM = Seen(1000, 0)


def rounds(*times: float | None, crossed: Seen = CALM) -> list[Round]:
    """Rounds in which both families waited so long."""
    return [Round([Waited(family, ms, 0, "") for family in (4, 6)], crossed) for ms in times]


@pytest.mark.parametrize(
    ("sentence", "seen", "missed", "void", "cell"),
    [
        ("within the bound and two round trips", rounds(40.0, 82.0), 0, False, "61 / 82"),
        ("one over it is a miss, in each family", rounds(40.0, 82.1), 2, False, "61 / 82"),
        ("who was never answered is a miss, and the worst", rounds(40.0, None), 2, False, "40 / none came"),
        ("nobody was", rounds(None), 2, False, "none came / none came"),
        (
            "late frames of one round void the row",
            [*rounds(40.0, crossed=Seen(100, 9)), *rounds(40.0, crossed=Seen(100, 0))],
            0,
            True,
            "40 / 40",
        ),
        ("three in a thousand are few", rounds(40.0, crossed=Seen(1000, 3)), 0, False, "40 / 40"),
    ],
)
def test_a_row_of_a_planned_withdrawal(
    sentence: str, seen: list[Round], missed: int, void: bool, cell: str
) -> None:
    row = summary(LAB, BY_NAME["withdraw"], seen)
    assert (row["missed"], row["void"]) == (missed, void), sentence
    line = table([row]).splitlines()[-1]
    assert f"| {cell} | {cell} | 50 + 2 x 16" in line
    assert (" **missed**" in line, ", void" in line) == (missed > 0, void)


def test_the_way_back_is_told_where_it_is_an_event() -> None:
    seen = [Round([Waited(4, 1.0, 0, "", back_ms=20.0), Waited(6, 1.0, 0, "", back_ms=30.0)], CALM)]
    assert "| 20 / 30 |" in table([summary(LAB, BY_NAME["withdraw"], seen)])
    assert "|  | 0 of 1000 |" in table([summary(LAB, BY_NAME["withdraw"], rounds(1.0))])


def test_where_a_model_is_asked_for_the_heir_is_the_node_that_runs_it() -> None:
    assert BY_NAME["wan-cut"].rtt_ms(LAB) == 6 + 85
    assert BY_NAME["withdraw-host"].rtt_ms(LAB) == 6 + 85
    assert BY_NAME["proxy"].rtt_ms(LAB) == 8


def test_every_event_has_a_name_of_its_own() -> None:
    assert len(BY_NAME) == len(DEATHS) + len(WITHOUT_BFD)
    assert all(death.bfd for death in DEATHS)
    assert not any(death.bfd for death in WITHOUT_BFD)


FRA, AMS, LOST = Asked("fra"), Asked("ams"), Asked("", "TimeoutError")


@pytest.mark.parametrize(
    ("sentence", "asked", "failed", "changes"),
    [
        ("nobody noticed", [FRA, FRA], 0, 0),
        ("there and back is two changes", [FRA, AMS, FRA], 0, 2),
        ("a failure between the same is no change", [FRA, LOST, FRA], 1, 0),
        ("nor does it hide one", [FRA, LOST, LOST, AMS], 2, 1),
        ("all lost", [LOST], 1, 0),
    ],
)
def test_what_a_flap_cost(sentence: str, asked: list[Asked], failed: int, changes: int) -> None:
    seen = judged(asked)
    assert (seen.asked, seen.failed, seen.changes) == (len(asked), failed, changes), sentence
    assert seen.instead == ({"TimeoutError": failed} if failed else {})


def test_flaps_are_told_by_their_median_and_worst() -> None:
    seen = [({4: Flapped(100, n, n, {}), 6: Flapped(100, 0, 0, {})}, CALM) for n in (9, 1, 2)]
    lines = flap_table(flaps_summary(seen)).splitlines()
    assert "3 times | v4 | 2.0% / 9.0% | 2 / 9 times | 0 of 3000 |" in lines[2]
    assert "| v6 | 0.0% / 0.0% | 0 / 0 times |" in lines[3]
