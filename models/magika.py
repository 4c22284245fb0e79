"""magika: what kind of file are these bytes? The graph as it is shipped, its rule as a table.

The rule, as magika 1.0.3 applies it (`magika/magika.py`, mode high-confidence; feature
extraction v2), is what a worker must do around the graph. Per item, `content` = its bytes:

1. No byte at all -> (`empty`, 1.0). The graph is not run.
2. Fewer than `min_bytes` bytes -> step 6 with all of them.
3. `n = min(block_size, len(content))`. `beg` = the first n bytes, ASCII whitespace stripped on
   the left, cut to `beg_size`, filled up on the right with `padding_token`.
4. `end` = the last n bytes, stripped on the right, the last `end_size` of them, filled up on
   the left with `padding_token`.
5. If `beg[min_bytes - 1]` is padding -> step 6 with the first n bytes. Otherwise `bytes` =
   `beg` then `end`, int32 [batch, beg_size + end_size] -> `target_label` FP32 [batch, classes];
   i = argmax, score = row[i]; label = `labels[i]` if score >= `thresholds[i]` else `generic[i]`.
6. (`few_text`, 1.0) if the bytes are valid UTF-8, else (`few_binary`, 1.0).

The aux file `labels` is the JSON of `Rule`: its three lists have one item per class, with
magika's overwrite map (randombytes -> unknown, randomtxt -> txt) applied already.
"""

from pathlib import Path
from typing import Final, Literal

import msgspec

from models.catalog import Entry
from models.errors import CatalogError
from models.external import Progress, move_out, parse_graph

_WANTED: Final = ("model.onnx", "config.min.json", "content_types_kb.min.json")


class Config(msgspec.Struct, frozen=True):
    """What we use of magika's config.min.json; `mid_size` and offsets must be unused."""

    beg_size: int
    mid_size: Literal[0]
    end_size: int
    use_inputs_at_offsets: bool
    medium_confidence_threshold: float
    min_file_size_for_dl: int
    padding_token: int
    block_size: int
    target_labels_space: list[str]
    thresholds: dict[str, float]
    overwrite_map: dict[str, str]
    version_major: Literal[3]


class ContentType(msgspec.Struct, frozen=True):
    """What we use of an entry of magika's table of content types."""

    is_text: bool


class Rule(msgspec.Struct, frozen=True):
    """The aux file `labels`; the module's docstring says how it is used."""

    schema: Literal[1]
    beg_size: int
    end_size: int
    block_size: int
    padding_token: int
    min_bytes: int
    labels: list[str]
    thresholds: list[float]
    generic: list[str]
    empty: str = "empty"
    few_text: str = "txt"
    few_binary: str = "unknown"


def build(_entry: Entry, sources: dict[str, Path], folder: Path, progress: Progress) -> None:
    """Write `graph`, `weights` and `labels` into `folder`."""
    by_name = {Path(member).name: path for member, path in sources.items()}
    for name in _WANTED:
        if name not in by_name:
            raise CatalogError(f"builder magika needs {name} among the files")
    graph, config, table = (by_name[name].read_bytes() for name in _WANTED)
    try:
        rule = rule_of(
            msgspec.json.decode(config, type=Config), msgspec.json.decode(table, type=dict[str, ContentType])
        )
    except (msgspec.MsgspecError, KeyError) as error:
        raise CatalogError(f"this is not the magika that builder magika knows: {error}") from error
    model = parse_graph(graph)
    (folder / "labels").write_bytes(msgspec.json.encode(rule, order="sorted"))
    move_out(model, folder / "weights", progress)
    (folder / "graph").write_bytes(model.SerializeToString(deterministic=True))


def rule_of(config: Config, table: dict[str, ContentType]) -> Rule:
    """Magika's configuration, spelled out per class."""
    if config.use_inputs_at_offsets:
        raise CatalogError("this magika reads bytes at fixed offsets, which builder magika does not know")
    outputs = [config.overwrite_map.get(label, label) for label in config.target_labels_space]
    return Rule(
        schema=1,
        beg_size=config.beg_size,
        end_size=config.end_size,
        block_size=config.block_size,
        padding_token=config.padding_token,
        min_bytes=config.min_file_size_for_dl,
        labels=outputs,
        thresholds=[
            config.thresholds.get(label, config.medium_confidence_threshold)
            for label in config.target_labels_space
        ],
        generic=["txt" if table[label].is_text else "unknown" for label in outputs],
    )
