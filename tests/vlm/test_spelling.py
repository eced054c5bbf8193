"""Words of an answer and the tokens that spell them, for several sorts of tokenizers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from explorer.errors import ModelError
from explorer.vlm import open_lvlm
from explorer.vlm.base import AnswerWord
from explorer.vlm.families.llava import Llava
from explorer.vlm.spelling import answer_tokens, answer_words, token_spans, word_spans

SENTENCES = [
    "The dog's red-brown ball, and 3.5 cakes: a na\u00efve caf\u00e9.",
    "A wine glass (blue) on the table!",
    "  two  spaces , and a \u201cquote\u201d",
    "e\u0301tude \u0928\u092e\u0938\u094d\u0924\u0947 \u65e5\u672c\u8a9e \U0001f642 x",
]
WORDS = [
    ["The", "dog's", "red-brown", "ball", "and", "3.5", "cakes", "a", "na\u00efve", "caf\u00e9"],
    ["A", "wine", "glass", "blue", "on", "the", "table"],
    ["two", "spaces", "and", "a", "quote"],
    ["e\u0301tude", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u65e5\u672c\u8a9e", "x"],
]
TRAINING = ["the dog and the red cat", "a wine glass on the table", "two brown cakes and a ball"] * 3


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """Words begin with "\u2581", also the first; what it does not know is spelled in bytes."""
    spaces = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    # A piece does not reach over the beginning of a word, as in the tokenizers of Llama.
    trained = Tokenizer(models.BPE())
    trained.normalizer, trained.pre_tokenizer = (
        normalizers.Sequence(spaces),
        pre_tokenizers.Split("\u2581", "merged_with_next"),
    )
    trained.train_from_iterator(TRAINING, trainers.BpeTrainer(vocab_size=60, show_progress=False))
    learnt = json.loads(trained.model.__getstate__())
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *learnt["vocab"]]
    merges = [tuple(merge) for merge in learnt["merges"]]
    model = models.BPE(
        {piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>", byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(spaces)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def byte_level() -> PreTrainedTokenizerFast:
    """Words after a space begin with "\u0120"; letters beyond ASCII are several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TRAINING, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def word_level() -> PreTrainedTokenizerFast:
    """One token for a word, one for each punctuation mark, and one for all that is unknown."""
    words = ["<unk>", *sorted({word for line in TRAINING for word in line.split()}), ",", "."]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


MAKERS = {"sentencepiece": sentencepiece_like, "bytes": byte_level, "words": word_level}


@pytest.fixture(scope="module", params=MAKERS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return MAKERS[request.param]()


class Slow:
    """The same tokenizer, but it tells no offsets."""

    is_fast = False

    def __init__(self, fast: PreTrainedTokenizerFast) -> None:
        self._fast = fast

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": self._fast(text, add_special_tokens=add_special_tokens)["input_ids"]}

    def decode(self, tokens: list[int], **options: object) -> str:
        return self._fast.decode(tokens, **options)


# ---- words -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sentence", "words"), list(zip(SENTENCES, WORDS, strict=True)))
def test_words_of_a_text(sentence: str, words: list[str]) -> None:
    assert [sentence[start:end] for start, end in word_spans(sentence)] == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" .,!? -- '' \u2014", []),
        ("twenty-one, well-known- -half", ["twenty-one", "well-known", "half"]),
        ("it\u2019s 'quoted' dogs'", ["it\u2019s", "quoted", "dogs"]),
        ("at 12:30, 1,000.5 or 3. 4", ["at", "12:30", "1,000.5", "or", "3", "4"]),
        ("yes/no a\u2014b (c)", ["yes", "no", "a", "b", "c"]),
        ("COVID-19 x_1", ["COVID-19", "x_1"]),
    ],
)
def test_punctuation_is_left_out_and_hyphens_hold(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in word_spans(text)] == words


# ---- tokens ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sentence", "words"), list(zip(SENTENCES, WORDS, strict=True)))
def test_every_word_has_the_tokens_that_spell_it(
    tokenizer: PreTrainedTokenizerFast, sentence: str, words: list[str]
) -> None:
    found, tokens = answer_words(tokenizer, sentence), answer_tokens(tokenizer, sentence)
    assert [word.text for word in found] == words
    for word in found:
        assert sentence[word.start : word.end] == word.text
        assert 0 <= word.first < word.last <= len(tokens)
        if tokenizer.unk_token_id in tokens[word.first : word.last]:
            continue
        spelled = tokenizer.decode(tokens[word.first : word.last])
        assert word.text in spelled and spelled.strip(" .,:!()").replace(word.text, "") == ""
    assert [word.first for word in found] == sorted(word.first for word in found)


def test_words_of_known_tokens() -> None:
    tokenizer = word_level()
    text = "the cat, two wine cakes."
    assert tokenizer.convert_ids_to_tokens(answer_tokens(tokenizer, text)) == re.findall(r"\w+|[,.]", text)
    assert answer_words(tokenizer, text) == [
        AnswerWord("the", 0, 3, 0, 1),
        AnswerWord("cat", 4, 7, 1, 2),
        AnswerWord("two", 9, 12, 3, 4),
        AnswerWord("wine", 13, 17, 4, 5),
        AnswerWord("cakes", 18, 23, 5, 6),
    ]


