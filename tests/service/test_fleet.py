"""Three nodes of two POPs: an ingress without a worker, one beside it that has one, one far away."""

import json
import shutil

import pytest

from netlab.clock import wait_until
from tests.support.fleet import Wanted, running_fleet, wait_until_joined
from tests.support.node import STORE, open_directory, running_node

ROW = json.dumps({"input": [[1.0] * 16]})
MLP = json.dumps({"input": [[0.5] * 256]})
CPU = ("device: cpu",)


@pytest.fixture(scope="module")
def fleet():
    with running_fleet(
        Wanted("iad-a", "us"), Wanted("iad-b", "us", CPU), Wanted("fra-a", "eu", CPU)
    ) as nodes:
        yield nodes


def route_of(answer):
    word, *parts = answer.headers["edge-route"].split(";")
    return word, dict(part.split("=", 1) for part in parts)


def test_the_ingress_answers_from_the_node_of_its_pop_that_has_the_worker(fleet):
    ingress = fleet["iad-a"]
    ingress.request("/run/identity", ROW)
    answer = ingress.request("/run/identity", ROW)
    assert answer.status == 200, answer
    assert answer.json["outputs"]["y"] == [[1.0] * 16]
    assert (answer.headers["edge-pop"], answer.headers["edge-served-by"]) == ("iad", "iad-b/0")
    assert answer.headers["edge-egress"] == "req=0;weights=0"
    word, why = route_of(answer)
    assert (word, why["reason"]) == ("serve", "warm-peer")


def test_a_forced_region_is_honoured_and_its_bytes_are_told(fleet):
    answer = fleet["iad-a"].request("/run/identity", ROW, {"Edge-Force-Region": "eu"})
    assert (answer.status, answer.headers["edge-served-by"]) == (200, "fra-a/0"), answer
    word, why = route_of(answer)
    assert (word, why["reason"]) == ("spill", "forced")
    again = fleet["iad-a"].request("/run/identity", ROW, {"Edge-Force-Region": "eu"})
    assert again.headers["edge-egress"] == f"req={len(ROW)};weights=0"
    gone = fleet["iad-a"].request("/run/identity", ROW, {"Edge-Force-Region": "mars"})
    assert (gone.status, gone.headers["edge-drop-reason"]) == (503, "region-unavailable")


def test_what_is_cold_here_and_warm_far_away_is_served_far_away_at_once(fleet):
    near, far = fleet["iad-b"], fleet["fra-a"]
    assert far.request("/run/mlp", MLP).status == 200
    digest = next(row["digest"] for row in near.admin("/edge/models").json["models"] if row["model"] == "mlp")
    wait_until(
        lambda: any(digest in e["warm"] for e in near.state["endpoints"] if e["name"] == "fra-a/0"),
        "iad-b knows that fra-a has it",
        within_s=5,
    )
    answer = near.request("/run/mlp", MLP)
    assert (answer.status, answer.headers["edge-served-by"]) == (200, "fra-a/0"), answer
    assert route_of(answer)[0] == "spill"
    assert answer.headers["edge-residency"] == "device"


def test_a_copy_comes_near_by_itself_when_demand_pays(fleet):
    near = fleet["iad-b"]
    body = MLP

    def served_here():
        return near.request("/run/mlp", body).headers["edge-served-by"] == "iad-b/0"

    wait_until(served_here, "the model came near", within_s=10)
    assert near.state["hydration"]["loaded"] >= 1


def test_metadata_is_answered_by_a_node_without_a_worker(fleet):
    ingress = fleet["iad-a"]
    assert ingress.request("/v2/models/minilm").json["inputs"] == [
        {"name": "text", "datatype": "BYTES", "shape": [-1]}
    ]
    assert ingress.request("/v2/health/ready").json == {"ready": True}


def test_a_large_body_goes_over_a_link_of_its_own(fleet):
    source = b"# a comment\nimport os\n\n\ndef main() -> None:\n    print(os.name)\n" * 60_000
    answer = fleet["iad-a"].request("/run/magika", source)
    assert answer.status == 200, answer
    assert answer.json["label"] == "python"


def test_errors_cross_the_hop_unchanged(fleet):
    bad = '{"input": [[1, 2]]}'
    there, here = fleet["iad-a"].request("/run/identity", bad), fleet["iad-b"].request("/run/identity", bad)
    assert (there.status, there.json, there.headers["edge-drop-reason"]) == (
        here.status,
        here.json,
        here.headers["edge-drop-reason"],
    )


def test_what_the_fleet_has_forwarded_does_not_come_in_again(fleet):
    answer = fleet["iad-a"].request("/run/identity", ROW, {"CDN-Loop": "other, edgepop; hops=1"})
    assert (answer.status, answer.headers["edge-drop-reason"]) == (508, "loop")


def test_a_worker_that_dies_is_failed_over_and_comes_back(fleet):
    ingress, near = fleet["iad-a"], fleet["iad-b"]
    near.kill("worker-0")
    answers = [ingress.request("/run/identity", ROW) for _ in range(20)]
    assert {answer.status for answer in answers} == {200}
    assert "fra-a/0" in {answer.headers["edge-served-by"] for answer in answers}
    wait_until(
        lambda: ingress.request("/run/identity", ROW).headers["edge-served-by"] == "iad-b/0",
        "home again",
        within_s=15,
    )


def test_a_node_whose_proxy_dies_is_failed_over_and_comes_back(fleet):
    ingress, near = fleet["iad-a"], fleet["iad-b"]
    near.kill("proxy")
    answers = [ingress.request("/run/identity", ROW) for _ in range(20)]
    assert {answer.status for answer in answers} == {200}
    wait_until_joined(ingress, 2, within_s=15)
    wait_until(
        lambda: ingress.request("/run/identity", ROW).headers["edge-served-by"] == "iad-b/0",
        "home again",
        within_s=15,
    )


def test_who_can_not_bring_the_weights_sends_the_request_to_somebody_who_can():
    """The object store that fra sees has the catalogue and no weights."""
    with open_directory() as hollow:
        (hollow / "blobs").mkdir()
        shutil.copy(STORE / "catalog.json", hollow)
        shutil.copytree(STORE / "manifests", hollow / "manifests")
        with running_fleet(
            Wanted("iad-b", "us", CPU), Wanted("fra-a", "eu", CPU, origin=f"file://{hollow}/")
        ) as nodes:
            answer = nodes["fra-a"].request("/run/identity", ROW)
            assert (answer.status, answer.headers["edge-served-by"]) == (200, "iad-b/0"), answer
            assert route_of(answer)[0] == "failover"
            forced = nodes["fra-a"].request("/run/mlp", MLP, {"Edge-Force-Region": "eu"})
            assert (forced.status, forced.headers["edge-drop-reason"]) == (503, "origin-down"), forced


def test_a_node_without_worker_and_without_peers_refuses_with_its_reason():
    with running_node(name="ams-a", pop="ams", workers=()) as node:
        answer = node.request("/run/minilm", "hello")
        assert (answer.status, answer.headers["edge-drop-reason"]) == (503, "no-endpoint")
        assert answer.headers["edge-pop"] == "ams"
        assert answer.headers["proxy-status"] == "edgepop; error=destination_unavailable"
        assert node.request("/v2/health/ready").status == 503
        assert node.request("/v2/models/minilm/ready").status == 400
        index = node.request("/v2/repository/index", b"{}").json
        assert {row["state"] for row in index} == {"UNAVAILABLE"}
