"""The drawn world: scenes with exact ground truth, their language, and the embedded LVLM's training."""

from explorer.world.concepts import COLORS, CONCEPTS, THEMES
from explorer.world.priors import CASES, PRIORS
from explorer.world.scene import FAMILIES, TRAIN_SIZE, Scene, SceneObject, draw
from explorer.world.sprites import STYLES
from explorer.world.words import mentions, phrase

__all__ = [
    "CASES",
    "COLORS",
    "CONCEPTS",
    "FAMILIES",
    "PRIORS",
    "STYLES",
    "THEMES",
    "TRAIN_SIZE",
    "Scene",
    "SceneObject",
    "draw",
    "mentions",
    "phrase",
]
