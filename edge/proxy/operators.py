"""What the public plane asks an operator's key for: a dry run, load and unload; and who may list models.

What a key is good for is `edge.policy.keys`' business, what a request leads to
`edge.policy.route`'s. The admin plane needs no key and does not come through here.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from edge import clock
from edge.config import Public
from edge.errors import EdgeError, Reason, Source
from edge.fleet.snapshot import Fleet
from edge.http.request import Request
from edge.http.respond import JSON, Response
from edge.oip import strict
from edge.policy.facts import Ask
from edge.policy.keys import Role
from edge.proxy.explain import dry_run
from edge.proxy.keys import Keys
from edge.proxy.models import Models, Resolved
from edge.proxy.repository import Repository
from edge.proxy.wishes import Wishes, read

MAX_BODY_BYTES: Final = 65_536
#: Paths below /v2 that tell every model's name.
_LISTS: Final = (["models", "stats"], ["repository", "index"])

#: (model, version, wishes, milliseconds left, body bytes) as the policy reads them.
MakeAsk = Callable[[str, Resolved, Wishes, float, int], Ask]


class _Dry(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a dry run: how large the request's would be."""

    body_bytes: Annotated[int, Meta(ge=0, le=1 << 44)] = 0


_dry: Final = msgspec.json.Decoder(_Dry)


class Operators:
    """The operators' calls of one door."""

    def __init__(
        self,
        *,
        pop: str,
        public: Public,
        models: Models,
        repository: Repository,
        fleet: Fleet,
        keys: Keys,
        random: Random,
        ask: MakeAsk,
    ) -> None:
        self._pop = pop
        self._public = public
        self._models = models
        self._repository = repository
        self._fleet = fleet
        self._keys = keys
        self._random = random
        self._ask = ask

    async def explain(self, request: Request, model: str, version: str) -> Response:
        """What would be decided for this very request now; nothing is run, no demand is counted."""
        only(request, "POST")
        with self._keyed(request):
            found = self._models.resolve(model, version)
            wishes = read(
                request.headers,
                deadline_ms=self._public.deadline_ms,
                max_deadline_ms=self._public.max_deadline_ms,
            )
            raw = await request.body(MAX_BODY_BYTES)
            body_bytes = strict.decode(_dry, raw).body_bytes if raw else 0
            ask = self._ask(model, found, wishes, wishes.deadline_ms, body_bytes)
            world = self._fleet.current(clock.now_ms())
            told = dry_run(ask, world, self._random.random(), found.version)
        return Response(200, [("Edge-Pop", self._pop)], msgspec.json.encode(told), JSON)

    async def load(self, request: Request, model: str, *, unload: bool) -> Response:
        """Triton's load and unload, for this node; answered when it is done."""
        only(request, "POST")
        with self._keyed(request):
            body = await request.body(MAX_BODY_BYTES)
            await (self._repository.unload if unload else self._repository.load)(model, body)
        return Response(200, [("Edge-Pop", self._pop)], b"", JSON)

    def may_see(self, path: Sequence[str], request: Request) -> None:
        """Where lists of models need a key, any key will do. Raises EdgeError."""
        if not self._keys.lists_needed or path not in _LISTS:
            return
        authorization = request.headers.get("authorization")
        try:
            key = self._keys.admit(authorization, Role.INFER, needed=True)
        except EdgeError as error:
            if error.reason is not Reason.FORBIDDEN:
                raise
            key = self._keys.admit(authorization, Role.OPERATE)
        self._keys.leave(key)

    @contextlib.contextmanager
    def _keyed(self, request: Request) -> Iterator[None]:
        """For the length of one call. Raises EdgeError: UNAUTHENTICATED, FORBIDDEN, RATE_LIMITED."""
        if not self._public.keys_file:
            raise EdgeError(
                Reason.FORBIDDEN,
                "this takes an operator's key, and this node has no key file (public.keys_file); popctl asks "
                "over the admin plane without one",
                source=Source.DOWNSTREAM,
            )
        key = self._keys.admit(request.headers.get("authorization"), Role.OPERATE)
        try:
            yield
        finally:
            self._keys.leave(key)


def only(request: Request, method: str) -> None:
    """Raises EdgeError(BAD_METHOD) for another one."""
    if request.method != method:
        raise EdgeError(Reason.BAD_METHOD, f"this path takes {method}", source=Source.DOWNSTREAM)
