"""What a model's own generation settings do to the scores of the next token in greedy decoding.

The public classes of transformers do the work, in the order in which `generate` applies them. Knows
nothing of pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import (
    ExponentialDecayLengthPenalty,
    ForcedEOSTokenLogitsProcessor,
    GenerationConfig,
    InfNanRemoveLogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

from explorer.errors import ModelError

UNSUPPORTED = {
    "guidance_scale": 1,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "watermarking_config": None,
    "dola_layers": None,
    "stop_strings": None,
    "max_time": None,
    "token_healing": False,
}
"""Settings that need more than the scores, and the value that asks for nothing."""


def end_tokens(settings: GenerationConfig) -> frozenset[int]:
    """The tokens that end an answer."""
    ends = settings.eos_token_id
    return frozenset(() if ends is None else [ends] if isinstance(ends, int) else ends)


def processors_of(
    settings: GenerationConfig, prompt_length: int, max_new_tokens: int, device: torch.device
) -> LogitsProcessorList:
    """What changes the scores after a prompt; mostly nothing, and then the list is empty.

    Raises ModelError for a setting that cannot be honoured.
    """
    for name, idle in UNSUPPORTED.items():
        value = getattr(settings, name, None)
        if value is not None and value != idle:
            raise ModelError(
                f"the model's generation settings ask for {name} = {value!r}, which is not supported; "
                "remove it from its generation_config.json"
            )
    ends: Sequence[int] = sorted(end_tokens(settings))
    made = LogitsProcessorList()
    if settings.sequence_bias is not None:
        made.append(SequenceBiasLogitsProcessor(settings.sequence_bias))
    if settings.repetition_penalty not in (None, 1.0):
        made.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        made.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
    if settings.bad_words_ids is not None:
        made.append(NoBadWordsLogitsProcessor(settings.bad_words_ids, ends or None))
    if settings.min_length and ends:
        made.append(MinLengthLogitsProcessor(settings.min_length, ends, device=device))
    if settings.min_new_tokens and ends:
        made.append(
            MinNewTokensLengthLogitsProcessor(prompt_length, settings.min_new_tokens, ends, device=device)
        )
    if settings.forced_eos_token_id is not None:
        last = prompt_length + max_new_tokens
        made.append(ForcedEOSTokenLogitsProcessor(last, settings.forced_eos_token_id, device=device))
    if settings.remove_invalid_values:
        made.append(InfNanRemoveLogitsProcessor())
    if settings.exponential_decay_length_penalty is not None and ends:
        decay = settings.exponential_decay_length_penalty
        made.append(ExponentialDecayLengthPenalty(decay, ends, prompt_length))
    if settings.suppress_tokens is not None:
        made.append(SuppressTokensLogitsProcessor(settings.suppress_tokens, device=device))
    if settings.begin_suppress_tokens is not None:
        begin = settings.begin_suppress_tokens
        made.append(SuppressTokensAtBeginLogitsProcessor(begin, prompt_length, device=device))
    return made
