"""Redis's protocol as the lab speaks it, against a socket that says what a Redis may say, and worse."""

import socket

import pytest

from netlab import resp


def asked(answers: bytes, *words: str, closed: bool = True) -> tuple[resp.Value, bytes]:
    """(what `ask` made of the answers, what was sent to get them)."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.2)
        theirs.sendall(answers)
        if closed:
            theirs.shutdown(socket.SHUT_WR)
        return resp.ask(ours, "lab", "secret", words), theirs.recv(65536)


@pytest.mark.parametrize(
    ("what", "raw", "value"),
    [
        ("a status", b"+PONG\r\n", "PONG"),
        ("a number", b":-3\r\n", -3),
        ("bytes with a line's end among them", b"$4\r\na\r\nb\r\n", "a\r\nb"),
        ("nothing at all", b"$-1\r\n", None),
        ("no list", b"*-1\r\n", None),
        ("lists in lists", b"*2\r\n*1\r\n:1\r\n$0\r\n\r\n", [[1], ""]),
    ],
)
def test_what_redis_says(what: str, raw: bytes, value: resp.Value) -> None:
    assert asked(b"+OK\r\n" + raw, "PING")[0] == value, what


def test_the_user_comes_first() -> None:
    sent = asked(b"+OK\r\n+OK\r\n", "SET", "k", "\u00e9")[1]
    assert sent == (
        b"*3\r\n$4\r\nAUTH\r\n$3\r\nlab\r\n$6\r\nsecret\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n\xc3\xa9\r\n"
    )


def test_a_refusal_is_in_its_own_words() -> None:
    with pytest.raises(resp.RedisError, match="WRONGPASS invalid"):
        asked(b"-WRONGPASS invalid\r\n", "PING")


@pytest.mark.parametrize(
    ("what", "raw"),
    [
        ("it closes at once", b""),
        ("it closes in a line", b"+PON"),
        ("it closes in a text", b"$9\r\nabc"),
        ("another protocol", b"HTTP/1.1 400 Bad Request\r\n"),
        ("a length that is none", b"$x\r\n"),
        ("a text without bound", b"$99999999999\r\n"),
        ("a list without bound", b"*99999999999\r\n"),
        ("lists without end", b"*1\r\n" * 50),
    ],
)
def test_what_is_no_answer_is_an_error(what: str, raw: bytes) -> None:
    with pytest.raises(ConnectionError):
        asked(b"+OK\r\n" + raw, "PING")


def test_silence_is_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        asked(b"+OK\r\n", "PING", closed=False)
