"""A model, its SAE and their store behind one door: one method per thing that a person does.

The session keeps nothing of a visitor: what a picture gave is in its `View`, which the caller holds.
Any thread may call. One pass through the model runs at a time, and visitors take turns between passes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple, Self, TypedDict, Unpack

from explorer.errors import EditError, ExplorerError, StoreError
from explorer.images import ImageInput, load_image
from explorer.records import Cancel, Edit
from explorer.sae import SAE
from explorer.sae.quality import unexplained
from explorer.session.advice import WITH, build_words, why
from explorer.session.inside import Inside
from explorer.session.line import AnyOf, Line, Newest
from explorer.session.opening import EMBEDDED_MODEL, EMBEDDED_SAE, ROOT, open_parts, open_sae
from explorer.session.site import site_block
from explorer.session.stored import Stored
from explorer.session.view import Draw, View
from explorer.steer import Contrast, Decoding, Gauges, Intervention, RangeEdit
from explorer.store import Store, is_upgradable
from explorer.vlm import LVLM, Step
from explorer.vlm.loading import Choice, Tell, say, silent
from explorer.vlm.memory import Memories

__all__ = [
    "EMBEDDED_MODEL",
    "EMBEDDED_SAE",
    "EMBEDDED_STORE",
    "REMEMBERED",
    "AnyEdit",
    "Arm",
    "Arms",
    "Options",
    "Session",
]
EMBEDDED_STORE = ROOT / "stores" / "embedded"
REMEMBERED = 1 << 30
"""Bytes of keys and values that generations may leave for the next ones, of all views together."""

AnyEdit = Edit | RangeEdit


class Options(TypedDict, total=False):
    """How an answer is made; what each means, and its default, is told by `Session.steps`."""

    replace: bool
    contrast: Contrast | None
    decoding: Decoding | None
    max_new_tokens: int
    cancel: Cancel | None
    visitor: Hashable


class Arm(NamedTuple):
    """One way to answer: the text, and what was done to the picture's activations for it."""

    text: str
    gauges: Gauges


class Arms(NamedTuple):
    """The three answers that belong side by side: of the untouched model, of the SAE's bare reconstruction
    (what an SAE alone breaks), and of the steered model."""

    untouched: Arm
    reconstruction: Arm
    steered: Arm


