"""Two ways from a moved slider to a caption, with the time at which each token was there.

`Hooked` does what is commonly done: `model.generate(pixel_values=...)` with a forward hook on the SAE's
block, so that the tower, the SAE and the language model run again for each move. `slide` asks an opened
view of a session. Both keep the SAE's error and answer greedily, so they must say the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from explorer.records import Edit
from explorer.sae import SAE
from explorer.session import Session, View
from explorer.vlm.families.llava import Llava
from explorer.vlm.hooks import edited


class Timed(NamedTuple):
    """A greedy answer: tokens, the one that ends it among them; times: seconds from the start until each was
    there; seconds: until all was done; passes: through the language model."""

    tokens: tuple[int, ...]
    times: tuple[float, ...]
    seconds: float
    passes: int

    def first_change(self, before: Sequence[int]) -> float | None:
        """When the first token was there that differs from an earlier answer's; None when none does."""
        for place, token in enumerate(self.tokens):
            if place >= len(before) or token != before[place]:
                return self.times[place]
        return None


class Hooked:
    """The baseline, on an opened LLaVA. max_new_tokens: of every answer."""

    def __init__(self, lvlm: Llava, sae: SAE, block: int, max_new_tokens: int) -> None:
        self.lvlm, self.sae, self.block, self.max_new_tokens = lvlm, sae, block, max_new_tokens

    def inputs(self, image: Image.Image) -> dict[str, Tensor]:
        """Ids, mask and pixel values of the default prompt: made once per picture, never timed."""
        text = self.lvlm.prompt_text(self.lvlm.default_prompt)
        made = self.lvlm.processor(
            images=[image], text=[text], return_tensors="pt", return_token_type_ids=False
        )
        return dict(made.to(self.lvlm.model.device))

    def text(self, tokens: Sequence[int]) -> str:
        """What people read of an answer."""
        return self.lvlm.processor.tokenizer.decode(list(tokens), skip_special_tokens=True).strip()

    @torch.no_grad()
    def answer(self, inputs: dict[str, Tensor], edits: Sequence[Edit]) -> Timed:
        """Generate with the edits in a hook."""
        clock = _Clock()
        with edited(self.lvlm.vision_blocks[self.block], lambda hidden: self.changed(hidden, edits)):
            output = self.lvlm.model.generate(
                **inputs,
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=0,
                streamer=clock,
            )
        seconds = time.perf_counter() - clock.begun
        tokens = tuple(output[0, inputs["input_ids"].shape[1] :].tolist())
        return Timed(tokens, tuple(clock.times), seconds, len(tokens))

    def changed(self, hidden: Tensor, edits: Sequence[Edit]) -> Tensor:
        """The block's output [1, tokens, d]: encode all patches, change neurons, add what that changes."""
        first = int(self.lvlm.has_cls)
        patches = hidden[:, first:]
        z, scale = self.sae.encode(patches), self.sae.scale(patches)
        new = patches
        for neuron in dict.fromkeys(edit.neuron for edit in edits):
            before = z[..., neuron]
            after = before
            for edit in edits:
                if edit.neuron == neuron:
                    after = torch.where(_where(edit, before), _value(edit, after), after)
            moved = (after - before)[..., None] * self.sae.W_dec[neuron]
            new = new + (moved if scale is None else moved * scale.factor)
        changed = hidden.clone()
        changed[:, first:] = new
        return changed


def slide(session: Session, view: View, edits: Sequence[Edit], max_new_tokens: int) -> Timed:
    """The same through an opened view, whose memory may know earlier answers."""
    begun, times, last = time.perf_counter(), [], None
    for step in session.steps(view, None, edits, max_new_tokens=max_new_tokens):
        now = time.perf_counter() - begun
        times += [now] * (len(step.tokens) - len(times))
        last = step
    assert last is not None and last.done, "the answer is complete"
    return Timed(last.tokens, tuple(times), time.perf_counter() - begun, last.passes)


class _Clock:
    """A streamer for `model.generate` that only notes when tokens come; the prompt comes first."""

    def __init__(self) -> None:
        self.begun, self.times = time.perf_counter(), []
        self._prompted = False

    def put(self, value: Tensor) -> None:
        """Called by `generate`."""
        if self._prompted:
            self.times += [time.perf_counter() - self.begun] * value.numel()
        self._prompted = True

    def end(self) -> None:
        """Called by `generate` when it is done."""


def _where(edit: Edit, before: Tensor) -> Tensor:
    """The patches [1, T] that an edit acts on, bool."""
    if edit.patches is None:
        return torch.ones_like(before, dtype=torch.bool)
    if isinstance(edit.patches, str):
        return before != 0
    return torch.from_numpy(edit.patches.ravel())[None].to(before.device)


def _value(edit: Edit, now: Tensor) -> Tensor:
    match edit.mode:
        case "set":
            return torch.full_like(now, edit.value)
        case "add":
            return now + edit.value
        case _:
            return now * edit.value
