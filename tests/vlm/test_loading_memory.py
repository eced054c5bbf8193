"""What a model needs is known before it is loaded, and full memory is told in plain words."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    GotOcr2ImageProcessorPil,
    Idefics3ImageProcessorPil,
    LlavaForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    PreTrainedModel,
    Qwen2VLForConditionalGeneration,
)

from explorer.errors import ModelError
from explorer.vlm import needs, open_lvlm, origin
from explorer.vlm.loading import Loading, memory
from explorer.vlm.loading.full import ADVICE, full_told, full_words, gib, is_full
from explorer.vlm.loading.memory import Free, Need, free_memory, need_of, on_meta, refuse_too_large, told
from explorer.vlm.loading.parts import parts_of
from explorer.vlm.loading.spread import spread
from explorer.vlm.needs import _config, lines, published
from explorer.vlm.opening import checkpoint_dtype, config_of, device_of
from tests.vlm.families.tokens import word_tokenizer

GIB = 1 << 30
row = cache(needs.row)


@pytest.fixture(scope="module")
def small(tiny_lvlm_folder: Path) -> PreTrainedModel:
    return on_meta(LlavaForConditionalGeneration, config_of(tiny_lvlm_folder))


@pytest.fixture(scope="module")
def tied() -> PreTrainedModel:
    """A published model whose head shares the embeddings."""
    return on_meta(Qwen2VLForConditionalGeneration, _config("Qwen/Qwen2-VL-2B-Instruct", None))


# ---- what is needed --------------------------------------------------------------------------------------


def test_the_parts_hold_every_weight_once(small: PreTrainedModel, tied: PreTrainedModel) -> None:
    for model in (small, tied):
        named = [weight for part in parts_of(model) for _, weight in part.weights()]
        shared = {id(weight): weight for weight in named}
        assert shared.keys() == {id(weight) for weight in model.parameters()}
        roles = [part.role for part in parts_of(model)]
        assert roles.count("layer") == model.config.get_text_config().num_hidden_layers
    names = {part.name: part.role for part in parts_of(small)}
    assert names["model.vision_tower"] == names["model.language_model.embed_tokens"] == "sees"
    assert names["model.multi_modal_projector"] == names["model.language_model.rotary_emb"] == "sees"
    assert names["model.language_model.norm"] == names["lm_head"] == "ends"
    assert {part.name: part.role for part in parts_of(tied)}["lm_head"] == "sees"


def test_weights_are_counted_exactly(small: PreTrainedModel, tied: PreTrainedModel) -> None:
    for model in (small, tied):
        count = sum(weight.numel() for weight in model.parameters())
        assert need_of(model, torch.float32).weights == 4 * count == 2 * need_of(model, torch.float16).weights
        assert need_of(model, torch.bfloat16).count == count


def test_only_the_layers_matrices_are_quantised(small: PreTrainedModel) -> None:
    plain, eight, four = (need_of(small, torch.bfloat16, bits) for bits in (None, "8bit", "4bit"))
    assert plain.sees == eight.sees == four.sees and plain.ends == four.ends
    matrices = 2 * (4 * 32 * 32 + 3 * 32 * 64)
    rows = 2 * (4 * 32 + 2 * 64 + 32)
    norms = 2 * 2 * 32
    assert plain.layers == 2 * (matrices + norms)
    assert eight.layers == matrices + 4 * rows + 2 * norms
    assert four.layers == pytest.approx(matrices * 0.5159 + 2 * norms, rel=0.01)


def test_pictures_answers_and_dtypes_make_work(small: PreTrainedModel, tied: PreTrainedModel) -> None:
    need = need_of(small, torch.float32)
    assert need.picture == 16 and need_of(tied, torch.bfloat16).picture == 36 * 36
    branch = 2 * 2 * 32 * 4 * 256  # keys and values, layers, width, bytes, all of the context
    assert need.work > 8 * branch and need.work > need_of(small, torch.bfloat16).work


CARDS = {
    "llava-hf/llava-1.5-7b-hf": (7.06, 14.13),
    "llava-hf/llava-1.5-13b-hf": (13.35, None),
    "llava-hf/llava-v1.6-mistral-7b-hf": (7.57, None),
    "llava-hf/llava-v1.6-vicuna-7b-hf": (7.06, None),
    "llava-hf/llava-v1.6-vicuna-13b-hf": (13.35, None),
    "llava-hf/llava-v1.6-34b-hf": (34.75, 69.51),
    "Salesforce/instructblip-vicuna-7b": (7.91, None),
    "Salesforce/instructblip-vicuna-13b": (14.19, None),
    "Qwen/Qwen2-VL-2B-Instruct": (2.21, None),
    "Qwen/Qwen2-VL-7B-Instruct": (8.29, None),
    "Qwen/Qwen2.5-VL-3B-Instruct": (3.75, None),
    "Qwen/Qwen2.5-VL-7B-Instruct": (8.29, None),
    "Qwen/Qwen3-VL-2B-Instruct": (2.13, None),
    "Qwen/Qwen3-VL-4B-Instruct": (4.44, None),
    "Qwen/Qwen3-VL-8B-Instruct": (8.77, 17.54),
    "google/paligemma2-3b-mix-224": (3.03, None),
    "HuggingFaceM4/Idefics3-8B-Llama3": (8.46, 16.93),
    "HuggingFaceTB/SmolVLM-Instruct": (2.25, None),
    "OpenGVLab/InternVL3-8B-hf": (7.94, 15.89),
}
"""Billions of weights as the hub's model cards round them, and gigabytes of the files with 16-bit weights.

