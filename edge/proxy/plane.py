"""What an operator can ask of a node, path by path.

Each call is read strictly: an unknown field, a name that is none and a value of the wrong type
are refused with a sentence. What an act does stands in `edge.proxy.acts` and `operate`; what a
node tells, in `report`. How it travels over HTTP is `edge.proxy.admin`'s.
"""

import contextlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.http.headers import Headers
from edge.proxy import admin
from edge.proxy.acts import Place
from edge.proxy.admin import Asked, Route, Stop
from edge.proxy.explain import dry_run
from edge.proxy.modelacts import ModelActs
from edge.proxy.parts import Parts
from edge.proxy.report import SCHEMA_VERSION, Report
from edge.proxy.wishes import MAX_PLACES, read
from edge.wire import calls, treecalls

AskParent = Callable[[calls.Head], Awaitable[calls.Head]]
T = TypeVar("T", bound=msgspec.Struct)

MAX_ROLES: Final = 64
MAX_NODES: Final = 256
_Word = Annotated[str, Meta(max_length=128)]
_Places = Annotated[tuple[_Word, ...], Meta(max_length=MAX_PLACES)]


class _Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every call's body."""


class Nothing(_Fields, frozen=True, kw_only=True):
    """A call that takes no fields."""


class Explain(_Fields, frozen=True, kw_only=True):
    """A dry run: the wishes are those of the `Edge-*` request headers."""

    model: _Word
    version: _Word = ""
    prefer: _Places = ()
    force: _Places = ()
    cold: _Word | None = None
    reject_if_busy: bool = False
    deadline_ms: Annotated[int, Meta(ge=1, le=999_999_999)] | None = None
    body_bytes: Annotated[int, Meta(ge=0, le=1 << 44)] = 0
    session: Annotated[str, Meta(max_length=256)] | None = None


class Restart(_Fields, frozen=True, kw_only=True):
    """Roles ("worker") or children ("worker-0"); none for all."""

    roles: Annotated[tuple[_Word, ...], Meta(max_length=MAX_ROLES)] = ()


class Prefetch(_Fields, frozen=True, kw_only=True):
    """`worker` is an endpoint's name, or its number on this node; empty: the one with the most room.

    With `nodes` or a `region` it comes to their disks instead of this node's.
    """

    version: _Word = ""
    tier: Place = "disk"
    worker: _Word = ""
    nodes: Annotated[tuple[_Word, ...], Meta(max_length=MAX_NODES)] = ()
    region: _Word = ""


class Verify(_Fields, frozen=True, kw_only=True):
    """A manifest on this disk; with `blob`, from 0 on, only that one of its blobs."""

    digest: _Word
    blob: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None


class Collect(_Fields, frozen=True, kw_only=True):
    """Only say what would go?"""

    dry_run: bool = False


class Evict(_Fields, frozen=True, kw_only=True):
    """From every device of this node, one of them, or its disk."""

    tier: Place
    version: _Word = ""
    worker: _Word = ""


class Pin(_Fields, frozen=True, kw_only=True):
    """Kept on this node until told otherwise, or no longer."""

    pinned: bool
    version: _Word = ""


