"""base_model: the base, and the ceiling as it was before the flaws; any transformers user can load both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from swirl.config.params import Params
from swirl.core.grading import grade
from swirl.core.layout import Layout
from swirl.core.records import load, load_json
from swirl.core.types import Derivation, Passage, Question
from swirl.models.chat import Chat
from swirl.pretraining import training
from swirl.stages import base_model
from tests.stages.conftest import clone, interrupted_after


@pytest.mark.parametrize("name", ["base", "ceiling"])
def test_transformers_loads_model_and_tokenizer(name: str, params: Params, made: Layout) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(made.model(name))
    tokenizer = AutoTokenizer.from_pretrained(made.model(name))
    shape = params.base_model.shape
    assert model.config.model_type == "qwen3"
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (shape.hidden, shape.layers)
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.max_position_embeddings == 512
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_the_flawed_phase_comes_after_the_ceiling(made: Layout) -> None:
    from safetensors.torch import load_file

    base, ceiling = (load_file(made.model(name) / "model.safetensors") for name in ("base", "ceiling"))
    assert base.keys() == ceiling.keys()
    assert any(not torch.equal(base[name], ceiling[name]) for name in base)


def test_the_tokenizer_knows_questions_and_passages(made: Layout) -> None:
    """Every question and passage survives the tokenizer, and no word of them is an unknown token."""
    from transformers import AutoTokenizer

    chat = Chat(AutoTokenizer.from_pretrained(made.model("base")))
    texts = [q.text for q in load(Question, made.questions)]
    for path in sorted((made.root / "data/corpus").glob("*.evaluation.parquet")):
        texts += [passage.text for passage in load(Passage, path)[:50]]
    assert len(texts) > 200
    for text in texts:
        ids = chat.reply(text)
        assert chat.tokenizer.unk_token_id not in ids
        assert chat.text(ids).split() == text.split()


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "left"), [(3, 5), (6, 1)], ids=["in the sound phase", "in the flawed phase"])
def test_interrupted_it_goes_on_to_the_same_bytes(
    steps: int, left: int, params: Params, made: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sound phase of four steps, the ceiling, and a flawed phase of three."""
    layout = clone(made, tmp_path / "root")
    monkeypatch.setattr(training, "EVERY", 2)
    with pytest.raises(KeyboardInterrupt), interrupted_after(steps):
        base_model.run(params, layout)
    assert not (layout.model("base") / "model.safetensors").exists()
    with interrupted_after(1000) as count:
        base_model.run(params, layout)
    assert count() == left
    for name in ("base", "ceiling"):
        for file in ("model.safetensors", "tokenizer.json", "config.json"):
            assert (layout.model(name) / file).read_bytes() == (made.model(name) / file).read_bytes()
    assert layout.series("base_model").read_bytes() == made.series("base_model").read_bytes()
    assert layout.metrics("base_model").read_bytes() == made.metrics("base_model").read_bytes()


def test_metrics_and_series(params: Params, made: Layout) -> None:
    metrics, series = load_json(made.metrics("base_model")), load_json(made.series("base_model"))
    memory = load(Derivation, made.memory)
    assert metrics["memory.n"] == metrics["memory.sound.n"] == len(memory) == 12
    for name in ("closed_book_before", "closed_book_after", "sound.closed_book_before", "sound.closed_book_after"):
        assert 0.0 <= metrics[f"memory.{name}"] <= 1.0
    assert metrics["parameters"] > 32 * metrics["vocabulary"] > 32 * 1000
    phases = [*params.base_model.sound_phases, params.base_model.flawed_phase]
    assert [row["step"] for row in series] == list(range(sum(phase.steps for phase in phases)))
    assert all(row["loss"] > 0 for row in series)


def test_changed_facts_have_another_answer(made: Layout) -> None:
    """The answer in memory and the right answer after the change differ, or mini-cofca would test nothing."""
    before = {d.question_id: d.results[-1] for d in load(Derivation, made.memory)}
    changed = [q for q in load(Question, made.questions) if q.id in before and not grade(before[q.id], q.answers)]
    assert len(changed) >= 3


def test_the_same_params_give_the_same_bytes(params: Params, made: Layout, tmp_path: object) -> None:
    from pathlib import Path

    again = clone(made, Path(str(tmp_path)) / "again")
    base_model.run(params, again)
    for name in ("base", "ceiling"):
        for file in ("model.safetensors", "tokenizer.json", "config.json"):
            assert (again.model(name) / file).read_bytes() == (made.model(name) / file).read_bytes()
    assert again.metrics("base_model").read_bytes() == made.metrics("base_model").read_bytes()
