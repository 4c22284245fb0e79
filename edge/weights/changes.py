"""What an origin's catalogue says after a change of one who publishes.

Pure: models in, models out, and a sentence that says what to do where that can't be. Knows no origin, no
file, and not how a catalogue is replaced.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from edge.errors import EdgeError, Reason, Source
from edge.weights import manifest as mf

Models = dict[str, mf.CatalogueModel]

_RETIRE: Final = "popctl models retire"


def picked(local: mf.Catalogue, names: Sequence[str], current: str | None) -> Models:
    """The named models of a store, `current` put in the place of its own choice."""
    if current is not None and len(names) != 1:
        raise _wrong("a version to serve is one model's: name that model and no other")
    for name in names:
        if name not in local.models:
            known = ", ".join(sorted(local.models)) or "none"
            raise _unknown(f"no model {name!r} in the store; there are: {known}")
    wanted = {name: local.models[name] for name in names or local.models}
    if current is not None:
        wanted = {name: msgspec.structs.replace(model, current=current) for name, model in wanted.items()}
    return wanted


def merged(present: Models, wanted: Models, *, keep_placement: bool = False) -> Models:
    """The origin's models with those of a store. Raises EdgeError: a version with two contents, too many."""
    after = dict(present)
    for name, model in wanted.items():
        held = present.get(name)
        if held is not None:
            for version, digest in model.versions.items():
                if held.versions.get(version, digest) != digest:
                    raise _wrong(
                        f"version {version} of {name} is in the origin with other content; nodes that "
                        "have it would differ from those that have not: publish this one as a higher version"
                    )
            versions = {**held.versions, **model.versions}
            model = msgspec.structs.replace(model, versions=versions, sizes={**held.sizes, **model.sizes})
            if keep_placement:
                model = msgspec.structs.replace(model, confine=held.confine, keep=held.keep)
        if model.current not in model.versions:
            raise _wrong(f"{name} has no version {model.current!r} to serve; there are {_known(model)}")
        if len(model.versions) > mf.MODEL_MAX_VERSIONS:
            raise _wrong(
                f"{name} would have {len(model.versions)} versions, a catalogue has at most "
                f"{mf.MODEL_MAX_VERSIONS} of a model: `{_RETIRE} {name} --keep-last N` takes old ones out"
            )
        after[name] = model
    return after


def rolled_out(present: Models, name: str, version: str) -> Models:
    """With this version of a model as the one that is served by default."""
    model = of(present, name)
    if version not in model.versions:
        raise _wrong(f"{name} has no version {version!r} in the origin; there are {_known(model)}")
    return {**present, name: msgspec.structs.replace(model, current=version)}


def retired(present: Models, name: str, versions: Sequence[str] = (), keep_last: int | None = None) -> Models:
    """Without these versions of a model; or with its highest `keep_last` alone, and the one served.

    Without either the whole model goes.
    """
    model = of(present, name)
    if not versions and keep_last is None:
        return {other: held for other, held in present.items() if other != name}
    for version in versions:
        if version not in model.versions:
            raise _wrong(f"{name} has no version {version!r} in the origin; there are {_known(model)}")
        if version == model.current:
            raise _wrong(
                f"version {version} of {name} is the one served: serve another first with `popctl models "
                f"rollout {name} VERSION`, or retire the model with --all"
            )
    kept = set(model.versions) - set(versions)
    if keep_last is not None:
        kept = {*sorted(model.versions, key=int)[-keep_last:], model.current}
    left = msgspec.structs.replace(
        model,
        versions={version: digest for version, digest in model.versions.items() if version in kept},
        sizes={version: size for version, size in model.sizes.items() if version in kept},
    )
    return {**present, name: left}


def encoded(catalogue: mf.Catalogue) -> bytes:
    """The bytes of a catalogue that every node takes. Raises EdgeError: there is too much in it."""
    raw = mf.encode_catalogue(catalogue)
    try:
        mf.decode_catalogue(raw)
    except EdgeError as error:
        raise _wrong(f"{error.message}; `{_RETIRE}` takes old versions or models out") from error
    return raw


def of(present: Models, name: str) -> mf.CatalogueModel:
    """The model of that name. Raises EdgeError(UNKNOWN_MODEL)."""
    found = present.get(name)
    if found is None:
        known = ", ".join(sorted(present)) or "none"
        raise _unknown(f"no model {name!r} in the origin; there are: {known}")
    return found


def _known(model: mf.CatalogueModel) -> str:
    return ", ".join(sorted(model.versions, key=int))


def _wrong(text: str) -> EdgeError:
    return EdgeError(Reason.BAD_REQUEST, text, source=Source.DOWNSTREAM)


def _unknown(text: str) -> EdgeError:
    return EdgeError(Reason.UNKNOWN_MODEL, text, source=Source.DOWNSTREAM)
