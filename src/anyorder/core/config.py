"""Configurations are frozen pydantic models; this file reads them from YAML and says clearly what is wrong with one."""

import dataclasses
import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from anyorder.core.files import write_atomic
from anyorder.core.text import text_of

Config = TypeVar("Config", bound=BaseModel)
NAMED = 4  # keys that one message names


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
            word = {int: "whole number", float: "number"}.get(kinds[key], kinds[key].__name__)
            raise ValueError(f"{source}: {key}={value!r} is no {word}; give one") from None
    return options


def parse_config(kind: type[Config], values: dict[str, Any], *, source: str) -> Config:
    """`values` as a validated `kind`. An error is one sentence: key, value, rule, nearest key."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{source}: {_sentence(kind, error)}") from None


def load_config(kind: type[Config], path: Path) -> Config:
    """A YAML file as a validated `kind`.

    Raises:
        ValueError: a missing file, broken YAML (with its line), a key given twice, or an unknown key.
    """
    try:
        text = text_of(path.read_bytes(), path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such configuration file; check the path") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); name a YAML file") from None
    try:
        _check_keys(yaml.compose(text, Loader=yaml.SafeLoader), source=path)
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path}: {_yaml_fault(error, text)}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: holds no keys; write 'key: value' lines")
    return parse_config(kind, values, source=str(path))


def dump_config(config: BaseModel) -> str:
    """The configuration as YAML, every field resolved, in declaration order."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def claim_folder(path: Path, config: BaseModel) -> None:
    """Make the folder of a run this configuration's, by the file at `path` in it, or refuse: it belongs to one.

    Raises:
        ValueError: the folder is another configuration's; the keys that differ are named.
    """
    if not path.exists():
        write_atomic(path, dump_config(config))
        return
    there = load_config(type(config), path)
    if there != config:
        found = differences(there, config)
        more = f" and {len(found) - NAMED} more keys" if len(found) > NAMED else ""
        raise ValueError(
            f"{path.parent}: holds a run with another {', '.join(found[:NAMED])}{more}; use another --out, or delete "
            "the folder"
        )


def differences(there: BaseModel, asked: BaseModel, *, above: str = "") -> list[str]:
    """The keys in which two configurations of one kind differ: "optim.lr (0.002, asked for 0.0001)"."""
    found = []
    for name in type(asked).model_fields:
        a, b = getattr(there, name), getattr(asked, name)
        if isinstance(a, BaseModel) and isinstance(b, BaseModel):
            found += differences(a, b, above=f"{above}{name}.")
        elif a != b:
            found.append(f"{above}{name} ({_shown(a)}, asked for {_shown(b)})")
    return found


def _shown(value: object) -> str:
    """A value as a configuration file spells it; of a whole part, that it is one."""
    if isinstance(value, BaseModel):
        return "one with keys of its own"
    return repr(str(value) if isinstance(value, Path) else value)


def _check_keys(node: Any, *, source: Path) -> None:
    """Refuse a key that is given twice in one mapping, of which YAML would take the last."""
    waiting, seen = [node], set()
    while waiting:
        here = waiting.pop()
        if here is None or id(here) in seen:  # an anchor may lead back to where it stands
            continue
        seen.add(id(here))
        if isinstance(here, yaml.SequenceNode):
            waiting += here.value
        elif isinstance(here, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in here.value:
                waiting += [key, value]
                if not isinstance(key, yaml.ScalarNode):
                    continue
                line = key.start_mark.line + 1
                if key.value in lines:
                    raise ValueError(
                        f"{source}: line {line}: {key.value!r} is given in line {lines[key.value]} too; keep one"
                    )
                lines[key.value] = line


def _yaml_fault(error: Exception, text: str) -> str:
    """What is wrong with a YAML text, and in which line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        tab = "; YAML takes spaces, no tabs" if "\\t" in str(error.problem) else ""
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: not YAML ({error.problem}){tab}"
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return f"line {line}: not YAML (a character U+{error.character:04X}, which no YAML text holds)"
    return "not YAML, or nested too deeply"


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
