"""The sections of a planet's file that say how far things are and who speaks with whom.

RTTs and positions, cities, BGP and BFD, with errors that say where and what to write instead. It
refuses to know how BGP then decides (paths.py) and how it is configured (bird.py).
"""

from collections.abc import Mapping, Sequence
from typing import Final

from netlab import earth, shape, yamlfile
from netlab.earth import Place
from netlab.sections import Sections
from netlab.topology import Bfd, Bgp, City, Pop, pair_of, unknown

MAX_CITIES: Final = 99
#: local_pref is 1000 - RTT, and must stay above zero for every pair.
MAX_RTT_MS: Final = 900.0
MAX_PREPEND: Final = 16
#: BIRD's timers hold such intervals; whether a busy machine does, tests/bench/bfd.py says.
MIN_BFD_MS, MAX_BFD_MS = 10, 10_000


class Ways(Sections):
    """Reads distances and sessions."""

    def place(self, at: Place | None, path: yamlfile.Path) -> Place | None:
        """A position on the globe. Raises TopologyError."""
        if at is not None:
            self.number(at[0], -90, 90, (*path, "at", 0))
            self.number(at[1], -180, 180, (*path, "at", 1))
        return at

    def delays(self, raw: Mapping[str, object], pops: Sequence[Pop]) -> dict[tuple[str, str], float]:
        """One-way delay of every ordered pair: what the file says, else the great circle's."""
        by_key = {
            f"{one.name}-{other.name}": (one, other) for one in pops for other in pops if one is not other
        }
        found: dict[tuple[str, str], float] = {}
        for key, value in raw.items():
            at = ("rtt_ms", key)
            if key not in by_key:
                raise self.fail(at, unknown(key, list(by_key), "pair of POPs"))
            one, other = (pop.name for pop in by_key[key])
            if (one, other) in found:
                raise self.fail(at, "this pair is there in the other order already; keep one of them")
            found[one, other], found[other, one] = self._there_and_back(value, at)
        for key, (near, far) in by_key.items():
            if (near.name, far.name) not in found:
                if near.at is None or far.at is None:
                    without = near.name if near.at is None else far.name
                    raise self.fail(
                        ("rtt_ms",),
                        f"{key} is missing; write `{key}: 80` (milliseconds), or `at: [latitude, longitude]` "
                        f"below pops.{without}",
                    )
                found[near.name, far.name] = earth.rtt_ms(near.at, far.at) / 2
        return found

    def _there_and_back(self, value: object, at: yamlfile.Path) -> tuple[float, float]:
        if isinstance(value, list):
            there, back = self.section(value, tuple[float, float], at)
            for index, delay in enumerate((there, back)):
                self.number(delay, 0, MAX_RTT_MS / 2, (*at, index))
            return there, back
        rtt = self.number(self.section(value, float, at), 0, MAX_RTT_MS, at)
        return rtt / 2, rtt / 2

    def cities(
        self, raw: Mapping[str, object], pops: Sequence[Pop], taken: Sequence[str]
    ) -> tuple[City, ...]:
        """Every city, with the RTT to its router. Raises TopologyError."""
        if not 1 <= len(raw) <= MAX_CITIES:
            raise self.fail(("cities",), f"holds {len(raw)} cities: write 1 to {MAX_CITIES}")
        names = {pop.name: pop for pop in pops}
        cities = []
        for index, (name, value) in enumerate(raw.items(), 1):
            at = ("cities", name)
            self.check_place(name, at)
            if name in taken:
                raise self.fail(at, f"{name!r} is the name of something else already; a city needs its own")
            city = self.section(value, shape.City, at)
            self.check_known(city.pop, list(names), "POP", (*at, "pop"))
            rtt = self._access(city, names[city.pop], at)
            cities.append(City(name=name, index=index, pop=city.pop, rtt_ms=rtt))
        return tuple(cities)

    def _access(self, city: shape.City, pop: Pop, at: yamlfile.Path) -> float:
        here = self.place(city.at, at)
        if city.rtt_ms is not None:
            return self.number(city.rtt_ms, 0, MAX_RTT_MS, (*at, "rtt_ms"))
        if here is None or pop.at is None:
            raise self.fail(
                (*at, "rtt_ms"),
                f"is missing; write it, or `at: [latitude, longitude]` here and below pops.{pop.name}",
            )
        return earth.rtt_ms(here, pop.at)

    def bgp(self, raw: object, raw_bfd: object, pops: Sequence[Pop]) -> Bgp:
        """How routers choose, and how sessions are watched. Raises TopologyError."""
        wish = self.section({} if raw is None else raw, shape.Bgp, ("bgp",))
        if wish.prefer not in shape.PREFERENCES:
            wanted = " or ".join(shape.PREFERENCES)
            raise self.fail(("bgp", "prefer"), f"{wish.prefer!r} is none: write {wanted}")
        for setting, said in (("links", wish.links is not None), ("prepend", bool(wish.prepend))):
            if said and wish.prefer == "rtt":
                raise self.fail(
                    ("bgp", setting), "changes nothing while RTTs decide: write `prefer: as-path` too"
                )
        names = [pop.name for pop in pops]
        for pop, times in wish.prepend.items():
            self.check_known(pop, names, "POP", ("bgp", "prepend", pop))
            self.number(times, 0, MAX_PREPEND, ("bgp", "prepend", pop))
        watch = self.section({} if raw_bfd is None else raw_bfd, shape.BfdWish, ("bfd",))
        return Bgp(
            prefer=wish.prefer,
            links=None if wish.links is None else self._links(wish.links, names),
            prepend=dict(wish.prepend),
            bfd_pop=self._bfd(watch.pop, ("bfd", "pop")),
            bfd_wan=self._bfd(watch.wan, ("bfd", "wan")),
        )

    def _links(self, texts: Sequence[str], pops: Sequence[str]) -> tuple[tuple[str, str], ...]:
        pairs = {f"{one}-{other}": pair_of(one, other) for one in pops for other in pops if one != other}
        links = []
        for index, text in enumerate(texts):
            self.check_known(text, list(pairs), "pair of POPs", ("bgp", "links", index))
            links.append(pairs[text])
        reached, waiting = {pops[0]}, [pops[0]]
        while waiting:
            here = waiting.pop()
            onward = {pop for link in links if here in link for pop in link} - reached
            reached |= onward
            waiting += onward
        if lonely := [pop for pop in pops if pop not in reached]:
            raise self.fail(("bgp", "links"), f"no way leads from {pops[0]} to {lonely[0]}; add a link to it")
        return tuple(links)

    def _bfd(self, raw: object, at: yamlfile.Path) -> Bfd | None:
        if raw is False:
            return None
        if isinstance(raw, Bfd):
            return raw
        if not isinstance(raw, dict):
            raise self.fail(at, "write {interval_ms: 100, multiplier: 3}, or false")
        bfd = self.section(raw, Bfd, at)
        self.number(bfd.interval_ms, MIN_BFD_MS, MAX_BFD_MS, (*at, "interval_ms"))
        self.number(bfd.multiplier, 2, 50, (*at, "multiplier"))
        return bfd
