"""Tasks with graphs that only note what they are given: joining, cutting, padding, magika's rule."""

import json

import numpy as np
import pytest

from edge.errors import EdgeError, Reason
from edge.oip.datatypes import NamedArray, bytes_array
from edge.weights.manifest import BlobFile, Manifest, TensorSpec
from edge.worker import tasks

DIGEST = "0" * 64
LABELS = {
    "schema": 1, "beg_size": 16, "end_size": 8, "block_size": 32, "padding_token": 256, "min_bytes": 4,
    "labels": ["python", "shell"], "thresholds": [0.5, 0.9], "generic": ["txt", "script"],
    "empty": "empty", "few_text": "txt", "few_binary": "unknown",
}  # fmt: skip


def made(
    task: str, inputs: list[TensorSpec], outputs: list[TensorSpec], *, batch_axis: int | None = 0
) -> Manifest:
    return Manifest(
        1, "m", "1", task, (BlobFile("graph", "graph", 1, DIGEST, DIGEST, (DIGEST,)),),  # type: ignore[arg-type]
        tuple(inputs), tuple(outputs), batch_axis, 8 if batch_axis == 0 else 1, 0, "", "", {},  # type: ignore[arg-type]
    )  # fmt: skip


class Graphs:
    """Answers each call with what it was told to, and keeps the feeds."""

    def __init__(self, **answers):
        self.answers = answers
        self.feeds = []

    def call(self, graph, feeds):
        self.feeds.append((graph, feeds))
        return self.answers[graph](**feeds)


def floats(name: str, *shape: int) -> NamedArray:
    return NamedArray(name, "FP32", np.arange(np.prod(shape), dtype=np.float32).reshape(shape))


def texts(*items: bytes) -> list[NamedArray]:
    return [NamedArray("in", "BYTES", bytes_array(list(items), (len(items),)))]


# --- tensors

X, Y = TensorSpec("x", "FP32", (-1, 2)), TensorSpec("y", "FP32", (-1, 2))


def test_works_are_joined_along_the_batch_axis_and_cut_apart_again():
    task = tasks.make(made("tensors", [X], [Y]), {})
    works = [task.accept([floats("x", count, 2)]) for count in (1, 3, 2)]
    graphs = Graphs(graph=lambda x: [x * 2])
    results = task.run(works, graphs)
    assert graphs.feeds[0][1]["x"].shape == (6, 2)
    for work, (output,) in zip(works, results, strict=True):
        assert output.name == "y"
        assert np.array_equal(output.array, work.arrays[0] * 2)


def test_shapes_that_differ_have_keys_that_differ():
    task = tasks.make(made("tensors", [TensorSpec("x", "FP32", (-1, -1))], [Y]), {})
    assert task.accept([floats("x", 1, 2)]).key == task.accept([floats("x", 5, 2)]).key
    assert task.accept([floats("x", 1, 2)]).key != task.accept([floats("x", 1, 3)]).key


def test_without_a_batch_axis_a_request_is_one_item():
    task = tasks.make(made("tensors", [TensorSpec("x", "FP32", (-1,))], [Y], batch_axis=None), {})
    work = task.accept([floats("x", 5)])
    assert work.items == 1
    assert task.run([work], Graphs(graph=lambda x: [np.float32(3)]))[0][0].array == 3


def test_an_output_that_is_no_batch_is_the_models_fault():
    task = tasks.make(made("tensors", [X], [Y]), {})
    with pytest.raises(EdgeError, match="has shape \\[1, 2\\] for a batch of 3") as caught:
        task.run([task.accept([floats("x", 3, 2)])], Graphs(graph=lambda x: [x[:1]]))
    assert caught.value.reason is Reason.INFER_FAILED


def test_bytes_reach_the_graph_as_text_and_come_back_as_bytes():
    spec = TensorSpec("in", "BYTES", (-1,))
    task = tasks.make(made("tensors", [spec], [TensorSpec("out", "BYTES", (-1,))]), {})
    graphs = Graphs(graph=lambda **feeds: [np.array([item.upper() for item in feeds["in"]], dtype=object)])
    (output,) = task.run([task.accept(texts("größe".encode(), b"b"))], graphs)[0]
    assert output.array.tolist() == ["GRÖSSE".encode(), b"B"]
    with pytest.raises(EdgeError, match="must be UTF-8"):
        task.accept(texts(b"\xff"))


# --- embedding


