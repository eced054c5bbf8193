"""How the words of a given answer hang on the output of a block of the vision tower.

Each word's log-probability is that of its tokens, one after the other, given picture, prompt and all of
the answer before them; its gradient flows back through language model, projector and the later blocks.

Knows differentiation and nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from explorer.vlm.base import AnswerWord, WordGradients
from explorer.vlm.script import check_words


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
    words that are not of this answer.
    """
    with torch.enable_grad():
        leaf = hidden.detach().clone().requires_grad_(True)
        tokens = log_probs(leaf)
        check_words(words, len(tokens))
        sums = [tokens[word.first : word.last].sum() for word in words]
    gradients = torch.zeros(len(words), *hidden.shape)
    for place, total in enumerate(sums):
        keep = place + 1 < len(sums)
        gradients[place] = torch.autograd.grad(total, leaf, retain_graph=keep)[0].float().cpu()
    found = [total.detach().float().cpu() for total in sums]
    return WordGradients(torch.stack(found) if found else torch.zeros(0), gradients)
