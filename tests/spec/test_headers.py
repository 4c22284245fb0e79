"""`headers.py` and the head of an answer in `respond.py`: what comes in, what goes on, what goes out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import EdgeError, Reason
from edge.http.headers import (
    admit,
    edge_headers,
    request_id,
    safe_value,
    server_timing,
)
from edge.http.respond import Response, encode_head, error_response

DROPPED = [
    ("hop-by-hop", [(b"keep-alive", b"5"), (b"te", b"trailers"), (b"upgrade", b"h2c"), (b"trailer", b"x")]),
    ("proxy credentials", [(b"proxy-authorization", b"x"), (b"proxy-connection", b"x")]),
    ("what Connection nominates", [(b"connection", b"close, X-Mine"), (b"x-mine", b"1")]),
    ("what it nominates before", [(b"x-mine", b"1"), (b"connection", b"x-mine")]),
    ("Edge-* that is not a request header", [(b"edge-hop", b"1"), (b"edge-pop", b"fra"), (b"edge-", b"x")]),
    ("underscore twins", [(b"edge_deadline_ms", b"1"), (b"x_edge_hop", b"1"), (b"content_length", b"1")]),
    ("an expectation, which the door meets", [(b"expect", b"100-continue")]),
]

REFUSED = [
    ("Content-Type twice", [(b"content-type", b"a"), (b"content-type", b"a")], Reason.BAD_REQUEST),
    ("Authorization twice", [(b"authorization", b"a"), (b"authorization", b"b")], Reason.BAD_REQUEST),
    ("an Edge request header twice", [(b"edge-cold", b"far"), (b"edge-cold", b"wait")], Reason.BAD_REQUEST),
    ("nominating Host", [(b"connection", b"close , Host")], Reason.BAD_REQUEST),
    ("nominating Authorization", [(b"connection", b"authorization")], Reason.BAD_REQUEST),
    ("nominating a length", [(b"connection", b"content-length")], Reason.BAD_REQUEST),
    ("nominating an Edge header", [(b"connection", b"edge-deadline-ms")], Reason.BAD_REQUEST),
    ("another expectation", [(b"expect", b"200-ok")], Reason.BAD_EXPECTATION),
]


@pytest.mark.parametrize(("sentence", "raw"), DROPPED, ids=[row[0] for row in DROPPED])
def test_dropped(sentence: str, raw: list[tuple[bytes, bytes]]) -> None:
    kept = (b"accept", b"*/*")
    assert list(admit([kept, *raw])) == [("accept", "*/*")], sentence


@pytest.mark.parametrize(("sentence", "raw", "reason"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refused(sentence: str, raw: list[tuple[bytes, bytes]], reason: Reason) -> None:
    with pytest.raises(EdgeError) as caught:
        admit(raw)
    assert caught.value.reason == reason, sentence


def test_headers_are_found_in_any_case_and_kept_in_order() -> None:
    headers = admit([(b"accept", b"a"), (b"x-y", b"1"), (b"accept", b"b")])
    assert headers.get("Accept") == headers.get("accept") == "a"
    assert headers.getall("ACCEPT") == ("a", "b")
    assert headers.get("none") is None
    assert headers.getall("none") == ()
    assert list(headers) == [("accept", "a"), ("accept", "b"), ("x-y", "1")]
    assert admit([(b"x", b"")]).get("x") == ""


REQUEST_IDS = [
    ("a good one is kept", "A-z.0_9", "A-z.0_9"),
    ("128 characters are kept", "a" * 128, "a" * 128),
    ("129 are not", "a" * 129, "fresh"),
    ("an empty one is not", "", "fresh"),
    ("one with a blank is not", "a b", "fresh"),
    ("one with a line end is not", "a\n", "fresh"),
    ("none", None, "fresh"),
]


@pytest.mark.parametrize(("sentence", "given_id", "used"), REQUEST_IDS, ids=[row[0] for row in REQUEST_IDS])
def test_request_ids(sentence: str, given_id: str | None, used: str) -> None:
    assert request_id(given_id, "fresh") == used, sentence


def test_edge_headers_are_those_that_are_given() -> None:
    assert edge_headers() == []
    assert edge_headers(
        pop="iad",
        served_by="iad-b/0",
        route="serve;reason=local",
        residency="device",
        server_timing_ms=[("route", 0.0214), ("infer", 4.25), ("hop", 123.4)],
        request_id="r-1",
        drop_reason=Reason.NO_ENDPOINT,
        retry_after_s=2,
    ) == [
        ("Edge-Pop", "iad"),
        ("Edge-Served-By", "iad-b/0"),
        ("Edge-Route", "serve;reason=local"),
        ("Edge-Residency", "device"),
        ("Edge-Request-Id", "r-1"),
        ("Edge-Drop-Reason", "no-endpoint"),
        ("Server-Timing", "route;dur=0.0214, infer;dur=4.25, hop;dur=123"),
        ("Retry-After", "2"),
    ]


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\rb", "a\nb", "a\0b", "a\x7fb", "é"])
def test_what_can_not_stand_in_a_header_raises(value: str) -> None:
    with pytest.raises(ValueError, match="can't stand in a header"):
        safe_value(value)
    with pytest.raises(ValueError, match="can't stand in a header"):
        edge_headers(route=value)
    with pytest.raises(ValueError, match="can't stand in a header"):
        server_timing([(value, 1.0)])


# -- answers ----------------------------------------------------------------------------------


def test_a_plain_answer() -> None:
    answer = Response(200, [("Edge-Pop", "iad")], b"abc", "text/plain")
    assert encode_head(answer, close=False, chunked=False) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nEdge-Pop: iad\r\n\r\n"
    )


def test_the_last_answer_of_a_connection_says_so() -> None:
    assert b"Connection: close\r\n" in encode_head(Response(200, [], b"", "a/b"), close=True, chunked=False)


def test_no_content_has_neither_type_nor_length() -> None:
    assert (
        encode_head(Response(204, [], b"", ""), close=False, chunked=False)
        == b"HTTP/1.1 204 No Content\r\n\r\n"
    )


@pytest.mark.parametrize(
    "name", ["Content-Length", "transfer-encoding", "Connection", "Content-Type", "a b", "", "a:"]
)
def test_framing_headers_and_non_names_are_not_the_handlers(name: str) -> None:
    with pytest.raises(ValueError, match=r"header"):
        encode_head(Response(200, [(name, "x")], b"", "a/b"), close=False, chunked=False)


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_value_adds_a_line_to_an_answer(value: str, content_type: str) -> None:
    try:
        head = encode_head(Response(200, [("X-A", value)], b"", content_type), close=False, chunked=False)
    except (ValueError, UnicodeEncodeError):
        return
    assert head.count(b"\r\n") == head.count(b"\n") == head.count(b"\r") == 5
    assert b"\0" not in head


def test_an_error_is_json_with_a_reason_and_a_wait_where_one_helps() -> None:
    shed = error_response(EdgeError(Reason.NO_ENDPOINT, "no worker here"), 3)
    assert shed.status == 503
    assert isinstance(shed.body, bytes)
    assert json.loads(shed.body) == {"error": "no worker here"}
    assert list(shed.headers) == [("Edge-Drop-Reason", "no-endpoint"), ("Retry-After", "3")]
    told = error_response(EdgeError(Reason.SATURATED, "full", retry_after_s=9), 3)
    assert ("Retry-After", "9") in told.headers
    wrong = error_response(EdgeError(Reason.BAD_METHOD, "no"), 3, [("Edge-Pop", "iad")])
    assert list(wrong.headers) == [
        ("Edge-Pop", "iad"),
        ("Edge-Drop-Reason", "bad-method"),
        ("Allow", "GET, HEAD, POST"),
    ]
