"""Batches, packing and the three stages, on a model that trains for a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from explorer.world import draw
from explorer.world.batches import IGNORE, Packer, collate, dense_labels, loader, pixels_of
from explorer.world.model import build_model, build_processor, build_tokenizer
from explorer.world.questions import training_questions
from explorer.world.training import GRID, TrainConfig, Trainer, see, talk_loss, train, visibility


@pytest.fixture(scope="module")
def packer() -> Packer:
    return Packer(build_tokenizer(), GRID * GRID)


def test_tokenizer_round_trip_without_unknown_words() -> None:
    tokenizer = build_tokenizer()
    for seed in range(120):
        scene = draw(seed)
        for question in training_questions(scene, np.random.default_rng(seed)):
            for text in (question.prompt, question.answer):
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                assert tokenizer.unk_token_id not in ids, text
                assert tokenizer.decode(ids) == text


def test_pixels_equal_the_processor() -> None:
    scene = draw(4)
    processor = build_processor(build_tokenizer())
    expected = processor.image_processor(images=scene.image, return_tensors="pt").pixel_values[0]
    assert torch.allclose(pixels_of(scene), expected, atol=1e-5)


def test_dense_labels_point_at_the_object() -> None:
    scene = draw(8)
    labels = dense_labels(scene, GRID)
    owners = scene.patch_objects(GRID, GRID, 0.4).reshape(-1)
    for patch in np.flatnonzero(owners >= 0):
        thing = scene.objects[owners[patch]]
        here = (np.array([patch % GRID, patch // GRID]) + 0.5) / GRID
        center = (np.array(thing.box[:2]) + np.array(thing.box[2:])) / 2 / 112
        assert np.allclose(labels["place"][patch, :2] + here, center, atol=1e-5)


def test_packed_turns_equal_turns_asked_alone(packer: Packer) -> None:
    """The packing is only a saving: the loss of a packed row is that of its turns one by one."""
    torch.manual_seed(0)
    model = build_model(packer.tokenizer, width=64, blocks=3, layers=2).eval()
    scene = draw(2)
    questions = training_questions(scene, np.random.default_rng(0))
    prefix = torch.tensor([packer.prefix])
    hidden = see(model, pixels_of(scene)[None])
    together = talk_loss(model, hidden, collate([scene], [packer.pack(questions)], GRID), prefix)[0]
    losses, weights = [], []
    for question in questions:
        batch = collate([scene], [packer.pack([question])], GRID)
        losses.append(talk_loss(model, hidden, batch, prefix)[0] * batch.weight.sum())
        weights.append(batch.weight.sum())
    assert torch.allclose(together, sum(losses) / sum(weights), atol=1e-4)


def test_see_is_what_the_lvlm_reads(packer: Packer) -> None:
    torch.manual_seed(0)
    model = build_model(packer.tokenizer, width=64, blocks=3, layers=2).eval()
    pixels = pixels_of(draw(1))[None]
    seen: list[torch.Tensor] = []
    handle = model.model.multi_modal_projector.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.get_image_features(pixel_values=pixels)
    handle.remove()
    assert torch.allclose(see(model, pixels)[:, 1:], seen[0], atol=1e-5)


def test_visibility_blocks_other_turns(packer: Packer) -> None:
    scene = draw(0)
    batch = collate([scene], [packer.pack(training_questions(scene, np.random.default_rng(0)))], GRID)
    seen = visibility(batch, 5)[0, 0]
    turn = batch.turn[0]
    for i in range(len(turn)):
        for j in range(len(turn)):
            assert bool(seen[5 + i, 5 + j]) == (j <= i and bool(turn[i] == turn[j]))
        assert seen[5 + i, :5].all()
    assert not seen[:5, 5:].any()


def test_batches_resume_where_they_stopped(packer: Packer) -> None:
    stream = loader(packer, 4, GRID, 0, True, 0)
    next(stream)
    second = next(stream)
    again = next(loader(packer, 4, GRID, 1, True, 0))
    assert all(torch.equal(a, b) for a, b in zip(vars(second).values(), vars(again).values(), strict=True))
    assert (second.label != IGNORE).any()


def test_training_runs_resumes_and_the_model_loads_offline(tmp_path: Path) -> None:
    lines: list[str] = []
    folder = train(TrainConfig(out=tmp_path, batch=2, workers=0, scale=0.0003, device="cpu"), lines.append)
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe the image."}]}]
    prompt = processor.apply_chat_template(turn, add_generation_prompt=True)
    assert prompt == "USER: <image>\nDescribe the image. ASSISTANT:"
    inputs = processor(images=draw(0).image, text=prompt, return_tensors="pt")
    assert inputs.input_ids.shape[1] == 3 + GRID * GRID + 6
    assert model.generate(**inputs, max_new_tokens=3, do_sample=False).shape[0] == 1
    stopped = Trainer(TrainConfig(out=tmp_path, batch=2, workers=0))
    assert stopped.resume() and stopped.stage == len(stopped.config.stages())
    before = dict(model.named_parameters())["model.multi_modal_projector.linear_1.weight"]
    assert not torch.equal(before, build_model(build_tokenizer()).model.multi_modal_projector.linear_1.weight)
