"""The node's file: the sample parses, what is left out has defaults, what is right is taken."""

from pathlib import Path

import pytest
import yaml

from edge import config_file
from edge.config import Drain, NodeConfig, Routing, host_port, size_bytes
from edge.config_file import ConfigError, load, parse
from tests.support.nodeyaml import ANNOUNCE, DISCOVER, GOOD, INDEX, MESH

SAMPLE = Path(config_file.__file__).with_name("node.yaml")


def test_the_sample_parses_and_shows_every_section():
    sample = load(SAMPLE)
    plain = yaml.safe_load(SAMPLE.read_text())
    assert sample.node == "iad-a"
    assert sample.mesh is not None
    assert [peer.node for peer in sample.mesh.peers] == ["iad-b", "fra-a"]
    assert sample.mesh.discover is not None
    assert sample.weights.index is not None
    assert set(NodeConfig.__struct_fields__) - set(plain) <= {"users", "log_level"}
    assert set(Routing.__struct_fields__) == set(plain["routing"])
    assert set(Drain.__struct_fields__) == set(plain["drain"])


def test_the_sample_shows_defaults_where_it_shows_numbers():
    sample, small = load(SAMPLE), parse(GOOD)
    assert (sample.routing, sample.drain, sample.queue) == (small.routing, small.drain, small.queue)
    assert sample.mesh is not None
    bare = parse(GOOD + MESH).mesh
    assert bare is not None
    for setting in ("heartbeat_ms", "suspect_ms", "unroutable_ms", "forget_ms"):
        assert getattr(sample.mesh, setting) == getattr(bare, setting), setting


def test_what_is_left_out_has_its_default():
    small = parse(GOOD)
    assert (small.mesh, small.announce, small.workers) == (None, None, ())
    assert small.public.limits.max_body_bytes == 64 * 1024 * 1024
    assert len({small.users.proxy, small.users.weights, small.users.worker}) == 3


RIGHT = [
    ("no workers, written as an empty list", GOOD + "workers: []\n"),
    ("an optional section that is null", GOOD + "mesh: null\n"),
    ("an anycast address under a wildcard listener", GOOD.replace("127.0.0.1:80", "0.0.0.0:80") + ANNOUNCE),
    ("IPv6 in brackets", GOOD.replace("127.0.0.1:8080", "[::1]:8080")),
    (
        "an IPv6 anycast address, written another way",
        GOOD.replace("127.0.0.1", "[fd00:0::1]") + ANNOUNCE.replace("127.0.0.1", '"fd00::1"'),
    ),
    ("peers from DNS alone", GOOD + DISCOVER),
    ("an index without a user", GOOD + INDEX),
    ("an index behind sentinels", GOOD + "  index: {sentinels: ['10.0.0.9:26379'], master: eu}\n"),
    ("an index in a cluster", GOOD + "  index: {cluster: ['10.0.0.9:6379', '10.0.0.8:6379']}\n"),
    ("a password's file beside the user", GOOD + INDEX + "    user: iad-a\n    password_file: /p\n"),
    ("tensorrt on a GPU", GOOD + "workers: [{device: 'cuda:0', provider: tensorrt}]\n"),
    ("an alias", GOOD + "workers:\n  - &w {threads: 2}\n  - *w\n"),
]


@pytest.mark.parametrize(("sentence", "text"), RIGHT, ids=[row[0] for row in RIGHT])
def test_what_is_right_parses(sentence, text):
    assert parse(text).node == "iad-a", sentence


def test_files_that_can_not_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: can't be read: No such file"):
        load(tmp_path / "nowhere.yaml")
    for name, content, problem in (
        ("binary", b"\xff\xfe", "is not UTF-8 text"),
        ("huge", b"#" * (config_file.MAX_FILE_BYTES + 1), "is larger than"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=f"{name}: {problem}"):
            load(path)


SIZES = [("512MiB", 512 << 20), ("2 GiB", 2 << 30), ("1.5KiB", 1536), ("100B", 100), (" 1TiB ", 1 << 40)]


@pytest.mark.parametrize(("text", "size"), SIZES)
def test_sizes(text, size):
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "1", "1GB", "-1B", "1e3B", "0B", "inf B", "1" * 400 + "B", "\u0661B"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="is no size: write a number and B, KiB"):
        size_bytes(text)


def test_addresses():
    assert host_port("127.0.0.1:80") == ("127.0.0.1", 80)
    assert host_port("[::1]:80") == ("::1", 80)


@pytest.mark.parametrize(
    "text", ["", "80", ":80", "1.2.3.4", "1.2.3.4:", "1.2.3.4:+8", "1.2.3.4:8_0", "[::1]", "a:1"]
)
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match="is no address: write"):
        host_port(text)
