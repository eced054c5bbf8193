"""The one SAE class; how inputs are scaled and how pre-activations become activations are fields of it.

    xn = scaling(x)    p = (xn - b_dec) W_enc + b_enc    z = rule(p)    x_hat = unscale(z W_dec + b_dec)

Whatever else a project's formulas hold (factors, norms of decoder rows, a bias that is not subtracted) is
folded into the four weights by `explorer.sae.loaders`. All arithmetic is float32, unless bfloat16 is asked
for in the encoder's product. It does not know which model or block it belongs to beyond two labels, nor how
it was trained.
"""

from __future__ import annotations

import hashlib
import json
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from explorer.errors import SAEError
from explorer.sae import files
from explorer.sae.rules import ActivationRule, SparseCodes
from explorer.sae.scaling import LastScale, Scale, Scaling

__all__ = ["CHUNK", "SAE", "ActivationRule", "Scale", "Scaling", "SparseCodes", "Tokens"]

Tokens = Literal["patches", "cls", "all"]

CHUNK = 1 << 24
"""Most activations that `encode_sparse` holds densely at once (64 MiB of float32)."""


class SAE(nn.Module):
    """A sparse autoencoder from vectors of `width` d to `n_neurons` F.

    rule: the activation rule; group_sizes: sizes of the Matryoshka groups, which sum to F (one
    group when there are none); site_block: the block of the vision tower whose output it reads;
    model_id: the model it was trained on; facts: what is known of its training, as JSON values (of a file
    of another project also "format", "project", "class", "model", "hook" and "tokens"); scaling: of each
    input vector by itself.
    """

    def __init__(
        self,
        W_enc: Tensor,
        b_enc: Tensor,
        W_dec: Tensor,
        b_dec: Tensor,
        rule: ActivationRule,
        *,
        group_sizes: tuple[int, ...] = (),
        site_block: int | None = None,
        model_id: str | None = None,
        facts: dict[str, Any] | None = None,
        scaling: Scaling | None = None,
    ) -> None:
        super().__init__()
        files.check(Path("SAE"), {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec})
        self.W_enc = nn.Parameter(W_enc.detach().float())
        self.b_enc = nn.Parameter(b_enc.detach().float())
        self.W_dec = nn.Parameter(W_dec.detach().float())
        self.b_dec = nn.Parameter(b_dec.detach().float())
        self.rule = rule
        self.group_sizes = tuple(group_sizes) or (self.n_neurons,)
        self.site_block = site_block
        self.model_id = model_id
        self.facts = dict(facts or {})
        self.scaling = scaling or Scaling()
        self._last = LastScale()
        self._id: str | None = None
        self._cast: Tensor | None = None
        if min(self.group_sizes) < 0 or sum(self.group_sizes) != self.n_neurons:
            raise SAEError(f"the groups {self.group_sizes} do not add up to {self.n_neurons} neurons")
        rule.check(self.n_neurons)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast the weights, the thresholds along with them: `to`, `cuda` and the like end here."""
        super()._apply(*args, **kwargs)
        self.rule, self._last = self.rule.to(self.b_enc.device), LastScale()
        return self

    @property
    def tokens(self) -> Tokens | None:
        """The tokens it was trained on, as `facts` say: "patches", "cls", "all", or None for unknown."""
        known = self.facts.get("tokens")
        return known if known in get_args(Tokens) else None

    @property
    def width(self) -> int:
        """Length d of the vectors that it reads."""
        return self.b_dec.numel()

    @property
    def n_neurons(self) -> int:
        """Number of neurons F."""
        return self.b_enc.numel()

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Where each Matryoshka group ends: the cumulative group sizes, the last one is F."""
        return tuple(accumulate(self.group_sizes))

    @property
    def id(self) -> str:
        """SHA-256 in hex of the weights (as float32), rule and scaling: equal ids mean equal activations.

        Kept once the weights are frozen, as those of a loaded SAE are.
        """
        if self._id is None or self.W_dec.requires_grad:
            said = [self.width, self.n_neurons, self.rule.stated()]
            said += [self.scaling.stated()] if self.scaling else []
            digest = hashlib.sha256(json.dumps(said).encode())
            for name in files.NAMES:
                digest.update(getattr(self, name).detach().cpu().contiguous().numpy().data)
            self._id = digest.hexdigest()
        return self._id

    @property
    def short_id(self) -> str:
        """The first 12 digits of the id, for people."""
        return self.id[:12]

    def scale(self, x: Tensor) -> Scale | None:
        """What gives the vectors x [..., d] back their scale after decoding; None without scaling."""
        self._check_width(x, self.width, "vectors of width")
        return self.scaling.scale(x)

    def preactivations(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """p [..., F] float32 of the vectors x [..., d], before the rule (so p may be negative).

        dtype: in which the product is taken; bfloat16 is quicker on a GPU and good to about 0.4 %.
        """
        self._check_width(x, self.width, "vectors of width")
        scaled, self._last.scale = self.scaling.apply(x)
        centred = scaled - self.b_dec
        if dtype == torch.float32:
            return (centred @ self.W_enc).add_(self.b_enc)
        return (centred.to(dtype) @ self._encoder(dtype)).float().add_(self.b_enc)

    def _encoder(self, dtype: torch.dtype) -> Tensor:
        """W_enc in another dtype, kept once the weights are frozen."""
        if self.W_enc.requires_grad:
            return self.W_enc.to(dtype)
        if self._cast is None or self._cast.dtype != dtype or self._cast.device != self.W_enc.device:
            self._cast = self.W_enc.to(dtype)
        return self._cast

    def encode(self, x: Tensor, groups: int | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Activations z [..., F] of the vectors x [..., d].

        groups: keep only the neurons of the first so many Matryoshka groups, the others are 0; dtype: as for
        `preactivations`.
        """
        z = self.rule(self.preactivations(x, dtype))
        if groups is None:
            return z
        if not 0 <= groups <= len(self.group_sizes):
            raise SAEError(f"this SAE has {len(self.group_sizes)} groups, not {groups}")
        end = sum(self.group_sizes[:groups])
        return torch.cat([z[..., :end], torch.zeros_like(z[..., end:])], dim=-1)

    def decode(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        """Vectors x_hat [..., d] of the activations z [..., F].

        x: the vectors [..., d] that z came from, whose scale is given back. Without x it is the scale of what
        this thread encoded last. Only an SAE with scaling needs either. Raises SAEError when neither fits z.
        """
        self._check_width(z, self.n_neurons, "activations of neurons:")
        y = z.float() @ self.W_dec + self.b_dec
        return y if not self.scaling else self._scale_for(x, z.shape[:-1]).back(y)

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction [..., d] of the vectors x [..., d]."""
        return self.decode(self.encode(x), x)

    @torch.no_grad()
    def encode_sparse(self, x: Tensor, chunk: int = CHUNK, dtype: torch.dtype = torch.float32) -> SparseCodes:
        """The activations that are not 0 of the vectors x [T, d]; at most `chunk` values are dense at once.

        All are above 0 unless the rule keeps negative ones (`rule.negatives`).
        """
        if x.ndim != 2:
            raise SAEError(f"encode_sparse takes vectors [T, {self.width}], not the shape {list(x.shape)}")
        rows = max(1, chunk // self.n_neurons)
        parts = []
        for start in range(0, len(x), rows):
            token, neuron, value = self.rule.sparse(self.preactivations(x[start : start + rows], dtype))
            parts.append(SparseCodes(token + start, neuron, value))
        if self.scaling and len(parts) != 1:
            self._last.scale = self.scaling.scale(x)
        if len(parts) == 1:
            return parts[0]
        none = torch.zeros(0, dtype=torch.int64, device=self.b_enc.device)
        empty = SparseCodes(none, none, none.float())
        return SparseCodes(*(torch.cat(column) for column in zip(empty, *parts, strict=True)))

    @torch.no_grad()
    def decode_sparse(self, codes: SparseCodes, n_tokens: int, x: Tensor | None = None) -> Tensor:
        """Vectors x_hat [n_tokens, d] of sparse activations, on their device; no dense [T, F] in between.

        x: as for `decode`, [n_tokens, d].
        """
        y = self._summed(codes, n_tokens).add_(self.b_dec.to(codes.values.device))
        if not self.scaling:
            return y
        scale = self._scale_for(x, torch.Size([n_tokens]))
        return Scale(*(None if part is None else part.to(y.device) for part in scale)).back(y)

    @torch.no_grad()
    def decode_change(self, change: SparseCodes, n_tokens: int, scale: Scale | None = None) -> Tensor:
        """What a sparse change of the activations adds to the vectors, [n_tokens, d]: no bias in it.

        scale: `sae.scale` of the vectors [n_tokens, d] that are changed; a change of a on neuron j adds
        a * factor * W_dec[j] to a vector. Raises SAEError when an SAE with scaling is not given it.
        """
        moved = self._summed(change, n_tokens)
        if not self.scaling:
            return moved
        if scale is None or scale.factor.shape != (n_tokens, 1):
            found = "none" if scale is None else list(scale.factor.shape)
            raise SAEError(
                f"this SAE scales each vector: a change of {n_tokens} vectors needs scale=sae.scale(vectors) "
                f"of them, of the shape [{n_tokens}, 1]; found {found}"
            )
        return moved.mul_(scale.factor.to(moved))

    def _summed(self, codes: SparseCodes, n_tokens: int) -> Tensor:
        """z W_dec [n_tokens, d] of sparse activations, on their device."""
        rows = self.W_dec
        starts = torch.searchsorted(codes.tokens, torch.arange(n_tokens, device=codes.tokens.device))
        parts = (codes.neurons.to(rows.device), rows, starts.to(rows.device))
        summed = functional.embedding_bag(*parts, mode="sum", per_sample_weights=codes.values.to(rows))
        return summed.to(codes.values.device)

    def _scale_for(self, x: Tensor | None, shape: torch.Size) -> Scale:
        """The scale of x, or of what was encoded last. Raises SAEError when it does not fit [*shape]."""
        scale = self._last.scale if x is None else self.scale(x)
        if scale is None or scale.factor.shape[:-1] != shape:
            found = (
                "nothing was encoded" if scale is None else f"found {list(scale.factor.shape[:-1])} of them"
            )
            raise SAEError(
                f"this SAE scales each vector, so decoding the activations of vectors {list(shape)} needs "
                f"the vectors that they came from: pass them as x ({found})"
            )
        return scale

    def direction(self, neuron: int) -> Tensor:
        """The decoder row [d] of a neuron: what one unit of its activation adds to the (scaled) vector."""
        if not 0 <= neuron < self.n_neurons:
            raise SAEError(f"there is no neuron {neuron}: this SAE has {self.n_neurons}, counted from 0")
        return self.W_dec[neuron]

    def save(self, path: str | Path, half: bool = False) -> None:
        """Write the SAE to a safetensors file, in one step.

        half: store the matrices as float16; what is loaded then has another id than this SAE.
        """
        rule, tensors = self.rule.stated(), {name: getattr(self, name) for name in files.NAMES}
        if isinstance(self.rule.threshold, Tensor):
            rule["threshold"], tensors[files.THRESHOLD] = None, self.rule.threshold
        header = {
            "rule": rule,
            "group_sizes": list(self.group_sizes),
            "site_block": self.site_block,
            "model_id": self.model_id,
            "facts": self.facts,
        }
        header |= {"scaling": self.scaling.stated()} if self.scaling else {}
        files.write(Path(path), tensors, header, half, 1 if self.rule.first and not self.scaling else 2)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an SAE that `save` wrote, ready for use (no gradients). Raises SAEError for anything else."""
        return cls.stored(Path(path), *files.read(Path(path)))

    @classmethod
    def stored(cls, path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> Self:
        """The SAE of what `files.read` found at `path`. Raises SAEError for a header that is incomplete."""
        thresholds = tensors.pop(files.THRESHOLD, None)
        try:
            own = {} if thresholds is None else {"threshold": thresholds}
            sae = cls(
                **tensors,
                rule=ActivationRule(**{**header["rule"], **own}),
                group_sizes=tuple(header["group_sizes"]),
                site_block=header["site_block"],
                model_id=header["model_id"],
                facts=header["facts"],
                scaling=Scaling(**header.get("scaling", {})),
            )
        except SAEError as error:
            raise SAEError(f"{path}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise SAEError(f"{path}: the header is incomplete or of the wrong kind ({error!r})") from error
        return sae.eval().requires_grad_(False)

    def _check_width(self, x: Tensor, expected: int, what: str) -> None:
        if not x.ndim or x.shape[-1] != expected:
            raise SAEError(f"this SAE takes {what} {expected}; it was given the shape {list(x.shape)}")
