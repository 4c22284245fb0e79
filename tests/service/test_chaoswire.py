"""A user who trusts nobody, against a server that says exactly these bytes and then does that."""

import asyncio
import socket
import struct

import pytest

from netlab.chaoswire import GarbledError, LostError, Reply, connect

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"
WHOLE = ANSWER + b"\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
RESET = struct.pack("ii", 1, 0)

CASES = [
    ("whole", WHOLE, "close", "200 hello"),
    ("chunked", CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", "close", "200 hello"),
    ("a body that ends early", ANSWER + b"\r\nhel", "close", "truncated"),
    ("the same with a reset", ANSWER + b"\r\nhel", "reset", "truncated"),
    ("half a head", ANSWER, "close", "truncated"),
    ("chunks without the last", CHUNKED + b"3\r\nhel\r\n", "close", "truncated"),
    ("nothing", b"", "close", "closed"),
    ("a reset", b"", "reset", "reset"),
    ("no length at all", b"HTTP/1.1 200 OK\r\n\r\nhello", "close", "garbled"),
    ("another protocol", b"SSH-2.0-x\r\n\r\n", "close", "garbled"),
    ("a length that is none", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "close", "garbled"),
    ("a chunk's length that is none", CHUNKED + b"zz\r\n", "close", "garbled"),
]


async def outcome(data: bytes, end: str) -> tuple[str, int]:
    """What the user has, and how many bytes lay behind it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()
        if end == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        wire = await connect(*server.sockets[0].getsockname())
        try:
            async with asyncio.timeout(10):
                reply: Reply = await wire.exchange(b"GET / HTTP/1.1\r\n\r\n")
        except LostError as lost:
            return lost.how, wire.surplus
        except GarbledError:
            return "garbled", 0
        finally:
            wire.abort()
        return f"{reply.status} {reply.body.decode()}", wire.surplus


@pytest.mark.parametrize(("sentence", "data", "end", "seen"), CASES, ids=[case[0] for case in CASES])
async def test_each_end_has_its_own_name(sentence: str, data: bytes, end: str, seen: str) -> None:
    assert (await outcome(data, end))[0] == seen, sentence


async def test_bytes_behind_an_answer_are_seen() -> None:
    assert await outcome(WHOLE + WHOLE, "close") == ("200 hello", len(WHOLE))


async def test_who_does_not_listen_refuses() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(LostError, match="refused"):
            await connect(*free.getsockname())
