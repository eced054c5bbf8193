"""Where a checkpoint is found: folders, files, and a hub that is a small server on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from explorer.errors import SAEError
from explorer.sae import SAE, ActivationRule, load_sae
from explorer.sae.loaders.places import choose, find

COMMIT, OLDER = "a" * 40, "b" * 40


def sae(seed: int = 0) -> SAE:
    draw = torch.Generator().manual_seed(seed)
    shapes = ((5, 12), (12,), (12, 5), (5,))
    return SAE(*(torch.randn(shape, generator=draw) for shape in shapes), ActivationRule("topk", k=2))


# ---- which file of a folder -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["ae.pt", "config.json", "checkpoints/ae_0.pt", "checkpoints/ae_10.pt"], "ae.pt"),
        (["layers.22/cfg.json", "layers.22/sae.safetensors"], "layers.22/sae.safetensors"),
        (["sae_weights.safetensors", "sparsity.safetensors", "cfg.json"], "sae_weights.safetensors"),
        (["n_images_100.pt", "n_images_100_log_feature_sparsity.pt", "config.json"], "n_images_100.pt"),
        (["sae.safetensors", "optimizer_0.pt", "state.pt", "lr_scheduler.pt"], "sae.safetensors"),
        (["model.pth", "state_dict.pt", "io.safetensors"], "state_dict.pt"),
        (["mine.st", "README.md"], "mine.st"),
        (["checkpoint/sae.pt"], "checkpoint/sae.pt"),
        (["a/b/c/weights.pt", "notes.txt"], "a/b/c/weights.pt"),
    ],
)
def test_the_weights_of_a_folder(tmp_path: Path, names: list[str], found: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert find(tmp_path).weights == tmp_path / found == find(str(tmp_path)).weights
    assert choose(reversed(names), "x") == found


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["layers.5/sae.pt", "layers.22/sae.pt"], r"2 folders with weights: layers.22, .*/layers.22"),
        (["n_images_1.pt", "n_images_2.pt"], r"2 weight files: n_images_1.pt, n_images_2.pt; name one"),
        (["checkpoints/ae_0.pt", "checkpoints/ae_9.pt"], r"2 weight files: checkpoints/ae_0.pt, check"),
        (["ae.pt", "sae.safetensors"], "2 weight files: ae.pt, sae.safetensors"),
        (["README.md", "io.safetensors"], r"no weights of an SAE: found README.md, io.safe"),
        ([], "no weights of an SAE: found nothing"),
    ],
)  # fmt: skip
def test_folders_that_leave_a_doubt_are_refused(tmp_path: Path, names: list[str], words: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(SAEError, match=words):
        find(tmp_path)


@pytest.mark.parametrize(
    ("weights", "config", "found"),
    [
        ("ae.pt", "config.json", True),
        ("sae.safetensors", "cfg.json", True),
        ("checkpoints/ae_3.pt", "config.json", True),
        ("layers.3/sae.safetensors", "config.json", False),
        ("layers.3/sae.safetensors", "other.json", False),
    ],
)
def test_the_configuration(tmp_path: Path, weights: str, config: str, found: bool) -> None:
    (tmp_path / weights).parent.mkdir(parents=True, exist_ok=True)
    for name in (weights, config):
        (tmp_path / name).write_bytes(b"")
    assert find(tmp_path / weights).config == (tmp_path / config if found else None)


def test_a_checkpoint_named_from_within_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in ("config.json", "checkpoints/ae_0.pt"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path / "checkpoints")
    assert find("ae_0.pt") == (tmp_path / "checkpoints" / "ae_0.pt", tmp_path / "config.json")


def test_cfg_json_goes_before_config_json_and_beside_before_above(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in ("config.json", "checkpoints/config.json", "checkpoints/cfg.json", "checkpoints/ae_1.pt"):
        (tmp_path / name).write_bytes(b"")
    assert find(tmp_path / "checkpoints").config == tmp_path / "checkpoints" / "cfg.json"


@pytest.mark.parametrize(
    "name", ["nowhere", "./owner/name", "owner/sae.safetensors", "a b/c", "/no/such/file.pt"]
)
def test_what_is_neither_here_nor_a_hub_name(name: str) -> None:
    with pytest.raises(SAEError, match="there is no SAE file at"):
        find(name)


def test_a_path_is_never_a_hub_name() -> None:
    with pytest.raises(SAEError, match="there is no SAE file at owner/name"):
        load_sae(Path("owner/name"))


# ---- the hub ----------------------------------------------------------------------------------------


class Hub:
    """Repositories by name and revision, served as the hub's API does; notes what was asked of it."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.got: list[str] = []
        self.tokens: set[str | None] = set()
        self.down = False

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        path, _, _ = path.partition("?")
        for repo, revisions in self.repos.items():
            if path.startswith(f"/api/models/{repo}/tree/"):
                files = revisions[path.rsplit("/", 1)[1]]
                listed = [
                    {"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                    for n, b in files.items()
                ]
                return 200, {}, json.dumps(listed).encode()
            if path == f"/api/models/{repo}" or path.startswith(f"/api/models/{repo}/revision/"):
                revision = path.rsplit("/", 1)[1] if "/revision/" in path else "main"
                commit = {"main": COMMIT, "old": OLDER}.get(revision, revision)
                if commit not in revisions:
                    return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
                siblings = [{"rfilename": name} for name in revisions[commit]]
                return 200, {}, json.dumps({"id": repo, "sha": commit, "siblings": siblings}).encode()
            if path.startswith(f"/{repo}/resolve/"):
                commit, name = path.removeprefix(f"/{repo}/resolve/").split("/", 1)
                data = revisions[commit][name]
                return 200, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}, data
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A server on a free port that huggingface_hub takes for the hub, with an empty cache."""
    served = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.tokens.add(self.headers.get("Authorization"))
            status, headers, body = served.answer(self.path)
            if self.command == "GET" and "/resolve/" in self.path:
                served.got.append(self.path.split("/resolve/")[1].split("/", 1)[1])
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """A repository with two SAEs in folders and much beside them."""
    made = {".gitattributes": b"*.pt lfs", "README.md": b"x", "large.bin.txt": b"y" * 1000}
    for seed, folder in enumerate(("layers.5", "layers.22")):
        sae(seed).save(tmp_path / "made.st")
        made[f"{folder}/sae.safetensors"] = (tmp_path / "made.st").read_bytes()
    made["layers.22/cfg.json"] = b"{}"
    return made


def test_a_folder_of_a_repository_is_fetched_alone(hub: Hub, files: dict[str, bytes]) -> None:
    hub.repos["owner/name"] = {COMMIT: files}
    assert load_sae("owner/name/layers.22").id == sae(1).id
    assert sorted(hub.got) == [".gitattributes", "layers.22/cfg.json", "layers.22/sae.safetensors"]
    assert "Bearer hf_secret" in hub.tokens
    assert load_sae("owner/name/layers.5/sae.safetensors").id == sae(0).id
    assert load_sae("owner/name/layers.22").id == sae(1).id
    assert sorted(hub.got)[1:] == [
        "layers.22/cfg.json",
        "layers.22/sae.safetensors",
        "layers.5/sae.safetensors",
    ]


def test_a_repository_that_leaves_a_doubt_is_refused(hub: Hub, files: dict[str, bytes]) -> None:
    hub.repos["owner/name"] = {COMMIT: files}
    with pytest.raises(
        SAEError, match=r"owner/name holds 2 folders with weights: layers.22, layers.5; name one"
    ):
        load_sae("owner/name")
    with pytest.raises(SAEError, match=r"the repository has no 'layers.9'; found .gitattributes, README.md"):
        load_sae("owner/name/layers.9")


def test_revisions(hub: Hub, files: dict[str, bytes]) -> None:
    hub.repos["owner/name"] = {
        COMMIT: {"sae.safetensors": files["layers.22/sae.safetensors"], "config.json": b"{}"},
        OLDER: {"sae.safetensors": files["layers.5/sae.safetensors"], ".gitattributes": b""},
    }
    assert load_sae("owner/name").id == sae(1).id
    assert load_sae("owner/name", revision="old").id == load_sae("owner/name", revision=OLDER).id == sae(0).id
    with pytest.raises(SAEError, match=r"the hub has no owner/name@never that may be read .* HF_TOKEN"):
        load_sae("owner/name", revision="never")
    with pytest.raises(
        SAEError, match=r"no file or folder other/name, and the hub has no other/name that may"
    ):
        load_sae("other/name")


def test_without_the_hub_what_was_fetched_before_opens(
    hub: Hub, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["owner/name"] = {COMMIT: files}
    load_sae("owner/name/layers.22")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = list(hub.got)
    assert load_sae("owner/name/layers.22").id == sae(1).id and hub.got == before
    for name in ("owner/name/layers.5", "owner/never"):
        with pytest.raises(
            SAEError, match=f"{name} was not fetched from the hub before, which cannot be reached"
        ):
            load_sae(name)


def test_a_cache_that_another_program_filled(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    repository = tmp_path / "cache" / "models--owner--name"
    for name, data in {
        "refs/main": COMMIT.encode(),
        **{f"snapshots/{COMMIT}/{n}": d for n, d in files.items()},
    }.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_bytes(data)
    assert load_sae("owner/name/layers.5").id == sae(0).id
    assert load_sae("owner/name/layers.5", revision=COMMIT).id == sae(0).id