Confirmed against published pages: the gigabytes (the listings of weight files; of LLaVA-1.5-7B, LLaVA-1.6-34B
and Qwen3-VL-8B those of copies), and for PaliGemma 2 the 3,032,094,960 weights that KerasHub counts in its
own model of it, whose vocabulary has 64 rows of 2,304 fewer. The other rounded counts are from memory."""


@pytest.mark.parametrize("name", CARDS)
def test_published_shapes_have_the_published_sizes(name: str) -> None:
    found, (billions, gigabytes) = row(name), CARDS[name]
    assert round(found.count / 1e9, 2) == billions
    assert gigabytes is None or 2 * found.count / 1e9 == pytest.approx(gigabytes, abs=0.02)
    assert found.weights[0] == 2 * found.count and found.weights[0] > found.weights[1] > found.weights[2]
    if name == "google/paligemma2-3b-mix-224":
        assert found.count == 3_032_094_960 + 64 * 2304


def test_every_published_shape_is_held_against_a_card() -> None:
    assert published().keys() == CARDS.keys()


def test_the_guides_table_is_what_the_command_prints() -> None:
    guide = (Path(__file__).parents[2] / "GUIDE.md").read_text(encoding="utf-8")
    for line in list(lines([row(name) for name in published()]))[1:]:
        name, cells = line.split()[0], line.removesuffix(" tokens").split()[1:]
        sizes = [f"{value} {unit}" for value, unit in zip(cells[:-1:2], cells[1:-1:2], strict=True)]
        shown = " | ".join((f"`{name}`", *sizes, cells[-1]))
        assert f"| {shown} |" in guide, f"put this into GUIDE.md: | {shown} |"


TOKENS = {
    "llava-hf/llava-1.5-7b-hf": 24 * 24,
    "llava-hf/llava-v1.6-mistral-7b-hf": 24 * 24 + 48 * 49,
    "Salesforce/instructblip-vicuna-7b": 32,
    "Qwen/Qwen2.5-VL-7B-Instruct": 36 * 36,
    "Qwen/Qwen3-VL-8B-Instruct": 32 * 32,
    "google/paligemma2-3b-mix-224": 16 * 16,
    "HuggingFaceM4/Idefics3-8B-Llama3": 17 * 13 * 13,
    "HuggingFaceTB/SmolVLM-Instruct": 17 * 9 * 9,
    "OpenGVLab/InternVL3-8B-hf": 13 * 16 * 16,
}


@pytest.mark.parametrize("name", TOKENS)
def test_a_picture_takes_as_many_tokens_as_its_tiles_make(name: str) -> None:
    assert memory.picture_tokens(_config(name, None)) == TOKENS[name]


def test_tiles_are_counted_as_the_models_make_them() -> None:
    """A square picture, cut by the image processors with the published settings; InternVL's most tiles."""
    picture = Image.radial_gradient("L").convert("RGB").resize((1024, 1024))
    for size, tile in ((1456, 364), (1536, 384)):
        images = Idefics3ImageProcessorPil(size={"longest_edge": size}, max_image_size={"longest_edge": tile})
        assert images(images=[[picture]])["pixel_values"][0].shape[0] == 1 + memory.TILES["idefics3"]
    images = GotOcr2ImageProcessorPil(size={"height": 448, "width": 448}, crop_to_patches=True)
    assert len(images(images=[picture.resize((2000, 1500))])["pixel_values"]) == 1 + memory.TILES["internvl"]
    pinpoints = _config("llava-hf/llava-v1.6-mistral-7b-hf", None).image_grid_pinpoints
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, image_grid_pinpoints=pinpoints
    )
    processor = LlavaNextProcessor(images, word_tokenizer(), 14, "default", num_additional_image_tokens=1)
    found = processor(images=[picture], text=["<image>"])["input_ids"][0]
    assert len(found) - 1 == TOKENS["llava-hf/llava-v1.6-mistral-7b-hf"]


