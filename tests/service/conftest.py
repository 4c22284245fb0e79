"""An origin over HTTP with models of the tests' own making, and weights processes beside it."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.blobs import Bucket, Served, serving
from tests.support.region import fleet


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(tmp_path / "origin")


@pytest.fixture
async def origin(bucket: Bucket) -> AsyncIterator[Served]:
    async with serving(bucket) as served:
        yield served


@pytest.fixture
async def start(tmp_path: Path, origin: Served) -> AsyncIterator[Callable[..., Any]]:
    """Starts weights processes on one store."""
    async with fleet(tmp_path, origin.url, None) as lone:
        yield lambda **settings: lone.start("n", **settings)
