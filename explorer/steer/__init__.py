"""Interventions on a picture's activations. Knows vectors and neurons; nothing of models or stores."""

from explorer.steer.edits import apply_edits

__all__ = ["apply_edits"]
