"""Ways to choose neurons against a phantom, and the edits that each way leads to.

Knows attribution; nothing of the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from explorer.analyze.attribution import Attribution, NeuronEffect, attribute
from explorer.analyze.pulls import ALONE
from explorer.analyze.removals import OTHERS_WEIGHT
from explorer.analyze.repair import suspects
from explorer.records import Edit
from explorer.session import Session, View
from explorer.world import Scene

Region = Literal["active", "everywhere"]
MOST = 3
"""How many neurons are changed together at most."""


class Phantom(NamedTuple):
    """A thing that is not there, and the answer that says it is.

    word: the word of it that is attributed; instead: the answer without it.
    """

    scene: Scene
    view: View
    prompt: str
    answer: str
    word: str
    instead: str


class Ranking(NamedTuple):
    """Some neurons, best first, and the values that they are to be set to."""

    name: str
    neurons: tuple[int, ...]
    values: tuple[float, ...]


class Trial(NamedTuple):
    """One edit of one phantom's picture."""

    phantom: Phantom
    arm: str
    edits: tuple[Edit, ...]


class Rankings(NamedTuple):
    """All rankings of a phantom, and the two attributions that repairs are tried from."""

    orders: list[Ranking]
    suspects: list[Attribution]


def rankings(
    session: Session,
    phantom: Phantom,
    values: Sequence[float] = (0.0, -30.0),
    measure: int = 20,
    seed: int = 0,
    batch: int = 64,
) -> Rankings:
    """Every way of choosing neurons, three each, best first.

    "word at 0": measured for the word at 0, tried at all `values`; "word at -30": measured and tried there;
    "contrast": against the answer without the phantom, measured at -10, tried at -10 and 0 (-30 and -10 in
    units of the picture's activations, `explorer.analyze.pulls`, which are 1 for the embedded SAE). The
    controls: the "guess" by gradient alone, the "strongest" by mean activation, "random" among those that
    fire.
    """
    asked = (session, phantom.view, phantom.word, phantom.prompt, phantom.answer)
    word = attribute(*asked, measure, joint=MOST, batch=batch)
    contrast, pressed = suspects(*asked, phantom.instead, measure=measure, batch=batch)
    tried, gentle = tuple(values), tuple(dict.fromkeys((contrast.value, 0.0)))
    found = [
        *_offered("word at 0", word, tried),
        *_offered(f"word at {ALONE:g}", pressed, (pressed.value,)),
        *_offered("contrast", contrast, gentle),
    ]
    kept = [effect.neuron for effect in _by_drop(word) if not effect.always_on]
    found.append(Ranking("word at 0, measured, no always-on", tuple(kept[:MOST]), tried))
    rng = np.random.default_rng([seed, phantom.scene.seed])
    firing = np.unique(phantom.view.codes.neurons.numpy())
    drawn = rng.choice(firing, min(MOST, len(firing)), replace=False).tolist()
    strongest = [active.neuron for active in phantom.view.top(MOST)]
    every = tuple(dict.fromkeys((*tried, *gentle)))
    for name, order, here in (
        ("guess for the word", [guess.neuron for guess in word.guesses], tried),
        ("guess for the contrast", [guess.neuron for guess in contrast.guesses], gentle),
        ("strongest", strongest, every),
        ("random", drawn, every),
    ):
        found.append(Ranking(name, tuple(order[:MOST]), here))
    return Rankings(found, [contrast, pressed])


def _by_drop(known: Attribution) -> list[NeuronEffect]:
    return sorted(known.ranked, key=lambda effect: -effect.measured)


def _offered(name: str, known: Attribution, values: tuple[float, ...]) -> list[Ranking]:
    """What one attribution offers: by the drop, by the drop less others' loss, and its common removals."""
    measured = _by_drop(known)
    selective = sorted(measured, key=lambda effect: OTHERS_WEIGHT * effect.others - effect.measured)
    chosen = {
        "measured": tuple(effect.neuron for effect in measured[:MOST]),
        "selective": tuple(effect.neuron for effect in selective[:MOST]),
    }
    if known.joint:
        chosen["together"] = known.joint[-1].neurons
    return [Ranking(f"{name}, {way}", neurons, values) for way, neurons in chosen.items()]


def at_random(phantom: Phantom, trials: Sequence[tuple[Edit, ...]], seed: int = 0) -> list[tuple[Edit, ...]]:
    """The same trials with other neurons in the place of each: random ones among those that fire."""
    firing = np.unique(phantom.view.codes.neurons.numpy())
    named = sorted({edit.neuron for edits in trials for edit in edits})
    rng = np.random.default_rng([seed, phantom.scene.seed, len(named)])
    drawn = rng.choice(firing, len(named), replace=len(firing) < len(named)).tolist()
    other = dict(zip(named, drawn, strict=True))
    return [
        tuple(Edit(other[edit.neuron], edit.value, edit.mode, edit.patches) for edit in edits)
        for edits in trials
    ]


def trials_of(
    phantom: Phantom, orders: Sequence[Ranking], regions: Sequence[Region] = ("active", "everywhere")
) -> list[Trial]:
    """One, two and three neurons of each ranking at each of its values where they fire; one also everywhere.

    Zero everywhere is zero where they fire, and is not tried twice.
    """
    found = []
    for order in orders:
        for value in order.values:
            for region in regions:
                if region == "everywhere" and not value:
                    continue
                edits = [
                    Edit(neuron, value, "set", "active" if region == "active" else None)
                    for neuron in order.neurons
                ]
                found += [
                    Trial(phantom, f"{order.name} | {value:g} | {region} | {count}", tuple(edits[:count]))
                    for count in range(1, (len(edits) if region == "active" else 1) + 1)
                ]
    return found
