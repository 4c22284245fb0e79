"""What nodes say to each other over a mesh link, in frames: who they are, that they are there, their beacons.

Part of the vocabulary of `edge.wire.calls`, which joins it with the rest.
"""

import msgspec


class Subscribe(msgspec.Struct, tag="subscribe", tag_field="op", omit_defaults=True):
    """CALL, mesh: who are you, and tell me your beacons on this link from now on. Reply `Welcome`."""

    node: str
    version: str = ""


class Welcome(msgspec.Struct, tag="welcome", tag_field="op", omit_defaults=True):
    """Answer to `Subscribe`: the node as it names itself. Its beacons follow as `BeaconNews`."""

    node: str
    version: str = ""


class Probe(msgspec.Struct, tag="probe", tag_field="op", omit_defaults=True):
    """CALL, mesh: are you there? Reply `Done` at once; its time is the round trip."""


class BeaconNews(msgspec.Struct, tag="beacon", tag_field="op", omit_defaults=True):
    """EVENT, mesh. Body: msgpack of `edge.policy.facts.Beacon`.

    `base` 0: whole. Else only what changed since the beacon with that sequence number: `models`,
    `demand` and `rtts_ms` hold changed entries, `gone` the models that are no longer there.
    """

    base: int = 0
    gone: tuple[str, ...] = ()


class Resync(msgspec.Struct, tag="resync", tag_field="op", omit_defaults=True):
    """EVENT, mesh, from the subscriber: I can't use your delta, send a whole beacon."""


class Goodbye(msgspec.Struct, tag="goodbye", tag_field="op", omit_defaults=True):
    """EVENT, from the answering side: open no more exchanges on this link, dial again.

    What is under way on it is still answered.
    """
