"""What a disk has to keep: the whole specification of `edge.weights.pins`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.weights.manifest import Catalogue, CatalogueModel, digest
from edge.weights.pins import GRACE_MS, MAX_PINS, Lately, chosen, decode_pins, encode_pins, floor

ONE, TWO = digest(b"one"), digest(b"two")
NODES = frozenset({"fra-a", "fra-b", "ams-a"})
names = st.sets(st.from_regex(r"[a-z]{1,8}", fullmatch=True), min_size=1, max_size=12)


def catalogue(keep: dict[str, int], *, current: str = "2") -> Catalogue:
    """One model of two versions."""
    model = CatalogueModel(current=current, versions={"1": ONE, "2": TWO}, keep=keep)
    return Catalogue(epoch=1, models={"m": model})


@pytest.mark.parametrize(
    ("sentence", "given_catalogue", "nodes", "kept"),
    [
        ("no floor anywhere", catalogue({}), NODES, frozenset()),
        ("a floor of another region", catalogue({"ap": 3}), NODES, frozenset()),
        ("all of the region: the current version", catalogue({"eu": 3}), NODES, frozenset({TWO})),
        ("and after a rollback the older one", catalogue({"eu": 3}, current="1"), NODES, frozenset({ONE})),
        ("more than there are nodes", catalogue({"eu": 64}), NODES, frozenset({TWO})),
        ("nobody knows who lives: every node keeps it", catalogue({"eu": 1}), None, frozenset({TWO})),
        ("alone", catalogue({"eu": 1}), {"fra-a"}, frozenset({TWO})),
    ],
)
def test_floor(
    sentence: str, given_catalogue: Catalogue, nodes: frozenset[str] | None, kept: frozenset[str]
) -> None:
    assert floor(given_catalogue, "eu", "fra-a", nodes) == kept, sentence


@given(nodes=names, count=st.integers(1, 5), content=st.binary(max_size=8))
def test_all_nodes_agree_on_exactly_so_many(nodes: set[str], count: int, content: bytes) -> None:
    wanted = digest(content)
    model = CatalogueModel(current="1", versions={"1": wanted}, keep={"eu": count})
    published = Catalogue(epoch=1, models={"m": model})
    keepers = {node for node in nodes if floor(published, "eu", node, nodes)}
    assert keepers == chosen(wanted, nodes, count)
    assert len(keepers) == min(count, len(nodes))


@given(nodes=names, count=st.integers(1, 5), content=st.binary(max_size=8))
def test_a_node_that_leaves_moves_nothing_but_its_own(nodes: set[str], count: int, content: bytes) -> None:
    wanted = digest(content)
    before = chosen(wanted, nodes, count)
    for gone in nodes:
        after = chosen(wanted, nodes - {gone}, count)
        assert before - {gone} <= after
        assert len(after - before) <= 1


def test_a_node_that_left_is_counted_on_for_a_while() -> None:
    lately = Lately()
    assert lately.of(None, 0.0) is None, "nobody can tell"
    assert lately.of({"fra-a", "ams-a"}, 0.0) == {"fra-a", "ams-a"}
    assert lately.of({"fra-a"}, GRACE_MS - 1.0) == {"fra-a", "ams-a"}, "it may be restarting"
    assert lately.of(None, GRACE_MS - 1.0) is None, "nobody can tell any more"
    assert lately.of({"fra-a"}, GRACE_MS) == {"fra-a"}, "it is gone"
    assert lately.of({"fra-a", "ams-a"}, GRACE_MS) == {"fra-a", "ams-a"}, "it is back"


def test_pins_survive_the_file() -> None:
    for pinned in (frozenset[str](), frozenset({ONE}), frozenset({ONE, TWO})):
        assert decode_pins(encode_pins(pinned)) == pinned
    assert encode_pins({ONE, TWO}) == encode_pins([TWO, ONE])


@pytest.mark.parametrize(
    ("sentence", "raw"),
    [
        ("nothing", b""),
        ("no JSON", b"\xff"),
        ("another shape", b"[]"),
        ("no list", b'{"pinned": 3}'),
        ("a path", b'{"pinned": ["../node"]}'),
        ("a digest and more", b'{"pinned": ["%s\\n"]}' % ONE.encode()),
        ("too deep", b"[" * 100_000),
    ],
)
def test_a_file_that_is_not_ours(sentence: str, raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"pins\.json"):
        decode_pins(raw)
    assert sentence


def test_so_many_pins_at_most() -> None:
    many = [digest(b"%d" % number) for number in range(MAX_PINS + 5)]
    assert len(decode_pins(encode_pins(many))) == MAX_PINS
