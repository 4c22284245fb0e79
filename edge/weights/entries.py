"""The origin's last word on each object's name.

A word is believed for `fresh_ms`. Then who names the object waits for the next one (If-None-Match,
one question under many callers), for PATIENCE_S at most when an older entry is known; while the
origin is away or slow, the older entry is believed for as long again. An object that the origin
no longer has is gone, one whose entry can't be read is corrupt. Knows no blobs.
"""

import asyncio
import logging
from collections import OrderedDict
from concurrent.futures import Executor
from typing import Final, NamedTuple

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.weights.entry import ENTRY_MAX_BYTES, Entry, decode, entry_path
from edge.weights.flights import Flights, again, landed
from edge.weights.origin import Origin, OriginError

FRESH_MS: Final = 5_000.0
#: What is not there, or is no good, may be published any moment.
ABSENT_MS: Final = 1_000.0
PATIENCE_S: Final = 1.0
MAX_KNOWN: Final = 4_096
#: Questions to the origin that are under way or wait for a thread.
MAX_ASKING: Final = 64

log = logging.getLogger(__name__)


class Word(NamedTuple):
    """What the origin says of a name: an entry, or why there is none. Believed until `until_ms`."""

    said: Entry | EdgeError
    etag: str | None
    until_ms: float


class Answer(NamedTuple):
    """What to go by, and the bytes that asking for it moved on behalf of this caller."""

    said: Entry | EdgeError
    moved_bytes: int = 0


class Entries:
    """What this node knows of names. `moved_bytes` of all entries that came only grows."""

    def __init__(
        self, origin: Origin, threads: Executor, flights: Flights, *, fresh_ms: float = FRESH_MS
    ) -> None:
        self.fresh_ms = fresh_ms
        self._origin = origin
        self._threads = threads
        self._flights = flights
        self._words: OrderedDict[str, Word] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Answer | EdgeError]] = {}
        self.moved_bytes = 0

    def at_once(self, name: str) -> Entry | None:
        """The entry, if it is still believed."""
        word = self._words.get(name)
        if word is None or isinstance(word.said, EdgeError) or clock.now_ms() >= word.until_ms:
            return None
        return word.said

    async def get(self, name: str) -> Answer:
        """The entry to go by. Raises nothing: what is wrong is in the answer."""
        word = self._words.get(name)
        if word is not None and clock.now_ms() < word.until_ms:
            return Answer(_for_one_more(word.said))
        try:
            return await self._ask(name, word)
        except EdgeError as error:
            if word is None or isinstance(word.said, EdgeError) or error.reason is not Reason.ORIGIN_DOWN:
                return Answer(error)
            log.warning("the entry of %s stays as it is: %s", name, error.message)
            return self._believed_longer(name, word)

    async def _ask(self, name: str, word: Word | None) -> Answer:
        flight = self._asking.get(name)
        mine = flight is None
        if flight is None:
            if len(self._asking) >= MAX_ASKING:
                raise EdgeError(
                    Reason.SATURATED,
                    f"{name}: {MAX_ASKING} other objects are being looked up",
                    retryable=True,
                    retry_after_s=1,
                )
            flight = self._flights.start(self._look_up(name, word))
            self._asking[name] = flight
            flight.add_done_callback(lambda _: self._asking.pop(name, None))
        if word is None or isinstance(word.said, EdgeError):
            answer = await landed(flight)
        else:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    answer = await landed(flight)
            except TimeoutError:
                # The question goes on; what it brings is for who asks next.
                return self._believed_longer(name, word)
        return answer if mine else Answer(_for_one_more(answer.said))

    def _believed_longer(self, name: str, word: Word) -> Answer:
        if self._words.get(name) is word:
            self._remember(name, word.said, word.etag)
        return Answer(word.said)

    async def _look_up(self, name: str, word: Word | None) -> Answer:
        etag = word.etag if word is not None else None
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                self._threads, self._origin.small, entry_path(name), ENTRY_MAX_BYTES, etag
            )
        except OriginError as error:
            if not error.missing:
                raise
            return Answer(self._remember(name, _unknown(name), None))
        if found is None:
            assert word is not None  # noqa: S101 -- only who sent an ETag is told "as before"
            return Answer(self._remember(name, word.said, word.etag))
        self.moved_bytes += len(found.raw)
        try:
            said: Entry | EdgeError = decode(found.raw, name)
        except EdgeError as error:
            log.warning("%s", error.message)
            said = error
        etag = found.etag if isinstance(said, Entry) else None
        return Answer(self._remember(name, said, etag), len(found.raw))

    def _remember(self, name: str, said: Entry | EdgeError, etag: str | None) -> Entry | EdgeError:
        believed_ms = self.fresh_ms if isinstance(said, Entry) else min(self.fresh_ms, ABSENT_MS)
        self._words[name] = Word(said, etag, clock.now_ms() + believed_ms)
        self._words.move_to_end(name)
        if len(self._words) > MAX_KNOWN:
            self._words.popitem(last=False)
        return said


def _for_one_more(said: Entry | EdgeError) -> Entry | EdgeError:
    return again(said, said.retry_after_s) if isinstance(said, EdgeError) else said


def _unknown(name: str) -> EdgeError:
    return EdgeError(
        Reason.UNKNOWN_OBJECT,
        f"the origin has no object {name}; publish it with `popctl data push FILE {name}`",
        source=Source.DOWNSTREAM,
    )
