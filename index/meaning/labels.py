"""Which labels of a source a neuron stands for, from the images that it picks.

A label's precision is the share of the neuron's exemplars that show it, its base rate the share of all images
that do, its lift the one over the other. Labels are ranked by how surprising the exemplars would be if they
were drawn at random: n KL(precision || base rate), n exemplars. Works on sorted (neuron, label) pairs, in
blocks of neurons; nothing of size neurons x labels exists. Knows numpy, numbers of images and labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from index.meaning.by_neuron import ByNeuron, runs
from index.meaning.concepts import LEAST_PRECISION, BestConcepts
from index.stage.codes import run_starts, spans
from index.stage.sample import Sample

PER_NEURON = 5
"""How many labels the store keeps for a neuron."""
LEAST_EXEMPLARS = 2
"""Exemplars that must show a label before it counts; sampled images that must for its average precision."""
_EXEMPLARS = 1 << 16
_ENTRIES = 1 << 21


class Shown(NamedTuple):
    """What some images show: labels[starts[i] : starts[i + 1]], ascending, of image i. int64, int32."""

    starts: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Shown:
        """From one list of labels per image."""
        starts = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        return cls(starts, np.fromiter((label for row in rows for label in row), np.int32, int(starts[-1])))


class BaseRates(NamedTuple):
    """images [L] int64: how many of the n_images indexed images show each label."""

    images: np.ndarray
    n_images: int

    def of(self, labels: np.ndarray) -> np.ndarray:
        """Share of the images that show each of these labels, float64."""
        return self.images[labels] / max(self.n_images, 1)


class NeuronLabels(NamedTuple):
    """The best labels of all neurons, by neuron and rank: columns of one length.

    neuron, rank, label int64; precision, lift float64; average_precision float64: NaN where it is not known.
    """

    neuron: np.ndarray
    rank: np.ndarray
    label: np.ndarray
    precision: np.ndarray
    lift: np.ndarray
    average_precision: np.ndarray


class Names(NamedTuple):
    """What each neuron is called, [F]: label int64, -1 for none; the rest as in `NeuronLabels`, 0, 0 and NaN
    then."""

    label: np.ndarray
    precision: np.ndarray
    lift: np.ndarray
    average_precision: np.ndarray


class _Counts(NamedTuple):
    """How many exemplars of a neuron show a label, for the pairs where some do, by (neuron, label)."""

    neuron: np.ndarray
    label: np.ndarray
    count: np.ndarray


def best_labels(
    exemplars: np.ndarray, shown: Shown, rates: BaseRates, sample: Sample, scores: ByNeuron
) -> NeuronLabels:
    """Up to five labels per neuron: those above their base rate that at least two of its exemplars show.

    exemplars [F, P]: images of `shown`, -1 for an empty place. Of equally surprising labels the earlier goes
    first.
    """
    held = np.count_nonzero(exemplars >= 0, axis=1)
    columns = [_ranked(counts, held, rates) for counts in _counts(exemplars, shown, len(rates.images))]
    empty = (np.zeros(0, np.int64),) * 3 + (np.zeros(0),) * 2
    neuron, rank, label, precision, lift = map(np.concatenate, zip(empty, *columns, strict=True))
    average = average_precisions(scores, sample, neuron, label)
    return NeuronLabels(neuron, rank, label, precision, lift, average)


def concept_precisions(exemplars: np.ndarray, shown: Shown, concepts: np.ndarray) -> np.ndarray:
    """Share of each neuron's exemplars that show each concept, [C, F] float64; 0 for a dead neuron.

    concepts [C]: the label that stands for each, -1 for none. exemplars as for `best_labels`.
    """
    n_labels = int(max(concepts.max(initial=-1), shown.labels.max(initial=-1))) + 1
    concept_of = np.full(n_labels, -1)
    concept_of[concepts[concepts >= 0]] = np.flatnonzero(concepts >= 0)
    shares = np.zeros((len(concepts), len(exemplars)))
    for counts in _counts(exemplars, shown, n_labels):
        concept = concept_of[counts.label]
        known = concept >= 0
        shares[concept[known], counts.neuron[known]] = counts.count[known]
    return shares / np.maximum(np.count_nonzero(exemplars >= 0, axis=1), 1)


def names_of(
    labels: NeuronLabels,
    n_neurons: int,
    best: BestConcepts | None,
    concepts: np.ndarray,
    rates: BaseRates,
    sample: Sample,
    scores: ByNeuron,
) -> Names:
    """The label that each neuron is called by: what its patches show best, else its best label.

    A label that fewer than half of its exemplars show is no name. best: from ground truth per patch, where
    the source has it; concepts [C]: the label that stands for each concept.
    """
    zeros, unknown = (np.zeros(n_neurons) for _ in range(2)), np.full(n_neurons, np.nan)
    names = Names(np.full(n_neurons, -1), *zeros, unknown)
    fit = np.flatnonzero(labels.precision >= LEAST_PRECISION)
    first = fit[run_starts(labels.neuron[fit])]
    for name, column in zip(names, labels[2:], strict=True):
        name[labels.neuron[first]] = column[first]
    if best is not None:
        known = np.flatnonzero(best.concept >= 0)
        label = concepts[best.concept[known]]
        names.label[known], names.precision[known] = label, best.precision[known]
        names.lift[known] = best.precision[known] / np.maximum(rates.of(label), 1 / max(rates.n_images, 1))
        names.average_precision[known] = average_precisions(scores, sample, known, label)
    return names


def average_precisions(
    scores: ByNeuron, sample: Sample, neurons: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """How well each neuron's score ranks the sampled images that show a label, [n] float64, for n pairs.

    The mean, over the sampled images that show it, of the precision down to their rank; of equal scores the
    lower number goes first. The images where the neuron does not fire are one block at the end: those in it
    that show the label count with the precision of the whole sample. NaN when fewer than two show it.
    """
    rows = np.repeat(np.arange(scores.n_rows), np.diff(sample.label_starts))
    order = np.argsort(sample.labels, kind="stable")
    rows, edges = rows[order], np.searchsorted(sample.labels[order], np.arange(labels.max(initial=-1) + 2))
    relevant = np.diff(edges)[labels] if len(labels) else np.zeros(0, np.int64)
    found = np.full(len(labels), np.nan)
    known = np.flatnonzero(relevant >= LEAST_EXEMPLARS)
    known = known[np.argsort(labels[known], kind="stable")]
    costs = np.diff(scores.starts)[neurons[known]] + _ENTRIES // 4096
    for part in runs(costs, _ENTRIES):
        pairs = known[part]
        kinds, kind = np.unique(labels[pairs], return_inverse=True)
        shows = np.zeros((len(kinds), scores.n_rows), dtype=bool)
        counts = edges[kinds + 1] - edges[kinds]
        shows[np.repeat(np.arange(len(kinds)), counts), rows[spans(edges[kinds], counts)]] = True
        hits, total = _hits(scores, neurons[pairs], shows, kind)
        share = relevant[pairs] / scores.n_rows
        found[pairs] = (total + (relevant[pairs] - hits) * share) / relevant[pairs]
    return found


def _hits(
    scores: ByNeuron, neurons: np.ndarray, shows: np.ndarray, kind: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of the images where each neuron fires, how many show its label, and the sum of the precisions at
    them."""
    lengths = scores.starts[neurons + 1] - scores.starts[neurons]
    pair = np.repeat(np.arange(len(neurons)), lengths)
    begins = np.cumsum(lengths) - lengths
    hit = np.flatnonzero(shows[kind[pair], scores.rows[spans(scores.starts[neurons], lengths)]])
    pair = pair[hit]
    nth = np.arange(len(hit)) - np.searchsorted(pair, pair) + 1
    depth = hit - begins[pair] + 1
    hits = np.bincount(pair, minlength=len(neurons))
    return hits, np.bincount(pair, weights=nth / depth, minlength=len(neurons))


