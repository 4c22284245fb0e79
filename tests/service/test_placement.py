"""What the catalogue says of places: a confined model never runs elsewhere, a kept one is there before it is asked for."""

import json
import shutil

import pytest

from netlab.clock import wait_until
from tests.support.fleet import Wanted, running_fleet
from tests.support.node import STORE, open_directory

ROW = json.dumps({"input": [[1.0] * 16]})
CPU = ("device: cpu",)


@pytest.fixture(scope="module")
def fleet():
    if not (STORE / "catalog.json").exists():
        pytest.skip("models/store is empty: run `make models`")
    with open_directory() as directory:
        catalogue = json.loads((STORE / "catalog.json").read_text())
        catalogue["epoch"] += 1
        catalogue["models"]["identity"]["confine"] = ["eu"]
        catalogue["models"]["mlp"]["keep"] = {"ap": 1}
        (directory / "catalog.json").write_text(json.dumps(catalogue))
        shutil.copytree(STORE / "manifests", directory / "manifests")
        (directory / "blobs").symlink_to(STORE / "blobs")
        with running_fleet(
            Wanted("iad-b", "us", CPU),
            Wanted("fra-a", "eu", CPU),
            Wanted("nrt-a", "ap", CPU),
            origin=f"file://{directory}/",
        ) as nodes:
            yield nodes


def test_a_kept_model_lies_on_a_disk_of_its_region_before_anybody_asks(fleet):
    digest = next(
        row["digest"] for row in fleet["nrt-a"].admin("/edge/models").json["models"] if row["model"] == "mlp"
    )

    def whole():
        models = fleet["nrt-a"].admin("/edge/weights").json["weights"]["models"]
        return any(m["digest"] == digest and m["disk_bytes"] == m["total_bytes"] > 0 for m in models)

    wait_until(whole, "mlp is on the disk of nrt-a", within_s=15)
    answer = fleet["nrt-a"].request("/run/mlp", json.dumps({"input": [[0.5] * 256]}), {"Edge-Cold": "wait"})
    assert (answer.status, answer.headers["edge-served-by"]) == (200, "nrt-a/0")
    assert answer.headers["edge-egress"].endswith(";weights=0")
    assert answer.headers["edge-residency"] in ("disk", "host")


def test_a_confined_model_runs_in_its_region_and_nowhere_else(fleet):
    for ingress in ("iad-b", "nrt-a", "fra-a"):
        answer = fleet[ingress].request("/run/identity", ROW)
        assert (answer.status, answer.headers["edge-served-by"]) == (200, "fra-a/0")
    answer = fleet["iad-b"].request("/run/identity", ROW)
    assert answer.headers["edge-route"].startswith("spill;reason=confined;")
    wanted_elsewhere = fleet["iad-b"].request("/run/identity", ROW, {"Edge-Force-Region": "us"})
    assert (wanted_elsewhere.status, wanted_elsewhere.headers["edge-drop-reason"]) in (
        (503, "confined"),
        (503, "region-unavailable"),
    )


def test_when_its_region_is_gone_it_is_refused_with_the_reason(fleet):
    fleet["fra-a"].stop()
    wait_until(
        lambda: fleet["iad-b"].request("/run/identity", ROW).headers.get("edge-drop-reason") == "confined",
        "refused as confined",
        within_s=15,
    )
    assert fleet["iad-b"].request("/run/identity", ROW).status == 503
