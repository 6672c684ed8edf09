"""The fields of a published configuration, read strictly: what a network needs must stand in the file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anyorder.models.config import RopeScaling


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
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
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
                raise ValueError(f"{self.source}: {key}={self.values[key]!r}: only {value!r} is supported here")

    def _found(self, key: str, default: int | float | None) -> Any:
        if not self.has(key) and default is None:
            raise ValueError(
                f"{self.source}: key {key!r} is missing; a configuration of this family states it, get the file again"
            )
        return self.values[key] if self.has(key) else default

    def rope(self, *, default_base: float | None) -> tuple[float, RopeScaling | None]:
        """Base and scaling of the rotary angles, from `rope_theta` and `rope_scaling` or from `rope_parameters`."""
        inner = self.values.get("rope_parameters") or self.values.get("rope_scaling") or {}
        if not isinstance(inner, Mapping):
            raise ValueError(f"{self.source}: rope_scaling={inner!r}: must be an object")
        nested = Fields(inner, f"{self.source}: rope_scaling")
        base = nested.number("rope_theta") if nested.has("rope_theta") else self.number("rope_theta", default_base)
        kind = inner.get("rope_type", inner.get("type", "default"))
        if kind == "default":
            return base, None
        if kind != "llama3":
            raise ValueError(f"{nested.source}: type={kind!r}: only 'default' and 'llama3' are supported here")
        return base, RopeScaling(
            factor=nested.number("factor"),
            low_freq_factor=nested.number("low_freq_factor"),
            high_freq_factor=nested.number("high_freq_factor"),
            original_max_position_embeddings=nested.whole("original_max_position_embeddings"),
        )
