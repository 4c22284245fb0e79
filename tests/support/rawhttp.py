"""Raw HTTP over sockets, and the table of bad input that any door of ours has to answer as written.

The table (`CASES`) needs only an address, so it can be held against a live POP as well: `requests` is
then not checked, everything else is. Numbers are the entries of the catalogue the cases come from.
It imports nothing of edge.
"""

import json
import socket
import threading
from dataclasses import dataclass, field

TIMEOUT_S = 10.0
HOST = b"Host: pop.test\r\n"
#: Sent behind a case that must leave the connection open; any answer to it proves that it is.
PROBE = b"GET /alive HTTP/1.1\r\n" + HOST + b"\r\n"


@dataclass(frozen=True)
class Answer:
    """One response; `headers` by lower-case name."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        decoded = json.loads(self.body)
        assert isinstance(decoded, dict)
        return decoded


@dataclass
class Talk:
    """What came back on one connection. `ended` is "open", "closed" (FIN) or "reset"."""

    answers: list[Answer] = field(default_factory=list)
    ended: str = "open"

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers]


class Raw:
    """A client that sends exactly the bytes it is told to."""

    def __init__(self, address: tuple[str, int], timeout_s: float = TIMEOUT_S) -> None:
        self.sock = socket.create_connection(address, timeout=timeout_s)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = bytearray()

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_each(self, pieces: list[bytes]) -> None:
        """One segment per piece, as far as a client can decide that."""
        for piece in pieces:
            self.sock.sendall(piece)

    def _more(self) -> bool:
        data = self.sock.recv(65536)
        self._data += data
        return bool(data)

    def answer(self, *, head_only: bool = False) -> Answer:
        """The next response. Raises ConnectionError if the connection ends first."""
        while (end := self._data.find(b"\r\n\r\n")) < 0:
            if not self._more():
                raise ConnectionError(f"closed inside an answer: {bytes(self._data)!r}")
        lines = bytes(self._data[:end]).decode("latin-1").split("\r\n")
        del self._data[: end + 4]
        status = int(lines[0].split(" ")[1])
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
        if status in {100, 204} or head_only:
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, self._chunks())
        if "content-length" not in headers:
            while self._more():
                pass
            body, self._data = bytes(self._data), bytearray()
            return Answer(status, headers, body)
        return Answer(status, headers, self._take(int(headers["content-length"])))

    def _take(self, size: int) -> bytes:
        while len(self._data) < size:
            if not self._more():
                raise ConnectionError(f"closed with {len(self._data)} of {size} bytes")
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken

    def _chunks(self) -> bytes:
        body = b""
        while True:
            while (eol := self._data.find(b"\r\n")) < 0:
                if not self._more():
                    raise ConnectionError("closed inside a chunk size")
            size = int(self._take(eol + 2).strip(), 16)
            piece = self._take(size + 2)
            if not size:
                return body
            body += piece[:-2]

    def ending(self) -> str:
        """Read to the end of the connection: "closed" or "reset". Answers in between are dropped."""
        try:
            while self._more():
                pass
        except ConnectionResetError:
            return "reset"
        return "closed"


def talk(address: tuple[str, int], payload: bytes, *, closes: bool, timeout_s: float = TIMEOUT_S) -> Talk:
    """Send `payload`; collect the answers until the connection ends or, if it should stay open, PROBE is answered."""
    found = Talk()
    with Raw(address, timeout_s) as raw:
        # Sending and reading side by side: a door may answer and close before it has read everything.
        sender = threading.Thread(target=_send, args=(raw, payload if closes else payload + PROBE))
        sender.start()
        try:
            while True:
                found.answers.append(raw.answer())
                if not closes and found.answers[-1].headers.get("x-alive") is not None:
                    found.answers.pop()
                    return found
        except ConnectionResetError:
            found.ended = "reset"
        except ConnectionError:
            found.ended = "closed"
        finally:
            sender.join()
    return found


def _send(raw: Raw, payload: bytes) -> None:
    try:
        raw.send(payload)
    except OSError:
        return  # the door closed on us: that is what the reader reports


@dataclass(frozen=True)
class Case:
    """One row: what is sent, which statuses are due, how many requests a handler may see, whether it closes."""

    sentence: str
    payload: bytes
    statuses: tuple[int, ...]
    requests: int
    closes: bool = True


def get(target: bytes, *headers: bytes) -> bytes:
    """A GET of `target` with a Host and these header lines."""
    return b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in headers) + b"\r\n"


def post(*headers: bytes, body: bytes = b"") -> bytes:
    """A POST with exactly these header lines (and Host), then `body`."""
    return b"POST /echo HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in headers) + b"\r\n" + body


def chunked(body: bytes, *headers: bytes) -> bytes:
    """A chunked POST with `body` as its raw chunked form."""
    return post(b"Transfer-Encoding: chunked", *headers, body=body)


def refused(sentence: str, payload: bytes, *statuses: int) -> Case:
    """The door answers once with one of... exactly these, no handler runs, the connection ends."""
    return Case(sentence, payload, statuses, 0)


CASES: list[Case] = [
    # -- framing, 1-30
    refused("1 Content-Length before Transfer-Encoding", post(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
    refused("2 Transfer-Encoding before Content-Length", post(b"Transfer-Encoding: chunked", b"Content-Length: 3", body=b"0\r\n\r\n"), 400),
    refused("3 two lengths that differ", post(b"Content-Length: 3", b"Content-Length: 4", body=b"abcd"), 400),
    refused("4 two lengths that agree", post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"), 400),
    refused("5 a list of lengths", post(b"Content-Length: 3, 3", body=b"abc"), 400),
    refused("6 length with a plus", post(b"Content-Length: +3", body=b"abc"), 400),
    refused("7 negative length", post(b"Content-Length: -1", body=b"abc"), 400),
    refused("8 length with an underscore", post(b"Content-Length: 1_0", body=b"abcdefghij"), 400),
    refused("9 hexadecimal length", post(b"Content-Length: 0x3", body=b"abc"), 400),
    refused("10 empty length", post(b"Content-Length:", body=b"abc"), 400),
    refused("11 length in other digits", post("Content-Length: ٣".encode(), body=b"abc"), 400),
    refused("12 length above 2^63", post(b"Content-Length: 9223372036854775809"), 413),
    refused("12 length above 2^64", post(b"Content-Length: 18446744073709551619"), 413),
    refused("12 length of 5000 digits", post(b"Content-Length: " + b"9" * 5000), 413),
    refused("13 blank before the colon", post(b"Content-Length : 3", body=b"abc"), 400),
    refused("14 unknown coding", post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), 501),
    refused("15 chunked is not last", post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"), 400),
    refused("16 gzip then chunked", post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
    refused("17 Transfer-Encoding twice", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
    refused("17 chunked twice in one", post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"), 400),
    refused("18 coding behind a vertical tab", post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"), 400),
    refused("19 coding in HTTP/1.0", b"POST /echo HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    refused("20 folded header", get(b"/a", b"X: a", b" b"), 400),
    refused("20 folded first header", b"GET /a HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    refused("21 NUL in a value", get(b"/a", b"X: a\0b"), 400),
    refused("21 NUL in a name", get(b"/a", b"X\0: a"), 400),
    refused("21 bare CR in a value", get(b"/a", b"X: a\rb"), 400),
    refused("21 bare LF between headers", b"GET /a HTTP/1.1\r\nX: a\n" + HOST + b"\r\n", 400),
    refused("21 bare LF everywhere", b"GET /a HTTP/1.1\nHost: x\n\n", 400),
    refused("21 bare LF ends the block", b"GET /a HTTP/1.1\r\nHost: x\r\n\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    refused("21 value that is not UTF-8", get(b"/a", b"X: \xff\xfe"), 400),
    refused("21 header name that is no token", get(b"/a", b"X(y): a"), 400),
    refused("21 header line without a colon", get(b"/a", b"nothing"), 400),
    refused("22 chunk size 0x3", chunked(b"0x3\r\nabc\r\n0\r\n\r\n"), 400),
    refused("22 chunk size +3", chunked(b"+3\r\nabc\r\n0\r\n\r\n"), 400),
    refused("22 chunk size 0_3", chunked(b"0_3\r\nabc\r\n0\r\n\r\n"), 400),
    refused("22 chunk size -1", chunked(b"-1\r\nabc\r\n0\r\n\r\n"), 400),
    refused("22 chunk size behind a blank", chunked(b" 3\r\nabc\r\n0\r\n\r\n"), 400),
    refused("22 empty chunk size", chunked(b"\r\nabc\r\n0\r\n\r\n"), 400),
    refused("23 chunk above 2^63", chunked(b"8000000000000003\r\nabc\r\n0\r\n\r\n"), 400),
    refused("23 chunk above 2^64", chunked(b"10000000000000003\r\nabc\r\n0\r\n\r\n"), 400),
    refused("23 chunk size with leading zeros", chunked(b"00000000000000003\r\nabc\r\n0\r\n\r\n"), 400),
    refused("23 chunk above the body cap", chunked(b"7fffffff\r\nabc\r\n"), 413),
    refused("24 LF in an extension", chunked(b"3;a\nb\r\nabc\r\n0\r\n\r\n"), 400),
    refused("24 CR in an extension", chunked(b"3;a\rb\r\nabc\r\n0\r\n\r\n"), 400),
    refused("24 chunk line that ends in LF", chunked(b"3\nabc\r\n0\r\n\r\n"), 400),
    refused("25 one extension of 5000 bytes", chunked(b"3;" + b"e" * 5000 + b"\r\nabc\r\n0\r\n\r\n"), 400),
    refused("25 extensions of 5000 bytes in all", chunked(b"1;" + b"e" * 48 + b"\r\na\r\n" + (b"1;" + b"e" * 48 + b"\r\na\r\n") * 100 + b"0\r\n\r\n"), 400),
    refused("26 chunk longer than its size", chunked(b"3\r\nabcd\r\n0\r\n\r\n"), 400),
    Case("28 trailers with framing names are dropped", chunked(b"3\r\nabc\r\n0\r\nContent-Length: 9\r\nEdge-Hop: 9\r\n\r\n"), (200,), 1),
    refused("28 more than 32 trailers", chunked(b"3\r\nabc\r\n0\r\n" + b"X: y\r\n" * 33 + b"\r\n"), 431),
    refused("28 a trailer of 9000 bytes", chunked(b"0\r\nX: " + b"y" * 9000 + b"\r\n\r\n"), 431),
    refused("28 a trailer that is no header", chunked(b"0\r\nno header\r\n\r\n"), 400),
    Case("29 a request hidden behind the last chunk is not one", chunked(b"0\r\n\r\n" + get(b"/smug")), (200,), 1),
    Case("29 a request as chunk data is data", chunked(b"2c\r\n" + get(b"/smug", b"X: 12345")[:0x2C].ljust(0x2C) + b"\r\n0\r\n\r\n"), (200,), 1),
    Case("30 body behind a GET without length is a second request", get(b"/a") + get(b"/b"), (200, 200), 2, closes=False),
    Case("30 garbage behind a good request costs only the garbage", get(b"/a") + b"garbage\r\n\r\n", (200, 400), 1),
    # -- target and headers, 31-54
    refused("31 no Host", b"GET /a HTTP/1.1\r\n\r\n", 400),
    refused("32 two Hosts", get(b"/a", b"Host: other.test"), 400),
    refused("33 Host with a path and a user", b"GET /a HTTP/1.1\r\nHost: a/b@c\r\n\r\n", 400),
    refused("33 empty Host", b"GET /a HTTP/1.1\r\nHost:\r\n\r\n", 400),
    refused("33 Host with two ports", b"GET /a HTTP/1.1\r\nHost: a:1:2\r\n\r\n", 400),
    refused("34 absolute form of another host", get(b"http://other.test/a"), 421),
    refused("34 absolute form with a user", get(b"http://me@pop.test/a"), 400),
    refused("34 absolute form of another scheme", get(b"ftp://pop.test/a"), 400),
    refused("35 CONNECT", b"CONNECT pop.test:443 HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    Case("36 OPTIONS *", b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", (204,), 0, closes=False),
    refused("37 GET *", get(b"*"), 400),
    refused("38 dot-dot segment", get(b"/v2/models/../../admin"), 400),
    refused("38 dot-dot at the end", get(b"/v2/.."), 400),
    refused("38 dot segment", get(b"/./a"), 400),
    refused("39 escaped dot-dot", get(b"/v2/%2e%2E/admin"), 400),
    refused("39 half-escaped dot-dot", get(b"/v2/.%2e/admin"), 400),
    refused("40 escaped slash in a name", get(b"/v2/models/a%2Fb"), 400),
    Case("41 twice-escaped dot is a name nobody has", get(b"/missing/%252e%252e"), (404,), 1, closes=False),
    refused("42 double slash at the front", get(b"//evil.test/g"), 400),
    refused("42 double slash inside", get(b"/v2//models"), 400),
    refused("43 backslash", get(b"/v2\\models"), 400),
    refused("43 escaped backslash", get(b"/v2/%5cmodels"), 400),
    refused("44 raw UTF-8 in the path", get("/v2/modèle".encode()), 400),
    refused("44 escaped bytes that are not UTF-8", get(b"/v2/%ff"), 400),
    refused("45 escaped NUL", get(b"/v2/%00"), 400),
    refused("45 escaped CR LF", get(b"/v2/a%0d%0ab"), 400),
    refused("45 broken escape", get(b"/v2/%zz"), 400),
    refused("46 fragment", get(b"/v2#x"), 400),
    refused("46 fragment behind a query", get(b"/v2?a#x"), 400),
    refused("47 request line of 9000 bytes", get(b"/" + b"a" * 9000), 414),
    refused("47 request line without end", b"GET /" + b"a" * 20000, 414),
    refused("48 header of 9000 bytes", get(b"/a", b"X: " + b"y" * 9000), 431),
    refused("48 header without end", b"GET /a HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 20000, 431),
    refused("48 headers of 40 000 bytes", get(b"/a", *[b"X: " + b"y" * 4000] * 10), 431),
    refused("48 headers without end", b"GET /a HTTP/1.1\r\n" + HOST + b"X: yyyyyyyyyyyyy\r\n" * 3000, 431),
    refused("49 more than 100 headers", get(b"/a", *[b"X: y"] * 101), 431),
    refused("50 HTTP/0.9", b"GET /a\r\n", 400),
    refused("51 HTTP/2.0", b"GET /a HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    refused("51 HTTP/1.2", b"GET /a HTTP/1.2\r\n" + HOST + b"\r\n", 505),
    refused("51 HTTP/11.1", b"GET /a HTTP/11.1\r\n" + HOST + b"\r\n", 505),
    refused("52 the HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    refused("52 a TLS hello on the plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    refused("53 two blanks in the request line", b"GET  /a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    refused("53 two blanks before the version", b"GET /a  HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    refused("53 tab in the request line", b"GET\t/a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    refused("53 blank behind the version", b"GET /a HTTP/1.1 \r\n" + HOST + b"\r\n", 400),
    refused("54 method in lower case", b"get /a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    refused("54 unknown method", b"BREW /a HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    refused("54 DELETE", b"DELETE /a HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    refused("54 two empty lines first", b"\r\n\r\n" + get(b"/a"), 400),
    # -- semantics at the door, 55-66
    refused("56 Connection nominates Host", get(b"/a", b"Connection: Host"), 400),
    refused("56 Connection nominates Content-Length", post(b"Connection: keep-alive, content-length", b"Content-Length: 1", body=b"a"), 400),
    refused("56 Connection nominates Authorization", get(b"/a", b"Connection: authorization"), 400),
    refused("56 Connection nominates our deadline", get(b"/a", b"Connection: Edge-Deadline-Ms", b"Edge-Deadline-Ms: 5"), 400),
    refused("61 an expectation that nobody knows", post(b"Expect: tea", b"Content-Length: 1", body=b"a"), 417),
    Case("63 Upgrade: h2c is answered plainly, then the end", get(b"/a", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk") + get(b"/b"), (200,), 1),
    Case("63 Upgrade: websocket likewise", get(b"/a", b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x"), (200,), 1),
    refused("64 TRACE", b"TRACE /a HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    refused("65 Content-Type twice", post(b"Content-Type: a/b", b"Content-Type: a/c", b"Content-Length: 0"), 400),
    refused("65 Edge-Deadline-Ms twice", get(b"/a", b"Edge-Deadline-Ms: 5", b"Edge-Deadline-Ms: 6"), 400),
    refused("94 Inference-Header-Content-Length twice", post(b"Inference-Header-Content-Length: 1", b"inference-header-content-length: 2", b"Content-Length: 0"), 400),
    # -- and what has to work
    Case("a chunked POST", chunked(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"), (200,), 1),
    Case("a POST with a length", post(b"Content-Length: 3", body=b"abc"), (200,), 1, closes=False),
    Case("a POST with an empty body", post(b"Content-Length: 0"), (200,), 1, closes=False),
    Case("one empty line before a request", b"\r\n" + get(b"/a"), (200,), 1, closes=False),
    Case("absolute form of our own host", get(b"http://POP.test:80/a?b=c"), (200,), 1, closes=False),
    Case("an escaped blank and an escaped letter", get(b"/v2/%61%20b"), (200,), 1, closes=False),
    Case("Connection: close", get(b"/a", b"Connection: close"), (200,), 1),
    Case("HTTP/1.0 without Host", b"GET /a HTTP/1.0\r\n\r\n", (200,), 1),
    Case("a value in UTF-8", get(b"/a", "X: modèle".encode()), (200,), 1, closes=False),
    Case("three requests at once", get(b"/a") + post(b"Content-Length: 3", body=b"abc") + get(b"/c"), (200, 200, 200), 3, closes=False),
]  # fmt: skip
