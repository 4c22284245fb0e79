"""A DNS server on loopback that answers what the test says: UDP and TCP on one port."""

import asyncio
import contextlib
import socket

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

ZONE = "edge.internal."
SRV = f"_mesh._tcp.{ZONE}"


class NameServer(asyncio.DatagramProtocol):
    """`nodes`: (host, port) by node name. `mode`: how it answers."""

    def __init__(self):
        self.nodes = {}
        self.mode = "answer"
        self.additional = True
        self.asked = []
        self.over_tcp = 0
        self.port = 0

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        wire = self.answer(data, limit=1_232)
        if wire is not None:
            self.transport.sendto(wire, addr)

    async def serve_tcp(self, reader, writer):
        self.over_tcp += 1
        with contextlib.suppress(asyncio.IncompleteReadError):
            length = int.from_bytes(await reader.readexactly(2), "big")
            wire = self.answer(await reader.readexactly(length), limit=65_535)
            writer.write(len(wire).to_bytes(2, "big") + wire)
            await writer.drain()
        writer.close()

    def answer(self, data, limit):
        query = dns.message.from_wire(data)
        (question,) = query.question
        self.asked.append((str(question.name), question.rdtype.name))
        if self.mode == "silent":
            return None
        if self.mode == "garbage":
            return data[:2] + b"\xff" * 40
        response = dns.message.make_response(query)
        if self.mode == "nxdomain":
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif self.mode == "servfail":
            response.set_rcode(dns.rcode.SERVFAIL)
        elif self.mode != "empty":
            self.fill(response, question)
        wire = response.to_wire(max_size=65_535)
        if len(wire) > limit:
            short = dns.message.make_response(query)
            short.flags |= dns.flags.TC
            return short.to_wire()
        return wire

    def fill(self, response, question):
        name, kind = str(question.name), question.rdtype.name
        if kind == "SRV" and name == SRV:
            rows = [f"0 0 {port} {node}.node.{ZONE}" for node, (_, port) in self.nodes.items()]
            if rows:
                response.answer.append(dns.rrset.from_text(SRV, 5, "IN", "SRV", *rows))
            if self.additional:
                for node, (host, _) in self.nodes.items():
                    rdtype = "AAAA" if ":" in host else "A"
                    response.additional.append(
                        dns.rrset.from_text(f"{node}.node.{ZONE}", 5, "IN", rdtype, host)
                    )
        else:
            host, _ = self.nodes.get(name.partition(".")[0], ("", 0))
            if host and kind == ("AAAA" if ":" in host else "A"):
                response.answer.append(dns.rrset.from_text(name, 5, "IN", kind, host))


def one_port_twice():
    """(UDP, TCP) sockets on one port of loopback; another program may have either half of a first try."""
    while True:
        tcp = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
        except OSError:
            tcp.close()
            udp.close()
        else:
            udp.setblocking(False)
            return udp, tcp


@contextlib.asynccontextmanager
async def name_server():
    loop = asyncio.get_running_loop()
    one = NameServer()
    udp, tcp = one_port_twice()
    one.port = udp.getsockname()[1]
    transport, _ = await loop.create_datagram_endpoint(lambda: one, sock=udp)
    server = await asyncio.start_server(one.serve_tcp, sock=tcp)
    try:
        yield one
    finally:
        transport.close()
        server.close()
        await server.wait_closed()
