"""Answering step by step: one pass at a time, with drafts and memory, and with contrasted branches."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig

from explorer.errors import ModelError
from explorer.vlm import open_lvlm
from explorer.vlm.attention import changed_attention
from explorer.vlm.base import Asked, AttentionEdit, Step
from explorer.vlm.cache import GrowingCache
from explorer.vlm.decode import Branch, Decoder
from explorer.vlm.families.llava import Llava
from explorer.vlm.memory import Memories, Memory
from explorer.vlm.text import along
from tests.vlm.asking import ids_and_mask

PROMPT, QUESTION = "Describe the image.", "is the cat red"
EDITS = (
    AttentionEdit((0, 2), "answer", image_gain=1.5),
    AttentionEdit((1, 2), "text", image_factor=0.2, system_factor=2.0),
)


@pytest.fixture(scope="module")
def lvlm(tiny_lvlm_folder: Path) -> Llava:
    return open_lvlm(tiny_lvlm_folder)


def picture(seed: int) -> torch.Tensor:
    return torch.randn(16, 32, generator=torch.Generator().manual_seed(seed)) * 2


def changed(features: torch.Tensor, row: int, seed: int = 1, by: float = 2.0) -> torch.Tensor:
    """The same with another row."""
    other = features.clone()
    other[row] += by * torch.randn(32, generator=torch.Generator().manual_seed(seed))
    return other


def last(steps: Sequence[Step]) -> Step:
    return list(steps)[-1]


def scripted(tokens: Sequence[int]) -> Callable[[Sequence[torch.Tensor], int], int]:
    """A choice that says just these."""
    return lambda scores, place: tokens[place]


def drawn(scores: Sequence[torch.Tensor], place: int) -> int:
    """A token drawn from the first branch contrasted with the second, by noise that the place determines."""
    mixed = scores[0] if len(scores) == 1 else 2 * scores[0] - scores[1]
    noise = torch.rand(len(mixed), generator=torch.Generator().manual_seed(place)).log().neg().log()
    return int((mixed - noise).argmax())


def written_out(
    lvlm: Llava, asked: Sequence[Asked], limit: int, choose: Callable[..., int] | None = None
) -> tuple[int, ...]:
    """The answer from whole passes over everything for each token, without any cache."""
    tokens: list[int] = []
    model = lvlm.model
    branches = [lvlm._branch(one, limit) for one in asked]
    while len(tokens) < limit and (not tokens or tokens[-1] != model.generation_config.eos_token_id):
        scores = []
        for branch in branches:
            said = model.get_input_embeddings()(torch.tensor(tokens, dtype=torch.int64))
            rows = torch.cat([branch.rows(), said])[None]
            edit, prompt = branch.attention, len(branch.ids)
            with changed_attention(model.model.language_model, edit, branch.image, prompt - 1):
                scores.append(model(inputs_embeds=rows, use_cache=False).logits[0, -1].float())
        tokens.append(int(scores[0].argmax()) if choose is None else choose(scores, len(tokens)))
    return tuple(tokens)


@contextmanager
def counted(lvlm: Llava) -> Iterator[list[int]]:
    """How many rows each pass through the language model reads."""
    rows: list[int] = []
    layers = lvlm.model.model.language_model
    handle = layers.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    try:
        yield rows
    finally:
        handle.remove()


# ---- passes ----------------------------------------------------------------------------------------------


def test_each_step_is_one_pass_of_every_branch_and_nothing_runs_before(lvlm: Llava) -> None:
    for branches in (1, 2, 3):
        asked = [Asked(PROMPT, picture(seed)) for seed in range(branches)]
        with counted(lvlm) as rows:
            steps = lvlm.decode(asked, 6)
            assert rows == []
            for count, step in enumerate(steps, 1):
                assert len(rows) == step.passes == count * branches and len(step.tokens) == count
                assert step.done == (count == 6)
        assert rows == [rows[0]] * branches + [1] * 5 * branches
        assert next(steps, None) is None


def test_an_unchanged_answer_costs_one_pass_and_its_draft(lvlm: Llava) -> None:
    memory, features = Memory(), picture(0)
    first = last(lvlm.decode([Asked(PROMPT, features)], 12, None, memory))
    with counted(lvlm) as rows:
        again = last(lvlm.decode([Asked(PROMPT, features)], 12, None, memory))
        assert rows == [1 + 11], "more than the prompt's last row and the draft was read"
        assert again == first._replace(passes=1)
        prompt = len(lvlm._branch(Asked(PROMPT, features), 12).ids)
        row = lvlm._branch(Asked(PROMPT, features), 12).image.start + 9
        near = changed(features, 9, by=1e-4)
        assert last(lvlm.decode([Asked(PROMPT, near)], 12, None, memory)) == again
        assert rows[1:] == [prompt - row + 11], "the prompt is read from the first patch that differs"


def test_the_last_layer_finishes_only_the_rows_that_are_scored(lvlm: Llava) -> None:
    rows: list[int] = []
    part = lvlm.model.model.language_model.layers[-1].mlp.gate_proj
    handle = part.register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[-2]))
    try:
        last(lvlm.decode([Asked(PROMPT, picture(0))], 3))
    finally:
        handle.remove()
    assert rows == [1, 1, 1]


def test_a_substituted_word_costs_two_passes_and_one_put_in_three(lvlm: Llava) -> None:
    old = list(range(8, 20))
    for new, passes in (
        (old, 1),
        ([*old[:5], 25, *old[6:]], 2),
        ([*old[:5], 25, *old[5:-1]], 3),
        ([*old[:5], *old[7:], 25, 26], 3),
        ([*old[:5], 25, 26, 27, *old[6:10]], 5),
        ([25, *old[1:]], 2),
        ([*old[:2], 25, *old[3:9], 26, *old[10:]], 3),
    ):
        memory = Memory()
        for script, cost in ((old, 12), (new, passes)):
            step = last(lvlm.decode([Asked(PROMPT, picture(0))], 12, scripted(script), memory))
            assert step.tokens == tuple(script) and step.passes == cost


def test_a_new_question_reads_neither_the_picture_nor_what_stands_before_it_again(lvlm: Llava) -> None:
    memory, features = Memory(), picture(0)
    last(lvlm.decode([Asked(PROMPT, features)], 4, None, memory))
    branch = lvlm._branch(Asked(QUESTION, features), 4)
    with counted(lvlm) as rows:
        step = last(lvlm.decode([Asked(QUESTION, features)], 4, None, memory))
    assert rows[0] <= len(branch.ids) - branch.image.stop
    assert step.tokens == written_out(lvlm, [Asked(QUESTION, features)], 4)
    assert step.passes == 4, "answers to another question are no drafts"


def test_answers_end_at_any_of_the_ends_and_at_the_limit(
    lvlm: Llava, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = list(range(8, 28))
    for ends, limit, length in ((12, 9, 5), ([12, 10], 9, 3), ([99, 11], 9, 4), (None, 9, 9), (20, 1, 1)):
        monkeypatch.setattr(lvlm.model.generation_config, "eos_token_id", ends)
        memory = Memory()
        for passes in (length, 1):
            step = last(lvlm.decode([Asked(PROMPT, picture(0))], limit, scripted(script), memory))
            assert step == Step(tuple(script[:length]), step.text, passes, True)
        longer = last(lvlm.decode([Asked(PROMPT, picture(0))], 12, scripted(script), memory))
        assert longer.tokens == tuple(script[: length if ends is not None and ends != 20 else 12])


def test_positions_go_on_from_the_highest_of_the_prompt() -> None:
    prompt = torch.tensor([[0, 1, 2, 2], [0, 1, 3, 5]])
    assert along(prompt, 1, 2).tolist() == [[1, 2], [1, 3]]
    assert along(prompt, 2, 4).tolist() == [[2, 2, 6, 7], [3, 5, 6, 7]]
    assert along(prompt, 5, 2).tolist() == [[7, 8], [7, 8]] and along(None, 5, 2) is None


# ---- the same answers ------------------------------------------------------------------------------------


def test_contrasted_branches_agree_with_whole_passes(lvlm: Llava) -> None:
    memory, features = Memory(), picture(3)
    for move in range(6):
        steered = changed(features, (3 * move) % 16, seed=move // 2)
        asked = [
            Asked(PROMPT, steered),
            Asked(PROMPT, features if move % 3 else None),
            Asked(PROMPT, steered, preface="be the big dog"),
        ][: 1 + move % 3]
        for choose in (None, drawn):
            wanted = written_out(lvlm, asked, 7, choose)
            assert last(lvlm.decode(asked, 7, choose)).tokens == wanted
            assert last(lvlm.decode(asked, 7, choose, memory)).tokens == wanted
            again = last(lvlm.decode(asked, 7, choose, memory))
            assert again.tokens == wanted and again.passes == len(asked)


def test_changed_attention_agrees_with_whole_passes_and_its_readings_stay_apart(lvlm: Llava) -> None:
    memory, features, seen = Memory(), picture(4), set()
    for move, edit in enumerate((None, *EDITS, None, EDITS[1], EDITS[0], *EDITS, None)):
        prompt = QUESTION if move in (3, 4) else PROMPT
        asked = [Asked(prompt, changed(features, 15 - move % 3), attention=edit), Asked(prompt, features)]
        wanted = written_out(lvlm, asked[: 1 + move % 2], 8)
        assert last(lvlm.decode(asked[: 1 + move % 2], 8, None, memory)).tokens == wanted
        seen.add((prompt, edit, wanted))
    assert len({wanted for _, _, wanted in seen}) >= 4, "the edits change nothing, so this shows nothing"
    fresh = Memory()
    last(lvlm.decode([Asked(PROMPT, features, attention=EDITS[1])], 4, None, fresh))
    with counted(lvlm) as rows:
        last(lvlm.decode([Asked(PROMPT, features)], 4, None, fresh))
    assert rows[0] >= len(lvlm._branch(asked[0], 4).ids), "read under another edit"


def test_a_siglip_tower(lvlm: Llava) -> None:
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=32,
            patch_size=8,
        ),
        text_config=lvlm.model.config.text_config,
        image_token_id=4,
        vision_feature_select_strategy="full",
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.normal_(0.0, 0.3)
    model.generation_config.eos_token_id = None
    siglip, memory = Llava(model, lvlm.processor, "siglip"), Memory()
    for move in range(6):
        pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(move // 2))
        ready = siglip.features(siglip.tower(pixels, siglip.read_block)[0], siglip.read_block)
        inputs = ids_and_mask(siglip, PROMPT, len(ready), 10)
        wanted = model.generate(**inputs, pixel_values=pixels, max_new_tokens=10, do_sample=False)
        tokens = last(siglip.decode([Asked(PROMPT, ready)], 10, None, memory)).tokens
        assert tokens == tuple(wanted[0, inputs["input_ids"].shape[1] :].tolist())


# ---- the model's own settings ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("repetition_penalty", 1.7),
        ("no_repeat_ngram_size", 2),
        ("bad_words_ids", [[9], [17], [14, 20]]),
        ("suppress_tokens", [8, 9, 17, 20]),
        ("begin_suppress_tokens", [8, 9, 10, 11, 12, 13]),
        ("sequence_bias", [[[12], 9.0], [[11], -5.0]]),
        ("min_new_tokens", 6),
        ("min_length", 28),
        ("forced_eos_token_id", 2),
        ("exponential_decay_length_penalty", (0, 4.0)),
    ],
)
def test_the_settings_of_the_model_are_honoured(
    lvlm: Llava, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    plain = [last(lvlm.decode([Asked(PROMPT, picture(seed))], 10)).tokens for seed in range(4)]
    if name in ("min_new_tokens", "min_length", "exponential_decay_length_penalty"):
        ends = [plain[0][3], plain[1][2], plain[2][4]]
        monkeypatch.setattr(lvlm.model.generation_config, "eos_token_id", ends)
        plain = [last(lvlm.decode([Asked(PROMPT, picture(seed))], 10)).tokens for seed in range(4)]
    monkeypatch.setattr(lvlm.model.generation_config, name, value)
    memory, other = Memory(), 0
    for seed in (*range(4), 3):
        inputs = ids_and_mask(lvlm, PROMPT, 16, 10)
        ready = {"image": type("Ready", (), {"pooler_output": [picture(seed)]})()}
        wanted = lvlm.model.generate(**inputs, mm_encoder_outputs=ready, max_new_tokens=10, do_sample=False)
        step = last(lvlm.decode([Asked(PROMPT, picture(seed))], 10, None, memory))
        assert step.tokens == tuple(wanted[0, inputs["input_ids"].shape[1] :].tolist())
        other += step.tokens != plain[seed]
    assert other > 0 and step.passes == 1, "the setting changes nothing here, so this shows nothing"


def test_settings_that_cannot_be_honoured_are_named(lvlm: Llava, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lvlm.model.generation_config, "guidance_scale", 1.5)
    with pytest.raises(ModelError, match=r"guidance_scale = 1\.5"):
        lvlm.decode([Asked(PROMPT, picture(0))])


def test_one_branch_is_chosen_from_after_the_settings_and_several_from_raw_scores(
    lvlm: Llava, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lvlm.model.generation_config, "suppress_tokens", [8, 9])
    for branches in (1, 2):
        heard: list[torch.Tensor] = []

        def choose(scores: Sequence[torch.Tensor], place: int, heard: list[torch.Tensor] = heard) -> int:
            heard.extend(score.clone() for score in scores)
            scores[0][:] = 0.0  # it may even write on them
            return 12

        last(lvlm.decode([Asked(PROMPT, picture(0))] * branches, 3, choose))
        assert len(heard) == 3 * branches and {score.dtype for score in heard} == {torch.float32}
        hidden = [score[[8, 9]].isinf().all() for score in heard]
        assert all(hidden) if branches == 1 else not any(hidden)


# ---- prompts ---------------------------------------------------------------------------------------------


def test_errors_come_before_the_first_step(lvlm: Llava) -> None:
    for asked, limit, words in (
        ([Asked("look: <image>", picture(0))], 4, "may not contain"),
        ([Asked(PROMPT, picture(0)), Asked(PROMPT, picture(0), preface="<image>")], 4, "may not contain"),
        ([Asked("red " * 300, None)], 4, r"too long: 30. tokens and 4 new ones"),
        ([Asked(PROMPT, picture(0))], 1000, "the picture's 16 among them"),
        ([Asked(PROMPT, picture(0))], 0, "1 or more"),
        ([Asked(PROMPT, None, attention=EDITS[0])], 4, "needs a picture"),
        ([Asked(PROMPT, picture(0), attention=AttentionEdit((1, 9)))], 4, "layers 1 to 9"),
        ([], 4, "nothing was asked"),
    ):
        with pytest.raises(ModelError, match=words):
            lvlm.decode(asked, limit)


KNOWS_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}<s> {{ m['content'][0]['text'] }} | {% else %}"
    "USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}"
    "{% endif %}{% endfor %}{% endif %}{% endfor %} ASSISTANT:"
)
REFUSES_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}"
    "{% endif %}{% endfor %}{% endfor %} ASSISTANT:"
)


@pytest.mark.parametrize(
    ("template", "text", "bare"),
    [
        (KNOWS_SYSTEM, "<s> be big | USER: <image> red? ASSISTANT:", "USER: red? ASSISTANT:"),
        (REFUSES_SYSTEM, "be big <image> red? ASSISTANT:", "red? ASSISTANT:"),
        (
            REFUSES_SYSTEM.replace("raise_exception('no')", "''"),
            "be big <image> red? ASSISTANT:",
            "red? ASSISTANT:",
        ),
        (None, "be big USER: <image>\nred? ASSISTANT:", "USER: red? ASSISTANT:"),
    ],
)
def test_an_instruction_is_a_system_message_or_stands_in_front(
    lvlm: Llava, monkeypatch: pytest.MonkeyPatch, template: str | None, text: str, bare: str
) -> None:
    monkeypatch.setattr(lvlm.processor, "chat_template", template)
    assert lvlm.prompt_text("red?", "be big") == text
    assert lvlm.prompt_text("red?", picture=False) == bare
    assert lvlm._branch(Asked("red?", None), 4).image == slice(0, 0)


# ---- texts -----------------------------------------------------------------------------------------------


def test_a_half_character_is_held_back(lvlm: Llava) -> None:
    pieces = {1: "a", 2: "a\ufffd", 3: "aé", 4: "aé\ufffd"}
    decoder = Decoder(lvlm._side, lvlm.model.generation_config, lambda tokens: pieces[len(tokens)])
    branch = lvlm._branch(Asked(PROMPT, picture(0)), 4)
    assert [step.text for step in decoder.decode([branch], 4)] == ["a", "a", "aé", "aé\ufffd"]


# ---- closing ---------------------------------------------------------------------------------------------


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, int]]:
    """Counts, without a garbage collector's help, the keys, values and embeddings that somebody holds:
    how many caches and rows, and their bytes."""
    caches: weakref.WeakSet[GrowingCache] = weakref.WeakSet()
    rows: list[weakref.ref[torch.Tensor]] = []
    made, branch = GrowingCache.__init__, Llava._branch

    def init(cache: GrowingCache, layers: object) -> None:
        made(cache, layers)
        caches.add(cache)

    def watched(lvlm: Llava, asked: Asked, limit: int) -> Branch:
        def embeddings() -> torch.Tensor:
            rows.append(weakref.ref(found := plain.rows()))
            return found

        plain = branch(lvlm, asked, limit)
        return plain._replace(rows=embeddings)

    def count() -> tuple[int, int]:
        kept = [tensor for one in rows if (tensor := one()) is not None]
        everything = [*caches, *kept]
        return len(everything), sum(one.nbytes for one in everything)

    monkeypatch.setattr(GrowingCache, "__init__", init)
    monkeypatch.setattr(Llava, "_branch", watched)
    return count


@pytest.mark.parametrize("branches", [1, 2])
def test_closing_at_any_step_frees_what_the_generation_took(
    lvlm: Llava, branches: int, alive: Callable[[], tuple[int, int]]
) -> None:
    memory, features = Memories(10**9).new(), picture(0)
    asked = [Asked(PROMPT, picture(seed)) for seed in range(branches)]
    for count in range(4):
        steps = lvlm.decode(asked, 6, None, memory)
        for _ in range(count):
            next(steps)
        assert (alive()[1] > 0) == (count > 0)
        steps.close()
        assert alive() == (0, 0) == (memory.nbytes, len(memory.drafts))
    last(lvlm.decode(asked, 6, None, memory))
    for count in range(1, 4):
        for row in (0, 8, 15):
            moved = [Asked(PROMPT, changed(features, row, count)), *asked[1:]]
            held, there, drafts = memory.nbytes, alive(), memory.drafts
            steps = lvlm.decode(moved, 150, scripted([8, 9, 10, *range(7, 29)] * 7), memory)
            for _ in range(count):
                next(steps)
            del steps
            assert memory.nbytes <= held and memory.drafts == drafts
            assert alive()[0] <= there[0] and alive()[1] <= there[1]
            assert last(lvlm.decode(moved, 6, None, memory)).tokens == written_out(lvlm, moved, 6)


def test_leaving_after_the_last_step_keeps_everything(lvlm: Llava) -> None:
    memory = Memory()
    for step in lvlm.decode([Asked(PROMPT, picture(0))], 5, None, memory):
        if step.done:
            break
    assert memory.nbytes > 0
    assert last(lvlm.decode([Asked(PROMPT, picture(0))], 5, None, memory)).passes == 1


def test_an_error_in_the_middle_of_a_pass_spoils_nothing(lvlm: Llava) -> None:
    memory, asked = Memory(), [Asked(PROMPT, picture(0))]
    wanted = last(lvlm.decode(asked, 6, None, memory)).tokens

    def fail(*_: object) -> None:
        raise MemoryError

    other = [Asked(PROMPT, changed(picture(0), 15))]
    handle = lvlm.model.model.language_model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(MemoryError):
        list(lvlm.decode(other, 6, None, memory))
    handle.remove()
    assert last(lvlm.decode(asked, 6, None, memory)).tokens == wanted
    assert last(lvlm.decode(other, 6, None, memory)).tokens == written_out(lvlm, other, 6)


# ---- company ---------------------------------------------------------------------------------------------


def test_interleaved_generations_share_a_memory_but_no_reading(lvlm: Llava) -> None:
    memory = Memory()
    last(lvlm.decode([Asked(PROMPT, picture(0))], 8, None, memory))
    for row in (15, 3, 9):
        asked = [[Asked(PROMPT, changed(picture(0), row, seed))] for seed in range(3)]
        running = {place: lvlm.decode(one, 8, None, memory) for place, one in enumerate(asked)}
        answers: dict[int, tuple[int, ...]] = {}
        while running:
            for place, steps in list(running.items()):
                step = next(steps, None)
                if step is None:
                    del running[place]
                else:
                    answers[place] = step.tokens
        assert answers == {place: written_out(lvlm, one, 8) for place, one in enumerate(asked)}


def test_two_visitors_in_two_threads_take_turns(lvlm: Llava) -> None:
    memory, lock, wrong = Memory(), threading.Lock(), []
    todo = {
        (seed, row): [Asked(PROMPT, changed(picture(0), row, seed))] for seed in (1, 2) for row in (2, 14)
    }
    wanted = {key: written_out(lvlm, asked, 6) for key, asked in todo.items()}

    def visit(seed: int) -> None:
        for turn in range(8):
            key = (seed, (2, 14)[turn % 2])
            steps, tokens = lvlm.decode(todo[key], 6, None, memory), ()
            while True:
                with lock:
                    step = next(steps, None)
                if step is None or (turn % 3 == 2 and len(step.tokens) > 2):
                    break
                tokens = step.tokens
            with lock:
                steps.close()
            if wanted[key][: len(tokens)] != tokens or (turn % 3 != 2 and tokens != wanted[key]):
                wrong.append((key, tokens))

    threads = [threading.Thread(target=visit, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_gradients_are_as_before_between_the_steps_and_afterwards(lvlm: Llava) -> None:
    memory, features = Memory(), picture(0).requires_grad_(True)
    steps = lvlm.decode([Asked(PROMPT, features)], 5, None, memory)
    for _ in steps:
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert not any(reading.rows.requires_grad for reading in memory.readings)
    rows = lvlm.model.get_input_embeddings()(torch.arange(8, 16))
    weights = features[:8] * rows
    lvlm.model(inputs_embeds=weights[None], use_cache=False).logits.sum().backward()
    assert features.grad is not None and float(features.grad.abs().sum()) > 0
