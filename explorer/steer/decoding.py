"""Ways to pick the words of an answer: plainly, or contrasted with what a worse look at the picture says.

A method is three things: the branches that the language model reads, how its attention is changed
meanwhile, and a function that picks each token from the branches' logits. The first branch is always the
question about the given picture, so that any intervention on the picture composes with any method. VCD's
noisy picture is never steered; ICD's second branch reads the same picture as the first. Knows the seam of
the language model, not how it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from explorer.errors import EditError
from explorer.steer import scores
from explorer.steer.checks import number, seed, whole
from explorer.steer.noise import STEPS
from explorer.vlm.base import Asked, AttentionEdit, Choose

Method = Literal["plain", "vcd", "m3id", "icd", "pai", "vaf"]
ALPHA = {"vcd": 1.0, "icd": 1.0, "pai": 0.2}
"""The defaults of alpha: weight of the contrast (VCD, ICD), gain of the picture's attention (PAI)."""

DISTURBANCE = "You are a confused objects detector to provide a fuzzy overview or impression of the image."
LARGEST = 100.0
"""Largest weight, factor, gamma and temperature that anybody can mean."""

COLDEST = 1e-6
"""Below this temperature sampling is greedy: scores would not be finite."""

PUBLISHED_LAYERS = 32
"""Of the language model that PAI and VAF give their layers for (LLaVA-1.5-7B)."""


