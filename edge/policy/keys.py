"""API keys: who may ask for what, and how much of it. Pure.

A key file is YAML; it holds digests, never keys:

    keys:
      - name: acme                     # the tenant, in metrics and logs
        sha256: 5e88...                # printf %s "$KEY" | sha256sum
        roles: [infer]                 # infer | operate
        per_s: 100                     # requests per second, bursts of twice that; 0 for no limit
        in_flight: 32                  # at the same time; 0 for no limit

Which path needs which role is decided where the paths are.
"""

import hashlib
import re
from enum import StrEnum
from typing import Any, Final

import msgspec
import yaml

MAX_KEYS: Final = 10_000
#: A bucket holds so many seconds of a key's rate.
BURST_S: Final = 2.0
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Role(StrEnum):
    """What a key is good for."""

    INFER = "infer"
    OPERATE = "operate"


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key. `per_s` and `in_flight` 0: no limit."""

    name: str
    sha256: str
    roles: tuple[Role, ...]
    per_s: float = 0.0
    in_flight: int = 0


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: tuple[Key, ...]


class Bucket(msgspec.Struct, frozen=True):
    """What a key has left: `tokens` at `at_ms`."""

    tokens: float
    at_ms: float

    def after(self, key: Key, now_ms: float) -> "Bucket | None":
        """The bucket after one more request now; None when it is empty."""
        most = max(1.0, key.per_s * BURST_S)
        tokens = min(most, self.tokens + max(0.0, now_ms - self.at_ms) / 1000.0 * key.per_s)
        return Bucket(tokens - 1.0, now_ms) if tokens >= 1.0 else None

    def again_after_s(self, key: Key) -> float:
        """Seconds until there is a token."""
        return (1.0 - self.tokens) / key.per_s


def parse(text: str) -> tuple[Key, ...]:
    """The keys of a file. Raises ValueError that says which key is wrong and what to write."""
    if not text.strip():
        return ()
    try:
        plain: Any = yaml.safe_load(text)
        found = msgspec.convert(plain, _File).keys
    except yaml.YAMLError as error:
        raise ValueError(f"is no YAML: {getattr(error, 'problem', error)}") from error
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    if len(found) > MAX_KEYS:
        raise ValueError(f"holds {len(found)} keys; write at most {MAX_KEYS}")
    names: set[str] = set()
    digests: set[str] = set()
    for number, key in enumerate(found):
        at = f"keys.{number} ({key.name[:64]!r})"
        if _NAME.fullmatch(key.name) is None or key.name in names:
            raise ValueError(f"{at}: write a name of its own: letters, digits, '.', '_' and '-', at most 64")
        if _SHA256.fullmatch(key.sha256) is None or key.sha256 in digests:
            raise ValueError(f"{at}: sha256 must be 64 lower-case hex digits of a key of its own")
        if not key.roles:
            raise ValueError(f"{at}: roles: write [infer], [operate] or both")
        if not 0.0 <= key.per_s < 1e9 or not 0 <= key.in_flight < 1_000_000_000:
            raise ValueError(f"{at}: per_s and in_flight are numbers from 0, 0 for no limit")
        names.add(key.name)
        digests.add(key.sha256)
    return found


def digest(token: str) -> str:
    """What a key file holds of a token."""
    return hashlib.sha256(token.encode()).hexdigest()
