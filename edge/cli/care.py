"""`popctl models ps|verify|gc`: what is near, whether the disk still holds what it should, what may go."""

from pathlib import Path
from typing import Any, Final

import click

from edge.cli import tables
from edge.cli.node import DAMAGED, FAILURE, INTERRUPTED, NOT_FOUND, USAGE, Node, fail, node_options, tell
from edge.cli.progress import progress

#: For one blob: what the node gives its disk, and some more.
VERIFY_S: Final = 3_660.0
GC_S: Final = 150.0
_NOTHING: Final = {
    "blobs": 0,
    "read_bytes": 0,
    "bad": [],
    "moved_bytes": 0,
    "problem": "",
    "removed": [],
    "left_devices": [],
    "still_mapped": [],
}


@click.command()
@node_options
def ps(config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    """What is on this node's devices, held or on its way: tier, bytes, in use, last used, why."""
    answer = weight_store(Node(config_path, socket_path))
    if as_json:
        answer = {
            "schema_version": answer["schema_version"],
            "node": answer["node"],
            "models": tables.nearby(answer),
        }
    tell(answer, as_json=as_json, as_text=tables.near)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every model on this node's disk.")
@node_options
def verify(
    config_path: Path | None,
    socket_path: Path | None,
    *,
    as_json: bool,
    everything: bool,
    names: tuple[str, ...],
) -> None:
    """Read NAMES on this node's disk again, against their digests.

    A bad blob is set aside and fetched anew, one whose file was removed is fetched anew. Exit status:
    0 all good, 5 damage was found and repaired, 1 damage was found and stays, 130 interrupted: what was
    found until then is told.
    """
    if everything == bool(names):
        fail("give the names of models, or --all", USAGE)
    node = Node(config_path, socket_path)
    rows = _on_disk(node, names)
    done: list[dict[str, Any]] = []
    try:
        with progress() as report:
            for row in rows:
                report.begins(f"verify {row['model']} {row['version']}", row["disk_bytes"])
                one = {"model": row["model"], "version": row["version"], "digest": row["digest"], **_NOTHING}
                done.append(one)
                blob, rest = 0, 1
                while rest:
                    asked = {"digest": row["digest"], "blob": blob}
                    told = node.post("/edge/weights/verify", asked, timeout_s=VERIFY_S)
                    report.moved(told["read_bytes"])
                    _add(one, told)
                    blob, rest = blob + 1, told["rest"]
    except (KeyboardInterrupt, SystemExit) as ended:
        read = sum(one["blobs"] for one in done)
        if read:
            tell({"schema_version": 1, "models": done}, as_json=as_json, as_text=_verified)
        if isinstance(ended, SystemExit):
            raise
        click.echo(
            f"popctl: interrupted in model {len(done)} of {len(rows)}, {read} blobs were read", err=True
        )
        raise SystemExit(INTERRUPTED) from None
    tell({"schema_version": 1, "models": done}, as_json=as_json, as_text=_verified)
    bad = [one for one in done if one["bad"] or one["removed"]]
    stays = [one["model"] for one in bad if one["problem"] or one["still_mapped"]]
    if stays:
        fail(f"damage stays in {', '.join(stays)}; popctl models verify tells why", FAILURE)
    if bad:
        fail(f"damage was found and repaired in {', '.join(one['model'] for one in bad)}", DAMAGED)


def _add(one: dict[str, Any], told: dict[str, Any]) -> None:
    """What was found of one more blob of a model."""
    for name in ("blobs", "read_bytes", "moved_bytes"):
        one[name] += told[name]
    for name in ("bad", "removed", "left_devices", "still_mapped"):
        one[name] = sorted({*one[name], *told[name]})
    one["still_mapped"] = [worker for worker in one["still_mapped"] if worker not in one["left_devices"]]
    one["problem"] = "; ".join(filter(None, (one["problem"], told["problem"])))


def weight_store(node: Node) -> Any:
    """What is here; a weight store that is away ends the program."""
    answer = node.get("/edge/weights")
    if "models" not in answer:
        fail(f"{answer.get('error', 'the node tells no models')}; popctl status tells more", FAILURE)
    return answer


def _on_disk(node: Node, names: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = [row for row in weight_store(node)["models"] if row["disk_bytes"]]
    here = {row["model"] for row in rows}
    for name in names:
        if name not in here:
            fail(
                f"no version of {name} is on this node's disk; popctl models pull {name} brings it", NOT_FOUND
            )
    return [row for row in rows if not names or row["model"] in names]


def _verified(document: dict[str, Any]) -> str:
    from edge.cli.show import text

    rows = [
        {
            "model": one["model"],
            "version": one["version"],
            "blobs": one["blobs"],
            "read": f"{one['read_bytes'] / 1e6:.1f} MB",
            "bad": [digest[:12] for digest in one["bad"]],
            "removed by somebody": [digest[:12] for digest in one["removed"]],
            "fetched again": f"{one['moved_bytes'] / 1e6:.1f} MB" if one["bad"] or one["removed"] else "-",
            "taken off": one["left_devices"],
            "still mapped by": one["still_mapped"],
            "problem": one["problem"],
        }
        for one in document["models"]
    ]
    return text(rows) if rows else "nothing is on this node's disk\n"


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@node_options
def gc(config_path: Path | None, socket_path: Path | None, *, as_json: bool, dry_run: bool) -> None:
    """Let go of what no version of the catalogue, no pin and no hold needs on this node's disk."""
    node = Node(config_path, socket_path)
    answer = node.post("/edge/weights/gc", {"dry_run": dry_run}, timeout_s=GC_S)
    tell(answer, as_json=as_json, as_text=_collected)


def _collected(document: dict[str, Any]) -> str:
    verb = "would go" if document["dry_run"] else "went"
    line = (
        f"{document['bytes'] / 1e6:.1f} MB {verb}: {document['blobs']} blobs, "
        f"{document['manifests']} manifests, {document['unfinished']} unfinished fetches\n"
    )
    if document["busy"]:
        line += f"{document['busy']} more files are in use and stay\n"
    if document["unclaimed_bytes"]:
        line += (
            f"{document['unclaimed_bytes'] / 1e6:.1f} MB are named by no manifest here, and stay until all "
            "manifests of the catalogue are here\n"
        )
    return line


CARE: Final = (ps, verify, gc)