class Session(Inside, Stored):
    """Look at pictures, ask for answers, edit neurons. `Session.open()` gives the embedded set.

    lvlm, sae, store: the parts, for whoever needs them; store is None when there is none.
    block: the block of the vision tower whose output the SAE reads.
    """

    def __init__(self, lvlm: LVLM, sae: SAE, store: Store | None = None) -> None:
        """Raises SAEError, ModelError or StoreError when the parts do not belong together."""
        self.lvlm, self.sae, self.store = lvlm, sae, store
        self.block = site_block(lvlm, sae)
        self._newest, self._memories = Newest(), Memories(REMEMBERED)
        self._line = Line(self._memories.forget)
        if store is not None:
            store.check(
                model_id=lvlm.model_id,
                block=self.block,
                sae_id=sae.id,
                n_neurons=sae.n_neurons,
                preprocessing=lvlm.preprocessing,
            )

    @classmethod
    def open(
        cls,
        model: str | Path | None = None,
        sae: str | Path | None = None,
        store: str | Path | None = None,
        device: str = "cpu",
        tell: Tell = silent,
        **ways: Any,
    ) -> Self:
        """Open a model (folder or hub name), an SAE and a store folder; None: the embedded one.

        ways: the other fields of `explorer.vlm.loading.Choice`: dtype, quantize, device_map, revision,
        trust_remote_code, try_anyway, max_pixels, sae_hint ("KEY=VALUE", or several), sae_revision, block.
        tell: hears what memory a large model
        needs. The embedded store is left out when it has not been built yet, or when another model or SAE
        was asked for. Raises ModelError, SAEError or StoreError in plain words.
        """
        if isinstance(ways.get("sae_hint"), str):
            ways["sae_hint"] = (ways["sae_hint"],)
        return cls.chosen(Choice(model=model, sae=sae, store=store, device=device, **ways), tell)

    @classmethod
    def chosen(cls, choice: Choice, tell: Tell = say) -> Self:
        """As `open`, for what a command line chose; what is told goes to the standard error stream."""
        store = choice.store
        if store is None and choice.embedded and EMBEDDED_STORE.exists():
            store = EMBEDDED_STORE
        if store is None:
            session = cls(*open_parts(choice, tell))
        else:
            session = cls._stored_at(Path(store), choice, tell)
        if not choice.embedded:
            session._build = build_words(choice, Path("stores/mine"), drawn=False)
        return session

    @classmethod
    def _stored_at(cls, folder: Path, choice: Choice, tell: Tell) -> Self:
        """With the store in a folder, which is held against the SAE before a large model is loaded."""
        drawn = choice.embedded
        try:
            store = Store.open(folder)
        except StoreError as error:
            if drawn or is_upgradable(folder):
                raise
            out = Path(f"{folder}-new") if folder.exists() else folder
            raise StoreError(f"{why(error)}; {WITH}{build_words(choice, out, drawn)}") from error
        try:
            sae = open_sae(choice, tell)
            store.check(sae_id=sae.id, n_neurons=sae.n_neurons)
            return cls(*open_parts(choice, tell, sae), store)
        except StoreError as error:
            store.close()
            command = build_words(choice, Path(f"{folder}-new"), drawn)
            raise StoreError(f"{why(error)}; {WITH}{command}") from error
        except ExplorerError:
            store.close()
            raise

    def turn(self, visitor: Hashable = None, cancel: Cancel | None = None) -> AbstractContextManager[bool]:
        """Hold the model for one pass; gives False, without it, when cancelled while waiting.

        For work of one's own on `lvlm`; the methods here do it themselves. Not to be nested.
        """
        return self._line.turn(visitor, cancel)

    def look(self, image: ImageInput, contrasts: Sequence[Contrast] = ()) -> View:
        """Run the vision tower and the SAE on a picture once. Raises ImageError for what is no picture.

        contrasts: those whose noisy pictures go through the tower in the same pass, so that steering by
        them later costs none.
        """
        upright = load_image(image)
        prepared = self.lvlm.preprocess(upright)
        draws = list(dict.fromkeys(Draw(contrast.step, contrast.seed) for contrast in contrasts))
        clean, *noisy = self._through_tower(prepared, draws, clean=True)
        fvu = unexplained(self.sae, prepared.patches(clean.hidden)[None], clean.codes)[0]
        neurons, memory = self.sae.n_neurons, self._memories.new()
        view = View(upright, prepared, fvu, neurons, clean.hidden, clean.codes, memory, clean.further)
        view.noise.keep(draws, noisy)
        return view

    def answer(
        self,
        view: View,
        prompt: str | None = None,
        edits: Sequence[AnyEdit] = (),
        **options: Unpack[Options],
    ) -> str:
        """The model's answer about the picture, with its neurons edited: the last text of `steps`.

        Cut short when cancelled, or when the visitor asks anew.
        """
        text = ""
        for step in self.steps(view, prompt, edits, **options):
            text = step.text
        return text

    def stream(
        self,
        view: View,
        prompt: str | None = None,
        edits: Sequence[AnyEdit] = (),
        **options: Unpack[Options],
    ) -> Iterator[str]:
        """As `answer`, but yields the text while it grows. Closing the iterator cancels.

        Interventions that do not fit are refused here at once, not at the first `next`.
        """
        return _texts(self.steps(view, prompt, edits, **options))

    def steps(
        self,
        view: View,
        prompt: str | None = None,
        edits: Sequence[AnyEdit] = (),
        *,
        replace: bool = False,
        contrast: Contrast | None = None,
        decoding: Decoding | None = None,
        max_new_tokens: int = 64,
        cancel: Cancel | None = None,
        visitor: Hashable = None,
    ) -> Iterator[Step]:
        """The answer about the picture step by step, each after one more pass through the model.

        prompt: None for the model's default.
        edits: without any, and without the rest, the text is the untouched model's, token for token.
        replace: feed the SAE's reconstruction, as the literature does, instead of adding the change.
        contrast: contrastive neuron steering, before the edits.
        decoding: how tokens are chosen; None takes the likeliest.
        cancel: ends the answer between two passes; so does closing the iterator.
        visitor: who asks, any hashable. Turns are shared fairly among visitors, and a visitor's newer
        question ends the older one, whether it has started or not.

        Raises EditError at once for an intervention that does not fit, StoreError when a contrast needs
        the store's always-on neurons and there is none; ModelError, at the first step, for a prompt that
        does not fit.
        """
        hidden = self._steered(view, Intervention(tuple(edits), contrast, replace))[0]
        chosen = Decoding() if decoding is None else decoding
        if not isinstance(chosen, Decoding):
            raise EditError(f"{chosen!r} is no way to decode; use Decoding(...) or None")
        against = self.noisy(view, chosen.step, chosen.noise_seed).hidden if chosen.needs_noisy else None
        asking = self.lvlm.default_prompt if prompt is None else prompt
        newest = self._newest.begin(visitor)
        stop = AnyOf(cancel, newest)

        def begin() -> Iterator[Step]:
            like = view.prepared
            features = self.lvlm.features(hidden, self.block, like)
            noisy = None if against is None else self.lvlm.features(against, self.block, like)
            asked = chosen.asked(asking, features, noisy, layers=self.lvlm.text_layers)
            branches = [one._replace(like=like) for one in asked]
            return self.lvlm.decode(branches, max_new_tokens, chosen.choose(), view.memory)

        def run() -> Iterator[Step]:
            try:
                yield from self._in_turns(begin, visitor, stop)
            finally:
                self._newest.end(visitor, newest)

        return run()

    def _in_turns(
        self, begin: Callable[[], Iterator[Step]], visitor: Hashable, stop: Cancel
    ) -> Iterator[Step]:
        """The steps of a generation, holding the model for one at a time, until there are none or `stop`."""
        with ExitStack() as ending:
            steps: Iterator[Step] | None = None
            while True:
                with self._line.turn(visitor, stop) as mine:
                    if not mine or stop.is_set():
                        return
                    if steps is None:
                        steps = ending.enter_context(closing(begin()))
                    step = next(steps)
                yield step
                if step.done:
                    return

    def answers(
        self,
        asked: Sequence[tuple[View, Sequence[AnyEdit]]],
        prompt: str | None = None,
        *,
        replace: bool = False,
        contrast: Contrast | None = None,
        max_new_tokens: int = 64,
    ) -> list[str]:
        """The greedy answers to one prompt for several (view, edits), in one batch: for measurements.

        Raises EditError for interventions that do not fit.
        """
        if not asked:
            return []
        asking = self.lvlm.default_prompt if prompt is None else prompt
        like, texts = asked[0][0].prepared, []
        for hidden in self._together(asked, replace, contrast):
            with self._line.turn():
                features = self.lvlm.features(hidden, self.block, like)
                texts += self.lvlm.generate_many(features, asking, max_new_tokens, like)
        return texts

    def arms(
        self,
        view: View,
        prompt: str | None = None,
        edits: Sequence[AnyEdit] = (),
        *,
        replace: bool = False,
        contrast: Contrast | None = None,
        **options: Unpack[Options],
    ) -> Arms:
        """The untouched, the merely reconstructed and the steered answer, with the gauges of each.

        options: of all three; see `steps`.
        """

        def arm(
            edits: Sequence[AnyEdit] = (), contrast: Contrast | None = None, replace: bool = False
        ) -> Arm:
            text = self.answer(view, prompt, edits, contrast=contrast, replace=replace, **options)
            return Arm(text, self.steered(view, edits, contrast, replace).gauges)

        return Arms(arm(), arm(replace=True), arm(edits, contrast, replace))


def _texts(steps: Iterator[Step]) -> Iterator[str]:
    """The texts of the steps, each once."""
    last = None
    with closing(steps):
        for step in steps:
            if step.text != last:
                yield (last := step.text)
