"""The table of what can break: complete, and every sentence of it says what a person needs."""

import msgspec
import pytest

from netlab import faultacts, faultport, faults, faulttarget, faulttext, originfault, planetfile
from netlab.faults import KINDS, WAYS, Fault, Kind, Way

PLANET = planetfile.load(planetfile.PLANET)
BROKEN = Fault(target="fra-a/worker", kind="worker", how="kill", at_s=1_700_000_000.0)


def test_every_row_has_hands_and_every_hand_a_row() -> None:
    rows = [(way.kind, way.how) for way in WAYS]
    hands = {(kind, how) for kind, hows in faultacts.HANDS.items() for how in hows}
    assert len(rows) == len(set(rows)), "no row twice"
    assert set(rows) == hands
    assert {kind for kind, _ in rows} == set(KINDS)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.kind}-{way.how}")
def test_every_row_says_what_it_does_what_undoes_it_and_what_users_see(way: Way) -> None:
    for sentence in (way.does, way.undo, way.seen):
        assert sentence, way
        assert not sentence.endswith("."), "they become part of other sentences"
    fault = Fault(target="it", kind=way.kind, how=way.how, at_s=0.0)
    assert fault.way is way
    assert fault.remedy == "poplab heal it"


@pytest.mark.parametrize(
    ("sentence", "kind", "how", "said"),
    [
        ("a typing error", "node", "blakhole", "did you mean blackhole? (kill, stop, blackhole, full,"),
        ("another word for it", "worker", "hang", "did you mean stop? (kill, stop fit it)"),
        ("another word, in capitals", "redis", "OOM", "did you mean out-of-memory?"),
        ("a way of something else", "worker", "flush", "there are: kill, stop"),
        ("slow is one thing for an origin", "origin", "slow", "did you mean drip?"),
        ("and another for a link", "link", "slow", "did you mean narrow?"),
    ],
)
def test_an_unknown_way_is_answered_with_those_that_fit(
    sentence: str, kind: Kind, how: str, said: str
) -> None:
    with pytest.raises(KeyError) as refused:
        faults.way(kind, how)
    assert f"a {kind} can't fail by {how!r}" in refused.value.args[0], sentence
    assert said in refused.value.args[0], sentence


def test_the_network_and_the_frozen_come_first_settings_last() -> None:
    broken: list[tuple[Kind, str]] = [
        ("redis", "wrong-password"),
        ("redis", "kill"),
        ("redis", "stop"),
        ("node", "kill"),
        ("node", "blackhole"),
        ("origin", "5xx"),
    ]
    order = [broken[at] for at in faultacts.in_order(broken)]
    assert order == [
        ("redis", "stop"),
        ("node", "blackhole"),
        ("redis", "kill"),
        ("node", "kill"),
        ("redis", "wrong-password"),
        ("origin", "5xx"),
    ]


@pytest.mark.parametrize(
    ("sentence", "new", "old", "refused"),
    [
        ("another clock, then the parent dies", ("fra-a/parent", "kill"), ("fra-a", "clock-ahead"), True),
        ("a full disk, then another clock", ("fra-a", "clock-behind"), ("fra-a", "full"), True),
        ("the same again", ("fra-a", "full"), ("fra-a", "full"), True),
        ("another node", ("ams-a", "full"), ("fra-a", "full"), False),
        ("a part that its parent starts again", ("fra-a/worker", "kill"), ("fra-a", "full"), False),
        ("a dead part, then the whole", ("fra-a", "kill"), ("fra-a/worker", "kill"), False),
        ("its BIRD", ("fra-a/bird", "kill"), ("fra-a", "kill"), False),
    ],
)
def test_two_restarts_of_one_node_are_one_too_many(
    sentence: str, new: tuple[str, str], old: tuple[str, str], refused: bool
) -> None:
    def fault(target: str, how: str) -> Fault:
        return Fault(target=target, kind=faulttarget.parse(target, PLANET).kind, how=how, at_s=0.0)

    book = [fault("redis/eu", "stop"), fault(*old)]
    assert faults.in_the_way(fault(*new), book) == (book[1] if refused else None), sentence


def test_the_list_shows_every_way_and_its_undoing() -> None:
    text = faulttext.ways_text(WAYS)
    for way in WAYS:
        assert f"{way.how} " in text
        assert f"heal: {way.undo}" in text
    assert "worker, as in fra-a/worker, fra-a/worker-0" in text


def test_what_is_broken_is_told_with_its_remedy() -> None:
    assert faulttext.broken_text([], [], 0.0) == "nothing is broken on purpose"
    text = faulttext.broken_text([BROKEN], [], BROKEN.at_s + 61.4)
    assert text.startswith("fra-a/worker  kill  since 2023-11-14T22:13:20+00:00, 61 s\n")
    assert "undo it with `poplab heal fra-a/worker`" in text
    values = faulttext.fault_values(BROKEN)
    assert (values["target"], values["how"], values["command"]) == (
        "fra-a/worker",
        "kill",
        "poplab heal fra-a/worker",
    )


@pytest.mark.parametrize(("carries", "state"), [(False, 0), (True, 3)])
def test_a_bridge_port_is_set_with_one_request(carries: bool, state: int) -> None:
    raw = faultport.request(7, carries=carries)
    assert len(raw) == int.from_bytes(raw[:4], "little") == 16 + 16 + 4 + 8
    assert raw[4:6] == b"\x13\x00", "RTM_SETLINK"
    assert raw[16] == 7, "AF_BRIDGE"
    assert int.from_bytes(raw[20:24], "little") == 7, "the port"
    assert raw[40] == state


def test_one_lie_of_the_origin_is_taken_back_and_the_others_stay() -> None:
    told = originfault.Faults()
    for kind in ("5xx", "cut", "5xx"):
        told.add(msgspec.json.encode({"kind": kind}))
    told.clear("5xx")
    assert [rule["kind"] for rule in told.listed()] == ["cut"]
    told.clear()
    assert told.listed() == []


def test_the_lie_that_was_told_last_is_the_one_that_is_felt() -> None:
    told = originfault.Faults()

    def felt(*, get: bool = True, ranged: bool = False) -> str | None:
        fault = told.take("blobs/a", get=get, ranged=ranged)
        return fault.kind if fault else None

    told.add(msgspec.json.encode({"kind": "drip", "count": 9}))
    told.add(msgspec.json.encode({"kind": "200-to-range", "count": 1}))
    assert felt() == "drip", "the newer one befalls ranges only"
    assert felt(ranged=True) == "200-to-range"
    assert felt(ranged=True) == "drip", "the newer one is used up"
    told.add(msgspec.json.encode({"kind": "5xx", "path_prefix": "blobs/"}))
    assert [felt(get=False), felt(get=False)] == ["5xx", None]
