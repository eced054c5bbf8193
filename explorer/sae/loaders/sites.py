"""Which block's output an SAE reads, from the name that its project gave the place.

Only names that leave no doubt count: the output of a whole block, of no language model.
"""

from __future__ import annotations

import re

PATTERNS = (
    (re.compile(r"blocks\.(\d+)\.hook_resid_post"), 0),
    (re.compile(r"blocks\.(\d+)\.hook_resid_pre"), -1),
    (re.compile(r"(?:(?P<module>[\w.]+)\.)?(?:layers?|blocks|resblocks)\.(\d+)"), 0),
)
"""Names of TransformerLens (the stream after and before a block), and of a module in PyTorch."""
LANGUAGE = re.compile(
    r"(?:.*\.)?(?:language_model|text_model|text_encoder|text|decoder|gpt_neox|llm|bert|qformer)(?:\..*)?"
    r"|(?:model\.)*model|(?:model\.)?transformer"
)
"""Modules whose blocks belong to a language model, or to what joins one to the vision tower."""


def block_of(hook: str | None) -> int | None:
    """The 0-based block whose output a hook reads.

    It is 22 for "blocks.22.hook_resid_post", "blocks.23.hook_resid_pre" and "vision_model.encoder.layers.22".

    None for what is inside a block, before the first one, in a language model, or named in another way.
    """
    for pattern, shift in PATTERNS:
        match = pattern.fullmatch(hook or "")
        if match and not LANGUAGE.fullmatch(match.groupdict().get("module") or ""):
            block = int(match.groups()[-1]) + shift
            return block if block >= 0 else None
    return None
