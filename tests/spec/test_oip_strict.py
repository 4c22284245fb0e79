"""JSON from strangers, and how it is quoted back."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import EdgeError
from edge.oip.strict import (
    MAX_DEPTH,
    MAX_KEYS,
    decode,
    refuse_deep,
    refuse_duplicate_keys,
    refuse_many_keys,
    show,
)

ANY = msgspec.json.Decoder()


@pytest.mark.parametrize(
    ("sentence", "raw", "fits"),
    [
        ("as deep as allowed", b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, True),
        ("one deeper", b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), False),
        ("objects count too", b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), False),
        ("many side by side", b"[" + b",".join([b"[]"] * 1000) + b"]", True),
        ("in a string", b'["' + b"[" * 1000 + b'"]', True),
        ("behind an escaped quote", b'["\\"' + b"[" * 1000 + b'"]', True),
        ("behind an escaped backslash", b'["\\\\",' + b"[" * 40 + b"]" * 41, False),
        ("never closed", b"[" * 1_000_000, False),
        ("a string that never ends", b'["' + b"[" * 1000, True),
        ("a million quotes and backslashes", b'"\\' * 1_000_000 + b"[" * 40, True),
    ],
)
def test_depth(sentence: str, raw: bytes, fits: bool) -> None:
    if fits:
        refuse_deep(raw)
    else:
        with pytest.raises(EdgeError, match="deeper than 32") as caught:
            refuse_deep(raw)
        assert caught.value.status == 400, sentence


@pytest.mark.parametrize(
    ("sentence", "raw", "keys_read", "duplicate"),
    [
        ("as many colons as keys", b'{"a":1,"b":2}', 2, None),
        ("colons in strings", b'{"a":"x:y:z"}', 1, None),
        ("an unknown key", b'{"a":1,"b":2}', 1, None),
        ("a repeated key", b'{"a":1,"a":2}', 1, "a"),
        ("a repeated key, escaped", b'{"a":1,"\\u0061":2}', 1, "a"),
        ("deep inside", b'{"u":[{"v":{"k":1,"k":1}}]}', 1, "k"),
        ("the same key in two objects", b'[{"a":1},{"a":1}]', 1, None),
    ],
)
def test_duplicate_keys(sentence: str, raw: bytes, keys_read: int, duplicate: str | None) -> None:
    if duplicate is None:
        refuse_duplicate_keys(raw, keys_read)
    else:
        with pytest.raises(EdgeError, match=f"the key '{duplicate}' appears twice") as caught:
            refuse_duplicate_keys(raw, keys_read)
        assert caught.value.status == 400, sentence


def test_an_unknown_number_of_a_million_digits_is_refused() -> None:
    with pytest.raises(EdgeError, match="limit"):
        refuse_duplicate_keys(b'{"a":1,"u":' + b"7" * 1_000_000 + b"}", 1)


def test_keys_are_counted_outside_strings() -> None:
    refuse_many_keys(b'{"a":"' + b":" * 10_000 + b'"}')
    refuse_many_keys(b"[" + b",".join([b'{"a":1}'] * MAX_KEYS) + b"]")
    with pytest.raises(EdgeError, match="has 4097 keys"):
        refuse_many_keys(b"[" + b",".join([b'{"a":1}'] * (MAX_KEYS + 1)) + b"]")


def test_decode_says_where() -> None:
    with pytest.raises(EdgeError, match=r"^the head is not the JSON expected here: .*`int`.*\$\[1\]"):
        decode(msgspec.json.Decoder(list[int]), b'[1,"2"]', "the head")


@pytest.mark.parametrize(
    ("sentence", "value", "shown"),
    [
        ("as Python writes it", "a'b", '"a\'b"'),
        ("line breaks are escaped", "a\r\nb", "'a\\r\\nb'"),
        ("long text is cut", "a" * 1_000_000, "'" + "a" * 79 + "..."),
        ("long lists are cut", [1] * 1_000_000, "[" + "1, " * 26 + "1..."),
        ("short lists are not", [1, 2], "[1, 2]"),
    ],
)
def test_show(sentence: str, value: object, shown: str) -> None:
    assert show(value) == shown, sentence


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=50, deadline=None)
@given(json_values)
def test_good_json_passes(value: object) -> None:
    raw = json.dumps(value).encode()
    assert decode(ANY, raw) == value
    refuse_duplicate_keys(raw, 0)


tricky = st.text(alphabet='\\":[]{},a', max_size=8)


def depth_of(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        tricky,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(tricky, inner, max_size=3),
        max_leaves=10,
    )
)
def test_depth_is_exact_whatever_the_strings_hold(value: object) -> None:
    while depth_of(value) < MAX_DEPTH:
        value = [value, ["[["]]
    refuse_deep(json.dumps(value).encode())
    with pytest.raises(EdgeError, match="deeper than 32"):
        refuse_deep(json.dumps(['"', value]).encode())
