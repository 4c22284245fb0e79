"""Every reason has one status, and the status says whose turn it is."""

import pytest

from edge.errors import STATUS, EdgeError, Reason, Source, bad_input


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_status_and_is_a_token(reason):
    assert 400 <= STATUS[reason] <= 599
    assert str(reason).replace("-", "").isalnum()
    assert str(reason) == str(reason).lower()


@pytest.mark.parametrize(
    ("sentence", "reasons", "status"),
    [
        (
            "capacity exists but is contended",
            (Reason.SATURATED, Reason.QUEUE_FULL, Reason.QUEUE_TIMEOUT),
            429,
        ),
        (
            "none can serve now",
            (
                Reason.NO_ENDPOINT,
                Reason.NO_CATALOGUE,
                Reason.NO_MEMORY,
                Reason.ORIGIN_DOWN,
                Reason.BLOB_CORRUPT,
            ),
            503,
        ),
        ("the deadline", (Reason.DEADLINE,), 504),
        ("a loop", (Reason.LOOP,), 508),
        ("absent from the catalogue", (Reason.UNKNOWN_MODEL,), 404),
    ],
)
def test_the_families(sentence, reasons, status):
    assert {STATUS[reason] for reason in reasons} == {status}


def test_bad_input_is_the_clients_and_is_not_tried_again():
    error = bad_input("x has 3 dims")
    assert (error.status, error.source, error.retryable) == (400, Source.DOWNSTREAM, False)
    assert "x has 3 dims" in repr(error)


def test_an_error_is_ours_until_somebody_says_otherwise():
    assert EdgeError(Reason.INTERNAL, "bug").source is Source.INTERNAL
