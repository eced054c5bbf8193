"""Sparse autoencoders: the one class, loaders of other projects' files, and training.

Knows no model and no store.
"""

from explorer.sae.formats import load_sae
from explorer.sae.model import SAE, ActivationRule, Scale, Scaling, SparseCodes

__all__ = ["SAE", "ActivationRule", "Scale", "Scaling", "SparseCodes", "load_sae"]
