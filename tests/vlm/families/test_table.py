"""The README's table of what works with which family is what the contract tests, no more and no less."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from explorer.vlm import FAMILIES
from tests.vlm.families import test_contract
from tests.vlm.families.made import made, names

README = Path(__file__).parents[3] / "README.md"


class Row(NamedTuple):
    """A line of the table: title, an example on the hub, its `model_type`s, and the models it is tried on."""

    title: str
    example: str
    kinds: tuple[str, ...]
    tried: tuple[str, ...]


ROWS = (
    Row("LLaVA-1.5", "llava-hf/llava-1.5-7b-hf", ("llava",), ("llava/clip", "llava/siglip")),
    Row(
        "LLaVA-NeXT",
        "llava-hf/llava-v1.6-mistral-7b-hf",
        ("llava_next",),
        ("llava_next/vicuna", "llava_next/mistral", "llava_next/yi"),
    ),
    Row("InstructBLIP", "Salesforce/instructblip-vicuna-7b", ("instructblip",), ("instructblip/vicuna",)),
    Row("Qwen2-VL", "Qwen/Qwen2-VL-7B-Instruct", ("qwen2_vl",), ("qwen/qwen2",)),
    Row("Qwen2.5-VL", "Qwen/Qwen2.5-VL-7B-Instruct", ("qwen2_5_vl",), ("qwen/qwen2_5",)),
    Row(
        "Qwen3-VL",
        "Qwen/Qwen3-VL-8B-Instruct",
        ("qwen3_vl", "qwen3_vl_moe"),
        ("qwen/qwen3", "qwen/qwen3_experts"),
    ),
    Row(
        "PaliGemma 1, 2",
        "google/paligemma2-3b-mix-224",
        ("paligemma",),
        ("paligemma/first", "paligemma/second"),
    ),
    Row(
        "Idefics3, SmolVLM",
        "HuggingFaceTB/SmolVLM-Instruct",
        ("idefics3", "smolvlm"),
        ("idefics3/large", "idefics3/rest", "idefics3/second"),
    ),
    Row(
        "InternVL",
        "OpenGVLab/InternVL3-8B-hf",
        ("internvl",),
        ("internvl/qwen2", "internvl/qwen3"),
    ),
)
COLUMNS = {
    "look": ("test_painting_a_patch_moves_that_patch", "test_the_tower_gives_what_is_announced"),
    "edit": (
        "test_without_edits_the_answer_is_the_models_own",
        "test_an_edit_does_what_a_hook_in_the_model_does",
    ),
    "CNS, VCD": ("test_a_session_looks_steers_and_contrasts", "test_several_branches"),
    "drafts": ("test_what_is_remembered_and_drafted_never_changes_an_answer",),
    "attribution": ("test_gradients_are_slopes",),
    "attention": ("test_attention_lies_over_the_patches",),
    "words by unembedding": ("test_words_and_the_unembedding",),
}
"""What each column promises, and the tests of the contract that hold it."""
REFUSED = {"attention": "attention", "attribution": "attribution", "words by unembedding": "alone"}


def table() -> list[str]:
    """The table as the README must show it."""
    lines = [f"| | for instance | {' | '.join(COLUMNS)} |", f"|{' --- |' * (len(COLUMNS) + 2)}"]
    for row in ROWS:
        refused = frozenset().union(*(made(name).refuses for name in row.tried))
        cells = ["no" if REFUSED.get(column) in refused else "yes" for column in COLUMNS]
        lines.append(f"| {row.title} | `{row.example}` | {' | '.join(cells)} |")
    return lines


def test_every_family_and_every_model_that_is_tried_has_its_line() -> None:
    assert sorted(kind for row in ROWS for kind in row.kinds) == sorted(FAMILIES)
    assert sorted(name for row in ROWS for name in row.tried) == sorted(names())


def test_every_column_is_held_by_tests() -> None:
    for tests in COLUMNS.values():
        assert all(callable(getattr(test_contract, name)) for name in tests)


def test_the_readme_shows_this_table() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    expected = table()
    advice = "put this into README.md:\n" + "\n".join(expected)
    assert expected[0] in lines, advice
    start = lines.index(expected[0])
    assert lines[start : start + len(expected)] == expected, advice
