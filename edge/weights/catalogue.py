"""The catalogue as this node last believed it: fetched, judged, kept on disk.

`judge` is pure: what to make of bytes that came from the origin. `Catalogues` asks the
origin again and again and keeps what was accepted. The last good catalogue stays whatever
the origin says or does not say. Knows nothing of manifests and blobs behind the names.
"""

import asyncio
import logging
from concurrent.futures import Executor
from typing import NamedTuple

from edge.errors import EdgeError
from edge.weights.disk import Disk
from edge.weights.manifest import CATALOGUE_MAX_BYTES, decode_catalogue, digest
from edge.weights.origin import Object, Origin, OriginError
from edge.wire import calls

log = logging.getLogger(__name__)


class Holding(NamedTuple):
    """A catalogue that was accepted. Empty digest: none was ever seen."""

    raw: bytes = b""
    digest: str = ""
    epoch: int = 0


class Accept(NamedTuple):
    """Believe this one from now on."""

    holding: Holding


class Same(NamedTuple):
    """Nothing new."""


class Refuse(NamedTuple):
    """Keep what is held; `why` is a sentence for the log."""

    why: str


def judge(held: Holding, raw: bytes) -> Accept | Same | Refuse:
    """What to make of a catalogue that came from the origin.

    A higher epoch is believed. The same epoch with other content is two publishers, a lower
    one an old copy: going back is a new epoch with old content.
    """
    if held.digest and raw == held.raw:
        return Same()
    try:
        catalogue = decode_catalogue(raw)
    except EdgeError as error:
        return Refuse(error.message)
    if held.digest and catalogue.epoch == held.epoch:
        return Refuse(f"epoch {catalogue.epoch} came again with other content; {_above(held.epoch)}")
    if held.digest and catalogue.epoch < held.epoch:
        return Refuse(
            f"epoch {catalogue.epoch} is lower than {held.epoch}, which is held; {_above(held.epoch)}"
        )
    return Accept(Holding(raw, digest(raw), catalogue.epoch))


def _above(epoch: int) -> str:
    return f"publish it with `popctl models push --epoch-above {epoch}`"


class Catalogues:
    """What this node believes is served. `origin_up`: did the last question get an answer?"""

    def __init__(self, disk: Disk, origin: Origin, threads: Executor) -> None:
        self._disk = disk
        self._origin = origin
        self._threads = threads
        self._held = Holding()
        self._etag: str | None = None
        self._complaint = ""
        self._is_kept = True
        self.origin_up = False
        self.refused = 0

    def begin(self, raw: bytes | None) -> None:
        """Start from the copy on disk, if there is one and it is good."""
        if raw is not None:
            match judge(self._held, raw):
                case Accept(holding):
                    self._held = holding
                case Refuse(why):
                    log.warning("catalog.json on disk is unusable, the origin will tell: %s", why)

    def state(self, newer_than: str = "") -> tuple[calls.CatalogueState, bytes]:
        """The state, and the catalogue's bytes unless the asker has this very one."""
        held = self._held
        body = b"" if held.digest == newer_than else held.raw
        return calls.CatalogueState(held.digest, held.epoch, self.origin_up), body

    async def poll(self, every_ms: int) -> None:
        """Ask the origin now and then every so often, until cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(every_ms / 1000.0)

    async def ask(self) -> None:
        """One question to the origin. Raises nothing: what goes wrong is logged once and counted."""
        loop = asyncio.get_running_loop()
        try:
            found: Object | None = await loop.run_in_executor(
                self._threads, self._origin.small, "catalog.json", CATALOGUE_MAX_BYTES, self._etag
            )
        except OriginError as error:
            # An origin that is empty is up all the same.
            self.origin_up = error.missing
            self._complain(f"the catalogue stays as it is: {error.message}")
            return
        self.origin_up = True
        if found is not None:
            await self._judge(found)
        elif not self._is_kept:
            await self._keep(self._held)

    async def _judge(self, found: Object) -> None:
        match judge(self._held, found.raw):
            case Accept(holding):
                log.info("catalogue: epoch %d, digest %s", holding.epoch, holding.digest)
                self._held = holding
                self._etag = found.etag
                self._complaint = ""
                await self._keep(holding)
            case Same():
                self._etag = found.etag
                if not self._is_kept:
                    await self._keep(self._held)
                else:
                    self._complaint = ""
            case Refuse(why):
                self._etag = found.etag
                self.refused += 1
                self._complain(f"the origin's catalogue is refused: {why}")

    async def _keep(self, holding: Holding) -> None:
        def write() -> str:
            self._disk.store.write_catalogue(holding.raw)
            return "catalog.json"

        try:
            await self._disk.keep(write, len(holding.raw), "catalog.json")
        except EdgeError as error:
            self._is_kept = False
            self._complain(f"the catalogue is not kept on disk: {error.message}")
        else:
            self._is_kept = True
            self._complaint = ""

    def _complain(self, what: str) -> None:
        """Once per change, not once per poll."""
        if what != self._complaint:
            log.warning("%s", what)
            self._complaint = what
