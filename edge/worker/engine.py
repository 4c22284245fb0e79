"""ONNX Runtime, and nothing else of the tree imports it: sessions of one model on one device.

A graph is handed over as bytes with the blobs' folder for its weights, so the runtime maps
them in place: 500 MB are ready in 0.1 s with 23 MB of private memory. Content is checked
here and in the weight store, never by the runtime. Its CPU sessions begin without prepacked
weights; `Model.prepack` builds those later (once the weights' size of private memory).

ONNX Runtime falls back to the CPU in silence. So a device is asked for by its driver, then a
session must say that it is there. Knows nothing of tasks, batches, budgets or requests.
"""

import contextlib
import ctypes
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from edge import clock
from edge.config import Worker, size_bytes
from edge.errors import EdgeError, Reason, Source
from edge.oip.datatypes import Array
from edge.weights.manifest import BlobFile, Manifest, digest
from edge.worker import tensorrt
from edge.worker.artefacts import Artefacts, captured, make_folder, processor
from edge.worker.blobs import Blobs, called
from edge.worker.driver import require_driver, require_tensorrt
from edge.worker.graph import check_graph

log = logging.getLogger("edge.worker")

#: Below this a session is made prepacked at once: it takes milliseconds.
PREPACK_AT_ONCE_BYTES: Final = 4 * 1024 * 1024
#: What prepacked weights must gain to be worth as much memory again. Measured: a vector through 2048 x 2048
#: nothing, two of them half the time or more, minilm on one short text 30-45 %.
PREPACK_GAIN: Final = 0.05
PROBE_RUNS: Final = 3
_MESSAGE_CHARS: Final = 300
_CPU: Final = "CPUExecutionProvider"
_CUDA: Final = "CUDAExecutionProvider"
_ADVICE: Final = {
    _CPU: "this build of it has no other",
    _CUDA: "install the CUDA 13 and cuDNN 9 libraries (pip install edgepop[cuda]) or set device: cpu",
    tensorrt.PROVIDER: "install the CUDA 13 and TensorRT 10 libraries or leave provider empty",
}
LOAD_GRACE_MS: Final = 60_000.0
#: Engines of TensorRT are as large as their weights, and run_dir may lie in memory.
ENGINES_MAX_BYTES: Final = 2 * 1024**3

#: What ONNX Runtime calls the datatypes of a manifest.
_ORT_TYPES: Final = {
    "BOOL": "tensor(bool)",
    "UINT8": "tensor(uint8)",
    "UINT16": "tensor(uint16)",
    "UINT32": "tensor(uint32)",
    "UINT64": "tensor(uint64)",
    "INT8": "tensor(int8)",
    "INT16": "tensor(int16)",
    "INT32": "tensor(int32)",
    "INT64": "tensor(int64)",
    "FP16": "tensor(float16)",
    "FP32": "tensor(float)",
    "FP64": "tensor(double)",
    "BYTES": "tensor(string)",
}


class Signature(NamedTuple):
    """What a graph must take and give: name -> OIP datatype. `host` graphs stay on the CPU."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    host: bool = False


class Run:
    """One execution over a model's graphs; `terminate` may be called from any thread."""

    __slots__ = ("_name", "_options", "_sessions", "terminated")

    def __init__(self, name: str, sessions: Mapping[str, "_Session"]) -> None:
        """`name` is for errors."""
        self._name = name
        self._sessions = sessions
        self._options = ort.RunOptions()
        self.terminated = False

    def call(self, graph: str, feeds: Mapping[str, Array]) -> list[Array]:
        """Outputs in the order of the signature.

        Raises EdgeError: BAD_INPUT if the runtime refuses the feeds, DEADLINE after
        `terminate`, else INFER_FAILED.
        """
        try:
            return self._sessions[graph].run(feeds, self._options)
        except Exception as error:  # the runtime's errors share no class of their own
            raise self._translated(graph, error) from error

    def terminate(self) -> None:
        """Make a call that runs, and any later one, end with DEADLINE."""
        self.terminated = True
        self._options.terminate = True

    def _translated(self, graph: str, error: Exception) -> EdgeError:
        if self.terminated:
            return EdgeError(Reason.DEADLINE, "the execution was ended: nobody waits for it any more")
        text = _first_line(error)
        if isinstance(error, InvalidArgument):
            return EdgeError(
                Reason.BAD_INPUT, f"the model refuses these tensors: {text}", source=Source.DOWNSTREAM
            )
        message = f"{self._name} failed in its {graph}: {text}"
        return EdgeError(Reason.INFER_FAILED, message, source=Source.UPSTREAM)


class _Session:
    """One graph, ready to run."""

    __slots__ = ("_bound", "_names", "_session")

    def __init__(self, session: Any, outputs: Sequence[str], *, bound: bool) -> None:
        self._session = session
        self._names = list(outputs)
        self._bound = bound

    def run(self, feeds: Mapping[str, Array], options: Any) -> list[Array]:
        if not self._bound:
            outputs: list[Array] = self._session.run(self._names, feeds, options)
            return outputs
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        for name in self._names:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding, options)
        copied: list[Array] = binding.copy_outputs_to_cpu()
        return copied