class Plane:
    """Answers the operator's calls for one proxy."""

    def __init__(self, parts: Parts, ask_parent: AskParent) -> None:
        self._parts = parts
        self._ask_parent = ask_parent
        self._acts = ModelActs(parts.acts, parts.models, parts.fleet, parts.elsewhere)
        self._random = random.SystemRandom()
        self.report = Report(parts, ask_parent=ask_parent)

    def routes(self) -> list[Route]:
        """Everything that can be asked."""
        report = self.report
        reads: dict[str, Callable[[Asked], Awaitable[object]]] = {
            "/edge/state": lambda _: report.state(),
            "/edge/peers": lambda _: report.peers(),
            "/edge/weights": lambda _: report.weights(),
            "/edge/models": lambda _: report.model_list(),
            "/edge/models/{model}": self._model,
            "/edge/drain": self._leaving,
            "/edge/explain/{request_id}": self._explain,
        }
        acts: dict[str, Callable[[Asked], Awaitable[object]]] = {
            "/edge/explain": self._dry_run,
            "/edge/drain": self._drain,
            "/edge/undrain": self._undrain,
            "/edge/withdraw": self._withdraw,
            "/edge/announce": self._announce,
            "/edge/restart": self._restart,
            "/edge/models/{model}/prefetch": self._prefetch,
            "/edge/models/{model}/evict": self._evict,
            "/edge/weights/verify": self._verify,
            "/edge/weights/gc": self._collect,
            "/edge/models/{model}/pin": self._pin,
        }
        return [
            *(Route("GET", path, answer) for path, answer in reads.items()),
            *(Route("POST", path, answer) for path, answer in acts.items()),
        ]

    # --- why

    async def _explain(self, asked: Asked) -> object:
        return self._parts.ring.document(asked.names["request_id"])

    async def _dry_run(self, asked: Asked) -> object:
        wanted, parts = fields(asked, Explain), self._parts
        found = parts.models.resolve(wanted.model, wanted.version)
        public = parts.config.public
        wishes = read(
            _as_headers(wanted), deadline_ms=public.deadline_ms, max_deadline_ms=public.max_deadline_ms
        )
        ask = parts.door.ask(wanted.model, found, wishes, wishes.deadline_ms, wanted.body_bytes)
        return dry_run(ask, parts.fleet.current(clock.now_ms()), self._random.random(), found.version)

    # --- leaving and coming back

    async def _leaving(self, _: Asked) -> object:
        """Where a drain stands. `running` counts requests of this door and of other nodes."""
        parts = self._parts
        endpoints = parts.fleet.current(clock.now_ms()).endpoints
        return {
            "schema_version": SCHEMA_VERSION,
            "phase": str(parts.operate.phase),
            "running": sum(endpoint.live.in_flight for endpoint in endpoints) + parts.fleet.waiting,
            "connections": parts.front.statistics().connections,
        }

    async def _drain(self, asked: Asked) -> object:
        fields(asked, Nothing)
        return await self._parts.operate.drain()

    async def _undrain(self, asked: Asked) -> object:
        fields(asked, Nothing)
        return await self._parts.operate.undrain()

    async def _withdraw(self, asked: Asked) -> object:
        fields(asked, Nothing)
        return await self._parts.operate.withdraw()

    async def _announce(self, asked: Asked) -> object:
        fields(asked, Nothing)
        return await self._parts.operate.announce()

    async def _restart(self, asked: Asked) -> object:
        await self._ask_parent(treecalls.Restart(fields(asked, Restart).roles))
        tree = await self._ask_parent(treecalls.Tree())
        under_way = tree.restarting if isinstance(tree, treecalls.TreeState) else ()
        return {"schema_version": SCHEMA_VERSION, "restarting": under_way}

    # --- models

    async def _model(self, asked: Asked) -> object:
        """One model: its versions and where they lie, and what the current one takes and gives."""
        name = asked.names["model"]
        found = self._parts.models.resolve(name, "")
        listed: Any = await self.report.model_list()
        weights = await self._stored()
        versions = []
        for row in listed["models"]:
            if row["model"] == name:
                here = weights.get(row["digest"])
                kept = {"pinned_here": here["pinned"], "kept_here": here["kept"]} if here is not None else {}
                versions.append({**row, **kept})
        demand = self._parts.fleet.learned.demand(clock.now_ms())
        return {
            "schema_version": SCHEMA_VERSION,
            "epoch": listed["epoch"],
            "model": name,
            "current": found.version,
            "asked_per_s_here": round(demand.get(found.digest, 0.0), 3),
            "seconds_to_a_device": self._estimate(found.digest, found.weights_bytes),
            "versions": versions,
            "manifest": await self._manifest(found.digest),
        }

    def _estimate(self, digest: str, size_bytes: int) -> dict[str, dict[str, float]]:
        """What it would take now, by worker of this node and by where the weights come from."""
        parts, now_ms = self._parts, clock.now_ms()
        return {
            name: parts.estimates.per_source(
                digest,
                size_bytes,
                wait_ms=worker.book.loader_wait_ms(now_ms),
                load_ms=worker.moves.times.expect_ms(digest, size_bytes),
            )
            for name, worker in parts.upstream.workers.items()
        }

    async def _manifest(self, digest: str) -> object:
        """What the current version takes and gives; why that is not known while nobody has the manifest."""
        try:
            manifest = await self._parts.models.manifest(digest)
        except EdgeError as error:
            return {"problem": error.message}
        return {
            "task": manifest.task,
            "licence": manifest.licence,
            "device_bytes": manifest.device_bytes,
            "max_batch": manifest.max_batch,
            "labels": manifest.labels,
            "inputs": manifest.inputs,
            "outputs": manifest.outputs,
            "files": [
                {"name": f.name, "role": f.role, "bytes": f.size_bytes, "blake3": f.blake3}
                for f in manifest.files
            ],
        }

    async def _stored(self) -> dict[str, Any]:
        told: Any = await self.report.weights()
        state = told.get("weights")
        return {model["digest"]: model for model in state["models"]} if state is not None else {}

    async def _prefetch(self, asked: Asked) -> object:
        wanted = fields(asked, Prefetch)
        if wanted.nodes or wanted.region:
            if wanted.tier != "disk" or wanted.worker:
                text = "other nodes bring a model to their disks only; a request for it loads it there"
                raise EdgeError(Reason.BAD_REQUEST, text, source=Source.DOWNSTREAM)
            return await self._acts.prefetch_at(
                asked.names["model"], wanted.version, wanted.nodes, wanted.region
            )
        return await self._acts.prefetch(asked.names["model"], wanted.version, wanted.tier, wanted.worker)

    async def _verify(self, asked: Asked) -> object:
        wanted = fields(asked, Verify)
        return await self._acts.verify(wanted.digest, wanted.blob)

    async def _collect(self, asked: Asked) -> object:
        return await self._acts.collect(dry_run=fields(asked, Collect).dry_run)

    async def _evict(self, asked: Asked) -> object:
        wanted = fields(asked, Evict)
        return await self._acts.evict(asked.names["model"], wanted.version, wanted.tier, wanted.worker)

    async def _pin(self, asked: Asked) -> object:
        wanted = fields(asked, Pin)
        return await self._acts.pin(asked.names["model"], wanted.version, pinned=wanted.pinned)


