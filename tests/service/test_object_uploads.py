"""Requests that name objects count against a worker's cap of uploads by what it has to read for them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import pytest

from edge.errors import EdgeError, Reason
from edge.proxy.upstream import RequestBody, Upstream
from edge.proxy.worker import LocalWorker
from edge.wire import calls
from edge.wire.frame import SHARED_BODY_BYTES

BODY = b'{"input": {"object": "a"}}'
DIGEST = "d" * 64


class Asked:
    """Objects of these sizes, here at once."""

    waited_ms = 0.0
    outside_bytes = 0

    def __init__(self, *sizes: int) -> None:
        self.told = tuple(calls.ObjectHere(f"o{n}", DIGEST, size) for n, size in enumerate(sizes))

    async def wait(self, deadline_ms: float) -> None:
        """Nothing is on its way."""

    def give_back(self) -> None:
        """Nothing is held."""


class Full:
    """Stands for a local worker: it has the model, and its cap of uploads is reached."""

    dialer = None
    endpoint = SimpleNamespace(models={DIGEST: None})
    upload: Callable[[Any, bool], AbstractContextManager[Any]] = LocalWorker.upload

    def __init__(self) -> None:
        self.uploads = self

    def __enter__(self) -> None:
        raise EdgeError(Reason.SATURATED, "full", retryable=True)

    def __exit__(self, *_: object) -> None:
        """Never entered."""

    def claim(self, *_: Any) -> Any:
        return SimpleNamespace(loading=None)

    def unclaim(self, model: Any) -> None:
        """Nothing to free."""


class SentError(Exception):
    """The body went to the worker."""


@pytest.mark.parametrize(
    ("sentence", "sizes", "counts"),
    [
        ("as much as a small body", (SHARED_BODY_BYTES,), False),
        ("a byte more", (SHARED_BODY_BYTES + 1,), True),
        ("several count together", (SHARED_BODY_BYTES, 1), True),
    ],
)
async def test_a_short_body_that_names_large_objects_is_a_large_body(
    monkeypatch: pytest.MonkeyPatch, sentence: str, sizes: tuple[int, ...], counts: bool
) -> None:
    async def sent(*_: Any) -> None:
        raise SentError

    async def ask(*_: Any) -> Asked:
        return Asked(*sizes)

    monkeypatch.setattr("edge.proxy.upstream._send", sent)
    objects: Any = SimpleNamespace(ask=ask)
    fleet: Any = None
    worker: Any = Full()
    call = calls.Infer(model="m", version="1", digest=DIGEST, protocol="run", content_type="application/json")
    upstream = Upstream(fleet, {}, objects)
    with pytest.raises(EdgeError if counts else SentError):
        await upstream._at_worker(worker, call, RequestBody(BODY, None, len(BODY)), 1000.0)
