"""What became of a phantom after an edit, judged by the scene's truth, and how arms of edits compare.

Knows texts, scenes and counts; runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from explorer.evals.scores import Interval, interval, tally
from explorer.world import Scene, mentions


class Outcome(NamedTuple):
    """One edited answer beside the untouched one.

    scene: its seed; case: its counterfactual; gone: the phantom is no longer named; others: how many things
    that are there the untouched answer named; kept: how many of them are still named; added: how many things
    that are not there are named now and were not.
    """

    scene: int
    case: str
    gone: bool
    others: int
    kept: int
    added: int

    @property
    def repaired(self) -> bool:
        """The phantom is gone and all the others are still named."""
        return self.gone and self.kept == self.others

    @property
    def clean(self) -> bool:
        """Repaired, and nothing false came instead."""
        return self.repaired and not self.added


class ArmScores(NamedTuple):
    """Shares with their confidence intervals: of phantoms gone, repaired and clean, of the other right
    things that are still named; and false things added per answer."""

    phantoms: int
    gone: Interval
    repaired: Interval
    clean: Interval
    others_kept: Interval
    added: Interval


def caption_outcome(scene: Scene, before: str, after: str) -> Outcome:
    """Judge the caption `after` an edit beside the one `before`; objects are read by `mentions`."""
    truth = {thing.concept for thing in scene.objects}
    said, says = set(mentions(before)), set(mentions(after))
    right = said & truth
    return Outcome(
        scene.seed,
        str(scene.case),
        scene.absent_partner not in says,
        len(right),
        len(right & says),
        len(says - truth - said),
    )


def scored(outcomes: Sequence[Outcome]) -> ArmScores:
    """The scores of one arm, bootstrapped over scenes."""
    scenes = [outcome.scene for outcome in outcomes]
    ones = [1] * len(outcomes)

    def share(parts: Sequence[float], wholes: Sequence[float] = ones) -> Interval:
        return interval(tally(scenes, parts, wholes))

    return ArmScores(
        phantoms=len(outcomes),
        gone=share([o.gone for o in outcomes]),
        repaired=share([o.repaired for o in outcomes]),
        clean=share([o.clean for o in outcomes]),
        others_kept=share([o.kept for o in outcomes], [o.others for o in outcomes]),
        added=share([o.added for o in outcomes]),
    )


def by_case(outcomes: Sequence[Outcome]) -> dict[str, ArmScores]:
    """The scores of one arm for each counterfactual, the most frequent first."""
    cases: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        cases.setdefault(outcome.case, []).append(outcome)
    return {case: scored(cases[case]) for case in sorted(cases, key=lambda name: -len(cases[name]))}


def table(arms: Mapping[str, ArmScores]) -> str:
    """The arms as lines for people: percentages with their 95 % intervals."""
    width = max((len(name) for name in arms), default=0)
    heads = ("gone", "and others kept", "and none added", "others kept", "added")
    lines = [f"{'':{width}}  {heads[0]:>13}  {heads[1]:>15}  {heads[2]:>14}  {heads[3]:>13}  {heads[4]}"]
    for name, arm in arms.items():
        lines.append(
            f"{name:{width}}  {_percent(arm.gone):>13}  {_percent(arm.repaired):>15}  "
            f"{_percent(arm.clean):>14}  {_percent(arm.others_kept):>13}  {arm.added.value:5.2f}"
        )
    return "\n".join(lines)


def _percent(score: Interval) -> str:
    value, low, high = (100 * part for part in score)
    return f"{value:.0f} ({low:.0f}-{high:.0f})"
