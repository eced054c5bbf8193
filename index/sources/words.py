"""Which words of captions are worth a label. Knows texts; nothing of pictures or files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

LEAST_IMAGES, LEAST_SHARE, MOST_WORDS, LEAST_LETTERS = 5, 0.001, 5_000, 3

STOP_WORDS = frozenset(
    """
    about above across after all along also among and another any are around away back because been
    before behind being below beside between both but can close down each few for from front get gets
    getting had has have having her here him his how inside into its itself just kind like lot lots
    many more most near next not off one onto other others out outside over own part past per picture
    photo image several she side some something that the their them then there these they this those
    three through top toward towards two under until upon very view was way were what when where which
    while who whose with within without you your
    """.split()
)
"""Words that tell nothing of what a picture shows."""

_WORD = re.compile(r"[^\W\d_]+")


def words_of(captions: Iterable[str]) -> set[str]:
    """The words of one picture's captions: letters only, lower case, no stop words, no short ones."""
    found = {word.lower() for caption in captions for word in _WORD.findall(caption)}
    return {word for word in found if len(word) >= LEAST_LETTERS and word not in STOP_WORDS}


def kept_words(pictures: Iterable[set[str]], n_images: int) -> Sequence[str]:
    """The words that enough pictures share, in alphabetical order.

    Enough is 5 pictures or 0.1 % of `n_images`, whichever is more; of these at most the 5,000 most
    frequent ones, ties in alphabetical order.
    """
    counts = Counter(word for words in pictures for word in words)
    least = max(LEAST_IMAGES, LEAST_SHARE * n_images)
    often = sorted((-count, word) for word, count in counts.items() if count >= least)
    return sorted(word for _, word in often[:MOST_WORDS])
