"""The planet with real nodes: one address, and answers from the nearest POP."""

import json

import pytest

from netlab.clock import DeadlineMissed, wait_until
from netlab.handles import User
from netlab.lab import Lab
from netlab.probe import Answer
from tests.support.lab import poplab

pytestmark = pytest.mark.lab

FAMILIES = (4, 6)
TEXT = "How do I reach the nearest GPU?"


#: A node that met wrong bytes in the origin does not ask for them again for half a minute.
FORGOTTEN_S = 40.0


def embedding(lab: Lab, user: User, family: int, server: str) -> list[float]:
    """The vector, by that worker even if it has to load the model first."""
    said: list[Answer] = []

    def served() -> Answer | None:
        answer = user.post("/run/minilm", TEXT, family=family, edge_cold="wait")
        assert answer.status == 200, answer.text
        said.append(answer)
        return answer if answer.headers["edge-served-by"] == server else None

    try:
        found = wait_until(served, f"{user.name} is served by {server}", within_s=FORGOTTEN_S, every_s=0.5)
    except DeadlineMissed:
        last = said[-1].headers
        ingress = lab.node(server.rpartition("/")[0])
        raise AssertionError(
            (dict(last), ingress.popctl("explain", last["edge-request-id"]).stdout)
        ) from None
    assert found
    vector: list[float] = found.json["embedding"]
    return vector


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("city", "server"), [("nyc", "iad-b/0"), ("ber", "fra-a/0"), ("syd", "nrt-a/0")])
def test_the_nearest_pop_answers_with_its_own_worker(lab: Lab, city: str, server: str, family: int) -> None:
    assert len(embedding(lab, lab.city(city), family, server)) == 384


@pytest.mark.parametrize("family", FAMILIES)
def test_this_machine_gets_an_answer(lab: Lab, family: int) -> None:
    assert len(embedding(lab, lab.host, family, "iad-b/0")) == 384


def test_a_pop_without_a_worker_answers_from_the_nearest_that_has_one(lab: Lab) -> None:
    embedding(lab, lab.city("ber"), 4, "fra-a/0")
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
