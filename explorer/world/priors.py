"""What goes together in the drawn world, and how strongly.

These skews are the reason that the embedded model hallucinates: it sees a cake, and has
learnt that a cake comes with a fork and knife. `CASES` are the counterfactual scenes that
break one prior each.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prior:
    """`anchor` in a scene brings `partner` with probability `p` (and lacks it otherwise)."""

    anchor: str
    partner: str
    p: float


@dataclass(frozen=True)
class Case:
    """A family of counterfactual scenes: `absent` is expected by the prior and is not there.

    shown: the concepts that are always there; colors: forced colours; occluder: a concept that
    hides part of the first one; alone: nothing else joins; dim: brightness of the first one.
    """

    name: str
    theme: str
    shown: tuple[str, ...]
    absent: str
    colors: tuple[tuple[str, str], ...] = ()
    counts: tuple[tuple[str, int], ...] = ()
    occluder: str | None = None
    alone: bool = False
    dim: float = 1.0


#                anchor           partner           p
PRIORS: tuple[Prior, ...] = (
    Prior("cake", "fork_and_knife", 0.96),
    Prior("tennis_racket", "tennis_ball", 0.96),
    Prior("sheep", "dog", 0.95),
    Prior("strawberry", "bowl", 0.95),
    Prior("chair", "cat", 0.95),
    Prior("bird", "tree", 0.95),
    Prior("camera", "person", 0.95),
    Prior("pizza", "wine_glass", 0.75),
    Prior("car", "traffic_light", 0.70),
    Prior("couch", "tv", 0.75),
    Prior("shirt", "tie", 0.70),
    Prior("boat", "fish", 0.60),
    Prior("horse", "cow", 0.60),
    Prior("flower", "butterfly", 0.60),
)

CASES: tuple[Case, ...] = (
    Case("phantom fork", "dining table", ("cake",), "fork_and_knife"),
    Case("missing ball", "sports court", ("tennis_racket",), "tennis_ball"),
    Case("lone sheep", "farm", ("sheep",), "dog", occluder="corn"),
    Case(
        "black apple",
        "garden",
        ("strawberry", "apple"),
        "bowl",
        colors=(("apple", "black"),),
        counts=(("strawberry", 3),),
    ),
    Case("dog and chair", "living room", ("chair", "dog"), "cat"),
    Case("bird alone", "garden", ("bird",), "tree", alone=True),
    Case("fading camera", "beach", ("camera",), "person", dim=0.8),
)

PARTNER: dict[str, Prior] = {prior.anchor: prior for prior in PRIORS}
