"""Case files: what goes in comes out, and whatever is no case is refused in plain words."""

from __future__ import annotations

import base64
import io
import json
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from explorer.cases.case import (
    LARGEST_FILE,
    LARGEST_PICTURE,
    Case,
    Identity,
    clean_notes,
    clean_title,
    png,
    read,
    write,
)
from explorer.errors import CaseError, ExplorerError, ImageError
from tests.cases.case_maker import CASES, FULL, IDENTITY, PICTURE, entries


def test_a_case_survives_its_file() -> None:
    data = write(FULL)
    assert read(data) == FULL
    assert "„Phantom“ 叉" in data.decode("utf-8"), "a person can read the file"
    assert data.index(b'"title"') < data.index(b'"picture"'), "what a person reads comes first"


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_any_case_survives_its_file(case: Case) -> None:
    again = read(write(case))
    assert again == case
    assert write(again) == write(case)


@pytest.mark.parametrize("size", [(1, 1), (31, 7), (300, 200)])
def test_the_picture_keeps_every_pixel(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    case = replace(FULL, picture=png(Image.fromarray(pixels)))
    assert np.array_equal(np.asarray(read(write(case)).image()), pixels)


def test_a_photograph_may_come_as_jpeg() -> None:
    stream = io.BytesIO()
    Image.effect_noise((50, 40), 60).convert("RGB").save(stream, "JPEG")
    case = replace(FULL, picture=stream.getvalue())
    assert entries(case)["picture"]["type"] == "image/jpeg"
    assert read(write(case)) == case


def spoilt(path: str, value: Any) -> bytes:
    """The full case with one value changed; "-" removes it. path: "bench.0.neuron"."""
    data = entries()
    *way, last = path.split(".")
    place: Any = data
    for step in way:
        place = place[int(step)] if step.isdigit() else place[step]
    if value == "-":
        del place[last]
    else:
        place[last] = value
    return json.dumps(data).encode()


WRONG = [
    ("format", "another", "no case file"),
    ("format", "-", "no case file"),
    ("version", 2, "version 2"),
    ("version", True, "version True"),
    ("version", "1", "version '1'"),
    ("extra", 1, "unknown field 'extra'"),
    *((name, "-", f"lacks the field '{name}'") for name in ("title", "notes", "model", "sae", "question")),
    *((name, "-", f"lacks the field '{name}'") for name in ("bench", "settings", "baseline", "steered")),
    ("picture", "-", "lacks the field 'picture'"),
    ("title", 7, "the title 7 is not a text"),
    ("title", "", "the title '' is not one line"),
    ("title", "two\nlines", "the title holds a character"),
    ("title", " space ", "not one line"),
    ("title", "x" * 81, "the title has 81 characters"),
    ("title", "\ud800", "holds a character that is no text"),
    ("title", "\u0000", "holds a character that is no text"),
    ("notes", None, "the notes None is not a text"),
    ("notes", "x" * 2001, "the notes has 2001"),
    ("question", "", "the question"),
    ("question", "x" * 501, "the question has 501"),
    ("baseline", None, "the untouched answer None"),
    ("baseline", "x" * 8001, "8001 characters"),
    ("steered", 3, "the steered answer 3"),
    ("model", [], "the model is \\[\\]"),
    ("model.extra", 1, "the model has an unknown field 'extra'"),
    ("model.id", "", "the model's id"),
    ("model.id", "x" * 301, "the model's id has 301"),
    ("model.block", -1, "block is -1"),
    ("model.block", 1.5, "block is 1.5"),
    ("model.rows", 0, "rows is 0"),
    ("model.cols", 10_000, "cols is 10000"),
    ("model.cols", True, "cols is True"),
    ("sae", None, "the SAE is None"),
    ("sae.id", 5, "the SAE's id 5"),
    ("sae.neurons", 0, "neurons is 0"),
    ("sae.neurons", "3072", "neurons is '3072'"),
    ("bench", {}, "the bench of the case: the bench is not a list"),
    ("bench", [1], "not a list of rows"),
    ("bench", [{"neuron": 1}] * 99, "99 neurons"),
    ("bench.0.neuron", 3072, "neuron 3072 does not exist"),
    ("bench.0.neuron", "-", "neuron None does not exist"),
    ("bench.0.value", "9", "is not a number"),
    ("bench.0.value", 1e300, "is not a number"),
    ("bench.0.mode", "explode", "mode 'explode'"),
    ("bench.0.region", "marked", "mark a patch"),
    ("bench.0.extra", 1, "a row of the bench has an unknown field 'extra'"),
    ("bench.2.patches", [[14, 0]], "the patch row 14"),
    ("bench.2.patches", [[1, 2, 3]], "not pairs"),
    ("settings", [], "the settings of the case"),
    ("settings.extra", 1, "there is no setting 'extra'"),
    ("settings.step", 1000, "the settings of the case"),
    ("settings.step", "x", "the settings of the case"),
    ("settings.method", "magic", "the settings of the case"),
    ("settings.temperature", -1, "the settings of the case"),
    ("settings.max_new_tokens", 10_000, "the settings of the case"),
    ("picture", "data", "the picture is 'data'"),
    ("picture.type", "image/svg+xml", "use image/png or image/jpeg"),
    ("picture.type", [], "is of type"),
    ("picture.data", 5, "not a text in base64"),
    ("picture.data", "§§", "not base64"),
    ("picture.data", "AAAA", "not the image/png"),
    ("picture.extra", 1, "unknown field 'extra'"),
]


@pytest.mark.parametrize(("path", "value", "words"), WRONG, ids=[f"{p}={v!r:.12}" for p, v, _ in WRONG])
def test_what_is_wrong_missing_oversized_or_foreign_is_named(path: str, value: Any, words: str) -> None:
    with pytest.raises(CaseError, match=words):
        read(spoilt(path, value))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"no json", "damaged"),
        (b"\xff\xfe{}", "UTF-8"),
        (b"[]", "no case file"),
        (b'"x"', "no case file"),
        (b"null", "no case file"),
        (b"[" * 100_000, "too deeply nested"),
        (b'{"format": NaN}', "NaN is no number"),
        (b'{"format": -Infinity}', "no number"),
        (b'{"a": 1, "a": 2}', "there twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", "5000 digits"),
        (write(FULL)[:-40], "damaged"),
        (b" " * (LARGEST_FILE + 1), "at most"),
    ],
    ids=lambda part: repr(part)[:16],
)
def test_files_that_are_no_cases_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(CaseError, match=words):
        read(data)


