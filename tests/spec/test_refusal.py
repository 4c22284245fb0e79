"""What an operator reads where a store refuses: its own word for it, and what helps."""

import pytest

from edge.weights import refusal

PREFACE = (
    "Generic S3 error: Error performing GET http://127.0.0.1:9000/models/{} in {} - "
    "Server returned non-2xx status code: 400 Bad Request: "
)


def s3(code: str, message: str, path: str = "catalog.json", took: str = "28.126283ms") -> str:
    """An error as the library words it."""
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return PREFACE.format(path, took) + body


CURES = [
    ("a clock that is wrong", s3("RequestTimeTooSkewed", "x"), "set the clock of this machine (Request"),
    ("a token of yesterday", s3("ExpiredToken", "x"), "renew them (ExpiredToken: x)"),
    ("no right, or nothing there", s3("AccessDenied", "x"), "not there, too (AccessDenied: x)"),
    ("another region", s3("AuthorizationHeaderMalformed", "eu-1"), "AWS_REGION to the bucket's region (Auth"),
    ("a redirect to one", "Received redirect without LOCATION, incorrectly configured region", "AWS_REGION"),
    ("far behind a long path", s3("ExpiredToken", "x", path="blobs/" + "f" * 600), "renew them"),
]


@pytest.mark.parametrize(("sentence", "error", "text"), CURES, ids=[row[0] for row in CURES])
def test_what_helps_is_said_with_the_word_of_the_store(sentence: str, error: str, text: str) -> None:
    assert text in refusal.cure(error), sentence


REASONS = [
    ("a busy store", s3("SlowDown", "Reduce your request rate"), "SlowDown: Reduce your request rate"),
    ("a word alone", "500: <Error><Code>InternalError</Code></Error>", "InternalError"),
    ("a cut-off answer", s3("Slow", "a")[:-20], "Slow"),
    (
        "no answer, the same however long it took",
        "Generic S3 error: Error performing GET http://h/b/c in 1.9ms, after 0 retries - HTTP error: refused",
        "HTTP error: refused",
    ),
    ("in microseconds", "Generic S3 error: Error performing PUT http://h/b/c in 233.7µs - no", "no"),
    (
        "a certificate for another name",
        PREFACE + "no\n  error: InvalidCertificate(\n    NotValidForNameContext {",
        "its certificate is refused (NotValidForName); the origin's URL must have a name that is in it",
    ),
    ("one that was called back", "no\nInvalidCertificate(Revoked)", "its certificate is refused (Revoked)"),
    ("what is no request", "a file\nand a trace", "a file"),
]


@pytest.mark.parametrize(("sentence", "error", "text"), REASONS, ids=[row[0] for row in REASONS])
def test_what_only_another_try_can_mend_is_said_in_a_line(sentence: str, error: str, text: str) -> None:
    assert refusal.reason(error) == text, sentence
    assert refusal.cure(error) == "", sentence
