"""API keys: files that are good, files that are not, and what a key has left."""

import textwrap

import pytest

from edge.config import Public
from edge.errors import EdgeError, Reason
from edge.policy.keys import Bucket, Key, Role, digest, parse
from edge.proxy.keys import Keys

OPEN = Public(listen=("127.0.0.1:1",))
CLOSED = Public(listen=("127.0.0.1:1",), infer_needs_key=True)


def file(**more: object) -> str:
    lines = {"name": "acme", "sha256": digest("secret"), "roles": "[infer]", **more}
    body = "".join(f"\n    {name}: {value}" for name, value in lines.items()).lstrip()
    return f"keys:\n  - {body}\n"


def test_a_file_is_read() -> None:
    assert parse(file(per_s=5, in_flight=2)) == (Key("acme", digest("secret"), (Role.INFER,), 5.0, 2),)
    assert parse("  ") == ()


@pytest.mark.parametrize(
    ("sentence", "text"),
    [
        ("no YAML", "keys: ["),
        ("no list", "keys: 7"),
        ("an unknown field", file(colour="red")),
        ("an unknown role", file(roles="[king]")),
        ("no role", file(roles="[]")),
        ("the key itself instead of its digest", file(sha256="secret")),
        ("a name that is none", file(name="'a b'")),
        ("a negative rate", file(per_s=-1)),
        ("a rate that is no number", file(per_s=".nan")),
        ("twice the same", file() + file().replace("keys:\n", "")),
    ],
)
def test_what_is_wrong_with_a_file_is_said(sentence: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(text)


def test_a_bucket_gives_what_its_rate_allows_and_no_more() -> None:
    key = Key("acme", "0" * 64, (Role.INFER,), per_s=10.0)
    bucket: Bucket | None = Bucket(20.0, 0.0)
    given = 0
    for _ in range(40):
        after = bucket.after(key, 0.0) if bucket is not None else None
        given += after is not None
        bucket = after or bucket
    assert given == 20
    assert bucket is not None
    assert bucket.after(key, 99.0) is None
    assert bucket.after(key, 101.0) is not None
    assert bucket.after(key, 1e12) == Bucket(19.0, 1e12), "it holds two seconds, not a week"


@pytest.mark.parametrize(
    ("sentence", "public", "text", "header", "role", "reason"),
    [
        ("inference is open by default", OPEN, "", None, Role.INFER, None),
        ("a header for somebody else", OPEN, "", "Bearer theirs", Role.INFER, None),
        ("inference that needs a key", CLOSED, file(), None, Role.INFER, Reason.UNAUTHENTICATED),
        ("the right key", CLOSED, file(), "Bearer secret", Role.INFER, None),
        ("a wrong key", CLOSED, file(), "Bearer guess", Role.INFER, Reason.UNAUTHENTICATED),
        (
            "a wrong key where none is needed",
            OPEN,
            file(),
            "Bearer guess",
            Role.INFER,
            Reason.UNAUTHENTICATED,
        ),
        ("another scheme", CLOSED, file(), "Basic secret", Role.INFER, Reason.UNAUTHENTICATED),
        ("an operator's call without a key", OPEN, "", None, Role.OPERATE, Reason.UNAUTHENTICATED),
        ("a key without that role", OPEN, file(), "Bearer secret", Role.OPERATE, Reason.FORBIDDEN),
        ("an operator's key", OPEN, file(roles="[operate]"), "Bearer secret", Role.OPERATE, None),
    ],
)
def test_who_is_let_in(
    sentence: str, public: Public, text: str, header: str | None, role: Role, reason: Reason | None
) -> None:
    keys = Keys(textwrap.dedent(text), public)
    if reason is None:
        keys.leave(keys.admit(header, role))
        return
    with pytest.raises(EdgeError) as refused:
        keys.admit(header, role)
    assert refused.value.reason is reason, sentence


def test_so_many_at_a_time_and_a_place_is_given_back() -> None:
    keys = Keys(file(in_flight=1), OPEN)
    first = keys.admit("Bearer secret", Role.INFER)
    with pytest.raises(EdgeError) as refused:
        keys.admit("Bearer secret", Role.INFER)
    assert (refused.value.reason, refused.value.status) == (Reason.RATE_LIMITED, 429)
    keys.leave(first)
    keys.leave(keys.admit("Bearer secret", Role.INFER))


def test_so_many_per_second_and_when_to_come_again() -> None:
    keys = Keys(file(per_s=1), OPEN)
    for _ in range(2):
        keys.admit("Bearer secret", Role.INFER)
    with pytest.raises(EdgeError) as refused:
        keys.admit("Bearer secret", Role.INFER)
    assert refused.value.retry_after_s is not None
    assert 1 <= refused.value.retry_after_s <= 30
