"""The whole specification of edge/weights/progress.py: how far a fetch is, and how fast it came lately."""

from edge.weights.fetch import Meter
from edge.weights.manifest import Manifest, TensorSpec
from edge.weights.progress import LOOK_MS, MAX_LOOKS, UnderWay
from edge.weights.sources import Kind
from tests.support.blobs import blob_file

A, B = (blob_file(name, name.encode() * 1_000, chunk_bytes=4096) for name in "ab")
X = (TensorSpec("x", "FP32", (-1, 4)),)
MODEL = Manifest(1, "m", "1", "tensors", (A, B), X, X, 0, 8, 0, "none", "tests", {})


def nowhere(_: str) -> bool:
    return False


def test_nothing_is_under_way():
    assert UnderWay().of("d", MODEL, nowhere, 0.0) is None


def test_what_lies_here_and_what_has_come_count_and_what_came_twice_does_not():
    book, meter = UnderWay(), Meter()
    book.begin(A, meter, 0.0)
    meter.present_bytes = 100
    meter.add(Kind.FAR, 300)
    told = book.of("d", MODEL, lambda blob: blob == B.blake3, 100.0)
    assert told is not None
    assert (told.digest, told.done_bytes, told.total_bytes) == ("d", 1_400, 2_000)
    assert (told.bytes_per_s, told.sources) == (3_000.0, {"far": 300})
    meter.add(Kind.ORIGIN, 5_000)
    again = book.of("d", MODEL, nowhere, 100.0)
    assert again is not None
    assert again.done_bytes == 1_000


def test_a_rate_forgets_what_is_long_ago():
    book, meter = UnderWay(), Meter()
    book.begin(A, meter, 0.0)
    meter.add(Kind.ORIGIN, 1_000_000)
    rates = []
    for look in range(1, MAX_LOOKS + 2):
        meter.add(Kind.ORIGIN, 20)
        told = book.of("d", MODEL, nowhere, look * LOOK_MS)
        assert told is not None
        rates.append(told.bytes_per_s)
    assert rates[0] > 1_000_000.0
    assert rates[-1] == 20 / LOOK_MS * 1_000.0


def test_what_has_come_is_not_under_way():
    book = UnderWay()
    book.begin(A, Meter(), 0.0)
    book.end(A)
    book.end(A)
    assert (len(book), book.of("d", MODEL, nowhere, 1.0)) == (0, None)
