"""Folders of small random models, one for each family, with their files named as on the hub, and pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from explorer.vlm.adapter import Adapter
from tests.vlm.families.made import made
from tests.vlm.families.made_qwen import NEW, OLD

SIZES = ((64, 64), (120, 40), (40, 120), (90, 60), (60, 90), (33, 77), (150, 50), (72, 72), (50, 100))
"""Of the pictures, in turn."""


def save(name: str, folder: Path) -> Path:
    """Save the small model "family/variant" of `tests.vlm.families.made` as published ones are laid out."""
    lvlm = made(name).lvlm
    folder.mkdir(parents=True)
    lvlm.model.save_pretrained(folder)
    _LAYOUTS.get(name.split("/")[0], _whole)(lvlm, folder, name)
    return folder


def _whole(lvlm: Adapter, folder: Path, name: str) -> None:
    """The processor as one: LLaVA, LLaVA-NeXT, InstructBLIP with the Q-Former's tokenizer, PaliGemma."""
    lvlm.processor.save_pretrained(folder)


def _parts(lvlm: Adapter, folder: Path) -> None:
    lvlm.processor.tokenizer.save_pretrained(folder)
    lvlm.processor.image_processor.save_pretrained(folder)


def _qwen(lvlm: Adapter, folder: Path, name: str) -> None:
    """One file for the image processor, one for the chat template."""
    from explorer.vlm.families.qwen import CHAT

    lvlm.processor.tokenizer.save_pretrained(folder)
    new = "qwen3" in name
    kinds = ("Qwen2VLImageProcessor", "Qwen2VLProcessor")
    if new:
        kinds = ("Qwen2VLImageProcessorFast", "Qwen3VLProcessor")
    settings = {"image_processor_type": kinds[0], "processor_class": kinds[1], **(NEW if new else OLD)}
    _write(folder / "preprocessor_config.json", settings)
    _write(folder / "chat_template.json", {"chat_template": CHAT})


def _idefics3(lvlm: Adapter, folder: Path, name: str) -> None:
    """The newer ones name a processor that needs packages for films."""
    _parts(lvlm, folder)
    kind = "SmolVLMProcessor" if name.endswith("second") else "Idefics3Processor"
    _write(folder / "processor_config.json", {"processor_class": kind, "image_seq_len": 169})


def _internvl(lvlm: Adapter, folder: Path, name: str) -> None:
    """With a processor for films, and tiles switched off in the file."""
    _parts(lvlm, folder)
    _write(folder / "processor_config.json", {"processor_class": "InternVLProcessor", "image_seq_length": 4})
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    settings |= {"crop_to_patches": False, "image_processor_type": "GotOcr2ImageProcessorFast"}
    _write(path, settings)


_LAYOUTS: dict[str, Callable[[Adapter, Path, str], None]] = {
    "idefics3": _idefics3,
    "internvl": _internvl,
    "qwen": _qwen,
}


def _write(path: Path, settings: dict[str, object]) -> None:
    path.write_text(json.dumps(settings))


def picture(number: int, size: tuple[int, int] | None = None) -> Image.Image:
    """Coloured shapes on noise, always the same for a number."""
    width, height = size or SIZES[number % len(SIZES)]
    rng = np.random.default_rng(number)
    image = Image.fromarray(rng.integers(60, 200, (height, width, 3), dtype=np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(3):
        left, top = rng.integers(0, width * 2 // 3), rng.integers(0, height * 2 // 3)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        box = (int(left), int(top), int(left + width // 3), int(top + height // 3))
        shape(box, fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def pictures(folder: Path, count: int = 12) -> Path:
    """So many picture files of different sizes."""
    folder.mkdir(parents=True)
    for number in range(count):
        picture(number).save(folder / f"{number:02}.png")
    return folder
