"""After a failure: again here, or give up?

Only the ingress node retries. A request is repeated when the failed attempt is known not
to have run (`retryable`), the body is still held, time is left, and the budget has a
token. In this form "again" means at this POP; there is no elsewhere yet.
"""

from enum import StrEnum
from typing import Final

import msgspec

from edge.errors import EdgeError

MAX_ATTEMPTS: Final = 3
BUDGET_RATIO: Final = 0.1
BUDGET_PER_S: Final = 2.0
BUDGET_CAP: Final = 100.0


class Next(StrEnum):
    """What the shell does with a failed request."""

    AGAIN_HERE = "again-here"
    GIVE_UP = "give-up"


class Budget(msgspec.Struct, frozen=True, gc=False):
    """Tokens for retries: a tenth of the successes plus two per second, never above the cap."""

    tokens: float = BUDGET_PER_S
    at_ms: float = 0.0

    def refilled(self, now_ms: float) -> "Budget":
        """The budget after time has passed."""
        gained = max(0.0, now_ms - self.at_ms) / 1000.0 * BUDGET_PER_S
        return Budget(min(BUDGET_CAP, self.tokens + gained), now_ms)

    def after_success(self) -> "Budget":
        """The budget after an answered request."""
        if self.tokens >= BUDGET_CAP:
            return self
        return Budget(min(BUDGET_CAP, self.tokens + BUDGET_RATIO), self.at_ms)

    def after_retry(self) -> "Budget":
        """The budget after spending one token."""
        return Budget(self.tokens - 1.0, self.at_ms)


def after(failure: EdgeError, *, attempt: int, body_held: bool, left_ms: float, budget: Budget) -> Next:
    """What to do after attempt number `attempt` (from 1) failed. `left_ms` is the deadline's rest."""
    if not failure.retryable or not body_held:
        return Next.GIVE_UP
    if attempt >= MAX_ATTEMPTS or left_ms <= 0.0 or budget.tokens < 1.0:
        return Next.GIVE_UP
    return Next.AGAIN_HERE
