"""The client's end of a TLS connection, against the interpreter's own server end."""

import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from edge.weights.tls import context
from edge.weights.tlsstream import TlsStream
from netlab.ca import Ca, write_ca
from tests.support.region import papers

RECORD = 16 * 1024


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return write_ca(tmp_path_factory.mktemp("ca"))


class Ends:
    """Both ends of one connection."""

    def __init__(self, ca: Ca) -> None:
        self.plain, other = socket.socketpair()
        self.plain.settimeout(2.0)
        self.other = context(ssl.Purpose.CLIENT_AUTH, papers(ca, "fra-a")).wrap_socket(
            other, server_side=True, do_handshake_on_connect=False
        )
        self.tls = context(ssl.Purpose.SERVER_AUTH, papers(ca, "ber-a"))

    def opened(self) -> TlsStream:
        thread = threading.Thread(target=self.other.do_handshake)
        thread.start()
        stream = TlsStream(self.plain, self.tls, "fra-a")
        thread.join()
        return stream


@pytest.fixture
def ends(ca: Ca) -> Iterator[Ends]:
    made = Ends(ca)
    yield made
    made.plain.close()
    made.other.close()


def test_one_read_takes_all_records_that_are_there_and_no_more(ends: Ends) -> None:
    stream, sent = ends.opened(), bytes(range(256)) * (4 * RECORD // 256)
    ends.other.sendall(sent)
    room = bytearray(len(sent) + 100)
    assert stream.readinto(room) == len(sent)
    assert room[: len(sent)] == sent
    ends.other.sendall(b"more than fits")
    part = bytearray(4)
    assert (stream.readinto(part), part) == (4, b"more")
    rest = bytearray(100)
    assert bytes(rest[: stream.readinto(rest)]) == b" than fits"


def test_the_other_side_reads_what_is_sent_and_a_silent_one_is_a_timeout(ends: Ends) -> None:
    stream = ends.opened()
    stream.sendall(b"GET /")
    assert ends.other.recv(100) == b"GET /"
    stream.settimeout(0.05)
    with pytest.raises(TimeoutError):
        stream.readinto(bytearray(1))


def test_a_connection_that_is_cut_is_at_its_end(ends: Ends) -> None:
    stream = ends.opened()
    ends.other.sendall(b"last")
    ends.other.close()
    room = bytearray(100)
    assert [stream.readinto(room) for _ in range(3)] == [4, 0, 0]


def test_bytes_that_are_no_tls_are_an_error(ends: Ends) -> None:
    stream = ends.opened()
    with socket.socket(fileno=ends.other.detach()) as plain:
        plain.sendall(b"HTTP/1.1 200 OK")
    with pytest.raises(ssl.SSLError):
        stream.readinto(bytearray(100))


def test_a_connection_is_closed_once_its_reader_is(ends: Ends) -> None:
    stream = ends.opened()
    reader = stream.makefile("rb")
    stream.close()
    ends.other.sendall(b"still here")
    assert reader.read(10) == b"still here"
    reader.close()
    reader.close()
    assert ends.plain.fileno() == -1
