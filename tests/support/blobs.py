"""Models made of random bytes, and a real HTTP origin that serves them, can fail and counts."""

import contextlib
import hashlib
import os
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from aiohttp import web
from blake3 import blake3

from edge.weights.manifest import (
    BlobFile,
    Catalogue,
    CatalogueModel,
    Manifest,
    TensorSpec,
    encode,
    encode_catalogue,
)
from edge.weights.manifest import digest as digest_of
from netlab.origin import Origin, Pace


class Published(NamedTuple):
    """One model in an origin."""

    digest: str
    manifest: Manifest
    raw: bytes

    @property
    def weights(self) -> BlobFile:
        return self.manifest.files[-1]


def blob_file(name: str, content: bytes, *, chunk_bytes: int, role: str = "weights") -> BlobFile:
    """What a manifest says of a file with this content."""
    chunks = tuple(digest_of(content[at : at + chunk_bytes]) for at in range(0, len(content), chunk_bytes))
    return BlobFile(
        role=role,  # type: ignore[arg-type] # one of the literals, by the callers below
        name=name,
        size_bytes=len(content),
        blake3=digest_of(content),
        sha256=hashlib.sha256(content).hexdigest(),
        chunks=chunks,
        chunk_bytes=chunk_bytes,
    )


class Bucket:
    """The directory behind an origin."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("blobs", "manifests"):
            (root / name).mkdir(parents=True)

    def publish(
        self,
        name: str = "m",
        *,
        size_bytes: int = 1 << 20,
        chunk_bytes: int = 1 << 18,
        graph: bytes = b"graph",
    ) -> Published:
        """A model of a small graph and random weights."""
        contents = {"graph": graph, "weights": os.urandom(size_bytes)}
        files = tuple(
            blob_file(part, content, chunk_bytes=chunk_bytes, role=part) for part, content in contents.items()
        )
        for file, content in zip(files, contents.values(), strict=True):
            (self.root / "blobs" / file.blake3).write_bytes(content)
        return self.publish_manifest(name, files)

    def publish_manifest(self, name: str, files: tuple[BlobFile, ...]) -> Published:
        """A manifest alone, with whatever it claims."""
        tensor = TensorSpec(name="x", datatype="FP32", shape=(-1, 4))
        manifest = Manifest(
            schema=1,
            name=name,
            version="1",
            task="tensors",
            files=files,
            inputs=(tensor,),
            outputs=(tensor,),
            batch_axis=0,
            max_batch=8,
            device_bytes=0,
            licence="none",
            source="random",
            labels={},
        )
        raw = encode(manifest)
        digest = digest_of(raw)
        (self.root / "manifests" / f"{digest}.json").write_bytes(raw)
        return Published(digest, manifest, raw)

    def catalogue(self, epoch: int, models: Sequence[Published]) -> bytes:
        """Write catalog.json."""
        entries = {
            one.manifest.name: CatalogueModel(current="1", versions={"1": one.digest}) for one in models
        }
        raw = encode_catalogue(Catalogue(epoch=epoch, models=entries))
        (self.root / "catalog.json").write_bytes(raw)
        return raw

    def spoil(self, blob: BlobFile, at: int = 0) -> None:
        """Flip one byte of a blob."""
        path = self.root / "blobs" / blob.blake3
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)


class Served:
    """A running origin. `sent_bytes` counts bodies of blobs; `ranges` the requests for them."""

    def __init__(self, origin: Origin, port: int, scheme: str = "http") -> None:
        self._origin = origin
        self.url = f"{scheme}://127.0.0.1:{port}/"
        self.port = port

    def fail(self, kind: str, *, path_prefix: str = "", count: int = 1_000_000, **more: float) -> None:
        """Misbehave from now on."""
        self._origin.faults.add(
            msgspec.json.encode({"kind": kind, "path_prefix": path_prefix, "count": count, **more})
        )

    def behave(self) -> None:
        """No faults any more."""
        self._origin.faults.clear()

    @property
    def requests(self) -> int:
        return sum(client.requests for client in self._origin._clients.values())

    @property
    def sent_bytes(self) -> int:
        return sum(client.bytes for client in self._origin._clients.values())


@contextlib.asynccontextmanager
async def serving(
    bucket: Bucket, port: int = 0, *, bytes_per_s: int | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Served]:
    """The bucket over HTTP, in this event loop; all bodies together at `bytes_per_s`."""
    origin = Origin(bucket.root, Pace(bytes_per_s) if bytes_per_s is not None else None)
    runner = web.AppRunner(origin.public(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
    await site.start()
    try:
        yield Served(origin, runner.addresses[0][1], "https" if tls else "http")
    finally:
        await runner.cleanup()


def content_digest(path: Path) -> str:
    """BLAKE3 of a file."""
    return blake3(path.read_bytes()).hexdigest()
