"""What people write to name a thing that fails, and what they are told when there is none."""

import pytest

from netlab import faulttarget, planetfile
from netlab.faults import KINDS
from netlab.faulttarget import Target

PLANET = planetfile.load(planetfile.PLANET)


@pytest.mark.parametrize(
    ("sentence", "words", "target"),
    [
        ("a node", "fra-a", Target("node", "fra-a", "fra-a")),
        ("a part of it", "fra-a/proxy", Target("proxy", "fra-a/proxy", "fra-a", ("proxy",))),
        ("its workers", "fra-a/worker", Target("worker", "fra-a/worker", "fra-a", ("worker",))),
        (
            "one worker, though it has no other",
            "fra-a/worker-0",
            Target("worker", "fra-a/worker-0", "fra-a", ("worker-0",)),
        ),
        ("its BIRD", "fra-a/bird", Target("bird", "fra-a/bird", "fra-a", ("fra-a",))),
        ("a router's BIRD", "r-fra/bird", Target("bird", "r-fra/bird", of=("r-fra",))),
        ("as the logs call it", "r-fra.bird", Target("bird", "r-fra/bird", of=("r-fra",))),
        ("a region's Redis", "redis/eu", Target("redis", "redis/eu", of=("eu",))),
        ("the other way round", "eu/redis", Target("redis", "redis/eu", of=("eu",))),
        ("as the logs call it", "redis-eu", Target("redis", "redis/eu", of=("eu",))),
        ("the origin", "origin", Target("origin", "origin")),
        ("a link", "iad-fra", Target("link", "iad-fra", of=("iad", "fra"))),
        ("from its other end", "fra-iad", Target("link", "iad-fra", of=("iad", "fra"))),
        ("in two words", ("fra", "iad"), Target("link", "iad-fra", of=("iad", "fra"))),
        ("in one word of a shell", ("nrt-a",), Target("node", "nrt-a", "nrt-a")),
    ],
)
def test_what_is_meant(sentence: str, words: str | tuple[str, ...], target: Target) -> None:
    assert faulttarget.parse(words, PLANET) == target, sentence


@pytest.mark.parametrize(
    ("sentence", "words", "said"),
    [
        ("a typing error", "fra-b", "did you mean fra-a?"),
        ("a typing error in a part", "fra-a/worke", "did you mean fra-a/worker?"),
        ("a part that no node has", "fra-a/gpu", "fra-a has fra-a/parent, fra-a/proxy"),
        ("a worker where there is none", "iad-a/worker", "iad-a has"),
        ("a BIRD where there is none", "iad-b/bird", "iad-b has"),
        ("a POP", "iad", "the POP consists of iad-a, iad-b, r-iad/bird"),
        ("a region", "eu", "the region consists of redis/eu, fra-a, ams-a"),
        ("a kind", "redis", "write redis/us or redis/eu or redis/ap"),
        ("nothing like it", "???", "there are: iad-a, "),
        ("a link to itself", ("fra", "fra"), "did you mean"),
        ("everything at once", "all", "one at a time"),
    ],
)
def test_what_can_not_be_meant(sentence: str, words: str | tuple[str, ...], said: str) -> None:
    with pytest.raises(KeyError) as refused:
        faulttarget.parse(words, PLANET)
    assert said in refused.value.args[0], sentence


def test_every_target_is_found_by_its_name_and_no_name_is_taken_twice() -> None:
    for planet in (PLANET, planetfile.load(planetfile.find("two-workers"))):
        targets = faulttarget.every(planet)
        assert len({target.name for target in targets}) == len(targets)
        assert {target.kind for target in targets} == set(KINDS)
        for target in targets:
            assert faulttarget.parse(target.name, planet) == target


def test_each_of_several_workers_has_a_name() -> None:
    text = planetfile.PLANET.read_text().replace("iad-b: {ingress: false, workers: 1}", "iad-b: {workers: 2}")
    names = [t.name for t in faulttarget.every(planetfile.parse(text, "two.yaml")) if t.node == "iad-b"]
    assert names[-3:] == ["iad-b/worker", "iad-b/worker-0", "iad-b/worker-1"]


def test_a_planet_is_broken_only_where_it_has_something() -> None:
    quiet = planetfile.load(planetfile.find("no-redis-region"))
    assert {t.of[0] for t in faulttarget.every(quiet) if t.kind == "redis"} == {
        region.name for region in quiet.indexed
    }
    chain = planetfile.load(planetfile.find("transit"))
    links = {t.of for t in faulttarget.every(chain) if t.kind == "link"}
    assert len(links) < len(chain.pops) * (len(chain.pops) - 1) / 2
