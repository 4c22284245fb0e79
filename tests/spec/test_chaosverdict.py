"""What a chaos run forbids is found, what it allows is not: small histories on the planet."""

import msgspec
import pytest

from netlab import chaosverdict, planetfile
from netlab.chaoshistory import Event
from netlab.chaosverdict import Verdict, judge

PLANET = planetfile.load(planetfile.PLANET)


def asked(at: str = "ber", t: float = 100.0, **rest: str) -> Event:
    return Event(t=t, at=at, what="asked", id="r1", model="identity", **rest)


def ended(
    outcome: str, t: float = 100.5, *, at: str = "ber", retry_after: bool = False, **rest: str
) -> Event:
    return Event(t=t, at=at, what="ended", id="r1", outcome=outcome, retry_after=retry_after, **rest)


def fault(target: str, kind: str, how: str, from_s: float, healed_s: float | None = None) -> list[Event]:
    words = {"at": "chaos", "target": target, "kind": kind, "how": how}
    events = [Event(t=from_s, what="breaking", **words)]
    return events + ([Event(t=healed_s, what="healed", **words)] if healed_s is not None else [])


def record(what: str, at: str = "fra-a/worker-0", request: str = "r1") -> Event:
    return Event(t=100.1, at=at, what=what, id=request)


def said(what: str, t: float) -> Event:
    return Event(t=t, at="chaos", what=what, target="iad-b", kind="node", how="full", text="no room")


