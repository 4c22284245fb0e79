"""Models of many files and of few on one node: whose turn it is among all that one link brings."""

import asyncio
import os
from pathlib import Path

from tests.support.blobs import Bucket, blob_file, serving
from tests.support.region import fleet
from tests.support.wait import wait_until

KIB = 1 << 10
FILES = 64


async def test_a_model_of_64_files_leaves_turns_to_others(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket")
    files = []
    for at in range(FILES):
        content = os.urandom(256 * KIB)
        file = blob_file(
            f"w{at}" if at else "graph", content, chunk_bytes=64 * KIB, role="weights" if at else "graph"
        )
        (bucket.root / "blobs" / file.blake3).write_bytes(content)
        files.append(file)
    many = bucket.publish_manifest("many", tuple(files))
    one = bucket.publish("one", size_bytes=256 * KIB, chunk_bytes=64 * KIB)
    async with serving(bucket, bytes_per_s=8 << 20) as origin, fleet(tmp_path, origin.url, None) as nodes:
        node = await nodes.start("fra-a", index=False)
        links = [await node.connect() for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            group.create_task(node.ensure(many, links[0]))
            await wait_until(lambda: bool(node.blobs()))
            await node.ensure(one, links[1])
            assert len(node.blobs() & {file.blake3 for file in files}) < FILES // 2
