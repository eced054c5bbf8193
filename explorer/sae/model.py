"""The one SAE class; how pre-activations become activations is a field of it, the rule.

    p = (x - b_dec) W_enc + b_enc        z = rule(ReLU(p))        x_hat = z W_dec + b_dec

All arithmetic is float32, unless bfloat16 is asked for in the encoder's product. It does not know which
model or block it belongs to beyond two labels, nor how it was trained.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from explorer.errors import SAEError
from explorer.sae import files

Kind = Literal["relu", "jumprelu", "topk"]

CHUNK = 1 << 24
"""Most activations that `encode_sparse` holds densely at once (64 MiB of float32)."""


@dataclass(frozen=True)
class ActivationRule:
    """How pre-activations become activations.

    kind: "relu" keeps what is above 0, "jumprelu" what is above `threshold`, "topk" the k largest
        per vector. A batch-top-k SAE is "jumprelu" once it is trained: its threshold is the running
        mean of the smallest value that the batch kept.
    threshold: for "jumprelu", in the units of z. A negative one acts as 0.
    k: for "topk", how many stay; for "jumprelu", how many were meant to stay on average (0: unknown).
    Raises SAEError for an unknown kind, a threshold that is not finite, or a k that does not fit.
    """

    kind: Kind = "relu"
    threshold: float = 0.0
    k: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise SAEError(f"unknown activation rule {self.kind!r}; use one of {', '.join(get_args(Kind))}")
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, int | float):
            raise SAEError(f"the threshold {self.threshold!r} is not a number")
        if not math.isfinite(self.threshold):
            raise SAEError(f"the threshold {self.threshold!r} is not finite")
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < (self.kind == "topk"):
            raise SAEError(f"k = {self.k!r} does not fit the activation rule {self.kind!r}")

    @property
    def bar(self) -> float:
        """What a value must exceed to be an activation: the threshold of "jumprelu", else 0."""
        return max(self.threshold, 0.0) if self.kind == "jumprelu" else 0.0

    def __call__(self, p: Tensor) -> Tensor:
        """Activations [..., F] of the pre-activations [..., F]."""
        z = torch.relu(p)
        if self.kind == "jumprelu":
            return z * (z > self.threshold)
        if self.kind == "topk" and self.k < z.shape[-1]:
            kept = z.topk(self.k, dim=-1)
            return torch.zeros_like(z).scatter(-1, kept.indices, kept.values)
        return z


class SparseCodes(NamedTuple):
    """The activations above 0 of T vectors, in order of (token, neuron): three tensors of one length.

    tokens: int64, the vector's place 0 .. T-1; neurons: int64; values: float32.
    """

    tokens: Tensor
    neurons: Tensor
    values: Tensor


class SAE(nn.Module):
    """A sparse autoencoder from vectors of `width` d to `n_neurons` F.

    rule: the activation rule; group_sizes: sizes of the Matryoshka groups, which sum to F (one
    group when there are none); site_block: the block of the vision tower whose output it reads;
    model_id: the model it was trained on; facts: what is known of its training, as JSON values.
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
        self._id: str | None = None
        self._cast: Tensor | None = None
        if min(self.group_sizes) < 0 or sum(self.group_sizes) != self.n_neurons:
            raise SAEError(f"the groups {self.group_sizes} do not add up to {self.n_neurons} neurons")

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
        """SHA-256 in hex of the weights (as float32) and the rule: equal ids mean equal activations.

        Kept once the weights are frozen, as those of a loaded SAE are.
        """
        if self._id is None or self.W_dec.requires_grad:
            digest = hashlib.sha256(json.dumps([self.width, self.n_neurons, asdict(self.rule)]).encode())
            for name in files.NAMES:
                digest.update(getattr(self, name).detach().cpu().contiguous().numpy().data)
            self._id = digest.hexdigest()
        return self._id

    @property
    def short_id(self) -> str:
        """The first 12 digits of the id, for people."""
        return self.id[:12]

    def preactivations(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """p [..., F] float32 of the vectors x [..., d], before ReLU and rule (so p may be negative).

        dtype: in which the product is taken; bfloat16 is quicker on a GPU and good to about 0.4 %.
        """
        self._check_width(x, self.width, "vectors of width")
        centred = x.float() - self.b_dec
        if dtype == torch.float32:
            return centred @ self.W_enc + self.b_enc
        return (centred.to(dtype) @ self._encoder(dtype)).float() + self.b_enc

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

    def decode(self, z: Tensor) -> Tensor:
        """Vectors x_hat [..., d] of the activations z [..., F]."""
        self._check_width(z, self.n_neurons, "activations of neurons:")
        return z.float() @ self.W_dec + self.b_dec

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction [..., d] of the vectors x [..., d]."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def encode_sparse(self, x: Tensor, chunk: int = CHUNK, dtype: torch.dtype = torch.float32) -> SparseCodes:
        """The activations above 0 of the vectors x [T, d]; at most `chunk` values exist densely at once."""
        if x.ndim != 2:
            raise SAEError(f"encode_sparse takes vectors [T, {self.width}], not the shape {list(x.shape)}")
        rows = max(1, chunk // self.n_neurons)
        parts = []
        for start in range(0, len(x), rows):
            z = self.preactivations(x[start : start + rows], dtype)
            if self.rule.kind == "topk":
                z = self.rule(z)
            token, neuron = (z > self.rule.bar).nonzero(as_tuple=True)
            parts.append(SparseCodes(token + start, neuron, z[token, neuron]))
        if len(parts) == 1:
            return parts[0]
        none = torch.zeros(0, dtype=torch.int64, device=self.b_enc.device)
        empty = SparseCodes(none, none, none.float())
        return SparseCodes(*(torch.cat(column) for column in zip(empty, *parts, strict=True)))

    @torch.no_grad()
    def decode_sparse(self, codes: SparseCodes, n_tokens: int) -> Tensor:
        """Vectors x_hat [n_tokens, d] of sparse activations, on their device; no dense [T, F] in between."""
        return self.decode_change(codes, n_tokens).add_(self.b_dec.to(codes.values.device))

    @torch.no_grad()
    def decode_change(self, change: SparseCodes, n_tokens: int) -> Tensor:
        """What a sparse change of the activations adds to the vectors, [n_tokens, d]: no bias in it."""
        rows = self.W_dec
        starts = torch.searchsorted(change.tokens, torch.arange(n_tokens, device=change.tokens.device))
        parts = (change.neurons.to(rows.device), rows, starts.to(rows.device))
        summed = functional.embedding_bag(*parts, mode="sum", per_sample_weights=change.values.to(rows))
        return summed.to(change.values.device)

    def direction(self, neuron: int) -> Tensor:
        """The decoder row [d] of a neuron: what one unit of its activation adds to the vector."""
        if not 0 <= neuron < self.n_neurons:
            raise SAEError(f"there is no neuron {neuron}: this SAE has {self.n_neurons}, counted from 0")
        return self.W_dec[neuron]

    def save(self, path: str | Path, half: bool = False) -> None:
        """Write the SAE to a safetensors file, in one step.

        half: store the matrices as float16; what is loaded then has another id than this SAE.
        """
        header = {
            "rule": asdict(self.rule),
            "group_sizes": list(self.group_sizes),
            "site_block": self.site_block,
            "model_id": self.model_id,
            "facts": self.facts,
        }
        files.write(Path(path), {name: getattr(self, name) for name in files.NAMES}, header, half)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an SAE that `save` wrote, ready for use (no gradients). Raises SAEError for anything else."""
        tensors, header = files.read(Path(path))
        try:
            sae = cls(
                **tensors,
                rule=ActivationRule(**header["rule"]),
                group_sizes=tuple(header["group_sizes"]),
                site_block=header["site_block"],
                model_id=header["model_id"],
                facts=header["facts"],
            )
        except SAEError as error:
            raise SAEError(f"{path}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise SAEError(f"{path}: the header is incomplete or of the wrong kind ({error!r})") from error
        return sae.eval().requires_grad_(False)

    def _check_width(self, x: Tensor, expected: int, what: str) -> None:
        if not x.ndim or x.shape[-1] != expected:
            raise SAEError(f"this SAE takes {what} {expected}; it was given the shape {list(x.shape)}")


def load_sae(path: str | Path) -> SAE:
    """Read an SAE file. Raises SAEError when it is missing, damaged, misshapen or not finite."""
    return SAE.load(path)
