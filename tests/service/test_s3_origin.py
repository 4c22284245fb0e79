"""An origin behind real S3 protocol servers: published into, read by ranges, refused and raced as a bucket does."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge.errors import EdgeError, Reason
from edge.weights import manifest as mf
from edge.weights.origin import ChangedError, Origin, OriginError
from edge.weights.publish import SINGLE_PUT_BYTES, Publisher
from tests.support import s3servers, tiny
from tests.support.node import running_node
from tests.support.s3servers import Server
from tests.support.stores import a_store, doubler

CONTENT = os.urandom(300_000)
SIXTEEN = [float(number) for number in range(16)]


class Quiet:
    """A report to nobody."""

    def begins(self, what: str, total_bytes: int) -> None:
        """Not told."""

    def moved(self, count_bytes: int) -> None:
        """Not told."""


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with s3servers.moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="module")
def localbucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with s3servers.localbucket(tmp_path_factory.mktemp("localbucket")) as server:
        yield server


def entered(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Its credentials are in the environment, where a node finds them."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture(params=["moto", "localbucket"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Each of them."""
    return entered(request.getfixturevalue(request.param), monkeypatch)


@pytest.fixture
def strict(moto: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """One that checks who asks, and every condition: localbucket does neither."""
    return entered(moto, monkeypatch)


def origin(server: Server, folder: str = "") -> Origin:
    """A part of the bucket that no other test uses."""
    return Origin(f"{server.url}/{folder}", request_timeout_ms=20_000, stop=threading.Event())


def push(server: Server, folder: str, store: Path) -> int:
    """The epoch after all of a store was published."""
    publisher = Publisher(f"{server.url}/{folder}", stop=threading.Event(), report=Quiet())
    return publisher.push(store, [], None).epoch


def store_of(root: Path, *make: Callable[[Path], mf.Manifest]) -> Path:
    (root / "blobs").mkdir(parents=True)
    return a_store(root, *(one(root / "blobs") for one in make))


def test_an_object_comes_back_whole_and_in_ranges(server: Server) -> None:
    bucket = origin(server, "objects")
    assert bucket.size_bytes("blobs/a") is None
    bucket.put("blobs/a", CONTENT)
    assert bucket.size_bytes("blobs/a") == len(CONTENT)
    size = len(CONTENT)
    for start, end in ((0, size), (0, 1), (100_000, 250_001), (size - 1, size)):
        got = b"".join(bucket.range("blobs/a", start, end, object_bytes=size))
        assert got == CONTENT[start:end], f"{start} to {end}"
    held = bucket.small("blobs/a", size)
    assert held is not None
    assert held.raw == CONTENT


def test_an_object_that_is_known_is_not_sent_again(strict: Server) -> None:
    bucket = origin(strict, "known")
    bucket.put("a", b"one")
    held = bucket.small("a", 10)
    assert held is not None
    assert bucket.small("a", 10, held.etag) is None
    bucket.put("a", b"two")
    assert bucket.small("a", 10, held.etag) is not None


@pytest.mark.parametrize(
    ("what", "ask", "says"),
    [
        ("an object that is not there", lambda o: o.small("nothing", 10), "nothing is not in the origin"),
        ("a range of it", lambda o: list(o.range("nothing", 0, 5, object_bytes=9)), "is not in the origin"),
        ("an object of another size", lambda o: list(o.range("a", 0, 5, object_bytes=9)), "says 9"),
        ("one too large to be small", lambda o: o.small("a", 7), "exceeds 7 bytes"),
    ],
)
def test_what_is_wrong_is_said(server: Server, what: str, ask: Callable[[Origin], object], says: str) -> None:
    bucket = origin(server, "wrong")
    bucket.put("a", b"content!")
    with pytest.raises(OriginError, match=says) as caught:
        ask(bucket)
    assert caught.value.reason is Reason.ORIGIN_DOWN, what


def test_a_bucket_that_is_not_there_is_named_and_asked_once(server: Server, tmp_path: Path) -> None:
    nowhere = Origin("s3://nobody", request_timeout_ms=20_000, stop=threading.Event())
    for ask in (lambda: nowhere.small("catalog.json", 10), lambda: nowhere.put("a", b"x")):
        with pytest.raises(OriginError, match="s3://nobody is not there: make that bucket") as caught:
            ask()
        assert caught.value.lasting
        assert not caught.value.missing, "an empty bucket would be another thing"
    store = store_of(tmp_path / "store", tiny.identity)
    publisher = Publisher("s3://nobody", stop=threading.Event(), report=Quiet())
    with pytest.raises(EdgeError, match="s3://nobody is not there"):
        publisher.push(store, [], None)


def test_a_first_write_is_no_overwrite(server: Server) -> None:
    bucket = origin(server, "first")
    bucket.replace("catalog.json", b"one", None)
    with pytest.raises(ChangedError, match=r"catalog.json in the origin was changed"):
        bucket.replace("catalog.json", b"two", None)
    held = bucket.small("catalog.json", 10)
    assert held is not None
    assert held.raw == b"one"
    bucket.replace("catalog.json", b"two", held)
    assert bucket.small("catalog.json", 10, held.etag) is not None, "another version"


def test_a_write_over_what_was_changed_meanwhile_is_refused(strict: Server) -> None:
    bucket = origin(strict, "changed")
    bucket.replace("catalog.json", b"one", None)
    held = bucket.small("catalog.json", 10)
    bucket.replace("catalog.json", b"two", held)
    with pytest.raises(ChangedError):
        bucket.replace("catalog.json", b"three", held)
    now = bucket.small("catalog.json", 10)
    assert now is not None
    assert now.raw == b"two"


@pytest.mark.parametrize(
    ("what", "name", "value"),
    [
        ("a secret that is not the key's", "AWS_SECRET_ACCESS_KEY", "wrong"),
        ("a key that nobody has", "AWS_ACCESS_KEY_ID", "AKIANOBODY"),
    ],
)
def test_wrong_credentials_are_called_that(
    strict: Server, monkeypatch: pytest.MonkeyPatch, what: str, name: str, value: str
) -> None:
    origin(strict, "secret").put("a", b"x")
    monkeypatch.setenv(name, value)
    stranger = origin(strict, "secret")
    for ask in (
        lambda: stranger.small("a", 10),
        lambda: stranger.size_bytes("a"),
        lambda: list(stranger.range("a", 0, 1, object_bytes=1)),
    ):
        with pytest.raises(OriginError, match="the origin refuses a: check its credentials") as caught:
            ask()
        assert caught.value.lasting, what
    with pytest.raises(OriginError, match="refuses to take a: check its credentials"):
        stranger.put("a", b"y")


def test_a_large_blob_travels_in_parts(server: Server, tmp_path: Path) -> None:
    """S3 takes no part below 5 MiB but the last."""
    store = store_of(tmp_path / "store", lambda folder: tiny.heavy(folder, side=1792))
    largest = max((store / "blobs").iterdir(), key=lambda blob: blob.stat().st_size)
    size = largest.stat().st_size
    assert size > 2 * SINGLE_PUT_BYTES
    assert push(server, "parts", store) == 1
    got = b"".join(origin(server, "parts").range(f"blobs/{largest.name}", 0, size, object_bytes=size))
    assert got == largest.read_bytes()


def test_two_who_publish_at_once_both_get_through(strict: Server, tmp_path: Path) -> None:
    stores = [
        store_of(tmp_path / "one", tiny.identity),
        store_of(tmp_path / "two", tiny.picker),
    ]
    with ThreadPoolExecutor(2) as pool:
        epochs = sorted(pool.map(lambda store: push(strict, "race", store), stores))
    assert epochs == [1, 2]
    held = origin(strict, "race").small("catalog.json", mf.CATALOGUE_MAX_BYTES)
    assert held is not None
    assert set(mf.decode_catalogue(held.raw).models) == {"identity", "picker"}


def test_a_node_serves_what_a_bucket_has(server: Server, tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", tiny.identity, doubler)
    push(server, "node", store)
    with running_node(origin=f"{server.url}/node") as node:
        told = node.request("/run/identity", json.dumps({"input": [SIXTEEN]}))
        assert told.status == 200, told
        assert told.json["version"] == "2"
        assert told.json["outputs"]["y"][0] == [2 * number for number in SIXTEEN]
        assert told.headers["edge-residency"] == "origin"
