"""The planet with real nodes: one address, and answers from the nearest POP."""

import json

import pytest

from netlab.handles import User
from netlab.lab import Lab
from tests.support.lab import poplab

pytestmark = pytest.mark.lab

FAMILIES = (4, 6)
TEXT = "How do I reach the nearest GPU?"


def embedding(user: User, family: int) -> tuple[str, list[float]]:
    """(who served, the vector), by a node of the POP even if it has to load the model first."""
    answer = user.post("/run/minilm", TEXT, family=family, edge_cold="wait")
    assert answer.status == 200, answer.text
    return answer.headers["edge-served-by"], answer.json["embedding"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("city", "server"), [("nyc", "iad-b/0"), ("ber", "fra-a/0"), ("syd", "nrt-a/0")])
def test_the_nearest_pop_answers_with_its_own_worker(lab: Lab, city: str, server: str, family: int) -> None:
    served_by, vector = embedding(lab.city(city), family)
    assert served_by == server
    assert len(vector) == 384


@pytest.mark.parametrize("family", FAMILIES)
def test_this_machine_gets_an_answer(lab: Lab, family: int) -> None:
    served_by, vector = embedding(lab.host, family)
    assert served_by == "iad-b/0"
    assert len(vector) == 384


def test_a_pop_without_a_worker_answers_from_the_nearest_that_has_one(lab: Lab) -> None:
    embedding(lab.city("ber"), 4)
    answer = lab.city("lon").post("/run/minilm", TEXT)
    assert (answer.status, answer.pop, answer.headers["edge-served-by"]) == (200, "ams", "fra-a/0")
    assert answer.headers["edge-route"].startswith("spill;")


def test_popctl_speaks_to_the_node_where_it_stands(lab: Lab) -> None:
    told = lab.node("fra-a").popctl("status", "--json")
    assert (told.returncode, json.loads(told.stdout)["node"]) == (0, "fra-a"), told.stderr
    wrong = lab.node("fra-a").popctl("no-such-verb")
    assert (wrong.returncode, wrong.stdout) == (2, "")


def test_every_role_of_a_node_is_found(lab: Lab) -> None:
    roles = [member.role for member in lab.node("fra-a").members()]
    assert sorted(roles) == ["bird", "guard", "parent", "proxy", "redis", "weights", "worker"]
    assert sorted(member.role for member in lab.node("iad-b").members()) == [
        "parent",
        "proxy",
        "weights",
        "worker",
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_withdrawn_pop_loses_its_catchment(lab: Lab, family: int) -> None:
    ber = lab.city("ber")
    assert ber.get("/pop", family=family).pop == "fra"
    lab.pop("fra").withdraw()
    try:
        ber.wait_until_served_by("ams", within_ms=500, family=family)
        assert lab.node("fra-a").announced() == []
    finally:
        lab.pop("fra").announce()
    ber.wait_until_served_by("fra", within_ms=2500, family=family)


def test_a_second_up_says_so(lab: Lab) -> None:
    again = poplab("up")
    assert again.returncode == 0, again.stderr
    assert "runs already" in again.stderr
    assert lab.dead() == []
