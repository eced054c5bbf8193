"""The embedded model and SAE, without a store, for the tests in this folder."""

from __future__ import annotations

import pytest

from explorer.sae import load_sae
from explorer.session import Session
from explorer.session.session import EMBEDDED_MODEL, EMBEDDED_SAE
from explorer.vlm import open_lvlm


@pytest.fixture(scope="session")
def session() -> Session:
    return Session(open_lvlm(EMBEDDED_MODEL), load_sae(EMBEDDED_SAE))
