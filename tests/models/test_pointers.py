"""Pointers to models, in folders or on a small local hub: what they hold, what is checked, how refusals read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from swirl.core.errors import ModelError
from swirl.models import adapters
from swirl.models.loading import configured_context, load_chat, load_model, load_tokenizer, save
from swirl.models.pointers import follow, point_to_same, read_pointer, write_pointer
from tests import tiny
from tests.families import FAMILIES

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Llama with its tokenizer, as a download would leave it."""
    folder = tmp_path_factory.mktemp("pretrained") / "tiny-llama"
    tokenizer = FAMILIES["llama3"]()
    model = tiny.llama(len(tokenizer)).float()
    model.generation_config.eos_token_id = [3, 4]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text("not loaded", encoding="utf-8")
    return folder


@pytest.fixture
def copy(pretrained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pretrained, tmp_path / "tiny-llama"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-4]), "holds no model that transformers can load: "),
        (lambda file: file.write_bytes(b"version https://git-lfs.github.com/spec/v1"), "holds no model that "),
        (lambda file: save_file({k: v for k, v in load_file(file).items() if "mlp" not in k}, file, {"format": "pt"}),
         "lacks weights of LlamaForCausalLM: model.layers.0.mlp.down_proj.weight, "),
        (lambda file: save_file({k: v[:3] for k, v in load_file(file).items()}, file, {"format": "pt"}),
         "holds no model that transformers can load: "),
    ],
    ids=["cut short", "a stub of git-lfs", "weights are missing", "other shapes"],
)  # fmt: skip
def test_weights_that_are_not_whole_are_no_model(copy: Path, change: Callable[[Path], object], said: str) -> None:
    change(copy / "model.safetensors")
    with pytest.raises(ModelError, match=f"^{copy} {said}"):
        load_model(copy, "cpu", "eager")


def test_an_adapter_that_is_cut_short_is_named(copy: Path, tmp_path: Path) -> None:
    model, place = load_model(copy, "cpu", "eager"), tmp_path / "tuned"
    adapters.add(model, 2, 4, ["q_proj"], 0)
    save(model, load_tokenizer(copy), place, copy, tmp_path)
    file = place / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ModelError, match="tuned holds no adapter that fits LlamaForCausalLM: "):
        load_model(place, "cpu", "eager")


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", '{"max_position_embeddings": 9}'])
def test_a_configuration_that_is_none_is_named(copy: Path, text: str) -> None:
    (copy / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=f"^{copy} has no config.json that says how long a conversation may be: "):
        configured_context(copy)


@pytest.mark.parametrize(
    "tree",
    ["[" * 100_000, {"model": "weights.gguf", "files": {}}, {"model": "a\0b"}, {"files": {"../x": "0"}}],
    ids=["nested", "no digest", "no path", "another folder"],
)
def test_a_pointer_that_is_none_is_named(tmp_path: Path, tree: Any) -> None:
    known = {"source": "pretrained", "model": "x", "revision": "", "files": {"a": "0"}, "trust_remote_code": False}
    text = tree if isinstance(tree, str) else json.dumps(known | tree)
    (tmp_path / "model.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match="model.json is no pointer to a pretrained model"):
        read_pointer(tmp_path)


def test_a_pointer_to_a_folder_holds_checksums_and_no_weights(copy: Path, tmp_path: Path) -> None:
    place = tmp_path / "project/models/base"
    assert write_pointer(place, "../tiny-llama", root=tmp_path / "project") == copy
    assert [path.name for path in place.iterdir()] == ["model.json"]
    tree = json.loads((place / "model.json").read_text())
    files = tree.pop("files")
    assert tree == {
        "source": "pretrained",
        "model": "../../../tiny-llama",
        "revision": "",
        "trust_remote_code": False,
    }
    names = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert files.keys() - {"chat_template.jinja"} == names
    assert files["config.json"] == hashlib.sha256((copy / "config.json").read_bytes()).hexdigest()


def test_what_a_pointer_loads_is_the_model(copy: Path, tmp_path: Path) -> None:
    write_pointer(tmp_path / "base", str(copy))
    assert json.loads((tmp_path / "base/model.json").read_text())["model"] == str(copy)
    ids = torch.tensor([[5, 9, 11]])
    through, direct = (load_model(folder, "cpu", "eager")(input_ids=ids).logits for folder in (tmp_path / "base", copy))
    assert torch.equal(through, direct)
    assert load_tokenizer(tmp_path / "base")("capital")["input_ids"] == FAMILIES["llama3"]()("capital")["input_ids"]
    chat = load_chat(tmp_path / "base")
    assert chat.end_ids == {3, 4, chat.end_id, chat.tokenizer.eos_token_id}
    assert load_model(tmp_path / "base", "cpu", "eager", "bfloat16").dtype == torch.bfloat16


def test_a_changed_a_new_and_a_missing_file_are_named(copy: Path, tmp_path: Path) -> None:
    write_pointer(tmp_path / "base", str(copy))
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(ModelError, match=r"model.safetensors in .* is not what it was when .*base/model.json"):
        load_model(tmp_path / "base", "cpu", "eager")
    load_tokenizer(tmp_path / "base")  # which reads no weights
    (copy / "model.safetensors").write_bytes(weights)
    (copy / "model-00002-of-00002.safetensors").write_bytes(weights)
    with pytest.raises(ModelError, match="model-00002-of-00002.safetensors in .* is not what it was"):
        load_model(tmp_path / "base", "cpu", "eager")
    (copy / "model-00002-of-00002.safetensors").unlink()
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="lacks tokenizer.json, which .*model.json names"):
        load_tokenizer(tmp_path / "base")
    shutil.rmtree(copy)
    with pytest.raises(ModelError, match="points to .*tiny-llama, which is not there"):
        load_model(tmp_path / "base", "cpu", "eager")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json: it is no transformers model"),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            "has no safetensors weights, and pickled ones .* are not read since they may run code",
        ),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "is an adapter, not a whole model; merge it"),
    ],
)
def test_a_folder_that_cannot_be_a_base_is_refused(change: Any, message: str, copy: Path, tmp_path: Path) -> None:
    change(copy)
    with pytest.raises(ModelError, match=message):
        write_pointer(tmp_path / "base", str(copy))
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("model", ["./nowhere", "/nowhere/at/all", "one-word", "a/b/c", "a b/c", ""])
def test_what_is_neither_a_folder_nor_an_id_is_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is neither a folder|has no config.json"):
        write_pointer(tmp_path / "base", model, root=tmp_path)


