"""The named errors of the explorer.

Every error that a person can cause is an `ExplorerError`: its message quotes what was wrong
and says what to do. Anything else that escapes is a bug.
"""


class ExplorerError(Exception):
    """Base of all errors with a message meant for the person at the keyboard."""


class ImageError(ExplorerError):
    """A picture that cannot be read, or that is too large to take."""


class ModelError(ExplorerError):
    """A model folder or hub name that cannot be opened, or is of an unsupported family."""


class SAEError(ExplorerError):
    """A sparse autoencoder that cannot be loaded, or does not fit the model's site."""


class UnsafeFileError(SAEError):
    """A checkpoint that asks for more than tensors and plain values. Nothing of it was run."""


class StoreError(ExplorerError):
    """A store that is missing, unfinished, of another format, or of another model or SAE."""


class EditError(ExplorerError):
    """An intervention or analysis of an unknown neuron, with a number outside its limits, or a mask that
    does not fit."""


class SourceError(ExplorerError):
    """An image source that does not exist or holds no pictures."""


class WorldError(ExplorerError):
    """A scene request that the drawn world does not know (family, style, concept)."""


class CaseError(ExplorerError):
    """A case file that is damaged, too large or of another format, or a case that cannot be kept."""
