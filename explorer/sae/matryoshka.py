"""The arithmetic of one Matryoshka BatchTopK step: selection, losses, and a robust mean.

The cost of a step lies in one dense product, the pre-activations. What the batch keeps is k of F
values per vector, so reconstructions and gradients work on these entries alone: an `embedding_bag`
sums a bag of weighted decoder rows, one bag per vector and group. The results are those of the
dense formulas. Knows nothing of steps, optimisers or files.

Throughout, the encoder is kept as rows [F, d] (the transpose of W_enc), like the decoder.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from explorer.sae.team import ALONE, Team

ROWS, PAIRS = 512, 2048
"""Vectors whose pre-activations exist densely at once, and pairs that are multiplied at once: what a
processor's cache holds. A GPU takes more."""


class Selection(NamedTuple):
    """The entries [n] that a batch keeps, in order of (row, neuron).

    rows, neurons: int64; values: the pre-activations, float32, above 0; cut: the smallest of them.
    """

    rows: Tensor
    neurons: Tensor
    values: Tensor
    cut: float


class Losses(NamedTuple):
    """The reconstruction loss, and what it was made of.

    loss: scalar, the mean over groups of the weighted group losses; groups [G]: the unweighted
    squared error of each prefix, summed over d, mean over the batch; residual [B, d]: the batch
    minus its whole reconstruction, without gradient.
    """

    loss: Tensor
    groups: Tensor
    residual: Tensor


@torch.no_grad()
def select(
    x: Tensor,
    encoder: Tensor,
    b_enc: Tensor,
    n: int,
    floor: float,
    bf16: bool = False,
    team: Team = ALONE,
) -> Selection:
    """The n largest positive entries of p = x encoder.T + b_enc over the whole batch (fewer if p has fewer).

    x [B, d] is centred already. floor: a guess of the smallest value kept; it decides the speed, not
    the result (0: no guess). bf16: see TrainConfig. team: the processes that share the batch: n and the cut
    are of all their rows together, what comes back is the part of this process.
    """
    low = floor
    while True:
        rows, neurons, values = _entries_above(x, encoder, b_enc, low, bf16)
        found = len(values) if team.size == 1 else int(team.total(b_enc.new_tensor(len(values)).double()))
        if found >= n or low <= 0:
            break
        low = low * 0.7 if low > floor * 0.1 else 0.0
    if found > n:
        kept = _largest(values, n, team)
        rows, neurons, values = rows[kept], neurons[kept], values[kept]
    smallest = team.gathered(values.min()[None] if len(values) else values)
    return Selection(rows, neurons, values, float(smallest.min()) if len(smallest) else 0.0)


def _largest(values: Tensor, n: int, team: Team) -> Tensor:
    """Where [m] the n largest values of all processes stand among those of this one, ascending.

    Values of several processes that equal the n-th are all kept.
    """
    if team.size == 1:
        return values.topk(n, sorted=False).indices.sort().values
    best = team.gathered(values.topk(min(n, len(values)), sorted=False).values)
    return (values >= best.topk(n).values[-1]).nonzero().flatten()


def guess_floor(x: Tensor, encoder: Tensor, b_enc: Tensor, k: int) -> float:
    """A guess for `select` from every 16th vector of the centred batch x [B, d]."""
    with torch.no_grad():
        p = torch.addmm(b_enc, x[::16], encoder.T).flatten()
        return max(0.0, 0.9 * float(p.topk(min(len(p), k * len(x[::16]))).values[-1]))


class KeptPreactivations(torch.autograd.Function):
    """The pre-activations at the selected entries [n], differentiable in x, encoder and b_enc."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, encoder: Tensor, b_enc: Tensor, kept: Selection) -> Tensor:
        """Return the values that were computed during selection."""
        ctx.save_for_backward(x, encoder)
        ctx.kept = kept
        return kept.values.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of x [B, d], encoder [F, d] and b_enc [F] from those of the values [n]."""
        x, encoder = ctx.saved_tensors
        rows, neurons, grad = ctx.kept.rows, ctx.kept.neurons, grads[0]
        grad_x = _bags(neurons, encoder, rows, len(x), grad)
        order = neurons.argsort(stable=True)
        grad_encoder = _bags(rows[order], x, neurons[order], len(encoder), grad[order])
        grad_b = torch.zeros(len(encoder), device=grad.device).index_add_(0, neurons, grad)
        return grad_x, grad_encoder, grad_b, None


