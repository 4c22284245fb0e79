"""A node's wall clock jumps an hour ahead and two hours back under its weights: nothing hears of it."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from netlab import faultclock
from netlab.clock import wall_s
from tests.support.blobs import Bucket, Served, content_digest
from tests.support.redis import RedisServer
from tests.support.region import Fleet
from tests.support.wait import wait_until
from tests.support.weights import Running

CHUNK = 1 << 16
MIB = 1 << 20
HOUR_S = 3600


class Clock:
    """The wall clock of every program that is started with `environment`, also after its start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            preload = faultclock.environment("+0")["LD_PRELOAD"]
        except faultclock.NoClockError as error:
            pytest.skip(str(error))
        self.environment = {
            "LD_PRELOAD": preload,
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_CACHE_DURATION": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        self.set(0)

    def set(self, offset_s: int) -> None:
        """So far from the true one from now on, and seen to be."""
        aside = self._path.with_suffix(".new")
        aside.write_text(f"{offset_s:+d}\n")
        aside.rename(self._path)
        told = subprocess.run(
            [sys.executable, "-c", "import time; print(time.time())"],
            env={**os.environ, **self.environment},
            capture_output=True,
            check=True,
        )
        assert abs(float(told.stdout) - wall_s() - offset_s) < 60


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")


async def started(eu: Fleet, node: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Running:
    """A node under that clock."""
    with monkeypatch.context() as patch:
        for name, value in clock.environment.items():
            patch.setenv(name, value)
        # libfaketime makes each look at a clock dearer; what is late by that is not the clock's jump.
        running = await eu.start(node, patience=5)
    maps = Path(f"/proc/{running.process.pid}/maps")
    assert "libfaketime" in await asyncio.to_thread(maps.read_text)
    return running


async def test_leases_seals_and_entries_stay_what_they_are(
    bucket: Bucket,
    origin: Served,
    redis: RedisServer,
    eu: Fleet,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, coming = (
        bucket.publish(name, size_bytes=4 * MIB, chunk_bytes=CHUNK, graph=name.encode())
        for name in ("a", "b")
    )
    fra, ams = await started(eu, "fra-a", clock, monkeypatch), await eu.start("ams-a", patience=5)
    await eu.sees(fra, "fra-a", "ams-a")
    await eu.sees(ams, "fra-a", "ams-a")
    await fra.ensure(here)
    await fra.release(here)
    entry = redis.key(f"loc:{here.weights.blake3}")
    await wait_until(lambda: redis.admin.hexists(entry, "fra-a"))
    before = origin.sent_bytes
    origin.fail("drip", path_prefix=f"blobs/{coming.weights.blake3}", drip_bps=400_000)

    async def came(share: float) -> bool:
        told = (await fra.state()).fetching
        return bool(told) and told[0].done_bytes > share * 4 * MIB

    async with asyncio.TaskGroup() as group:
        group.create_task(fra.ensure(coming, await fra.connect()))
        await wait_until(lambda: came(0.0))
        follower = group.create_task(ams.ensure(coming, await ams.connect()))
        clock.set(HOUR_S)
        await wait_until(lambda: came(0.5), within_s=20)
        clock.set(-HOUR_S)
    # A lease that had run out, or was believed to, would have been two fetches.
    assert origin.sent_bytes - before == coming.manifest.size_bytes + len(coming.raw)
    assert follower.result().residency == "region"
    await eu.sees(fra, "fra-a", "ams-a")
    await eu.sees(ams, "fra-a", "ams-a")
    assert redis.admin.hexists(entry, "fra-a")
    assert [(await node.state()).index.reregistered for node in (fra, ams)] == [0, 0]
    assert (await fra.ensure(here)).moved_bytes == 0

    assert await fra.stop() == 0
    touched = fra.store / "blobs" / here.weights.blake3
    content = bytearray(touched.read_bytes())
    content[MIB] ^= 1
    with touched.open("r+b") as file:
        file.write(content)
    clock.set(HOUR_S)
    fra = await started(eu, "fra-a", clock, monkeypatch)
    before = origin.sent_bytes
    assert (await fra.ensure(coming)).moved_bytes == 0
    assert (await fra.ensure(here)).moved_bytes == 4 * MIB, "what was touched since the stop is seen to be"
    assert content_digest(touched) == touched.name
