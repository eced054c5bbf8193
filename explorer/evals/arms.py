"""The arms of a comparison: how a model is asked, by name.

A name is a way of decoding, and what is done to the picture's activations: "vanilla", "vcd",
"m3id", "icd", "pai" or "vaf"; "+cns" adds contrastive neuron steering to it, "+replace" feeds the SAE's
reconstruction instead of keeping its error. "cns" alone is "vanilla+cns", and "sae" is
"vanilla+replace": the reconstruction with nothing done to it. Knows names and records; runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import replace as with_changed

from explorer.errors import ExplorerError
from explorer.steer import Contrast, Decoding

METHODS = ("vanilla", "vcd", "m3id", "icd", "pai", "vaf")
EXTRAS = ("cns", "replace")
EVERY_ARM = (
    "vanilla",
    "sae",
    "cns",
    "cns+replace",
    *(name for method in METHODS[1:] for name in (method, f"{method}+cns")),
)


@dataclass(frozen=True)
class Arm:
    """One way of asking.

    name: as it stands in reports; base: the name of the same arm without contrastive steering, None for
    an arm that has none; decoding, contrast, replace: as `session.answer` takes them.
    """

    name: str
    base: str | None
    decoding: Decoding
    contrast: Contrast | None
    replace: bool

    def drawn(self, seed: int, temperature: float) -> Arm:
        """The arm with one seed for all its noise, and a temperature (0: greedy)."""
        contrast = None if self.contrast is None else with_changed(self.contrast, seed=seed)
        decoding = with_changed(self.decoding, seed=seed, noise_seed=seed, temperature=temperature)
        return with_changed(self, decoding=decoding, contrast=contrast)

    @property
    def noisy(self) -> bool:
        """Whether greedy answers, too, depend on a seed."""
        return self.contrast is not None or self.decoding.needs_noisy


def arms_of(names: Iterable[str], contrasts: Iterable[Contrast]) -> list[Arm]:
    """The arms of some names; one with CNS comes once for each contrast.

    Raises ExplorerError for a name that means nothing.
    """
    variants, arms = list(contrasts), {}
    for name in names:
        words = {"cns": "vanilla+cns", "sae": "vanilla+replace"}.get(name, name).split("+")
        if words[0] in EXTRAS:
            words.insert(0, "vanilla")
        method, extras = words[0], words[1:]
        if method not in METHODS or not set(extras) <= set(EXTRAS) or len(set(extras)) < len(extras):
            raise ExplorerError(
                f"unknown arm {name!r}; use one of {', '.join((*METHODS, 'sae', 'cns'))}, "
                f"with {' or '.join(f'+{extra}' for extra in EXTRAS)} added"
            )
        decoding = Decoding("plain" if method == "vanilla" else method)
        replaced = "replace" in extras
        base = _named(method, replaced, None)
        for contrast in variants if "cns" in extras else [None]:
            arm = Arm(_named(method, replaced, contrast), base, decoding, contrast, replaced)
            arms[arm.name] = arm if contrast is not None else with_changed(arm, base=None)
    return list(arms.values())


def _named(method: str, replaced: bool, contrast: Contrast | None) -> str:
    """The name in reports; what differs from the defaults of CNS is told."""
    words = [] if method == "vanilla" else [method]
    if contrast is not None:
        usual = Contrast()
        told = {
            "t": (contrast.step, usual.step),
            "lambda": (contrast.strength, usual.strength),
            "suppress": (contrast.suppress_always_on, usual.suppress_always_on),
            "frequency": (contrast.min_frequency, usual.min_frequency),
            "clamp": (contrast.clamp, usual.clamp),
        }
        changed = [f"{key}={value:g}" for key, (value, default) in told.items() if value != default]
        words.append(f"cns({','.join(changed)})" if changed else "cns")
    if replaced:
        words.append("replace" if words else "sae")
    return "+".join(words) or "vanilla"
