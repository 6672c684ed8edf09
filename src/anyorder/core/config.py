"""Configurations are frozen pydantic models; this file reads them from YAML and says clearly what is wrong with one."""

import dataclasses
import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from anyorder.core.files import write_atomic

Config = TypeVar("Config", bound=BaseModel)


def nearest(word: str, known: Iterable[str]) -> str:
    """'did you mean ...' or, when nothing is close, the list of what is known."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.7)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def parse_spec(spec: str) -> tuple[str, dict[str, str]]:
    """A name with options, "name:key=value,key=value", taken apart."""
    name, _, rest = spec.partition(":")
    pairs = [item.partition("=") for item in rest.split(",") if item]
    return name, {key: value for key, _, value in pairs}


def spec_options(kind: Any, given: dict[str, str], *, source: str) -> dict[str, Any]:
    """Options that `parse_spec` found, as the fields of a dataclass want them: those that have a default, of its type.

    Raises:
        ValueError: an unknown option (the nearest is named), or a value of the wrong kind.
    """
    fields = dataclasses.fields(kind)
    kinds = {f.name: type(f.default) for f in fields if f.default is not dataclasses.MISSING}
    options: dict[str, Any] = {}
    for key, value in given.items():
        if key not in kinds:
            raise ValueError(f"{source}: unknown option {key!r}; {nearest(key, kinds)}")
        try:
            options[key] = kinds[key](value)
        except ValueError:
            raise ValueError(f"{source}: {key}={value!r} is no {kinds[key].__name__}; give one") from None
    return options


def parse_config(kind: type[Config], values: dict[str, Any], *, source: str) -> Config:
    """`values` as a validated `kind`. An error is one sentence: key, value, rule, nearest key."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{source}: {_sentence(kind, error)}") from None


def load_config(kind: type[Config], path: Path) -> Config:
    """A YAML file as a validated `kind`; a missing file, broken YAML or an unknown key raises ValueError."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such configuration file; check the path") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); name a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML text file ({str(error).splitlines()[0]})") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: holds no keys; write 'key: value' lines")
    return parse_config(kind, values, source=str(path))


def dump_config(config: BaseModel) -> str:
    """The configuration as YAML, every field resolved, in declaration order."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def claim_folder(path: Path, config: BaseModel) -> None:
    """Make the folder of a run this configuration's, by the file at `path` in it, or refuse: it belongs to one.

    Raises:
        ValueError: the folder is another configuration's; the first key that differs is named.
    """
    if not path.exists():
        write_atomic(path, dump_config(config))
        return
    there = load_config(type(config), path)
    if there != config:
        key = next(k for k in type(config).model_fields if getattr(there, k) != getattr(config, k))
        raise ValueError(
            f"{path.parent}: holds a run with another {key} ({getattr(there, key)!r}, asked for "
            f"{getattr(config, key)!r}); use another --out, or delete the folder"
        )


def _sentence(kind: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}'; {nearest(str(first['loc'][-1]), _keys_beside(kind, first['loc']))}"
    rule = str(first["msg"]).removeprefix("Value error, ")
    given = first.get("input")
    return f"{key}={given!r}: {rule}" if key and not isinstance(given, dict) else rule


def _keys_beside(kind: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The known keys at the level of the configuration where `loc` went wrong."""
    for part in loc[:-1]:
        field = kind.model_fields.get(str(part))
        options = () if field is None else (field.annotation, *get_args(field.annotation))  # X, and the X of X | None
        models = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if not models:
            break
        kind = models[0]
    return list(kind.model_fields)
