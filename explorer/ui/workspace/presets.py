"""What the presets that ship with the page ask of bench and settings. People's own stay in their browser."""

from __future__ import annotations

from dataclasses import dataclass, replace

from explorer.cases import settings
from explorer.cases.settings import Settings


@dataclass(frozen=True)
class Preset:
    """A way to steer. meaning: one line; settings: all of them; empty: whether it clears the bench too."""

    name: str
    meaning: str
    settings: Settings
    empty: bool = False


_GENTLE = Settings(cns=True, step=300, strength=0.5)

SHIPPED = (
    Preset("Empty bench", "No neuron, no contrast: the untouched model.", Settings(), empty=True),
    Preset("CNS as in the paper", "Contrast with noise at t = 500, λ = 1.", Settings(cns=True)),
    Preset("Gentle CNS", "Contrast with noise at t = 300, λ = 0.5.", _GENTLE),
    Preset("VCD", "Words contrasted with those of the noisy picture.", Settings(method="vcd")),
    Preset("VCD and gentle CNS", "Both: neurons and words.", replace(_GENTLE, method="vcd")),
    Preset("SAE alone", "No neuron changed, but what the SAE misses is lost.", Settings(replace=True), True),
    Preset(
        "A livelier answer",
        "Words are drawn: temperature 0.7, top-p 0.9.",
        Settings(temperature=0.7, top_p=0.9),
    ),
)


def offered(stored: bool) -> list[dict[str, str | None]]:
    """The presets as the browser takes them: JSON of bench (None: as it is) and settings.

    stored: whether there is a store; without one, nobody knows which neurons are always on.
    """
    return [
        {
            "name": preset.name,
            "meaning": preset.meaning,
            "bench": "[]" if preset.empty else None,
            "settings": settings.dump(preset.settings if stored else _unaided(preset.settings)),
        }
        for preset in SHIPPED
    ]


def _unaided(wanted: Settings) -> Settings:
    """The same, asking nothing of a store."""
    return replace(wanted, suppress_always_on=False) if wanted.cns else wanted
