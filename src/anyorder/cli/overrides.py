"""Options made from a configuration: `--optim.lr 1e-3` for every key, with its default and comment in --help."""

import inspect
import re
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from anyorder.cli.parser import Parser

Values = dict[str, Any]
METAVARS: dict[Any, str] = {str: "TEXT", Path: "DIR"}  # all others are numbers or choices: V


@dataclass(frozen=True)
class Key:
    """One key of a configuration.

    Args:
        path: `("optim", "lr")`.
        kind: its type; that of the value when it may also be None.
        default: as the configuration has it; None also for the keys of a part that may be absent.
        comment: what stands beside it in the source.
    """

    path: tuple[str, ...]
    kind: Any
    optional: bool
    default: Any
    comment: str

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def help(self) -> str:
        """Choices, comment and default on one line."""
        choices = ", ".join(map(str, get_args(self.kind))) if get_origin(self.kind) is Literal else ""
        known = [text for text in (choices, self.comment) if text]
        if self.default is None and not self.optional:
            return " - ".join(known) + " (default that of the size)"
        default = ",".join(map(str, self.default)) if isinstance(self.default, tuple) else str(self.default).lower()
        if isinstance(self.default, str | Path):
            default = str(self.default)
        return " - ".join([*known, f"(default {default})"]).replace(" - (", " (").replace("%", "%%")


def keys_of(config: type[BaseModel], *, above: tuple[str, ...] = (), absent: bool = False) -> list[Key]:
    """Every key of a configuration and of the parts in it, in order of declaration."""
    comments, keys = _comments(config), []
    for name, field in config.model_fields.items():
        kind, optional = _without_none(field.annotation)
        path = (*above, name)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += keys_of(kind, above=path, absent=absent or optional)
        else:
            default = None if absent else field.get_default(call_default_factory=True)
            keys.append(Key(path, kind, optional, default, comments.get(name, "")))
    return keys


def add_keys(parser: Parser, config: type[BaseModel], *, skip: Sequence[str] = ()) -> None:
    """An option for every key, grouped as the configuration is."""
    groups: dict[str, Any] = {}
    for key in keys_of(config):
        if key.name in skip:
            continue
        part = key.path[0] if len(key.path) > 1 else ""
        if part not in groups:
            kind = _without_none(config.model_fields[part].annotation)[0] if part else config
            about = (inspect.getdoc(kind) or "").split("\n")[0]
            groups[part] = parser.add_argument_group(f"{part}.*" if part else "configuration", about)
        option = f"--{key.name}"
        if key.kind is bool:
            groups[part].add_argument(
                option, dest=f"key:{key.name}", nargs="?", const="true", metavar="B", help=key.help
            )
        else:
            groups[part].add_argument(
                option, dest=f"key:{key.name}", metavar=METAVARS.get(key.kind, "V"), help=key.help
            )


def given_keys(config: type[BaseModel], found: Values) -> Values:
    """The options that were given, nested as the configuration is; values stay text, which its validation reads."""
    out: Values = {}
    for key in keys_of(config):
        text = found.get(f"key:{key.name}")
        if text is None:
            continue
        here = out
        for part in key.path[:-1]:
            here = here.setdefault(part, {})
        here[key.path[-1]] = _value(key, text)
    return out


def merged(below: Values, above: Values) -> Values:
    """Two nested dictionaries as one; where both have a value, that of `above` counts."""
    out = dict(below)
    for name, value in above.items():
        under = out.get(name)
        out[name] = merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return out


def with_underscores(args: Sequence[str]) -> list[str]:
    """`--data.vocab-size` written as the key is, `--data.vocab_size`; values are left alone."""
    return [re.sub(r"^--[\w.-]+", lambda m: "--" + m[0][2:].replace("-", "_"), a) for a in args]


def _value(key: Key, text: str) -> Any:
    if key.optional and text.lower() in ("none", "null"):
        return None
    if get_origin(key.kind) is tuple:
        return [part.strip() for part in text.strip("[]()").split(",")]
    return text


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """A type without `| None`, and whether that was there."""
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [part for part in get_args(annotation) if part is not type(None)]
        if len(rest) == 1 and len(rest) < len(get_args(annotation)):
            return rest[0], True
    return annotation, False


def _comments(config: type[BaseModel]) -> dict[str, str]:
    """What the source says beside each field."""
    found = re.findall(r"^    (\w+):[^#\n]*#\s*(.*)$", inspect.getsource(config), flags=re.MULTILINE)
    return dict(found)