def test_all_models_of_up_to_nine_billion_weights_work_on_a_card_of_24_gb() -> None:
    """Weights in bfloat16, an SAE of 65,536 neurons, and work: a batch of 32 pictures in the tower too."""
    for name in published():
        if (one := row(name)).count < 9e9:
            assert one.weights[0] + 2 * 65536 * 1408 * 4 + one.work < 24e9, name


def test_the_table_names_all_that_were_promised(capsys: pytest.CaptureFixture[str]) -> None:
    names = published()
    for kind in ("llava", "llava_next", "instructblip", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
        assert any(shape["model_type"] == kind for shape in names.values())
    heading, line = lines([row("llava-hf/llava-1.5-7b-hf")])
    assert "computed" in heading and "7.06 B  13.2 GiB" in line and "576 tokens" in line


# ---- what is free, and what is said ----------------------------------------------------------------------

NEED = Need(sees=GIB, layers=11 * GIB, ends=GIB, work=2 * GIB, picture=576, count=7)


def test_the_line_tells_weights_work_and_what_is_free() -> None:
    line = told("LLaVA 7B", NEED, "bfloat16", Free("cuda:0", 22 * GIB), GIB // 2)
    assert line == (
        "LLaVA 7B: 13.0 GiB in bfloat16, 512 MiB for the SAE, and about 2.0 GiB to work; "
        "cuda:0 has 22.0 GiB free"
    ).replace("512 MiB", "0.5 GiB")
    assert told("x", NEED, "bfloat16", Free("cuda:0", 14 * GIB)).endswith("which may not do")


@pytest.mark.parametrize(
    ("loading", "dtype", "cards", "advice"),
    [
        (Loading(), torch.float32, 0, "--quantize 8bit or 4bit, --dtype bfloat16, or a smaller model"),
        (Loading(quantize="8bit"), torch.bfloat16, 1, "--quantize 4bit, --device-map auto, over all cards"),
        (Loading(quantize="4bit"), torch.bfloat16, 0, "take a smaller model"),
    ],
)
def test_what_cannot_fit_is_refused_with_advice(
    loading: Loading, dtype: torch.dtype, cards: int, advice: str
) -> None:
    free = Free("cuda:0", 13 * GIB)
    refuse_too_large("m", NEED, free, loading, dtype, 0, cards)
    with pytest.raises(ModelError, match=r"its weights take 13.0 GiB and the SAE 1.0 GiB") as refused:
        refuse_too_large("m", NEED, free, loading, dtype, GIB, cards)
    assert advice in str(refused.value) and "--try-anyway" in str(refused.value)
    refuse_too_large("m", NEED, free, Loading(try_anyway=True), dtype, GIB, cards)


def test_free_memory_is_the_systems_or_the_groups(tmp_path: Path) -> None:
    assert 1 << 20 < free_memory(torch.device("cpu")).bytes < 1 << 50
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    2000 kB\n")
    assert memory._main_memory(tmp_path) == 2_048_000
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("1000000\n")
    (group / "memory.current").write_text("900000\n")
    (group / "memory.stat").write_text("anon 5\ninactive_file 50000\n")
    assert memory._main_memory(tmp_path) == 150_000
    (group / "memory.max").write_text("max\n")
    assert memory._main_memory(tmp_path) == 2_048_000
    assert memory._main_memory(tmp_path / "nowhere") == 1 << 60


def test_opening_tells_and_refuses_before_loading(
    tiny_lvlm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    open_lvlm(tiny_lvlm_folder, tell=said.append)
    assert said == []
    monkeypatch.setattr(origin, "UNWEIGHED", 0)
    monkeypatch.setattr(origin, "UNTOLD", 0)
    open_lvlm(tiny_lvlm_folder, tell=said.append, beside=1 << 20)
    assert len(said) == 1 and "in float32, 1 MiB for the SAE, and about" in said[0]
    assert "this machine has" in said[0]
    monkeypatch.setattr(origin, "free_memory", lambda device: Free("this machine", 1000))
    monkeypatch.setattr(
        LlavaForConditionalGeneration, "from_pretrained", lambda *a, **k: pytest.fail("it was loaded")
    )
    with pytest.raises(ModelError, match=r"does not fit: its weights take .* this machine has 0 MiB free"):
        open_lvlm(tiny_lvlm_folder)
    monkeypatch.undo()
    monkeypatch.setattr(origin, "free_memory", lambda device: Free("this machine", 1000))
    assert open_lvlm(tiny_lvlm_folder, loading=Loading(try_anyway=True)).block_count == 4


# ---- several cards ---------------------------------------------------------------------------------------


def test_a_model_is_spread_over_cards_in_the_order_of_a_pass(small: PreTrainedModel) -> None:
    need = need_of(small, torch.float32)
    layer = need.layers // 2
    half = need.work // 2
    first, second = half + need.sees + layer, half + layer + need.ends
    found = spread(small, torch.float32, [first, second])
    names = [part.name for part in parts_of(small)]
    assert found.keys() == set(names)
    cards = {name: card for name, card in found.items() if card}
    assert cards == {"model.language_model.layers.1": 1, "model.language_model.norm": 1, "lm_head": 1}
    roomy = spread(small, torch.float32, [10 * first, second])
    assert set(roomy.values()) == {0}
    for free in ([first, second - 1], [first - layer - 1, 10 * second], [first]):
        with pytest.raises(ModelError, match=r"does not fit on the cards: .* use --quantize 8bit or 4bit"):
            spread(small, torch.float32, free)
    with pytest.raises(ModelError, match="does not fit"):
        spread(small, torch.float32, [first, second], beside=1000)


def test_a_spread_model_answers_as_a_whole_one(tiny_lvlm_folder: Path) -> None:
    """The hooks that move tensors from card to card stand on every part; here all cards are the CPU."""
    from accelerate import dispatch_model
    from PIL import Image

    whole, parted = open_lvlm(tiny_lvlm_folder), open_lvlm(tiny_lvlm_folder)
    places = {part.name: "cpu" for part in parts_of(parted.model)}
    dispatch_model(parted.model, places, main_device="cpu", force_hooks=True)
    image = Image.radial_gradient("L").convert("RGB")
    prepared = whole.preprocess(image)
    answers = []
    for lvlm in (whole, parted):
        hidden = lvlm.tower(prepared.pixel_values, 1, prepared)[0]
        ready = lvlm.features(3 * hidden, 1, prepared)
        answers.append(lvlm.generate(ready, "what", 8, prepared))
        answers.append(lvlm.generate_many(ready[None], "what", 8, prepared)[0])
    assert len(set(answers)) == 1
    assert parted.answer_plain(image, "what", 8) == whole.answer_plain(image, "what", 8)


def test_devices_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(Loading(device="auto")).type == "cpu"
    with pytest.raises(ModelError, match="--device-map auto needs CUDA cards"):
        device_of(Loading(device="auto", device_map="auto"))
    with pytest.raises(ModelError, match="no CUDA device"):
        device_of(Loading(device="cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert str(device_of(Loading(device="auto"))) == "cuda" and device_of(Loading(device="cuda:1")).index == 1
    with pytest.raises(ModelError, match="there is cuda:0 to cuda:1"):
        device_of(Loading(device="cuda:2"))


def test_on_a_card_it_is_loaded_there_in_the_checkpoints_own_dtype(
    tiny_lvlm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No card is here: what from_pretrained is asked for is looked at."""
    asked: list[dict] = []

    def stop(*_: object, **settings: object) -> None:
        asked.append(settings)
        raise OSError("far enough")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(LlavaForConditionalGeneration, "from_pretrained", stop)
    free = need_of(on_meta(LlavaForConditionalGeneration, config_of(tiny_lvlm_folder)), torch.float32)
    size = free.work // 2 + free.weights - 1
    monkeypatch.setattr(origin, "free_memory", lambda device: Free(str(device), size))
    for loading in (Loading(device="cuda:1"), Loading(device="cuda", dtype="bfloat16")):
        with pytest.raises(ModelError, match="far enough"):
            open_lvlm(tiny_lvlm_folder, loading=loading)
    with pytest.raises(ModelError, match="far enough"):
        open_lvlm(tiny_lvlm_folder, loading=Loading(device="cuda", device_map="auto"))
    assert asked[0]["device_map"] == {"": torch.device("cuda", 1)} and asked[0]["dtype"] == torch.float32
    assert asked[1]["dtype"] == torch.bfloat16
    assert asked[2]["device_map"]["model.vision_tower"] == 0 and asked[2]["device_map"]["lm_head"] == 1
    assert checkpoint_dtype(tiny_lvlm_folder) == "float32"


# ---- full memory -----------------------------------------------------------------------------------------

CUDA = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 1 has a total capacity of 79.11 GiB of which 1.25 "
    "GiB is free. Process 7 has 77 GiB memory in use."
)
CPU = (
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 68719476736 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            torch.OutOfMemoryError(CUDA),
            "the memory of cuda:1 is full: 2.5 GiB more were needed, 1.25 GiB of 79.11 GiB are free",
        ),
        (RuntimeError(CPU), "the memory of this machine is full: 64.0 GiB more were needed"),
        (MemoryError(), "the memory of this machine is full"),
        (
            np._core._exceptions._ArrayMemoryError((1 << 30,), np.dtype("f8")),
            "the memory of this machine is full: 8.0 GiB more were needed",
        ),
    ],
)
def test_full_memory_is_recognised_and_told(error: BaseException, words: str) -> None:
    assert is_full(error) and full_words(error) == words
    freed: list[bool] = []
    with (
        pytest.raises(ModelError, match="--quantize 8bit or 4bit"),
        full_told("while x was opened", relief=lambda: freed.append(True)),
    ):
        raise error
    assert freed == [True]


def test_a_real_allocation_that_fails_is_recognised() -> None:
    with pytest.raises(ModelError, match=r"16384.0 GiB more were needed"), full_told():
        torch.empty(1 << 44, dtype=torch.uint8)


def test_other_errors_pass_as_they_are() -> None:
    for error in (RuntimeError("shapes differ"), ValueError("no")):
        with pytest.raises(type(error)) as seen, full_told():
            raise error
        assert seen.value is error
    assert gib(3 * GIB) == "3.0 GiB" and gib(10 << 20) == "10 MiB" and "--device-map" in ADVICE


def test_full_memory_while_opening_is_a_plain_error(
    tiny_lvlm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError(CUDA)

    monkeypatch.setattr(LlavaForConditionalGeneration, "from_pretrained", full)
    with pytest.raises(
        ModelError, match=r"cuda:1 is full: 2.5 GiB .* while '.*tiny' was opened; open the model"
    ):
        open_lvlm(tiny_lvlm_folder)


# ---- quantisation ----------------------------------------------------------------------------------------


def test_without_bitsandbytes_it_is_said_what_to_install(
    tiny_lvlm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs the package bitsandbytes.* pip install bitsandbytes"):
        open_lvlm(tiny_lvlm_folder, loading=Loading(quantize="8bit"))


def test_what_the_sae_sees_and_the_scores_are_not_quantised(
    tiny_lvlm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict] = []

    def stop(*_: object, **settings: object) -> None:
        asked.append(settings)
        raise OSError("far enough")

    monkeypatch.setattr(origin.importlib.util, "find_spec", lambda name: SimpleNamespace())
    monkeypatch.setattr(LlavaForConditionalGeneration, "from_pretrained", stop)
    for bits in ("8bit", "4bit"):
        with pytest.raises(ModelError, match="far enough"):
            open_lvlm(tiny_lvlm_folder, loading=Loading(quantize=bits))
        how = asked[-1]["quantization_config"]
        assert (how.load_in_8bit, how.load_in_4bit) == (bits == "8bit", bits == "4bit")
        kept = set(how.llm_int8_skip_modules)
        assert {"model.vision_tower", "model.multi_modal_projector", "lm_head"} <= kept
        assert not any("layers" in name for name in kept)
        assert asked[-1]["device_map"] == {"": torch.device("cpu")}


def test_gradients_that_bitsandbytes_does_not_give_are_refused(
    tiny_lvlm_folder: Path, tiny_lvlm_maker: Callable[..., Path]
) -> None:
    lvlm = open_lvlm(tiny_lvlm_folder)
    lvlm.model.is_loaded_in_4bit = True
    with pytest.raises(ModelError, match="no gradients through 4 bits on the CPU"):
        lvlm.word_gradients(torch.zeros(17, 32), 2, "what", "cat", lvlm.answer_words("cat"))