class Model:
    """The sessions and aux blobs of one manifest on a device."""

    def __init__(self, device: "Device", manifest: Manifest, signatures: Mapping[str, Signature]) -> None:
        """Raises EdgeError(LOAD_FAILED | BLOB_CORRUPT) that says what is wrong with which file."""
        self.manifest = manifest
        self._name = f"{manifest.name} version {manifest.version}"
        self._device = device
        self._signatures = signatures
        self._weights = {file.blake3: file.size_bytes for file in manifest.files if file.role == "weights"}
        self.weights_bytes = sum(self._weights.values())
        #: True once weights are laid out for the CPU's matrix kernels; nothing to gain elsewhere.
        self.prepacked = device.on_gpu or self.weights_bytes <= PREPACK_AT_ONCE_BYTES
        with _naming(manifest):
            for file in manifest.files:
                if file.role == "weights":
                    device.blobs.checked(file)
            self.aux = {file.name: device.blobs.read(file) for file in manifest.files if file.role == "aux"}
            self._sessions = self._open(prepacked=self.prepacked)

    def begin(self) -> Run:
        """A new execution."""
        return Run(self._name, self._sessions)

    def prepack(self, probe: Callable[[Run], object] | None = None) -> bool:
        """Build the prepacked sessions and use them from the next execution on.

        Takes seconds for gigabytes and once `weights_bytes` of memory; call it beside the
        serving threads. False, and nothing has changed, if `probe` is not faster on them. Raises
        EdgeError as construction does; then the old ones go on.
        """
        with _naming(self.manifest):
            sessions = self._open(prepacked=True)
        if probe is not None and not _gains(probe, self.begin, lambda: Run(self._name, sessions)):
            del sessions
            _trim()
            return False
        self._sessions = sessions
        self.prepacked = True
        return True

    def close(self) -> None:
        """Give the sessions' memory back; no execution may be running."""
        self._sessions = {}
        self.aux = {}
        _trim()

    def _open(self, *, prepacked: bool) -> dict[str, _Session]:
        """What was optimised before is taken as it is; once weights are prepacked, the graph is kept."""
        return {
            file.name: self._kept(file, prepacked=prepacked) or self._anew(file, prepacked=prepacked)
            for file in self.manifest.files
            if file.role == "graph"
        }

    def _kept(self, file: BlobFile, *, prepacked: bool) -> _Session | None:
        """A session of the optimised graph, if there is one that is of use."""
        raw = self._device.artefacts.find(file.blake3)
        if raw is None:
            return None
        try:
            check_graph(raw, self._weights, self.manifest.custom_ops, optimised=True)
            return self._session(file, raw, prepacked=prepacked, optimised=True)
        except EdgeError as error:
            log.warning("a kept graph is of no use: %s", error.message, extra={"model": self._name})
            self._device.artefacts.drop(file.blake3)
            return None

    def _anew(self, file: BlobFile, *, prepacked: bool) -> _Session:
        raw = self._device.blobs.read(file)
        keeps = prepacked and not self.prepacked and self._device.artefacts.enabled
        try:
            check_graph(raw, self._weights, self.manifest.custom_ops)
            if keeps and (kept := self._keep(file, raw)):
                return kept
            return self._session(file, raw, prepacked=prepacked)
        except EdgeError as error:
            raise _refused(f"{called(file)}: {error.message}") from error

    def _keep(self, file: BlobFile, raw: bytes) -> _Session | None:
        """A prepacked session whose optimised graph is kept; None if the graph grew too much for that."""
        try:
            with captured(len(raw)) as capture:
                session = self._session(file, raw, prepacked=True, save_to=capture.path)
        except EdgeError as error:
            log.info("an optimised graph is not kept: %s", error.message, extra={"model": self._name})
            return None
        if capture.content is not None:
            self._device.artefacts.keep(file.blake3, capture.content)
        return session

    def _session(self, file: BlobFile, raw: bytes, *, prepacked: bool, **more: Any) -> _Session:
        signature = self._signatures[file.name]
        ranges = tensorrt.batch_ranges(self.manifest)
        return self._device.session(
            raw, signature, self.manifest.custom_ops, prepacked=prepacked, ranges=ranges, **more
        )


