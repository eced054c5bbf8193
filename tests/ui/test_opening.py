"""Opening pictures, on a fake session: examples, uploads good and bad, and what is left of them."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image, PngImagePlugin

from explorer.cases.examples import Example
from explorer.ui.visit import Focus, Visit
from explorer.ui.workspace import panels
from explorer.ui.workspace.looking import Looking
from explorer.ui.workspace.opening import Opened, Opening
from explorer.ui.workspace.steering import Steering
from tests.ui.fake_session import FakeSession

EXAMPLES = {
    key: Example(key, key.title(), "A story.", ("Is there a fork?",), ("fork",), Image.new("RGB", (80, 40)))
    for key in ("one", "two")
}


def event(**data: object) -> gr.EventData:
    return gr.EventData(None, data)


@pytest.fixture
def opening() -> Opening:
    looking = Looking(FakeSession())  # type: ignore[arg-type]
    return Opening(looking, Steering(looking.session, looking.strips), EXAMPLES)


@pytest.fixture
def visit(opening: Opening) -> Visit:
    return opening.start().visit


def encoded(image: Image.Image, kind: str, **how: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


def test_start_opens_the_first_example(opening: Opening) -> None:
    opened = opening.start()
    assert opened.visit.example == "one" and opened.prompt == "Describe the image."
    assert opened.focus == Focus() and opened.bench["marked"] is None
    assert 'data-map=""' in opened.stage["value"] and opened.stage["ratio"] == 2
    assert opened.stage["photo"].startswith("data:image/jpeg") and opened.stage["caption"] == "One"
    assert opened.stage["photo"] not in opened.stage["value"], "a click sends the photo no second time"
    assert 'class="card"' in opened.cards and "Is there a fork?" in opened.questions
    assert panels.FOREIGN in opened.shelf and opened.notices == ""
    assert opened.said is None and opened.told is None and "caret" in opened.baseline


@pytest.mark.parametrize("key", ["three", None, 5, ["one"]])
def test_unknown_examples_are_refused(opening: Opening, visit: Visit, key: object) -> None:
    assert opening.open_example(visit, event(key="two")).visit.example == "two"
    with pytest.raises(gr.Error, match="no example"):
        opening.open_example(visit, event(key=key))


def test_opening_stops_what_was_in_the_making(opening: Opening, visit: Visit) -> None:
    answer, study = visit.turn.begin(), visit.study.begin()
    fresh = opening.open_example(visit, event(key="two")).visit
    assert answer.is_set() and study.is_set()
    assert fresh.turn is not visit.turn


def test_the_picture_clicked_last_stays_whichever_comes_first(
    opening: Opening, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two takes so long that the second is open before it."""
    real, second = opening.session.look, []

    def look(image: Image.Image) -> object:
        monkeypatch.undo()
        second.append(opening.open_example(visit, event(key="two")))
        return real(image)

    monkeypatch.setattr(opening.session, "look", look)
    late = opening.open_example(visit, event(key="one"))
    assert second[0].visit.example == "two" and not second[0].visit.study.left
    assert len(late) == len(Opened._fields) and all(one == gr.skip() for one in late)
    assert opening.open_example(second[0].visit, event(key="one")).visit.example == "one"


def test_a_picture_passed_over_is_not_worked_on(opening: Opening, visit: Visit) -> None:
    """Two clicks in the order in which they came: the second knows the first only by what they followed."""
    between = opening.open_example(visit, event(key="two")).visit
    answer = between.turn.begin()
    last = opening.open_example(visit, event(key="one")).visit
    assert answer.is_set() and between.study.left and not last.study.left


def _png_with_words(size: int) -> bytes:
    words = PngImagePlugin.PngInfo()
    words.add_text("comment", "x" * size, zip=True)
    return encoded(Image.new("RGB", (30, 20)), "PNG", pnginfo=words)


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x" * 60_000
    return encoded(Image.new("RGB", (20, 30)), "JPEG", exif=exif)


def _clear_palette() -> bytes:
    return encoded(Image.new("P", (30, 20), 0), "PNG", transparency=0)


GOOD: dict[str, Callable[[], bytes]] = {
    "plain.png": lambda: encoded(Image.new("RGB", (30, 20)), "PNG"),
    "moving.gif": lambda: encoded(
        Image.new("P", (30, 20)), "GIF", save_all=True, append_images=[Image.new("P", (30, 20), 1)]
    ),
    "print.jpg": lambda: encoded(Image.new("CMYK", (30, 20)), "JPEG"),
    "deep.png": lambda: encoded(Image.new("I;16", (30, 20), 40_000), "PNG"),
    "clear.png": _clear_palette,
    "turned.jpg": _turned,
    "wrong-ending.txt": lambda: encoded(Image.new("RGB", (30, 20)), "PNG"),
    "..%2F..%2Fetc": lambda: encoded(Image.new("RGB", (30, 20)), "PNG"),
    ".png": lambda: encoded(Image.new("RGB", (30, 20)), "WEBP"),
}


@pytest.mark.parametrize("name", GOOD)
def test_pictures_of_every_kind_are_shown_upright_and_removed_from_the_disk(
    opening: Opening, visit: Visit, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(GOOD[name]())
    opened = opening.open_upload(visit, str(path))
    assert opened.visit.view.image.size == (30, 20) and opened.visit.view.image.mode == "RGB"
    assert opened.visit.example == "" and "Your own picture" in opened.shelf
    assert not path.exists()


def _vast() -> bytes:
    whole = encoded(Image.new("RGB", (30, 20)), "PNG")
    header = b"IHDR" + (50_000).to_bytes(4, "big") * 2 + whole[24:29]
    return whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:]


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "text.png": (lambda: b"this is no picture", "not a picture"),
    "empty.png": (lambda: b"", "empty"),
    "cut.png": (lambda: encoded(Image.effect_noise((300, 200), 80), "PNG")[:2000], "cut short"),
    "vast.png": (_vast, "megapixels"),
    "strip.png": (lambda: encoded(Image.new("RGB", (3000, 2)), "PNG"), "too thin"),
    "drawing.svg": (
        lambda: b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "not a picture",
    ),
    "phone.heic": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "not a picture"),
    "page.pdf": (lambda: b"%PDF-1.4\n%%EOF", "not a picture"),
    "wordy.png": (lambda: _png_with_words(3_000_000), "damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_is_refused_in_plain_words_and_removed(
    opening: Opening, visit: Visit, tmp_path: Path, name: str
) -> None:
    data, words = BAD[name]
    path = tmp_path / name
    path.write_bytes(data())
    with pytest.raises(gr.Error, match=words) as refused:
        opening.open_upload(visit, str(path))
    assert str(tmp_path) not in str(refused.value), "no folder of the server is named"
    assert not path.exists()


def test_an_upload_that_never_came_is_said_without_naming_folders(
    opening: Opening, visit: Visit, tmp_path: Path
) -> None:
    for nothing in (None, ""):
        with pytest.raises(gr.Error, match="No picture arrived"):
            opening.open_upload(visit, nothing)
    for lost in (tmp_path / "gone.png", tmp_path):
        with pytest.raises(gr.Error, match="did not arrive") as refused:
            opening.open_upload(visit, str(lost))
        assert str(tmp_path) not in str(refused.value)
    assert tmp_path.is_dir()
