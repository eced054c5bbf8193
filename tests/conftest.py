"""Fixtures that several packages' tests share. Heavy imports stay inside them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for each other are slow beside other work

# A shell's background job ignores Ctrl-C, one under nohup SIGHUP, and so would the programs that tests start.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, usual)

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

WORDS = (
    "a an and apple ball beside big bowl cake cat chair dog fork green knife plate red table the tree with"
)
CHAT = (
    "{% for m in messages %}USER: {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>\n{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)

# Long files first, so that two workers end together. The second worker begins beside the browser: when it
# comes there, the store that the first one makes is ready. All others follow in the order of their names.
FIRST = (
    "browser/test_answers.py",
    "index/test_train_sae.py",
    "browser/test_accessibility.py",
    "index/test_faults.py",
    "browser/test_cases.py",
    "browser/test_workspace.py",
    "browser/test_hosting.py",
    "browser/test_neuron.py",
    "browser/test_gallery.py",
    "browser/test_why.py",
    "browser/test_streams.py",
    "index/test_index_command.py",
    "vlm/families/test_contract.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files named above first. Needs --no-loadscope-reorder: xdist sorts by the number of tests."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def make_tiny_lvlm(folder: Path, *, layer: int = -2, seed: int = 0, chat: str | None = CHAT) -> Path:
    """Save a LLaVA with random weights: 4 vision blocks of width 32 on 32 px in patches of 8, 2 text blocks.

    Weights are drawn wide, so that its (meaningless) text depends on the picture.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    vocabulary = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "USER:", "ASSISTANT:", *WORDS.split()]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, **special, extra_special_tokens={"image_token": "<image>"}
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=32,
            patch_size=8,
        ),
        text_config=LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=256,
            initializer_range=0.4,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        ),
        image_token_id=4,
        vision_feature_layer=layer,
    )
    config.initializer_range = 0.2
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        model.lm_head.weight[:7] = 0.0  # no special tokens: the text goes on until the limit
        for parameter in model.model.multi_modal_projector.parameters():
            parameter.normal_(0.0, 0.4)
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_lvlm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny LLaVA of random weights that opens offline; it reads vision block 2 of 0..3."""
    return make_tiny_lvlm(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_lvlm_maker() -> Callable[..., Path]:
    """`make_tiny_lvlm`, for tests that need another layer, seed or chat template."""
    return make_tiny_lvlm
