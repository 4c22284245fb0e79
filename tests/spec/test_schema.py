"""The schema that editors complete from is the one that poplab reads by."""

import json

import msgspec
import pytest

from netlab import planetfile, schema, yamlfile

SHIPPED = sorted(planetfile.SHIPPED.glob("*.yaml"))


def test_the_file_is_what_is_generated() -> None:
    assert schema.FILE.read_text() == schema.text(), "run python -m netlab.schema"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_topology_that_ships_fits_and_names_it(path: planetfile.Path) -> None:
    text = path.read_text()
    assert text.splitlines()[0] == schema.MODELINE
    assert (path.parent / schema.MODELINE.split("=")[1]).samefile(schema.FILE)
    msgspec.convert(yamlfile.read(text).value, schema.Planet, strict=True)


def test_a_mistake_does_not_fit() -> None:
    value = yamlfile.read(planetfile.PLANET.read_text()).value
    assert isinstance(value, dict)
    for broken in (value | {"popz": {}}, value | {"rtt_ms": {"iad-fra": "far"}}, value | {"cities": None}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(broken, schema.Planet, strict=True)


def test_every_setting_is_described_or_a_section() -> None:
    definitions = json.loads(schema.text())["$defs"]
    for name in ("Planet", "Pop", "Node", "Region", "City", "Bgp"):
        for setting, told in definitions[name]["properties"].items():
            assert "description" in told or "anyOf" in told, f"{name}.{setting}"
    assert definitions["Planet"]["required"] == ["name", "pops", "cities"]