HEAL_REFUSED = [said("breaking", 50.0), said("broken", 50.1), said("healing", 51.0), said("refused", 52.0)]
FRA_DEAD = fault("fra-a", "node", "kill", 99.0, 103.0)
#: (what happened, the events, what the verdict says of it; empty: allowed)
CASES = [
    ("a right answer", [asked(), record("taken"), ended("200")], ""),
    ("full, and told when to come again", [asked(), ended("429", reason="saturated", retry_after=True)], ""),
    ("nobody can", [asked(), ended("503", reason="no-endpoint", retry_after=True)], ""),
    ("too late", [asked(), ended("504", reason="deadline")], ""),
    ("a refusal without a word", [asked(), ended("503", retry_after=True)], "503 without Edge-Drop-Reason"),
    ("no word of coming again", [asked(), ended("429", reason="busy")], "429 without Retry-After"),
    ("a wrong body", [asked(), ended("200", wrong="another body")], "200: another body"),
    ("a loop", [asked(), ended("508", reason="loop")], "508 loop, which is never allowed"),
    ("our own bug", [asked(), ended("500", reason="internal")], "500 internal, which is never allowed"),
    ("a bad request, though it was none", [asked(), ended("400")], "400, which is never allowed"),
    ("two ends", [asked(), ended("200"), ended("200", 100.6)], "2 ends"),
    ("no end", [asked()], "0 ends"),
    ("one id twice", [asked(), asked(t=100.1), ended("200")], "asked twice"),
    ("two answers on the wire", [asked(), ended("200"), record("surplus", "ber")], "bytes behind its answer"),
    ("three tries", [asked(), *[record("taken")] * 3, ended("200")], ""),
    ("a fourth", [asked(), *[record("taken")] * 4, ended("200")], "taken 4 times"),
    ("sent on and on", [asked(), *[record("forwarded")] * 4, ended("200")], "forwarded 4 times"),
    ("nobody's request", [asked(), ended("200"), record("taken", request="r2")], "a node knows of a request that nobody made"),
    ("not well at the end", [asked(), ended("200"), Event(t=1.0, at="chaos", what="unwell", text="iad-a is down")], "iad-a is down"),
    ("no end of patience", [asked(), record("taken"), ended("200", 107.2)], "right after 7.2 s, past its deadline, and nothing on ber's way explains it"),
    ("that its POP slept through", [*FRA_DEAD, asked(), record("taken"), ended("200", 107.2)], ""),
    (
        "back to where it came from",
        [asked(), record("answered", "fra-a/proxy"), record("forwarded", "fra-a/proxy"), ended("200")],
        "forwarded to the node where it entered",
    ),
    ("on to another node", [asked(), record("answered", "fra-a/proxy"), record("forwarded", "iad-b/proxy"), ended("200")], ""),
    (
        "what could not be done, and the rest could not either",
        [asked(), ended("200"), said("breaking", 50.0), said("refused", 50.1), said("healing", 51.0), said("healed", 51.1)],
        "no fault of the schedule could be done",
    ),
    (
        "what nobody could heal",
        [asked(), ended("200"), *HEAL_REFUSED],
        "iad-b full could not be healed: no room",
    ),
    ("what was healed at the second try", [asked(), ended("200"), *HEAL_REFUSED, said("healing", 60.0), said("healed", 61.0)], ""),
    ("reset while its POP is dead", [*FRA_DEAD, asked(), ended("reset")], ""),
    ("refused while it comes back", [*FRA_DEAD, asked(t=110.0), ended("refused", 110.1)], ""),
    ("a fault that nobody healed", [*fault("fra-a", "node", "stop", 50.0), asked(), ended("late", 110.0)], ""),
    (
        "refused though the socket outlives the proxy",
        [*fault("fra-a/proxy", "proxy", "kill", 99.0, 101.0), asked(), ended("refused")],
        "refused, and nothing on ber's way explains it",
    ),
    (
        "reset long after",
        [*FRA_DEAD, asked(t=140.0), ended("reset", 140.1)],
        "reset, and nothing on ber's way explains it",
    ),
    ("reset out of the blue", [asked(), ended("reset")], "reset, and nothing on ber's way explains it"),
    (
        "reset in Tokyo while Frankfurt is dead",
        [*FRA_DEAD, asked("tyo"), ended("reset", at="tyo")],
        "reset, and nothing on tyo's way explains it",
    ),
    (
        "a dead Redis is nobody's excuse",
        [*fault("redis/eu", "redis", "kill", 99.0, 101.0), asked(), ended("closed")],
        "closed, and nothing on ber's way explains it",
    ),
    (
        "nor is a dead worker",
        [*fault("fra-a/worker", "worker", "kill", 99.0, 101.0), asked(), ended("truncated")],
        "truncated, and nothing on ber's way explains it",
    ),
    (
        "a link that nobody of the city uses",
        [*fault("iad-nrt", "link", "cut", 99.0, 101.0), asked(), ended("late")],
        "late, and nothing on ber's way explains it",
    ),
    ("its router's BIRD", [*fault("r-fra/bird", "bird", "kill", 99.0, 101.0), asked(), ended("reset")], ""),
    (
        "a node without a door",
        [*fault("iad-b", "node", "kill", 99.0, 101.0), asked("nyc"), ended("reset", at="nyc")],
        "reset, and nothing on nyc's way explains it",
    ),
    (
        "a drain is no excuse",
        [*fault("fra-a", "node", "drain", 99.0), asked(), ended("reset")],
        "reset, and nothing on ber's way explains it",
    ),
    (
        "not even when it ends later",
        [*fault("fra-a", "node", "drain", 99.0, 103.0), asked(), ended("reset")],
        "reset, and nothing on ber's way explains it",
    ),
    (
        "but for who was on the way as the address went",
        [*fault("fra-a", "node", "drain", 99.0),
         Event(t=100.2, at="chaos", what="broken", target="fra-a", kind="node", how="drain"),
         asked(), ended("reset", 100.3)],
        "",
    ),
    ("and its end moves users", [*fault("fra-a", "node", "drain", 90.0, 99.0), asked(), ended("reset")], ""),
    (
        "the POP that stands in for a dead one",
        [*fault("fra-a/proxy", "proxy", "stop", 90.0, 99.0), *fault("ams-a/proxy", "proxy", "kill", 99.5, 101.0),
         asked(), ended("reset")],
        "",
    ),
]  # fmt: skip


