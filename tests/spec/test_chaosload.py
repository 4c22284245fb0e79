"""What a chaos run asks: reproducible, each request its own, and every wrong answer is seen."""

import json

import pytest

from netlab import chaosload
from netlab.chaosload import Asking, asking, body_of, problem

MODELS = ["identity", "mlp", "magika", "minilm"]


def drawn(count: int, *, city: int = 0, seed: int = 1) -> Asking:
    return asking("c1", city, count, seed, MODELS)


def test_the_same_number_is_the_same_request_and_another_one_is_not() -> None:
    assert drawn(5) == drawn(5)
    asked = [drawn(count, city=city) for count in range(500) for city in (0, 1)]
    assert len({one.id for one in asked}) == 1000
    bodies = [one.body for one in asked if one.model == "identity"]
    assert len(set(bodies)) == len(bodies), "identity's bodies are all their own"


def test_every_kind_of_request_is_drawn() -> None:
    asked = [drawn(count) for count in range(500)]
    assert {one.model for one in asked} == set(MODELS)
    assert {(one.family, one.keep) for one in asked} == {(4, True), (4, False), (6, True), (6, False)}


def test_one_shot_requests_say_so() -> None:
    one = next(drawn(count) for count in range(100) if not drawn(count).keep)
    head, _, body = one.bytes_to("[fd00::1]").partition(b"\r\n\r\n")
    assert body == one.body
    assert b"Connection: close" in head.split(b"\r\n")
    assert f"X-Request-Id: {one.id}".encode() in head.split(b"\r\n")


def of(model: str, variant: int) -> Asking:
    return Asking(id="r", model=model, variant=variant, body=body_of(model, variant), family=4, keep=True)


def told(model: str, **rest: object) -> bytes:
    return json.dumps({"model": model, "version": "1", **rest}).encode()


def numbers(first: int) -> dict[str, list[list[float]]]:
    return {"y": [[float(first + column) for column in range(chaosload.COLUMNS)]]}


KNOWN = {
    ("mlp", 0): told("mlp", outputs={"y": [[1.0, 2.0]]}),
    ("magika", 0): told("magika", label="shell", score=0.9),
    ("minilm", 0): told("minilm", embedding=[1.0, 0.0]),
}


@pytest.mark.parametrize(
    ("sentence", "asked", "body", "wrong"),
    [
        ("its own numbers", of("identity", 7), told("identity", outputs=numbers(7)), ""),
        ("another's", of("identity", 7), told("identity", outputs=numbers(8)), "numbers that were not sent"),
        ("of another model", of("identity", 7), told("mlp"), "an answer of mlp"),
        ("half of it", of("identity", 7), told("identity")[:-5], "no answer of identity: JSONDecodeError"),
        ("without outputs", of("identity", 7), told("identity"), "no answer of identity: KeyError"),
        ("a list", of("identity", 7), b"[]", "no answer of identity: TypeError"),
        ("as before", of("mlp", 0), told("mlp", outputs={"y": [[1.0001, 2.0]]}), ""),
        ("not as before", of("mlp", 0), told("mlp", outputs={"y": [[1.1, 2.0]]}), "not the answer of a quiet moment"),
        ("too short", of("mlp", 0), told("mlp", outputs={"y": [[1.0]]}), "no answer of mlp: ValueError"),
        ("its label", of("magika", 0), told("magika", label="shell", score=0.8), ""),
        ("another label", of("magika", 0), told("magika", label="html"), "not the answer of a quiet moment"),
        ("its direction", of("minilm", 0), told("minilm", embedding=[2.0, 0.001]), ""),
        ("another one", of("minilm", 0), told("minilm", embedding=[1.0, 0.1]), "not the answer of a quiet moment"),
    ],
)  # fmt: skip
def test_a_wrong_body_is_seen(sentence: str, asked: Asking, body: bytes, wrong: str) -> None:
    assert problem(asked, body, KNOWN) == wrong, sentence
