"""What this node knows of others that might attract clients: its peers' beacons, as the policy reads them."""

from edge import clock
from edge.config import Mesh
from edge.fleet.peers_set import Peers
from edge.fleet.snapshot import Fleet
from edge.policy.others import Others, Seen, who_announces


class Company:
    """The other nodes; `peers` and `mesh` are None on a node that need not know of any."""

    def __init__(self, fleet: Fleet, peers: Peers | None, mesh: Mesh | None) -> None:
        self._fleet = fleet
        self._peers = peers
        self._mesh = mesh

    def announces(self) -> Others:
        """Whether another node attracts clients now."""
        if self._peers is None or self._mesh is None:
            return Others.UNKNOWN
        now_ms = clock.now_ms()
        return who_announces(
            [self._seen(node, now_ms) for node in self._peers.peers],
            fresh_ms=self._mesh.suspect_ms,
            gone_ms=self._mesh.forget_ms,
        )

    def _seen(self, node: str, now_ms: float) -> Seen:
        view = self._fleet.nodes.get(node)
        if view is not None:
            beacon = view.beacon
            return Seen(now_ms - view.at_ms, ingress=beacon.ingress, announced=beacon.announced)
        silent_ms = self._peers.peers[node].silent_ms(now_ms) if self._peers is not None else 0.0
        return Seen(silent_ms, heard=False)
