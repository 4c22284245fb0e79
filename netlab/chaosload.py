"""What is asked, and whether an answer is the right one. Pure: a number makes a request.

Most requests are `identity` with numbers of their own, so that somebody else's answer, half of one
or two of them are seen at once. The others have a few inputs each, whose answers are known from a
quiet moment: they are there for cold starts, loads and evictions.
"""

import json
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

#: How often a model is asked.
SHARES: Final = {"identity": 14, "mlp": 2, "magika": 2, "minilm": 2}
#: Inputs of each model but identity.
INPUTS: Final = 4
#: One of so many asks on a connection of its own; one of so many over IPv6.
ONE_SHOT_OF: Final = 5
IPV6_OF: Final = 4
#: FP32 holds every whole number below this.
WHOLE: Final = 1 << 24
COLUMNS: Final = 16
#: A node tells late requests so before a user gives up (chaosusers.PATIENCE_S).
DEADLINE_MS: Final = 6000
#: Batched and single results agree to that much.
COSINE: Final = 0.9999
NEAR: Final = 1e-3

_CONTENTS: Final = (
    "#!/bin/sh\nset -eu\nfor f in *.txt; do\n  echo \"$f\"\ndone\n",
    "import os\n\n\ndef main() -> None:\n    print(os.getcwd())\n",
    '{"pop": "fra", "nodes": ["fra-a"], "rtt_ms": [8, 90, 230]}\n',
    "<!doctype html>\n<html><head><title>POP</title></head><body><p>Hello</p></body></html>\n",
)  # fmt: skip
_TEXTS: Final = (
    "How do I reach the nearest GPU?",
    "Bread is baked from flour, water and salt.",
    "The train to Tokyo leaves at nine.",
    "Anycast leads every packet to one of many machines.",
)


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `variant` says which of a model's inputs it is; identity's are all its own."""

    id: str
    model: str
    variant: int
    body: bytes
    family: int
    keep: bool

    def bytes_to(self, host: str) -> bytes:
        """The request as it goes over the wire."""
        lines = [
            f"POST /run/{self.model} HTTP/1.1",
            f"Host: {host}",
            f"X-Request-Id: {self.id}",
            f"Edge-Deadline-Ms: {DEADLINE_MS}",
            f"Content-Length: {len(self.body)}",
            *([] if self.keep else ["Connection: close"]),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


def asking(run: str, city: int, count: int, seed: int, models: Sequence[str]) -> Asking:
    """The `count`-th request of the `city`-th city: the same arguments, the same request."""
    draw = random.Random(f"load {seed} {city} {count}")  # noqa: S311 -- what is wanted is the same again
    model = draw.choices(models, [SHARES[model] for model in models])[0]
    variant = draw.randrange(WHOLE - COLUMNS) if model == "identity" else draw.randrange(INPUTS)
    return Asking(
        id=f"{run}-{city}-{count}",
        model=model,
        variant=variant,
        body=body_of(model, variant),
        family=6 if draw.randrange(IPV6_OF) == 0 else 4,
        keep=draw.randrange(ONE_SHOT_OF) != 0,
    )


def body_of(model: str, variant: int) -> bytes:
    """What is sent."""
    match model:
        case "identity":
            return json.dumps({"input": [[float(variant + column) for column in range(COLUMNS)]]}).encode()
        case "mlp":
            return json.dumps({"input": [[(variant + 1) / (column + 1) for column in range(256)]]}).encode()
        case "magika":
            return _CONTENTS[variant].encode()
        case _:
            return _TEXTS[variant].encode()


def problem(asked: Asking, body: bytes, known: Mapping[tuple[str, int], bytes]) -> str:
    """What is wrong with the body of a 200; empty when nothing is. `known`: answers of a quiet moment."""
    try:
        found = json.loads(body)
        if found["model"] != asked.model:
            return f"an answer of {found['model']}"
        if asked.model == "identity":
            wanted = [[float(asked.variant + column) for column in range(COLUMNS)]]
            return "" if found["outputs"]["y"] == wanted else "numbers that were not sent"
        right = json.loads(known[asked.model, asked.variant])
        return "" if _same(asked.model, found, right) else "not the answer of a quiet moment"
    except (ValueError, KeyError, TypeError) as error:
        return f"no answer of {asked.model}: {type(error).__name__}"


def _same(model: str, found: Any, right: Any) -> bool:
    match model:
        case "mlp":
            pairs = zip(found["outputs"]["y"][0], right["outputs"]["y"][0], strict=True)
            return all(math.isclose(one, other, rel_tol=NEAR, abs_tol=NEAR) for one, other in pairs)
        case "magika":
            return bool(found["label"] == right["label"])
        case _:
            return _cosine(found["embedding"], right["embedding"]) >= COSINE


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / (math.hypot(*one) * math.hypot(*other))
