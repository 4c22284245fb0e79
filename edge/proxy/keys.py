"""Who asks: the key of a request, and what it has left.

`edge.policy.keys` says what a key is; this counts. Without a key file there are no keys: then
inference is open, unless the configuration says otherwise, and operators have the admin plane.
"""

import math
from collections import Counter
from typing import Final

from edge import clock
from edge.config import Public
from edge.errors import EdgeError, Reason, Source
from edge.policy.keys import Bucket, Key, Role, digest, parse

_BEARER: Final = "bearer "
MAX_TOKEN_CHARS: Final = 512


class Keys:
    """The keys of this node."""

    def __init__(self, text: str, public: Public) -> None:
        """Raises ValueError for a file that can't be used."""
        self._by_digest = {key.sha256: key for key in parse(text)}
        self._needed = {Role.INFER: public.infer_needs_key, Role.OPERATE: True}
        self.lists_needed = public.lists_need_key
        self._buckets: dict[str, Bucket] = {}
        self._in_flight: Counter[str] = Counter()

    def admit(self, authorization: str | None, role: Role, *, needed: bool | None = None) -> Key | None:
        """The key of a request, counted until `leave`; None for a request that needs none.

        Raises EdgeError: UNAUTHENTICATED (no key, or an unknown one), FORBIDDEN (its role), RATE_LIMITED.
        """
        if needed is None:
            needed = self._needed[role]
        if authorization is None:
            if not needed:
                return None
            raise EdgeError(
                Reason.UNAUTHENTICATED, "this needs Authorization: Bearer <key>", source=Source.DOWNSTREAM
            )
        key = self._find(authorization)
        if key is None:
            if not self._by_digest and not needed:
                # A node without keys does not read the header: clients may send one for somebody else.
                return None
            raise EdgeError(Reason.UNAUTHENTICATED, "this key is not known here", source=Source.DOWNSTREAM)
        if role not in key.roles:
            raise EdgeError(
                Reason.FORBIDDEN, f"this key may not {role}; its roles are others", source=Source.DOWNSTREAM
            )
        self._count(key)
        return key

    def leave(self, key: Key | None) -> None:
        """The request of this key has ended."""
        if key is not None and key.in_flight:
            self._in_flight[key.name] -= 1

    def _find(self, authorization: str) -> Key | None:
        if authorization[: len(_BEARER)].lower() != _BEARER or len(authorization) > MAX_TOKEN_CHARS:
            return None
        # Found by its digest: how long the search takes says nothing about the key.
        return self._by_digest.get(digest(authorization[len(_BEARER) :].strip()))

    def _count(self, key: Key) -> None:
        if key.in_flight and self._in_flight[key.name] >= key.in_flight:
            raise _limited(f"{key.in_flight} requests of this key are running", 1)
        if key.per_s:
            now_ms = clock.now_ms()
            bucket = self._buckets.get(key.name) or Bucket(math.inf, now_ms)
            after = bucket.after(key, now_ms)
            if after is None:
                wait_s = min(30, max(1, math.ceil(bucket.again_after_s(key))))
                raise _limited(f"this key may ask {key.per_s:g} times per second", wait_s)
            self._buckets[key.name] = after
        if key.in_flight:
            self._in_flight[key.name] += 1


def _limited(text: str, retry_after_s: int) -> EdgeError:
    return EdgeError(Reason.RATE_LIMITED, text, source=Source.DOWNSTREAM, retry_after_s=retry_after_s)
