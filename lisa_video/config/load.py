"""YAML and `a.b=c` overrides -> settings, and back. Unknown keys are refused with the nearest known one.

A file may start from another one: `extends: ../svd_pose_lisa.yaml`, relative to itself, says what it does not say.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from lisa_video.config.schema import RunConfig, Section
from lisa_video.errors import UserError

SomeSection = TypeVar("SomeSection", bound=Section)
_EXTENDS = "extends"


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the config file of a run and apply overrides such as `optimizer.lr=1e-4` or `lisa=null`.

    Raises:
        UserError: no such file, not YAML, an unknown key, or a value that breaks a rule.
    """
    return load_settings(RunConfig, path, overrides)


def load_settings(
    schema: type[SomeSection], paths: str | Path | Sequence[str | Path], overrides: Sequence[str] = ()
) -> SomeSection:
    """Read settings files of any schema, later ones over earlier ones, and apply overrides.

    Args:
        schema: what the files hold.
        paths: a YAML file, or several; none for the defaults, if the schema has them all.
        overrides: such as `optimizer.lr=1e-4`.

    Raises:
        UserError: no such file, not YAML, an unknown key, or a value that breaks a rule.
    """
    files = [paths] if isinstance(paths, str | Path) else paths
    for item in overrides:
        if "=" not in item or item.startswith("-"):
            raise UserError(f"not an override: {item!r}", remedy="write overrides as section.key=value")
    where = " + ".join(map(str, files)) or "defaults"
    try:
        tree = OmegaConf.merge(*(_read_tree(schema, Path(path)) for path in files)) if files else OmegaConf.create()
        for item in overrides:
            key, _, value = item.partition("=")
            _refuse_unknown(schema, _nested(key), f"override {item!r}")
            OmegaConf.update(tree, key, yaml.safe_load(value), merge=False, force_add=True)
        values = OmegaConf.to_container(tree, resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(f"cannot read the config ({error})", where=where, remedy="correct the YAML") from error
    return _parse(schema, values, where)


def _read_tree(schema: type[Section], path: Path, extending: tuple[Path, ...] = ()) -> DictConfig:
    if not path.is_file():
        raise UserError("no such config file", where=path, remedy="name a file of configs/ or one of your own")
    if path.resolve() in extending:
        raise UserError("the file extends itself", where=path, remedy=f"correct `{_EXTENDS}`")
    tree = OmegaConf.load(path)
    if not isinstance(tree, DictConfig):
        raise UserError("the file is not a mapping", where=path, remedy="start from a file of configs/")
    base = tree.pop(_EXTENDS, None)
    _refuse_unknown(schema, OmegaConf.to_container(tree), str(path))
    if base is None:
        return tree
    merged = OmegaConf.merge(_read_tree(schema, path.parent / str(base), (*extending, path.resolve())), tree)
    assert isinstance(merged, DictConfig)
    return merged


def parse_config(values: Any, where: str) -> RunConfig:
    """Validate plain values.

    Raises:
        UserError: the first rule that is broken, with its key.
    """
    return _parse(RunConfig, values, where)


def _parse(schema: type[SomeSection], values: Any, where: str) -> SomeSection:
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "config"
        source = schema.__module__.replace(".", "/") + ".py"
        raise UserError(f"{key}: {first['msg']}", where=where, remedy=f"correct {key}; see {source}") from error


def dump_config(config: Section) -> str:
    """The resolved config as YAML; itself a valid config file."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _nested(dotted: str) -> dict[str, Any]:
    head, _, rest = dotted.partition(".")
    return {head: _nested(rest)} if rest else {head: None}


def _refuse_unknown(model: type[BaseModel], values: Any, where: str, prefix: str = "") -> None:
    """Walk the tree beside the schema, so that the message can name the nearest key."""
    if not isinstance(values, dict):
        return
    for key, value in values.items():
        field = model.model_fields.get(str(key))
        if field is None:
            nearest = difflib.get_close_matches(str(key), model.model_fields, n=1, cutoff=0.5)
            known = ", ".join(model.model_fields)
            remedy = f"did you mean {prefix}{nearest[0]}?" if nearest else f"use one of: {known}"
            raise UserError(f"unknown key {prefix}{key}", where=where, remedy=remedy)
        section = _section_of(field.annotation)
        if section is not None:
            _refuse_unknown(section, value, where, f"{prefix}{key}.")


def _section_of(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *get_args(annotation)]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
