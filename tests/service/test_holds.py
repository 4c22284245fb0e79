"""Holds over a real link: a store that answers late or refuses is there; one that says nothing is given up."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge import clock
from edge.background import Background
from edge.errors import EdgeError, Reason
from edge.proxy import holds
from edge.proxy.device import Book
from edge.proxy.holds import Holds
from edge.wire import calls
from edge.wire.dial import Dialer
from edge.wire.exchange import Incoming
from edge.wire.link import Link
from tests.support.links import answerer

LATE_MS = 60.0


class Store:
    """Holds the model "here"; "slow" is told to go on beyond the time of a fetch, "mute" never answers."""

    def on_call(self, call: Incoming) -> None:
        if call.head == calls.Status():
            call.reply(calls.Done())
        elif not isinstance(call.head, calls.Ensure) or call.head.digest == "here":
            call.reply(calls.Ensured("disk", 0, 1.0))
        elif call.head.digest == "slow":
            late = EdgeError(Reason.DEADLINE, "slow was not here; the fetch goes on", retryable=True)
            asyncio.get_running_loop().call_later(2 * LATE_MS / 1000.0, call.fail, late)


@pytest.fixture
async def dialer(tmp_path: Path) -> AsyncIterator[Dialer]:
    async def greet(link: Link) -> None:
        await link.request(calls.Status(), timeout_s=5)

    background = Background()
    async with answerer(str(tmp_path / "store"), Store().on_call) as there:
        made = Dialer("weights", unix_path=there.address, greet=greet, on_lost=lambda: None)
        background.spawn(made.run())
        yield made
        await background.close()


@pytest.mark.parametrize(
    ("sentence", "digest", "lives"),
    [
        ("a fetch that takes longer than a call is no silent store", "slow", True),
        ("a store that says nothing is not there", "mute", False),
    ],
)
async def test_what_ends_the_link_and_all_holds_on_it(
    dialer: Dialer, monkeypatch: pytest.MonkeyPatch, sentence: str, digest: str, lives: bool
) -> None:
    link = await dialer.wait_shared(5)
    book = Book(1 << 30)
    kept = Holds(dialer, book, asyncio.get_running_loop().create_task)
    held, wanted = (book.begin(name, name, clock.now_ms()) for name in ("here", digest))
    await kept.take(held)
    monkeypatch.setattr(holds, "FETCH_MS", LATE_MS)
    monkeypatch.setattr(holds, "SILENT_S", 5.0 if lives else 0.1)
    with pytest.raises(EdgeError) as caught:
        await kept.take(wanted)
    assert (caught.value.reason, wanted.held_on) == (Reason.DEADLINE, None)
    assert (kept.is_held(held), link.closed) == (lives, not lives), sentence
