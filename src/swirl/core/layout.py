"""Where every stage reads and writes, relative to the project root (where dvc.yaml is)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

_STAGES = {
    "questions": "download",
    "corpus": "download",
    "index": "index",
    "heldout": "reward_model",
    "trajectories": "synthesize",
    "logged": "synthesize",
    "verdicts": "judge",
    "steps": "filter",
    "draws": "train",
    "predictions": "evaluate",
}
"""Folder of data/ -> the stage that writes it."""


def stage_of(path: Path) -> str:
    """The stage that writes this file of records; empty when it is in no folder of a project's data/."""
    pairs = pairwise(path.parent.parts)
    return next((_STAGES[inner] for outer, inner in pairs if outer == "data" and inner in _STAGES), "")


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of the data, models and reports of one project root."""

    root: Path

    @property
    def questions(self) -> Path:
        """All questions of all benchmarks and splits (`Question`)."""
        return self.root / "data/questions/questions.parquet"

    @property
    def derivations(self) -> Path:
        """Golden derivations of the embedded benchmarks and of GSM8K's annotated solutions (`Derivation`)."""
        return self.root / "data/questions/derivations.parquet"

    @property
    def memory(self) -> Path:
        """Derivations of mini-cofca's questions in the fixed pretraining world, before facts change (`Derivation`)."""
        return self.root / "data/questions/memory.parquet"

    @property
    def solutions(self) -> Path:
        """The written golden solutions of official files that contain them (`WrittenSolution`)."""
        return self.root / "data/questions/solutions.parquet"

    @property
    def annotations(self) -> Path:
        """The ways to the answers of the pretrain split that files give (`Annotation`); no file if there are none."""
        return self.root / "data/questions/annotations.parquet"

    @property
    def support(self) -> Path:
        """The supporting passages of each question, for benchmarks that name them (`Support`)."""
        return self.root / "data/questions/support.parquet"

    @property
    def conversations(self) -> Path:
        """The conversations of benchmarks that are logs (`Conversation`); no file if there are none."""
        return self.root / "data/questions/conversations.parquet"

    @property
    def imports(self) -> Path:
        """What importing logs found, changed and left out, by benchmark (JSON); no file if there are no logs."""
        return self.root / "data/questions/logs.json"

    @property
    def sources(self) -> Path:
        """The files that questions came from: sizes, checksums, how many rows were read and skipped (JSON)."""
        return self.root / "data/questions/sources.json"

    def corpus(self, benchmark: str, split: str) -> Path:
        """The passages that can be searched for questions of this benchmark and split (`Passage`)."""
        return self.root / f"data/corpus/{benchmark}.{split}.parquet"

    def index(self, benchmark: str, split: str) -> Path:
        """The search index of `corpus(benchmark, split)`."""
        return self.root / f"data/index/{benchmark}.{split}"

    def quality(self, what: str) -> Path:
        """The gate report of `questions`, `trajectories` or `steps`."""
        return self.root / f"reports/quality/{what}.json"

    def model(self, name: str) -> Path:
        """Folder of a model: base, ceiling, reward, sft or swirl."""
        return self.root / ("models/base/ceiling" if name == "ceiling" else f"models/{name}")

    @property
    def hub_lock(self) -> Path:
        """The commits of the hub's models that params.yaml names without a revision (JSON)."""
        return self.root / "models/hub.lock.json"

    @property
    def heldout(self) -> Path:
        """The steps that the reward model's errors are counted on; none for one that was not taught here."""
        return self.root / "data/heldout/steps.parquet"

    @property
    def trajectories(self) -> Path:
        """The synthesised trajectories (`Trajectory`)."""
        return self.root / "data/trajectories/trajectories.parquet"

    @property
    def logged(self) -> Path:
        """The logged trajectories of the development and the evaluation split (`Trajectory`); no row without logs."""
        return self.root / "data/logged/trajectories.parquet"

    @property
    def too_long(self) -> Path:
        """Where logged conversations end before their end, why, and how many steps that leaves out (JSON)."""
        return self.root / "data/logged/left_out.json"

    @property
    def trajectories_journal(self) -> Path:
        """Folder of the journal that synthesis resumes from; not a DVC output."""
        return self.root / ".swirl/journals/synthesize"

    @property
    def logged_journal(self) -> Path:
        """Folder of the journal of `logged`; not a DVC output."""
        return self.root / ".swirl/journals/synthesize-logged"

    @property
    def verdicts(self) -> Path:
        """One verdict on each step and each outcome of `trajectories` (`Verdict`)."""
        return self.root / "data/verdicts/verdicts.parquet"

    @property
    def steps(self) -> Path:
        """The sub-trajectories that the filter kept (`SubTrajectory`)."""
        return self.root / "data/steps/steps.parquet"

    def draws(self, item: str) -> Path:
        """A sample of the states of every update with the actions drawn there (`Draw`); empty for `sft`."""
        return self.root / f"data/draws/{item}.parquet"

    def predictions(self, model: str) -> Path:
        """One row per evaluated trajectory, with and without tools (`Prediction`)."""
        return self.root / f"data/predictions/{model}/predictions.parquet"

    def prediction_trajectories(self, model: str) -> Path:
        """The trajectories with tools behind `predictions(model)` (`Trajectory`)."""
        return self.root / f"data/predictions/{model}/trajectories.parquet"

    def prediction_verdicts(self, model: str) -> Path:
        """The judge's verdict on every step of `prediction_trajectories(model)` (`Verdict`)."""
        return self.root / f"data/predictions/{model}/verdicts.parquet"

    def state_actions(self, model: str) -> Path:
        """What the model does in the states of logged conversations (`StateAction`); no file if there are none."""
        return self.root / f"data/predictions/{model}/state_actions.parquet"

    def evaluation(self, model: str) -> Path:
        """The `Score`s of one model, without `p_vs_base`, as a JSON list."""
        return self.root / f"reports/evaluation/{model}.json"

    def evaluation_journal(self, model: str, with_tools: bool, verdicts: bool = False) -> Path:
        """Folder of the journal of a model's rollouts, or of the verdicts on them; not a DVC output."""
        parts = ["evaluate", model, *([] if with_tools else ["without-tools"]), *(["verdicts"] if verdicts else [])]
        return self.root / f".swirl/journals/{'-'.join(parts)}"

    def state_actions_journal(self, model: str) -> Path:
        """Folder of the journal of `state_actions(model)`; not a DVC output."""
        return self.root / f".swirl/journals/evaluate-{model}-states"

    def metrics(self, stage: str) -> Path:
        """A stage's final metrics as flat JSON; `stage` is `train-swirl` for `train@swirl`."""
        return self.root / f"reports/metrics/{stage}.json"

    def series(self, stage: str) -> Path:
        """A stage's metrics by step: a JSON list of flat objects, each with `step`."""
        return self.root / f"reports/series/{stage}.json"

    @property
    def filters(self) -> Path:
        """How much each of the four filter strategies keeps, as counts (JSON)."""
        return self.root / "reports/filters.json"

    @property
    def results(self) -> Path:
        """The paper's tables with this run's numbers (JSON)."""
        return self.root / "reports/results.json"

    @property
    def page(self) -> Path:
        """The report as one page that needs no network."""
        return self.root / "reports/index.html"

    @property
    def plots(self) -> Path:
        """Folder of the report's pictures as PNG files."""
        return self.root / "reports/plots"

    def pace(self, stage: str) -> Path:
        """Seconds, tokens and FLOPs of each update of a training stage's last run; no DVC output."""
        return self.root / f".swirl/timings/{stage}.updates.jsonl"

    def timing(self, stage: str) -> Path:
        """Seconds and peak memory of a stage's last run; differs between runs, so no DVC output."""
        return self.root / f".swirl/timings/{stage}.json"
