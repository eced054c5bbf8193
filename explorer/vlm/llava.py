"""LLaVA-1.5 and its like: a vision tower, a projector, and a language model that reads the patches.

`Llava` is one opened `LlavaForConditionalGeneration`. It knows where the tower's blocks are, which of
them the text depends on, and how to generate from ready-made image features, so that the tower does
not run again for each edit. It knows nothing of neurons.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import lru_cache, partial

import torch
from PIL import Image
from torch import nn
from torch.nn.functional import linear
from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutputWithPooling

from explorer.errors import ModelError
from explorer.vlm.attention import word_attention
from explorer.vlm.base import (
    WORD_MARKS,
    AnswerWord,
    Asked,
    Choose,
    Prepared,
    Step,
    WordGradients,
    word_of,
)
from explorer.vlm.decode import Branch, Decoder
from explorer.vlm.gradients import token_log_probs, word_gradients
from explorer.vlm.grid import framing_of, grid_of
from explorer.vlm.hooks import capture
from explorer.vlm.memory import Memory
from explorer.vlm.prompts import in_form
from explorer.vlm.script import Script, script_of
from explorer.vlm.spelling import answer_tokens, answer_words

DEFAULT_PROMPT = "Describe the image."


class Llava:
    """An opened LLaVA; see `explorer.vlm.base.LVLM` for what each member means.

    Raises ModelError for a model that reads several blocks at once, or an image processor whose
    patches cannot be placed in the picture.
    """

    def __init__(
        self, model: LlavaForConditionalGeneration, processor: LlavaProcessor, model_id: str
    ) -> None:
        self.model, self.processor, self.model_id = model.eval().requires_grad_(False), processor, model_id
        self.default_prompt = DEFAULT_PROMPT
        self._core = model.model
        self._tower = model.get_encoder(modality="image")
        self._blocks = _longest_list(self._tower)
        self.block_count = len(self._blocks)
        self.read_block = _read_block(model.config.vision_feature_layer, self.block_count)
        vision = model.config.vision_config
        self._width, self._patch = vision.hidden_size, vision.patch_size
        has_cls = any(name.endswith("class_embedding") for name, _ in self._tower.named_parameters())
        self.patch_slice = slice(1, None) if has_cls else slice(0, None)
        self.text_layers = int(model.config.text_config.num_hidden_layers)
        text = [*self._core.language_model.parameters(), *model.lm_head.parameters()]
        self.text_size = sum({id(weights): weights.numel() for weights in text}.values())
        self._framing = framing_of(processor.image_processor)
        self.preprocessing = f"{self._framing.words()}; {type(processor.image_processor).__name__}"
        self._encoded = lru_cache(maxsize=32)(partial(_encode, processor))
        self._text = partial(_text, processor.tokenizer)
        self._decoder = Decoder(model, self._core.language_model, self._text)

    @property
    def vision_blocks(self) -> nn.ModuleList:
        """The blocks of the vision tower, for hooks."""
        return self._blocks

    @property
    def projector(self) -> nn.Module:
        """The module between the vision tower and the language model, for hooks."""
        return self._core.multi_modal_projector

    def width(self, block: int) -> int:
        """Width of the block's output. Raises ModelError for a block that does not exist or cannot matter."""
        if not 0 <= block < self.block_count:
            raise ModelError(
                f"{self.model_id} has no block {block}: its vision tower has 0 to {self.block_count - 1}"
            )
        if block > self.read_block:
            raise ModelError(
                f"block {block} cannot matter: the language model of {self.model_id} reads block "
                f"{self.read_block}; use a block from 0 to {self.read_block}"
            )
        return self._width

    def preprocess(self, image: Image.Image) -> Prepared:
        """Pixel values [1, 3, H, W] and the grid of an upright RGB picture."""
        pixels = self.processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
        rows, cols = pixels.shape[-2] // self._patch, pixels.shape[-1] // self._patch
        return Prepared(pixels, grid_of(*image.size, self._framing, rows, cols, self._patch))

    @torch.no_grad()
    def tower(self, pixel_values: torch.Tensor, block: int) -> torch.Tensor:
        """Output of `block`, [batch, tokens, width]; the blocks after it do not run."""
        self.width(block)
        with capture(self._blocks[block], stop=True) as captured:
            self._tower(pixel_values.to(self.model.device, self.model.dtype))
        assert captured.output is not None, f"block {block} did not run"
        return captured.output

    @torch.no_grad()
    def features(self, hidden: torch.Tensor, block: int) -> torch.Tensor:
        """Image features [..., N, D] when `block` puts out `hidden` [..., tokens, width]."""
        return self._features(hidden, block)

    def _features(self, hidden: torch.Tensor, block: int) -> torch.Tensor:
        """As `features`, but gradients reach `hidden`."""
        self.width(block)
        state = hidden.to(self.model.device, self.model.dtype)
        state = state[None] if hidden.ndim == 2 else state
        for later in self._blocks[block + 1 : self.read_block + 1]:
            output = later(state, None)
            state = output[0] if isinstance(output, tuple) else output
        if self.model.config.vision_feature_select_strategy == "default":
            state = state[:, 1:]
        features = self.projector(state)
        return features[0] if hidden.ndim == 2 else features

    def decode(
        self,
        asked: Sequence[Asked],
        max_new_tokens: int = 64,
        choose: Choose | None = None,
        memory: Memory | None = None,
    ) -> Generator[Step, None, None]:
        """Answer step by step, one pass through the language model for every branch at each `next`."""
        if not asked:
            raise ModelError("nothing was asked; the first branch is the question itself")
        branches = [self._branch(one, max_new_tokens) for one in asked]
        return self._decoder.decode(branches, max_new_tokens, choose, memory)

    def generate(self, features: torch.Tensor, prompt: str, max_new_tokens: int = 64) -> str:
        """The greedy answer to image features [N, D], at once."""
        *_, last = self.decode([Asked(prompt, features)], max_new_tokens)
        return last.text

    def generate_many(self, features: torch.Tensor, prompt: str, max_new_tokens: int = 64) -> list[str]:
        """The greedy answers to one prompt about several pictures, features [B, N, D], in one batch."""
        inputs = self._tokens(prompt, features.shape[1], max_new_tokens)
        inputs = {name: value.expand(len(features), -1) for name, value in inputs.items()}
        ready = BaseModelOutputWithPooling(pooler_output=list(features))
        return self._run(inputs, max_new_tokens, mm_encoder_outputs={"image": ready})

    def answer_plain(self, image: Image.Image, prompt: str, max_new_tokens: int = 64) -> str:
        """The answer of the untouched model from pixel values, greedy."""
        text = self.prompt_text(prompt)
        inputs = self.processor(images=[image], text=[text], return_tensors="pt").to(self.model.device)
        pixels = inputs.pop("pixel_values").to(self.model.dtype)
        return self._run(dict(inputs), max_new_tokens, pixel_values=pixels)[0]

    def words(self) -> list[str]:
        """The word that each entry of the vocabulary begins; special tokens and unused rows begin none."""
        tokenizer, rows = self.processor.tokenizer, self.model.get_output_embeddings().weight.shape[0]
        pieces = tokenizer.convert_ids_to_tokens(list(range(min(rows, len(tokenizer)))))
        special = set(tokenizer.all_special_tokens) | {self.processor.image_token}
        pieces = ["" if piece is None or piece in special else piece for piece in pieces]
        marked = any(piece.startswith(WORD_MARKS) for piece in pieces)
        return [word_of(piece, marked) for piece in pieces] + [""] * (rows - len(pieces))

    @torch.no_grad()
    def next_words(self, features: torch.Tensor, prompt: str, answer: str) -> torch.Tensor:
        """Log-probabilities [B, A + 1, V] of what comes next along an answer, from features [B, N, D]."""
        return torch.log_softmax(self._logits(self._script(features, prompt, answer)).float(), dim=-1)

    def answer_tokens(self, answer: str) -> list[int]:
        """The tokens of an answer, as `next_words` reads it."""
        return answer_tokens(self.processor.tokenizer, answer)

    def answer_words(self, answer: str) -> list[AnswerWord]:
        """The words of an answer, punctuation left out, and which of `answer_tokens` each is made of."""
        return answer_words(self.processor.tokenizer, answer)

    def word_gradients(
        self, hidden: torch.Tensor, block: int, prompt: str, answer: str, words: Sequence[AnswerWord]
    ) -> WordGradients:
        """Each word's log-probability, and its gradient by the output of `block`, hidden [tokens, width]."""

        def log_probs(state: torch.Tensor) -> torch.Tensor:
            script = self._script(self._features(state, block)[None], prompt, answer)
            return token_log_probs(self._logits(script), script.said)[0]

        return word_gradients(log_probs, hidden.to(self.model.device, self.model.dtype), words)

    @torch.no_grad()
    def word_attention(
        self,
        features: torch.Tensor,
        prompt: str,
        answer: str,
        words: Sequence[AnswerWord],
        layers: tuple[int, int] | None = None,
    ) -> torch.Tensor:
        """How much each word looked at each of the image features [N, D] while it was chosen: [W, N]."""
        script = self._script(features[None], prompt, answer)
        return word_attention(self._core.language_model, script, words, layers)

    def _script(self, features: torch.Tensor, prompt: str, answer: str) -> Script:
        """Prompt and answer with image features [B, N, D] in them. Raises ModelError when too long."""
        said = torch.tensor(self.answer_tokens(answer), dtype=torch.int64, device=self.model.device)
        inputs = self._tokens(prompt, features.shape[1], len(said) + 1)
        embed, image_token = self.model.get_input_embeddings(), self.model.config.image_token_id
        return script_of(embed, inputs["input_ids"], said, features, image_token)

    def _logits(self, script: Script) -> torch.Tensor:
        """Logits [B, A + 1, V] before, along and after the answer."""
        keep = len(script.said) + 1
        output = self.model(inputs_embeds=script.embeddings, use_cache=False, logits_to_keep=keep)
        return output.logits

    @torch.no_grad()
    def unembed(self, vectors: torch.Tensor) -> torch.Tensor:
        """What vectors [n, D] of the last layer add to the logits [n, V], final norm's weights included."""
        head, norm = self.model.get_output_embeddings().weight, self._core.language_model.norm.weight
        return linear(vectors.to(head) * norm, head).float()

    def prompt_text(self, prompt: str, preface: str = "", picture: bool = True) -> str:
        """The prompt in the model's own form, with one image token. Raises ModelError if it has its own."""
        return in_form(self.processor, prompt, preface, picture)

    def _tokens(
        self, prompt: str, image_tokens: int | None, max_new_tokens: int, preface: str = ""
    ) -> dict[str, torch.Tensor]:
        """Ids and mask of the prompt with its image token repeated. Raises ModelError when it is too long."""
        if max_new_tokens < 1:
            raise ModelError(f"an answer of {max_new_tokens} tokens was asked for; ask for 1 or more")
        inputs = self._encoded(prompt, image_tokens, preface)
        length, room = inputs["input_ids"].shape[1], self.model.config.text_config.max_position_embeddings
        if length + max_new_tokens > room:
            picture = "" if image_tokens is None else f" (the picture's {image_tokens} among them)"
            raise ModelError(
                f"the prompt is too long: {length} tokens{picture} and {max_new_tokens} new ones do not fit "
                f"into the model's {room}"
            )
        return {name: value.to(self.model.device) for name, value in inputs.items()}

    def _branch(self, asked: Asked, max_new_tokens: int) -> Branch:
        """One branch of a generation, checked."""
        features, mark = asked.features, self.model.config.image_token_id
        shown = None if features is None else len(features)
        ids = self._tokens(asked.prompt, shown, max_new_tokens, asked.preface)["input_ids"]
        listed = ids[0].tolist()
        start = listed.index(mark) if shown else 0

        @torch.no_grad()
        def embeddings() -> torch.Tensor:
            rows = self.model.get_input_embeddings()(ids[0])
            if features is None:
                return rows
            return rows.masked_scatter((ids[0] == mark)[:, None], features.to(rows))

        return Branch(listed, embeddings, slice(start, start + (shown or 0)), asked.attention)

    def _run(
        self,
        inputs: dict[str, torch.Tensor],
        max_new_tokens: int,
        **image: object,
    ) -> list[str]:
        """Greedy generation after `inputs`; the new text of each row."""
        tokenizer, settings = self.processor.tokenizer, self.model.generation_config
        pad = next(
            (
                i
                for i in (settings.pad_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
                if i is not None
            ),
            0,
        )
        output = self.model.generate(
            **inputs,
            **image,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=pad,
        )
        return [self._text(row.tolist()) for row in output[:, inputs["input_ids"].shape[1] :]]


def _encode(
    processor: LlavaProcessor, prompt: str, image_tokens: int | None, preface: str
) -> dict[str, torch.Tensor]:
    """Ids and mask [1, length] of a prompt in the model's form, its image token repeated; None: without."""
    text, mark = in_form(processor, prompt, preface, image_tokens is not None), processor.image_token
    text = text.replace(mark, mark * (image_tokens or 0))
    return dict(processor.tokenizer([text], return_tensors="pt", return_token_type_ids=False))


def _text(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> str:
    """What people read of tokens."""
    return tokenizer.decode(tokens, skip_special_tokens=True).strip()


def _longest_list(tower: nn.Module) -> nn.ModuleList:
    """The tower's blocks: no list in it is longer."""
    lists = [module for module in tower.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ModelError(f"found no list of blocks in the vision tower {type(tower).__name__}")
    return max(lists, key=len)


def _read_block(layer: int | list[int], blocks: int) -> int:
    """The block whose output the projector reads: hidden state 0 is the embedding, state i block i - 1."""
    if not isinstance(layer, int):
        raise ModelError(f"the projector reads several blocks at once ({list(layer)}); only one is supported")
    block = (layer if layer >= 0 else layer + blocks + 1) - 1
    if not 0 <= block < blocks:
        raise ModelError(f"vision_feature_layer {layer} names no block of a tower with {blocks} blocks")
    return block
