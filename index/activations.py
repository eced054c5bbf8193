"""From a chunk of pictures to sparse activations: the LVLM's tower up to the site, then the SAE.

Knows the LVLM and the SAE; nothing of exemplars or stores.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from explorer.errors import SAEError
from explorer.sae import SAE, SparseCodes
from explorer.sae.quality import unexplained
from explorer.store.sketch import matrix
from explorer.store.writer import SkippedRow
from explorer.vlm.base import LVLM
from index.loading import Chunk, Item
from index.stage.codes import Codes, EncodedChunk
from index.stage.sample import sampled

NOT_FINITE = "the model gives values that are not finite for this picture"


@dataclass(frozen=True, eq=False)
class Encoder:
    """Turns chunks into activations.

    lvlm, sae, block: the site; include_cls: whether the CLS token is encoded as well; sample_rate: share
    of the images whose patch vectors are handed on where patches have ground truth; dtype: of the SAE's
    encoder product (float32, or bfloat16 on a GPU). Raises SAEError for include_cls with a tower that has
    no CLS token.
    """

    lvlm: LVLM
    sae: SAE
    block: int
    include_cls: bool = False
    sample_rate: float = 1.0
    dtype: torch.dtype = torch.float32
    _sketch: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.include_cls and not self.lvlm.has_cls:
            raise SAEError("this model's tower has no CLS token; leave out --include-cls")
        sketch = torch.from_numpy(matrix(self.sae.width)).to(self.sae.b_dec.device)
        object.__setattr__(self, "_sketch", sketch)

    @torch.inference_mode()
    def __call__(self, chunk: Chunk) -> EncodedChunk:
        """Run one chunk through the tower and the SAE.

        A picture whose activations are not finite becomes a row of `skipped`.
        """
        if chunk.pixels is None:
            return self._nothing(chunk)
        assert chunk.like is not None, "a chunk with pixels has a form"
        hidden = self.lvlm.tower(chunk.pixels, self.block, chunk.like)
        patches = chunk.like.patches(hidden).float()
        tokens = patches if not self.include_cls else torch.cat([patches, hidden[:, :1].float()], dim=1)
        finite = torch.isfinite(tokens).flatten(1).all(1)
        items, skipped = chunk.items, list(chunk.skipped)
        if not bool(finite.all()):
            keep = np.flatnonzero(finite.cpu().numpy()).tolist()
            lost = [item for i, item in enumerate(items) if i not in keep]
            skipped += [SkippedRow(item.image_id, item.origin, NOT_FINITE) for item in lost]
            items, patches, tokens = [items[i] for i in keep], patches[finite], tokens[finite]
            if not items:
                return self._nothing(chunk._replace(skipped=skipped))
        n_tokens, n_patches = tokens.shape[1], patches.shape[1]
        codes = self.sae.encode_sparse(tokens.flatten(0, 1), dtype=self.dtype)
        on_patches = codes if not self.include_cls else _only_patches(codes, n_tokens, n_patches)
        fvu = unexplained(self.sae, patches, on_patches)
        codes = _firing(codes)
        sketches = (self.sae.scaling.apply(patches)[0] - self.sae.b_dec) @ self._sketch
        return EncodedChunk(
            items,
            skipped,
            _codes(codes, len(items), n_tokens, n_patches),
            np.array(fvu, dtype=np.float32),
            patches.mean(1).cpu().numpy(),
            sketches.cpu().numpy(),
            self._known(items, patches),
        )

    def _known(self, items: list[Item], patches: Tensor) -> dict[int, np.ndarray]:
        """The patch vectors of the sampled images with ground truth, by place."""
        which = sampled(np.array([item.number for item in items]), self.sample_rate)
        known = [i for i, item in enumerate(items) if item.truth is not None and which[i]]
        return {i: patches[i].cpu().numpy() for i in known}

    def _nothing(self, chunk: Chunk) -> EncodedChunk:
        """A chunk without a readable picture."""
        none = np.zeros(0, np.int32)
        codes = Codes(none, none, none, np.zeros(0, np.float32), 0, 0)
        empty = np.zeros((0, self.sae.width), np.float32)
        return EncodedChunk([], chunk.skipped, codes, empty[:, 0], empty, empty[:, None], {})


def _codes(codes: SparseCodes, n_images: int, n_tokens: int, n_patches: int) -> Codes:
    """Small numpy columns of the activations of n_images * n_tokens vectors in a row."""
    image = torch.div(codes.tokens, n_tokens, rounding_mode="floor")
    token = codes.tokens - image * n_tokens
    columns = (column.to(torch.int32).cpu().numpy() for column in (image, token, codes.neurons))
    return Codes(*columns, codes.values.cpu().numpy(), n_images, n_patches)


def _firing(codes: SparseCodes) -> SparseCodes:
    """The activations above 0, which are what an index counts; all of them unless the SAE is signed."""
    above = codes.values > 0
    return codes if bool(above.all()) else SparseCodes(*(part[above] for part in codes))


def _only_patches(codes: SparseCodes, n_tokens: int, n_patches: int) -> SparseCodes:
    """The activations without those of the tokens behind each image's patches."""
    image = torch.div(codes.tokens, n_tokens, rounding_mode="floor")
    token = codes.tokens - image * n_tokens
    on = token < n_patches
    return SparseCodes(image[on] * n_patches + token[on], codes.neurons[on], codes.values[on])