def verdict(events: list[Event]) -> Verdict:
    return judge(events, PLANET)


@pytest.mark.parametrize(("sentence", "events", "said"), CASES, ids=[case[0] for case in CASES])
def test_each_forbidden_thing_is_found(sentence: str, events: list[Event], said: str) -> None:
    found = verdict(events)
    assert [problem.what for problem in found.problems] == ([said] if said else []), sentence
    assert found.good is (not said)


def many(count: int, executions: int) -> list[Event]:
    ids = [f"r{number}" for number in range(count)]
    events = [msgspec.structs.replace(event, id=one) for one in ids for event in (asked(), ended("200"))]
    return events + [record("taken", request=ids[number % count]) for number in range(executions)]


@pytest.mark.parametrize(
    ("sentence", "requests", "executions", "good"),
    [
        ("one each", 1000, 1000, True),
        ("a tenth more, and the slack", 1000, 1100 + chaosverdict.SLACK, True),
        ("one too many", 1000, 1101 + chaosverdict.SLACK, False),
        ("a short run has the slack", 10, 10 + 1 + chaosverdict.SLACK, True),
    ],
)
def test_executions_are_bounded(sentence: str, requests: int, executions: int, *, good: bool) -> None:
    found = verdict(many(requests, executions))
    assert found.good is good, sentence
    assert (found.asked, found.executions) == (requests, executions)


def test_what_nobody_sees_is_no_good_run() -> None:
    assert [one.what for one in verdict([]).problems] == ["nobody asked anything"]
    untold = verdict(many(1000, 0))
    assert [one.what for one in untold.problems] == ["of 1000 right answers no node tells"]
    assert verdict(many(1000, 951)).good


def test_a_planet_that_refuses_everything_is_no_good_one() -> None:
    events = [
        msgspec.structs.replace(event, id=f"r{number}")
        for number in range(1000)
        for event in (asked(), ended("503", reason="no-endpoint", retry_after=True))
    ]
    assert [one.what for one in verdict(events).problems] == [
        "1000 of 1000 requests were refused while nothing was broken"
    ]


def test_refusals_out_of_the_blue_are_told_and_allowed() -> None:
    refused = ended("503", reason="no-endpoint", retry_after=True)
    assert verdict([asked(), refused]).unexpected == 1
    assert verdict([*fault("fra-a/worker", "worker", "kill", 99.0, 99.5), asked(), refused]).unexpected == 0


def test_what_is_no_requests_has_the_faults_for_a_timeline() -> None:
    unwell = Event(t=200.0, at="chaos", what="unwell", text="iad-a is down")
    found = verdict([*FRA_DEAD, *fault("r-ams/bird", "bird", "kill", 109.0, 110.5), unwell])
    assert found.timeline == [
        "iad-a is down",
        "   +0.000 s  chaos breaks fra-a kill, for 4.0 s",
        "  +10.000 s  chaos breaks r-ams/bird kill, for 1.5 s",
    ]
    assert verdict([asked(), ended("200")]).timeline == []


def test_the_timeline_of_a_failure_is_short_and_in_order() -> None:
    far = [
        msgspec.structs.replace(event, id="r0")
        for event in (asked(t=100.0), record("forwarded"), record("taken"), ended("500", 101.0))
    ]
    found = verdict(
        [*far, *FRA_DEAD, record("taken"), asked(t=100.0), ended("500", 101.0, reason="internal")]
    )
    assert found.timeline == [
        "r1: 500 internal, which is never allowed",
        "   -1.000 s  chaos breaks fra-a kill",
        "   +0.000 s  ber asks for identity over IPv4, on a connection that it had",
        "   +0.100 s  fra-a/worker-0 takes it to run it",
        "   +1.000 s  ber has: 500 internal",
    ]
    assert "nothing was broken" in verdict([asked(), ended("500")]).timeline[-1]
