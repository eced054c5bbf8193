"""What the language model reads when an answer is laid down beforehand: a prompt, a picture, the answer.

Knows embeddings and places and nothing of tokenizers or families.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from explorer.errors import ModelError
from explorer.vlm.base import AnswerWord


class Script(NamedTuple):
    """A prompt and its answer, ready to be read.

    embeddings [B, P + A, D]; image: the places of the picture's features in it; last: the place of the
    prompt's last token, P - 1, which predicts the answer's first; said [A]: the answer's tokens.
    """

    embeddings: torch.Tensor
    image: slice
    last: int
    said: torch.Tensor


def script_of(
    embed: torch.nn.Module, prompt: torch.Tensor, said: torch.Tensor, features: torch.Tensor, image_token: int
) -> Script:
    """The prompt [1, P] with image features [B, N, D] where it has the image token, then the answer [A].

    Gradients reach the features. Raises ModelError for an answer with the image token in it.
    """
    if bool((said == image_token).any()):
        raise ModelError("the answer may not contain the token that stands for the picture")
    ids = torch.cat([prompt, said[None]], dim=1)
    embeddings = embed(ids).expand(len(features), -1, -1)
    here = ids[0] == image_token
    places = here.nonzero()[:, 0]
    image = slice(int(places[0]), int(places[-1]) + 1)
    assert image.stop - image.start == features.shape[1], "image features do not fit their places"
    parts = [embeddings[:, : image.start], features.to(embeddings), embeddings[:, image.stop :]]
    return Script(torch.cat(parts, dim=1), image, prompt.shape[1] - 1, said)


def check_words(words: Sequence[AnswerWord], said: int) -> None:
    """Raises ModelError for a word that is not made of tokens of an answer of `said` tokens."""
    for word in words:
        if not 0 <= word.first < word.last <= said:
            raise ModelError(
                f"the word {word.text!r} has tokens {word.first} to {word.last}, but the answer has {said}; "
                "give words that answer_words found in this very answer"
            )
