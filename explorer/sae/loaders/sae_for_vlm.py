"""SAEs that ExplainableML/sae-for-vlm trained: dictionary_learning's files with a spelling of their own.

The configuration says `MatroyshkaBatchTopKSAE` and has no "buffer"; the scripts read
`checkpoints/ae_STEP.pt`, whose configuration lies one folder up. A threshold of -1 was never set: it acts as
0.
"""

from __future__ import annotations

from collections.abc import Mapping

from explorer.sae.loaders import dictionary_learning
from explorer.sae.loaders.found import Found
from explorer.sae.model import SAE

NAME = "sae-for-vlm"
HINTS = dictionary_learning.HINTS
PROJECT = "ExplainableML/sae-for-vlm"


def claims(found: Found) -> bool:
    """Whether the configuration spells it Matroyshka."""
    trainer = dictionary_learning.trainer_of(found)
    return any("Matroyshka" in str(trainer.get(name)) for name in ("dict_class", "trainer_class"))


def load(found: Found, hints: Mapping[str, object]) -> SAE:
    """The SAE with the activations of the peer's default `encode`. Raises SAEError."""
    return dictionary_learning.build(found, hints, PROJECT)
