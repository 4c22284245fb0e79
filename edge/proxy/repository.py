"""The Open Inference Protocol's questions about the server and its models, and its load and unload.

The questions are answered from the catalogue and the manifests, so that a node without a
worker answers them as well as one that has one. Who may ask is the door's business.
"""

from collections.abc import Set
from typing import Any, Final

import msgspec

from edge.errors import EdgeError, Reason, Source
from edge.fleet.snapshot import Fleet
from edge.oip import metadata, strict
from edge.proxy.ledger import Ledger
from edge.proxy.modelacts import ModelActs
from edge.proxy.models import Models

_NOT_READY: Final = 400  # as Triton answers; its clients read the status only


class _Wanted(msgspec.Struct):
    """The body of load and unload."""

    parameters: dict[str, Any] = {}


_decoder: Final = msgspec.json.Decoder(_Wanted)


class Repository:
    """Answers `/v2/...` paths; the method a path takes comes with its answer."""

    def __init__(
        self, models: Models, fleet: Fleet, ledger: Ledger, acts: ModelActs, *, version: str
    ) -> None:
        self._models = models
        self._fleet = fleet
        self._ledger = ledger
        self._acts = acts
        self._version = version

    async def answer(self, path: tuple[str, ...], method: str) -> tuple[int, bytes]:
        """(status, JSON) for the path behind `/v2`. Raises EdgeError for unknown ones and wrong methods."""
        match path:
            case ("models", model, "versions", version, *what):
                return await self._model(model, version, tuple(what), method)
            case ("models", "stats"):
                _takes("GET", method)
                return 200, metadata.model_stats(
                    self._ledger.report(name, self._models.resolve(name, "")[0]) for name in self._names()
                )
            case ("models", model, *what):
                return await self._model(model, "", tuple(what), method)
            case ("repository", "index"):
                _takes("POST", method)
                return 200, metadata.repository_index(self._index())
            case ():
                _takes("GET", method)
                return 200, metadata.server_metadata("edgepop", self._version)
            case ("health", "live"):
                _takes("GET", method)
                return 200, metadata.live(True)
            case ("health", "ready"):
                _takes("GET", method)
                ready = self._can_serve()
                return (200 if ready else 503), metadata.ready(ready)
            case _:
                raise EdgeError(
                    Reason.UNKNOWN_PATH,
                    "no such path; GET /v2 tells what this server speaks",
                    source=Source.DOWNSTREAM,
                )

    async def load(self, model: str, body: bytes) -> None:
        """Triton's load: onto a device of this node. Raises EdgeError, also for what can't be overridden."""
        _no_parameters(body, frozenset())
        await self._acts.prefetch(model, "", "device")

    async def unload(self, model: str, body: bytes) -> None:
        """Triton's unload: off every device of this node; it is loaded again when it is asked for."""
        _no_parameters(body, {"unload_dependents"})
        await self._acts.evict(model, "", "device")

    async def _model(self, model: str, version: str, what: tuple[str, ...], method: str) -> tuple[int, bytes]:
        number, digest = self._models.resolve(model, version)[:2]
        _takes("GET", method)
        match what:
            case ():
                versions = [number]
                if not version and self._models.catalogue is not None:
                    versions = sorted(self._models.catalogue.models[model].versions, key=int)
                return 200, metadata.model_metadata(await self._models.manifest(digest), versions=versions)
            case ("config",):
                return 200, metadata.model_config(await self._models.manifest(digest))
            case ("ready",):
                ready = self._can_serve()
                return (200 if ready else _NOT_READY), metadata.ready(ready, model=model)
            case ("stats",):
                return 200, metadata.model_stats([self._ledger.report(model, number)])
            case _:
                raise EdgeError(
                    Reason.UNKNOWN_PATH,
                    "a model has /ready, /config, /stats and /infer",
                    source=Source.DOWNSTREAM,
                )

    def _index(self) -> list[tuple[str, str, metadata.State, str]]:
        """Every version of every model; UNAVAILABLE with its reason while no worker can take it."""
        catalogue = self._models.catalogue
        if catalogue is None:
            raise self._models.none_seen()
        state: metadata.State = "READY" if self._can_serve() else "UNAVAILABLE"
        reason = "" if state == "READY" else "no worker is up"
        return [
            (name, version, state, reason)
            for name in self._names()
            for version in sorted(catalogue.models[name].versions, key=int)
        ]

    def _names(self) -> list[str]:
        return sorted(self._models.catalogue.models) if self._models.catalogue is not None else []

    def _can_serve(self) -> bool:
        """A model that is cold is still ready: it is loaded when it is asked for, here or elsewhere."""
        return self._models.catalogue is not None and self._fleet.has_worker()


def _takes(expected: str, method: str) -> None:
    if method != expected:
        raise EdgeError(Reason.BAD_METHOD, f"this path takes {expected}", source=Source.DOWNSTREAM)


def _no_parameters(body: bytes, but: Set[str]) -> None:
    """Raise EdgeError(BAD_INPUT) for parameters that would change a model: the catalogue alone does that."""
    given = strict.decode(_decoder, body).parameters if body else {}
    for name in given:
        if name not in but:
            text = f"the parameter {strict.show(name)} is not taken: a model is what the catalogue says"
            raise EdgeError(Reason.BAD_INPUT, text, source=Source.DOWNSTREAM)
