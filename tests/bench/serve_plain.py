"""The baseline: what a user writes with `aiohttp.web` and `onnxruntime`, model inline, stdlib JSON.

    python -m tests.bench.serve_plain GRAPH asyncio|uvloop

It is helped where that costs nothing: no access log, one ONNX Runtime thread. Prints its port,
ends when stdin does. Knows nothing of edgepop.
"""

import asyncio
import json
import sys

import numpy as np
import onnxruntime as ort
import uvloop
from aiohttp import web

from tests.bench.until import print_port, stdin_ends


def application(graph: str) -> web.Application:
    """One route: Open Inference Protocol JSON in and out."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    async def infer(request: web.Request) -> web.Response:
        tensor = (await request.json())["inputs"][0]
        x = np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
        (y,) = session.run(["y"], {tensor["name"]: x})
        output = {"name": "y", "datatype": "FP32", "shape": list(y.shape), "data": y.ravel().tolist()}
        model = request.match_info["model"]
        return web.Response(
            text=json.dumps({"model_name": model, "model_version": "1", "outputs": [output]}),
            content_type="application/json",
        )

    app = web.Application()
    app.router.add_post("/v2/models/{model}/infer", infer)
    return app


async def serve(graph: str) -> None:
    """Until stdin ends."""
    runner = web.AppRunner(application(graph), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print_port(runner.addresses[0][1])
    await stdin_ends()
    await runner.cleanup()


if __name__ == "__main__":
    (uvloop.run if sys.argv[2] == "uvloop" else asyncio.run)(serve(sys.argv[1]))
