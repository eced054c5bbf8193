"""A made-up store that people wrote into, clean again after each test. A module's `folder` says which one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from explorer.store import Store


@pytest.fixture
def written_store(folder: Path) -> Iterator[Store]:
    """The store in `folder`; notes and lists are removed afterwards."""
    store = Store.open(folder)
    yield store
    for one in store.lists():
        for neuron in one.neurons:
            store.remove_from_list(one.name, neuron)
    for neuron in store.notes():
        store.set_note(neuron)
    store.close()
