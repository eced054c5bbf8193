"""Tokenizers for small models, made in memory: whole words, so that texts read back as they were written."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.vlm.families.made import VOCABULARY

BASIC = ("<pad>", "<s>", "</s>", "<unk>", "<image>", "\n")


def word_tokenizer(
    special: Sequence[str] = (), begin: bool = True, image: str = "<image>"
) -> PreTrainedTokenizerFast:
    """Words between spaces; `special` are further tokens with a meaning; begin: texts begin with "<s>"."""
    first = tuple(image if token == "<image>" else token for token in BASIC)
    vocabulary = list(dict.fromkeys([*first, *special, *VOCABULARY.split()]))
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(" ", "removed")]
    )
    words.add_special_tokens([AddedToken(token, special=True) for token in (*first[:5], *special)])
    if begin:
        words.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": image},
    )


def bert_like() -> PreTrainedTokenizerFast:
    """The Q-Former's own: lower case, [CLS] and [SEP] around."""
    vocabulary = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *dict.fromkeys(VOCABULARY.lower().split())]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
