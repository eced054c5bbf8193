"""From a word to a repaired caption on the embedded model, without a store, through the page's handlers."""

from __future__ import annotations

import json
import re
from html import unescape

import gradio as gr
import pytest

from explorer.cases.examples import load_examples
from explorer.sae import load_sae
from explorer.session import Session
from explorer.session.session import EMBEDDED_MODEL, EMBEDDED_SAE
from explorer.ui.visit import Said, Visit
from explorer.ui.why.asking import Asking
from explorer.ui.workspace.looking import Looking
from explorer.ui.workspace.stage import photo_uri
from explorer.ui.workspace.steering import Steering
from explorer.vlm import open_lvlm


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(open_lvlm(EMBEDDED_MODEL), load_sae(EMBEDDED_SAE))


@pytest.fixture(scope="module")
def asking(session: Session) -> Asking:
    looking = Looking(session)
    return Asking(session, looking, Steering(session, looking.strips))


def repaired(asking: Asking, key: str, question: str | None, word: str) -> tuple[str, str]:
    """The answer, and the answer after the first repair of a click on a word, steered as the page does."""
    session, example = asking.session, load_examples()[key]
    view = session.look(example.image)
    visit = Visit(view, example.title, photo_uri(view.image))
    said = Said(question or session.lvlm.default_prompt, session.answer(view, question))
    click = gr.EventData(None, {"at": said.text.index(word)})
    for shown in asking.why_said(visit, said, "", click):
        found = re.search(r'data-do="mend" data-with="([^"]+)"', shown.cards)
        if found:
            break
    asking.halt(visit)
    edits = json.loads(unescape(found[1]))
    bench = asking.mend(visit, "", gr.EventData(None, edits))
    steered = list(asking.steering.steer(visit, said, bench, ""))
    told = next(part for part in steered[-1] if hasattr(part, "bench"))
    return said.text, told.text


def test_a_phantom_fork_is_taken_out_and_the_cake_stays(asking: Asking) -> None:
    before, after = repaired(asking, "phantom-fork", None, "knife")
    assert "fork" in before and "knife" in before
    assert "fork" not in after and "knife" not in after and "cake" in after


def test_why_yes_finds_what_turns_it_to_no(asking: Asking) -> None:
    before, after = repaired(asking, "lone-sheep", "Is there a sheep in the image?", "Yes")
    assert (before, after) == ("Yes.", "No.")