def huge_header() -> bytes:
    """A PNG that claims 50,000 by 50,000 pixels."""
    header = b"IHDR" + (50_000).to_bytes(4, "big") * 2 + PICTURE[24:29]
    return PICTURE[:12] + header + zlib.crc32(header).to_bytes(4, "big") + PICTURE[33:]


@pytest.mark.parametrize(("picture", "words"), [(huge_header(), "megapixels"), (PICTURE[:900], "cut short")])
def test_bombs_and_broken_pictures_are_refused(picture: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        read(spoilt("picture.data", base64.b64encode(picture).decode()))


def test_a_picture_that_is_too_large_without_loss_is_refused() -> None:
    with pytest.raises(CaseError, match="scale it down"):
        replace(FULL, picture=PICTURE + b"\0" * LARGEST_PICTURE)
    with pytest.raises(CaseError, match="neither PNG nor JPEG"):
        replace(FULL, picture=b"GIF89a")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(entries())), JSON)
def test_any_value_in_any_place_is_read_or_refused(name: str, value: Any) -> None:
    data = {**entries(), name: value}
    try:
        case = read(json.dumps(data).encode())
    except ExplorerError:
        return
    assert read(write(case)) == case


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CaseError):
        read(data)


def test_what_a_person_types_is_put_in_order() -> None:
    assert clean_title("  a \n title ") == "a title"
    assert clean_notes(" one \r\n\n\n\n two\t x ") == "one\n\ntwo x"
    assert clean_notes(None) == ""
    for wrong in ("", "  ", None, "x" * 81, 7):
        with pytest.raises(ExplorerError):
            clean_title(wrong)
    with pytest.raises(CaseError, match="not a text"):
        clean_notes([])


def test_an_identity_is_checked_wherever_it_is_made() -> None:
    with pytest.raises(CaseError):
        Identity("", 4, 14, 14, "x", 10)
    assert IDENTITY.frame.grid.rows == 14
