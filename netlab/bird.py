"""The text of bird.conf: for a POP's router and for an ingress node. Pure.

A node announces an address exactly as long as the kernel holds it on the marker interface;
it filters so that nothing else can leave. A router prefers its own POP (local_pref 1000), then
the others by RTT (1000 - RTT), and tells other POPs only what is its own: else a path through a
third POP could win. Where AS paths decide, all others have the same preference; where the planet
says who speaks with whom, routers pass on what they learned. paths.py works out what comes of it.
It refuses to know how BIRD is started (supervise.py) or asked (birdctl.py).
"""

from netlab import paths
from netlab.names import MARKER, city_port
from netlab.topology import Bfd, Node, Pop, Topology

# The error waits are short because BIRD's own (60 s and more) keep a healed peer away for minutes.
_WAITS = """\
  connect delay time 1; connect retry time 1;
  error wait time 1, 5; error forget time 10;"""
# Where BFD watches, it says first that a neighbour is gone. Without, a node or router that vanishes
# without a word is missed after the hold time. Between routers it is the one that RFC 4271 suggests: a link
# cut for less leaves the routes alone. With 30 s a third cut of 8 s in a row took sessions down, and healing
# 4.7 s instead of 0.7.
_NODE_HOLD = "hold time 6; keepalive time 2;"
_WAN_HOLD = "hold time 90; keepalive time 30;"
# Equals are told apart by rank, so that no router spreads a city over two POPs (`merge paths` would).
_RANKED = "med metric on;"


def _session(
    name: str, local: object, local_as: int, peer: object, peer_as: int, channel: str, bfd: Bfd | None
) -> str:
    wan = name.startswith("wan")
    lines = [f"  {_WAN_HOLD if wan else _NODE_HOLD}", _WAITS]
    lines += [f"  {_RANKED}"] * wan
    lines += ["  bfd on;"] * (bfd is not None)
    settings = "\n".join(lines)
    return f"""
protocol bgp {name} {{
  local {local} as {local_as};
  neighbor {peer} as {peer_as};
{settings}
{channel}
}}
"""


def _watch(interfaces: dict[str, Bfd | None]) -> str:
    """BFD on the interfaces that have any; single hop, so UDP 3784 has to pass (RFC 5881)."""
    told = "".join(
        f'  interface "{name}" {{ interval {bfd.interval_ms} ms; multiplier {bfd.multiplier}; }};\n'
        for name, bfd in interfaces.items()
        if bfd is not None
    )
    return f"protocol bfd watch {{\n{told}}}\n" if told else ""


def node_conf(topology: Topology, node: Node) -> str:
    """bird.conf of an ingress node."""
    pop = topology.pop(node.pop)
    parts = [
        f"""log stderr all;
router id {node.v4};
protocol device {{ }}

# The announcement is a kernel lease: the address is on {MARKER} while somebody renews it.
protocol direct lease {{ ipv4; ipv6; interface "{MARKER}"; }}
""",
        _watch({"eth0": topology.bgp.bfd_pop}),
    ]
    for family, address, local, peer in (
        (4, f"{topology.vip4}/32", node.v4, pop.lan4[1]),
        (6, f"{topology.vip6}/128", node.v6, pop.lan6[1]),
    ):
        channel = f"  ipv{family} {{ import none; export where net = {address}; next hop self; }};"
        bfd = topology.bgp.bfd_pop
        parts.append(_session(f"router{family}", local, pop.nodes_as, peer, pop.router_as, channel, bfd))
    return "".join(parts)


def router_conf(topology: Topology, pop: Pop) -> str:
    """bird.conf of a POP's router."""
    ports = ["lan", *(city_port(city.name) for city in topology.cities_of(pop.name))]
    interfaces = ", ".join(f'"{port}"' for port in ports)
    families = (
        (4, f"{topology.vip4}/32", str(topology.host.net4)),
        (6, f"{topology.vip6}/128", str(topology.host.net6)),
    )
    parts = [
        f"""log stderr all;
router id {pop.wan4};
protocol device {{ }}
protocol direct own {{ ipv4; ipv6; interface {interfaces}; }}
""",
        _watch({"lan": topology.bgp.bfd_pop, "wan": topology.bgp.bfd_wan}),
    ]
    for family, vip, link in families:
        parts.append(f"""
# The host's link is a kernel route while it is attached at one of this POP's cities.
protocol kernel kernel{family} {{
  learn;
  merge paths on;
  ipv{family} {{ import where net = {link}; export where source = RTS_BGP; }};
}}

filter to_wan{family} {{
  if source = RTS_DEVICE then accept;
  if source = RTS_INHERIT && net = {link} then accept;
{_told_others(topology, pop, vip)}
  reject;
}}
""")
        for node in pop.nodes:
            if node.ingress:
                local, peer = (pop.lan4[1], node.v4) if family == 4 else (pop.lan6[1], node.v6)
                channel = (
                    f"  ipv{family} {{ import filter {{ if net != {vip} then reject; "
                    f"bgp_local_pref = 1000; accept; }}; export none; }};"
                )
                name = f"node{family}_{_word(node.name)}"
                bfd = topology.bgp.bfd_pop
                parts.append(_session(name, local, pop.router_as, peer, pop.nodes_as, channel, bfd))
        for rank, other in enumerate(paths.ranked(topology, pop)):
            local, peer = (pop.wan4, other.wan4) if family == 4 else (pop.wan6, other.wan6)
            by_rtt = 1000 - round(topology.rtt_ms(pop.name, other.name))
            preference = by_rtt if topology.bgp.prefer == "rtt" else 100
            channel = (
                f"  ipv{family} {{ import filter {{ bgp_local_pref = {preference}; bgp_med = {rank}; "
                f"accept; }}; export filter to_wan{family}; next hop self; }};"
            )
            name, bfd = f"wan{family}_{_word(other.name)}", topology.bgp.bfd_wan
            parts.append(_session(name, local, pop.router_as, peer, other.router_as, channel, bfd))
    return "".join(parts)


def _told_others(topology: Topology, pop: Pop, vip: str) -> str:
    """What other POPs hear of what it learned: the address of its own nodes, or all where it is transit."""
    again = f"bgp_path.prepend({pop.router_as}); " * topology.bgp.prepend.get(pop.name, 0)
    own = f"  if source = RTS_BGP && net = {vip} && bgp_path.len = 1 then {{ {again}accept; }}"
    return f"{own}\n  if source = RTS_BGP then accept;" if topology.transit else own


def _word(name: str) -> str:
    """A name as BIRD's grammar wants it; ours hold no underscore, so none can meet another."""
    return name.replace("-", "_")
