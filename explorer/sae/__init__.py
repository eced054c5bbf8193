"""Sparse autoencoders: the one class, its files, and its training. Knows no model and no store."""

from explorer.sae.model import SAE, ActivationRule, SparseCodes, load_sae

__all__ = ["SAE", "ActivationRule", "SparseCodes", "load_sae"]
