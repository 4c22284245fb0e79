"""Specification of edge/weights/manifest.py: what is accepted, what is refused, and in which words."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import EdgeError, Reason
from edge.weights import manifest as mf

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def blob(role: str = "graph", name: str = "graph", **changes: Any) -> dict[str, Any]:
    return {"role": role, "name": name, "size_bytes": 10, "blake3": A, "sha256": B, "chunks": [A]} | changes


def tensor(name: str = "x", datatype: str = "FP32", shape: tuple[int, ...] = (-1, 4)) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def good(**changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "m",
        "version": "1",
        "task": "tensors",
        "files": [blob()],
        "inputs": [tensor("x")],
        "outputs": [tensor("y")],
        "batch_axis": 0,
        "max_batch": 8,
        "device_bytes": 1000,
        "licence": "Apache-2.0",
        "source": "p==1",
        "labels": {},
    } | changes


def text_model(**changes: Any) -> dict[str, Any]:
    return (
        good(
            task="embedding",
            files=[blob(name="encoder"), blob(name="tokenizer"), blob("weights", "weights")],
            inputs=[tensor("text", "BYTES", (-1,))],
            outputs=[tensor("embedding", "FP32", (-1, 4))],
            custom_ops=["onnxruntime-extensions"],
        )
        | changes
    )


def bytes_model(**changes: Any) -> dict[str, Any]:
    return (
        good(
            task="bytes-classification",
            files=[blob(), blob("aux", "labels")],
            inputs=[tensor("content", "BYTES", (-1,))],
            outputs=[tensor("label", "BYTES", (-1,)), tensor("score", "FP32", (-1,))],
        )
        | changes
    )


def decode(document: Any) -> mf.Manifest:
    raw = json.dumps(document).encode()
    return mf.decode(raw, expect_digest=mf.digest(raw))


@pytest.mark.parametrize(
    ("what", "document"),
    [
        ("a plain tensors model", good()),
        (
            "weights beside the graph, even several",
            good(files=[blob(), blob("weights", "w1"), blob("weights", "w2")]),
        ),
        ("text in, vector out", text_model()),
        ("bytes in, label out", bytes_model()),
        ("never batched: any shape", good(batch_axis=None, max_batch=1, inputs=[tensor(shape=(3, 4))])),
        ("a field of a later version is ignored", good(colour="green")),
        ("two chunks", good(files=[blob(size_bytes=5000, chunk_bytes=4096, chunks=[B, C])])),
        ("the highest version", good(version="2147483648")),
        (
            "a scalar output where nothing is batched",
            good(batch_axis=None, max_batch=1, outputs=[tensor(shape=())]),
        ),
    ],
)
def test_accepted(what: str, document: dict[str, Any]) -> None:
    manifest = decode(document)
    again = mf.encode(manifest)
    assert mf.decode(again, expect_digest=mf.digest(again)) == manifest, what


@pytest.mark.parametrize(
    ("what", "document", "says"),
    [
        ("another schema", good(schema=2), "$.schema"),
        ("a missing field", {k: v for k, v in good().items() if k != "files"}, "files"),
        ("a name of two segments", good(name="a/b"), "$.name"),
        ("a name that climbs", good(name=".."), "$.name"),
        ("a name with a line end", good(name="a\n"), "$.name"),
        ("a name of 129 characters", good(name="a" * 129), "$.name"),
        ("a version with a zero in front", good(version="01"), "$.version"),
        ("a version that is a number", good(version=1), "$.version"),
        ("a version too high", good(version="2147483649"), "version 2147483649 is above 2147483648"),
        ("a task nobody knows", good(task="magic"), "$.task"),
        ("no files", good(files=[]), "$.files"),
        ("65 files", good(files=[blob(name=f"f{i}") for i in range(65)]), "$.files"),
        ("a file name that climbs", good(files=[blob(name="../x")]), "$.files[0].name"),
        ("a digest in capitals", good(files=[blob(blake3="A" * 64)]), "$.files[0].blake3"),
        ("a digest too short", good(files=[blob(sha256="a" * 63)]), "$.files[0].sha256"),
        ("a chunk that is no digest", good(files=[blob(chunks=["x"])]), "$.files[0].chunks[0]"),
        ("an empty file", good(files=[blob(size_bytes=0, chunks=[])]), "$.files[0].size_bytes"),
        ("a file above every disk", good(files=[blob(size_bytes=1 << 45)]), "$.files[0].size_bytes"),
        ("tiny chunks", good(files=[blob(chunk_bytes=1)]), "$.files[0].chunk_bytes"),
        ("huge chunks", good(files=[blob(chunk_bytes=1 << 30)]), "$.files[0].chunk_bytes"),
        ("a role nobody knows", good(files=[blob("secret")]), "$.files[0].role"),
        ("a chunk too few", good(files=[blob(size_bytes=9 << 20)]), "2 chunks, the manifest lists 1"),
        ("a chunk too many", good(files=[blob(chunks=[A, B])]), "1 chunks, the manifest lists 2"),
        ("one chunk that is not the file", good(files=[blob(chunks=[B])]), "digest is not the file's"),
        ("two files of one name", good(files=[blob(), blob("weights", "graph")]), "two files are called"),
        ("no graph", good(files=[blob("weights", "w")]), "needs graph files ['graph'], the manifest has []"),
        ("two graphs", good(files=[blob(), blob(name="g2")]), "the manifest has ['g2', 'graph']"),
        ("an aux file nobody reads", good(files=[blob(), blob("aux", "n")]), "needs aux files []"),
        ("no tokenizer", text_model(files=[blob(name="encoder")]), "needs graph files ['encoder', 'tok"),
        ("no label table", bytes_model(files=[blob()]), "needs aux files ['labels']"),
        ("no inputs", good(inputs=[]), "$.inputs"),
        ("65 outputs", good(outputs=[tensor(f"y{i}") for i in range(65)]), "$.outputs"),
        ("two inputs of one name", good(inputs=[tensor(), tensor()]), "two inputs are called 'x'"),
        ("two outputs of one name", good(outputs=[tensor(), tensor()]), "two outputs are called 'x'"),
        ("a dimension below any", good(inputs=[tensor(shape=(-1, -2))]), "$.inputs[0].shape[1]"),
        ("17 dimensions", good(inputs=[tensor(shape=(-1,) * 17)]), "$.inputs[0].shape"),
        ("a datatype nobody knows", good(inputs=[tensor(datatype="FP8")]), "datatype 'FP8', not one of"),
        ("a nameless tensor", good(inputs=[tensor(name="")]), "$.inputs[0].name"),
        ("a batch axis that is fixed", good(inputs=[tensor(shape=(1, 4))]), "batch_axis 0 needs -1 in front"),
        ("a batch axis on a scalar", good(outputs=[tensor(shape=())]), "batch_axis 0 needs -1 in front"),
        ("another batch axis", good(batch_axis=1), "$.batch_axis"),
        ("batches without an axis", good(batch_axis=None), "without an axis it must be 1"),
        ("no batch at all", good(max_batch=0), "$.max_batch"),
        ("text that is numbers", text_model(inputs=[tensor("text")]), "needs inputs of ['BYTES']"),
        ("a label without a score", bytes_model(outputs=[tensor("y")]), "needs outputs of ['BYTES', 'FP32']"),
        ("a library of operators not known", good(custom_ops=["evil.so"]), "custom_ops names 'evil.so'"),
        ("negative memory", good(device_bytes=-1), "$.device_bytes"),
        ("a number out of all bounds", good(device_bytes=10**400), "device_bytes"),
        ("a licence as long as a book", good(licence="x" * 1025), "$.licence"),
        ("65 labels", good(labels={f"l{i}": "" for i in range(65)}), "$.labels"),
        ("a label's name with a slash", good(labels={"a/b": ""}), "$.labels"),
        ("a list", [], "expected"),
    ],
)  # fmt: skip
def test_refused(what: str, document: Any, says: str) -> None:
    with pytest.raises(EdgeError) as caught:
        decode(document)
    assert caught.value.reason is Reason.BLOB_CORRUPT, what
    assert says.lower() in caught.value.message.lower(), what


@pytest.mark.parametrize(
    ("what", "raw", "says"),
    [
        ("nothing", b"", "not a valid manifest"),
        ("half a document", b'{"schema": 1', "not a valid manifest"),
        ("bytes that are no text", b'{"name": "\xff"}', "not a valid manifest"),
        ("a number alone", b"7", "not a valid manifest"),
        ("brackets a million deep", b'{"z":' + b"[" * 1_000_000, "not a valid manifest"),
        ("more than 4 MiB", b" " * (mf.MANIFEST_MAX_BYTES + 1), "at most 4194304 are allowed"),
    ],
)
def test_bytes_that_are_no_manifest(what: str, raw: bytes, says: str) -> None:
    for decoder in (lambda: mf.decode(raw, expect_digest=None), lambda: mf.decode_catalogue(raw)):
        with pytest.raises(EdgeError) as caught:
            decoder()
        assert says.removeprefix("not a valid manifest") in caught.value.message, what


def test_content_of_another_digest_is_refused_before_it_is_read() -> None:
    with pytest.raises(EdgeError, match=r"fetch it again") as caught:
        mf.decode(b"not even JSON", expect_digest=A)
    assert caught.value.reason is Reason.BLOB_CORRUPT


def test_without_a_name_the_content_alone_is_checked() -> None:
    assert mf.decode(json.dumps(good()).encode(), expect_digest=None).name == "m"


def test_equal_manifests_are_equal_bytes() -> None:
    document = good(labels={"b": "2", "a": "é"})
    backwards = dict(reversed(document.items())) | {"labels": {"a": "é", "b": "2"}}
    raw = mf.encode(decode(document))
    assert raw == mf.encode(decode(backwards))
    assert raw.startswith(b'{"batch_axis":0,"custom_ops":[],"device_bytes":1000,"files":[{"blake3":"aaa')
    assert b'"labels":{"a":"\xc3\xa9","b":"2"}' in raw


def test_digest_is_blake3() -> None:
    # The first test vector of the BLAKE3 specification: no input.
    assert mf.digest(b"") == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def test_a_manifest_adds_up_and_finds_its_files() -> None:
    manifest = decode(text_model())
    assert manifest.size_bytes == 30
    assert manifest.file("tokenizer").name == "tokenizer"
    with pytest.raises(KeyError):
        manifest.file("nothing")


@pytest.mark.parametrize(
    ("text", "name", "version"),
    [
        ("minilm", True, False),
        ("ballast-64mb", True, False),
        ("A.b_c-9", True, False),
        ("1", True, True),
        ("2147483648", True, True),
        ("2147483649", True, False),
        ("99999999999", True, False),
        ("0", True, False),
        ("01", True, False),
        ("+1", False, False),
        ("", False, False),
        (".hidden", False, False),
        ("a/b", False, False),
        ("a b", False, False),
        ("1\n", False, False),
        ("é", False, False),
        ("٣", False, False),
        ("x" * 128, True, False),
        ("x" * 129, False, False),
    ],
)
def test_names_and_versions(text: str, name: bool, version: bool) -> None:
    assert mf.is_model_name(text) is name
    assert mf.is_version(text) is version


def catalogue(epoch: Any = 3, **models: Any) -> bytes:
    return json.dumps({"epoch": epoch, "models": models}).encode()


def model(current: str, *versions: str, digest: str = A) -> dict[str, Any]:
    return {"current": current, "versions": dict.fromkeys(versions, digest)}


def test_a_catalogue_comes_back_as_it_was() -> None:
    raw = catalogue(
        minilm={
            "current": "2",
            "versions": {"2": B, "1": A},
            "sizes": {"2": 90, "1": 80},
            "confine": ["eu"],
            "keep": {"eu": 1},
            "colour": "red",
        },
        none={"current": "1", "versions": {"1": C}},
    )
    decoded = mf.decode_catalogue(raw)
    assert decoded.models["minilm"] == mf.CatalogueModel(
        "2", {"1": A, "2": B}, sizes={"1": 80, "2": 90}, confine=("eu",), keep={"eu": 1}
    )
    assert decoded.models["none"] == mf.CatalogueModel("1", {"1": C}), "a catalogue of before is read"
    assert mf.decode_catalogue(mf.encode_catalogue(decoded)) == decoded
    assert mf.encode_catalogue(mf.Catalogue(0, {})) == b'{"epoch":0,"models":{}}'


@pytest.mark.parametrize(
    ("what", "raw", "says"),
    [
        ("a model name that climbs", catalogue(**{"../x": model("1", "1")}), "$.models"),
        ("a current version not there", catalogue(m=model("2", "1")), "no version 2, which"),
        ("a version that is no number", catalogue(m=model("1", "one")), "$.models[...].versions"),
        ("a version too high", catalogue(m=model("1", "1", "4000000000")), "has version 4000000000"),
        ("a digest that is none", catalogue(m=model("1", "1", digest="x")), "$.models[...].versions[...]"),
        ("no version", catalogue(m=model("1")), "$.models[...].versions"),
        ("a size of nothing", catalogue(m=model("1", "1") | {"sizes": {"1": 0}}), "$.models[...].sizes[...]"),
        ("a region that is none", catalogue(m=model("1", "1") | {"confine": ["EU"]}), "$.models[...].confine[0]"),
        ("no copy to keep", catalogue(m=model("1", "1") | {"keep": {"eu": 0}}), "$.models[...].keep[...]"),
        ("too many to keep", catalogue(m=model("1", "1") | {"keep": {"eu": 65}}), "$.models[...].keep[...]"),
        ("a negative epoch", catalogue(-1), "$.epoch"),
        ("an epoch of text", catalogue("3"), "$.epoch"),
        ("10,001 models", catalogue(**{f"m{i}": model("1", "1") for i in range(10_001)}), "10001 models"),
    ],
)  # fmt: skip
def test_a_catalogue_that_is_refused(what: str, raw: bytes, says: str) -> None:
    with pytest.raises(EdgeError) as caught:
        mf.decode_catalogue(raw)
    assert caught.value.reason is Reason.NO_CATALOGUE, what
    assert says in caught.value.message, what
    assert len(caught.value.message) < 300, what


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused_in_our_words(raw: bytes) -> None:
    for decoder in (lambda: mf.decode(raw, expect_digest=None), lambda: mf.decode_catalogue(raw)):
        with pytest.raises(EdgeError):
            decoder()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([good, text_model, bytes_model]), st.sampled_from(sorted(good())), JSON)
def test_any_value_in_any_field_is_decoded_or_refused(
    kind: Callable[[], dict[str, Any]], field: str, value: Any
) -> None:
    try:
        manifest = decode(kind() | {field: value})
    except EdgeError:
        return
    assert msgspec.json.decode(mf.encode(manifest))["schema"] == 1
