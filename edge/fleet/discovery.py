"""Which nodes DNS names: the SRV records of the mesh, with their addresses.

The answer of a resolver is untrusted: what is no node's name, no port or too much is left out or
refused. A look that fails (no answer, no such name, no records) keeps what the last one found:
an empty answer is more likely a fault than an empty fleet. Nothing is dialed here.
"""

import asyncio
import logging
from typing import Final

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

from edge.config import Discover, host_port
from edge.fleet.beacon import NAME

log = logging.getLogger(__name__)

MAX_RECORDS: Final = 1_000
#: A larger answer comes over TCP.
EDNS_BYTES: Final = 1_232
#: Addresses asked for at once, when the answer did not bring them.
PARALLEL: Final = 16
#: A look is given up after so many of the configured timeouts, each of which is one question's.
LOOK_TIMEOUTS: Final = 10

Address = tuple[str, int]


class Discovery:
    """`look` asks; `found` is what the last good look found."""

    def __init__(self, discover: Discover) -> None:
        self._discover = discover
        self.found: dict[str, Address] = {}
        self.looks = 0
        self.failures = 0
        self.last_error = ""
        #: Records of the last good answer that named no node, or no address.
        self.left_out = 0

    async def look(self) -> dict[str, Address]:
        """Mesh addresses by node name, now or as they were when DNS last answered. Raises nothing of DNS."""
        self.looks += 1
        try:
            async with asyncio.timeout(LOOK_TIMEOUTS * self._discover.timeout_ms / 1000.0):
                self.found = await self._ask()
        except (dns.exception.DNSException, OSError, ValueError) as error:
            self.failures += 1
            text = f"{type(error).__name__}: {error}"[:300]
            if not self.last_error:
                log.warning("DNS does not name the nodes", extra={"srv": self._discover.name, "error": text})
            self.last_error = text
        else:
            self.last_error = ""
        return self.found

    async def _ask(self) -> dict[str, Address]:
        resolver = self._resolver()
        answer = await resolver.resolve(self._discover.name, "SRV", search=False)
        records = sorted(
            answer, key=lambda record: (record.priority, -record.weight, record.target, record.port)
        )
        if len(records) > MAX_RECORDS:
            raise ValueError(f"{len(records)} records exceed {MAX_RECORDS}")
        targets: dict[str, tuple[dns.name.Name, int]] = {}
        for record in records:
            node = _first_label(record.target)
            if NAME.fullmatch(node) and record.port:
                targets.setdefault(node, (record.target, record.port))
        hosts = _additional(answer.response)
        gate = asyncio.Semaphore(PARALLEL)
        addresses = await asyncio.gather(
            *[
                self._address(node, hosts.get(target), target, resolver, gate)
                for node, (target, _) in targets.items()
            ]
        )
        found = {
            node: (host, port)
            for (node, (_, port)), host in zip(targets.items(), addresses, strict=True)
            if host is not None
        }
        self.left_out = len(records) - len(found)
        return found

    def _resolver(self) -> dns.asyncresolver.Resolver:
        discover = self._discover
        resolver = dns.asyncresolver.Resolver(configure=not discover.resolvers)
        if discover.resolvers:
            resolver.nameservers = [
                dns.nameserver.Do53Nameserver(*host_port(address)) for address in discover.resolvers
            ]
        resolver.use_edns(0, 0, EDNS_BYTES)
        # A resolver that is away has its share of the time, so that the next one is asked.
        resolver.lifetime = discover.timeout_ms / 1000.0
        resolver.timeout = resolver.lifetime / max(1, len(resolver.nameservers))
        return resolver

    async def _address(
        self,
        node: str,
        known: list[str] | None,
        target: dns.name.Name,
        resolver: dns.asyncresolver.Resolver,
        gate: asyncio.Semaphore,
    ) -> str | None:
        """An address of one target. The one from before if it is still right, or if none is to be had."""
        before = self.found[node][0] if node in self.found else None
        if known is None:
            async with gate:
                known = await _ask_addresses(target, resolver)
        if before in known or not known:
            return before
        return known[0]


async def _ask_addresses(target: dns.name.Name, resolver: dns.asyncresolver.Resolver) -> list[str]:
    for kind in ("A", "AAAA"):
        try:
            answer = await resolver.resolve(target, kind, search=False)
        except (dns.exception.DNSException, OSError):
            continue
        return sorted(record.address for record in answer)
    return []


def _additional(response: dns.message.Message) -> dict[dns.name.Name, list[str]]:
    """Addresses that came along, by name, IPv4 first."""
    hosts: dict[dns.name.Name, list[str]] = {}
    for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
        for rrset in response.additional:
            if rrset.rdtype == kind:
                hosts.setdefault(rrset.name, []).extend(sorted(record.address for record in rrset))
    return hosts


def _first_label(name: dns.name.Name) -> str:
    return name.labels[0].decode("ascii", "replace").lower() if name.labels else ""
