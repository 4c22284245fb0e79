"""What lies whole on this node's disk, what is on its way, and how fast weights came from where.

Asked of the weight store again and again; while it is away the last answer stands, as the
disk does not change without it. It does not know what is on a device.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec

from edge.errors import EdgeError, Reason, Source
from edge.policy.facts import Rates, Tier
from edge.wire import calls
from edge.wire.dial import Dialer
from edge.wire.link import Link

log = logging.getLogger(__name__)

POLL_S: Final = 0.25
TIMEOUT_S: Final = 5.0
BACK_S: Final = 60.0
#: A disk has fewer manifests; more is no answer of ours.
MAX_HELD: Final = 65_536
MAX_FETCHING: Final = 256

_decoder: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(
    dict[str, tuple[Literal["disk", "host"], int]]
)


class Inventory:
    """The last answer. `held` is digest -> (tier, size in bytes), replaced whole when it changes."""

    def __init__(
        self,
        store: Dialer,
        *,
        on_change: Callable[[], None],
        on_spoiled: Callable[[str], object] = lambda digest: None,
    ) -> None:
        """`on_spoiled` hears once of a model whose weights were found bad while they were held."""
        self.held: Mapping[str, tuple[Tier, int]] = {}
        self.rates = Rates()
        #: What is on its way here, by digest.
        self.fetching: Mapping[str, calls.Fetching] = {}
        self.last_error = ""
        self._store = store
        self._on_change = on_change
        self._on_spoiled = on_spoiled
        self._spoiled: frozenset[str] = frozenset()
        self._link: Link | None = None
        self._number = 0

    async def run(self) -> None:
        """Ask until cancelled; wait while the store is away."""
        while True:
            try:
                await self._store.wait_shared(BACK_S)
                await self.refresh()
            except EdgeError as error:
                if error.message != self.last_error:
                    log.info("no inventory: %s", error.message)
                self.last_error = error.message
            else:
                self.last_error = ""
            await asyncio.sleep(POLL_S)

    async def refresh(self) -> None:
        """Ask once. Raises EdgeError; then nothing changes."""
        link = self._store.shared()
        # A store that was restarted counts from the start: ask it for everything.
        newer_than = self._number if link is self._link else -1
        reply = await link.request(calls.Inventory(newer_than=newer_than), timeout_s=TIMEOUT_S)
        state, body = reply.head, await reply.whole()
        if not isinstance(state, calls.InventoryState):
            raise EdgeError(Reason.PROTOCOL, "the weight store answered something else")
        spoiled = frozenset(state.spoiled)
        for digest in spoiled - self._spoiled:
            self._on_spoiled(digest)
        self._spoiled = spoiled
        held = _decode(body) if body else self.held
        guess = Rates()
        rates = msgspec.structs.replace(
            self.rates,
            region=state.region_rate or guess.region,
            far=state.far_rate or guess.far,
            origin=state.origin_rate or guess.origin,
        )
        self._link, self._number = link, state.number
        fetching = {one.digest: one for one in state.fetching[:MAX_FETCHING]}
        if held != self.held or rates != self.rates or fetching != self.fetching:
            self.held, self.rates, self.fetching = held, rates, fetching
            self._on_change()

    @property
    def fresh(self) -> bool:
        """Did the last answer come over the store's present link?"""
        return self._link is not None and self._link is self._store.link

    def tier(self, digest: str) -> Tier:
        """DISK or HOST when all of it is here, else ORIGIN."""
        found = self.held.get(digest)
        return found[0] if found is not None else Tier.ORIGIN


def _decode(body: bytes) -> dict[str, tuple[Tier, int]]:
    try:
        raw = _decoder.decode(body)
    except msgspec.MsgspecError as error:
        text = f"the weight store's inventory can't be read: {error}"
        raise EdgeError(Reason.PROTOCOL, text, source=Source.UPSTREAM) from error
    if len(raw) > MAX_HELD:
        text = f"the weight store's inventory lists {len(raw)} models; at most {MAX_HELD} are taken"
        raise EdgeError(Reason.PROTOCOL, text, source=Source.UPSTREAM)
    return {digest: (Tier(tier), size_bytes) for digest, (tier, size_bytes) in raw.items()}
