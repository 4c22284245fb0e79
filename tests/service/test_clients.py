"""Unmodified clients of others against a real node: tritonclient.http, its asyncio twin, and KServe's."""

import asyncio
import math
import warnings

import numpy as np
import pytest

from tests.support.node import running_node

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import gevent  # noqa: F401 -- imported here once, with its warnings
    import kserve
    import tritonclient.http as triton
    import tritonclient.http.aio as triton_aio
    from tritonclient.utils import InferenceServerException

ROWS = np.arange(32, dtype=np.float32).reshape(2, 16)
TEXTS = ["How do I reach the nearest GPU?", "The cat sleeps on the sofa."]


@pytest.fixture(scope="module")
def node():
    with running_node() as running:
        yield running


@pytest.fixture(scope="module")
def client(node):
    with triton.InferenceServerClient(
        f"127.0.0.1:{node.port}", connection_timeout=20, network_timeout=20
    ) as made:
        yield made


def rows(kind=triton, *, binary=True):
    tensor = kind.InferInput("x", [2, 16], "FP32")
    tensor.set_data_from_numpy(ROWS, binary_data=binary)
    return tensor


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("identity")
    assert client.is_model_ready("identity", "1")
    assert client.get_server_metadata()["name"] == "edgepop"
    metadata = client.get_model_metadata("minilm")
    assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert metadata["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 384]}]
    config = client.get_model_config("identity")
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (64, [16])


def test_index_and_stats(client):
    index = client.get_model_repository_index()
    assert {row["name"] for row in index} >= {"identity", "mlp", "minilm", "magika"}
    before = client.get_inference_statistics("identity")["model_stats"][0]["inference_stats"]["success"][
        "count"
    ]
    client.infer("identity", [rows()])
    stats = client.get_inference_statistics("identity")["model_stats"][0]
    assert stats["inference_stats"]["success"]["count"] == before + 1
    assert stats["inference_count"] >= 2 * (before + 1), "items are counted, not requests"
    assert 0 < stats["execution_count"] <= before + 1
    assert len(client.get_inference_statistics()["model_stats"]) == len(index)


@pytest.mark.parametrize("ask_binary", [True, False], ids=["binary out", "JSON out"])
@pytest.mark.parametrize("binary", [True, False], ids=["binary in", "JSON in"])
@pytest.mark.parametrize("request_coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("answer_coding", [None, "gzip", "deflate"])
def test_infer(client, binary, ask_binary, request_coding, answer_coding):
    result = client.infer(
        "identity",
        [rows(binary=binary)],
        outputs=[triton.InferRequestedOutput("y", binary_data=ask_binary)],
        request_id="my request 1",
        request_compression_algorithm=request_coding,
        response_compression_algorithm=answer_coding,
    )
    assert np.array_equal(result.as_numpy("y"), ROWS)
    assert result.get_response()["id"] == "my request 1"


def test_strings_in_vectors_out(client):
    texts = triton.InferInput("text", [2], "BYTES")
    texts.set_data_from_numpy(np.array(TEXTS, dtype=object))
    together = client.infer("minilm", [texts]).as_numpy("embedding")
    assert together.shape == (2, 384)
    for row, text in zip(together, TEXTS, strict=True):
        one = triton.InferInput("text", [1], "BYTES")
        one.set_data_from_numpy(np.array([text], dtype=object))
        alone = client.infer("minilm", [one]).as_numpy("embedding")[0]
        cosine = float(row @ alone) / math.sqrt(float(row @ row) * float(alone @ alone))
        assert cosine > 0.99999


def test_bytes_in_label_out(client):
    content = triton.InferInput("content", [1], "BYTES")
    content.set_data_from_numpy(
        np.array([b"import os\n\n\ndef main():\n    return os.name\n" * 20], dtype=object)
    )
    result = client.infer("magika", [content])
    assert result.as_numpy("label")[0] == b"python"
    assert 0.5 < result.as_numpy("score")[0] <= 1.0


@pytest.mark.parametrize(
    ("sentence", "model", "name", "shape", "match"),
    [
        ("unknown model", "nobody", "x", [2, 16], "unknown model"),
        ("wrong name", "identity", "z", [2, 16], "z"),
        ("wrong shape", "identity", "x", [4, 8], "shape|dim"),
    ],
)
def test_errors_are_raised_with_our_sentence(client, sentence, model, name, shape, match):
    tensor = triton.InferInput(name, shape, "FP32")
    tensor.set_data_from_numpy(ROWS.reshape(shape))
    with pytest.raises(InferenceServerException, match=match):
        client.infer(model, [tensor])


def test_many_at_once(client, node):
    with triton.InferenceServerClient(f"127.0.0.1:{node.port}", concurrency=8) as many:
        pending = [many.async_infer("identity", [rows()]) for _ in range(50)]
        for one in pending:
            assert np.array_equal(one.get_result(timeout=20).as_numpy("y"), ROWS)


async def test_the_asyncio_client(node):
    async with triton_aio.InferenceServerClient(f"127.0.0.1:{node.port}") as client:
        assert await client.is_server_ready()
        assert await client.is_model_ready("identity")
        assert (await client.get_model_metadata("mlp"))["name"] == "mlp"
        answers = await asyncio.gather(*(client.infer("identity", [rows(triton_aio)]) for _ in range(20)))
        assert all(np.array_equal(answer.as_numpy("y"), ROWS) for answer in answers)


async def test_the_kserve_client(node):
    client = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2", timeout=20))
    try:
        assert await client.is_server_live(node.url)
        assert await client.is_server_ready(node.url)
        assert await client.is_model_ready(node.url, "identity")
        for binary in (True, False):
            tensor = kserve.InferInput("x", [2, 16], "FP32")
            tensor.set_data_from_numpy(ROWS, binary_data=binary)
            request = kserve.InferRequest(model_name="identity", infer_inputs=[tensor], request_id="k1")
            answer = await client.infer(node.url, request, model_name="identity")
            assert np.array_equal(answer.outputs[0].as_numpy(), ROWS)
            assert answer.id == "k1"
    finally:
        await client.close()
