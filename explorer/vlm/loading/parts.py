"""The parts of a model, in the order of a pass: what sees, the layers of the language model, its end.

Of any model of transformers with a tower and a decoder, also of one on the meta device. Which parts may be
quantised, where they may lie, and what they weigh follows from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from torch import nn
from transformers import PreTrainedModel

Role = Literal["sees", "layer", "ends"]


class Part(NamedTuple):
    """A module or a parameter, by its name in the model.

    role: "layer" of the language model; "ends": what comes behind the layers; "sees": all else (tower,
    projector, embeddings), which a picture or a prompt meets first.
    """

    name: str
    what: nn.Module | nn.Parameter
    role: Role

    def weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Its parameters by their whole name."""
        if isinstance(self.what, nn.Parameter):
            yield self.name, self.what
        else:
            for name, weight in self.what.named_parameters():
                yield f"{self.name}.{name}", weight


def parts_of(model: PreTrainedModel) -> list[Part]:
    """All parts: together they hold every parameter and buffer once, but for those that are shared."""
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    layers = max((one for one in decoder.modules() if isinstance(one, nn.ModuleList)), key=len)
    path = next(name for name, module in model.named_modules() if module is layers)
    if head is not None and head.weight is model.get_input_embeddings().weight:
        head = None  # it lies where the embeddings lie
    return list(_walk(model, "", path, decoder, head))


def _walk(
    module: nn.Module, name: str, layers: str, decoder: nn.Module, head: nn.Module | None
) -> Iterator[Part]:
    """The parts of a module that holds the list of layers, whose name is `layers`."""
    for own, weight in module.named_parameters(prefix=name, recurse=False):
        yield Part(own, weight, "sees")
    passed = False
    for own, child in module.named_children():
        full = f"{name}.{own}" if name else own
        if full == layers:
            yield from (Part(f"{full}.{at}", layer, "layer") for at, layer in enumerate(child))
            passed = True
        elif layers.startswith(f"{full}."):
            yield from _walk(child, full, layers, decoder, head)
        else:
            weighs = next(child.parameters(), None) is not None
            norm = module is decoder and passed and weighs
            yield Part(full, child, "ends" if norm or child is head else "sees")


def linear_names(part: Part) -> set[str]:
    """The names of the matrices of a part's linear maps: what may be quantised."""
    if isinstance(part.what, nn.Parameter):
        return set()
    return {
        f"{part.name}.{name}.weight" if name else f"{part.name}.weight"
        for name, module in part.what.named_modules()
        if type(module) is nn.Linear
    }
