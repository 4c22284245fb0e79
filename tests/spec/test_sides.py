"""Who is parted from whom."""

import pytest

from netlab import planetfile, sides

PLANET = planetfile.load(planetfile.PLANET)


@pytest.mark.parametrize(
    ("sentence", "groups", "near", "far"),
    [
        ("a region against the rest", [["eu"]], ["fra", "ams"], ["iad", "nrt"]),
        ("a POP against the rest", [["nrt"]], ["nrt"], ["iad", "fra", "ams"]),
        ("POPs against a POP", [["iad", "nrt"], ["fra"]], ["iad", "nrt"], ["fra"]),
        ("a region and its POP are one", [["eu", "fra"], ["us"]], ["fra", "ams"], ["iad"]),
    ],
)
def test_every_directed_pair_crosses(
    sentence: str, groups: list[list[str]], near: list[str], far: list[str]
) -> None:
    found = sides.crossing(PLANET, *groups)
    wanted = {(a, b) for a in near for b in far} | {(b, a) for a in near for b in far}
    assert set(found) == wanted, sentence
    assert len(found) == len(wanted), sentence


@pytest.mark.parametrize(
    ("sentence", "groups", "words"),
    [
        ("a typing error", [["euu"]], "no POP or region is called 'euu'; did you mean eu?"),
        ("a comma too many", [["iad", ""]], "no POP or region is called ''"),
        ("a POP and its region", [["eu"], ["fra"]], "fra is on both sides"),
        ("nobody is left", [["us", "eu", "ap"]], "is the whole planet"),
        ("nobody at all", [[]], "somebody on its first side"),
    ],
)
def test_no_sides(sentence: str, groups: list[list[str]], words: str) -> None:
    with pytest.raises(KeyError) as refusal:
        sides.crossing(PLANET, *groups)
    assert words in str(refusal.value.args[0]), sentence