def test_texts_are_tokenised_alone_and_encoded_together():
    task = tasks.make(
        made("embedding", [TensorSpec("in", "BYTES", (-1,))], [TensorSpec("e", "FP32", (-1, 3))]), {}
    )

    def tokenizer(text):
        assert text.shape == (1,), "two texts would be read as a sentence pair"
        ids = np.arange(1, len(text[0]) + 1, dtype=np.int64)[None]
        return [ids, np.ones_like(ids)]

    graphs = Graphs(
        tokenizer=tokenizer,
        encoder=lambda input_ids, attention_mask: [np.stack([input_ids.sum(1), attention_mask.sum(1)], 1)],
    )
    works = [task.accept(texts(b"abc", b"a")), task.accept(texts(b"ab"))]
    first, second = task.run(works, graphs)
    assert [graph for graph, _ in graphs.feeds] == ["tokenizer"] * 3 + ["encoder"]
    encoder = graphs.feeds[-1][1]
    assert encoder["input_ids"].tolist() == [[1, 2, 3], [1, 0, 0], [1, 2, 0]]
    assert encoder["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert first[0].array.tolist() == [[6, 3], [1, 1]]
    assert second[0].array.tolist() == [[3, 2]]


def test_short_and_long_texts_are_not_padded_to_each_other():
    task = tasks.make(
        made("embedding", [TensorSpec("in", "BYTES", (-1,))], [TensorSpec("e", "FP32", (-1, 3))]), {}
    )
    short, long, longer = (task.accept(texts(b"x" * length)) for length in (20, 3_000, 300_000))
    assert short.key != long.key
    assert long.key == longer.key, "both are cut at 256 tokens"
    assert len(longer.texts[0]) == tasks.TEXT_MAX_CHARS


def test_text_that_is_not_utf8_is_the_clients_fault():
    task = tasks.make(
        made("embedding", [TensorSpec("in", "BYTES", (-1,))], [TensorSpec("e", "FP32", (-1, 3))]), {}
    )
    with pytest.raises(EdgeError) as caught:
        task.accept(texts(b"fine", b"\xc3("))
    assert caught.value.reason is Reason.BAD_INPUT


# --- bytes-classification

OUTPUTS = [TensorSpec("label", "BYTES", (-1,)), TensorSpec("score", "FP32", (-1,))]


def classifier(**changes) -> tasks.Task:
    raw = json.dumps(LABELS | changes).encode()
    return tasks.make(
        made("bytes-classification", [TensorSpec("in", "BYTES", (-1,))], OUTPUTS), {"labels": raw}
    )


RULES = [
    ("nothing is empty", b"", "empty", 1.0),
    ("too short for the graph, text", b"hi", "txt", 1.0),
    ("too short for the graph, not text", b"\xff\xfe", "unknown", 1.0),
    ("only blanks before too little", b" \t\n\r  hi", "txt", 1.0),
    ("only blanks before too little, not text", b"      \xff", "unknown", 1.0),
    ("sure enough", b"p: a python file", "python", 0.75),
    ("not sure enough: the generic label, the same score", b"s: a shell file", "script", 0.75),
]


@pytest.mark.parametrize(("sentence", "content", "label", "score"), RULES, ids=[case[0] for case in RULES])
def test_rule(sentence, content, label, score):
    chances = {ord("p"): [0.75, 0.25], ord("s"): [0.25, 0.75]}
    graphs = Graphs(graph=lambda **feeds: [np.array([chances[row[0]] for row in feeds["bytes"]], np.float32)])
    task = classifier()
    labels, scores = task.run([task.accept(texts(content))], graphs)[0]
    assert labels.array.tolist() == [label.encode()]
    assert scores.array.tolist() == [score]
    assert bool(graphs.feeds) == (score != 1.0), "what the rule answers costs no run"


def test_features_are_both_ends_of_the_content_each_stripped_on_its_own_side():
    task = classifier()
    graphs = Graphs(graph=lambda **feeds: [np.full((len(feeds["bytes"]), 2), 0.5, np.float32)])
    content = b"  begin" + b"-" * 40 + b"the end \n"
    task.run([task.accept(texts(content))], graphs)
    row = graphs.feeds[0][1]["bytes"][0].tolist()
    assert bytes(row[:16]) == content[:32].lstrip()[:16]
    assert bytes(row[16:]) == b"-the end"
    short = b"abcdef"
    task.run([task.accept(texts(short))], graphs)
    row = graphs.feeds[1][1]["bytes"][0].tolist()
    assert row == [*short, *[256] * 10, *[256] * 2, *short], "padded right of the beginning, left of the end"


def test_answers_by_rule_and_by_graph_keep_their_order():
    task = classifier()
    graphs = Graphs(graph=lambda **feeds: [np.array([[0.9, 0.1]] * len(feeds["bytes"]), np.float32)])
    works = [task.accept(texts(b"", b"pppp", b"x")), task.accept(texts(b"qqqq"))]
    first, second = task.run(works, graphs)
    assert first[0].array.tolist() == [b"empty", b"python", b"txt"]
    assert second[0].array.tolist() == [b"python"]
    assert len(graphs.feeds) == 1


BAD_TABLES = [
    ("lists that differ in length", {"thresholds": [0.5]}),
    ("another schema", {"schema": 2}),
    ("no classes", {"labels": [], "thresholds": [], "generic": []}),
    ("a size of gigabytes", {"beg_size": 1 << 40}),
    ("a list where text belongs", {"empty": []}),
]


@pytest.mark.parametrize(("sentence", "changes"), BAD_TABLES, ids=[case[0] for case in BAD_TABLES])
def test_a_bad_label_table_does_not_load(sentence, changes):
    with pytest.raises(EdgeError, match="its labels blob") as caught:
        classifier(**changes)
    assert caught.value.reason is Reason.LOAD_FAILED


def test_every_task_can_make_its_own_example():
    specs = [TensorSpec("x", "FP32", (-1, -1, 3)), TensorSpec("t", "BYTES", (-1, 2))]
    work = tasks.make(made("tensors", specs, [Y]), {}).example()
    assert [array.shape for array in work.arrays] == [(1, 1, 3), (1, 2)]
    assert len(classifier().example().contents[0]) > LABELS["min_bytes"]  # type: ignore[operator]
