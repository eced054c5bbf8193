"""How much memory a model needs, from its config alone: `python -m explorer.vlm.needs [NAME ...]`.

Without names: the published checkpoints whose shapes lie in published.json, so that no network is needed.
Nothing is loaded; all figures are computed (see `loading.memory` for what they count).

The shapes were held against published config files, in part those of copies and finetuned models that name
the checkpoint they come from. From memory are still: LLaVA-1.5-13B and the two LLaVA-1.6-Vicuna (their
language model's width, as Vicuna's), Qwen2-VL-7B and Qwen3-VL-2B, the towers of Qwen3-VL, Idefics3 and
SmolVLM, and the head's width of PaliGemma 2; of those the tests know the published number of weights.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from explorer.errors import ExplorerError, ModelError
from explorer.vlm.loading import Quantized

PUBLISHED = Path(__file__).with_name("published.json")
KINDS: tuple[tuple[str, Quantized | None], ...] = (("bfloat16", None), ("8bit", "8bit"), ("4bit", "4bit"))
"""The columns of the table; float16 takes what bfloat16 takes, float32 twice as much."""


class Row(NamedTuple):
    """A model: how many weights; bytes of them as bfloat16, and with the layers in 8 and in 4 bits; bytes to
    work, in bfloat16; tokens of a picture that was reckoned with."""

    name: str
    count: int
    weights: tuple[int, ...]
    work: int
    picture: int


def published() -> dict[str, dict[str, Any]]:
    """The shapes of published checkpoints, by hub name, as their configs have them."""
    return json.loads(PUBLISHED.read_text(encoding="utf-8"))


def row(name: str, revision: str | None = None) -> Row:
    """What a model needs: one of `published`, a folder, or a hub name, of which the config is fetched.

    Raises ModelError.
    """
    import torch

    from explorer.vlm.loading.memory import need_of, on_meta

    config = _config(name, revision)
    with contextlib.redirect_stderr(io.StringIO()):
        bare = on_meta(_class(config), config)
    needs = [need_of(bare, torch.bfloat16, bits) for _, bits in KINDS]
    weights = tuple(need.weights for need in needs)
    return Row(name, needs[0].count, weights, needs[0].work, needs[0].picture)


def _config(name: str, revision: str | None) -> Any:
    """The config of a name."""
    from transformers import AutoConfig

    from explorer.vlm.loading import Loading
    from explorer.vlm.opening import config_of

    shape = published().get(name)
    if shape is not None and revision is None:
        kind = shape.pop("model_type")
        return AutoConfig.for_model(kind, **shape)
    return config_of(name, Loading(revision=revision))


def _class(config: Any) -> Any:
    """The class of transformers for a config. Raises ModelError when it has none."""
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING as KNOWN

    if type(config) not in KNOWN:
        raise ModelError(f"transformers has no image-text model for the family {config.model_type!r}")
    return KNOWN[type(config)]


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """The table, a line at a time."""
    from explorer.vlm.loading.full import gib

    width = max(len("computed, no model was loaded"), *(len(one.name) for one in rows))
    heads = [f"{name:>9}" for name, _ in KINDS]
    yield f"{'computed, no model was loaded':{width}}  weights {' '.join(heads)}  to work  picture"
    for one in rows:
        sizes = " ".join(f"{gib(size):>9}" for size in one.weights)
        count = f"{one.count / 1e9:.2f} B"
        yield f"{one.name:{width}} {count:>8} {sizes} {gib(one.work):>8} {one.picture:>5,} tokens"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m explorer.vlm.needs", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="folder, hub name, or one of the published checkpoints"
    )
    parser.add_argument("--revision", help="branch, tag or commit of a hub name")
    args = parser.parse_args(argv)
    try:
        rows = [row(name, args.revision) for name in args.names or published()]
    except ExplorerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
