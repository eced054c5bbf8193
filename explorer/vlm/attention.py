"""The language model's attention, changed or watched for some layers and some of the tokens that ask.

    with changed_attention(text_model, edit, image=slice(5, 581), last=603):
        text_model(...)  # or the whole model: one forward pass, or several

`text_model` is the stack of layers (`model.model.language_model`); `image` are the columns of the picture
and `last` the place of the prompt's last token. Both count from the first token that was ever read, those
in the cache included. An edit of None, or with no gain and factors of 1, changes nothing at all. Where a
pass begins is told by its cache, so that a prompt read at once, a prompt read in pieces, and an answer read
many tokens at a time all come out the same. Put the `with` around the passes, not around a `yield`. Keys
and values that were read under one edit serve that edit only, but for those before `last` (rows "answer")
or before `image.stop` (rows "text"): there nothing was changed.

Only the rows concerned are written out (scores, mask, softmax); the others, and the other layers, go
through the attention that the model was opened with, with the mask made for it. For that each layer's
attention module gets, within the `with`, a copy of its configuration which names the function below, and a
hook that tells this function what to do; the model's own configuration is never touched.

Knows the attention modules of transformers' decoders ("sdpa" and "eager"; grouped heads, sliding windows,
soft caps, but no sinks) and places in what they read; nothing of tokenizers. Caches that keep their keys in
a ring (static ones with a sliding window) are not supported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from explorer.errors import ModelError
from explorer.vlm.base import AnswerWord, AttentionEdit
from explorer.vlm.hooks import capture
from explorer.vlm.script import Script, check_words
from explorer.vlm.text import TextSide

IMPLEMENTATION = "visited"
"""The name under which transformers knows the function below."""

KNOWN = ("sdpa", "eager")
"""The implementations whose masks are understood here."""


class _Visit(NamedTuple):
    """What happens to one layer's rows from place `first` on; the hook that tells the attention so.

    change: new scores [B, H, R, K] for old, given the place of the first column; seen: told the weights
    [B, H, R, K], and the same.
    """

    first: int
    change: Callable[[torch.Tensor, int], torch.Tensor] | None = None
    seen: Callable[[torch.Tensor, int], None] | None = None

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Before the module runs: where its queries begin, and this visit after the earlier ones."""
        past = kwargs.get("past_key_values")
        start = 0 if past is None else int(past.get_seq_length(module.layer_idx))
        return args, {**kwargs, "visits": (*kwargs.get("visits", ()), self), "start": start}


def self_attentions(text_model: nn.Module, layers: tuple[int, int] | None) -> list[nn.Module]:
    """The attention modules of layers [first, end), None: of all.

    Raises ModelError for layers that the model has not, and for attention that works in another way.
    """
    found = [module for name, module in text_model.named_modules() if name.endswith("self_attn")]
    fit = [hasattr(it, "config") and hasattr(it, "layer_idx") and not hasattr(it, "sinks") for it in found]
    if not found or not all(fit):
        raise ModelError(f"the attention of {type(text_model).__name__} can be neither changed nor watched")
    implementation = found[0].config._attn_implementation
    if implementation not in (*KNOWN, IMPLEMENTATION):
        raise ModelError(
            f"the language model was opened with {implementation!r} attention, which can be neither changed "
            f"nor watched; open it with one of {', '.join(KNOWN)}"
        )
    first, end = (0, len(found)) if layers is None else layers
    if not 0 <= first < end <= len(found):
        raise ModelError(
            f"layers {first} to {end} were asked for, but the language model has {len(found)}: the first may "
            f"be 0 to {len(found) - 1}, the one after the last at most {len(found)}"
        )
    return found[first:end]


@contextmanager
def changed_attention(
    text_model: nn.Module, edit: AttentionEdit | None, image: slice, last: int
) -> Iterator[None]:
    """Change the attention scores of all passes through `text_model` in the `with` as `edit` says.

    Scores a of the picture's columns become (a + gain |a|) * factor, after a soft cap and before the mask.
    With "answer" rows, a gain and the layers from 2 on this is PAI (Liu et al. 2024, "Paying more attention
    to image"; its code LALBJ/PAI); with "text" rows and both factors in layers 9 to 14 it is VAF (Yin et
    al. 2025, "ClearSight"; its code ustc-hyin/ClearSight).
    Raises ModelError for layers that the model has not, or a picture that is not before `last`.
    """
    if edit is None:
        yield
        return
    if not 0 <= image.start < image.stop <= last:
        raise ModelError(
            f"an attention edit needs a picture before the prompt's last token ({last}), not at columns "
            f"{image.start} to {image.stop}"
        )

    def change(scores: torch.Tensor, origin: int) -> torch.Tensor:
        start, stop = max(0, image.start - origin), max(0, image.stop - origin)
        system, picture, text = scores[..., :start], scores[..., start:stop], scores[..., stop:]
        picture = (picture + edit.image_gain * picture.abs()) * edit.image_factor
        return torch.cat([system * edit.system_factor, picture, text], dim=-1)

    modules = self_attentions(text_model, edit.layers)
    if (edit.image_gain, edit.image_factor, edit.system_factor) == (0.0, 1.0, 1.0):
        modules = []
    with _visited(modules, _Visit(last if edit.rows == "answer" else image.stop, change=change)):
        yield


@contextmanager
def watched_attention(
    text_model: nn.Module,
    layers: tuple[int, int] | None,
    first: int,
    seen: Callable[[torch.Tensor, int], None],
) -> Iterator[None]:
    """Tell `seen` the attention weights of each layer's rows from place `first` on, layer by layer.

    It hears weights [B, H, R, K] after the softmax, in float32 or finer, and the place of their first
    column. Nothing is kept. Raises ModelError for layers that the model has not.
    """
    with _visited(self_attentions(text_model, layers), _Visit(first, seen=seen)):
        yield


