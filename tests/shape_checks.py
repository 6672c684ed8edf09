"""Run-time shape checks at a fraction of their cost: what a function was checked with once is not checked again.

jaxtyping and beartype check every call and compile a check whenever a nested function is defined, which together took
more than half of the suite's time. `--jaxtyping-packages` still says what is checked; the decorator it applies is
replaced here by one that compiles a check when a function is first called, and repeats it for every combination of
types, dtypes and shapes, of arguments and of the result, that the function has not had in this process. A function
whose last CALM calls had nothing new is looked at every EVERY calls until one has.
"""

import dataclasses
import functools
import inspect
import threading
from collections.abc import Callable, Hashable
from types import CodeType
from typing import Any

import jaxtyping
import torch

TENSORS = frozenset({torch.Tensor, torch.nn.Parameter})
CALM = 200
EVERY = 16
LOOK = 4  # elements of a container that tell it from another one; beartype looks at one
jaxtyped = jaxtyping.jaxtyped
calls = threading.local()  # those whose arguments are being checked


@dataclasses.dataclass
class Checks:
    """Of one function, or of all that one nested `def` makes: results seen for each signature, and the checked call."""

    code: CodeType
    seen: dict[Hashable, set[Hashable]]
    run: Callable[..., Any] | None = None
    calm: int = 0  # calls since one had a new signature


CHECKS: dict[int, Checks] = {}  # by identity: equal code of two dataclasses may have other annotations


def signature(value: Any) -> Hashable:
    """What a check of a value depends on: its type, for tensors dtype and shape, for containers that of elements."""
    kind = type(value)
    if kind in TENSORS:
        return kind, value.dtype, value.shape
    if kind is tuple or kind is list:
        return kind, len(value) if kind is tuple else bool(value), *map(signature, value[:LOOK])
    if kind is dict:
        return kind, *((signature(k), signature(v)) for (k, v), _ in zip(value.items(), range(LOOK)))
    return kind


def once_per_signature(fn: Any = None, *, typechecker: Any) -> Any:
    """`jaxtyping.jaxtyped`, less the calls whose arguments and result look like those of a call that was checked."""
    if fn is None:
        return functools.partial(once_per_signature, typechecker=typechecker)
    if isinstance(fn, classmethod | staticmethod):
        return type(fn)(once_per_signature(fn.__func__, typechecker=typechecker))
    if isinstance(fn, property):
        return property(*(p and once_per_signature(p, typechecker=typechecker) for p in (fn.fget, fn.fset, fn.fdel)))
    if inspect.isclass(fn):
        if dataclasses.is_dataclass(fn) and not hasattr(fn.__init__, "checks_shapes"):
            fn.__init__ = once_per_signature(fn.__init__, typechecker=typechecker)
        return fn
    checks = CHECKS.setdefault(id(fn.__code__), Checks(fn.__code__, {}))

    def run_checked(call: Callable[[], Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The arguments are checked, the call is made, its result is checked."""
        if checks.run is None:
            checks.run = jaxtyped(functools.wraps(fn)(lambda *_, **__: calls.open.pop()()), typechecker=typechecker)
        calls.open = [*getattr(calls, "open", ()), call]
        try:
            return checks.run(*args, **kwargs)
        finally:
            if call in calls.open:
                calls.open.remove(call)  # its arguments were wrong

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        checks.calm += 1
        if checks.calm > CALM and checks.calm % EVERY:
            return fn(*args, **kwargs)
        key = (*map(signature, args), *((name, signature(v)) for name, v in kwargs.items()))
        known = checks.seen.get(key)
        if known is None:
            checks.calm = 0
            out = run_checked(lambda: fn(*args, **kwargs), args, kwargs)
            checks.seen.setdefault(key, set()).add(signature(out))
            return out
        out = fn(*args, **kwargs)
        if (result := signature(out)) not in known:
            checks.calm = 0
            run_checked(lambda: out, args, kwargs)
            known.add(result)
        return out

    wrapper.checks_shapes = True  # type: ignore[attr-defined]
    return wrapper


jaxtyping.jaxtyped = once_per_signature  # type: ignore[assignment]
