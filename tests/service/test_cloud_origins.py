"""Origins in Google's and Azure's object stores, as far as stand-ins of them tell."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.weights import manifest as mf
from edge.weights.origin import ChangedError, Origin, OriginError
from edge.weights.publish import Publisher
from edge.wire import calls
from tests.support import tiny
from tests.support.clouds import Cloud, cloud
from tests.support.region import fleet
from tests.support.stores import a_store
from tests.support.weights import Running

CONTENT = os.urandom(100_000)


class Quiet:
    """A report to nobody."""

    def begins(self, what: str, total_bytes: int) -> None:
        """Not told."""

    def moved(self, count_bytes: int) -> None:
        """Not told."""


@pytest.fixture(params=["gs", "az"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with cloud(request.param, tmp_path) as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def origin(store: Cloud) -> Origin:
    return Origin(store.url, request_timeout_ms=20_000, stop=threading.Event())


def test_an_object_comes_back_whole_and_in_ranges(store: Cloud, origin: Origin) -> None:
    assert origin.size_bytes("blobs/a") is None
    origin.put("blobs/a", CONTENT)
    assert store.objects == {"lab/blobs/a": CONTENT}
    size = len(CONTENT)
    assert origin.size_bytes("blobs/a") == size
    for start, end in ((0, size), (0, 1), (999, 50_001), (size - 1, size)):
        assert b"".join(origin.range("blobs/a", start, end, object_bytes=size)) == CONTENT[start:end]
    held = origin.small("blobs/a", size)
    assert held is not None
    assert held.raw == CONTENT
    assert origin.small("blobs/a", size, held.etag) is None, "it is known"


def test_what_was_changed_meanwhile_is_not_written_over(origin: Origin) -> None:
    origin.replace("catalog.json", b"one", None)
    with pytest.raises(ChangedError):
        origin.replace("catalog.json", b"another first one", None)
    held = origin.small("catalog.json", 10)
    origin.replace("catalog.json", b"two", held)
    with pytest.raises(ChangedError):
        origin.replace("catalog.json", b"three", held)
    now = origin.small("catalog.json", 10)
    assert now is not None
    assert now.raw == b"two"


def test_what_is_wrong_is_said(store: Cloud, origin: Origin) -> None:
    origin.put("a", b"content!")
    with pytest.raises(OriginError, match="nothing is not in the origin"):
        origin.small("nothing", 10)
    with pytest.raises(OriginError, match="says 9"):
        list(origin.range("a", 0, 5, object_bytes=9))
    store.says.append((403, "AuthenticationFailed"))
    with pytest.raises(OriginError, match="the origin refuses a: check its credentials"):
        origin.small("a", 10)
    with pytest.raises(OriginError, match="the origin refuses to take a"):
        origin.put("a", b"x")


async def test_what_was_published_there_comes_to_a_node(store: Cloud, tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / "blobs").mkdir(parents=True)
    a_store(models, tiny.identity(models / "blobs"))
    publisher = Publisher(store.url, stop=threading.Event(), report=Quiet())
    assert publisher.push(models, [], None).epoch == 1
    catalogue = mf.decode_catalogue(store.objects["lab/catalog.json"])
    (digest,) = catalogue.models["identity"].versions.values()
    async with fleet(tmp_path, store.url, None) as lone:
        node = await lone.start("n")
        ensured = await ensure(node, digest)
        assert ensured == "origin"
        wanted = {key.removeprefix("lab/blobs/") for key in store.objects if "/blobs/" in key}
        assert node.blobs() == wanted


async def ensure(node: Running, digest: str) -> str:
    """Where it came from."""
    head, _ = await node.call(calls.Ensure(digest, 20_000))
    return str(head.residency)
