"""A base taught by an adapter and a policy tuned by another one, as adapters on a GGUF file or beside their base."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from swirl.cli import models as naming
from swirl.cli.show import show_model
from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core.errors import ModelError, ParamsError
from swirl.core.layout import Layout
from swirl.models import adapters
from swirl.models.loading import Dtype, load_chat, load_model, load_tokenizer, save
from swirl.models.pointers import write_pointer
from swirl.pretraining import cold_start_base
from swirl.serving.standalone import Exported, export_adapter
from swirl.serving.whole import export_merged
from tests import asked, gguf_writer
from tests.families import smollm2

IDS = torch.tensor([[1, 90, 17, 201, 350, 4, 2, 66]])
GGUF = "data/weights/tiny.gguf"
PER_RANK = 2 * (64 + 48 + 48 + 64 + 96 + 96 + 96)
"""Numbers of an adapter of rank 1: two layers; in + out of q, k, v, o, gate, up and down at hidden size 32."""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A cache of converted GGUF files that begins empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_ASSETS_CACHE", str(tmp_path_factory.mktemp("assets")))
        yield


def moved(model: Any, rank: int, targets: Sequence[str], seed: int) -> Any:
    """The model with an adapter that changes something; its alpha is twice the rank."""
    adapters.add(model, rank, 2 * rank, targets, seed)
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            weight.data.normal_(0, 0.05)
    return model


def tuned(layout: Layout, targets: Sequence[str]) -> None:
    """models/swirl: an adapter of rank 3 on the weights in models/base."""
    base = layout.model("base")
    model = moved(load_model(base, "cpu", "eager"), 3, targets, seed=2)
    save(model, load_tokenizer(base), layout.model("swirl"), base, layout.root)


def project(root: Path, gguf: str = GGUF) -> Layout:
    """A project whose models/base was taught by an adapter of rank 2, as `cold_start` saves it, and models/swirl."""
    layout = asked.project(root, runtime={"dtype": "float32", "context": 400})
    shutil.rmtree(layout.model("swirl"))
    gguf_writer.write(root / gguf, gguf_writer.model(len(smollm2())))
    base = layout.model("base")
    write_pointer(base, gguf, root=root)
    taught = moved(load_model(base, "cpu", "eager"), 2, ["all-linear"], seed=1)
    cold_start_base._save(taught, load_tokenizer(base), layout, "float32")
    tuned(layout, ["all-linear"])
    return layout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """That project. Not to be changed."""
    return project(tmp_path_factory.mktemp("made") / "project")


@pytest.fixture
def layout(made: Layout, tmp_path: Path) -> Layout:
    """A copy of it in another place."""
    return asked.copy(made, tmp_path / "elsewhere/project")


def export(
    layout: Layout,
    name: str,
    dtype: Dtype | None = "float32",
    params: Params | None = None,
    beside: bool | None = False,
) -> Exported:
    folder = layout.root / "examples/tiny" / name
    return export_adapter(layout.model(name), folder, params or asked.params_of(layout), layout, dtype, beside)


def logprobs(folder: Path, dtype: Dtype = "float32") -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(load_model(folder, "cpu", "eager", dtype)(input_ids=IDS).logits.float(), -1)


@pytest.mark.parametrize("targets", [["all-linear"], ["q_proj", "down_proj"]], ids=str)
def test_what_is_exported_is_the_model_on_weights_that_others_have(targets: list[str], layout: Layout) -> None:
    tuned(layout, targets)
    wanted = {name: logprobs(layout.model(name)) for name in ("base", "swirl")}
    for name in wanted:
        export(layout, name)
    shutil.rmtree(layout.root / "models")
    got = {name: logprobs(layout.root / "examples/tiny" / name) for name in wanted}
    for name in wanted:
        torch.testing.assert_close(got[name], wanted[name], rtol=1e-5, atol=1e-5)
    assert float((wanted["swirl"] - wanted["base"]).abs().max()) > 0.1
    write_pointer(layout.root / "untaught", GGUF, root=layout.root)
    assert float((wanted["base"] - logprobs(layout.root / "untaught")).abs().max()) > 0.1
    chat = load_chat(layout.root / "examples/tiny/swirl")
    assert chat.encode("12  x 345") == tuple(smollm2()("12  x 345")["input_ids"])


def test_the_size_is_that_of_the_ranks_together_in_bfloat16(layout: Layout) -> None:
    for name, rank in (("base", 2), ("swirl", 2 + 3)):
        exported = export(layout, name, "bfloat16")
        path = layout.root / "examples/tiny" / name / "adapter_model.safetensors"
        content = path.read_bytes()
        assert exported == Exported(rank, rank * PER_RANK, len(content), "bfloat16", GGUF)
        assert len(content) - 8 - int.from_bytes(content[:8], "little") == 2 * rank * PER_RANK
        assert {value.dtype for value in load_file(path).values()} == {torch.bfloat16}
        exact, rounded = logprobs(layout.model(name)), logprobs(path.parent)
        assert 0 < float((exact - rounded).abs().max()) < 0.05


def test_the_folder_is_peft_s_with_a_pointer_and_no_path_of_a_machine(layout: Layout) -> None:
    export(layout, "swirl")
    folder = layout.root / "examples/tiny/swirl"
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    texts = {f"prompts/{name}.txt" for name in ("search", "calculate", "closed_book")}
    own = {"adapter_config.json", "adapter_model.safetensors", "model.json", "swirl.yaml", "README.md"}
    assert files.keys() == own | texts
    assert json.loads(files["model.json"]) == {
        "source": "pretrained",
        "model": "../../../data/weights/tiny.gguf",
        "revision": "",
        "files": {"tiny.gguf": hashlib.sha256((layout.root / GGUF).read_bytes()).hexdigest()},
        "trust_remote_code": False,
    }
    config = json.loads(files["adapter_config.json"])
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (5, 5, f"./{GGUF}")
    for name, content in files.items():
        assert b"/tmp" not in content and str(layout.root).encode() not in content, name
    export(layout, "swirl")
    assert {name: (folder / name).read_bytes() for name in files} == files, "the same again"

    from peft import PeftModel

    write_pointer(layout.root / "untaught", GGUF, root=layout.root)
    theirs = PeftModel.from_pretrained(load_model(layout.root / "untaught", "cpu", "eager"), str(folder))
    with torch.no_grad():
        found = torch.log_softmax(theirs(input_ids=IDS).logits, -1)
    torch.testing.assert_close(found, logprobs(layout.model("swirl")), rtol=1e-5, atol=1e-5)


def test_weights_that_lie_elsewhere_are_named_where_make_weights_puts_them(tmp_path: Path) -> None:
    layout = project(tmp_path / "project", "../elsewhere/tiny.gguf")
    said = r"adapter stands on .*/elsewhere/tiny.gguf, outside of the project, .* put a copy into data/weights"
    with pytest.raises(ModelError, match=said):
        export(layout, "swirl")
    (layout.root / "data/weights").mkdir()
    (layout.root / GGUF).write_bytes(b"another file")
    with pytest.raises(ModelError, match=said):
        export(layout, "swirl")
    (layout.root / GGUF).unlink()
    (layout.root / GGUF).symlink_to(tmp_path / "elsewhere/tiny.gguf")
    assert export(layout, "swirl").weights == GGUF
    named = json.loads((layout.root / "examples/tiny/swirl/model.json").read_text())["model"]
    assert named == "../../../data/weights/tiny.gguf"


def test_an_adapter_on_a_commit_of_the_hub_names_it(layout: Layout) -> None:
    commit = "0" * 40
    for name in ("base/adapter/model.json", "base/adapter/adapter_config.json"):
        path = layout.root / "models" / name
        tree = json.loads(path.read_text())
        path.write_text(json.dumps(tree | {"model": "org/tiny", "revision": commit} if "source" in tree else tree))
    assert export(layout, "swirl").weights == "org/tiny"
    card = (layout.root / "examples/tiny/swirl/README.md").read_text()
    assert "base_model: org/tiny\n" in card
    assert (
        f"vllm serve org/tiny --revision {commit} --enable-lora --max-lora-rank 8 --lora-modules swirl=swirl\n" in card
    )
    folder = layout.root / "examples/tiny/swirl"
    pointer, config = (json.loads((folder / name).read_text()) for name in ("model.json", "adapter_config.json"))
    assert (pointer["model"], pointer["revision"]) == ("org/tiny", commit)
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/tiny", commit)


def test_a_missing_file_says_make_weights(layout: Layout) -> None:
    export(layout, "base")
    folder = layout.root / "examples/tiny/base"
    assert "stands on   ./data/weights/tiny.gguf\n" in show_model(folder)
    (layout.root / GGUF).unlink()
    said = (
        f"{folder} stands on {layout.root.resolve() / GGUF}, which is not there; `make weights` puts "
        "SmolLM2-135M-Instruct into data/weights"
    )
    with pytest.raises(ModelError, match=re.escape(said)):
        naming.opener(folder, asked.params_of(layout), layout, {})
    assert "stands on   ./data/weights/tiny.gguf (not there: `make weights`)\n" in show_model(folder)


def test_show_prints_what_it_is_and_its_settings(layout: Layout) -> None:
    export(layout, "swirl")
    folder = layout.root / "examples/tiny/swirl"
    lines = show_model(folder).splitlines()
    assert lines[:2] == [f"model       {folder}", "adapter     LoRA of rank 5, 0.0 MB"]
    assert f"  tiny.gguf  SHA-256 {hashlib.sha256((layout.root / GGUF).read_bytes()).hexdigest()}" in lines
    assert "  max_action_tokens: 16" in lines
    with pytest.raises(ModelError, match="models/swirl is no exported model"):
        show_model(layout.model("swirl"))


def refusal(layout: Layout, name: str, params: Params | None = None) -> str:
    with pytest.raises((ModelError, ParamsError)) as caught:
        export(layout, name, params=params)
    assert not (layout.root / "examples").exists()
    return str(caught.value)


def test_a_model_without_an_adapter_is_refused(layout: Layout) -> None:
    advice = "teach the base by an adapter (base_model.source: cold_start with lora)"
    shutil.rmtree(layout.model("base") / "adapter")
    base, swirl = layout.model("base"), layout.model("swirl")
    assert refusal(layout, "base").startswith(f"{base} holds whole weights that were made here")
    said = refusal(layout, "swirl")
    assert said.startswith(f"{swirl} is an adapter on {base.resolve()}, which holds whole weights that were made here")
    assert advice in said
    shutil.rmtree(base)
    write_pointer(base, GGUF, root=layout.root)
    assert "base only points to weights, and nothing was taught here" in refusal(layout, "base")


def test_an_adapter_whose_sum_is_another_is_refused(layout: Layout) -> None:
    path = layout.model("swirl") / "adapter_config.json"
    plain = json.loads(path.read_text())
    for change, what in (
        ({"use_rslora": True}, "use_rslora"),
        ({"alpha_pattern": {"q_proj": 1}}, "alpha_pattern"),
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
    ):
        path.write_text(json.dumps(plain | change))
        assert refusal(layout, "swirl").endswith(
            f"is no plain LoRA adapter, of which a sum could be made: it has {what}"
        )
    path.write_text(json.dumps(plain))
    weights = layout.model("swirl") / "adapter_model.safetensors"
    save_file(load_file(weights) | {"x.lora_magnitude_vector": torch.ones(2)}, weights)
    assert refusal(layout, "swirl").endswith("it has x.lora_magnitude_vector")


def test_a_base_that_changed_under_the_adapter_is_refused(layout: Layout) -> None:
    weights = layout.model("base") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert "model.safetensors in " in refusal(layout, "swirl")


def test_where_it_may_go(layout: Layout, tmp_path: Path) -> None:
    params, swirl = asked.params_of(layout), layout.model("swirl")
    for folder, said in (
        (tmp_path / "out", "out is outside of the project, from which the path data/weights/tiny.gguf counts"),
        (layout.root / "words", "words holds something else than an exported model"),
        (swirl, "swirl holds something else than an exported model"),
    ):
        with pytest.raises(ModelError, match=said):
            export_adapter(swirl, folder, params, layout, "float32", beside=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_what_a_model_stands_on_is_not_overwritten(layout: Layout, form: str) -> None:
    """models/swirl, tuned on an earlier export, is exported to where that lies."""
    out, swirl = layout.root / "out", layout.model("swirl")

    def export_again() -> None:
        exporter: Any = export_adapter if form == "adapter" else export_merged
        exporter(swirl, out, asked.params_of(layout), layout, "float32")

    export_again()
    below = out / "base" if form == "adapter" else out
    model = moved(load_model(below, "cpu", "eager"), 3, ["all-linear"], seed=3)
    save(model, load_tokenizer(below), swirl, below, layout.root)
    wanted = logprobs(swirl)
    with pytest.raises(ModelError, match=f"swirl stands on {below.resolve()}, which the export would overwrite"):
        export_again()
    torch.testing.assert_close(logprobs(swirl), wanted)


def test_code_that_comes_with_a_model_runs_where_somebody_says_so(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(layout, "swirl", beside=True)
    folder, params = layout.root / "examples/tiny/swirl", asked.params_of(layout)
    pointer = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    (folder / "model.json").write_text(json.dumps({**pointer, "trust_remote_code": True}), encoding="utf-8")
    said = r"model.json says that Python code that comes with base is to run .*, set SWIRL_TRUST_REMOTE_CODE=1$"
    with pytest.raises(ModelError, match=said):
        naming.opener(folder, params, layout, {})
    above = layout.root / "elsewhere"
    write_pointer(above, "examples/tiny/swirl/base", root=layout.root)
    naming.check(above, layout)
    (layout.root / "examples/tiny/swirl/base/model.json").write_text(
        (folder / "model.json").read_text(), encoding="utf-8"
    )
    with pytest.raises(ModelError, match=said):
        naming.check(above, layout)
    monkeypatch.setenv("SWIRL_TRUST_REMOTE_CODE", "1")
    naming.check(folder, layout)
    monkeypatch.setenv("SWIRL_TRUST_REMOTE_CODE", "")
    shutil.copytree(folder, layout.root / "models/mine")  # what a stage of this project made
    naming.check(layout.root / "models/mine", layout)
    (layout.root / "models").rename(layout.root / "large")
    (layout.root / "models").symlink_to("large")
    naming.check(layout.root / "models/mine", layout)
    with pytest.raises(ModelError, match=said):
        naming.check(layout.root / "models/mine", None)


@pytest.mark.parametrize(
    ("name", "content"),
    [("adapter_model.safetensors", None), ("adapter_config.json", b"{}"), ("swirl.yaml", b"# caf\xe9")],
)
def test_show_says_what_a_broken_export_lacks(layout: Layout, name: str, content: bytes | None) -> None:
    export(layout, "swirl")
    file = layout.root / "examples/tiny/swirl" / name
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(ModelError, match="swirl is no whole export; one of its files is missing or broken: "):
        show_model(file.parent)


def test_settings_that_need_the_project_are_not_given_along(layout: Layout) -> None:
    export(layout, "swirl")
    tree = laid_over(asked.params_of(layout).model_dump(), {"tools": {"search_output_unit": "tokens"}})
    with pytest.warns(UserWarning, match="tools.search_output_unit = 'tokens': Input should be 'characters'"):
        export(layout, "swirl", params=validate(tree, "tests"))
    folder = layout.root / "examples/tiny/swirl"
    assert not (folder / "swirl.yaml").exists()
    assert (folder / "prompts/search.txt").exists()


@pytest.mark.parametrize("name", ["base", "swirl"])
def test_with_its_base_beside_it_peft_takes_the_folder_as_it_is(
    name: str, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its base was made of, a GGUF file or by an adapter of its own; the adapter is that which was trained."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    wanted = logprobs(layout.model(name))
    exported = export(layout, name, None, beside=None)
    rank = {"base": 2, "swirl": 3}[name]
    assert (exported.rank, exported.dtype, exported.weights) == (rank, "float32", f"examples/tiny/{name}/base")
    folder = layout.root / "examples/tiny" / name
    monkeypatch.chdir(tmp_path)
    with torch.no_grad():
        found = torch.log_softmax(AutoPeftModelForCausalLM.from_pretrained(folder)(input_ids=IDS).logits, -1)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    said = "12  x 345<|im_end|>"
    for place in (folder, folder / "base"):
        theirs: Any = AutoTokenizer.from_pretrained(place)
        assert theirs(said)["input_ids"] == smollm2()(said)["input_ids"]
        assert theirs.chat_template == smollm2().chat_template
    shutil.rmtree(layout.root / "models")
    shutil.rmtree(layout.root / "data")
    moved_to = layout.root / "elsewhere"
    shutil.move(folder, moved_to)
    torch.testing.assert_close(logprobs(moved_to), wanted, rtol=1e-5, atol=1e-5)


def test_whole_weights_that_were_made_here_go_beside_the_adapter(layout: Layout) -> None:
    shutil.rmtree(layout.model("base") / "adapter")
    wanted = logprobs(layout.model("swirl"))
    export(layout, "swirl", None, beside=None)
    shutil.rmtree(layout.root / "models")
    torch.testing.assert_close(logprobs(layout.root / "examples/tiny/swirl"), wanted, rtol=1e-5, atol=1e-5)


def test_numbers_that_bfloat16_holds_are_written_in_it(layout: Layout) -> None:
    path = layout.model("swirl") / "adapter_model.safetensors"
    save_file({name: value.bfloat16() for name, value in load_file(path).items()}, path)
    assert export(layout, "swirl", None, beside=True).dtype == "bfloat16"


def test_the_adapter_has_the_layout_that_vllm_documents(layout: Layout) -> None:
    """What vLLM's PEFTHelper and LoRAModel.from_local_checkpoint read, written out here; see docs/decisions.md."""
    export(layout, "swirl", None, beside=None)
    folder = layout.root / "examples/tiny/swirl"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["bias"], config["modules_to_save"]) == ("LORA", "none", None)
    assert (config["use_dora"], config["use_rslora"]) == (False, False)
    assert not config["rank_pattern"]
    assert not config["alpha_pattern"]
    assert isinstance(config["r"], int)
    assert isinstance(config["lora_alpha"], int)
    linear = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert config["target_modules"] == linear
    name = re.compile(
        r"base_model\.model\.model\.layers\.[01]\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)\.lora_[AB]\.weight"
    )
    tensors = load_file(folder / "adapter_model.safetensors")
    assert [key for key in tensors if not name.fullmatch(key)] == []
    assert len(tensors) == 2 * 2 * len(linear)
    ranks = {value.shape[0 if ".lora_A." in key else 1] for key, value in tensors.items()}
    assert ranks == {config["r"]} == {3}
    card = (folder / "README.md").read_text()
    assert "vllm serve swirl/base --enable-lora --max-lora-rank 8 --lora-modules swirl=swirl\n" in card
