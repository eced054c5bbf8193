"""What neurons mean, as rows of the store: names, labels, concepts, partners, words, summaries.

Asks `meaning` in turn and writes what it answers. Knows a finished state and the writer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from explorer.records import NeuronSummary
from explorer.store import StoreWriter
from explorer.store.rows import ConceptRow, LabelImagesRow, LabelRow, PartnerRow, WordRow
from index.meaning.by_neuron import ByNeuron, by_neuron
from index.meaning.concepts import BestConcepts, best_concepts, carried, concept_rows, facts_of, rank_scores
from index.meaning.labels import (
    BaseRates,
    Names,
    NeuronLabels,
    Shown,
    best_labels,
    concept_precisions,
    names_of,
)
from index.meaning.monosemanticity import Monosemanticity, monosemanticity
from index.meaning.partners import Partners, partners
from index.meaning.read_out import ReadOut
from index.meaning.words import NeuronWords
from index.stage.state import BuildState
from index.stage.statistics import NeuronFacts
from index.work import SourceFacts


@dataclass(frozen=True, eq=False)
class Material:
    """What naming reads.

    state; found: its statistics; facts: of the source; exemplars [F, P] int64: store images, -1 for an empty
    place; shown: what each store image shows; entropies [F]: of the exemplars' labels, NaN where unknown.
    """

    state: BuildState
    found: NeuronFacts
    facts: SourceFacts
    exemplars: np.ndarray
    shown: Shown
    entropies: np.ndarray


class Measures(NamedTuple):
    """What the sample alone tells: scores by neuron, how alike their images are, and who fires together."""

    scores: ByNeuron
    alike: Monosemanticity
    partners: Partners


def measure(state: BuildState) -> Measures:
    """Measure all neurons on the sample."""
    sample, n_neurons = state.sample, state.shape.n_neurons
    scores = by_neuron(sample, n_neurons)
    return Measures(scores, monosemanticity(scores, sample.embeddings), partners(sample, n_neurons))


class _Concepts(NamedTuple):
    """From ground truth per patch: the rows, and what each neuron's patches show best."""

    rows: list[ConceptRow]
    best: BestConcepts | None


def write_meaning(
    writer: StoreWriter, material: Material, directions: np.ndarray, measures: Measures
) -> float | None:
    """Write neurons, labels, concepts, the read-out and partners; returns the monosemanticity's baseline."""
    state, facts = material.state, material.facts
    sample = state.sample
    scores, alike, partners = measures
    rates = BaseRates(state.label_images, state.n_images)
    label_of = _label_of_concepts(facts)
    concepts = _concepts(writer, material, label_of, directions)
    labels = best_labels(material.exemplars, material.shown, rates, sample, scores)
    names = names_of(labels, len(directions), concepts.best, label_of, rates, sample, scores)
    writer.add_labels(label_rows(labels, facts.vocabulary))
    writer.add_label_images(
        LabelImagesRow(kind, name, images)
        for (kind, name), images in zip(facts.vocabulary, state.label_images.tolist(), strict=True)
    )
    writer.add_concepts(concepts.rows)
    writer.add_partners(partner_rows(partners))
    histograms = material.found.score_histogram, material.found.active_histogram
    rows = summaries(material.found, names, facts.vocabulary, alike, material.entropies)
    writer.add_neurons(rows, *histograms)
    return _known(alike.baseline)


def _label_of_concepts(facts: SourceFacts) -> np.ndarray:
    """The label that stands for each concept [C], -1 for none."""
    places = {name: place for place, (_, name) in reversed(list(enumerate(facts.vocabulary)))}
    return np.array([places.get(concept, -1) for concept in facts.concepts], dtype=np.int64)


def _concepts(
    writer: StoreWriter, material: Material, label_of: np.ndarray, directions: np.ndarray
) -> _Concepts:
    """Rank neurons by what their patches show, where the source knows; write the read-out."""
    state, names = material.state, material.facts.concepts
    if state.evidence is None or state.probes is None or not state.evidence.on_patches.any():
        return _Concepts([], None)
    sums = facts_of(state.evidence)
    precision = concept_precisions(material.exemplars, material.shown, label_of)
    read_out = ReadOut(state.probes)
    writer.add_probe(read_out.probe(names))
    rows = concept_rows(names, sums, carried(sums, read_out.contrasts(), directions), precision)
    return _Concepts(rows, best_concepts(rank_scores(sums), precision))


def label_rows(labels: NeuronLabels, vocabulary: Sequence[tuple[str, str]]) -> Iterator[LabelRow]:
    """The best labels as rows."""
    for neuron, rank, label, precision, lift, average in zip(*(c.tolist() for c in labels), strict=True):
        yield LabelRow(neuron, rank, *vocabulary[label], precision, lift, _known(average))


def summaries(
    found: NeuronFacts,
    names: Names,
    vocabulary: Sequence[tuple[str, str]],
    alike: Monosemanticity,
    entropies: np.ndarray,
) -> Iterator[NeuronSummary]:
    """The summary of each neuron; its class is the store's to tell."""
    columns = (*found[:9], *names, alike.score, alike.images, entropies)
    for neuron, row in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        fires, patch_fires, in_top, mean, variance, peak, active_mean, active_variance, active_peak = row[:9]
        label, precision, lift, average, score, images, entropy = row[9:]
        kind, name = vocabulary[label] if label >= 0 else ("", "")
        yield NeuronSummary(
            neuron,
            fires,
            in_top,
            mean,
            peak,
            label=name,
            precision=precision,
            kind=kind,
            patch_fires=patch_fires,
            variance=variance,
            active_mean=active_mean,
            active_variance=active_variance,
            active_peak=active_peak,
            lift=lift,
            average_precision=_known(average),
            monosemanticity=_known(score),
            monosemanticity_images=images,
            entropy=_known(entropy),
        )


def partner_rows(found: Partners) -> Iterator[PartnerRow]:
    """The partners as rows."""
    columns = (found.neuron, found.rank, found.partner, found.together / found.fires, found.cosine)
    yield from map(PartnerRow, *(column.tolist() for column in columns))


def word_rows(words: NeuronWords) -> Iterator[WordRow]:
    """The words as rows."""
    yield from map(WordRow, words.neuron.tolist(), words.rank.tolist(), words.word, words.gain.tolist())


def _known(value: float) -> float | None:
    """None for NaN, which stands for "not known"."""
    return None if value != value else value
