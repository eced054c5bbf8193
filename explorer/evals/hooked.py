"""Two ways from a moved slider to a caption, with the time at which each token was there.

`Hooked` does what is commonly done: the model's own `generate`, from pixel values, with a forward hook on the
SAE's block, so that the tower, the SAE and the language model run again for each move. `slide` asks an opened
view of a session. Both keep the SAE's error and answer greedily, so they must say the same.

The hook knows of a family only where in a block's output the patches of the picture are (`Prepared`): tiles,
windows and merge blocks stay as the model has them. It shares no other code with what it is a yardstick for:
neither how a block's output is read and put back, nor how the tower goes on from there, nor how edits act.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from explorer.errors import ModelError
from explorer.records import Edit, Grid
from explorer.sae import SAE
from explorer.session import Session, View
from explorer.vlm.adapter import Adapter
from explorer.vlm.base import Prepared
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


class Ready(NamedTuple):
    """A picture before anything is timed.

    inputs: of the model's `generate`, about the default prompt; prepared: where the picture's patches are.
    """

    inputs: dict[str, Tensor]
    prepared: Prepared


class Hooked:
    """The baseline, on an opened model. max_new_tokens: of every answer."""

    def __init__(self, lvlm: Adapter, sae: SAE, block: int, max_new_tokens: int) -> None:
        self.lvlm, self.sae, self.block, self.max_new_tokens = lvlm, sae, block, max_new_tokens

    def ready(self, image: Image.Image) -> Ready:
        """What `answer` needs of a picture: made once, never timed."""
        inputs = self.lvlm.plain_inputs(image, self.lvlm.default_prompt)
        return Ready(inputs, self.lvlm.preprocess(image))

    def text(self, tokens: Sequence[int]) -> str:
        """What people read of an answer."""
        return self.lvlm.processor.tokenizer.decode(list(tokens), skip_special_tokens=True).strip()

    @torch.no_grad()
    def answer(self, ready: Ready, edits: Sequence[Edit]) -> Timed:
        """Generate with the edits in a hook. Raises ModelError when the hook was not called just once."""
        clock, calls = _Clock(), []

        def instead(output: Tensor) -> Tensor:
            calls.append(output.shape)
            return self.changed(output, ready.prepared, edits)

        with edited(self.lvlm.vision_blocks[self.block], instead):
            tokens = self.lvlm.generate_plain(ready.inputs, self.max_new_tokens, clock)
        seconds = time.perf_counter() - clock.begun
        if len(calls) != 1:
            raise ModelError(
                f"block {self.block} of {self.lvlm.model_id} ran {len(calls)} times for an answer, not once: "
                "a hook on it is no yardstick"
            )
        return Timed(tuple(tokens), tuple(clock.times), seconds, len(tokens))

    def changed(self, output: Tensor, prepared: Prepared, edits: Sequence[Edit]) -> Tensor:
        """A block's output [..., d] of one picture: encode patches, change neurons, add what that changes.

        However the output is laid out, its vectors one after the other are the tower's tokens.
        """
        flat = output.reshape(-1, output.shape[-1])
        new, grid = flat.clone(), prepared.grid
        last = torch.arange(len(flat) - grid.rows * grid.cols, len(flat))
        main = last if prepared.places is None else prepared.places
        for here, places in ((grid, main), *prepared.scales):
            patches = flat[places.to(flat.device)]
            new[places.to(flat.device)] = self._moved(patches.float(), here, grid, edits).to(flat.dtype)
        return new.reshape(output.shape)

    def _moved(self, patches: Tensor, here: Grid, grid: Grid, edits: Sequence[Edit]) -> Tensor:
        """Patches [T, d] of one grid after the edits, whose regions are drawn on another."""
        z, scale = self.sae.encode(patches), self.sae.scale(patches)
        new = patches
        for neuron in dict.fromkeys(edit.neuron for edit in edits):
            before = z[:, neuron]
            after = before
            for edit in edits:
                if edit.neuron == neuron:
                    after = torch.where(_where(edit, before, here, grid), _value(edit, after), after)
            moved = (after - before)[:, None] * self.sae.W_dec[neuron]
            new = new + (moved if scale is None else moved * scale.factor)
        return new


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
    """A streamer for `generate` that only notes when tokens come; the prompt comes first."""

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


def _where(edit: Edit, before: Tensor, here: Grid, grid: Grid) -> Tensor:
    """The patches [T] of a grid that an edit acts on, bool; its region is drawn on `grid`.

    On another grid than that, a patch is in the region when its centre is.
    """
    if edit.patches is None:
        return torch.ones_like(before, dtype=torch.bool)
    if isinstance(edit.patches, str):
        return before != 0
    if here is grid:
        return torch.from_numpy(edit.patches.ravel()).to(before.device)
    boxes = [here.box_of(row, col) for row in range(here.rows) for col in range(here.cols)]
    cells = [grid.patch_at((box.left + box.right) / 2, (box.top + box.bottom) / 2) for box in boxes]
    inside = [cell is not None and bool(edit.patches[cell]) for cell in cells]
    return torch.tensor(inside, device=before.device)


def _value(edit: Edit, now: Tensor) -> Tensor:
    match edit.mode:
        case "set":
            return torch.full_like(now, edit.value)
        case "add":
            return now + edit.value
        case _:
            return now * edit.value
