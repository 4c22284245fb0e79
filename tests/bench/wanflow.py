"""One end of the bench's TCP flow, a process of its own so that nothing it does delays who measures.

`python -m tests.bench.wanflow receive ADDRESS` prints its port and swallows one connection;
`python -m tests.bench.wanflow send ADDRESS PORT` sends until the other end or its starter goes.
"""

import socket
import sys
import threading

from tests.bench.until import print_port

CHUNK_BYTES = 1 << 18


def receive(address: str) -> None:
    """Read one connection to its end."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        print_port(server.getsockname()[1])
        taken, _ = server.accept()
    into = bytearray(1 << 20)
    with taken:
        while taken.recv_into(into):
            pass


def send(address: str, port: int) -> None:
    """Write for as long as stdin is open and somebody reads."""
    with socket.create_connection((address, port)) as client:
        threading.Thread(
            target=lambda: (sys.stdin.read(), client.shutdown(socket.SHUT_RDWR)), daemon=True
        ).start()
        body = bytes(CHUNK_BYTES)
        try:
            while True:
                client.sendall(body)
        except OSError:
            return


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(sys.argv[2])
    else:
        send(sys.argv[2], int(sys.argv[3]))
