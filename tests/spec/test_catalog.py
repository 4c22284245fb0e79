"""Specification of models/catalog.py: a wrong catalogue is answered with file, line, setting and cure."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import catalog
from models.errors import CatalogError

HASH = "0123456789abcdef" * 4
FIVE_LINES = f"""
vad:
  builder: onnx-file
  licence: MIT
  package: silero-vad==6.2.3
  files: {{silero_vad/data/silero_vad.onnx: {HASH}}}
"""


def test_five_lines_are_a_model() -> None:
    entry = catalog.parse(FIVE_LINES.encode(), "c.yaml").entries["vad"]
    assert entry == catalog.Entry(
        builder="onnx-file",
        licence="MIT",
        package="silero-vad==6.2.3",
        files={"silero_vad/data/silero_vad.onnx": HASH},
        version="1",
        max_batch=1,
    )


def test_the_catalogue_that_ships_is_good() -> None:
    entries = catalog.load().entries
    assert list(entries) == ["minilm", "magika", "identity", "mlp", "ballast-64mb"]
    assert all(entry.licence == "Apache-2.0" for entry in entries.values())
    assert [entry.max_batch for entry in entries.values()] == [32, 8, 64, 64, 8]


def test_where_a_model_may_run_and_is_kept_can_be_said() -> None:
    text = "m:\n  builder: identity\n  licence: MIT\n  confine: [eu, ap]\n  keep: {ap: 1, eu: 2}\n"
    entry = catalog.parse(text.encode(), "c.yaml").entries["m"]
    assert (entry.confine, entry.keep) == (("eu", "ap"), {"ap": 1, "eu": 2})


def test_what_ships_may_run_anywhere_and_is_kept_nowhere() -> None:
    assert {(entry.confine, *entry.keep) for entry in catalog.load().entries.values()} == {((),)}


def m(*settings: str) -> str:
    """A catalogue of one model `m`, one setting a line from line 2 on."""
    return "m:\n" + "\n".join(f"  {line}" for line in settings)


OK = ("builder: identity", "licence: MIT")
PACKAGE = "package: p==1"


@pytest.mark.parametrize(
    ("what", "text", "says"),
    [
        ("no model at all", "", "c.yaml: line 1: no models; write a model's name"),
        ("a list of models", "- m", "c.yaml: line 1: no models"),
        ("a name alone", "m:", "c.yaml: line 1: m has no settings; write builder: and licence:"),
        ("no YAML", "m: [", "c.yaml: not YAML: "),
        ("bytes that are no text", "m: \x00", "c.yaml: not YAML: "),
        ("a name that YAML takes for False", "no:\n  builder: x", "line 1: False can't name a model; write"),
        ("a name that climbs", "../m:\n  builder: x", "line 1: '../m' can't name a model"),
        ("a model twice", "m: {}\nn: {}\nm: {}", "line 3: m stands in line 1 already; keep one"),
        ("a setting twice", m(*OK, "licence: BSD"), "line 4: m.licence stands in line 3 already"),
        ("a file twice", m(*OK, PACKAGE, f"files: {{a: {HASH}, a: {HASH}}}"), "line 5: m.files.a stands in"),
        ("a setting misspelt", m(*OK, "max_bach: 8"), "line 4: m.max_bach is unknown; write max_batch"),
        ("a setting nobody knows", m(*OK, "colour: red"), "line 4: m.colour is unknown; known are builder,"),
        ("no builder", m("licence: MIT"), "line 1: m.builder is missing; write the name of a builder"),
        ("no licence", m("builder: identity"), "line 1: m.licence is missing; write an SPDX identifier"),
        ("an empty licence", m("builder: identity", "licence: ''"), "line 3: m.licence is '' ("),
        ("a version that is no text", m(*OK, "version: 1"), 'line 4: m.version is 1 (Expected `str`'),
        ("a version that says how", m(*OK, "version: 1"), 'write a quoted integer, for example "1"'),
        ("a version that is no integer", m(*OK, "version: '1.0'"), "line 4: m.version is '1.0'; write a quoted"),
        ("a package without version", m(*OK, "package: magika"), "m.package is 'magika' ("),
        ("a package that is an option", m(*OK, "package: --pre==1"), "m.package is '--pre==1' ("),
        ("a package of any version", m(*OK, "package: p>=1"), "write a package and one exact version"),
        ("a package without files", m(*OK, PACKAGE), "m.files is missing beside package p==1; write the path"),
        ("files of no package", m(*OK, f"files: {{a: {HASH}}}"), "m.package is missing beside files; write a"),
        ("a hash too short", m(*OK, PACKAGE, "files: {a: 'abc'}"), "line 5: m.files is {'a': 'abc'} ("),
        ("a hash that YAML made a number", m(*OK, PACKAGE, "files: {a: 12}"), "line 5: m.files is {'a': 12} ("),
        ("a file that climbs", m(*OK, PACKAGE, f"files: {{a/../../b: {HASH}}}"), "line 5: m.files is {'a/../"),
        ("a file from the root", m(*OK, PACKAGE, f"files: {{/etc/x: {HASH}}}"), "line 5: m.files is {'/etc/"),
        ("no batch at all", m(*OK, "max_batch: 0"), "line 4: m.max_batch is 0 (Expected `int` >= 1"),
        ("a batch of true", m(*OK, "max_batch: true"), "line 4: m.max_batch is True ("),
        ("a size in words", m(*OK, "size_bytes: 64mb"), "line 4: m.size_bytes is '64mb' ("),
        ("a label that is a number", m(*OK, "labels: {a: 1}"), "line 4: m.labels is {'a': 1} ("),
        ("a region for a list", m(*OK, "confine: eu"), "line 4: m.confine is 'eu' ("),
        ("a region that is none", m(*OK, "confine: [EU]"), "m.confine is ['EU'] ("),
        ("a region that YAML takes for False", m(*OK, "confine: [no]"), "write a list of regions, for example [eu]"),
        ("regions without copies", m(*OK, "keep: [eu]"), "line 4: m.keep is ['eu'] ("),
        ("no copy", m(*OK, "keep: {eu: 0}"), "m.keep is {'eu': 0} ("),
        ("copies of true", m(*OK, "keep: {eu: true}"), "write regions with a number of copies from 1 to 64"),
        ("a region twice", m(*OK, "keep: {eu: 1, eu: 2}"), "line 4: m.keep.eu stands in line 4 already"),
        ("kept where it may not run", m(*OK, "confine: [eu]", "keep: {ap: 1}"), "line 5: m.keep names ap, where"),
        ("more than 1 MiB", "#" * (catalog.CATALOG_MAX_BYTES + 1), "1048577 bytes; a catalogue has at most"),
        ("brackets without end", "m: " + "[" * 500, "c.yaml: not YAML: "),
        ("a key that can't be one", "? [a]\n: b", "c.yaml: not YAML: "),
    ],
)  # fmt: skip
def test_what_a_wrong_catalogue_is_told(what: str, text: str, says: str) -> None:
    with pytest.raises(CatalogError) as caught:
        catalog.parse(text.encode(), "c.yaml")
    assert str(caught.value).startswith("c.yaml: "), what
    assert says in str(caught.value), what
    assert len(str(caught.value)) < 400, what


def test_a_catalogue_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(CatalogError, match=r"none\.yaml: No such file.*give the path"):
        catalog.load(tmp_path / "none.yaml")


def test_a_complaint_points_at_the_setting_or_else_at_the_model() -> None:
    parsed = catalog.parse(FIVE_LINES.encode(), "c.yaml")
    assert str(parsed.complaint("vad", "builder", "is x")).startswith(
        "c.yaml: line 3: vad.builder is x; write "
    )
    assert str(parsed.complaint("vad", "version", "is x")).startswith(
        "c.yaml: line 2: vad.version is x; write "
    )


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="m:b{}[]&*!|>-\"'#, \n\t?1é", max_size=40))
def test_any_text_is_read_or_refused_in_our_words(text: str) -> None:
    with pytest.raises(CatalogError):
        catalog.parse(text.encode(), "c.yaml")
