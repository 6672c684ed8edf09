"""The fields of a published configuration, read strictly: what a network needs must stand in the file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anyorder.models.config import RopeScaling

ROPE_KEYS = {  # what each type of rotary angles reads
    "default": ("rope_theta", "rope_type", "type"),
    "llama3": ("rope_theta", "rope_type", "type", *RopeScaling.model_fields),
}


@dataclass(frozen=True)
class Fields:
    """The values of a config.json; `source` is what messages name."""

    values: Mapping[str, Any]
    source: str

    def has(self, key: str) -> bool:
        """Whether the field is there and not null."""
        return self.values.get(key) is not None

    def whole(self, key: str, default: int | None = None) -> int:
        """A positive whole number. Raises ValueError if it is missing (and there is no default) or something else."""
        value = self._found(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{self.source}: {key}={value!r}: must be a positive whole number")
        return value

    def token(self, key: str) -> int | None:
        """A token id, the first if there are several; None if the file names none."""
        value = self.values.get(key)
        first = value[0] if isinstance(value, list) and value else value
        if first is not None and (isinstance(first, bool) or not isinstance(first, int) or first < 0):
            raise ValueError(f"{self.source}: {key}={value!r}: must be a token id")
        return first

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number; raises ValueError as `whole`."""
        value = self._found(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"{self.source}: {key}={value!r}: must be a positive number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """A truth value."""
        value = default if self.values.get(key) is None else self.values[key]
        if not isinstance(value, bool):
            raise ValueError(f"{self.source}: {key}={value!r}: must be true or false")
        return value

    def only(self, allowed: Mapping[str, Any]) -> None:
        """Raises ValueError for a field that is there with another value than the one the network here has."""
        for key, value in allowed.items():
            if self.has(key) and self.values[key] != value:
                only = "null" if value is None else repr(value)
                raise ValueError(f"{self.source}: {key}={self.values[key]!r}: only {only} is supported here")

    def _found(self, key: str, default: int | float | None) -> Any:
        if not self.has(key) and default is None:
            raise ValueError(
                f"{self.source}: key {key!r} is missing; a configuration of this family states it, get the file again"
            )
        return self.values[key] if self.has(key) else default

    def rope(self, *, default_base: float | None) -> tuple[float, RopeScaling | None]:
        """Base and scaling of the rotary angles, from `rope_theta` and `rope_scaling` or from `rope_parameters`.

        Raises:
            ValueError: another type of scaling, a key that asks for other angles, or two values that contradict.
        """
        key, inner = self._rope_block()
        nested = Fields(inner, f"{self.source}: {key}")
        kinds = {inner[name] for name in ("rope_type", "type") if nested.has(name)} or {"default"}
        if len(kinds) > 1 or not kinds <= ROPE_KEYS.keys():
            raise ValueError(f"{nested.source}: type={sorted(kinds)}: only 'default' and 'llama3' are supported here")
        kind = kinds.pop()
        nested.only({"partial_rotary_factor": 1.0})
        for name in inner:
            if nested.has(name) and name not in (*ROPE_KEYS[kind], "partial_rotary_factor"):
                raise ValueError(
                    f"{nested.source}: {name}={inner[name]!r}: not read for type {kind!r}, and may ask for other "
                    "angles; remove it if it changes nothing"
                )
        if nested.has("rope_theta") and self.has("rope_theta"):
            self.only({"rope_theta": inner["rope_theta"]})
        base = nested.number("rope_theta") if nested.has("rope_theta") else self.number("rope_theta", default_base)
        if kind == "default":
            return base, None
        return base, RopeScaling(
            factor=nested.number("factor"),
            low_freq_factor=nested.number("low_freq_factor"),
            high_freq_factor=nested.number("high_freq_factor"),
            original_max_position_embeddings=nested.whole("original_max_position_embeddings"),
        )

    def _rope_block(self) -> tuple[str, Mapping[str, Any]]:
        """The object that holds the settings of the rotary angles, under the name it has; empty if there is none."""
        blocks = {key: self.values[key] for key in ("rope_parameters", "rope_scaling") if self.values.get(key)}
        for key, block in blocks.items():
            if not isinstance(block, Mapping):
                raise ValueError(f"{self.source}: {key}={block!r}: must be an object")
        said = [{k: v for k, v in block.items() if k != "rope_theta" and v is not None} for block in blocks.values()]
        if any(block != said[0] for block in said):
            raise ValueError(f"{self.source}: rope_parameters and rope_scaling differ; keep the one the network has")
        return next(iter(blocks.items()), ("rope_parameters", {}))
