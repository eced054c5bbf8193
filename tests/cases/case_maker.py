"""Cases for tests: one that says everything, and strategies that make any."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from PIL import Image

from explorer.cases.case import Case, Identity, png, write
from explorer.cases.rows import REGIONS, Row
from explorer.cases.settings import Settings
from explorer.records import Cell

IDENTITY = Identity("lvlm@b3428f26acf6", 4, 14, 14, "d6ba712e1831", 3072)
PICTURE = png(Image.effect_noise((60, 40), 90).convert("RGB"))

FULL = Case(
    title="Gabel & Messer – „Phantom“ 叉",
    notes="Look at the plate.\n\nTry -30.",
    identity=IDENTITY,
    question="Describe the image.",
    rows=(
        Row(191, "pizza", 2.5, -30.0),
        Row(24, "", 0.0, 1.5, "scale", "all"),
        Row(85, "corn", 1.0, -0.1, "add", "marked", (Cell(3, 4), Cell(3, 5), Cell(3, 9), Cell(13, 0))),
        Row(126, "dog", 1.0, 7.0, "set", "seen", (Cell(0, 0), Cell(1, 1)), "dog"),
        Row(5, "rests", 0.25),
    ),
    settings=Settings(cns=True, step=300, strength=0.5, suppress_always_on=False, method="vcd", seed=3),
    baseline="A dining table with a cake and a fork and knife.",
    steered="A dining table with a cake.",
    picture=PICTURE,
)


def entries(case: Case = FULL) -> dict[str, Any]:
    """What the file of a case says, to be spoilt."""
    return json.loads(write(case))


LINE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).map(
    lambda text: " ".join(text.split()) or "x"
)
ANSWER = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n"), max_size=80)
CELLS = st.sets(st.builds(Cell, st.integers(0, 13), st.integers(0, 13)), max_size=12).map(sorted).map(tuple)


@st.composite
def bench_rows(draw: st.DrawFn) -> Row:
    """A row as the page may hold it."""
    region, cells = draw(st.sampled_from(REGIONS)), draw(CELLS)
    if region == "marked" and not cells:
        region = "active"
    concept = draw(LINE) if region == "seen" else draw(st.just("") | LINE)
    number = st.floats(-1e6, 1e6, allow_nan=False)
    return Row(
        *(draw(st.integers(0, 3071)), draw(st.just("") | LINE), draw(number), draw(st.none() | number)),
        *(draw(st.sampled_from(["set", "add", "scale"])), region, cells, concept),
        muted=draw(st.booleans()),
    )


SETTINGS = st.builds(
    Settings,
    cns=st.booleans(),
    step=st.integers(0, 999),
    strength=st.floats(-10, 10),
    method=st.sampled_from(["plain", "vcd", "m3id", "icd", "pai", "vaf"]),
    temperature=st.floats(0, 2),
    top_p=st.floats(0.1, 1.0),
    seed=st.integers(0, 2**31),
    max_new_tokens=st.integers(1, 256),
)

CASES = st.builds(
    Case,
    title=LINE,
    notes=ANSWER,
    identity=st.builds(Identity, LINE, st.integers(0, 40), st.just(14), st.just(14), LINE, st.just(3072)),
    question=LINE,
    rows=st.lists(bench_rows(), max_size=5).map(tuple),
    settings=SETTINGS,
    baseline=ANSWER,
    steered=st.none() | ANSWER,
    picture=st.just(PICTURE),
)
