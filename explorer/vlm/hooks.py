"""Forward hooks that live in a `with` and are gone afterwards, whatever happened.

They go in front of the hooks that are there already (`prepend=True`). This is not a matter of taste:
transformers collects hidden states with hooks of its own, installed at the first forward, and a hook
behind them changes a tensor that has been read already, without effect and without a word.

Knows torch and nothing of models. A block may return a tensor or a tuple whose first item it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.nn.functional import pad


class Captured:
    """What a module put out last; `output` is None until it has run."""

    output: torch.Tensor | None = None


class _Enough(Exception):
    """Ends a forward pass whose rest nobody needs. Never leaves this module."""


@contextmanager
def capture(module: nn.Module, stop: bool = False) -> Iterator[Captured]:
    """Keep the module's output. With `stop` the forward pass ends there, and so does the `with` body."""
    captured = Captured()

    def keep(_module: nn.Module, _args: object, output: torch.Tensor | tuple) -> None:
        captured.output = output[0] if isinstance(output, tuple) else output
        if stop:
            raise _Enough

    handle = module.register_forward_hook(keep, prepend=True)
    try:
        yield captured
    except _Enough:
        pass
    finally:
        handle.remove()


@contextmanager
def edited(module: nn.Module, edit: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Put `edit(output)`, a new tensor of the same shape, in the place of the module's output."""

    def replace(_module: nn.Module, _args: object, output: torch.Tensor | tuple) -> torch.Tensor | tuple:
        if isinstance(output, tuple):
            return (edit(output[0]), *output[1:])
        return edit(output)

    handle = module.register_forward_hook(replace, prepend=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def resumed(
    blocks: Sequence[nn.Module], block: int, output: torch.Tensor, last: int | None = None
) -> Iterator[None]:
    """Let a forward pass through a stack go on behind `block` as if that had put out `output`.

    The blocks before it hand on what they are given, as do those after `last` (None: there are none), so
    that neither costs anything. For blocks that put out a tensor.
    """
    end = len(blocks) if last is None else last + 1
    own: list[tuple[nn.Module, object]] = []
    try:
        for number, module in enumerate(blocks):
            if number <= block or number >= end:
                own.append((module, module.__dict__.get("forward")))
                module.forward = partial(_instead, output) if number == block else _hand_on
        yield
    finally:
        for module, forward in own:
            if forward is None:
                del module.forward
            else:
                module.forward = forward


def _instead(output: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
    return output


def _hand_on(*args: object, **kwargs: object) -> object:
    return args[0] if args else kwargs["hidden_states"]


@contextmanager
def last_rows_only(module: nn.Module, rows: int) -> Iterator[None]:
    """Let the module work on the last rows of its input [..., L, width] only; the others come out as 0."""
    lengths: list[int] = []

    def before(_module: nn.Module, args: tuple) -> tuple:
        lengths.append(args[0].shape[-2])
        return (args[0][..., -rows:, :], *args[1:])

    def after(_module: nn.Module, _args: object, output: torch.Tensor | tuple) -> torch.Tensor | tuple:
        first = output[0] if isinstance(output, tuple) else output
        padded = pad(first, (0, 0, lengths.pop() - first.shape[-2], 0))
        return (padded, *output[1:]) if isinstance(output, tuple) else padded

    handles = module.register_forward_pre_hook(before), module.register_forward_hook(after, prepend=True)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
