"""The mirror of a region's index: what it believes, what it refuses, and what it keeps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.config_file import NAME
from edge.weights.mirror import (
    MAX_NODES,
    NODE,
    Event,
    Holder,
    Mirror,
    Peer,
    Reading,
    has_gap,
    leader,
    read_event,
    read_peer,
)
from edge.weights.replies import NodeLook, NodePage, Page
from edge.weights.scripts import prefix

OLD, NEW = "0" * 32, "1" * 32
X, Y, Z = "a" * 64, "b" * 64, "c" * 64


def blobs(node):
    return f"10.0.0.{ord(node[-1])}:7444"


def page(locations=None, nodes=("a", "b", "c"), *, dead=(), torn=(), refused=0):
    records = [NodePage(node, node not in dead, "boot", blobs(node)) for node in nodes]
    return Page("0", refused, records, [(d, list(n)) for d, n in (locations or {}).items()], list(torn))


def reading(*pages):
    found = Reading()
    for one in pages:
        found.take(one)
    return found


def mirror(locations=None, *, epoch=OLD, judge=True, **options):
    """The mirror of node "a" after reading one page."""
    made = Mirror("a")
    made.load(reading(page(locations, **options)), epoch, judge=judge)
    return made


def names(made, digest):
    return [holder.node for holder in made.holders(digest)]


def at(state, node, digest=X, epoch=OLD):
    return Event(epoch, node, digest, state)


def test_node_names_are_those_of_the_config():
    assert NODE.pattern == NAME.pattern


def test_the_region_is_a_cluster_hash_tag():
    assert prefix("us") == "wc:{us}:"


# --- events, read


@pytest.mark.parametrize(
    ("sentence", "fields", "good"),
    [
        ("a blob came", (OLD, "iad-a", X, "here"), True),
        ("a blob left", (OLD, "iad-a", X, "gone"), True),
        ("a lease was given back", (OLD, "iad-a", X, "free"), True),
        ("a node changed", (OLD, "iad-a", "", "node"), True),
        ("a node's change names no blob", (OLD, "iad-a", X, "node"), False),
        ("a blob's change names one", (OLD, "iad-a", "", "here"), False),
        ("a state from the future", (OLD, "iad-a", X, "frozen"), False),
        ("digest in upper case", (OLD, "iad-a", X.upper(), "here"), False),
        ("digest too short", (OLD, "iad-a", X[:-1], "here"), False),
        ("digest with a newline behind it", (OLD, "iad-a", X + "\n", "here"), False),
        ("node with a newline", (OLD, "iad\na", X, "here"), False),
        ("node with a newline behind it", (OLD, "iad-a\n", X, "here"), False),
        ("node with a slash", (OLD, "../iad", X, "here"), False),
        ("node of 33 characters", (OLD, "a" * 33, X, "here"), False),
        ("no node", (OLD, "", X, "here"), False),
        ("no epoch", ("", "iad-a", X, "here"), False),
        ("epoch that is no epoch", ("1" * 31 + "g", "iad-a", X, "here"), False),
        ("nothing at all", ("", "", "", ""), False),
    ],
)
def test_an_event_is_read_whole_or_not_at_all(sentence, fields, good):
    assert read_event(*fields) == (Event(*fields) if good else None)


@pytest.mark.parametrize(
    ("sentence", "boot", "address", "good"),
    [
        ("an address and a port", "b1", "10.1.0.11:7444", True),
        ("IPv6 in brackets", "b1", "[fd5e::1]:7444", True),
        ("loopback, where all nodes are on one machine", "b1", "127.0.0.1:7444", True),
        ("a name is not resolved", "b1", "evil.test:7444", False),
        ("port 0", "b1", "10.1.0.11:0", False),
        ("port 65536", "b1", "10.1.0.11:65536", False),
        ("a negative port", "b1", "10.1.0.11:-1", False),
        ("no port", "b1", "10.1.0.11", False),
        ("IPv6 without brackets", "b1", "fd5e::1:7444", False),
        ("link-local, where clouds keep their secrets", "b1", "169.254.169.254:80", False),
        ("multicast", "b1", "224.0.0.1:80", False),
        ("any address", "b1", "0.0.0.0:80", False),
        ("an address with a path", "b1", "10.1.0.11:80/x", False),
        ("no address", "b1", "", False),
        ("no boot", "", "10.1.0.11:7444", False),
        ("boot with a space", "b 1", "10.1.0.11:7444", False),
        ("boot of 65 characters", "b" * 65, "10.1.0.11:7444", False),
    ],
)
def test_a_nodes_record_is_an_address_one_machine_can_have(sentence, boot, address, good):
    assert read_peer(boot, address) == (Peer(boot, address) if good else None)


@pytest.mark.parametrize(
    ("sentence", "seen", "oldest", "last", "trimmed", "gap"),
    [
        ("nothing new", "5-0", "1-0", "5-0", False, False),
        ("all that is new is there", "5-0", "1-0", "9-0", True, False),
        ("the oldest there is the one seen last", "5-0", "5-0", "9-0", True, False),
        ("some were trimmed", "5-0", "6-0", "9-0", True, True),
        ("numbers within a millisecond count", "5-9", "5-10", "5-11", True, True),
        ("numbers are no text", "5-9", "5-0", "5-10", True, False),
        ("nothing was ever trimmed", "0-0", "6-0", "9-0", False, False),
        ("the Stream began anew", "5-0", "0-0", "0-0", False, True),
        ("an empty index, never read", "0-0", "0-0", "0-0", False, False),
    ],
)
def test_a_gap_is_seen(sentence, seen, oldest, last, trimmed, gap):
    assert has_gap(seen, oldest, last, trimmed=trimmed) is gap


# --- events, applied


@pytest.mark.parametrize(
    ("sentence", "before", "event", "changed", "after"),
    [
        ("a first copy", {}, at("here", "b"), True, ["b"]),
        ("a second copy", {X: "b"}, at("here", "c"), True, ["b", "c"]),
        ("known already", {X: "b"}, at("here", "b"), False, ["b"]),
        ("one of two left", {X: "bc"}, at("gone", "b"), True, ["c"]),
        ("the last one left", {X: "b"}, at("gone", "b"), True, []),
        ("one that had none left", {X: "b"}, at("gone", "c"), False, ["b"]),
        ("this node's own copy is no other's", {}, at("here", "a"), True, []),
        ("a copy where no record is known", {}, at("here", "d"), True, []),
        ("a lease given back moves nothing", {X: "b"}, at("free", "b"), False, ["b"]),
        ("a changed node moves nothing by itself", {X: "b"}, at("node", "b", ""), False, ["b"]),
    ],
)
def test_an_event_changes_one_location(sentence, before, event, changed, after):
    made = mirror(before)
    assert made.apply(event) is changed
    assert names(made, X) == after


def test_a_holder_says_where_it_gives():
    assert mirror({X: "ab"}).holders(X) == (Holder("b", blobs("b")),)


def test_a_node_that_is_met_later_is_a_holder_then():
    made = mirror({}, nodes=("a",))
    made.apply(at("here", "b"))
    assert names(made, X) == []
    made.look({"b": NodeLook(True, "boot", blobs("b"))}, judge=True)
    assert names(made, X) == ["b"]


def test_no_blob_has_more_holders_than_there_can_be_nodes():
    made = mirror({})
    for number in range(MAX_NODES + 3):
        made.apply(at("here", f"n{number}"))
    assert made.refused == 3


# --- the whole index, read anew


def test_a_reload_replaces_what_was_known():
    made = mirror({X: "bc", Y: "b"})
    made.load(reading(page({X: "c"})), OLD, judge=True)
    assert (names(made, X), names(made, Y), made.blobs) == (["c"], [], 1)


def test_an_empty_index_of_a_new_epoch_is_no_reason_to_forget():
    made = mirror({X: "b", Y: "c"})
    made.load(reading(page({}, nodes=())), NEW, judge=True)
    assert (names(made, X), names(made, Y), made.blobs, made.epoch) == (["b"], ["c"], 2, NEW)


def test_what_is_not_registered_again_in_time_is_forgotten():
    made = mirror({X: "b", Y: "c"})
    made.load(reading(page({}, nodes=())), NEW, judge=True)
    made.apply(at("here", "b", epoch=NEW))
    assert made.settle() is True
    assert (names(made, X), names(made, Y)) == (["b"], [])
    assert made.settle() is False


def test_what_left_in_a_new_epoch_is_not_carried_on():
    made = mirror({X: "bc"})
    made.load(reading(page({}, nodes=())), NEW, judge=True)
    assert made.apply(at("gone", "b", epoch=NEW)) is True
    assert names(made, X) == ["c"]


def test_two_new_epochs_at_once_lose_nothing():
    made = mirror({X: "b"})
    made.load(reading(page({Y: "c"})), NEW, judge=True)
    made.load(reading(page({}, nodes=())), "2" * 32, judge=True)
    assert (names(made, X), names(made, Y)) == (["b"], ["c"])


def test_what_could_not_be_read_whole_keeps_its_last_good():
    made = mirror({X: "bc", Y: "b"})
    made.load(reading(page({X: "b"}, torn=(X, Y), refused=2)), OLD, judge=True)
    assert (names(made, X), names(made, Y), made.refused) == (["b", "c"], ["b"], 2)


@pytest.mark.parametrize(
    ("sentence", "bad", "refused"),
    [
        ("digest in upper case", page({X.upper(): "b"}), 1),
        ("node with a newline", page({X: ["b\n"]}), 1),
        ("node with a capital", page({X: ["B"]}), 1),
        ("an address that is a lie", Page("0", 0, [NodePage("d", True, "b1", "evil.test:80")], [], []), 1),
        ("a record of no node", Page("0", 0, [NodePage("D d", True, "b1", blobs("d"))], [], []), 1),
        ("what the server refused already", page({}, refused=7), 7),
        ("torn, but no digest", page({}, torn=("../x",)), 0),
    ],
)
def test_what_is_wrong_in_a_page_is_left_out_and_counted(sentence, bad, refused):
    made = mirror({Y: "b"})
    made.load(reading(page({Y: "b"}), bad), OLD, judge=True)
    assert (names(made, X), names(made, Y), made.refused) == ([], ["b"], refused)


def test_a_false_address_leaves_the_last_good_one():
    made = mirror({X: "b"})
    made.look({"b": NodeLook(True, "boot", "169.254.169.254:80")}, judge=True)
    assert made.holders(X) == (Holder("b", blobs("b")),)
    assert made.refused == 1


def test_more_nodes_than_there_can_be_are_refused():
    made = mirror({}, nodes=tuple(f"n{number}" for number in range(MAX_NODES + 5)))
    assert (len(made.nodes()), made.refused) == (MAX_NODES, 5)


def test_a_location_of_a_node_without_a_record_is_a_stray():
    assert reading(page({X: "bz"})).strays() == {"z"}


def test_what_this_node_is_listed_for():
    assert mirror({X: "ab", Y: "b", Z: "a"}).held_by("a") == {X, Z}


# --- life and death


def look(living, node="b"):
    return {node: NodeLook(living, "boot", blobs(node))}


def test_a_dead_node_is_no_holder_and_is_to_be_swept():
    made = mirror({X: "bc"})
    assert made.look(look(False), judge=True) == (True, {"b"})
    assert (names(made, X), made.nodes()) == (["c"], ("a", "c"))


def test_a_node_that_lives_again_is_a_holder_again():
    made = mirror({X: "b"})
    made.look(look(False), judge=True)
    assert made.look(look(True), judge=True) == (True, set())
    assert names(made, X) == ["b"]


def test_who_was_cut_off_calls_nobody_dead():
    made = mirror({X: "b"})
    assert made.look(look(False), judge=False) == (False, set())
    assert names(made, X) == ["b"]
    made.load(reading(page({X: "b"}, dead=("b",))), OLD, judge=False)
    assert names(made, X) == ["b"]


def test_a_dead_node_that_is_met_for_the_first_time_is_dead():
    assert names(mirror({X: "bc"}, dead=("b",), judge=False), X) == ["c"]


def test_a_node_without_record_and_life_is_forgotten_with_all_it_had():
    made = mirror({X: "bc", Y: "b"})
    assert made.look({"b": NodeLook(False, "", "")}, judge=True) == (True, set())
    assert (names(made, X), made.known(), made.blobs) == (["c"], ("a", "c"), 1)


def test_a_living_node_whose_record_is_broken_keeps_the_last_good():
    made = mirror({X: "b"})
    assert made.look({"b": NodeLook(True, "", "")}, judge=True) == (False, set())
    assert names(made, X) == ["b"]


def test_a_look_at_what_is_no_name_changes_nothing():
    made = mirror({X: "b"})
    assert made.look({"B\n": NodeLook(True, "boot", blobs("b"))}, judge=True) == (False, set())
    assert made.known() == ("a", "b", "c")


def test_who_is_known():
    assert (mirror({}).knows("b"), mirror({}).knows("z")) == (True, False)


# --- whose turn it is


NODES = st.sets(st.text("abcdef0123456789-", min_size=1, max_size=8), min_size=1, max_size=12)
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)


def test_of_no_nodes_nobody_leads():
    assert leader(X, ()) == ""


@given(DIGESTS, NODES)
def test_all_that_see_the_same_nodes_name_the_same_leader(digest, nodes):
    assert leader(digest, sorted(nodes)) == leader(digest, sorted(nodes, reverse=True))
    assert leader(digest, nodes) in nodes


@given(DIGESTS, NODES, st.data())
def test_only_the_digests_of_a_node_that_leaves_move(digest, nodes, data):
    gone = data.draw(st.sampled_from(sorted(nodes)))
    before = leader(digest, nodes)
    if gone != before:
        assert leader(digest, nodes - {gone}) == before


def test_leadership_is_spread():
    turns = [leader(f"{number:064x}", ("a", "b", "c", "d")) for number in range(2000)]
    assert all(400 < turns.count(node) < 600 for node in "abcd")


# --- whatever is said


EVENTS = st.builds(
    at, st.sampled_from(["here", "gone", "free"]), st.sampled_from("abcz"), st.sampled_from([X, Y, Z])
)


@given(st.lists(EVENTS, max_size=60))
def test_the_mirror_is_what_the_events_leave_behind(events):
    made, truth = mirror({}), {}
    for event in events:
        made.apply(event)
        if event.state != "free":
            truth[event.digest, event.node] = event.state == "here"
    for digest in (X, Y, Z):
        assert names(made, digest) == [node for node in "bc" if truth.get((digest, node))]
    assert made.blobs == len({digest for (digest, _), here in truth.items() if here})


ANY = st.text(max_size=70)


@given(
    st.lists(st.tuples(ANY, ANY, ANY, ANY), max_size=20),
    st.dictionaries(ANY, st.lists(ANY, max_size=4), max_size=9),
)
def test_whatever_is_said_the_last_good_stays(events, locations):
    made = mirror({X: "b"})
    for fields in events:
        event = read_event(*fields)
        if event is not None:
            made.apply(event)
    bad = Page("0", 0, [NodePage(node, True, "b1", node) for node in locations], list(locations.items()), [])
    made.load(reading(page({X: "b"}), bad), OLD, judge=True)
    assert names(made, X) == ["b"]
