"""Plays popctl's part in the lab's own tests: one small HTTP server and the kernel lease.

It reads the same node.yaml, answers GET /pop, renews the lease on the marker interface while its
loop runs, and writes `ready`. With it routes, leases and moves are proven without a model.
"""

import argparse
import asyncio
import signal
from pathlib import Path

from edge.config import NodeConfig, host_port
from edge.config_file import load
from edge.parent.announce import Announcer


async def answer(config: NodeConfig, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    client = writer.get_extra_info("peername")[0]
    body = f"pop: {config.pop}\nnode: {config.node}\nregion: {config.region}\nclient: {client}\n"
    if head.startswith(b"GET /pop "):
        status = "200 OK"
    else:
        status, body = "404 Not Found", '{"error": "no such path"}\n'
    writer.write(
        f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nEdge-Pop: {config.pop}\r\n"
        f"Connection: close\r\n\r\n{body}".encode()
    )
    await writer.drain()
    writer.close()


async def serve(config: NodeConfig) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    for listen in config.public.listen:
        host, port = host_port(listen)
        await asyncio.start_server(lambda r, w: answer(config, r, w), host, port)
    run_dir = Path(config.run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 -- before anybody is served
    announcer = None
    if config.announce is not None:
        lease_s = config.announce.lease_ms // 1000
        announcer = Announcer(config.announce.interface, config.announce.addresses, lease_s)
        announcer.renew()
    (run_dir / "ready").touch()
    while not stop.is_set():
        if announcer is not None and not (run_dir / "withdrawn").exists():
            announcer.renew()
        elif announcer is not None:
            announcer.delete()
        try:
            async with asyncio.timeout(config.announce.renew_ms / 1000 if config.announce else 60):
                await stop.wait()
        except TimeoutError:
            continue
    if announcer is not None:
        announcer.delete()
    (run_dir / "ready").unlink(missing_ok=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("-c", required=True, type=Path)
    asyncio.run(serve(load(parser.parse_args().c)))
