"""What a node.yaml may not say: each error names file, line, setting and what to write."""

import pytest
import yaml

from edge.config import NodeConfig
from edge.config_errors import explain, line_of
from edge.config_file import ConfigError, parse
from tests.support.nodeyaml import ANNOUNCE, DISCOVER, GOOD, INDEX, MESH, PEER

WRONG = [
    ("a setting that does not exist", GOOD + "nodes: x\n", "10: nodes: unknown setting; did you mean node?"),
    ("one that resembles none", GOOD + "zzz: x\n", "10: zzz: unknown setting; known here: node, pop, region"),
    (
        "one inside a section",
        GOOD.replace("  store:", "  stor: x\n  store:"),
        "8: weights.stor: unknown setting; did you mean store?",
    ),
    (
        "one inside a list inside a section",
        GOOD + "workers:\n  - device: cpu\n    thread: 1\n",
        "12: workers.0.thread: unknown setting; did you mean threads?",
    ),
    (
        "one inside a section inside a section",
        GOOD.replace("weights:", "  limits:\n    max_header: 1\nweights:"),
        "8: public.limits.max_header: unknown setting; did you mean max_headers?",
    ),
    (
        "one inside a list of an optional section",
        GOOD + PEER.replace("address:", "adress:"),
        "16: mesh.peers.0.adress: unknown setting; did you mean address?",
    ),
    ("a setting that is missing", GOOD.replace("region: us\n", ""), "1: region: is missing; edge/node.yaml"),
    (
        "a setting that is missing in a section",
        GOOD.replace("  store: /var/lib/edgepop\n", ""),
        "7: weights.store: is missing; edge/node.yaml",
    ),
    (
        "text where a number belongs",
        GOOD + "queue:\n  max_waiting: many\n",
        "11: queue.max_waiting: write a whole",
    ),
    (
        "a fraction where a number belongs",
        GOOD + "queue: {max_waiting: 1.5}\n",
        "10: queue.max_waiting: write a who",
    ),
    (
        "a word that YAML takes for a bool",
        GOOD.replace("iad-a\n", "no\n", 1),
        "1: node: write text; YAML reads no",
    ),
    (
        "a name that YAML takes for a date",
        GOOD.replace("iad-a\n", "2024-01-01\n", 1),
        "1: node: write text; YAML re",
    ),
    (
        "a number where text belongs",
        GOOD.replace("pop: iad", "pop: 7"),
        "2: pop: write text, this is a whole number",
    ),
    (
        "nothing behind the colon",
        GOOD + "workers:\n",
        "10: workers: write a list, as in [a, b]; nothing stands",
    ),
    (
        "a list where a section belongs",
        GOOD + "mesh: []\n",
        "10: mesh: write settings, as in name: value or nothing",
    ),
    ("a setting's name that is a number", GOOD + "7: x\n", "1: the file: a setting's name must be text"),
    (
        "a setting that stands twice",
        GOOD + "pop: fra\n",
        "10: pop: stands twice, first in line 2; remove one",
    ),
    (
        "one that stands twice in a list",
        GOOD + "workers:\n  - threads: 1\n    threads: 2\n",
        "12: threads: stands tw",
    ),
    ("no YAML", GOOD + "a: b: c\n", "10: is no YAML: mapping values are not allowed"),
    (
        "YAML that makes objects",
        GOOD + "x: !!python/object:os.system y\n",
        "10: is no YAML: could not determine",
    ),
    ("an empty file", "", "1: the file is empty; start from the sample"),
    ("a list for a file", "- a\n", "1: the file is no list of settings"),
    ("a file that contains itself", "a: &a [*a]\n", "1: a: unknown setting"),
    (
        "a name with capitals",
        GOOD.replace("node: iad-a", "node: IAD"),
        "1: node: 'IAD' is no name: write a-z",
    ),
    (
        "a relative run_dir",
        GOOD.replace("/run/edgepop/iad-a", "run"),
        "4: run_dir: 'run' is no absolute path",
    ),
    (
        "a run_dir too long for sockets",
        GOOD.replace("/run/", "/" + "r" * 90 + "/"),
        "4: run_dir: write a path of at",
    ),
    ("no address to listen on", GOOD.replace('"127.0.0.1:8080"', ""), "6: public.listen: write at least one"),
    (
        "an address without a port",
        GOOD.replace(":8080", ""),
        "6: public.listen.0: '127.0.0.1' is no address: write",
    ),
    (
        "a name for an address",
        GOOD.replace("127.0.0.1:8", "localhost:8"),
        "6: public.listen.0: 'localhost:8080' is",
    ),
    (
        "IPv6 without brackets",
        GOOD.replace("127.0.0.1:8080", "::1:8080"),
        "6: public.listen.0: '::1:8080' is no a",
    ),
    (
        "a port that is none",
        GOOD.replace(":8080", ":65536"),
        "6: public.listen.0: '127.0.0.1:65536' is no address",
    ),
    (
        "an address twice",
        GOOD.replace('80"]', '80", "127.0.0.1:8080"]'),
        "6: public.listen.1: 127.0.0.1:8080 is",
    ),
    (
        "no deadline",
        GOOD.replace("weights:", "  deadline_ms: 0\nweights:"),
        "7: public.deadline_ms: 0 is too little",
    ),
    (
        "a deadline above the most",
        GOOD.replace("weights:", "  deadline_ms: 90000\nweights:"),
        "7: public.deadline_ms: must not exceed public.max_deadline_ms",
    ),
    (
        "a limit of nothing",
        GOOD.replace("weights:", "  limits: {max_headers: 0}\nweights:"),
        "7: public.limits.max_headers: 0 is too little: write at least 1",
    ),
    (
        "a relative store",
        GOOD.replace("/var/lib", "var/lib"),
        "8: weights.store: 'var/lib/edgepop' is no absolute",
    ),
    (
        "an origin of no known kind",
        GOOD.replace("http:", "ftp:"),
        "9: weights.origin: 'ftp://127.0.0.1:9000/' is no",
    ),
    (
        "a size without a unit",
        GOOD + "  disk_bytes: '20'\n",
        "10: weights.disk_bytes: '20' is no size: write a num",
    ),
    ("a size of nothing", GOOD + "  host_bytes: 0GiB\n", "10: weights.host_bytes: '0GiB' is no size"),
    (
        "too many fetches",
        GOOD + "  fetch_parallel: 65\n",
        "10: weights.fetch_parallel: write a number from 1 to 64",
    ),
    ("no time to fetch", GOOD + "  fetch_timeout_ms: 0\n", "10: weights.fetch_timeout_ms: 0 is too little"),
    (
        "a mesh address that is none",
        GOOD + MESH.replace("10.0.0.1:7443", "x"),
        "11: mesh.listen: 'x' is no address",
    ),
    ("a mesh without a key", GOOD + MESH.replace("/c", "''"), "14: mesh.key: write the path of a PEM file"),
    ("a mesh without calls", GOOD + MESH + "  max_calls: 0\n", "15: mesh.max_calls: 0 is too little"),
    (
        "a peer's address that is none",
        GOOD + PEER.replace("10.0.0.2", "b"),
        "16: mesh.peers.0.address: 'b:7443' is",
    ),
    (
        "a peer that is this node",
        GOOD + PEER.replace("iad-b", "iad-a"),
        "16: mesh.peers.0.node: 'iad-a' is there tw",
    ),
    ("a peer's name", GOOD + PEER.replace("iad-b", "B"), "16: mesh.peers.0.node: 'B' is no name"),
    (
        "a peer twice",
        GOOD + PEER + "    - {node: iad-b, address: '10.0.0.3:7443'}\n",
        "17: mesh.peers.1.node: 'iad-b' is there twice, or is this node itself",
    ),
    (
        "a peer's region, which the peer tells itself",
        GOOD + PEER.replace("address:", "region: us, address:"),
        "16: mesh.peers.0.region: unknown setting",
    ),
    (
        "a peer suspected before it could speak",
        GOOD + MESH + "  suspect_ms: 400\n",
        "15: mesh.suspect_ms: write heartbeat_ms < suspect_ms < unroutable_ms < forget_ms",
    ),
    (
        "peers found under no name",
        GOOD + DISCOVER.replace("_mesh._tcp.edge.internal", "''"),
        "15: mesh.discover.name: write _mesh._tcp.edge.internal",
    ),
    (
        "a resolver without a port",
        GOOD + DISCOVER.replace("internal}", "internal, resolvers: [10.0.0.53]}"),
        "15: mesh.discover.resolvers.0: '10.0.0.53' is no address",
    ),
    (
        "DNS asked without pause",
        GOOD + DISCOVER.replace("internal}", "internal, every_ms: 10}"),
        "15: mesh.discover.every_ms: 10 is too little: write at least 100",
    ),
    (
        "a way of routing that is none",
        GOOD + "routing: {mode: far}\n",
        "10: routing.mode: write one of predicted",
    ),
    ("no horizon", GOOD + "routing: {horizon_s: 0}\n", "10: routing.horizon_s: 0 is too little"),
    ("a negative price", GOOD + "routing: {ms_per_usd: -1}\n", "10: routing.ms_per_usd: -1.0 is too little"),
    ("a negative farewell", GOOD + "drain: {lame_duck_ms: -1}\n", "10: drain.lame_duck_ms: -1 is too little"),
    ("a provider with blanks", GOOD + "provider: my own\n", "10: provider: 'my own' is no name"),
    (
        "blobs given away at no address",
        GOOD + "  blobs: fra-a:7444\n",
        "10: weights.blobs: 'fra-a:7444' is no address",
    ),
    (
        "an index of no known kind",
        GOOD + INDEX.replace("redis:", "http:"),
        "11: weights.index.url: write redis://10.0.0.1:6379",
    ),
    ("an index that is nowhere", GOOD + "  index: {user: ''}\n", "10: weights.index: write one of url, sent"),
    (
        "an index in two ways",
        GOOD + INDEX + "    cluster: [10.0.0.9:6379]\n",
        "10: weights.index: write one of url, sentinels and cluster",
    ),
    (
        "sentinels without a master",
        GOOD + "  index:\n    sentinels: [10.0.0.9:26379]\n",
        "10: weights.index.master: write what the sentinels call it",
    ),
    (
        "a sentinel without a port",
        GOOD + "  index:\n    master: eu\n    sentinels: [10.0.0.9]\n",
        "12: weights.index.sentinels.0: '10.0.0.9' is no address",
    ),
    (
        "a password in the index's URL",
        GOOD + INDEX.replace("//", "//iad-a:secret@"),
        "11: weights.index.url: write redis://10.0.0.1:6379; user and password are set beside it",
    ),
    (
        "a user of the index without a password",
        GOOD + INDEX + "    user: iad-a\n",
        "12: weights.index.user: write user and password_file, or neither of them",
    ),
    (
        "an index that is waited for too long",
        GOOD + INDEX + "    timeout_ms: 60000\n",
        "12: weights.index.timeout_ms: write a number from 10 to 10000",
    ),
    (
        "a lease too short",
        GOOD + INDEX + "    lease_ms: 100\n",
        "12: weights.index.lease_ms: 100 is too little: write at least 1000",
    ),
    (
        "TCP admin without a token",
        GOOD + "admin:\n  listen: 10.0.0.1:9901\n",
        "11: admin.listen: needs admin.token",
    ),
    (
        "an admin address that is none",
        GOOD + "admin: {listen: a, token_file: /t}\n",
        "10: admin.listen: 'a' is no a",
    ),
    (
        "a device that is none",
        GOOD + "workers: [{device: gpu}]\n",
        "10: workers.0.device: 'gpu' is no device: write",
    ),
    (
        "a device's size",
        GOOD + "workers: [{device_bytes: 2G}]\n",
        "10: workers.0.device_bytes: '2G' is no size",
    ),
    (
        "a worker's memory",
        GOOD + "workers: [{memory_bytes: 2G}]\n",
        "10: workers.0.memory_bytes: '2G' is no size",
    ),
    (
        "a provider that is none",
        GOOD + "workers: [{device: 'cuda:0', provider: rocm}]\n",
        "10: workers.0.provider: write tensorrt beside a cuda device",
    ),
    (
        "tensorrt on a processor",
        GOOD + "workers: [{provider: tensorrt}]\n",
        "10: workers.0.provider: write tensorrt beside a cuda device",
    ),
    ("no thread", GOOD + "workers: [{threads: 0}]\n", "10: workers.0.threads: write a number from 1 to 256"),
    (
        "limits in the wrong order",
        GOOD + "workers: [{soft_limit: 200}]\n",
        "10: workers.0.soft_limit: 200 must lie",
    ),
    ("more workers than sockets", GOOD + "workers:\n" + "  - {}\n" * 65, "10: workers: write at most 64"),
    (
        "an interface that is none",
        GOOD + ANNOUNCE.replace("ann0", "a/b"),
        "11: announce.interface: 'a/b' is no inter",
    ),
    (
        "no anycast address",
        GOOD + ANNOUNCE.replace("127.0.0.1", ""),
        "12: announce.addresses: write the anycast",
    ),
    (
        "an anycast address that is none",
        GOOD + ANNOUNCE.replace("127.0.0.1", "vip"),
        "12: announce.addresses.0: 'vip'",
    ),
    (
        "an anycast address where nobody listens",
        GOOD + ANNOUNCE.replace("127.0.0.1", "198.51.100.1"),
        "12: announce.addresses.0: nobody listens on 198.51.100.1: write it in public.listen too",
    ),
    (
        "a lease of half a second",
        GOOD + ANNOUNCE + "  lease_ms: 500\n",
        "13: announce.lease_ms: 500 is no whole",
    ),
    (
        "a lease of a second and a half",
        GOOD + ANNOUNCE + "  lease_ms: 1500\n",
        "13: announce.lease_ms: 1500 is no w",
    ),
    (
        "renewals that are too rare",
        GOOD + ANNOUNCE + "  renew_ms: 700\n",
        "13: announce.renew_ms: must be at most",
    ),
    (
        "a heartbeat that may be too old",
        GOOD + ANNOUNCE + "  heartbeat_max_age_ms: 2000\n",
        "13: announce.heartbeat_max_age_ms: must be less than lease_ms",
    ),
    (
        "a queue of less than nothing",
        GOOD + "queue: {max_waiting: -1}\n",
        "10: queue.max_waiting: -1 is too little",
    ),
    ("root for a child", GOOD + "users: {worker: 0}\n", "10: users.worker: 0 is no uid for a child"),
    ("one uid for two", GOOD + "users: {worker: 64001}\n", "10: users.proxy: 64001 is also users.worker"),
    (
        "a level that is none",
        GOOD + "log_level: loud\n",
        "10: log_level: write one of debug, info, warning, error",
    ),
]


@pytest.mark.parametrize(("sentence", "text", "problem"), WRONG, ids=[row[0] for row in WRONG])
def test_an_error_names_file_line_setting_and_what_to_write(sentence, text, problem):
    with pytest.raises(ConfigError) as caught:
        parse(text, "n.yaml")
    assert str(caught.value).startswith(f"n.yaml:{problem}"), f"{sentence}: {caught.value}"


def test_an_error_of_a_kind_not_foreseen_still_names_the_line():
    tree = yaml.compose("a:\n  b: 1\n")
    assert explain("Something odd - at `$.a.b`", tree, "f", NodeConfig) == "f:2: a.b: Something odd"
    assert line_of(tree, ["a", "b", "c"]) == 2
