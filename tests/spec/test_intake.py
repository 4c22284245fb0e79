"""Newer or not, believable or not."""

import msgspec
import pytest

from edge.fleet.beacon import Bad, NeedWhole, Why, delta, encode
from edge.fleet.intake import Intake, Stale, Taken, judge
from edge.policy.facts import ModelBeacon, Tier
from edge.wire.meshcalls import BeaconNews
from tests.support.beacons import beacon, digest


class Mouth:
    """Says beacons to an intake, one after another."""

    def __init__(self):
        self.state = Intake()

    def say(self, one, dial=1, base=None):
        news, body = (BeaconNews(), encode(one)) if base is None else delta(base, one)
        self.state, verdict = judge(self.state, news, body, dial=dial, expect_node="fra-a")
        return verdict


ORDER = [
    ("the next one", {"seq": 6}, 1, Taken),
    ("one was skipped", {"seq": 9}, 1, Taken),
    ("the same again", {"seq": 5}, 1, Stale),
    ("an older one", {"seq": 4}, 1, Stale),
    ("an older one on a newer link", {"seq": 4}, 2, Stale),
    ("the next one on an older link", {"seq": 6}, 0, Taken),
    ("another boot on the same link", {"boot": 8, "seq": 1}, 1, Stale),
    ("another boot on an older link", {"boot": 8, "seq": 1}, 0, Stale),
    ("another boot on a newer link", {"boot": 8, "seq": 1}, 2, Taken),
    ("a boot of a clock that was set back, on a newer link", {"boot": 6, "seq": 1}, 2, Taken),
]


@pytest.mark.parametrize(("_", "changes", "dial", "verdict"), ORDER, ids=[row[0] for row in ORDER])
def test_order(_, changes, dial, verdict):
    mouth = Mouth()
    assert isinstance(mouth.say(beacon(seq=5)), Taken)
    before = mouth.state
    assert isinstance(mouth.say(beacon(**changes), dial), verdict)
    assert (mouth.state is before) is (verdict is Stale)


def test_the_old_process_is_not_believed_once_the_new_one_spoke():
    mouth = Mouth()
    mouth.say(beacon(seq=5), dial=1)
    mouth.say(beacon(boot=8, seq=1), dial=2)
    assert mouth.say(beacon(seq=6), dial=1) == Stale()
    assert mouth.say(beacon(boot=8, seq=2), dial=2).beacon.seq == 2


def test_a_late_word_on_an_older_link_does_not_open_the_door_to_another_boot():
    mouth = Mouth()
    mouth.say(beacon(seq=5), dial=3)
    assert isinstance(mouth.say(beacon(seq=6), dial=1), Taken)
    assert mouth.say(beacon(boot=8, seq=1), dial=2) == Stale()


def test_a_bad_one_changes_nothing():
    mouth = Mouth()
    mouth.say(beacon(seq=5))
    before = mouth.state
    bad = mouth.say(beacon(seq=6, node="iad-a"))
    assert isinstance(bad, Bad)
    assert bad.why is Why.NODE
    assert mouth.state is before


def test_after_a_lost_difference_a_whole_one_is_needed():
    mouth = Mouth()
    one, two, three = beacon(seq=1), beacon(seq=2), beacon(4, seq=3)
    mouth.say(one)
    assert mouth.say(three, base=two) == NeedWhole()
    assert mouth.say(three) == Taken(three)


def test_one_that_loses_most_models_is_doubted_until_the_next_says_so_too():
    mouth = Mouth()
    full, bare, bare_again = beacon(20, seq=1), beacon(4, seq=2), beacon(4, seq=3, draining=True)
    mouth.say(full)
    doubted = mouth.say(bare, base=full)
    assert doubted == Taken(msgspec.structs.replace(bare, models=full.models), doubted=True)
    assert mouth.say(bare_again, base=bare) == Taken(bare_again)


def test_a_slip_of_one_beacon_costs_nothing():
    mouth = Mouth()
    full, bare, back = beacon(20, seq=1), beacon(4, seq=2), beacon(20, seq=3)
    mouth.say(full)
    assert mouth.say(bare, base=full).beacon.models == full.models
    assert mouth.say(back, base=bare) == Taken(back)
    assert mouth.say(beacon(4, seq=4), base=back).doubted, "the next slip is doubted anew"


def test_a_reboot_is_doubted_too_and_only_once():
    mouth = Mouth()
    full = beacon(20, seq=50)
    mouth.say(full)
    first = mouth.say(beacon(0, boot=8, seq=1, workers=beacon().workers[:1]), dial=2)
    assert first.doubted
    assert first.beacon.models.keys() == full.models.keys()
    assert {index for one in first.beacon.models.values() for index in one.workers} <= {0}
    assert mouth.say(beacon(0, boot=8, seq=2), dial=2) == Taken(beacon(0, boot=8, seq=2))


NOT_DOUBTED = [
    ("seven models, all gone", 7, {}),
    ("half of twenty gone", 20, {digest(i): ModelBeacon(Tier.DISK) for i in range(1, 11)}),
    ("twenty that only left the devices", 20, {digest(i): ModelBeacon(Tier.DISK) for i in range(1, 21)}),
]


@pytest.mark.parametrize(("_", "had", "models"), NOT_DOUBTED, ids=[row[0] for row in NOT_DOUBTED])
def test_not_doubted(_, had, models):
    mouth = Mouth()
    mouth.say(beacon(had, seq=1))
    now = msgspec.structs.replace(beacon(seq=2), models=models)
    assert mouth.say(now) == Taken(now)


def test_models_that_are_named_but_held_nowhere_count_as_lost():
    mouth = Mouth()
    full = beacon(20, seq=1)
    mouth.say(full)
    named = msgspec.structs.replace(full, seq=2, models=dict.fromkeys(full.models, ModelBeacon(Tier.ORIGIN)))
    assert mouth.say(named) == Taken(msgspec.structs.replace(full, seq=2), doubted=True)
