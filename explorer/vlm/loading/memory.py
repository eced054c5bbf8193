"""How much memory a model needs, known before it is loaded: from its config alone, on the meta device.

The weights are counted exactly, but for what bitsandbytes keeps beside quantised ones (its formats' own
figures). What working takes is an estimate: keys and values of two branches of an answer about one picture,
those that are kept for the next answers, and what passes through the widest layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from explorer.errors import ModelError
from explorer.vlm.loading import Loading, Quantized
from explorer.vlm.loading.full import gib
from explorer.vlm.loading.parts import Part, linear_names, parts_of
from explorer.vlm.memory import READINGS
from explorer.vlm.seeing import TOGETHER

BYTES = {torch.float32: 4.0, torch.bfloat16: 2.0, torch.float16: 2.0, torch.float64: 8.0}
QUANTISED = {"8bit": 1.0, "4bit": 0.5 + 1 / 64 + 4 / (64 * 256)}
"""Bytes per weight: LLM.int8(); NF4 in blocks of 64 with a scale of 8 bits, and 32 bits per 256 of these."""
ROW = 4.0
"""Bytes of the scale that 8 bits keep for each row of a matrix."""

ANSWER = 512
"""Tokens of prompt and answer besides the picture's."""
BRANCHES = 2
"""Ways of asking at a time: contrastive decoding reads the clean and the noisy picture."""
KEPT = 1 << 30
"""Most bytes of keys and values that a session keeps for the next answers (its REMEMBERED)."""
ROOM = 256 << 20
"""Bytes of the libraries' own buffers."""
LARGE_PICTURE = 1024
"""Side in pixels of the picture that is reckoned with where a model takes pictures as they are."""
TILES = {"idefics3": 4 * 4, "smolvlm": 4 * 4, "internvl": 12}
"""Most tiles that the published image processors cut a picture into, by model_type, besides the whole."""


class Need(NamedTuple):
    """Bytes: of the weights, split by `Part.role`, and to work. picture: tokens of a picture."""

    sees: int
    layers: int
    ends: int
    work: int
    picture: int
    count: int

    @property
    def weights(self) -> int:
        """Of all weights."""
        return self.sees + self.layers + self.ends


class Free(NamedTuple):
    """What a device has: bytes free, and its name."""

    device: str
    bytes: int


