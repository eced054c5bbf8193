"""Which neurons each word of an answer rests on, asked in three ways side by side.

    attention  how much of the neuron the word looked at: sum over patches of a_wt z_tj, where a is the
               attention from word to patches, scaled to sum to 1; where the model's attention cannot be laid
               over the picture (a Q-Former stands between), every patch counts alike
    gradient   gradient attribution: sum over patches of z_tj g_wt . W_dec[j], where g is the gradient of the
               word's log-probability by the patch; the first-order guess of the effect
    effect     how far the word's log-probability falls when the neuron is set to zero where it fires,
               measured with one forward pass per neuron

Gradient and effect are in nats, above 0 where the neuron speaks for the word. Attention knows no sign: it
is compared with the sizes of the others. Where the three disagree is the interesting part: attention sees
what is read without being used, the gradient misses what saturates, and setting one neuron to zero misses
what others stand in for. Knows a session; nothing of drawing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from explorer.analyze.agreement import Agreement, Gap, agreement, best, widest
from explorer.analyze.clusters import cluster
from explorer.analyze.columns import checked, columns, entries
from explorer.analyze.places import Progress
from explorer.errors import EditError
from explorer.records import Activation, Cancel, Edit
from explorer.sae import SparseCodes
from explorer.session import Session, View
from explorer.vlm import AnswerWord

SHOWN = 40
TRIED = 128
_GAPS = 12


@dataclass(frozen=True, eq=False)
class WordMap:
    """Words x neurons, by three measures; the neurons stand in an order that puts alike ones together.

    words: [W]; neurons: [n] their numbers; attention, gradient, effect: [W, n] float32; log_probs: [W] of
    the words, untouched, in nats; clusters: [n] the group of each neuron, numbered in their order;
    always_on: [n] bool, in the top-20 of all indexed images; agreement: [W]; gaps: the cells that disagree
    most, widest first; measured: for how many neurons the effect was measured; firing: how many fire.
    """

    prompt: str
    answer: str
    words: tuple[AnswerWord, ...]
    neurons: tuple[int, ...]
    attention: np.ndarray = field(repr=False)
    gradient: np.ndarray = field(repr=False)
    effect: np.ndarray = field(repr=False)
    log_probs: np.ndarray = field(repr=False)
    clusters: np.ndarray = field(repr=False)
    always_on: np.ndarray = field(repr=False)
    agreement: tuple[Agreement, ...] = field(repr=False)
    gaps: tuple[Gap, ...] = field(repr=False)
    measured: int
    firing: int


def word_map(
    session: Session,
    view: View,
    prompt: str | None = None,
    answer: str | None = None,
    words: Sequence[AnswerWord] | None = None,
    *,
    neurons: Sequence[int] | None = None,
    limit: int = SHOWN,
    tried: int = TRIED,
    batch: int = 32,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> WordMap:
    """The map of an answer's words and the neurons that matter most to them.

    prompt: None for the model's default; answer: None for the model's own; words: None for all of the
    answer's. neurons: these, or None for the best of each word by each measure, at most `limit` of them. To
    choose, the effect is measured for the `tried` best by attention and gradient. batch: neurons measured
    at a time; progress hears of them; once cancelled, the map is of those measured so far.
    Raises EditError for no words, words of another answer, unknown neurons, or nothing that fires.
    """
    asked = session.lvlm.default_prompt if prompt is None else prompt
    said = session.answer(view, asked) if answer is None else answer
    chosen = _checked_words(session, said, words)
    whole = view.everywhere
    firing = torch.unique(whole.codes.neurons).numpy()
    pool = firing if neurons is None else checked(neurons, view.n_neurons)
    if not len(pool) or limit < 1 or tried < 1:
        raise EditError(
            f"{len(pool)} neurons, at most {limit} shown and {tried} tried: there is nothing to map"
        )
    weights = _looks(session, view, asked, said, chosen)
    slopes = session.word_gradients(view, asked, said, chosen)
    attention = attended(view.codes, weights, pool)
    scale = session.sae.scale(whole.patches)
    gradients = slopes.gradients if scale is None else slopes.gradients * scale.factor.to(slopes.gradients)
    gradient = attributed(whole.codes, gradients, session.sae.W_dec, pool)
    if neurons is None:
        first = best(np.stack([attention, gradient]), tried)
        pool, attention, gradient = pool[first], attention[:, first], gradient[:, first]
    effect = zeroed(session, view, asked, said, chosen, pool, batch, progress, cancel)
    measured = effect.shape[1]
    values, pool = np.stack([attention[:, :measured], gradient[:, :measured], effect]), pool[:measured]
    if neurons is None:
        last = best(values, limit)
        pool, values = pool[last], values[:, :, last]
    always_on = () if session.store is None else session.always_on()
    facts = {"log_probs": slopes.log_probs.numpy(), "measured": measured, "firing": len(firing)}
    return _arranged(values, pool, always_on, prompt=asked, answer=said, words=tuple(chosen), **facts)


def _arranged(values: np.ndarray, pool: np.ndarray, always_on: Sequence[int], **facts: Any) -> WordMap:
    """The map of values [3, W, n] of the neurons `pool`, put in the order of their clusters."""
    grouped = cluster(_columns(values))
    pool, values = pool[grouped.order], values[:, :, grouped.order]
    return WordMap(
        neurons=tuple(pool.tolist()),
        attention=values[0],
        gradient=values[1],
        effect=values[2],
        clusters=grouped.ids[grouped.order],
        always_on=np.isin(pool, always_on),
        agreement=tuple(agreement(*values[:, word]) for word in range(values.shape[1])),
        gaps=widest(values, _GAPS),
        **facts,
    )


def attended_top(
    session: Session, view: View, prompt: str | None = None, answer: str | None = None, k: int = 20
) -> list[Activation]:
    """The k neurons that are strongest where the answer looked, beside `View.top` by mean or maximum.

    A patch counts by the attention it had from the answer's words, on average. Raises EditError for an
    answer without words.
    """
    asked = session.lvlm.default_prompt if prompt is None else prompt
    said = session.answer(view, asked) if answer is None else answer
    words = _checked_words(session, said, None)
    weights = _looks(session, view, asked, said, words).mean(dim=0)
    return view.top(k, "weighted", weights.reshape(view.grid.rows, view.grid.cols).numpy())


def attended(codes: SparseCodes, weights: Tensor, neurons: np.ndarray) -> np.ndarray:
    """sum_t a_wt z_tj: [W, n] float32, from weights [W, T] and neurons [n]."""
    return (weights.double() @ columns(codes, neurons, weights.shape[1]).double()).float().numpy()


def attributed(codes: SparseCodes, gradients: Tensor, directions: Tensor, neurons: np.ndarray) -> np.ndarray:
    """sum_t z_tj g_wt . W_dec[j]: [W, n] float32, from gradients [W, T, d] and directions [F, d].

    Only where a neuron fires, so that no dense [T, F] or [W, F] exists.
    """
    fired = entries(codes, neurons)
    rows = directions.detach().cpu()[torch.from_numpy(neurons)[fired.places]]
    found = torch.zeros(len(gradients), len(neurons), dtype=torch.float64)
    for word, gradient in enumerate(gradients):
        slopes = (gradient[fired.tokens] * rows).sum(dim=1)
        found[word].index_add_(0, fired.places, (slopes * fired.values).double())
    return found.float().numpy()


def zeroed(
    session: Session,
    view: View,
    prompt: str,
    answer: str,
    words: Sequence[AnswerWord],
    neurons: np.ndarray,
    batch: int = 32,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> np.ndarray:
    """How far each word's log-probability falls when a neuron is set to zero: [W, n] float32, in nats.

    Fewer neurons, the first of them, when cancelled.
    """
    edits = [(), *((Edit(int(neuron), 0.0, "set", "active"),) for neuron in neurons)]
    found: list[Tensor] = []
    for start in range(0, len(edits), max(batch, 2)):
        asked = [(view, edit) for edit in edits[start : start + max(batch, 2)]]
        tokens = session.log_probs(asked, prompt, answer, batch=len(asked))
        found += torch.stack([tokens[:, word.first : word.last].sum(dim=1) for word in words], dim=1)
        if progress is not None:
            progress(len(found), len(edits))
        if cancel is not None and cancel.is_set():
            break
    said = torch.stack(found, dim=1)
    return (said[:, :1] - said[:, 1:]).float().cpu().numpy()


def _columns(values: np.ndarray) -> np.ndarray:
    """What neurons are likened by, [n, 3 W]: their values over the words by each measure, each scaled to
    length 1, so that the cosine of two neurons is the mean of those by the three measures."""
    sizes = np.linalg.norm(values, axis=1, keepdims=True)
    scaled = np.divide(values, sizes, out=np.zeros_like(values), where=sizes > 0)
    return scaled.reshape(-1, values.shape[-1]).T


def _looks(session: Session, view: View, prompt: str, answer: str, words: Sequence[AnswerWord]) -> Tensor:
    """Each word's attention to the patches, scaled to sum to 1: [W, T]; the same for all without places."""
    if not session.lvlm.has_places:
        patches = view.grid.rows * view.grid.cols
        return torch.full((len(words), patches), 1 / patches)
    return _picture_shares(session.word_attention(view, prompt, answer, words))


def _picture_shares(attention: Tensor) -> Tensor:
    """Attention [W, T] as shares of what each word gave to the picture; even where it gave nothing."""
    sums = attention.sum(dim=1, keepdim=True)
    return torch.where(sums > 0, attention / sums, torch.full_like(attention, 1 / attention.shape[1]))


def _checked_words(session: Session, answer: str, words: Sequence[AnswerWord] | None) -> list[AnswerWord]:
    """The asked words, or all of the answer's. Raises EditError for none, or for words of another answer."""
    known = session.lvlm.answer_words(answer)
    chosen = known if words is None else list(words)
    if not chosen:
        raise EditError(f"there are no words to map in {answer!r}")
    strange = [word.text for word in chosen if word not in known]
    if strange:
        raise EditError(f"{strange[0]!r} is no word of the answer {answer!r}; take words from answer_words")
    return chosen
