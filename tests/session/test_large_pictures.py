"""Large pictures go through the model a few at a time, and few of their noisy versions are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from explorer import Edit, Session
from explorer.analyze import noise_sweep
from explorer.errors import EditError
from explorer.session import Draw
from explorer.session import view as viewing
from explorer.steer import Contrast
from explorer.vlm import open_lvlm, share
from tests.session.test_session import make_sae, picture
from tests.session.test_steering import Passes
from tests.vlm.families.made import made

CALM = Contrast(suppress_always_on=False)


@pytest.fixture
def session(tiny_lvlm_folder: Path) -> Session:
    return Session(open_lvlm(tiny_lvlm_folder), make_sae())


@pytest.mark.parametrize("tokens", [1, 40, 100])
def test_in_parts_all_is_as_at_once(session: Session, monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    """The tiny model's tower has 17 tokens: one, two and five pictures at a time."""
    size = max(1, tokens // 17)
    view = session.look(picture())
    asked = [(view, (Edit(3, float(value)),)) for value in (0, 5, 10, -5, 20)]
    whole = session.next_words(asked, "What is it?", "the cat"), session.answers(asked, max_new_tokens=4)
    other = session.look(picture())
    with monkeypatch.context() as patched:
        patched.setattr(share, "TOKENS", tokens)
        with Passes(session) as passes:
            words = session.next_words(asked, "What is it?", "the cat")
            assert passes.text == -(-5 // size)
        torch.testing.assert_close(words, whole[0], atol=1e-4, rtol=0)
        assert session.answers(asked, max_new_tokens=4) == whole[1]
        with Passes(session) as passes:
            noisy = session.noisy_many(other, [(100, 0), (200, 0), (300, 0)])
            assert (passes.tower, passes.pictures) == (-(-3 // size), 3)
        for step, one in zip((100, 200, 300), noisy, strict=True):
            torch.testing.assert_close(one.hidden, session.noisy(view, step).hidden, atol=1e-4, rtol=0)
        with Passes(session) as passes:
            again = session.look(picture(), [CALM])
            assert passes.pictures == 2 and passes.tower == -(-2 // size)
        torch.testing.assert_close(again.hidden, view.hidden, atol=1e-5, rtol=0)
        assert again.noise.get(Draw(500)) is not None


def test_pictures_that_do_not_fit_together_are_refused_before_any_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lvlm = made("qwen/qwen2").lvlm
    several = Session(lvlm, make_sae())
    views = [several.look(Image.effect_noise(size, 80)) for size in ((200, 90), (90, 200))]
    monkeypatch.setattr(share, "TOKENS", 1)
    monkeypatch.setattr(lvlm, "features", lambda *_: pytest.fail("it ran"))
    with pytest.raises(EditError, match="different sizes"):
        several.answers([(view, ()) for view in views])


def test_noisy_versions_are_kept_below_a_size(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    view = session.look(picture())
    one = session.noisy(view, 10)
    assert one.nbytes >= one.hidden.nbytes + one.codes.values.nbytes > one.hidden.nbytes
    monkeypatch.setattr(viewing, "KEPT_BYTES", int(2.5 * one.nbytes))
    session.noisy_many(view, [(step, 0) for step in range(20, 26)])
    kept = [step for step in (10, *range(20, 26)) if view.noise.get(Draw(step))]
    assert kept == [24, 25]
    monkeypatch.setattr(viewing, "KEPT_BYTES", 1)
    session.noisy(view, 30)
    assert view.noise.get(Draw(30)) is not None and view.noise.get(Draw(25)) is None


def test_a_noise_sweep_says_the_same_in_parts(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    view = session.look(picture())
    how = {"steps": (100, 400, 800), "captions": True, "contrast": CALM, "max_new_tokens": 4}
    whole = noise_sweep(session, view, **how)
    monkeypatch.setattr(share, "TOKENS", 40)
    found = noise_sweep(session, session.look(picture()), **how)
    assert found.captions == whole.captions and found.contrasted == whole.contrasted
    assert len(set(whole.captions)) > 1