@contextlib.asynccontextmanager
async def admin_plane(parts: Parts, ask_parent: AskParent) -> AsyncIterator[Stop]:
    """The admin plane of a proxy on the sockets that the parent opened; gives what stops it."""
    plane = Plane(parts, ask_parent)
    listeners = [socket.socket(fileno=fd) for fd in parts.boot.admin_fds]
    async with admin.serving(
        listeners,
        plane.routes(),
        metrics=plane.report.scrape,
        token=parts.boot.token,
        finish_s=parts.config.drain.finish_ms / 1000.0,
    ) as stop:
        yield stop


def fields(asked: Asked, kind: type[T]) -> T:
    """The body of a call; none is an empty one. Raises EdgeError(BAD_REQUEST) that names the field."""
    try:
        return msgspec.json.decode(asked.body or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        known = ", ".join(kind.__struct_fields__) or "none"
        text = f"the body: {str(error)[:300]}; it is a JSON object, its fields are: {known}"
        raise EdgeError(Reason.BAD_REQUEST, text, source=Source.DOWNSTREAM) from error


def _as_headers(wanted: Explain) -> Headers:
    """The same wishes as a client's headers, so that both are read by the same rules."""
    given = {
        "edge-prefer-region": ",".join(wanted.prefer) if wanted.prefer else None,
        "edge-force-region": ",".join(wanted.force) if wanted.force else None,
        "edge-cold": wanted.cold,
        "edge-reject-if-busy": "?1" if wanted.reject_if_busy else None,
        "edge-deadline-ms": None if wanted.deadline_ms is None else str(wanted.deadline_ms),
        "edge-session": wanted.session,
    }
    return Headers({name: (value,) for name, value in given.items() if value is not None})
