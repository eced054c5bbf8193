"""The activations of some neurons, made dense: what every analysis of a picture starts from.

Knows sparse activations; nothing of pictures or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from explorer.errors import EditError
from explorer.sae import SparseCodes


class Entries(NamedTuple):
    """Activations of a list of neurons: their patches, the neurons' places in the list, and their values."""

    tokens: Tensor
    places: Tensor
    values: Tensor


def entries(codes: SparseCodes, neurons: np.ndarray) -> Entries:
    """The activations of `neurons` [n] int64, each of which stands there once."""
    order = np.argsort(neurons, kind="stable")
    ascending, fired = neurons[order], codes.neurons.numpy()
    found = np.searchsorted(ascending, fired).clip(max=max(len(neurons) - 1, 0))
    here = ascending[found] == fired if len(neurons) else np.zeros(len(fired), dtype=bool)
    places = torch.from_numpy(order[found[here]]) if len(neurons) else torch.zeros(0, dtype=torch.int64)
    mask = torch.from_numpy(here)
    return Entries(codes.tokens[mask], places, codes.values[mask])


def columns(codes: SparseCodes, neurons: np.ndarray, patches: int) -> Tensor:
    """The activations [patches, n] float32 of `neurons` [n] int64, each of which stands there once."""
    found = entries(codes, neurons)
    z = torch.zeros(patches, len(neurons))
    z[found.tokens, found.places] = found.values
    return z


def checked(neurons: Sequence[int], n_neurons: int) -> np.ndarray:
    """Neurons as [n] int64, each once, in the order given. Raises EditError for none, or a strange one."""
    for neuron in neurons:
        if isinstance(neuron, bool) or int(neuron) != neuron or not 0 <= neuron < n_neurons:
            raise EditError(f"there is no neuron {neuron!r}: this SAE has {n_neurons}, counted from 0")
    if not len(neurons):
        raise EditError("name at least one neuron")
    return np.array(list(dict.fromkeys(map(int, neurons))), dtype=np.int64)
