"""How the words of a given answer hang on the output of a block of the vision tower.

Each word's log-probability is that of its tokens, one after the other, given picture, prompt and all of
the answer before them; its gradient flows back through language model, projector and the later blocks.

float16 reaches only from 6e-8 to 65,504, so there the log-probability is scaled on the way back, first up
and then down, until every gradient is finite; the scale is divided out again.

Knows differentiation and nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from explorer.errors import ModelError
from explorer.vlm.base import AnswerWord, WordGradients
from explorer.vlm.script import check_words

SCALES = {torch.float16: (2.0**10, 2.0**4, 2.0**-2)}
"""What log-probabilities are multiplied with before they are differentiated, in turn, by dtype: no lower,
since gradients of about 1e-5 must not vanish."""


def token_log_probs(logits: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
    """Log-probabilities [..., A], float32 or finer, of an answer's tokens [A].

    logits [..., A or A + 1, V]: before its first token, before its second, ...
    """
    logits = logits[..., : len(said), :]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    chosen = logits.gather(-1, said.expand(logits.shape[:-1])[..., None])[..., 0]
    return chosen - logits.logsumexp(dim=-1)


def word_gradients(
    log_probs: Callable[[torch.Tensor], torch.Tensor], hidden: torch.Tensor, words: Sequence[AnswerWord]
) -> WordGradients:
    """Log-probability and gradient by `hidden` of each word, from one forward pass.

    log_probs: gives those of the answer's tokens [A] for `hidden`, differentiably. Raises ModelError for
    words that are not of this answer, and for gradients that are too large for the dtype.
    """
    with torch.enable_grad():
        leaf = hidden.detach().clone().requires_grad_(True)
        tokens = log_probs(leaf)
        check_words(words, len(tokens))
        sums = [tokens[word.first : word.last].sum() for word in words]
    gradients = torch.zeros(len(words), *hidden.shape)
    for place, total in enumerate(sums):
        gradients[place] = _gradient(total, leaf, last=place + 1 == len(sums)).cpu()
    found = [total.detach().float().cpu() for total in sums]
    return WordGradients(torch.stack(found) if found else torch.zeros(0), gradients)


def _gradient(total: torch.Tensor, leaf: torch.Tensor, last: bool) -> torch.Tensor:
    """The gradient of a number by `leaf`, float32; last: whether nothing else will be differentiated.

    Raises ModelError when it is not finite at any scale.
    """
    scales = SCALES.get(leaf.dtype, (1.0,))
    for scale in scales:
        keep = not last or scale != scales[-1]
        given = torch.full_like(total, scale)
        found = torch.autograd.grad(total, leaf, given, retain_graph=keep)[0].float() / scale
        if bool(torch.isfinite(found).all()):
            return found
    kind = str(leaf.dtype).removeprefix("torch.")
    advice = "; open the model with --dtype bfloat16 or float32" if leaf.dtype == torch.float16 else ""
    raise ModelError(f"the gradients of this answer are not finite in {kind}{advice}")
