"""What a planet's schema says beyond the types: bounds, patterns, and words for the shared settings.

A table by section and setting, with the numbers that `planetfile` and `planetways` refuse by. It
refuses to know how a schema is made of it (schema.py).
"""

from typing import Any, Final

from netlab import planetfile, planetways, sections, shape

_NAME: Final = {"pattern": f"^{sections.NAME.pattern}$"}
_PLACE: Final = {"propertyNames": {**_NAME, "not": {"pattern": f"^({sections.TAKEN.pattern})$"}}}
_SIZE: Final = {"pattern": f"^{planetfile.SIZE.pattern}$"}
_AT: Final = {"prefixItems": [{"minimum": -90, "maximum": 90}, {"minimum": -180, "maximum": 180}]}
_TWO: Final = {"minItems": 2, "maxItems": 2}

#: A pair of POPs: there and back, or each way by itself.
RTT: Final[dict[str, Any]] = {
    "minimum": 0,
    "maximum": planetways.MAX_RTT_MS,
    "items": {"minimum": 0, "maximum": planetways.MAX_RTT_MS / 2},
}


def _said(description: str, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    bounds = {"minimum": low, "maximum": high}
    return {"description": description} | {key: value for key, value in bounds.items() if value is not None}


def _popctls(low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return _said("As in node.yaml; popctl's own default if left out.", low, high)


MORE: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "Planet": {
        "name": {"pattern": f"^{planetfile.PLANET_NAME.pattern}$"},
        "about": {"maxLength": planetfile.MAX_ABOUT, "pattern": r"^[^\n]*$"},
        "anycast": {**_TWO, "items": {"type": "string", "pattern": r"^[0-9a-fA-F.:]+$"}},
        "pops": {"minProperties": 1, "maxProperties": planetfile.MAX_POPS, "propertyNames": _NAME},
        "cities": {"minProperties": 1, "maxProperties": planetways.MAX_CITIES, **_PLACE},
    },
    "Host": {"link": _TWO},
    "Origin": {
        "pop": _said("In whose LAN it stands."),
        "port": _said("Where it listens.", 1, 65535),
    },
    "Pop": {
        "region": _NAME,
        "at": _AT,
        "nodes": {"maxProperties": planetfile.MAX_NODES_PER_POP, **_PLACE},
    },
    "Node": {"provider": _NAME, "device_bytes": _SIZE, "disk_bytes": _SIZE},
    "City": {"rtt_ms": {"maximum": planetways.MAX_RTT_MS}, "at": _AT},
    "Lease": {
        "valid_s": _said("Seconds that an announcement lives without renewal.", 1, 3600),
        "renew_ms": _said("How often it is renewed; at most a third of valid_s.", 1, 1_200_000),
    },
    "Routing": {
        "mode": {**_popctls(), "enum": [*shape.MODES, None]},
        "hydrate": _popctls(),
        "horizon_s": _popctls(),
        "min_resident_s": _popctls(),
        "ms_per_usd": _popctls(),
        "usd_per_gib": _popctls(),
    },
    "Queue": {setting: _popctls(0, 1_000_000) for setting in ("max_waiting", "max_wait_ms")},
    "Drain": {setting: _popctls(0, 1_000_000) for setting in ("lame_duck_ms", "finish_ms")},
    "Bgp": {
        "prepend": {
            "additionalProperties": {"type": "integer", "minimum": 0, "maximum": planetways.MAX_PREPEND}
        }
    },
    "Bfd": {
        "interval_ms": _said("Between two signs of life.", planetways.MIN_BFD_MS, planetways.MAX_BFD_MS),
        "multiplier": _said("So many missed and the neighbour is gone.", 2, 50),
    },
}
