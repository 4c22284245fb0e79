"""Who uses a blob and who else has it, joined into what it is worth; and the file that remembers uses."""

import pytest

from edge.policy.worth import MAX_MODELS, NOTHING, SPARED_MS, Uses
from edge.weights.appraisal import WAIT_MS, Appraiser, decode_uses, encode_uses
from edge.weights.layout import Found, blob_key, manifest_key
from edge.weights.mirror import Holder
from edge.weights.sources import PRIOR, Kind
from tests.support.blobs import Bucket

A, B = "a" * 64, "b" * 64
SIZE = 1 << 30


class Node:
    """Everything an appraiser asks."""

    def __init__(self, tmp_path, *names):
        bucket = Bucket(tmp_path)
        # All of them have the same graph: a blob that they share.
        self.models = {name: bucket.publish(name, size_bytes=100, chunk_bytes=1 << 16) for name in names}
        self.known = {one.digest: one.manifest for one in self.models.values()}
        self.held_by = {}
        self.rates = {}
        self.appraiser = Appraiser(self, self, self)

    def holders(self, digest):
        return self.held_by.get(digest, ())

    def rate(self, kind):
        return self.rates.get(kind, 0.0)

    def blob(self, name):
        return self.models[name].weights.blake3

    def used(self, name, times=1):
        for _ in range(times):
            self.appraiser.uses.used(self.models[name].digest)

    def worth(self, blob, now_ms=0.0):
        return self.appraiser.survey(now_ms, ())(blob_key(blob), SIZE)


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path, "a", "b")


def test_a_blob_is_wanted_as_often_as_the_models_that_name_it(node):
    node.used("a", 2)
    node.used("b", 3)
    shared = node.models["a"].manifest.files[0].blake3
    assert shared == node.models["b"].manifest.files[0].blake3
    mine, others, both = (node.worth(blob).frequency for blob in (node.blob("a"), node.blob("b"), shared))
    assert 0 < mine < others
    assert both == pytest.approx(mine + others)


def test_what_no_model_names_and_what_is_no_blob_is_worth_nothing(node):
    node.used("a")
    assert node.worth("f" * 64).per_byte == 0.0
    value = node.appraiser.survey(0.0, ())
    assert value(manifest_key(node.models["a"].digest), 10) == NOTHING
    assert value("ingest/" + node.blob("a"), 10) == NOTHING


def test_the_more_models_lie_here_whole_the_longer_is_use_remembered(node):
    def left(blobs):
        value = node.appraiser.survey(0.0, map(blob_key, blobs))
        return value(blob_key(node.blob("a")), SIZE).frequency

    node.used("a")
    node.used("b", 300)
    graph = node.models["a"].manifest.files[0].blake3
    none, parts = left([]), left([graph])
    one, both = left([graph, node.blob("a")]), left([graph, node.blob("a"), node.blob("b")])
    assert none == parts < one < both
    assert left([]) == none


def test_the_only_copy_is_dearer_than_one_that_a_neighbour_has(node):
    node.rates = {Kind.REGION: 500_000.0, Kind.ORIGIN: 50_000.0}
    node.used("a")
    alone = node.worth(node.blob("a"))
    node.held_by[node.blob("a")] = (Holder("n2", "10.0.0.2:7444"),)
    shared = node.worth(node.blob("a"))
    assert alone.refetch_s == pytest.approx((WAIT_MS[Kind.ORIGIN] + SIZE / 50_000) / 1000)
    assert shared.refetch_s == pytest.approx((WAIT_MS[Kind.REGION] + SIZE / 500_000) / 1000)
    assert shared.per_byte < alone.per_byte


def test_an_unmeasured_rate_is_believed_to_be_as_the_sources_are(node):
    assert node.appraiser.refetch_s(A, SIZE) == pytest.approx(
        (WAIT_MS[Kind.ORIGIN] + SIZE / PRIOR[Kind.ORIGIN]) / 1000
    )


def test_a_blob_of_a_model_that_was_published_a_moment_ago_is_spared(node):
    node.appraiser.published([node.models["a"].digest], 0.0)
    node.appraiser.published([one.digest for one in node.models.values()], 5.0)
    assert not node.worth(node.blob("a"), 6.0).spared
    assert node.worth(node.blob("b"), 6.0).spared
    assert not node.worth(node.blob("b"), 5.0 + SPARED_MS).spared


def found(raw):
    return Found({}, {}, None, True, {}, None, raw)


def test_uses_outlive_a_restart(node, tmp_path):
    node.used("a", 3)
    later = Appraiser(node, node, node)
    later.begin(found(encode_uses(node.appraiser.uses)))
    assert later.uses.frequency(node.models["a"].digest) == pytest.approx(3.0, abs=0.1)
    later.begin(found(None))
    assert later.uses.dump(), "no file is no reason to forget"


@pytest.mark.parametrize(
    ("sentence", "raw"),
    [
        ("not JSON", b"{"),
        ("not ours", b'{"pinned": []}'),
        ("not UTF-8", b'{"uses": [["\xff", 1]]}'),
        ("no digest", b'{"uses": [["../x", 1.0]]}'),
        ("a negative number of times", b'{"uses": [["%s", -1.0]]}' % A.encode()),
        ("more than anything is used", b'{"uses": [["%s", 1e300]]}' % A.encode()),
        ("too many", b'{"uses": [%s]}' % b",".join([b'["%s", 1.0]' % A.encode()] * (MAX_MODELS + 1))),
    ],
)
def test_a_file_that_is_not_ours_is_no_memory(node, caplog, sentence, raw):
    with pytest.raises(ValueError, match="uses"):
        decode_uses(raw)
    node.used("a")
    node.appraiser.begin(found(raw))
    assert node.appraiser.uses.dump(), sentence
    assert "is forgotten" in caplog.text


def test_the_file_of_as_many_models_as_are_remembered_can_be_read_again():
    uses = Uses()
    uses.load((f"{n:064x}", 1e8) for n in range(MAX_MODELS))
    raw = encode_uses(uses)
    assert len(raw) < 1 << 20
    assert len(decode_uses(raw).dump()) == MAX_MODELS