@dataclass(frozen=True)
class Decoding:
    """How an answer is decoded, with the defaults of the papers.

    method: "plain"; "vcd" contrasts with the noisy picture, "icd" with a disturbing instruction in front,
    "m3id" with no picture, "pai" too and makes the answer look at the picture more, "vaf" only changes
    attention.
    alpha: None for the method's own (see ALPHA); beta: the plausibility cutoff, 0 for none.
    temperature: 0 is greedy; top_k, top_p: what sampling is confined to (0 and 1: everything);
    seed: of the sampling, fixed for each place of the answer.
    step, noise_seed: of VCD's noise. decay: M3ID's, for each token. gamma: PAI's guidance.
    disturbance: ICD's instruction. image_factor, system_factor: VAF's, of attention scores to the picture
    and to the text before it. layers: whose attention PAI and VAF change, the first and the one after the
    last; None for the papers' (see `attention`).
    Raises EditError for a method or a number outside what is allowed.
    """

    method: Method = "plain"
    alpha: float | None = None
    beta: float = 0.1
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    step: int = 500
    noise_seed: int = 0
    decay: float = 0.02
    gamma: float = 1.1
    disturbance: str = DISTURBANCE
    image_factor: float = 1.15
    system_factor: float = 0.95
    layers: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise EditError(f"unknown decoding {self.method!r}; use one of {', '.join(get_args(Method))}")
        limits = dict(beta=1.0, temperature=LARGEST, decay=10.0, gamma=LARGEST)
        limits |= dict(image_factor=LARGEST, system_factor=LARGEST)
        limits |= {} if self.alpha is None else {"alpha": LARGEST}
        for name, high in limits.items():
            object.__setattr__(self, name, number(name, getattr(self, name), 0.0, high))
        number("top_p", self.top_p, 0.0, 1.0, above=True)
        object.__setattr__(self, "top_k", whole("top_k", self.top_k, 0))
        object.__setattr__(self, "seed", seed("the seed", self.seed))
        object.__setattr__(self, "step", whole("the noise step", self.step, 0, STEPS - 1))
        object.__setattr__(self, "noise_seed", seed("the noise seed", self.noise_seed))
        if not isinstance(self.disturbance, str) or (self.method == "icd" and not self.disturbance.strip()):
            raise EditError(
                f"the disturbance {self.disturbance!r} is no instruction; say what disturbs the model"
            )
        if self.layers is not None:
            object.__setattr__(self, "layers", _span(self.layers))

    @property
    def needs_noisy(self) -> bool:
        """Whether `asked` needs the features of the noisy picture."""
        return self.method == "vcd"

    @property
    def strength(self) -> float:
        """alpha, or the method's own; 0 for methods without one."""
        return ALPHA.get(self.method, 0.0) if self.alpha is None else self.alpha

    def attention(self, layers: int) -> AttentionEdit | None:
        """How the attention of a language model of so many layers is changed for the question; None: not.

        PAI: layers 2 to 31 from the first token of the answer on, for fewer layers from at most the last
        one. VAF: layers 9 to 14 of 32 for all text, for another number of layers the same fractions of
        them. Raises EditError for layers that the model does not have.
        """
        if self.method not in ("pai", "vaf"):
            return None
        span = self.layers or _published(self.method, layers)
        if span[1] > layers:
            raise EditError(f"layers {span[0]} to {span[1]} go beyond the {layers} of this language model")
        if self.method == "pai":
            return AttentionEdit(span, "answer", image_gain=self.strength)
        return AttentionEdit(span, "text", image_factor=self.image_factor, system_factor=self.system_factor)

    def asked(
        self,
        prompt: str,
        features: Tensor,
        noisy_features: Tensor | None = None,
        layers: int | None = None,
    ) -> list[Asked]:
        """The branches, the question first: about image features [N, D], steered or not.

        noisy_features: those of the noisy picture, for "vcd"; layers: how many the language model has, for
        "pai" and "vaf". Raises EditError when one of them is missing.
        """
        if self.needs_noisy and noisy_features is None:
            raise EditError("'vcd' needs the features of the noisy picture; look at it with noise first")
        if self.method in ("pai", "vaf") and layers is None:
            raise EditError(f"{self.method!r} needs to know how many layers the language model has")
        question = Asked(prompt, features, attention=None if layers is None else self.attention(layers))
        match self.method:
            case "vcd":
                return [question, Asked(prompt, noisy_features)]
            case "icd":
                return [question, Asked(prompt, features, preface=self.disturbance)]
            case "m3id" | "pai":
                return [question, Asked(prompt, None)]
            case _:
                return [question]

    def choose(self) -> Choose | None:
        """Picks a token from the logits of the branches of `asked`; None for the likeliest of the first."""
        if self.temperature < COLDEST and self.method in ("plain", "vaf"):
            return None

        def choose(logits: Sequence[Tensor], place: int) -> int:
            found = self.scores(logits, place)
            if self.temperature < COLDEST:
                return int(found.argmax())
            return scores.sampled(
                scores.warped(found, self.temperature, self.top_k, self.top_p), self.seed, place
            )

        return choose

    def scores(self, logits: Sequence[Tensor], place: int) -> Tensor:
        """The method's scores [V] of the logits [V] of the branches, before temperature."""
        match self.method:
            case "vcd" | "icd":
                return scores.vcd_scores(*logits, self.strength, self.beta)
            case "m3id":
                return scores.m3id_scores(*logits, place, self.decay, self.beta)
            case "pai":
                return scores.cfg_scores(*logits, self.gamma, self.beta)
            case _:
                return logits[0]


def _published(method: Method, layers: int) -> tuple[int, int]:
    """Whose attention the papers change, in a language model of so many layers."""
    if method == "pai":
        return min(2, layers - 1), min(PUBLISHED_LAYERS, layers)
    first = round(9 / PUBLISHED_LAYERS * layers)
    return first, max(first + 1, round(15 / PUBLISHED_LAYERS * layers))


def _span(layers: object) -> tuple[int, int]:
    """The first layer and the one after the last, as numbers. Raises EditError when they are none."""
    if not isinstance(layers, tuple | list) or len(layers) != 2:
        raise EditError(f"layers must be two numbers, the first and the one after the last, not {layers!r}")
    first, end = (whole("a layer", layer, 0) for layer in layers)
    if first >= end:
        raise EditError(f"layers {first} to {end} are none; give the first and the one after the last")
    return first, end
