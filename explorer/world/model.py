"""Builds the embedded LVLM from nothing: tokenizer, processor and an untrained LLaVA.

LLaVA-1.5's conventions hold (vision_feature_layer -2, CLS dropped, its prompt form), so that
nothing downstream treats this model as special. Training is in `training.py`.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from explorer.world.concepts import COLORS, TABLE, THEMES
from explorer.world.scene import TRAIN_SIZE
from explorer.world.words import DESCRIBE, NUMBERS

PATCH = 8
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}"
    "{{ part['text'] }}{% endif %}{% endfor %}"
    "{% else %} ASSISTANT: {% for part in message['content'] %}{{ part['text'] }}{% endfor %}</s>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
_EXTRA = (
    "USER ASSISTANT Is is there Are are a an A An the The in In on On of with With and And image "
    "picture photo scene "
    "What what Which color colour How how many Yes No yes no Do do you You see See Describe "
    "describe this This "
    "Please please detail it It has have to Can can any one or not does Does show shown short word "
    "single answer just"
)


def vocabulary() -> list[str]:
    """Every token of the model: the special ones, punctuation, and words with a leading space mark."""
    texts = [_EXTRA, *THEMES, *COLORS, *NUMBERS, *DESCRIBE]
    texts += [words for concept in TABLE for words in (concept.phrase, concept.plural)]
    texts += [word.capitalize() for word in (*COLORS, *NUMBERS)]
    words = sorted({word.strip(".,?:!") for text in texts for word in text.split()})
    return [*SPECIAL, ".", ",", "?", ":", "!", *("▁" + word for word in words)]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer of the drawn world's language; unknown words become <unk>."""
    tokenizer = Tokenizer(
        models.WordLevel({token: i for i, token in enumerate(vocabulary())}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            pre_tokenizers.Split("▁", "merged_with_next"),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", SPECIAL.index("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """CLIP preprocessing at the training size around the tokenizer."""
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": TRAIN_SIZE},
        crop_size={"height": TRAIN_SIZE, "width": TRAIN_SIZE},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.25, 0.25, 0.25],
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(
    tokenizer: PreTrainedTokenizerFast, width: int = 192, blocks: int = 6, layers: int = 4
) -> LlavaForConditionalGeneration:
    """An untrained LLaVA: CLIP tower of `blocks` blocks, Llama of `layers` layers, both `width` wide."""
    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=blocks,
        num_attention_heads=width // 64,
        image_size=TRAIN_SIZE,
        patch_size=PATCH,
        projection_dim=width,
        hidden_act="gelu",
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=512,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(TRAIN_SIZE // PATCH) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
    )
    return LlavaForConditionalGeneration(config)


def save(folder: Path, model: LlavaForConditionalGeneration, processor: LlavaProcessor) -> None:
    """Write model, processor and tokenizer so that `from_pretrained(folder)` needs nothing else."""
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
