"""An origin over HTTP with models of the tests' own making, and weights processes beside it."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.blobs import Bucket, Served, serving
from tests.support.redis import RedisServer
from tests.support.redis import running as redis_running
from tests.support.region import Fleet, fleet


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(tmp_path / "origin")


@pytest.fixture
async def origin(bucket: Bucket) -> AsyncIterator[Served]:
    async with serving(bucket) as served:
        yield served


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis of the region eu, with two users."""
    with redis_running("eu", ("fra-a", "ams-a")) as server:
        yield server


@pytest.fixture
async def eu(tmp_path: Path, origin: Served, redis: RedisServer) -> AsyncIterator[Fleet]:
    """Starts nodes of the region eu."""
    async with fleet(tmp_path, origin.url, redis) as made:
        yield made


@pytest.fixture
async def start(tmp_path: Path, origin: Served) -> AsyncIterator[Callable[..., Any]]:
    """Starts weights processes on one store."""
    async with fleet(tmp_path, origin.url, None) as lone:
        yield lambda **settings: lone.start("n", **settings)
