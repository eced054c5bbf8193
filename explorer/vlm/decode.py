"""The loop that answers: prompts are read as far as they are new, drafts are verified many tokens at once.

An answer is what `model.generate` would give, token for token. It takes fewer passes when an earlier answer
to the same question goes on alike, since a pass scores all tokens of a draft together, and quicker ones
when the prompt begins like one that was read before (see `memory`). Models whose keys and values cannot be
taken back (see `cache.can_be_cropped`) are decoded a token at a time, and leave drafts only.

A pass that reads many tokens sums in another order than one that reads a single one. In float32 that
matters to nobody; in half precision, on a GPU above all, two tokens that are all but equally likely may
change places, as they do between batch sizes.

Knows the language side of a model (`text`); nothing of pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList

from explorer.errors import ModelError
from explorer.vlm.attention import changed_attention, self_attentions
from explorer.vlm.base import AttentionEdit, Choose, Step
from explorer.vlm.cache import GrowingCache, can_be_cropped
from explorer.vlm.drafts import propose
from explorer.vlm.hooks import last_rows_only
from explorer.vlm.memory import Memory, Reading
from explorer.vlm.processors import end_tokens, processors_of
from explorer.vlm.text import TextSide, along

UNFINISHED = "\ufffd"
"""What a tokenizer shows for a character of which some bytes are still to come."""


class Branch(NamedTuple):
    """What one branch reads.

    ids [L]: its prompt, on the CPU; rows: makes [L, R] of it; image: the columns of the picture; attention:
    how attention is changed meanwhile; positions [axes, L]: see `TextSide.run`.
    """

    ids: list[int]
    rows: Callable[[], torch.Tensor]
    image: slice
    attention: AttentionEdit | None
    positions: torch.Tensor | None = None


class Decoder:
    """The loop for one model.

    side: its language side; settings: of its generations; text: tokens -> what people read.
    """

    def __init__(self, side: TextSide, settings: GenerationConfig, text: Callable[[list[int]], str]) -> None:
        self.side, self._settings, self._text = side, settings, text
        self.config = side.config
        self.croppable = can_be_cropped(self.config)
        mlps = [module for name, module in side.stack.named_modules() if name.endswith(".mlp")]
        self._last_mlp = mlps[-1] if mlps else None

    def decode(
        self,
        branches: Sequence[Branch],
        max_new_tokens: int,
        choose: Choose | None = None,
        memory: Memory | None = None,
    ) -> Generator[Step, None, None]:
        """Answer step by step; see `explorer.vlm.base.LVLM.decode`.

        The token that ends an answer is part of it, as in `model.generate`. The model's own settings (a
        repetition penalty, say) are honoured when there is one branch. With several, `choose` sees the
        scores as the model gave them, since the literature contrasts before it does anything else, and the
        settings are left out. Raises ModelError, before the first step, for settings that cannot be honoured
        and for attention that cannot be changed as asked.
        """
        for branch in branches:
            self._check(branch)
        settings, ids, device = self._settings, branches[0].ids, self.side.model.device
        processors = LogitsProcessorList()
        if len(branches) == 1:
            processors = processors_of(settings, len(ids), max_new_tokens, device)
        pick = _Pick(ids, processors, choose, end_tokens(settings), max_new_tokens, device)
        return self._steps(branches, pick, Memory() if memory is None else memory)

    @torch.no_grad()
    def together(
        self, ids: list[int], rows: torch.Tensor, positions: torch.Tensor | None, max_new_tokens: int
    ) -> list[str]:
        """The greedy answers to one prompt [L] in several forms, rows [B, L, R], a token of each per pass."""
        device = rows.device
        processors = processors_of(self._settings, len(ids), max_new_tokens, device)
        ends = torch.tensor(sorted(end_tokens(self._settings)), device=device)
        said = torch.tensor([ids], device=device).expand(len(rows), -1)
        cache, new, going = DynamicCache(config=self.config), rows, torch.ones(len(rows), dtype=torch.bool)
        for _ in range(max_new_tokens):
            where = along(positions, cache.get_seq_length(), new.shape[1])
            scores = self.side.score(self.side.run(new, where, cache, len(ids))[:, -1]).float()
            token = (processors(said, scores) if processors else scores).argmax(dim=-1)
            said = torch.cat([said, token[:, None]], dim=1)
            going &= ~torch.isin(token, ends).cpu()
            if not bool(going.any()):
                break
            new = self.side.embed(token[:, None]).to(rows.dtype)
        return [self._text(self._until_end(row)) for row in said[:, len(ids) :].tolist()]

    def _until_end(self, tokens: list[int]) -> list[int]:
        """The tokens up to the first that ends an answer, which is part of it."""
        ends = end_tokens(self._settings)
        stop = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
        return tokens[: stop + 1]

    def scoring(self, rows: int) -> AbstractContextManager[None]:
        """A pass in which only the last rows are scored: the last layer need not finish the others.

        Their keys and values are made before that.
        """
        return nullcontext() if self._last_mlp is None else last_rows_only(self._last_mlp, rows)

    def _check(self, branch: Branch) -> None:
        """Raises ModelError for an attention edit of layers that there are not, or without a picture."""
        if branch.attention is None:
            return
        self_attentions(self.side.stack, branch.attention.layers)
        if not branch.image.start < branch.image.stop < len(branch.ids):
            raise ModelError("an attention edit needs a picture in the prompt, and text behind it")

    def _steps(self, branches: Sequence[Branch], pick: _Pick, memory: Memory) -> Generator[Step, None, None]:
        """The generation itself: nothing happens before the first `next`."""
        question, passes, tokens, done = tuple(pick.ids), 0, [], False
        readers: list[_Reader] = []
        try:
            for place, branch in enumerate(branches):
                readers.append(_Reader(self, place, branch, memory))
            while not done:
                draft: list[int] = []
                if self.croppable:
                    draft = propose(tokens, memory.earlier(question), pick.limit - len(tokens) - 1)
                with torch.inference_mode() if self.croppable else torch.no_grad():
                    scores = [reader.read(tokens[-1:], draft) for reader in readers]
                    fresh = pick(scores, tokens, draft)
                for reader in readers:
                    reader.take_back(len(draft) - len(fresh) + 1)
                tokens, passes = tokens + fresh, passes + len(readers)
                done = pick.ends(tokens)
                if done:
                    memory.learn(question, tokens[:-1] if tokens[-1] in pick.end else tokens)
                    while readers:
                        readers.pop().leave(memory)
                text = self._text(tokens)
                yield Step(tuple(tokens), text if done else text.rstrip(UNFINISHED), passes, done)
        finally:
            while readers:
                readers.pop().give_back(memory)


class _Pick:
    """Chooses tokens from scores as long as they are those of the draft."""

    def __init__(
        self,
        ids: list[int],
        processors: LogitsProcessorList,
        choose: Choose | None,
        end: frozenset[int],
        limit: int,
        device: torch.device,
    ) -> None:
        self.ids, self.processors, self.choose, self.end, self.limit = ids, processors, choose, end, limit
        self.device = device

    def __call__(self, scores: list[torch.Tensor], tokens: list[int], draft: list[int]) -> list[int]:
        """The tokens that follow `tokens`: those of the draft that hold, and one of the model's own.

        scores: [draft + 1, V] of every branch.
        """
        rows = [branch.float() for branch in scores]
        likeliest: list[int] = []
        if self.choose is None and not self.processors:
            likeliest = rows[0].argmax(dim=-1).tolist()
        said = torch.tensor([self.ids + tokens + draft], device=self.device) if self.processors else None
        fresh: list[int] = []
        for place in range(len(draft) + 1):
            if likeliest:
                token = likeliest[place]
            else:
                before = None if said is None else said[:, : said.shape[1] - len(draft) + place]
                token = self._one([branch[place] for branch in rows], before, len(tokens) + place)
            fresh.append(token)
            if token in self.end or place == len(draft) or token != draft[place]:
                break
        return fresh

    def ends(self, tokens: list[int]) -> bool:
        """Whether nothing follows."""
        return len(tokens) >= self.limit or tokens[-1] in self.end

    def _one(self, scores: list[torch.Tensor], before: torch.Tensor | None, place: int) -> int:
        """The token at a place of the answer, from scores [V] of every branch."""
        if before is not None:
            scores = [self.processors(before, scores[0][None])[0]]
        return int(scores[0].argmax()) if self.choose is None else int(self.choose(scores, place))


class _Reader:
    """One branch while it is read: what the memory knew of it, and its keys and values.

    What was read under an attention edit serves that edit only. One of the "answer" rows changes nothing
    before the prompt's last token: that is left out of what stays, and the rest is as if nothing had been
    changed.
    """

    def __init__(self, decoder: Decoder, place: int, branch: Branch, memory: Memory) -> None:
        self._side, self._decoder, self._branch = decoder.side, decoder, branch
        self._rows = branch.rows()
        edit = branch.attention
        self._late = edit is not None and edit.rows == "answer"
        at = None  # behind the picture all families count on alike
        if branch.positions is not None:
            at = tuple(branch.positions[:, : max(1, branch.image.stop)].flatten().tolist())
        self._key = (place, None if self._late else edit, branch.image.start, branch.image.stop, at)
        self._reading: Reading | None = None
        self._cache: GrowingCache | DynamicCache
        self._unread: torch.Tensor | None = self._rows
        if not decoder.croppable:
            self._cache = DynamicCache(config=decoder.config)
            return
        self._reading = None if self._side.looks_ahead else memory.take(self._key, self._rows)
        if self._reading is None:
            self._cache = GrowingCache(decoder.config.num_hidden_layers)
        else:
            self._cache, self._unread = self._reading.cache, self._rows[len(self._reading.rows) :]

    def read(self, last: list[int], draft: list[int]) -> torch.Tensor:
        """One pass over what is new: scores [draft + 1, V] of the token after `last` and each drafted."""
        ahead, self._unread = self._unread, None
        new = draft if ahead is not None else last + draft
        parts = [] if ahead is None else [ahead]
        if new:
            ids = torch.tensor(new, device=self._rows.device)
            parts.append(self._side.embed(ids).to(self._rows.dtype))
        rows, scored, prompt = torch.cat(parts)[None], 1 + len(draft), len(self._branch.ids)
        attention, image = self._branch.attention, self._branch.image
        where = along(self._branch.positions, self._cache.get_seq_length(), rows.shape[1])
        with (
            changed_attention(self._side.stack, attention, image, prompt - 1),
            self._decoder.scoring(scored),
        ):
            hidden = self._side.run(rows, where, self._cache, prompt)
            return self._side.score(hidden[0, -scored:])

    def take_back(self, rows: int) -> None:
        """Forget the last rows: those of a draft that did not hold."""
        if rows:
            self._cache.crop(-rows)

    def leave(self, memory: Memory) -> None:
        """After the answer: leave the prompt's keys and values for the next generation."""
        if isinstance(self._cache, GrowingCache) and not self._side.looks_ahead:
            rows = self._rows[:-1] if self._late else self._rows
            self._cache.keep(len(rows))
            memory.put(Reading(self._key, rows, self._cache))

    def give_back(self, memory: Memory) -> None:
        """After a generation that was closed: leave what had been there and was not written over."""
        if self._reading is not None and self._reading.lent:
            memory.put(self._reading.restored())
