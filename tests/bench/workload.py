"""What is asked, and the only answer that counts: the identity model over OIP JSON, FP32 [1, 16]. Pure.

Everybody is asked the same and checked by the same rule. It knows no server and no socket.
"""

import json
from collections.abc import Sequence
from typing import Final

MODEL: Final = "identity"
WIDTH: Final = 16
PATH: Final = f"/v2/models/{MODEL}/infer"
FIXED: Final = tuple(number + 0.5 for number in range(WIDTH))


class WrongAnswer(Exception):  # noqa: N818 -- it is named after what was found
    """A server answered something else than the model would; a run with one is worth nothing."""


def numbers(seed: int) -> tuple[float, ...]:
    """Sixteen numbers that no other seed below 2^16 has; all exact in FP32."""
    return tuple((seed % 65_536) + position / 16 for position in range(WIDTH))


def question(values: Sequence[float]) -> bytes:
    """The request's body."""
    tensor = {"name": "x", "shape": [1, WIDTH], "datatype": "FP32", "data": list(values)}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()


def answer(values: Sequence[float]) -> bytes:
    """A body that `check` takes; the front door alone answers with it."""
    tensor = {"name": "y", "datatype": "FP32", "shape": [1, WIDTH], "data": list(values)}
    whole = {"model_name": MODEL, "model_version": "1", "outputs": [tensor]}
    return json.dumps(whole, separators=(",", ":")).encode()


def check(who: str, status: int, body: bytes, values: Sequence[float]) -> None:
    """Raise WrongAnswer unless `body` answers `question(values)` exactly."""
    try:
        told = json.loads(body)
        right = (
            status == 200
            and told["model_name"] == MODEL
            and len(told["outputs"]) == 1
            and told["outputs"][0]["name"] == "y"
            and told["outputs"][0]["datatype"] == "FP32"
            and told["outputs"][0]["shape"] == [1, WIDTH]
            and told["outputs"][0]["data"] == list(values)
        )
    except (ValueError, KeyError, TypeError):
        right = False
    if not right:
        raise WrongAnswer(f"{who} answered {status} {body[:300]!r} to {values[:2]}...")
