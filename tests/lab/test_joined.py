"""One planet: who has no GPU is served by who has one, and each answer says why."""

import statistics

import pytest

from netlab import names, probe
from netlab.clock import wait_until
from netlab.lab import Lab
from tests.support.joined import IDENTITY, ask, evict, route, state, wait_until_joined, wait_until_warm

pytestmark = pytest.mark.lab


def stage(answer: probe.Answer, name: str) -> str:
    """One stage of Server-Timing, in ms."""
    return answer.headers["server-timing"].split(f"{name};dur=")[1].split(",")[0]


@pytest.fixture
def planet(lab: Lab) -> Lab:
    wait_until_joined(lab)
    return lab


def test_amsterdam_has_no_gpu_and_answers_from_frankfurt(planet: Lab) -> None:
    lon = planet.city("lon")
    ask(lon, "identity", edge_force_region="eu")
    answer = ask(lon, "identity")
    assert (answer.status, answer.headers["edge-pop"]) == (200, "ams")
    assert answer.headers["edge-served-by"] == "fra-a/0"
    word, why = route(answer)
    assert (word, why["reason"]) == ("spill", "none-here")
    assert 8.0 <= float(why["score"]) < 80.0
    assert "hop;dur=" in answer.headers["server-timing"]


def test_a_forced_region_is_honoured(planet: Lab) -> None:
    nyc = planet.city("nyc")
    for region, served_by in (("eu", "fra-a/0"), ("ap", "nrt-a/0"), ("us", "iad-b/0")):
        answer = ask(nyc, "identity", edge_force_region=region)
        assert (answer.status, answer.headers.get("edge-served-by")) == (200, served_by), answer
    gone = ask(nyc, "identity", edge_force_region="mars")
    assert (gone.status, gone.headers["edge-drop-reason"]) == (503, "region-unavailable")
    assert int(gone.headers["retry-after"]) >= 1


def test_cold_near_is_served_far_at_once_and_then_comes_near(planet: Lab) -> None:
    """Issue: within 1.2 x (round trip + warm service); then a copy appears at home by itself."""
    nyc, tyo = planet.city("nyc"), planet.city("tyo")
    warm = [ask(nyc, "minilm", edge_force_region="us") for _ in range(6)]
    for far in ("nrt-a", "fra-a"):
        evict(planet, far, "minilm", disk=True)
        wait_until_warm(planet, "nrt-a", f"{far}/0", "minilm", warm=False)
    wait_until_warm(planet, "nrt-a", "iad-b/0", "minilm")
    loaded = state(planet, "nrt-a")["hydration"]["loaded"]
    service_ms = statistics.median([float(stage(answer, "infer")) for answer in warm[1:]])
    answer = ask(tyo, "minilm")
    assert (answer.status, answer.headers["edge-served-by"]) == (200, "iad-b/0"), answer.headers
    assert answer.headers["edge-residency"] == "device"
    word, why = route(answer)
    assert (word, why["reason"]) == ("spill", "cold-here")
    inside_ms = sum(float(stage(answer, name)) for name in ("route", "queue", "hydrate", "infer", "hop"))
    assert inside_ms <= 1.2 * (160.0 + service_ms), f"{inside_ms:.1f} ms; {service_ms:.1f} ms warm"
    wait_until(
        lambda: ask(tyo, "minilm").headers["edge-served-by"] == "nrt-a/0", "a copy came to nrt", within_s=30
    )
    assert state(planet, "nrt-a")["hydration"]["loaded"] == loaded + 1


def test_edge_cold_wait_stays_at_home(planet: Lab) -> None:
    tyo = planet.city("tyo")
    evict(planet, "nrt-a", "mlp")
    answer = ask(tyo, "mlp", edge_cold="wait")
    assert (answer.status, answer.headers["edge-served-by"]) == (200, "nrt-a/0")


def test_a_hop_costs_less_than_a_millisecond(planet: Lab) -> None:
    """The same request to the node that runs it, and to its neighbour that forwards it, in turns."""
    from_here, direct, forwarded = names.router("iad"), "iad-b", "iad-a"

    def took_ms(node: str) -> float:
        address = str(planet.node(node).node.v4)
        answer = probe.request(from_here, address, "POST", "/run/identity", body=IDENTITY)
        assert (answer.status, answer.headers["edge-served-by"]) == (200, "iad-b/0")
        return answer.total_ms

    took_ms(forwarded)
    more_ms: list[float] = []
    # Of 20 the quickest: a busy machine can only add. Where it adds to each of them, there are other rounds.
    while min(more_ms, default=9.0) > 1.0 and len(more_ms) < 15:
        pairs = [(took_ms(direct), took_ms(forwarded)) for _ in range(20)]
        more_ms.append(min(b for _, b in pairs) - min(a for a, _ in pairs))
    assert min(more_ms) <= 1.0, f"ms more, by round: {more_ms}"


def test_explained_from_the_shell(planet: Lab) -> None:
    answer = ask(planet.city("lon"), "identity")
    told = planet.node("ams-a").popctl("explain", answer.headers["edge-request-id"])
    assert told.returncode == 0, told.stderr
    assert "fra-a/0" in told.stdout
    assert "none-here" in told.stdout
    dry = planet.node("ams-a").popctl("explain", "--model", "identity", "--force", "ap")
    assert "nrt-a/0" in dry.stdout


def test_a_drained_node_loses_nothing_and_comes_back(planet: Lab) -> None:
    ber = planet.city("ber")
    planet.node("fra-a").drain()
    try:
        ber.wait_until_served_by("ams", within_ms=3000)
        answers = [ask(ber, "identity") for _ in range(5)]
        assert {answer.status for answer in answers} == {200}
        assert "fra-a/0" not in {answer.headers["edge-served-by"] for answer in answers}
    finally:
        planet.node("fra-a").undrain()
    ber.wait_until_served_by("fra", within_ms=5000)
