"""After a failure: again here, elsewhere, or give up?

Only the ingress node asks this. `TABLE` is the answer; a reason that is not in it is never
repeated (all 4xx but "full", what the client did, loops). Inference is pure, so a request
that may have run may run again: once, on another node, if that still fits its deadline. It
costs a token of a budget of a tenth of the successes plus two per second, so that retries
can't storm. What ran nowhere goes elsewhere at once and costs nothing; the bound on tries
holds. It does not know nodes: which one is "elsewhere", the next decision says.

Sources: Google SRE (3 attempts, 10 % per client), Finagle and Envoy retry budgets.
"""

from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from edge.errors import EdgeError, Reason

#: Executions of one request, of which only the last may be answered.
MAX_EXECUTIONS: Final = 3
#: Nodes asked for one request, counting those that refused it.
MAX_TRIES: Final = 8
BUDGET_RATIO: Final = 0.1
BUDGET_PER_S: Final = 2.0
BUDGET_CAP: Final = 100.0


class Next(StrEnum):
    """What the shell does with a failed request."""

    #: Decide again; the node that failed is still a candidate. Costs a token.
    AGAIN_HERE = "again-here"
    #: Decide again without the node that failed. Costs a token unless the failure is retryable.
    ELSEWHERE = "elsewhere"
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


class Rule(NamedTuple):
    """What to do, if a token is there (`token`), the estimate fits what is left of the deadline
    (`time`), and fewer than `executions` were started and fewer than `tries` made so far.
    """

    then: Next
    token: bool
    time: bool
    executions: int
    tries: int = MAX_TRIES


#: It ran nowhere and the node told why: another one, at once.
REFUSED: Final = Rule(Next.ELSEWHERE, token=False, time=False, executions=MAX_EXECUTIONS)
#: The books were wrong, and are mended by now: the same node may be right. Without a token: elsewhere.
NOT_LOADED: Final = Rule(Next.AGAIN_HERE, token=True, time=False, executions=MAX_EXECUTIONS)
#: It may have run, or cost as much: once more, where that makes sense.
LOST: Final = Rule(Next.ELSEWHERE, token=True, time=True, executions=2)
#: The node could not bring the weights. Another may; but a model that fails everywhere must not be
#: fetched by one node after the other.
UNLOADABLE: Final = Rule(Next.ELSEWHERE, token=True, time=True, executions=MAX_EXECUTIONS, tries=3)

#: (why, does the failure say that nothing ran) -> rule.
TABLE: Final[dict[tuple[Reason, bool], Rule]] = {
    (Reason.SATURATED, True): REFUSED,
    (Reason.QUEUE_FULL, True): REFUSED,
    (Reason.QUEUE_TIMEOUT, True): REFUSED,
    (Reason.BUSY, True): REFUSED,
    (Reason.CONNECTIONS, True): REFUSED,
    (Reason.DRAINING, True): REFUSED,
    (Reason.COLD_REFUSED, True): REFUSED,
    (Reason.NO_CATALOGUE, True): REFUSED,
    (Reason.CONFINED, True): REFUSED,
    (Reason.REGION, True): REFUSED,
    (Reason.NO_ENDPOINT, True): NOT_LOADED,
    (Reason.LINK_LOST, True): REFUSED,
    (Reason.WORKER_LOST, True): REFUSED,
    (Reason.NO_MEMORY, True): UNLOADABLE,
    (Reason.NO_SPACE, True): UNLOADABLE,
    (Reason.ORIGIN_DOWN, True): UNLOADABLE,
    (Reason.BLOB_CORRUPT, True): UNLOADABLE,
    (Reason.LOAD_FAILED, True): UNLOADABLE,
    (Reason.NO_MEMORY, False): UNLOADABLE,
    (Reason.NO_SPACE, False): UNLOADABLE,
    (Reason.ORIGIN_DOWN, False): UNLOADABLE,
    (Reason.BLOB_CORRUPT, False): UNLOADABLE,
    (Reason.LOAD_FAILED, False): UNLOADABLE,
    # Sent, and no answer. A request that kills workers kills two.
    (Reason.LINK_LOST, False): LOST,
    (Reason.WORKER_LOST, False): LOST,
    (Reason.INFER_FAILED, False): LOST,
    (Reason.PROTOCOL, False): LOST,
    (Reason.INTERNAL, False): LOST,
    # No answer in time: normally the rest is less than the estimate.
    (Reason.DEADLINE, False): LOST,
    (Reason.DEADLINE, True): LOST,
}


#: What a node could not do with its disk or its origin, none of its workers can.
OF_THE_NODE: Final = frozenset({Reason.NO_SPACE, Reason.ORIGIN_DOWN, Reason.BLOB_CORRUPT})
#: What one device could not do, another one of the same node may.
OF_THE_DEVICE: Final = frozenset({Reason.NO_MEMORY, Reason.LOAD_FAILED})


def costs_token(failure: EdgeError) -> bool:
    """Does going elsewhere after this spend the budget?"""
    rule = TABLE.get((failure.reason, failure.retryable))
    return rule is not None and rule.token and rule is not NOT_LOADED


def after(
    failure: EdgeError,
    *,
    attempt: int,
    executions: int,
    body_held: bool,
    left_ms: float,
    estimate_ms: float,
    budget: Budget,
    first_byte_sent: bool = False,
) -> Next:
    """What to do after attempt number `attempt` (from 1) failed.

    `executions`: attempts so far that may have run, this one included. `left_ms` is the deadline's
    rest now, `estimate_ms` what another attempt is predicted to take. `first_byte_sent`: of the answer,
    to the client.
    """
    rule = TABLE.get((failure.reason, failure.retryable))
    if rule is None or first_byte_sent or not body_held or left_ms <= 0.0:
        return Next.GIVE_UP
    has_token = budget.tokens >= 1.0
    if rule is NOT_LOADED and (attempt > 1 or not has_token):
        # One more look at the same node is enough: it may be told wrong news for ever.
        rule = REFUSED
    if attempt >= rule.tries or executions >= rule.executions or (rule.token and not has_token):
        return Next.GIVE_UP
    if rule.time and left_ms < estimate_ms:
        return Next.GIVE_UP
    return rule.then
