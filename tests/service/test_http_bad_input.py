"""The bad-input table against a real front door: status, what the handler saw, and how it ends."""

import asyncio
import json

import pytest

from edge.http.request import Request
from edge.http.respond import Response
from edge.limits import HttpLimits
from tests.support.doors import Address, Recorder, front_door
from tests.support.rawhttp import CASES, Case, Raw, get, post, talk


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.sentence)
async def test_bad_input_is_answered_as_the_table_says(case: Case) -> None:
    recorder = Recorder()
    async with front_door(recorder) as (_, address):
        found = await asyncio.to_thread(talk, address, case.payload, closes=case.closes)
    assert found.statuses == list(case.statuses), found
    assert len(recorder.seen) == case.requests, [request.path for request in recorder.seen]
    assert found.ended == ("closed" if case.closes else "open")
    for answer in found.answers:
        assert "server" not in answer.headers
        if answer.status >= 400 and case.requests == 0:
            assert answer.headers["content-type"] == "application/json"
            assert isinstance(json.loads(answer.body)["error"], str)
            assert answer.headers["edge-drop-reason"]
            assert answer.headers["connection"] == "close"


async def test_no_error_repeats_what_the_client_sent() -> None:
    marker = b"SECRETMARKER"
    async with front_door(Recorder()) as (_, address):
        for payload in (
            get(b"/" + marker + b"/../x"),
            get(b"/a", b"X: " + marker + b"\xff"),
            b"GET /a " + marker + b"\r\n",
            get(b"http://" + marker + b"/"),
            get(b"/a", b"Connection: host," + marker),
            post(b"Content-Length: " + marker),
        ):
            found = await asyncio.to_thread(talk, address, payload, closes=True)
            assert found.statuses[0] >= 400
            assert marker not in found.answers[0].body
            assert marker.decode() not in str(found.answers[0].headers)


async def test_what_no_client_may_say_never_reaches_the_handler() -> None:
    """Entries 55, 57, 58, 60, 62, 63: hop-by-hop, nominated, forged and underscored headers."""
    recorder = Recorder()
    payload = get(
        b"/a",
        b"Connection: close, X-Mine",
        b"X-Mine: 1",
        b"Keep-Alive: 5",
        b"TE: trailers",
        b"Proxy-Authorization: x",
        b"Edge-Hop: 1",
        b"Edge-Pop: fra",
        b"Edge_Deadline_Ms: 1",
        b"x_edge_hop: 1",
        b"Edge-Deadline-Ms: 250",
        b"X-Request-Id: r-1",
    )
    async with front_door(recorder) as (_, address):
        await asyncio.to_thread(talk, address, payload, closes=True)
    assert sorted(recorder.seen[0].headers) == [
        ("edge-deadline-ms", "250"),
        ("host", "pop.test"),
        ("x-request-id", "r-1"),
    ]


async def test_a_trailer_stays_out_of_the_next_connection_and_the_next_request() -> None:
    recorder = Recorder()
    smuggled = (
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nEdge-Session: stolen\r\n\r\n"
        + get(b"/next")
    )
    async with front_door(recorder) as (_, address):
        found = await asyncio.to_thread(talk, address, smuggled, closes=True)
    assert found.statuses == [200]
    assert [request.path for request in recorder.seen] == [("echo",)]
    assert recorder.seen[0].headers.get("edge-session") is None


async def test_a_body_over_the_cap_is_answered_413_and_the_client_sees_it_20_of_20_times() -> None:
    """Entry 73. The client writes all of its 8 MiB before it reads, as many HTTP libraries do."""
    limits = HttpLimits(max_body_bytes=1 << 20)
    recorder = Recorder()
    size = 8 << 20

    def upload(address: Address, head: bytes) -> int:
        with Raw(address) as raw:
            raw.send(head)
            for _ in range(size // 65536):
                raw.send(b"x" * 65536)
            return raw.answer().status

    async with front_door(recorder, limits) as (door, address):
        statuses = [
            await asyncio.to_thread(upload, address, post(b"Content-Length: %d" % size)) for _ in range(10)
        ] + [
            await asyncio.to_thread(
                upload, address, post(b"Transfer-Encoding: chunked", body=b"%x\r\n" % size)
            )
            for _ in range(10)
        ]
        assert statuses == [413] * 20
        assert recorder.seen == []
        assert door.statistics().bad == {"too-large": 20}


async def test_twenty_thousand_pipelined_requests_are_answered_in_order_within_bounds() -> None:
    """Entry 75."""
    limits = HttpLimits()
    recorder = Recorder()
    held: list[int] = []
    count = 20_000
    payload = b"".join(get(b"/%d" % number) for number in range(count - 1)) + get(
        b"/end", b"Connection: close"
    )

    async def watched(request: Request) -> Response:
        held.extend(connection._in.parser.held_bytes for connection in door._connections)
        return await recorder(request)

    async with front_door(watched, limits) as (door, address):
        found = await asyncio.to_thread(talk, address, payload, closes=True, timeout_s=60.0)
    assert found.statuses == [200] * count
    assert [request.path[0] for request in recorder.seen[:-1]] == [str(number) for number in range(count - 1)]
    assert max(held) <= limits.max_buffered_bytes + 256 * 1024  # the bound, and one read of the transport


async def test_tiny_chunks_are_refused_before_they_cost_a_core() -> None:
    """Entry 76, its second half: 1 MiB in chunks of one byte."""
    async with front_door(Recorder()) as (_, address):
        payload = post(b"Transfer-Encoding: chunked", body=b"1\r\nx\r\n" * (1 << 20) + b"0\r\n\r\n")
        found = await asyncio.to_thread(talk, address, payload, closes=True)
    assert found.statuses == [400]
    assert "chunks" in str(found.answers[0].json()["error"])
