"""What a catalogue says after each change, and what is refused before anything is sent."""

import pytest

from edge.errors import EdgeError
from edge.weights import changes
from edge.weights import manifest as mf
from edge.weights.changes import Models


def model(*versions: int, current: int | None = None) -> mf.CatalogueModel:
    named = [str(version) for version in versions]
    return mf.CatalogueModel(
        str(current or versions[-1]),
        {version: version.zfill(64) for version in named},
        sizes=dict.fromkeys(named, 1),
    )


PRESENT: Models = {"m": model(1, 2, 9, 10, current=2), "other": model(1)}
MANY = range(1, mf.MODEL_MAX_VERSIONS + 1)

RETIRED = [
    ("a version", ["9"], None, {"1", "2", "10"}),
    ("two of them", ["9", "1"], None, {"2", "10"}),
    ("all but the highest, and the one served", [], 1, {"2", "10"}),
    ("numbers count, not letters", [], 2, {"2", "9", "10"}),
    ("fewer than are to be kept", [], 99, {"1", "2", "9", "10"}),
    ("the model", [], None, None),
]


@pytest.mark.parametrize(
    ("sentence", "versions", "keep_last", "left"), RETIRED, ids=[row[0] for row in RETIRED]
)
def test_what_is_retired_is_named_no_more(
    sentence: str, versions: list[str], keep_last: int | None, left: set[str] | None
) -> None:
    after = changes.retired(PRESENT, "m", versions, keep_last)
    assert after["other"] == PRESENT["other"], sentence
    found = after.get("m")
    assert (found and set(found.versions)) == left, sentence
    if found is not None:
        assert set(found.sizes) == left
        assert found.current == "2"
        changes.encoded(mf.Catalogue(1, after))


REFUSED = [
    ("an unknown model", lambda: changes.retired(PRESENT, "nobody"), "no model 'nobody'.*: m, other"),
    ("an unknown version", lambda: changes.retired(PRESENT, "m", ["7"]), "there are 1, 2, 9, 10"),
    ("what is served", lambda: changes.retired(PRESENT, "m", ["2"]), "rollout m VERSION`, or .* --all"),
    ("an unknown version to serve", lambda: changes.rolled_out(PRESENT, "m", "7"), "no version '7'"),
    (
        "one more than a catalogue has",
        lambda: changes.merged({"m": model(*MANY)}, {"m": model(len(MANY) + 1)}),
        "1001 versions.*retire m --keep-last N",
    ),
    (
        "more than nodes read",
        lambda: changes.encoded(mf.Catalogue(1, {f"m{n}": model(*MANY) for n in range(60)})),
        r"at most \d+ are allowed; `popctl models retire`",
    ),
]


@pytest.mark.parametrize(("sentence", "act", "text"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refused_with_what_to_do(sentence, act, text) -> None:
    with pytest.raises(EdgeError, match=text):
        act()


def test_a_version_that_is_served_is_there() -> None:
    assert changes.rolled_out(PRESENT, "m", "9")["m"].current == "9"
    after = changes.merged(PRESENT, {"m": model(11)})
    assert (after["m"].current, len(after["m"].versions)) == ("11", 5)
