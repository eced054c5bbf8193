"""The formulas of contrastive decoding, and of sampling. Pure functions of logits [V]; no model, no state.

Where a formula has a plausibility cutoff, a token stays if the question's own branch gives it at least
beta times the probability of its likeliest token; the others get -inf.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

STEEPEST = 50.0
"""Largest exponent of M3ID's weight: e^50 times a difference of logits is finite in float32."""


def plausible(logits: Tensor, beta: float) -> Tensor:
    """Which tokens pass the cutoff log(beta) + max, boolean [..., V]; all of them for beta 0.

    The logits are those before temperature. Source: DAMO-NLP-SG/VCD, vcd_utils/vcd_sample.py.
    """
    cutoff = (math.log(beta) if beta > 0 else -math.inf) + logits.amax(-1, keepdim=True)
    return (logits >= cutoff) & ~torch.isneginf(logits)


def vcd_scores(logits: Tensor, contrast: Tensor, alpha: float = 1.0, beta: float = 0.1) -> Tensor:
    """(1 + alpha) l - alpha l' with VCD's cutoff: l of the question, l' of what it is contrasted with.

    Source: VCD (arXiv 2311.16922), DAMO-NLP-SG/VCD, vcd_utils/vcd_sample.py: l' of the noisy picture.
    ICD (p1k0pan/ICD, icd_utils/icd_sample_llava.py) is the same with l' after a disturbing instruction.
    """
    scores = (1 + alpha) * logits - alpha * contrast
    return scores.masked_fill(~plausible(logits, beta), -math.inf)


def m3id_scores(
    logits: Tensor, without: Tensor, place: int, decay: float = 0.02, beta: float = 0.1
) -> Tensor:
    """l + (l - l') (1 - gamma) / gamma with gamma = exp(-decay place): l' of the text without the picture.

    place: of the token in the answer, 0 for the first, where nothing is added. Source: M3ID
    (arXiv 2403.14003) as implemented in zifuwan/ONLY, only_utils/only_sample.py, which puts VCD's cutoff
    in the place of the paper's gate.
    """
    weight = math.expm1(min(decay * place, STEEPEST))
    scores = logits + (logits - without) * weight
    return scores.masked_fill(~plausible(logits, beta), -math.inf)


def cfg_scores(logits: Tensor, without: Tensor, gamma: float = 1.1, beta: float = 0.1) -> Tensor:
    """gamma (p - p') + p' of log-probabilities: p of the question, p' of the text without the picture.

    Source: PAI (arXiv 2407.21771), LALBJ/PAI, CFG.py, with gamma 1.1 of its README and cutoff 0.1.
    """
    seen, unseen = logits.log_softmax(-1), without.log_softmax(-1)
    scores = gamma * (seen - unseen) + unseen
    return scores.masked_fill(~plausible(logits, beta), -math.inf)


def warped(scores: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Scores to sample from: divided by the temperature, then all but the top_k, then all but the top_p -inf.

    top_k 0: all; of equal ones at the edge all stay. top_p: the likeliest tokens that together reach this
    probability, at least one. The order is that of transformers' generate.
    """
    scores = scores / temperature
    if 0 < top_k < scores.shape[-1]:
        least = scores.topk(top_k, dim=-1).values[..., -1:]
        scores = scores.masked_fill(scores < least, -math.inf)
    if top_p < 1:
        ordered = scores.sort(dim=-1, descending=True, stable=True)
        shares = ordered.values.softmax(-1)
        beyond = shares.cumsum(-1) - shares >= top_p
        beyond[..., 0] = False
        gone = torch.zeros_like(beyond).scatter(-1, ordered.indices, beyond)
        scores = scores.masked_fill(gone, -math.inf)
    return scores


def sampled(scores: Tensor, seed: int, place: int) -> int:
    """A token drawn by the softmax of scores [V], as a pure function of scores, seed and place.

    The largest of scores plus Gumbel noise is such a draw. The noise follows from seed and place alone, so
    that scores that change little mostly give the same token again.
    """
    digest = hashlib.blake2b(f"{seed} {place}".encode(), digest_size=4).digest()
    draw = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
    exponential = torch.empty(scores.shape, dtype=torch.float64).exponential_(generator=draw)
    gumbel = -exponential.clamp_min(torch.finfo(torch.float64).tiny).log()
    return int((scores.double().cpu() + gumbel).argmax())
