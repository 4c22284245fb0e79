"""What `edge.policy.route.decide` may answer: a place, a wait or a refusal, each with its reason.

Shapes only: who acts on one, and how, is the shell's business.
"""

import msgspec

from edge.errors import Reason


class Chosen(msgspec.Struct, frozen=True, gc=False):
    """Run it at `target`. `next` is the runner-up among those that were looked at, "" without one.

    Scores are predicted ms until the answer; `age_ms` is the age of what was known of the target.
    """

    target: str
    reason: str
    score_ms: float = 0.0
    next: str = ""
    next_ms: float = 0.0
    age_ms: float = 0.0


class Serve(Chosen, frozen=True, gc=False):
    """At a worker of this POP that has the model on its device, or on its way there."""


class Hydrate(Chosen, frozen=True, gc=False):
    """At a worker of this POP, once the weights have been brought to its device."""


class Spill(Chosen, frozen=True, gc=False):
    """At another POP; `broken` when that is because this POP's workers are, and not full, cold or absent."""

    broken: bool = False


class Queue(msgspec.Struct, frozen=True, gc=False):
    """Wait for a slot, at most `budget_ms`, then ask again."""

    reason: str
    budget_ms: float


class Shed(msgspec.Struct, frozen=True, gc=False):
    """Refuse, with the reason and the seconds after which trying again makes sense."""

    reason: Reason
    retry_after_s: int


Decision = Serve | Hydrate | Spill | Queue | Shed
