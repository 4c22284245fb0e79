"""edge.oip against the byte formats of the real client libraries, without a server between.

tritonclient writes requests and reads answers with its own code; so does the KServe client.
"""

import asyncio
import functools
import gzip
import json
import warnings
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from edge.errors import EdgeError
from edge.oip import metadata
from edge.oip.coding import deflate_for, inflate
from edge.oip.datatypes import DATATYPES, bytes_array
from edge.oip.request import InferRequest, decode_infer
from edge.oip.response import encode_infer

with warnings.catch_warnings():  # theirs: deprecations at import, nothing we could change
    warnings.simplefilter("ignore")
    from tritonclient import http as triton
    from tritonclient.http import _utils as triton_utils


@functools.cache
def kserve() -> Any:
    """Pandas and more come with it, a second and a half: only those pay who ask it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import kserve as client
    return client


class Spec(NamedTuple):
    name: str
    datatype: str
    shape: tuple[int, ...]


SAMPLES = {
    "BOOL": np.array([[True, False], [False, True]]),
    "BYTES": bytes_array([b"", b"a,b", "é".encode(), b"{[:"], (2, 2)),
    **{
        name: np.array([[0, 1], [100, np.iinfo(row.dtype).max]], row.dtype)
        for name, row in DATATYPES.items()
        if row.json_type is int
    },
    **{
        name: np.array([[0.1, -2.5], [1e-3, 60000]], row.dtype)
        for name, row in DATATYPES.items()
        if row.is_float
    },
}


def read(body: bytes, json_bytes: int | None, *specs: Spec) -> InferRequest:
    return decode_infer(body, json_bytes=json_bytes, inputs=specs, outputs=specs, max_batch=4, batch_axis=0)


def echo(request: InferRequest) -> tuple[bytes, int | None]:
    return encode_infer(model="m", version="1", request=request, outputs=request.inputs)


def triton_request(
    inputs: list[Any], outputs: list[Any] | None = None, **parameters: Any
) -> tuple[bytes, int | None]:
    wanted = {"request_id": "", "sequence_id": 0, "sequence_start": False, "sequence_end": False, "priority": 0,
              "timeout": None, "custom_parameters": None} | parameters  # fmt: skip
    return triton_utils._get_inference_request(inputs=inputs, outputs=outputs, **wanted)  # type: ignore[no-any-return]


def triton_input(name: str, datatype: str, array: np.ndarray[Any, Any], *, binary: bool) -> Any:
    return triton.InferInput(name, list(array.shape), datatype).set_data_from_numpy(array, binary_data=binary)


@pytest.mark.parametrize("datatype", sorted(DATATYPES))
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_tritonclient_gets_back_what_it_sent(datatype: str, binary_in: bool, binary_out: bool | None) -> None:
    array = SAMPLES[datatype]
    outputs = None if binary_out is None else [triton.InferRequestedOutput("t", binary_data=binary_out)]
    body, json_bytes = triton_request([triton_input("t", datatype, array, binary=binary_in)], outputs)
    request = read(body, json_bytes, Spec("t", datatype, (-1, 2)))
    assert request.inputs[0].array.tolist() == array.tolist()
    answer, answer_json_bytes = echo(request)
    assert (answer_json_bytes is not None) == (binary_out is not False)
    result = triton.InferResult.from_response_body(answer, header_length=answer_json_bytes)
    back = result.as_numpy("t")
    if datatype == "BYTES" and binary_out is False:
        back = bytes_array([text.encode() for text in back.ravel()], back.shape)
    np.testing.assert_array_equal(back, array)


def test_tritonclient_several_tensors_id_and_parameters() -> None:
    a, b = np.ones((1, 2), np.float32), bytes_array([b"\xff\0"], (1, 1))
    body, json_bytes = triton_request(
        [triton_input("a", "FP32", a, binary=False), triton_input("b", "BYTES", b, binary=True)],
        [triton.InferRequestedOutput("b"), triton.InferRequestedOutput("a", binary_data=False)],
        request_id="r-1", priority=2, timeout=1000, custom_parameters={"note": "x"},
    )  # fmt: skip
    request = read(body, json_bytes, Spec("b", "BYTES", (-1, 1)), Spec("a", "FP32", (-1, 2)))
    answer, answer_json_bytes = echo(request)
    result = triton.InferResult.from_response_body(answer, header_length=answer_json_bytes)
    assert result.get_response()["id"] == "r-1"
    assert (result.get_response()["model_name"], result.get_response()["model_version"]) == ("m", "1")
    assert [output["name"] for output in result.get_response()["outputs"]] == ["b", "a"]
    assert result.as_numpy("a").tolist() == a.tolist()
    assert result.as_numpy("b").tolist() == b.tolist()


@pytest.mark.parametrize(
    ("sentence", "make"),
    [
        ("a sequence", lambda i: triton_request([i], sequence_id=3, sequence_start=True)),
        ("shared memory", lambda i: triton_request([i.set_shared_memory("region", 8)])),
        ("classes", lambda i: triton_request([i], [triton.InferRequestedOutput("a", class_count=3)])),
    ],
)
def test_tritonclient_asks_for_what_we_lack(sentence: str, make: Callable[[Any], tuple[bytes, int]]) -> None:
    body, json_bytes = make(triton_input("a", "FP32", np.ones((1, 2), np.float32), binary=False))
    with pytest.raises(EdgeError, match="not supported") as caught:
        read(body, json_bytes, Spec("a", "FP32", (-1, 2)))
    assert caught.value.status == 400, sentence


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("min_bytes", [0, 1 << 20])
def test_tritonclient_reads_compressed_and_plain_answers(encoding: str, min_bytes: int) -> None:
    array = np.zeros((4, 64), np.float32)
    body, json_bytes = triton_request([triton_input("a", "FP32", array, binary=True)])
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    request = read(inflate(packed, encoding, max_bytes=1 << 20), json_bytes, Spec("a", "FP32", (-1, 64)))
    answer, answer_json_bytes = echo(request)
    coded, used = deflate_for(encoding, answer, min_bytes=min_bytes)
    assert used == (encoding if min_bytes == 0 else None)
    result = triton.InferResult.from_response_body(
        coded, header_length=answer_json_bytes, content_encoding=used
    )
    np.testing.assert_array_equal(result.as_numpy("a"), array)


def kserve_request(datatype: str, array: np.ndarray[Any, Any], *, binary: bool) -> tuple[bytes, int | None]:
    tensor = kserve().InferInput("t", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    parameters = {"binary_data_output": True} if binary else None
    body, json_bytes = kserve().InferRequest("m", [tensor], parameters=parameters).to_rest()
    return (json.dumps(body).encode() if isinstance(body, dict) else body), json_bytes


@pytest.mark.parametrize(
    ("datatype", "binary"),
    # the KServe client sends FP16 as binary only
    [(name, binary) for name in sorted(DATATYPES) for binary in (True, False) if binary or name != "FP16"],
)
def test_kserve_gets_back_what_it_sent(datatype: str, binary: bool) -> None:
    array = SAMPLES[datatype]
    body, json_bytes = kserve_request(datatype, array, binary=binary)
    request = read(body, json_bytes, Spec("t", datatype, (-1, 2)))
    assert request.inputs[0].array.tolist() == array.tolist()
    assert request.id
    answer, answer_json_bytes = echo(request)
    response = kserve().InferResponse.from_bytes(
        answer, len(answer) if answer_json_bytes is None else answer_json_bytes
    )
    assert (response.id, response.model_name) == (request.id, "m")
    back = response.outputs[0].as_numpy()
    if datatype == "BYTES":
        assert back.ravel().tolist() == [item.decode() for item in array.ravel()]
    else:
        np.testing.assert_array_equal(back, array)
    if answer_json_bytes is None:
        from_rest = kserve().InferResponse.from_rest(json.loads(answer))
        assert from_rest.outputs[0].as_numpy().tolist() == back.tolist()


async def _answers(body: bytes, ask: Callable[[Any, str], Awaitable[Any]]) -> Any:
    """What the KServe client makes of a 200 with `body`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with kserve().InferenceRESTClient(kserve().RESTConfig(protocol="v2", timeout=5)) as client:
            return await ask(client, f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("state", [True, False])
async def test_kserve_reads_health(state: bool) -> None:
    assert await _answers(metadata.live(state), lambda c, url: c.is_server_live(url)) is state
    assert await _answers(metadata.ready(state), lambda c, url: c.is_server_ready(url)) is state
    # for a model it goes by the status, and this was a 200
    assert await _answers(metadata.ready(state, model="m"), lambda c, url: c.is_model_ready(url, "m"))