def group_losses(
    x: Tensor,
    kept: Selection,
    values: Tensor,
    decoder: Tensor,
    b_dec: Tensor,
    boundaries: Tensor,
    weights: Tensor,
) -> Losses:
    """Losses of the reconstructions of x [B, d] from each prefix of the groups.

    values [n]: the kept activations, with their gradient; boundaries [G] int64: where the groups
    end; weights [G].
    """
    n_groups = len(boundaries)
    group = torch.bucketize(kept.neurons, boundaries, right=True)
    parts = _bags(kept.neurons, decoder, kept.rows * n_groups + group, len(x) * n_groups, values)
    errors = (x - b_dec).unsqueeze(1) - parts.view(len(x), n_groups, -1).cumsum(1)
    groups = errors.square().sum(-1).mean(0)
    return Losses((groups * weights).mean(), groups.detach(), errors[:, -1].detach())


def aux_loss(
    residual: Tensor,
    x: Tensor,
    dead: Tensor,
    encoder: Tensor,
    b_enc: Tensor,
    decoder: Tensor,
    team: Team = ALONE,
) -> Tensor:
    """How badly the dead neurons alone explain the residual [B, d]: a share of its variance (0: none dead).

    x [B, d] is centred; dead [m]: the dead neurons. Each vector uses its d // 2 strongest of them. The
    variance is that of the rows of the whole team.
    """
    if not len(dead):
        return residual.new_zeros(())
    p = torch.relu(torch.addmm(b_enc[dead], x, encoder[dead].T))
    top = p.topk(min(x.shape[1] // 2, len(dead)), dim=1)
    explained = embedding_bag(top.indices, decoder[dead], mode="sum", per_sample_weights=top.values)
    error = (residual - explained).square().sum(1).mean()
    spread = team.mean((residual - team.mean(residual.mean(0))).square().sum(1).mean())
    return (error / spread).nan_to_num(0.0)


@torch.no_grad()
def drop_parallel_(grad: Tensor, decoder: Tensor) -> None:
    """Take out of the gradient [F, d] each row's component along the decoder's row, which has length 1."""
    along = torch.bmm(grad[:, None], decoder[:, :, None])[:, 0]
    grad.addcmul_(decoder, along, value=-1)


@torch.no_grad()
def unit_rows_(matrix: Tensor) -> Tensor:
    """Scale each row of the matrix to length 1, in place; return it."""
    return matrix.div_(matrix.norm(dim=1, keepdim=True) + torch.finfo(matrix.dtype).eps)


@torch.no_grad()
def geometric_median(points: Tensor, rounds: int = 100, tolerance: float = 1e-5) -> Tensor:
    """The point [d] with the least summed distance to the points [n, d], by Weiszfeld's iteration."""
    guess = points.mean(0)
    for _ in range(rounds):
        weights = 1.0 / (points - guess).norm(dim=1).clamp_min(torch.finfo(points.dtype).tiny)
        weights = weights / weights.sum()
        before, guess = guess, weights @ points
        if (guess - before).norm() < tolerance:
            break
    return guess


def _entries_above(
    x: Tensor, encoder: Tensor, b_enc: Tensor, low: float, bf16: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, neurons and float32 values of the entries of p above `low`, which is at least 0."""
    bf16 = bf16 and low > 0
    if bf16:
        half_x, half_encoder, half_b = x.bfloat16(), encoder.T.bfloat16(), b_enc.bfloat16()
    parts = []
    together = ROWS if x.device.type == "cpu" else 8 * ROWS
    for start in range(0, len(x), together):
        part = slice(start, start + together)
        if bf16:
            near = torch.addmm(half_b, half_x[part], half_encoder) > low * 0.97
            row, neuron = near.nonzero(as_tuple=True)
            value = _dots(x[part], encoder, row, neuron) + b_enc[neuron]
            sure = value > low
            row, neuron, value = row[sure], neuron[sure], value[sure]
        else:
            p = torch.addmm(b_enc, x[part], encoder.T)
            row, neuron = (p > low).nonzero(as_tuple=True)
            value = p[row, neuron]
        parts.append((row + start, neuron, value))
    rows, neurons, values = (torch.cat(column) for column in zip(*parts, strict=True))
    return rows, neurons, values


def _dots(a: Tensor, b: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """The inner products [n] of rows i [n] of a with rows j [n] of b, in pieces that stay in the cache."""
    chunk = PAIRS if a.device.type == "cpu" else 16 * PAIRS
    pairs = zip(i.split(chunk), j.split(chunk), strict=True)
    return torch.cat([torch.linalg.vecdot(a[some], b[other]) for some, other in pairs])


def _bags(index: Tensor, table: Tensor, bag: Tensor, n_bags: int, weight: Tensor) -> Tensor:
    """Sums [n_bags, d] of the weighted rows table[index]; `bag` [n] says whose, in rising order."""
    counts = torch.bincount(bag, minlength=n_bags)
    offsets = counts.cumsum(0) - counts
    return embedding_bag(index, table, offsets, mode="sum", per_sample_weights=weight)
