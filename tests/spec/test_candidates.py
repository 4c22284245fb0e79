"""Who is no candidate and why, and what speaks against waiting for one that is."""

from typing import Any

import pytest

from edge.policy.candidates import Scoring, below_soft, is_full, why_excluded
from edge.policy.facts import Ask, Cold, Endpoint, Live, Mode, OnDevice, Snapshot, Standing, State, Tier

DIGEST = "d" * 64
MIB = 1 << 20


def end(name: str = "fra-a/0", **more: Any) -> Endpoint:
    node = name.partition("/")[0]
    settings: dict[str, Any] = {
        "pop": node.partition("-")[0],
        "region": "eu",
        "here": False,
        "home": False,
        "state": State.UP,
        "soft_limit": 2,
        "hard_limit": 4,
        "capacity_bytes": 100 * MIB,
    }
    return Endpoint(name=name, node=node, **{**settings, **more})


def ask(**more: Any) -> Ask:
    settings: dict[str, Any] = {"model": "m", "digest": DIGEST, "deadline_ms": 10_000.0, "body_bytes": 100}
    return Ask(**{**settings, **more})


def on(**more: Any) -> dict[str, OnDevice]:
    return {DIGEST: OnDevice(**more)}


EXCLUDED = [
    ("a candidate", ask(), end(), ""),
    ("forwarded to this node", ask(hops=1), end(here=True), ""),
    ("forwarded to this node, which never forwards", ask(hops=1), end(), "forwarded-once"),
    ("its node failed the request", ask(tried=frozenset({"fra-a"})), end(), "tried"),
    ("it failed the request", ask(tried=frozenset({"fra-a/0"})), end(), "tried"),
    ("its sibling did", ask(tried=frozenset({"fra-a/1"})), end(), ""),
    ("outside the model's regions", ask(confine=frozenset({"us"})), end(), "confined"),
    ("outside the region that is demanded", ask(force=frozenset({"us"})), end(), "not-forced"),
    ("in the POP that is demanded", ask(force=frozenset({"fra"})), end(), ""),
    ("no link", ask(), end(linked=False), "no-link"),
    ("its worker starts", ask(), end(state=State.STARTING), "starting"),
    ("its worker is down", ask(), end(state=State.DOWN), "down"),
    ("given up", ask(), end(standing=Standing.OUT), "out"),
    ("silent for a while", ask(), end(standing=Standing.SUSPECT), ""),
    ("it drains", ask(), end(standing=Standing.DRAINING), "draining"),
    ("it drains, which the ingress did not know", ask(hops=1), end(here=True, standing=Standing.DRAINING), ""),
    ("larger than the device", ask(weights_bytes=101 * MIB), end(), "too-small"),
    ("larger than the device, it seems, and there", ask(weights_bytes=101 * MIB), end(models=on()), ""),
    ("of a device whose size is not known", ask(weights_bytes=101 * MIB), end(capacity_bytes=0), ""),
    ("at its hard limit", ask(), end(in_flight=3, live=Live(1, 1)), "full"),
    ("one below", ask(), end(in_flight=3, live=Live(1, 0)), ""),
    ("only a warm one will do", ask(cold=Cold.REJECT), end(), "cold"),
    ("one that is loaded now is not warm", ask(cold=Cold.REJECT), end(models=on(eta_ms=1.0)), "cold"),
    ("one that is", ask(cold=Cold.REJECT), end(models=on()), ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("wish", "endpoint", "why"), [row[1:] for row in EXCLUDED], ids=[row[0] for row in EXCLUDED]
)
def test_excluded(wish: Ask, endpoint: Endpoint, why: str) -> None:
    assert why_excluded(endpoint, wish) == why


@pytest.mark.parametrize(("running", "soft", "full"), [(1, True, False), (2, False, False), (4, False, True)])
def test_limits(running: int, soft: bool, full: bool) -> None:
    assert (below_soft(end(in_flight=running)), is_full(end(in_flight=running))) == (soft, full)


WARM = end("nrt-a/0", models=on(), home=False)
COLD = end(held={DIGEST: Tier.DISK})
CROWDED = end(held={DIGEST: Tier.DISK}, used_bytes=90 * MIB)
TEN, ELEVEN = ask(weights_bytes=10 * MIB), ask(weights_bytes=11 * MIB)

UNFIT = [
    ("idle and warm", TEN, WARM, [], ""),
    ("the way there and back takes all the time there is", ask(deadline_ms=90.0), end(models=on(), rtt_ms=90.0), [], "too-far"),
    ("a little less", ask(deadline_ms=90.1), end(models=on(), rtt_ms=90.0), [], ""),
    ("who is asked over the mesh is where it is", ask(hops=1, deadline_ms=1.0), end(models=on(), here=True, rtt_ms=90.0), [], ""),
    ("others would have to leave, and the warm one is too far", ask(weights_bytes=11 * MIB, deadline_ms=5_000.0), CROWDED,
     [end("nrt-a/0", models=on(), home=False, rtt_ms=5_000.0)], ""),
    ("as long a queue as is allowed", TEN, end(models=on(), queued_ms=2_000.0), [], ""),
    ("a longer one", TEN, end(models=on(), queued_ms=2_001.0), [], "wait-too-long"),
    ("longer than the deadline", ask(deadline_ms=500.0), end(models=on(), queued_ms=501.0), [], "wait-too-long"),
    ("forwarded to a queue that is too long", ask(hops=1), end(models=on(), here=True, queued_ms=2_001.0), [], "wait-too-long"),
    ("a load within its budget", TEN, COLD, [], ""),
    ("a load beyond it", ask(deadline_ms=60_000.0), end(loader_wait_ms=30_000.0), [], "load-too-long"),
    ("a load beyond the deadline", ask(deadline_ms=40.0), COLD, [], "load-too-long"),
    ("a load that the ingress decided", ask(hops=1, deadline_ms=40.0), end(here=True), [], ""),
    ("on its way, later than the deadline", ask(deadline_ms=40.0), end(models=on(eta_ms=50.0)), [], "load-too-long"),
    ("it just fits beside the others", TEN, CROWDED, [WARM], ""),
    ("others would have to leave, and a warm one will do", ELEVEN, CROWDED, [WARM], "drives-out"),
    ("others would have to leave, and nobody has it", ELEVEN, CROWDED, [], ""),
    ("somebody has it soon, which is no answer now", ELEVEN, CROWDED, [end("nrt-a/0", models=on(eta_ms=9.0))], ""),
    ("who has it is full", ELEVEN, CROWDED, [end("nrt-a/0", models=on(), in_flight=4)], ""),
    ("who has it lets nobody in so soon", ELEVEN, CROWDED, [end("nrt-a/0", models=on(), queued_ms=2_001.0)], ""),
    ("who has it is outside, and nobody may leave", ELEVEN, CROWDED, [WARM, Mode.NEVER], ""),
    ("one of two has it for the asking", ELEVEN, CROWDED, [end("iad-a/0", models=on(), in_flight=4), WARM], "drives-out"),
    ("who has it says that it takes more", TEN, CROWDED, [end("nrt-a/0", models=on(device_bytes=11 * MIB))], "drives-out"),
    ("a device whose size is not known", ELEVEN, end(held={DIGEST: Tier.DISK}, capacity_bytes=0), [WARM], ""),
    ("the client waits", ask(weights_bytes=11 * MIB, cold=Cold.WAIT), CROWDED, [WARM], ""),
    ("the ingress decided it", ask(weights_bytes=11 * MIB, hops=1), end(here=True, used_bytes=90 * MIB), [WARM], ""),
    ("it is on its way there already", ELEVEN, end(models=on(eta_ms=9.0), used_bytes=90 * MIB), [WARM], ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("wish", "endpoint", "others", "why"), [row[1:] for row in UNFIT], ids=[row[0] for row in UNFIT]
)
def test_unfit(wish: Ask, endpoint: Endpoint, others: list[Any], why: str) -> None:
    mode = Mode.NEVER if Mode.NEVER in others else Mode.PREDICTED
    ends = (endpoint, *[other for other in others if isinstance(other, Endpoint)])
    scoring = Scoring(wish, Snapshot(now_ms=0.0, endpoints=ends, mode=mode))
    assert scoring.why_unfit(scoring.row(endpoint)) == why


def test_a_row_is_the_sum_of_its_terms() -> None:
    scoring = Scoring(ask(), Snapshot(now_ms=0.0, endpoints=(COLD, WARM)))
    for total_ms, endpoint, found in scoring.rows((COLD, WARM)):
        assert total_ms == pytest.approx(found.total)
        assert endpoint in (COLD, WARM)


def test_where_things_are() -> None:
    scoring = Scoring(ask(), Snapshot(now_ms=0.0, endpoints=(COLD, WARM, end("iad-a/0", region="us"))))
    assert scoring.having() == [WARM]
    assert scoring.holding() == {"eu"}
