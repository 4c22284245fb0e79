"""A client's HTTP body -> checked tensors, and a model's outputs -> the body that answers it.

The one place that knows both protocols of `calls.Infer` ("oip" and "run") and the content
codings. Everything wrong with a body is the client's (400, 413, 415). Knows no frames, no
queue and no graph.
"""

from collections.abc import Sequence

from edge.errors import EdgeError, Reason, Source, bad_input
from edge.oip.coding import deflate_for, inflate
from edge.oip.datatypes import NamedArray
from edge.oip.objects import Reader, none_here
from edge.oip.request import InferRequest, decode_infer
from edge.oip.response import encode_infer
from edge.oip.run import RunRequest, decode_run, encode_run
from edge.weights.manifest import Manifest
from edge.wire import calls

Request = InferRequest | RunRequest


def read(
    head: calls.Infer,
    body: bytes,
    manifest: Manifest,
    *,
    max_body_bytes: int,
    read_object: Reader = none_here,
) -> Request:
    """The request in `body`. Raises EdgeError: BAD_INPUT, TOO_LARGE, BAD_MEDIA_TYPE, or an object's."""
    if head.content_encoding:
        body = inflate(body, head.content_encoding, max_bytes=max_body_bytes)
    if head.protocol == "oip":
        return decode_infer(
            body,
            json_bytes=head.oip_json_bytes,
            inputs=manifest.inputs,
            outputs=manifest.outputs,
            max_batch=manifest.max_batch,
            batch_axis=manifest.batch_axis,
            read_object=read_object,
        )
    if head.protocol == "run":
        return decode_run(
            body,
            head.content_type,
            task=manifest.task,
            inputs=manifest.inputs,
            max_batch=manifest.max_batch,
            batch_axis=manifest.batch_axis,
            read_object=read_object,
        )
    raise bad_input(f"protocol {head.protocol[:40]!r} is unknown; this worker speaks oip and run")


def write(
    head: calls.Infer,
    manifest: Manifest,
    request: Request,
    outputs: Sequence[NamedArray],
    *,
    max_body_bytes: int,
) -> tuple[calls.Inferred, bytes]:
    """The reply's head without its times, and its body, coded as the client accepts.

    Raises EdgeError: BAD_INPUT where an output can't be written as asked, INFER_FAILED
    where the body would exceed `max_body_bytes`.
    """
    reply = calls.Inferred()
    if isinstance(request, InferRequest):
        body, reply.oip_json_bytes = encode_infer(
            model=manifest.name, version=manifest.version, request=request, outputs=outputs
        )
        if reply.oip_json_bytes is not None:
            reply.content_type = "application/octet-stream"
    else:
        body = encode_run(
            model=manifest.name,
            version=manifest.version,
            task=manifest.task,
            single=request.single,
            outputs=outputs,
            batch_axis=manifest.batch_axis or 0,
        )
    if len(body) > max_body_bytes:
        raise EdgeError(
            Reason.INFER_FAILED,
            f"the answer has {len(body)} bytes, at most {max_body_bytes} are sent; ask for fewer items",
            source=Source.UPSTREAM,
        )
    if head.accept_encoding:
        body, coding = deflate_for(head.accept_encoding, body)
        reply.content_encoding = coding or ""
    return reply, body
