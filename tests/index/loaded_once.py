"""Loads what opening a LLaVA loads: programs import this before they fork children that open one."""

import transformers.models.clip.image_processing_pil_clip
import transformers.models.clip.modeling_clip
import transformers.models.llama.modeling_llama
import transformers.models.llava.modeling_llava
import transformers.models.llava.processing_llava  # noqa: F401
