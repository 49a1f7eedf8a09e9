"""Which keys a configuration may have, and what is said of one that it may not: it names the nearest right key."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from common.errors import ConfigError


def known(written: Any, schema: type, source: str) -> Any:
    """`written` as it is, if every key in it exists. Raises ConfigError naming the nearest right key."""
    names = _keys(schema)
    sections = [f.name for f in dataclasses.fields(schema)]
    for key in _leaves(OmegaConf.to_container(written)):
        if key in names:
            continue
        if key in sections:
            raise ConfigError(f"{key} in {source} is a section, not a value; its keys are written {key}.NAME")
        near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else f"; known sections: {', '.join(sections)}"
        raise ConfigError(f"unknown key {key} in {source}{hint}")
    return written


def _leaves(tree: Any, prefix: str = "") -> list[str]:
    if not isinstance(tree, dict):
        return [prefix] if prefix else []
    return [leaf for key, value in tree.items() for leaf in _leaves(value, f"{prefix}.{key}" if prefix else str(key))]


def _keys(section: Any, prefix: str = "") -> list[str]:
    found: list[str] = []
    for f in dataclasses.fields(section):
        inner = f.default_factory if f.default_factory is not dataclasses.MISSING else None
        name = f"{prefix}{f.name}"
        found += _keys(inner, name + ".") if inner is not None and dataclasses.is_dataclass(inner) else [name]
    return found


def reason(error: Exception) -> str:
    if isinstance(error, YAMLError):
        return " ".join(str(error).split())
    key = getattr(error, "full_key", None)
    return str(error).splitlines()[0] + (f" (key {key})" if key else "")