def test_a_folder_has_no_revision(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder, which has no revisions; leave out 'v1'"):
        write_pointer(tmp_path / "base", str(copy), "v1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"source": "pretrained"}',
        '{"source": "endpoint", "url": "http://127.0.0.1"}',
        '{"source": "pretrained", "model": 3, "revision": "", "files": {}, "trust_remote_code": false}',
        '{"source": "pretrained", "model": "m", "revision": "", "files": {"../x": "y"}, "trust_remote_code": false}',
        '{"source": "pretrained", "model": "m", "revision": "", "files": [], "trust_remote_code": false}',
        '{"source": "pretrained", "model": "m", "revision": "", "files": {}, "trust_remote_code": "yes"}',
    ],
)
def test_a_broken_pointer_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match="model.json is no pointer to a pretrained model"):
        follow(tmp_path)


def test_a_pointer_to_what_another_points_to(copy: Path, tmp_path: Path) -> None:
    write_pointer(tmp_path / "p/models/base", "../tiny-llama", root=tmp_path / "p")
    point_to_same(tmp_path / "p/models/base", tmp_path / "p/deeper/models/swirl")
    assert follow(tmp_path / "p/deeper/models/swirl") == (copy, False)
    point_to_same(copy, tmp_path / "q/swirl")
    pointer = read_pointer(tmp_path / "q/swirl")
    assert pointer is not None and pointer.model == "../../tiny-llama"
    assert follow(tmp_path / "q/swirl") == (copy, False)


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_code_that_comes_with_a_model_runs_only_when_asked(copy: Path, tmp_path: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    config |= {"model_type": "own", "architectures": ["OwnForCausalLM"], "auto_map": classes}
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (copy / "own.py").write_text(CODE, encoding="utf-8")
    write_pointer(tmp_path / "plain", str(copy))
    write_pointer(tmp_path / "trusted", str(copy), trust_remote_code=True)
    with pytest.raises(ModelError, match="(?s)holds no model that transformers can load: .*trust_remote_code"):
        load_model(tmp_path / "plain", "cpu", "eager")
    assert type(load_model(tmp_path / "trusted", "cpu", "eager")).__name__ == "OwnForCausalLM"
    (copy / "own.py").write_text(CODE + "print('changed')", encoding="utf-8")
    with pytest.raises(ModelError, match="own.py in .* is not what it was"):
        load_model(tmp_path / "trusted", "cpu", "eager")


# A local hub: it answers the four requests that huggingface_hub makes, and refuses as the real one does.


class Hub(BaseHTTPRequestHandler):
    folder: Path
    asked: list[str]

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        self.asked.append(path)
        name = next((n for n in ("gated", "tiny", "pickled") if f"/org/{n}" in path), "")
        if name == "gated":
            self._send(403 if self.headers.get("Authorization") else 401, b"{}", {"X-Error-Code": "GatedRepo"}, body)
        elif not name:
            self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
        elif path == f"/api/models/org/{name}/revision/main" or path.endswith(f"/revision/{COMMIT}"):
            self._send(200, json.dumps({"id": f"org/{name}", "sha": COMMIT, "siblings": []}).encode(), {}, body)
        elif "/revision/" in path:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
        elif "/tree/" in path:
            rows = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": etag(file)}
                for file in self._files(name)
            ]
            self._send(200, json.dumps(rows).encode(), {}, body)
        else:
            file = self.folder / path.rsplit("/", 1)[1]
            self._send(200, file.read_bytes(), {"ETag": f'"{etag(file)}"', "X-Repo-Commit": COMMIT}, body)

    def _files(self, name: str) -> list[Path]:
        files = sorted(path for path in self.folder.iterdir() if path.is_file())
        return [file for file in files if name != "pickled" or file.suffix != ".safetensors"]

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


def etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def hub(pretrained: Path) -> Iterator[str]:
    handler = type("Served", (Hub,), {"folder": pretrained, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def point(hub: str, cache: Path, wanted: dict[Path, tuple[str, str]], **environment: str) -> list[str]:
    """The refusal, or "", of each `write_pointer`, in a new process because the hub's address is read at import."""
    code = (
        "import json, sys; from pathlib import Path; from swirl.core.errors import ModelError\n"
        "from swirl.models.pointers import follow, write_pointer\n"
        "for folder, model, revision in json.loads(sys.argv[1]):\n"
        "    try:\n"
        "        place = write_pointer(Path(folder), model, revision)\n"
        "        assert follow(Path(folder)) == (place, False), place\n"
        "        print()\n"
        "    except ModelError as error: print(error)\n"
    )
    kept = {key: value for key, value in os.environ.items() if key not in ("HF_TOKEN", "HF_HUB_OFFLINE")}
    settings = {"HF_ENDPOINT": hub, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
    arguments = json.dumps([(str(folder), *model) for folder, model in wanted.items()])
    done = subprocess.run(
        [sys.executable, "-c", code, arguments],
        env={**kept, **settings, **environment, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "hf_secret" not in done.stdout + done.stderr
    return done.stdout.splitlines()


def test_a_hub_model_is_pinned_and_then_read_without_the_hub(hub: str, pretrained: Path, tmp_path: Path) -> None:
    assert point(hub, tmp_path / "cache", {tmp_path / "base": ("org/tiny", "")}) == [""]
    pointer = read_pointer(tmp_path / "base")
    assert pointer is not None and (pointer.model, pointer.revision) == ("org/tiny", COMMIT)
    weights = hashlib.sha256((pretrained / "model.safetensors").read_bytes()).hexdigest()
    assert pointer.files["model.safetensors"] == weights
    assert not any(name.endswith(".md") for name in pointer.files)
    again = {tmp_path / "again": ("org/tiny", COMMIT)}
    assert point("http://127.0.0.1:9", tmp_path / "cache", again, HF_HUB_OFFLINE="1") == [""]
    assert (tmp_path / "again/model.json").read_bytes() == (tmp_path / "base/model.json").read_bytes()


def test_the_first_commit_of_a_hub_model_is_locked_and_then_asked_for(hub: str, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from swirl.models.pointers import write_locked_pointer as write\n"
        "root = Path(sys.argv[1]); write(root / sys.argv[2], 'org/tiny', '', False, root, root / 'lock.json')\n"
    )
    settings = {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
    lock = tmp_path / "lock.json"

    def write(folder: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **settings, **more}
        command = [sys.executable, "-c", code, str(tmp_path), folder]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)

    assert write("base").returncode == 0
    assert json.loads(lock.read_text()) == {"org/tiny": COMMIT}
    assert write("again", HF_HUB_OFFLINE="1").returncode == 0  # the commit is known, so the cache is enough
    lock.write_text(json.dumps({"org/tiny": "0" * 40}))
    assert "org/tiny" in write("other").stderr  # asks for a commit that the hub does not have
    assert not (tmp_path / "other").exists()
    lock.write_text("[1]")
    assert "is no JSON object of model: commit" in write("broken").stderr


GATED = "org/gated is gated: accept its licence at https://huggingface.co/org/gated, and set HF_TOKEN"
AWAY = "org/tiny at main is not whole in the cache and could not be downloaded ("


@pytest.mark.parametrize(
    ("environment", "refusals"),
    [
        (
            {},
            {
                "org/gated": GATED,
                "org/none": "the hub has no model org/none, or it is private: check the name, or set HF_TOKEN",
                "org/tiny@v7": "org/tiny has no revision 'v7' on the hub",
                "org/pickled": "org/pickled has no safetensors weights, and pickled ones (.bin, .pt) are not read",
            },
        ),
        ({"HF_TOKEN": "hf_secret"}, {"org/gated": GATED}),
        ({"HF_HUB_OFFLINE": "1"}, {"org/tiny": AWAY}),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, {"org/tiny": AWAY}),
    ],
    ids=["refused", "token", "offline", "unreachable"],
)
def test_what_the_hub_refuses_says_what_to_do(
    environment: dict[str, str], refusals: dict[str, str], hub: str, tmp_path: Path
) -> None:
    wanted = {tmp_path / str(i): (name.partition("@")[0], name.partition("@")[2]) for i, name in enumerate(refusals)}
    said = point(hub, tmp_path / "cache", wanted, **environment)
    for line, begins in zip(said, refusals.values(), strict=True):
        assert line.startswith(begins)
    assert not any(folder.exists() for folder in wanted)