def word_attention(
    side: TextSide, script: Script, words: Sequence[AnswerWord], layers: tuple[int, int] | None
) -> torch.Tensor:
    """How much each word of an answer looked at each image feature: [W, N] float32 on the CPU.

    Averaged over the rows that predict the word's tokens (the row before each), the heads, and the layers
    [first, end), None: all of them. script: of one picture. Layers after these do not run. Raises
    ModelError for layers that the model has not, or words that are not of this answer.
    """
    check_words(words, len(script.said))
    looks: list[torch.Tensor] = []

    def look(weights: torch.Tensor, origin: int) -> None:
        assert origin == 0, "everything is read in one pass"
        looks.append(weights[0, :, :, script.places].mean(dim=0))

    last = self_attentions(side.stack, layers)[-1]
    with watched_attention(side.stack, layers, script.last, look), capture(last, stop=True):
        script.read(side)
    rows = torch.stack(looks).mean(dim=0).float().cpu()
    return torch.stack([rows[word.first : word.last].mean(dim=0) for word in words]) if words else rows[:0]


@contextmanager
def _visited(modules: list[nn.Module], visit: _Visit) -> Iterator[None]:
    """Let `visit` happen in these attention modules."""
    own: dict[int, PreTrainedConfig] = {}
    with ExitStack() as stack:
        for module in modules:
            stack.callback(_leave, module, module.register_forward_pre_hook(visit, with_kwargs=True))
            usual = module.config
            if usual._attn_implementation != IMPLEMENTATION:
                if id(usual) not in own:
                    own[id(usual)] = copy(usual)
                    own[id(usual)].usual, own[id(usual)]._attn_implementation = usual, IMPLEMENTATION
                module.config = own[id(usual)]
        yield


def _leave(module: nn.Module, handle: RemovableHandle) -> None:
    """Give the module its own configuration back once nobody visits it any more."""
    handle.remove()
    if not any(isinstance(hook, _Visit) for hook in module._forward_pre_hooks.values()):
        module.config = module.config.usual


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    visits: tuple[_Visit, ...],
    start: int,
    **kwargs: object,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The module's usual attention but for the rows that are visited: output [B, Q, H, d], and weights.

    query [B, H, Q, d]; key, value [B, groups, K, d]; start: the place of the first query.
    """
    rows, columns = query.shape[2], key.shape[2]
    first = max(0, min(visit.first for visit in visits) - start)
    changes = any(visit.change for visit in visits)
    output = weights = None
    if first or not changes:
        output, weights = _usual(module)(module, query, key, value, attention_mask, **kwargs)
    if first >= rows:
        return output, weights
    origin = max(0, start + rows - columns)
    scores = _scores(query[:, :, first:], key, kwargs)
    for visit in visits:
        untouched = max(0, visit.first - start - first)
        if visit.change is not None and untouched < scores.shape[2]:
            changed = visit.change(scores[:, :, untouched:], origin)
            scores = torch.cat([scores[:, :, :untouched], changed], dim=2)
    new = _masked(scores, attention_mask, first, start - origin).softmax(dim=-1)
    for visit in visits:
        if visit.seen is not None:
            visit.seen(new[:, :, max(0, visit.first - start - first) :], origin)
    if not changes:
        return output, weights
    mixed = _mix(new, value.to(new.dtype)).to(query.dtype)
    if output is None:
        return mixed, new.to(query.dtype)
    if weights is not None:
        weights = torch.cat([weights[:, :, :first], new.to(weights.dtype)], dim=2)
    return torch.cat([output[:, :first], mixed], dim=1), weights


def _usual(module: nn.Module) -> Callable[..., tuple[torch.Tensor, torch.Tensor | None]]:
    """The attention that the module would have used by itself."""
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    return ALL_ATTENTION_FUNCTIONS.get_interface(module.config.usual._attn_implementation, eager)


def _scores(query: torch.Tensor, key: torch.Tensor, settings: dict[str, object]) -> torch.Tensor:
    """Scaled and capped scores [B, H, R, K], in float32 or finer, of queries [B, H, R, d]."""
    batch, heads, rows, size = query.shape
    wide = torch.promote_types(query.dtype, torch.float32)
    grouped = query.reshape(batch, key.shape[1], -1, size).to(wide)
    scores = (grouped @ key.to(wide).transpose(2, 3)).reshape(batch, heads, rows, -1)
    scaling, cap = settings.get("scaling"), settings.get("softcap")
    scores = scores * (size**-0.5 if scaling is None else scaling)
    return scores if cap is None else torch.tanh(scores / cap) * cap


def _masked(scores: torch.Tensor, mask: torch.Tensor | None, first: int, ahead: int) -> torch.Tensor:
    """Scores [B, H, R, K] under the mask's rows from `first` on; ahead: how many keys are before row 0."""
    rows, columns = scores.shape[-2:]
    if mask is None:
        row = torch.arange(first, first + rows, device=scores.device)[:, None]
        mask = torch.arange(columns, device=scores.device) <= row + ahead
    else:
        mask = mask[:, :, first:, :columns]
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores + mask


def _mix(weights: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The values [B, groups, K, d] mixed by weights [B, H, R, K]: [B, R, H, d]."""
    batch, heads, rows, columns = weights.shape
    mixed = weights.reshape(batch, value.shape[1], -1, columns) @ value
    return mixed.reshape(batch, heads, rows, -1).transpose(1, 2).contiguous()


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, _attend)
