"""A region whose Redis is killed and replaced by a replica, seen by its weights processes and their disks."""

import asyncio
from pathlib import Path

from edge import clock
from tests.support.blobs import Bucket, serving
from tests.support.redissets import RedisSet
from tests.support.region import Fleet, fleet
from tests.support.wait import wait_until
from tests.support.weights import Running

MIB = 1 << 20
NODES = ("fra-a", "ams-a")
#: Beside two seconds until the servers call one of them dead, and their vote.
WITHIN_S = 25.0


def _on_disk(node: Running) -> set[str]:
    manifests = {path.stem for path in (node.store / "manifests").iterdir()}
    return {path.name for path in (node.store / "blobs").iterdir()} | manifests


async def _until_whole(made: Fleet, nodes: list[Running], servers: RedisSet) -> None:
    """Every node is up, and the present master lists what lies on its disk, no more and no less."""

    async def whole() -> bool:
        if not all([await made.is_up(node) for node in nodes]):
            return False
        admin = servers.master.admin
        return all(
            {digest.decode() for digest in admin.smembers(servers.key(f"have:{name}"))} == _on_disk(node)
            for name, node in zip(NODES, nodes, strict=True)
        )

    await wait_until(whole, within_s=WITHIN_S)


async def survives_its_master(folder: Path, servers: RedisSet) -> None:
    """Twice: cold starts go on while nobody is the master, and the index is whole under the next one."""
    bucket = Bucket(folder / "origin")
    async with serving(bucket) as origin, fleet(folder, origin.url, servers) as made:
        nodes = list(await asyncio.gather(*(made.start(name) for name in NODES)))
        fra, ams = nodes
        await made.sees(fra, *NODES)
        await made.sees(ams, *NODES)
        first = bucket.publish("before", size_bytes=MIB)
        assert (await fra.ensure(first)).residency == "origin"
        await _until_whole(made, nodes, servers)
        assert (await ams.ensure(first)).residency == "region"
        for turn in range(2):
            killed = await asyncio.to_thread(servers.kill_master)
            begun_ms = clock.now_ms()
            # While nobody is the master, and each on its own disk.
            cold = bucket.publish(f"meanwhile-{turn}", size_bytes=MIB)
            assert (await fra.ensure(cold)).residency == "origin"
            cold_ms = clock.now_ms() - begun_ms
            master = await asyncio.to_thread(servers.wait_until_led_by_another, killed)
            led_ms = clock.now_ms() - begun_ms
            await _until_whole(made, nodes, servers)
            print(
                f"master killed: a cold start took {cold_ms:.0f} ms, another led after {led_ms:.0f} ms, "
                f"the index was whole after {clock.now_ms() - begun_ms:.0f} ms"
            )
            sent = origin.sent_bytes
            assert (await ams.ensure(cold)).residency == "region"
            assert origin.sent_bytes == sent
            # It comes back as a replica of the one that took over, with nothing that anybody follows.
            await asyncio.to_thread(killed.start)
            await wait_until(lambda killed=killed: not killed.is_master(), within_s=WITHIN_S)
            await wait_until(
                lambda master=master: master.admin.info("replication")["connected_slaves"] >= 1,
                within_s=WITHIN_S,
            )
            await _until_whole(made, nodes, servers)
