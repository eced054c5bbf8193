"""How a steered answer is made, beside the bench: CNS, the decoding, sampling. Draws nothing.

Settings travel as JSON, to and from a browser and in case files, and are checked whenever they come back.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from explorer.cases import checks
from explorer.errors import ExplorerError
from explorer.session import Options
from explorer.steer import Contrast, Decoding

LONGEST_ANSWER = 256
"""Tokens; what one visitor's answer may take from the others."""


@dataclass(frozen=True)
class Settings:
    """What is asked of the answer apart from the bench. The default asks for nothing: plain and greedy.

    replace: feed the SAE's reconstruction instead of adding the change.
    cns: whether neurons are contrasted with those of the noisy picture; step, strength, noise_seed,
    suppress_always_on, clamp: how (see `Contrast`).
    method: how tokens are chosen, and alpha its strength, None for the method's own (see `Decoding`); VCD's
    noise is that of step and noise_seed. temperature: 0 is greedy; top_k, top_p, seed: of the sampling.
    max_new_tokens: longest answer.
    Raises EditError or ExplorerError for a value outside its limits.
    """

    replace: bool = False
    cns: bool = False
    step: int = 500
    strength: float = 1.0
    noise_seed: int = 0
    suppress_always_on: bool = True
    clamp: bool = False
    method: str = "plain"
    alpha: float | None = None
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        for name in ("replace", "cns", "suppress_always_on", "clamp"):
            if not isinstance(getattr(self, name), bool):
                raise ExplorerError(f"{name.replace('_', ' ')} is either true or false")
        longest = checks.whole(self.max_new_tokens, "the length", LONGEST_ANSWER + 1)
        if longest < 1:
            raise ExplorerError("an answer needs at least one token")
        self._contrast()
        self.decoding()

    def contrast(self) -> Contrast | None:
        """CNS as set; None while it is switched off."""
        return self._contrast() if self.cns else None

    def _contrast(self) -> Contrast:
        return Contrast(
            step=self.step,
            strength=self.strength,
            seed=self.noise_seed,
            suppress_always_on=self.suppress_always_on,
            clamp=self.clamp,
        )

    def decoding(self) -> Decoding:
        """How tokens are chosen."""
        return Decoding(
            method=self.method,  # type: ignore[arg-type]
            alpha=self.alpha,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            seed=self.seed,
            step=self.step,
            noise_seed=self.noise_seed,
        )

    def options(self) -> Options:
        """The settings as arguments of `Session.steps`."""
        return Options(
            replace=self.replace,
            contrast=self.contrast(),
            decoding=self.decoding(),
            max_new_tokens=self.max_new_tokens,
        )

    def plain(self) -> Settings:
        """Those settings that also hold for the untouched answer: only its length."""
        return Settings(max_new_tokens=self.max_new_tokens)

    @property
    def changes(self) -> bool:
        """Whether they change the answer without any neuron on the bench."""
        return self.replace or self.cns or self.method != "plain" or self.temperature > 0


_FED = "the SAE's reconstruction is fed"


def in_words(settings: Settings) -> tuple[str, ...]:
    """What differs from a plain greedy answer, in words, a line each; () for nothing."""
    lines = []
    if settings.cns:
        said = f"CNS, t = {settings.step}, λ = {settings.strength:g}"
        said += ", always-on neurons left alone" if settings.suppress_always_on else ""
        said += ", no activation crosses 0" if settings.clamp else ""
        lines.append(said + (f", noise {settings.noise_seed}" if settings.noise_seed else ""))
    if settings.method != "plain":
        alpha = "" if settings.alpha is None else f", α = {settings.alpha:g}"
        noise = f", t = {settings.step}" if settings.method == "vcd" and not settings.cns else ""
        lines.append(f"decoding by {settings.method.upper()}{alpha}{noise}")
    if settings.temperature > 0:
        said = f"drawn at temperature {settings.temperature:g}"
        said += f", top-p {settings.top_p:g}" if settings.top_p < 1 else ""
        said += f", top-k {settings.top_k}" if settings.top_k else ""
        lines.append(f"{said}, seed {settings.seed}")
    return (*lines, _FED) if settings.replace else tuple(lines)


def dump(settings: Settings) -> str:
    """The settings as JSON."""
    return json.dumps(asdict(settings))


def parse(text: object) -> Settings:
    """The settings in a browser's JSON; what is left out keeps its default. Raises ExplorerError."""
    try:
        entries: Any = json.loads(text) if isinstance(text, str) and text else {}
    except ValueError as error:
        raise ExplorerError(f"the settings are not readable: {error}") from error
    if not isinstance(entries, dict):
        raise ExplorerError("the settings are not a list of names and values")
    unknown = sorted(set(map(str, entries)) - {field.name for field in fields(Settings)})
    if unknown:
        raise ExplorerError(f"there is no setting {unknown[0][:40]!r}")
    return Settings(**entries)
