"""What an operator sees and does of weights with popctl: ps, pull, verify, gc, and prefetch at other nodes."""

import contextlib
import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge.weights import manifest as mf
from netlab.clock import wait_until
from tests.support import tiny
from tests.support.fleet import Wanted, running_fleet
from tests.support.node import Node, open_directory, running_node
from tests.support.ports import free_port
from tests.support.stores import a_store, doubler

POPCTL = str(Path(sys.executable).with_name("popctl"))


def popctl(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [POPCTL, *arguments, "-c", str(node.directory / "node.yaml")],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


def told(node: Node, *arguments: str, status: int = 0) -> Any:
    ran = popctl(node, *arguments, "--json")
    assert ran.returncode == status, ran.stderr
    return json.loads(ran.stdout)


def near(node: Node, model: str) -> Any:
    """The model's row of `models ps`, None if it is not there."""
    rows = told(node, "models", "ps")["models"]
    return next((row for row in rows if row["model"] == model), None)


def here(node: Node, model: str, version: str = "1") -> Any:
    rows = told(node, "weights")["models"]
    return next((row for row in rows if (row["model"], row["version"]) == (model, version)), None)


@contextlib.contextmanager
def dripping(root: Path, folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """An origin that gives blobs slowly, until told otherwise."""
    port, control = free_port(), folder / "control.sock"

    def ask(method: str, body: str | None) -> None:
        connection = http.client.HTTPConnection("control", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(control))
        connection.request(method, "/_fault", body)
        assert connection.getresponse().status < 300
        connection.close()

    command = [sys.executable, "-m", "netlab.origin", "--root", str(root)]
    command += ["--listen", f"127.0.0.1:{port}", "--control", str(control)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            drip = {"kind": "drip", "path_prefix": "blobs/", "count": 1000, "drip_bps": 100_000}
            ask("POST", json.dumps(drip))
            yield f"http://127.0.0.1:{port}/", lambda: ask("DELETE", None)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def origin() -> Iterator[Path]:
    with open_directory() as root:
        (root / "blobs").mkdir()
        blobs = root / "blobs"
        a_store(root, tiny.identity(blobs), doubler(blobs), tiny.picker(blobs), tiny.heavy(blobs, side=512))
        yield root


@pytest.fixture(scope="module")
def node(origin: Path) -> Iterator[Node]:
    with running_node(origin=f"file://{origin}") as running:
        yield running


def test_what_is_near_is_told_with_why(node):
    done = told(node, "models", "pull", "heavy")
    assert (done["outcome"], done["tier"], done["residency"]) == ("on-disk", "disk", "origin")
    wait_until(lambda: here(node, "heavy") is not None, "it lies here", within_s=5)
    row = here(node, "heavy")
    assert (row["tier"], row["why"], row["in_use"], row["fetch"]) == ("disk", ["cache"], 0, None)
    assert row["disk_bytes"] == row["bytes"] > 512 * 512 * 4
    assert near(node, "heavy") is None, "what only lies on the disk is not near"
    told(node, "models", "prefetch", "heavy", "--tier", "device")
    row = near(node, "heavy")
    assert (row["tier"], row["why"], row["used_s_ago"] < 60) == ("device", ["on one-a/0"], True)
    assert row["devices"][0]["worker"] == "one-a/0"
    told(node, "models", "pin", "heavy")
    assert near(node, "heavy")["why"][0] == "pinned"
    shown = popctl(node, "models", "ps").stdout
    assert shown.splitlines()[0].split()[:4] == ["model", "version", "digest", "tier"]
    assert "pinned, on one-a/0" in shown
    assert "pinned, on one-a/0" in popctl(node, "weights").stdout
    told(node, "models", "unpin", "heavy")


def test_damage_is_found_repaired_and_told_by_the_exit_status(node):
    told(node, "models", "prefetch", "picker", "--tier", "device")
    wait_until(lambda: here(node, "picker") is not None, "it lies here", within_s=5)
    assert told(node, "models", "verify", "picker")["models"][0]["bad"] == []
    assert popctl(node, "models", "verify", "--all").returncode == 0
    blob = node.directory / "store" / "blobs" / tiny.picker(node.directory).files[0].blake3
    good = blob.read_bytes()
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.write(bytes([good[0] ^ 1]))
    (row,) = told(node, "models", "verify", "picker", status=5)["models"]
    assert (row["bad"], row["moved_bytes"], row["left_devices"]) == ([blob.name], len(good), ["one-a/0"])
    assert blob.read_bytes() == good
    wait_until(lambda: near(node, "picker") is None, "what was mapped of the bad one is let go", within_s=5)
    ran = popctl(node, "models", "verify", "--all")
    assert (ran.returncode, "picker" in ran.stdout) == (0, True), ran.stderr


def test_what_rotted_while_it_was_loaded_is_let_go_and_loaded_anew(origin):
    with running_node(origin=f"file://{origin}\n          scrub_every_s: 1") as node:
        told(node, "models", "pin", "picker")
        told(node, "models", "prefetch", "picker", "--tier", "device")
        assert near(node, "picker")["tier"] == "device"
        blob = node.directory / "store" / "blobs" / tiny.picker(node.directory).files[0].blake3
        good = blob.read_bytes()
        blob.chmod(0o644)
        with blob.open("r+b") as file:
            file.write(bytes([good[0] ^ 1]))
        aside = node.directory / "store" / "quarantine" / blob.name
        wait_until(aside.exists, "it is found", within_s=20)
        wait_until(lambda: near(node, "picker") is None, "what is mapped of it is let go", within_s=20)
        wait_until(lambda: blob.exists() and blob.read_bytes() == good, "it comes again", within_s=20)
        told(node, "models", "prefetch", "picker", "--tier", "device")
        assert near(node, "picker")["tier"] == "device"


def test_a_file_that_was_removed_by_hand_is_said_to_be_and_comes_back(node):
    told(node, "models", "pull", "heavy")
    blob = next(path for path in (node.directory / "store" / "blobs").iterdir() if path.stat().st_size > 1e6)
    good = blob.read_bytes()
    blob.unlink()
    ran = popctl(node, "models", "verify", "heavy")
    assert (ran.returncode, "damage was found and repaired in heavy" in ran.stderr) == (5, True), ran.stderr
    header, row = ran.stdout.splitlines()[:2]
    assert "removed by somebody" in header
    assert blob.name[:12] in row
    assert blob.read_bytes() == good
    assert popctl(node, "models", "verify", "heavy").returncode == 0


def test_what_hydrations_moved_and_took_is_counted(node):
    node.request("/run/identity", json.dumps({"input": [[0.0] * 16]}))
    told(node, "models", "evict", "identity")
    page = node.admin("/metrics").body.decode()
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    origin = ("source", "origin")
    assert samples["edge_hydration_bytes_total", origin] > 0
    assert samples["edge_hydration_estimate_error_ratio_count", origin] >= 1
    assert samples["edge_hydration_seconds_count", ("model", "identity"), origin] == 1
    assert samples["edge_cache_evictions_total", ("tier", "device")] >= 1
    assert samples["edge_cache_bytes", ("tier", "disk")] > 0
    (row,) = [row for row in node.state["hydration"]["expected"] if row["model"] == "identity"]
    assert (row["source"], row["expected_ms"] > 0, row["took_ms"] > 0) == ("origin", True, True)
    seconds = told(node, "models", "show", "identity")["seconds_to_a_device"]["one-a/0"]
    assert list(seconds) == ["disk", "region", "far", "origin"]
    assert 0 < seconds["disk"] < seconds["origin"]


WRONG = [
    ("neither names nor all", ["verify"], 2, "--all"),
    ("both", ["verify", "picker", "--all"], 2, "--all"),
    ("a model that is not here", ["verify", "nobody"], 4, "popctl models pull nobody brings it"),
    ("a pull of nothing", ["pull", "nobody"], 4, "unknown model"),
    ("a node that is none", ["prefetch", "picker", "--node", "moon"], 1, "no node 'moon' is known here"),
    ("a region that is none", ["prefetch", "picker", "--region", "moon"], 1, "no node of region 'moon'"),
    ("a device elsewhere", ["prefetch", "picker", "--region", "us", "--tier", "device"], 1, "disks only"),
]


@pytest.mark.parametrize(("sentence", "arguments", "status", "text"), WRONG, ids=[row[0] for row in WRONG])
def test_what_cannot_be_is_said(node, sentence, arguments, status, text):
    ran = popctl(node, "models", *arguments)
    assert (ran.returncode, ran.stdout, text in ran.stderr) == (status, "", True), (sentence, ran.stderr)


def test_what_no_version_needs_goes(origin):
    with open_directory() as own:
        shutil.copytree(origin, own / "origin")
        whole = mf.decode_catalogue((origin / "catalog.json").read_bytes())
        with running_node(origin=f"file://{own}/origin", workers=(), extra="") as node:
            told(node, "models", "pull", "picker")
            told(node, "models", "pull", "heavy")
            left = {name: model for name, model in whole.models.items() if name != "heavy"}
            raw = mf.encode_catalogue(mf.Catalogue(whole.epoch + 1, left))
            (own / "origin" / "catalog.json").write_bytes(raw)
            wait_until(
                lambda: here(node, "heavy")["why"] == ["in no catalogue: gc lets it go"],
                "the node knows the new catalogue",
                within_s=30,
            )
            blobs = node.directory / "store" / "blobs"
            would = told(node, "models", "gc", "--dry-run")
            assert (would["blobs"], would["manifests"], len(list(blobs.iterdir()))) == (2, 1, 3)
            shown = popctl(node, "models", "gc")
            assert shown.stdout.startswith(f"{would['bytes'] / 1e6:.1f} MB went: 2 blobs, 1 manifests")
            assert [blob.name for blob in blobs.iterdir()] == [tiny.picker(own).files[0].blake3]
            assert told(node, "models", "gc")["bytes"] == 0


def test_a_pull_that_is_interrupted_goes_on(origin, tmp_path):
    with (
        dripping(origin, tmp_path) as (url, behave),
        running_node(origin=url, workers=()) as node,
        subprocess.Popen(
            [POPCTL, "models", "pull", "heavy", "-c", str(node.directory / "node.yaml")],
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as pull,
    ):

        def is_fetching() -> bool:
            row = near(node, "heavy")
            return row is not None and row["fetch"]["sources"].get("origin", 0) > 0

        wait_until(is_fetching, "it is on its way", within_s=20)
        row = near(node, "heavy")
        assert (row["tier"], row["why"]) == ("fetching", ["being fetched"])
        assert 0 < row["fetch"]["bytes"] < row["fetch"]["of_bytes"] == row["bytes"]
        assert pull.stderr is not None
        assert pull.stderr.readline().startswith("heavy to disk (1.0 MB)")
        pull.send_signal(signal.SIGINT)
        assert "the fetch goes on" in pull.stderr.read()
        assert pull.wait(10) == 130
        behave()
        wait_until(
            lambda: (here(node, "heavy") or {}).get("tier") == "disk", "it came all the same", within_s=40
        )


def test_other_nodes_of_the_fleet_bring_it_when_they_are_asked(origin):
    with running_fleet(
        Wanted("iad-a", "us"), Wanted("fra-a", "eu"), Wanted("ams-a", "eu"), origin=f"file://{origin}"
    ) as nodes:
        done = told(nodes["iad-a"], "models", "prefetch", "heavy", "--node", "fra-a")
        assert [(row["node"], row["outcome"]) for row in done["nodes"]] == [("fra-a", "on-disk")]
        assert done["nodes"][0]["moved_bytes"] > 512 * 512 * 4
        wait_until(lambda: here(nodes["fra-a"], "heavy") is not None, "fra-a has it", within_s=5)
        assert here(nodes["iad-a"], "heavy") is None
        done = told(nodes["iad-a"], "models", "prefetch", "picker", "--region", "eu", "--node", "iad-a")
        assert [row["node"] for row in done["nodes"]] == ["ams-a", "fra-a", "iad-a"]
        assert {row["outcome"] for row in done["nodes"]} == {"on-disk"}
        assert "on-disk" in popctl(nodes["iad-a"], "models", "prefetch", "picker", "--region", "eu").stdout


def test_what_left_the_catalogue_can_be_let_go_by_its_version_and_its_digest():
    with open_directory() as root:
        (root / "blobs").mkdir()
        blobs, catalogue = root / "blobs", root / "catalog.json"
        a_store(root, tiny.identity(blobs))
        old = mf.decode_catalogue(catalogue.read_bytes())
        a_store(root, tiny.identity(blobs), doubler(blobs), epoch=2)
        new = mf.decode_catalogue(catalogue.read_bytes())
        with running_node(origin=f"file://{root}", workers=()) as node:

            def publish(epoch: int, models: mf.Catalogue) -> None:
                catalogue.write_bytes(mf.encode_catalogue(mf.Catalogue(epoch, models.models)))
                wait_until(lambda: told(node, "models", "ls")["epoch"] == epoch, "it is seen", within_s=20)

            told(node, "models", "pull", "identity")
            told(node, "models", "pin", "identity")
            publish(3, old)
            done = told(node, "models", "unpin", "identity")
            assert (done["outcome"], done["version"], done["versions"]) == ("unpinned", "2", ["2"])
            assert told(node, "models", "unpin", "identity")["outcome"] == "absent"
            told(node, "models", "pin", "identity", "--version", "2")
            assert told(node, "models", "unpin", done["digest"])["outcome"] == "unpinned"
            gone = told(node, "models", "evict", "identity", "--version", "2", "--tier", "disk")
            assert (gone["outcome"], gone["digest"], gone["freed_bytes"] > 0) == (
                "evicted",
                done["digest"],
                True,
            )
            again = popctl(node, "models", "evict", "identity", "--version", "2", "--tier", "disk")
            assert "unknown version of model identity; versions: 1" in again.stderr
            # A rollout: what is pinned is the version that was current then.
            told(node, "models", "pin", "identity")
            publish(4, new)
            assert told(node, "models", "unpin", "identity", "--version", "2")["outcome"] == "absent"
            assert told(node, "models", "unpin", "identity")["versions"] == ["1"]
            # And what was never meant is said.
            assert told(node, "models", "evict", "identity", "--tier", "disk")["outcome"] == "absent"
            for act in (["prefetch", "identity"], ["evict", "identity", "--tier", "disk"]):
                ran = popctl(node, "models", *act, "--worker", "77")
                assert (ran.returncode, "worker '77': a disk is the node's" in ran.stderr) == (1, True), (
                    ran.stderr
                )
