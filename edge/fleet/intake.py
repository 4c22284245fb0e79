"""Is a beacon newer than what we have, and is it believable? Pure; what is remembered is passed in.

- Order is (boot, seq). Another boot is believed only on a link that was dialed after the one
  that carried the present boot: then the old process is gone, or on its way. Boots are not
  compared: a machine's clock may have been set back.
- A beacon that suddenly lacks most models is doubted: the models are kept as they were until the
  next beacon says the same, also after a reboot. A fault of one snapshot must not send a fleet's
  traffic into cold starts.
"""

from typing import Final

import msgspec

from edge.fleet.beacon import Bad, NeedWhole, decode_checked, merged
from edge.policy.facts import Beacon, ModelBeacon, Tier
from edge.wire.meshcalls import BeaconNews

#: A node with fewer models may lose them all at once without being doubted.
DOUBT_FROM: Final = 8
DOUBT_SHARE: Final = 0.5


class Stale(msgspec.Struct, frozen=True):
    """Older than what we have, or the same."""


class Taken(msgspec.Struct, frozen=True):
    """What is to be believed now."""

    beacon: Beacon
    doubted: bool = False


class Intake(msgspec.Struct, frozen=True):
    """What is remembered of one sender.

    `told` is its last beacon as it was sent, the base of its next delta; `believed` the models
    that were handed on; `dial` counts links, and is the newest that carried the boot of `told`.
    """

    told: Beacon | None = None
    believed: dict[str, ModelBeacon] = msgspec.field(default_factory=dict)
    doubting: bool = False
    dial: int = 0


def judge(
    state: Intake, news: BeaconNews, body: bytes, *, dial: int, expect_node: str
) -> tuple[Intake, Taken | Stale | Bad | NeedWhole]:
    """What becomes of one `BeaconNews` that came on link number `dial`. Never raises."""
    read = decode_checked(body, expect_node=expect_node)
    if isinstance(read, Bad):
        return state, read
    last = state.told
    if last is not None:
        newer = read.seq > last.seq if read.boot == last.boot else dial > state.dial
        if not newer:
            return state, Stale()
    told = merged(last, news, read)
    if not isinstance(told, Beacon):
        return state, told
    dial = max(dial, state.dial)
    if not state.doubting and shrunk(state.believed, told.models):
        kept = _on_workers(state.believed, len(told.workers))
        models = {**kept, **{digest: model for digest, model in told.models.items() if _has(model)}}
        doubted = msgspec.structs.replace(told, models=models)
        return Intake(told, state.believed, doubting=True, dial=dial), Taken(doubted, doubted=True)
    return Intake(told, told.models, dial=dial), Taken(told)


def shrunk(believed: dict[str, ModelBeacon], told: dict[str, ModelBeacon]) -> bool:
    """Whether more than half of the models that the node had, 8 or more, are gone at once."""
    if believed is told or len(believed) < DOUBT_FROM:
        return False
    had = [digest for digest, model in believed.items() if _has(model)]
    if len(had) < DOUBT_FROM:
        return False
    lost = [digest for digest in had if not _has(told.get(digest))]
    return len(lost) > DOUBT_SHARE * len(had)


def _has(model: ModelBeacon | None) -> bool:
    return model is not None and (bool(model.workers) or model.tier is not Tier.ORIGIN)


def _on_workers(models: dict[str, ModelBeacon], workers: int) -> dict[str, ModelBeacon]:
    """Without the workers that the node no longer has."""
    return {
        digest: model
        if all(index < workers for index in model.workers)
        else msgspec.structs.replace(
            model, workers={index: on for index, on in model.workers.items() if index < workers}
        )
        for digest, model in models.items()
    }