def test_words_of_several_tokens() -> None:
    for maker, mark in ((sentencepiece_like, "\u2581"), (byte_level, "\u0120")):
        tokenizer = maker()
        text = "the lobster, and the caf\u00e9"
        pieces = tokenizer.convert_ids_to_tokens(answer_tokens(tokenizer, text))
        words = {word.text: pieces[word.first : word.last] for word in answer_words(tokenizer, text)}
        assert words["and"] == [f"{mark}and"]
        assert len(words["lobster"]) > 2 and "".join(words["lobster"]).removeprefix(mark) == "lobster"
        assert words["caf\u00e9"][-2:] in (["<0xC3>", "<0xA9>"], ["\u00c3", "\u00a9"])


def test_a_token_that_spells_parts_of_two_words_belongs_to_both() -> None:
    model = models.BPE(
        {piece: i for i, piece in enumerate(["d", "o", "g", " ", ",", "g ", "g d", "dog"])},
        [("g", " "), ("g ", "d")],
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))
    assert tokenizer.convert_ids_to_tokens(answer_tokens(tokenizer, "dog dog")) == [
        "d",
        "o",
        "g d",
        "o",
        "g",
    ]
    assert [(word.first, word.last) for word in answer_words(tokenizer, "dog dog")] == [(0, 3), (2, 5)]


def test_an_answer_without_words(tokenizer: PreTrainedTokenizerFast) -> None:
    assert answer_words(tokenizer, "") == [] == answer_tokens(tokenizer, "")
    assert answer_words(tokenizer, ". , .") == []


def test_marks_of_beginning_and_end_are_left_out(tiny_lvlm_folder: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_lvlm_folder)
    assert tokenizer.convert_ids_to_tokens(answer_tokens(tokenizer, "the red cat")) == ["the", "red", "cat"]


# ---- tokenizers without offsets --------------------------------------------------------------------------


@pytest.mark.parametrize("maker", [sentencepiece_like, byte_level])
@pytest.mark.parametrize("sentence", SENTENCES)
def test_without_offsets_the_words_are_the_same(
    maker: Callable[[], PreTrainedTokenizerFast], sentence: str
) -> None:
    fast = maker()
    expected, found = answer_words(fast, sentence), answer_words(Slow(fast), sentence)
    assert [word[:3] for word in found] == [word[:3] for word in expected]
    pieces = fast.convert_ids_to_tokens(answer_tokens(fast, sentence))
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.last == theirs.last
        # Offsets give the space in front of all text to the first word; decoding drops it.
        assert mine.first == theirs.first or (mine.start, pieces[theirs.first]) == (0, "\u2581")


@pytest.mark.parametrize("maker", [sentencepiece_like, byte_level])
@pytest.mark.parametrize("sentence", SENTENCES)
def test_without_offsets_the_tokens_spell_the_same(
    maker: Callable[[], PreTrainedTokenizerFast], sentence: str
) -> None:
    fast = maker()
    pieces = fast.convert_ids_to_tokens(answer_tokens(fast, sentence))
    for piece, mine, theirs in zip(
        pieces, token_spans(Slow(fast), sentence), token_spans(fast, sentence), strict=True
    ):
        if piece != "\u2581":
            assert sentence[slice(*mine)] == sentence[slice(*theirs)].strip()
            assert mine == (0, 0) or mine.end == theirs.end


def test_a_tokenizer_that_does_not_give_the_text_back_is_refused() -> None:
    fast = word_level()
    with pytest.raises(ModelError, match=r"does not tell which characters of 'a zebra'.*use a fast"):
        answer_words(Slow(fast), "a zebra")
    assert [word.text for word in answer_words(Slow(fast), "a cat, and a dog")] == [
        "a",
        "cat",
        "and",
        "a",
        "dog",
    ]


TOKENIZERS = [sentencepiece_like(), byte_level()]


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Co", "Cn"]), max_size=24))
def test_any_text_is_spelled_in_order(text: str) -> None:
    for tokenizer in TOKENIZERS:
        spans = token_spans(tokenizer, text)
        assert len(spans) == len(answer_tokens(tokenizer, text))
        assert all(0 <= span.start <= span.end <= len(text) for span in spans)
        covered = {place for span in spans for place in range(*span)}
        assert covered == set(range(len(text)))
        words = answer_words(tokenizer, text)
        assert [(word.start, word.end) for word in words] == word_spans(text)
        for before, after in pairwise(words):
            assert before.first <= after.first and before.last <= after.last


# ---- through the model -----------------------------------------------------------------------------------


def test_the_tokens_are_those_that_next_words_reads(lvlm_of: Callable[..., Llava]) -> None:
    lvlm = lvlm_of("Llama")
    features = torch.randn(1, 16, 32, generator=torch.Generator().manual_seed(0))
    heard: list[torch.Tensor] = []
    embed = lvlm.model.get_input_embeddings()
    handle = embed.register_forward_hook(lambda _module, args, _output: heard.append(args[0]))
    try:
        for answer in ("", "the red cat", "a zebra, and an unknown-word cake"):
            tokens = lvlm.answer_tokens(answer)
            likely = lvlm.next_words(features, "what?", answer)
            assert likely.shape[1] == len(tokens) + 1
            assert heard[-1].tolist() == tokens
    finally:
        handle.remove()


def test_the_models_words_are_the_tokenizers(tiny_lvlm_folder: Path) -> None:
    lvlm = open_lvlm(tiny_lvlm_folder)
    words = lvlm.answer_words("the red cat, a dog")
    assert [(word.text, word.first, word.last) for word in words] == [
        ("the", 0, 1),
        ("red", 1, 2),
        ("cat", 2, 3),
        ("a", 3, 4),
        ("dog", 4, 5),
    ]
    assert words == answer_words(lvlm.processor.tokenizer, "the red cat, a dog")