def _counts(exemplars: np.ndarray, shown: Shown, n_labels: int) -> Iterator[_Counts]:
    """The counts of a block of neurons at a time."""
    lengths = np.diff(shown.starts)
    step = max(1, _EXEMPLARS // max(1, exemplars.shape[1]))
    for begin in range(0, len(exemplars), step):
        block = exemplars[begin : begin + step]
        neuron, place = np.nonzero(block >= 0)
        image = block[neuron, place]
        labels = shown.labels[spans(shown.starts[image], lengths[image])]
        pairs = np.repeat(neuron, lengths[image]) * n_labels + labels
        pairs.sort()
        starts = run_starts(pairs)
        neuron, label = np.divmod(pairs[starts], max(n_labels, 1))
        yield _Counts(neuron + begin, label, np.diff(np.append(starts, len(pairs))))


def _ranked(counts: _Counts, held: np.ndarray, rates: BaseRates) -> tuple[np.ndarray, ...]:
    """The best pairs of a block: neuron, rank, label, precision, lift."""
    enough = counts.count >= LEAST_EXEMPLARS
    neuron, label, count = (column[enough] for column in counts)
    precision, base = count / held[neuron], rates.of(label)
    above = (precision > base) & (base > 0)
    neuron, label, precision, base = neuron[above], label[above], precision[above], base[above]
    missed = 1 - precision
    surprise = precision * np.log(precision / base)
    surprise += missed * np.log(np.where(missed > 0, missed, 1) / (1 - base))
    order = np.lexsort((label, -surprise * held[neuron], neuron))
    neuron = neuron[order]
    rank = np.arange(len(order)) - np.searchsorted(neuron, neuron)
    best = rank < PER_NEURON
    order, neuron, rank = order[best], neuron[best], rank[best]
    lift = precision[order] / base[order]
    return neuron, rank, label[order].astype(np.int64), precision[order], lift
