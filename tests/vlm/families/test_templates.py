"""The form of a conversation is the checkpoint's own; the published one stands in where it has none."""

from __future__ import annotations

import importlib
from copy import copy
from types import SimpleNamespace

import pytest

from explorer.vlm.adapter import Adapter
from explorer.vlm.loading import Loading
from tests.vlm.families.made import made

NAMES = ("idefics3/large", "internvl/qwen2", "llava_next/mistral", "qwen/qwen2", "qwen/qwen3")


def opened(name: str, template: str | None) -> Adapter:
    """The model as its family opens it from a checkpoint with such a template."""
    lvlm = made(name).lvlm
    processor = copy(lvlm.processor)
    processor.chat_template = template
    origin = SimpleNamespace(
        name=name,
        config=lvlm.model.config,
        loading=Loading(),
        processor=lambda kind: processor,
        model=lambda kind: lvlm.model,
        identity=lambda: "own@0",
    )
    return importlib.import_module(type(lvlm).__module__).open_model(origin)


@pytest.mark.parametrize("name", NAMES)
def test_a_template_of_its_own_is_kept(name: str) -> None:
    own = f"{{% for turn in messages %}}{made(name).lvlm.processor.image_token} and words{{% endfor %}}"
    assert opened(name, own).processor.chat_template == own
    assert opened(name, None).prompt_text("What is it?") == made(name).lvlm.prompt_text("What is it?")
