"""`parse_target`, case by case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import EdgeError, Reason
from edge.http.target import ASTERISK, Target, parse_target

HOSTS = frozenset({"pop.test", "198.51.100.1", "fd5e:ed9e::1"})

GOOD = [
    ("the root has no segments", "GET", "/", Target((), "")),
    ("segments", "GET", "/v2/models/m", Target(("v2", "models", "m"), "")),
    ("a trailing slash is an empty last segment", "GET", "/v2/", Target(("v2", ""), "")),
    ("the query stays raw", "GET", "/a?b=%2F&c=d?e", Target(("a",), "b=%2F&c=d?e")),
    ("an empty query", "GET", "/a?", Target(("a",), "")),
    ("escapes are decoded once", "GET", "/%61%20b/%252e", Target(("a b", "%2e"), "")),
    ("UTF-8 under escapes", "GET", "/mod%C3%A8le", Target(("modèle",), "")),
    ("dots inside a name", "GET", "/a.b/..c/.well-known", Target(("a.b", "..c", ".well-known"), "")),
    ("all that a path may hold", "GET", "/a-._~!$&'()*+,;=:@", Target(("a-._~!$&'()*+,;=:@",), "")),
    ("OPTIONS * is about the server", "OPTIONS", "*", ASTERISK),
    ("absolute form, any case, any port", "GET", "HTTP://Pop.Test:8080/a?b", Target(("a",), "b")),
    ("absolute form of the address", "GET", "http://198.51.100.1/a", Target(("a",), "")),
    ("absolute form of the v6 address", "GET", "http://[fd5e:ed9e::1]:80/a", Target(("a",), "")),
    ("absolute form without a path", "GET", "http://pop.test", Target((), "")),
    ("absolute form with a query only", "GET", "http://pop.test?a", Target((), "a")),
]

BAD = [
    ("GET *", "GET", "*", Reason.BAD_REQUEST),
    ("no leading slash", "GET", "a", Reason.BAD_REQUEST),
    ("empty", "GET", "", Reason.BAD_REQUEST),
    ("authority form", "CONNECT", "pop.test:80", Reason.BAD_REQUEST),
    ("another host", "GET", "http://other.test/a", Reason.MISDIRECTED),
    ("a host that only ends like ours", "GET", "http://evilpop.test/a", Reason.MISDIRECTED),
    ("a user in the authority", "GET", "http://pop.test@other.test/a", Reason.BAD_REQUEST),
    ("no host", "GET", "http:///a", Reason.BAD_REQUEST),
    ("another scheme", "GET", "ftp://pop.test/a", Reason.BAD_REQUEST),
    ("absolute form with dot-dot", "GET", "http://pop.test/../a", Reason.BAD_REQUEST),
    ("dot-dot", "GET", "/a/../b", Reason.BAD_REQUEST),
    ("dot", "GET", "/a/./b", Reason.BAD_REQUEST),
    ("dot-dot last", "GET", "/a/..", Reason.BAD_REQUEST),
    ("escaped dot-dot", "GET", "/a/%2e%2E/b", Reason.BAD_REQUEST),
    ("mixed dot-dot", "GET", "/a/.%2e/b", Reason.BAD_REQUEST),
    ("escaped slash", "GET", "/a%2fb", Reason.BAD_REQUEST),
    ("double slash first", "GET", "//a", Reason.BAD_REQUEST),
    ("double slash inside", "GET", "/a//b", Reason.BAD_REQUEST),
    ("double slash last", "GET", "/a//", Reason.BAD_REQUEST),
    ("backslash", "GET", "/a\\b", Reason.BAD_REQUEST),
    ("escaped backslash", "GET", "/a%5Cb", Reason.BAD_REQUEST),
    ("escaped NUL", "GET", "/a%00", Reason.BAD_REQUEST),
    ("escaped delete", "GET", "/a%7f", Reason.BAD_REQUEST),
    ("escape cut short", "GET", "/a%4", Reason.BAD_REQUEST),
    ("escape of no digits", "GET", "/a%zz", Reason.BAD_REQUEST),
    ("escapes that are not UTF-8", "GET", "/%ff%fe", Reason.BAD_REQUEST),
    ("overlong slash", "GET", "/%c0%af", Reason.BAD_REQUEST),
    ("raw non-ASCII", "GET", "/modèle", Reason.BAD_REQUEST),
    ("fragment", "GET", "/a#b", Reason.BAD_REQUEST),
    ("fragment in the query", "GET", "/a?b#c", Reason.BAD_REQUEST),
    ("blank in the query", "GET", "/a?b c", Reason.BAD_REQUEST),
    ("angle bracket", "GET", "/<a>", Reason.BAD_REQUEST),
]


@pytest.mark.parametrize(("sentence", "method", "raw", "target"), GOOD, ids=[row[0] for row in GOOD])
def test_good(sentence: str, method: str, raw: str, target: Target) -> None:
    assert parse_target(method, raw, HOSTS) == target, sentence


@pytest.mark.parametrize(("sentence", "method", "raw", "reason"), BAD, ids=[row[0] for row in BAD])
def test_bad(sentence: str, method: str, raw: str, reason: Reason) -> None:
    with pytest.raises(EdgeError) as caught:
        parse_target(method, raw, HOSTS)
    assert caught.value.reason == reason, sentence


@given(st.text(alphabet="/.%2eEfF5cC0aAb\\?#~é", max_size=24))
def test_whatever_passes_has_no_segment_that_walks_or_hides(raw: str) -> None:
    try:
        target = parse_target("GET", "/" + raw, HOSTS)
    except EdgeError:
        return
    assert not {".", ".."} & set(target.path)
    assert "" not in target.path[:-1]
    for segment in target.path:
        assert not set(segment) & {"/", "\\", "\0"}
