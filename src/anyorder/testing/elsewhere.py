"""A device that is not the CPU, on any machine: what is forgotten there fails here as it would on a GPU.

Its tensors hold CPU tensors and compute with them, so that results are the CPU's, up to the rounding of kernels that
PyTorch chooses by device; but they refuse to meet tensors that were left on the CPU.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, final
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

from anyorder.core import noise

DEVICE: Final = torch.device("lazy", 0)  # a name that PyTorch knows and nothing else here uses
ATEN: Final = torch.ops.aten
MOVES: Final = (ATEN._to_copy.default, ATEN.copy_.default)
BY_INDEX: Final = (ATEN.index.Tensor, ATEN.index_put.default, ATEN.index_put_.default)  # which take indices of the CPU
JOINS: Final = (ATEN.cat.default, ATEN.stack.default)  # which take no number of the CPU, as others do


@final
class Away(Tensor):
    """A tensor that lies elsewhere."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Away":
        out: Away = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        out.held = held
        return out

    def __repr__(self, *, tensor_contents: object = None) -> str:  # type: ignore[override]
        return f"Away({self.held})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operation gives, where its tensors lie.

    Raises:
        RuntimeError: tensors of both devices, except where PyTorch lets a GPU's meet them.
    """
    given = [t for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)]
    away = [t for t in given if isinstance(t, Away)]
    goes = bool(away)
    if func in BY_INDEX or func is ATEN.copy_.default:
        goes = isinstance(args[0], Away)
    _check(func, args, given, goes=goes)
    if kwargs.get("device") is not None:
        goes = torch.device(kwargs["device"]) == DEVICE
        kwargs = kwargs | {"device": torch.device("cpu")}
    out = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    known = {id(_held(t)): t for t in given}  # what was changed in place is the tensor that was given

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor) or not goes:
            return known.get(id(value), value)
        return known[id(value)] if id(value) in known else Away(value)

    return tree_map(wrapped, out)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Away) else value


def _check(func: Any, args: tuple[Any, ...], given: Sequence[Tensor], *, goes: bool) -> None:
    away = [isinstance(t, Away) for t in given]
    if func in MOVES or not any(away) or all(away):
        return
    if func in BY_INDEX:
        others = [] if func is ATEN.index.Tensor else [args[2]]
        fits = goes and all(isinstance(t, Away) or t.ndim == 0 for t in others)
    else:
        here = [t for t, is_away in zip(given, away) if not is_away]
        changes = func._schema.is_mutable and not isinstance(args[0], Away)
        fits = all(t.ndim == 0 for t in here) and not changes and func not in JOINS
    if not fits:
        raise RuntimeError(f"{func}: expected all tensors on one device, found some on the CPU and some elsewhere")


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return computed(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """What PyTorch does below its operations: numbers from Python and to it."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is Tensor.new_tensor:
            return func(args[0].cpu(), *args[1:], **kwargs).to(args[0].device)
        if func in (Tensor.tolist, Tensor.untyped_storage):
            return func(_held(args[0]), *args[1:], **kwargs)
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            args = (args[0], _indices(args[1]), *args[2:])
        if func is Tensor.numpy and isinstance(args[0], Away):
            raise TypeError("can't convert a tensor that lies elsewhere to numpy; use Tensor.cpu() first")
        return func(*args, **kwargs)


def _indices(given: Any) -> Any:
    """Lists as tensors."""
    if isinstance(given, tuple):
        return tuple(map(_indices, given))
    return torch.tensor(given) if isinstance(given, list) else given


def _philox(counter: Any, key: tuple[int, int], philox: Any = noise.philox4x32) -> Any:
    """Philox as one operation of this device."""
    if not any(isinstance(c, Away) for c in counter):
        return philox(counter, key)
    return tuple(map(Away, noise.philox4x32_numpy(tuple(map(_held, counter)), key)))


@contextlib.contextmanager
def elsewhere() -> Iterator[torch.device]:
    """A device to move models and rows to, inside the block."""
    views = mock.patch.object(torch, "inference_mode", torch.no_grad)  # tensors made in it have no views of ours
    fused = mock.patch("torch.optim.optimizer._get_fused_kernels_supported_devices", return_value=[DEVICE.type])
    integers = mock.patch.object(noise, "philox4x32", _philox)  # 120 operations a draw, which this device makes slowly
    with _Operations(), _Literals(), views, fused, integers:  # type: ignore[no-untyped-call]
        yield DEVICE
