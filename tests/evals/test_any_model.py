"""Every measurement runs on other families than LLaVA, or says what it lacks; on small random models."""

from __future__ import annotations

import importlib
import json
from types import SimpleNamespace

import pytest
import torch

from explorer.evals import cns_cost
from explorer.evals.known import known_concepts
from explorer.evals.phantoms import word_for
from explorer.sae import SAE, ActivationRule
from explorer.session import Session
from explorer.world import draw, mentions
from tests.vlm.families.made import made

NAMES = ("idefics3/large", "instructblip/vicuna", "qwen/qwen2_5")
"""Tiles, a Q-Former, windows and a grid for each picture."""

LINES = {
    "speed": "--scenes 1 --moves 2 --series 2 --max-new-tokens 6",
    "mitigation": "--scenes 1 --cases 0 --arms vanilla vcd+cns pai --ways greedy --tasks captions --seeds 0 "
    "--max-new-tokens 4",
    "zeroing": "--scenes 1 --k 5 --scopes image --no-captions",
    "noise": "--scenes 1 --draws 1 --steps 0 500 --k 5",
    "phantoms": "--scenes 1 --measure 3 --length 4 --values 0 --regions active",
}


@pytest.fixture(scope="module", params=NAMES)
def session(request: pytest.FixtureRequest) -> Session:
    """With an SAE of random directions, and a store that knows an always-on neuron and nothing else."""
    lvlm = made(request.param).lvlm
    width = lvlm.width(lvlm.read_block)
    rows = torch.randn(4 * width, width, generator=torch.Generator().manual_seed(4))
    rows = torch.nn.functional.normalize(rows, dim=1)
    sae = SAE(rows.T.clone(), torch.zeros(4 * width), rows, torch.zeros(width), ActivationRule("topk", k=8))
    found = Session(lvlm, sae.eval().requires_grad_(False))
    nothing = {"probe": lambda: None, "concepts": lambda: [], "folder": "here"}
    found.store = SimpleNamespace(always_on=lambda share=1.0: [3], **nothing)
    return found


def called(
    name: str, line: str, session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> tuple[int, str, str]:
    """The exit status of a measurement as a command, what it printed, and what it told."""
    module = importlib.import_module(f"explorer.evals.{name}")
    monkeypatch.setattr(module, "Session", SimpleNamespace(chosen=lambda *_: session))
    monkeypatch.setattr("sys.argv", ["x", *line.split(), "--model", "it"])
    status = module.main()
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.mark.parametrize("name", LINES)
def test_a_measurement_runs(
    name: str, session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    status, out, told = called(name, LINES[name], session, monkeypatch, capsys)
    assert status == 0, told
    report = json.loads(out)
    if name == "speed":
        found = report["opened"]
        assert found["family"] == session.lvlm.family and "large" not in report
        for part in ("moves", "drag"):
            assert found[part]["all"]["moves"] == found[part]["all"]["agree"] == 2
        assert found["cns"]["all"]["pictures"] == 1
    if name == "mitigation":
        assert report["answers"] == 3


def test_what_a_model_or_its_store_lacks_is_said(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert known_concepts(session) == frozenset()
    status, _, told = called("neurons", "--scenes 1", session, monkeypatch, capsys)
    assert status == 2 and "here knows none of them; build one with: python -m index build --scenes" in told
    line = "--scenes 1 --k 5 --scopes patch --no-captions"
    status, _, told = called("zeroing", line, session, monkeypatch, capsys)
    assert (status, "use --scopes image" in told) == ((2, True) if _in_parts(session) else (0, False))


def test_a_concept_that_is_named_within_a_word_is_not_attributed(session: Session) -> None:
    assert mentions("the cat's bowl") == ("cat", "bowl")
    assert word_for(session, "the cat's bowl", "cat") is None
    assert word_for(session, "the cat's bowl", "bowl") == "bowl"


def _in_parts(session: Session) -> bool:
    return bool(session.look(draw(20_000).image).prepared.scales)


def test_the_noise_of_what_cns_costs_is_the_sessions(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both pass the tower the same noisy pixel values, in the form of the picture."""
    seen: list[tuple[torch.Tensor, object]] = []
    tower = session.lvlm.tower

    def watched(pixels: torch.Tensor, block: int, like: object = None) -> torch.Tensor:
        seen.append((pixels, like))
        return tower(pixels, block, like)

    monkeypatch.setattr(session.lvlm, "tower", watched)
    cns_cost.measure(session, [draw(20_000).image], 2)
    pairs = [pixels for pixels, _ in seen if len(pixels) == 2]
    assert len(pairs) >= 3 and all(torch.equal(pair, pairs[0]) for pair in pairs)
    assert all(like is not None for _, like in seen)
