"""The schema that editors complete from is the one that poplab reads by."""

import json

import msgspec
import pytest

from netlab import planetfile, schema, yamlfile
from tests.spec.test_topology_errors import ERRORS
from tests.support.planet import GOOD
from tests.support.schemafit import fits

SHIPPED = sorted(planetfile.SHIPPED.glob("*.yaml"))

#: Rows of ERRORS that no schema sees: names that must exist or differ, pairs, and what addresses mean.
BEYOND = {
    "a node twice",
    "a node like a POP",
    "a city like a node",
    "nobody announces",
    "a pair left out",
    "a pair unknown",
    "a pair twice",
    "a city nowhere",
    "a lease renewed too late",
    "a VIP of the lab's own",
    "a VIP in a POP's LAN",
    "a VIP that no router carries",
    "a multicast VIP",
    "a link too small",
    "the host nowhere",
    "the host in a POP's LAN",
    "the host on the WAN",
    "the host on a city's wire",
    "the host around the VIP",
    "the origin nowhere",
    "a region of no POP",
    "a Redis in another region",
    "one end of a pair without a place",
    "a city without a distance",
    "links while RTTs decide",
    "a link to nowhere",
    "a POP without a link",
}


def is_taken(text: str) -> bool:
    """Whether an editor with the schema finds nothing wrong; what is no YAML it refuses anyway."""
    told = schema.schema()
    try:
        return fits(yamlfile.read(text).value, told, told["$defs"])
    except yamlfile.YamlError:
        return False


@pytest.mark.parametrize(
    ("sentence", "old", "new"), [row[:3] for row in ERRORS], ids=[row[0] for row in ERRORS]
)
def test_an_editor_refuses_what_poplab_refuses(sentence: str, old: str, new: str) -> None:
    assert is_taken(GOOD)
    assert is_taken(GOOD.replace(old, new)) == (sentence in BEYOND)


def test_every_mistake_that_an_editor_misses_is_one_that_poplab_knows() -> None:
    assert {row[0] for row in ERRORS} >= BEYOND


def test_the_file_is_what_is_generated() -> None:
    assert schema.FILE.read_text() == schema.text(), "run python -m netlab.schema"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_topology_that_ships_fits_and_names_it(path: planetfile.Path) -> None:
    text = path.read_text()
    assert text.splitlines()[0] == schema.MODELINE
    assert (path.parent / schema.MODELINE.split("=")[1]).samefile(schema.FILE)
    msgspec.convert(yamlfile.read(text).value, schema.Planet, strict=True)
    assert is_taken(text)


def test_a_mistake_does_not_fit() -> None:
    value = yamlfile.read(planetfile.PLANET.read_text()).value
    assert isinstance(value, dict)
    for broken in (value | {"popz": {}}, value | {"rtt_ms": {"iad-fra": "far"}}, value | {"cities": None}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(broken, schema.Planet, strict=True)


def test_every_setting_is_described_or_a_section() -> None:
    definitions = json.loads(schema.text())["$defs"]
    for name, definition in definitions.items():
        for setting, told in definition["properties"].items():
            assert "description" in told or "anyOf" in told, f"{name}.{setting}"
    assert definitions["Planet"]["required"] == ["name", "pops", "cities"]