def on_meta(kind: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    """The model without its weights."""
    own = type(config).from_dict(config.to_dict())
    if own.model_type == "internvl" and not getattr(own.text_config, "tie_word_embeddings", False):
        own.tie_word_embeddings = False  # the class says True, the published checkpoints have a head apart
    with torch.device("meta"):
        return kind(own)


def need_of(model: PreTrainedModel, dtype: torch.dtype, quantized: Quantized | None = None) -> Need:
    """What a model, on the meta device too, takes up in a dtype."""
    seen: set[int] = set()
    sizes = {"sees": 0.0, "layer": 0.0, "ends": 0.0}
    for part in parts_of(model):
        sizes[part.role] += weight_of(part, dtype, quantized, seen)
    picture = picture_tokens(model.config)
    work = _work(model.config, picture, BYTES[dtype])
    count = sum({id(one): one.numel() for one in model.parameters()}.values())
    return Need(*(int(sizes[role]) for role in ("sees", "layer", "ends")), work, picture, count)


def weight_of(part: Part, dtype: torch.dtype, quantized: Quantized | None, seen: set[int]) -> float:
    """Bytes of a part's weights; those in `seen` are shared and count no more."""
    packed = linear_names(part) if quantized and part.role == "layer" else set()
    size = 0.0
    for name, weight in part.weights():
        if id(weight) in seen:
            continue
        seen.add(id(weight))
        if name in packed and quantized:
            size += weight.numel() * QUANTISED[quantized] + ROW * len(weight) * (quantized == "8bit")
        else:
            size += weight.numel() * BYTES[dtype]
    return size


def _work(config: PreTrainedConfig, picture: int, each: float) -> int:
    """Bytes that an answer about a picture takes besides the weights."""
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    tokens = min(picture + ANSWER, text.max_position_embeddings)
    branch = 2 * text.num_hidden_layers * heads * head * each * tokens
    widest = tokens * (3 * text.intermediate_size + 6 * text.hidden_size) * each
    scores = 64 * text.vocab_size * 8
    through = max(widest, _tower_work(config, each))
    return int(BRANCHES * branch + min(KEPT, READINGS * branch) + through + scores + ROOM)


def _tower_work(config: PreTrainedConfig, each: float) -> float:
    """Bytes that pass through a block of the tower: of one picture, or of as many as go through together when
    an index or a training reads them. The factors are a little above what two blocks took on a CPU, in
    bfloat16, of 32,768 tokens: 1.0 GiB (CLIP), 1.4 (Qwen2-VL, Qwen2.5-VL), 1.5 (Qwen3-VL)."""
    vision, (_, side) = config.vision_config, _tiles(config)
    width = getattr(vision, "embed_dim", None) or vision.hidden_size
    wide = getattr(vision, "intermediate_size", None) or round(width * vision.mlp_ratio)
    return max(TOGETHER, side**2) * (3 * wide + 12 * width) * each


def _tiles(config: PreTrainedConfig) -> tuple[int, int]:
    """Into how many tiles a picture is cut, the whole one among them, and the patches along a tile's side."""
    vision = config.vision_config
    patch = vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
    length = getattr(vision, "image_size", None)
    if length is None:
        merge = getattr(vision, "spatial_merge_size", 1)
        return 1, LARGE_PICTURE // (patch * merge) * merge
    length = length if isinstance(length, int) else length[0]
    if pinpoints := getattr(config, "image_grid_pinpoints", None):
        return 1 + max(height * width for height, width in pinpoints) // length**2, length // patch
    return 1 + TILES.get(config.model_type, 0), length // patch


def picture_tokens(config: PreTrainedConfig) -> int:
    """How many tokens of the prompt stand for a picture: the most that tiles can make, or those of a square
    picture of LARGE_PICTURE pixels where a model takes pictures as they are."""
    if getattr(config, "num_query_tokens", None):
        return int(config.num_query_tokens)
    tiles, side = _tiles(config)
    if pinpoints := getattr(config, "image_grid_pinpoints", None):
        length = config.vision_config.image_size
        grids = [(height * side // length, width * side // length) for height, width in pinpoints]
        return side**2 + max(rows * (cols + 1) for rows, cols in grids)  # each row ends with a token
    merged = getattr(config, "scale_factor", None) or round(1 / getattr(config, "downsample_ratio", 1))
    merged *= getattr(config.vision_config, "spatial_merge_size", 1)
    return tiles * (side // merged) ** 2


def free_memory(device: torch.device) -> Free:
    """What a device has left. On the CPU: what the system, or the group of processes, still gives."""
    if device.type == "cuda":
        number = torch.cuda.current_device() if device.index is None else device.index
        return Free(f"cuda:{number}", torch.cuda.mem_get_info(number)[0])
    if device.type == "mps":
        return Free("mps", torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return Free("this machine", _main_memory())


def _main_memory(root: Path = Path("/")) -> int:
    """Free bytes of the main memory; a very large number where the system does not tell."""
    found = []
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        group = root / "sys/fs/cgroup"
        if (limit := (group / "memory.max").read_text().strip()) != "max":
            used = int((group / "memory.current").read_text())
            cached = (group / "memory.stat").read_text().splitlines()
            given_back = sum(int(line.split()[1]) for line in cached if line.startswith("inactive_file "))
            found.append(max(0, int(limit) - used + given_back))
    except OSError:
        pass  # no Linux, or no limit for the group
    return min(found, default=1 << 60)


def told(name: str, need: Need, kind: str, free: Free, beside: int = 0) -> str:
    """The line about a model. kind: dtype and quantisation in words; beside: bytes of the SAE."""
    more = f", {gib(beside)} for the SAE" if beside else ""
    line = (
        f"{name}: {gib(need.weights)} in {kind}{more}, and about {gib(need.work)} to work; "
        f"{free.device} has {gib(free.bytes)} free"
    )
    return line if need.weights + beside + need.work <= free.bytes else f"{line}, which may not do"


def refuse_too_large(
    name: str,
    need: Need,
    free: Free,
    loading: Loading,
    dtype: torch.dtype,
    beside: int,
    others: int = 0,
) -> None:
    """Raise ModelError with figures and advice when the weights alone cannot fit.

    others: how many more cards there are.
    """
    if loading.try_anyway or need.weights + beside <= free.bytes:
        return
    advice = []
    if loading.quantize != "4bit":
        advice.append("--quantize 4bit" if loading.quantize else "--quantize 8bit or 4bit")
    if loading.device_map is None and others > 0:
        advice.append("--device-map auto, over all cards")
    if dtype == torch.float32:
        advice.append("--dtype bfloat16")
    words = f"use {', '.join(advice)}, or a smaller model" if advice else "take a smaller model"
    raise ModelError(
        f"'{name}' does not fit: its weights take {gib(need.weights)}"
        f"{f' and the SAE {gib(beside)}' if beside else ''}, {free.device} has {gib(free.bytes)} free; "
        f"{words}; --try-anyway loads it all the same"
    )
