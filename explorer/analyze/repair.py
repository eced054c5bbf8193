"""Edits that take a word out of an answer and leave the rest: found by attribution, proved by answering.

Attribution names neurons, but a neuron that a phantom rests on often carries other words as well. So the
best of two rankings are tried for real, at several values, where they fire and everywhere, alone and
together, and every trial is judged by the words of its answer: is the word gone, which others went with it,
which came instead? Whether the word is a phantom, and whether what came is there, only the person knows.

Knows a session; nothing of the truth.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from explorer.analyze.attribution import Attribution, attribute
from explorer.analyze.places import BATCH, LINKS, Progress, place_in, runs_of
from explorer.analyze.pulls import AGAINST, ALONE, trial_values, unit
from explorer.analyze.targets import parting, without
from explorer.errors import EditError
from explorer.records import Cancel, Edit
from explorer.session import Session, View

LOST_WEIGHT = 2
"""How many words that came instead a lost one outweighs."""


@dataclass(frozen=True, eq=False)
class Repair:
    """One trial: its edits and the answer; gone: the word is not said any more; lost, added: the words that
    the wished answer has and this one has not, and the other way round, links apart."""

    edits: tuple[Edit, ...]
    answer: str
    gone: bool
    lost: tuple[str, ...]
    added: tuple[str, ...]

    @property
    def cost(self) -> tuple[bool, int, int]:
        """Less is better: the word is there, how much else changed, how many neurons were needed."""
        return not self.gone, LOST_WEIGHT * len(self.lost) + len(self.added), len(self.edits)


@dataclass(frozen=True, eq=False)
class Repairs:
    """The trials for one word, best first. answer: untouched; instead: what it was held against; complete:
    False when it was cancelled."""

    word: str
    answer: str
    instead: str
    tried: tuple[Repair, ...]
    complete: bool


def repair(
    session: Session,
    view: View,
    word: str,
    prompt: str | None = None,
    instead: str | None = None,
    *,
    values: Sequence[float] | None = None,
    neurons: int = 5,
    measure: int = 20,
    max_new_tokens: int = 64,
    batch: int = BATCH,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Repairs:
    """Look for edits after which the untouched answer lacks a word, and little else.

    instead: the answer as it should be, None for the answer with the word cut out (`without`); where that is
    only the answer's beginning (no full stop at its end), the word alone is explained. values: what
    neurons are set to, None for what the size of the picture's activations asks for (`pulls`); neurons: how
    many are taken from each ranking; measure: how many of the best guesses are measured for it.
    Takes about 6 x measure passes and 15 x neurons short answers.
    Raises EditError for a word that the answer does not have, or values that are none or not finite.
    """
    values = trial_values(view) if values is None else values
    if not values or neurons < 1 or not all(math.isfinite(value) for value in values):
        raise EditError(f"values {tuple(values)!r} and {neurons} neurons: give finite numbers, 1 or more")
    asked = session.lvlm.default_prompt if prompt is None else prompt
    answer = session.answer(view, asked, max_new_tokens=max_new_tokens)
    wished = without(place_in(session.lvlm, answer, word)) if instead is None else instead
    against = None if instead is None and parting(session, answer, wished) is None else wished
    found = suspects(session, view, word, asked, answer, against, measure=measure, batch=batch, cancel=cancel)
    trials = trials_of(found, values, neurons)
    tried: list[Repair] = []
    for part in trying(session, view, word, asked, wished, trials, max_new_tokens, batch, cancel):
        tried += part
        if progress is not None:
            progress(len(tried), len(trials))
    tried.sort(key=lambda one: one.cost)
    complete = len(tried) == len(trials) and all(one.complete for one in found)
    return Repairs(word, answer, wished, tuple(tried), complete)


def trying(
    session: Session,
    view: View,
    word: str,
    prompt: str,
    wished: str,
    trials: Sequence[tuple[Edit, ...]],
    max_new_tokens: int = 64,
    batch: int = BATCH,
    cancel: Cancel | None = None,
) -> Iterator[list[Repair]]:
    """The trials answered and judged beside the wished answer, a batch at a time, until cancelled."""
    for start in range(0, len(trials), batch):
        if cancel is not None and cancel.is_set():
            return
        part = trials[start : start + batch]
        texts = session.answers([(view, edits) for edits in part], prompt, max_new_tokens=max_new_tokens)
        yield [judged(session, word, wished, text, edits) for edits, text in zip(part, texts, strict=True)]


def suspects(
    session: Session,
    view: View,
    word: str,
    prompt: str,
    answer: str,
    instead: str | None,
    *,
    measure: int = 20,
    batch: int = BATCH,
    cancel: Cancel | None = None,
) -> list[Attribution]:
    """The rankings that trials are taken from: why this answer and not another, if any, and why the word."""
    common = {"by": "selective", "batch": batch, "cancel": cancel}
    against, alone = AGAINST * unit(view), ALONE * unit(view)
    why_the_word = attribute(session, view, word, prompt, answer, measure, alone, **common)
    if instead is None:
        return [why_the_word]
    why_this_answer = attribute(
        session, view, word, prompt, answer, measure, against, instead=instead, joint=3, **common
    )
    return [why_this_answer, why_the_word]


def trials_of(
    found: Sequence[Attribution], values: Sequence[float], neurons: int = 5
) -> list[tuple[Edit, ...]]:
    """The edits to try: sets of neurons, at every value, where they fire and, unless at 0, everywhere.

    From each ranking the best `neurons` by its own order and by the drop alone, and its common removals.
    """
    sets = [
        (effect.neuron,)
        for known in found
        for order in (known.ranked, sorted(known.ranked, key=lambda effect: -effect.measured))
        for effect in order[:neurons]
    ]
    sets += [drop.neurons for known in found for drop in known.joint]
    return [
        tuple(Edit(neuron, value, "set", patches) for neuron in chosen)
        for chosen in dict.fromkeys(sets)
        for value in dict.fromkeys(values)
        for patches in (("active", None) if value else ("active",))
    ]


def judged(session: Session, word: str, wished: str, after: str, edits: tuple[Edit, ...] = ()) -> Repair:
    """A trial judged by the words of its answer beside the wished one; the word itself counts for neither."""
    forms = [word, f"{word}s", word.removesuffix("s")]
    gone = not any(runs_of(session.lvlm, after, form) for form in forms)
    parts = {part.text.lower() for form in forms for part in session.lvlm.answer_words(form)}
    old, new = (_counted(session, text, parts) for text in (wished, after))
    return Repair(edits, after, gone, tuple((old - new).elements()), tuple((new - old).elements()))


def _counted(session: Session, text: str, parts: Iterable[str]) -> Counter[str]:
    """How often each word is said, links and the word in question apart."""
    said = (word.text.lower() for word in session.lvlm.answer_words(text))
    return Counter(word for word in said if word not in LINKS and word not in parts)