class Device:
    """One device and the folder its blobs lie in."""

    def __init__(self, config: Worker, blobs_dir: Path, cache_dir: Path | None = None) -> None:
        """`cache_dir` is what this may write to, if anything.

        Raises EdgeError(LOAD_FAILED) if the device is not there, saying what to do.
        """
        self.name = config.device
        self.on_gpu = config.device != "cpu"
        self.blobs = Blobs(blobs_dir)
        #: A load this long past its deadline counts as hung: session creation can't be ended from outside.
        self.load_grace_ms = LOAD_GRACE_MS
        self._threads = config.threads
        self._engine_facts: tuple[str, ...] = ()
        self._engines_dir: Path | None = None
        ort.set_default_logger_severity(3)
        # A graph laid out for a GPU was never saved and loaded again here: only those of a CPU are kept.
        facts = (config.device, processor(), ort.__version__, ort.get_build_info(), "all")
        self.artefacts = Artefacts(None if self.on_gpu else cache_dir, facts)
        if not self.on_gpu:
            self.provider = _CPU
            self._providers: list[Any] = [_CPU]
            return
        self.provider = _CUDA
        self._index = int(config.device.removeprefix("cuda:"))
        self._limit_bytes = size_bytes(config.device_bytes)
        require_driver(self._index)
        if config.provider == "tensorrt":
            self._engine_facts = (*facts, *require_tensorrt(self._index))
            self._engines_dir = cache_dir
            self.load_grace_ms = tensorrt.BUILD_MS
        ort.preload_dlls()
        options = {
            "device_id": str(self._index),
            "gpu_mem_limit": str(self._limit_bytes),
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": "HEURISTIC",
            "do_copy_in_default_stream": "1",
        }
        self._providers = [(_CUDA, options), _CPU]

    def session(
        self,
        raw: bytes,
        signature: Signature,
        custom_ops: Sequence[str],
        *,
        prepacked: bool,
        optimised: bool = False,
        save_to: str = "",
        ranges: Mapping[str, tensorrt.Range] | None = None,
    ) -> _Session:
        """A graph's bytes -> a session on this device whose inputs and outputs are as promised.

        An `optimised` one is taken as it is; `save_to` is where to write what was made of another. With
        the `ranges` of its inputs it is TensorRT's, where that was asked for.
        Raises EdgeError(LOAD_FAILED).
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.add_session_config_entry("session.disable_prepacking", "0" if prepacked else "1")
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(self.blobs.folder)
        )
        if optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if save_to:
            options.optimized_model_filepath = save_to
        if "onnxruntime-extensions" in custom_ops:
            options.register_custom_ops_library(_extensions_library())
        on_device = self.on_gpu and not signature.host
        wanted = self.provider if on_device else _CPU
        providers = self._providers if on_device else [_CPU]
        if on_device and self._engine_facts and ranges is not None:
            wanted = tensorrt.PROVIDER
            providers = [(wanted, self._engine(raw, ranges)), *providers]
        try:
            session = ort.InferenceSession(raw, options, providers=providers)
        except Exception as error:  # the runtime's errors share no class of their own
            raise _refused(f"ONNX Runtime says: {_first_line(error)}") from error
        got = session.get_providers()[0]
        if got != wanted:
            raise _refused(f"{wanted} was asked for and ONNX Runtime chose {got}; {_ADVICE[wanted]}")
        _require_signature(session, signature)
        return _Session(session, list(signature.outputs), bound=on_device)

    def _engine(self, raw: bytes, ranges: Mapping[str, tensorrt.Range]) -> dict[str, str]:
        """TensorRT's options for a graph, with its own directory where there is one for all."""
        name = tensorrt.engine_name(self._engine_facts, digest(raw), ranges)
        engine = None
        if self._engines_dir is not None:
            try:
                engine = make_folder(self._engines_dir, name, "trt-", ENGINES_MAX_BYTES)
            except OSError as error:
                log.warning("TensorRT's engine is not kept: %s", error.strerror)
        return tensorrt.settings(self._index, self._limit_bytes, ranges, self._engines_dir, engine)


def _gains(probe: Callable[[Run], object], now: Callable[[], Run], then: Callable[[], Run]) -> bool:
    """Is `then` faster by PREPACK_GAIN? The best of some runs, taken in turns. Raises EdgeError."""
    best_ms = {now: math.inf, then: math.inf}
    for begin in (now, then) * PROBE_RUNS:
        started_ms = clock.now_ms()
        probe(begin())
        best_ms[begin] = min(best_ms[begin], clock.now_ms() - started_ms)
    return best_ms[then] <= (1.0 - PREPACK_GAIN) * best_ms[now]


def _trim() -> None:
    with contextlib.suppress(OSError, AttributeError):  # a C library without it keeps its free lists
        ctypes.CDLL(None).malloc_trim(0)


def _require_signature(session: Any, signature: Signature) -> None:
    for side, nodes, wanted in (
        ("inputs", session.get_inputs(), signature.inputs),
        ("outputs", session.get_outputs(), signature.outputs),
    ):
        got = {node.name: node.type for node in nodes}
        need = {name: _ORT_TYPES[datatype] for name, datatype in wanted.items()}
        if got != need:
            raise _refused(f"its graph has {side} {got}, the manifest needs {need}")


def _extensions_library() -> str:
    # Imported only for models that name it: most workers never pay for it.
    import onnxruntime_extensions

    return str(onnxruntime_extensions.get_library_path())


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:_MESSAGE_CHARS]


@contextlib.contextmanager
def _naming(manifest: Manifest) -> Iterator[None]:
    """What is wrong with a file is told with the model that it belongs to."""
    try:
        yield
    except EdgeError as error:
        message = f"{manifest.name} version {manifest.version} can't be loaded: {error.message}"
        raise EdgeError(error.reason, message, source=error.source) from error


def _refused(what: str) -> EdgeError:
    return EdgeError(Reason.LOAD_FAILED, what, source=Source.UPSTREAM)
