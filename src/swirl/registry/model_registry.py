"""The tuned policy in MLflow's registry: one version per set of weights, with the aliases `candidate` and `champion`.

`candidate` is the version of the latest run, `champion` the best so far. `champion` moves to the candidate when the
candidate answers more of the same evaluation questions correctly, by the paired test at p < 0.05; without a
champion the candidate must beat the base model. The outcomes of each version are stored with it for later
comparisons. The decision is recorded in tags of the version.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swirl.config import params as parameters
from swirl.core.errors import DataError, SwirlError
from swirl.core.layout import Layout
from swirl.core.records import load, load_json, save_json
from swirl.core.types import Prediction, Question
from swirl.evaluation.statistics import by_question, paired, paired_p
from swirl.mlflow_store.runs import FOR_GOOD, Store, paged, reason
from swirl.mlflow_store.stores import connected, everywhere, tracking_uri
from swirl.models.loading import is_adapter
from swirl.models.pointers import points_to_gguf
from swirl.models.skipped import why_skipped
from swirl.pipeline.dvc_file import dvc_hash
from swirl.serving import bundle

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

NAME = "swirl-policy"
CANDIDATE, CHAMPION = "candidate", "champion"
P_LIMIT = 0.05
"""A candidate that is better with a p-value below this replaces the champion."""

PROMOTED, KEPT, NOT_COMPARED = "promoted", "not promoted", "not compared"
"""Values of the tag `decision`."""

_WEIGHTS = "weights.sha256"
_OUTCOMES = "outcomes.json"
_PACKAGES = (
    *("mlflow", "torch", "transformers", "tokenizers", "safetensors", "accelerate", "huggingface-hub", "numpy"),
    *("sympy", "pyarrow", "pydantic", "ruamel.yaml", "bm25s", "openai"),
)
"""The packages that a registered agent needs to answer."""
_INSIDE = f"artifacts/{bundle.ARTIFACT}"
_NUMBERS = (
    "p_value",
    "n",
    "accuracy",
    "compared_with",
    "compared_with.accuracy",
    "only_this_right",
    "only_other_right",
)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How often a model answered each evaluation question correctly, with tools."""

    questions: str
    """SHA-256 (hex) of the questions: their ids, texts and accepted answers."""
    correct: Mapping[str, float]
    """By question id, the share of its samples that are right: 0 or 1 with one sample a question."""
    samples: float = 0.0
    """How many a question, on average; 0 where that was not stored."""

    @property
    def accuracy(self) -> float:
        """The mean over questions."""
        return sum(self.correct.values()) / len(self.correct)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        save_json({"questions": self.questions, "correct": dict(self.correct), "samples": self.samples}, path)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a candidate was promoted, and why."""

    version: str
    kind: str
    """`PROMOTED`, `KEPT` or `NOT_COMPARED`."""
    reason: str
    """A sentence."""
    numbers: Mapping[str, str]
    """The figures behind the decision, as tags by name; `p_value` is among them if a comparison was made."""


def promote(store: Store, layout: Layout, run_id: str) -> Decision | None:
    """Register the tuned policy of run `run_id`, and make it the champion if it beats the current one.

    Weights that are registered already get no second version: their version becomes the candidate again, and is
    compared only if it could not be compared before, or if there is no champion any more. Returns None for a project
    without a tuned and evaluated policy. Raises what MLflow raises, after which it can be called again, and
    `SwirlError` when the policy cannot be bundled.
    """
    model, ours = layout.model(bundle.MODEL), read_outcomes(layout, bundle.MODEL)
    if ours is None or not model.is_dir() or why_skipped(model):
        return None
    client, digest = store.client, bundle.weights_digest(model)
    version = _version_of(client, digest)
    known = version is not None
    if version is None:
        version = _register(store, layout, run_id, ours, digest)
    number = str(version.version)  # an int from sqlite, a str from a server
    client.set_registered_model_alias(NAME, CANDIDATE, number)
    champion = str(client.get_registered_model(NAME).aliases.get(CHAMPION, ""))
    decision = _decided(version, champion)
    if decision is None:
        decision = _decide(client, layout, version, champion, _stored(client, number) if known else ours)
        _carry_out(client, version, decision)
    for key, value in {"decision": decision.kind, **_reasons(decision)}.items():
        client.set_tag(run_id, f"registry.{key}", value)
    client.set_tag(run_id, "registry.version", f"{NAME}/{number}")
    return decision


def promote_wanted(store: Store, layout: Layout, run_id: str, wanted: str) -> str:
    """`promote` the tuned policy if it is still the one with DVC's hash `wanted`; else, or if that cannot be, say why.

    Raises what MLflow raises when it may succeed at another time.
    """
    from mlflow.exceptions import MlflowException

    model = layout.model(bundle.MODEL)
    if not model.is_dir() or dvc_hash(model) != wanted:
        return f"models/{bundle.MODEL} is of another run by now; it is not registered for this one"
    try:
        promote(store, layout, run_id)
    except (SwirlError, MlflowException) as error:
        if isinstance(error, MlflowException) and error.error_code not in FOR_GOOD:
            raise
        return f"the tuned model is not registered: {reason(error)}"
    return ""


def _reasons(decision: Decision) -> dict[str, str]:
    return {"decision.reason": decision.reason, **decision.numbers}


def _carry_out(client: MlflowClient, version: ModelVersion, decision: Decision) -> None:
    """Write a decision to its version: the reasons, then the alias, and last the tag `decision`, which completes it."""
    reasons = _reasons(decision)
    for key in version.tags.keys() & {"decision", "decision.reason", *_NUMBERS} - reasons.keys():
        client.delete_model_version_tag(NAME, decision.version, key)
    for key, value in reasons.items():
        client.set_model_version_tag(NAME, decision.version, key, value)
    if decision.kind == PROMOTED:
        client.set_registered_model_alias(NAME, CHAMPION, decision.version)
    client.set_model_version_tag(NAME, decision.version, "decision", decision.kind)


def fetch(uri: str, layout: Layout) -> Path:
    """The bundle of `models:/NAME@ALIAS` or `models:/NAME/VERSION`, as a copy that is removed when this process ends.

    Raises `DataError` when the registry has no such model or cannot be used, or the model contains no bundle.
    """
    match = re.fullmatch(r"models:/([^/@\s]+)(?:@([^/@\s]+)|/(\d+))", uri)
    if not match:
        raise DataError(f"{uri} names no registered model; write models:/{NAME}@{CHAMPION}, or models:/{NAME}/1")
    if not os.environ.get("MLFLOW_TRACKING_URI") and not (layout.root / "mlflow.db").exists():
        raise DataError(
            f"{layout.root / 'mlflow.db'} does not exist, so no model is registered; stage report registers one when "
            "it runs (`dvc repro`; `dvc repro -f -s report` where all is up to date), or set MLFLOW_TRACKING_URI to "
            "the server that has it"
        )
    client = connected(tracking_uri(layout), uri)
    from mlflow.exceptions import MlflowException

    name, alias, version = match.groups()
    try:
        version = str(client.get_model_version_by_alias(name, alias).version) if alias else version
        place = tempfile.mkdtemp(prefix="swirl-registry-")
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        return _download(client, name, version, _INSIDE, place)
    except (MlflowException, OSError) as error:
        raise DataError(f"{uri} cannot be had: {reason(error).rstrip('.')}{_instead(client, name)}") from None


def _instead(client: MlflowClient, name: str) -> str:
    """The aliases that exist, as the end of an error message; empty when there is no such model."""
    from mlflow.exceptions import MlflowException

    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException:
        return ""
    return f"; there are {', '.join(f'{name}@{alias} (version {of})' for alias, of in sorted(aliases.items()))}"


def read_outcomes(layout: Layout, model: str) -> Outcomes | None:
    """The outcomes of a model's evaluation in this project; None when it was not evaluated with tools."""
    path = layout.predictions(model)
    if not path.exists() or not layout.questions.exists():
        return None
    rows = [row for row in load(Prediction, path) if row.with_tools]
    correct = by_question(rows)
    asked = [[q.id, q.text, list(q.answers)] for q in load(Question, layout.questions) if q.id in correct]
    digest = hashlib.sha256(json.dumps(sorted(asked)).encode()).hexdigest()
    return Outcomes(digest, correct, len(rows) / len(correct)) if correct else None


def _decide(client: MlflowClient, layout: Layout, candidate: ModelVersion, champion: str, ours: Outcomes) -> Decision:
    """Compare a candidate with `champion` (a version) or, when that is empty, with the base model."""
    version = str(candidate.version)
    if champion == version:
        if "decision.reason" in candidate.tags and "decision" not in candidate.tags:  # `_carry_out` was cut short
            return _tagged(candidate, PROMOTED)
        return Decision(version, PROMOTED, "it is the champion already", {})
    bar = _stored(client, champion) if champion else read_outcomes(layout, "base")
    name = f"the champion, version {champion}" if champion else "the base model"
    if bar is None:
        return Decision(version, NOT_COMPARED, "there is no champion, and the base model was not evaluated", {})
    if bar.questions != ours.questions or bar.correct.keys() != ours.correct.keys():
        reason = f"{name} was evaluated on other questions; to begin anew with this one, take the alias {CHAMPION} away"
        return Decision(version, NOT_COMPARED, reason, {"compared_with": name})
    if bar.samples and ours.samples and bar.samples != ours.samples:
        reason = (
            f"{name} was evaluated with {bar.samples:g} answers a question, and this with {ours.samples:g}; to begin "
            f"anew with this one, take the alias {CHAMPION} away"
        )
        return Decision(version, NOT_COMPARED, reason, {"compared_with": name})
    bar_only, our_only = paired(bar.correct, ours.correct)
    p_value = paired_p(bar.correct, ours.correct)
    better = ours.accuracy > bar.accuracy and p_value < P_LIMIT
    numbers = {
        "p_value": f"{p_value:.6g}",
        "n": str(len(ours.correct)),
        "accuracy": f"{ours.accuracy:.6g}",
        "compared_with": name,
        "compared_with.accuracy": f"{bar.accuracy:.6g}",
        "only_this_right": str(our_only),
        "only_other_right": str(bar_only),
    }
    than = f"than {name}: {ours.accuracy:.1%} against {bar.accuracy:.1%} of {len(ours.correct)} questions"
    reason = f"{'better' if better else 'not significantly better'} {than}, p = {p_value:.3g}"
    return Decision(version, PROMOTED if better else KEPT, reason, numbers)


def _decided(version: ModelVersion, champion: str) -> Decision | None:
    """The earlier decision about a version; None when it was not compared yet, or when there is no champion now."""
    kind = version.tags.get("decision")
    return _tagged(version, kind) if champion and kind in (PROMOTED, KEPT) else None


def _tagged(version: ModelVersion, kind: str) -> Decision:
    """A decision of this kind, with the reason and the numbers in the tags of a version."""
    numbers = {key: version.tags[key] for key in _NUMBERS if key in version.tags}
    return Decision(str(version.version), kind, version.tags.get("decision.reason", ""), numbers)


def _version_of(client: MlflowClient, digest: str) -> ModelVersion | None:
    """The version that has these weights; None when there is none."""
    known = paged(lambda token: client.search_model_versions(f"name='{NAME}'", max_results=200, page_token=token))
    return next((version for version in known if version.tags.get(_WEIGHTS) == digest), None)


def _register(store: Store, layout: Layout, run_id: str, outcomes: Outcomes, digest: str) -> ModelVersion:
    """Log the bundle as a model of the run, and register that model as a new version."""
    from mlflow.entities import LoggedModelOutput

    client = store.client
    settings = parameters.load(layout.root / "params.yaml")
    with tempfile.TemporaryDirectory(prefix="swirl-agent-") as place:
        folder = Path(place) / bundle.ARTIFACT
        whole = bundle.write_bundle(folder, settings, layout, settings.tracking.max_model_mb)
        outcomes.save(folder / _OUTCOMES)
        made = client.create_logged_model(store.experiment, NAME, run_id, model_type="agent")
        try:
            needed = _requirements(settings, layout)
            with everywhere(client):
                _save(Path(place) / "model", folder, made, run_id, _example(layout), needed)
            client.log_model_artifacts(made.model_id, str(Path(place) / "model"))
        except BaseException:
            client.finalize_logged_model(made.model_id, "FAILED")
            raise
    client.finalize_logged_model(made.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    _ensure_registered_model(client)
    tags = {_WEIGHTS: digest, "contents": "whole" if whole else "points to folders outside, with their checksums"}
    # Without a server, MLflow would resolve a models:/ source in the current folder's store, not in the client's.
    source = f"models:/{made.model_id}" if client.tracking_uri.startswith("http") else made.artifact_location
    return client.create_model_version(NAME, source, run_id, tags, model_id=made.model_id)


def _ensure_registered_model(client: MlflowClient) -> None:
    """Create the model of which there are to be versions, unless it exists. Raises what MLflow raises."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(NAME)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        try:
            client.create_registered_model(NAME, description="The policy that step-wise RL tuned, with its tools.")
        except MlflowException as refused:
            if refused.error_code != "RESOURCE_ALREADY_EXISTS":  # another process has made it just now
                raise


def _save(
    path: Path, folder: Path, made: LoggedModel, run_id: str, example: Mapping[str, Any], requirements: list[str]
) -> None:
    """Save a bundle as an MLflow model; in doing so, MLflow has it answer `example`."""
    import mlflow
    from mlflow.models import Model

    source = Path(bundle.__file__).parent
    with _untraced():
        mlflow.pyfunc.save_model(
            str(path),
            python_model=str(source / "model.py"),
            artifacts={bundle.ARTIFACT: str(folder)},
            code_paths=[str(source.parent)],
            pip_requirements=requirements,
            input_example=dict(example),
            mlflow_model=Model(
                artifact_path=made.artifact_location, model_uuid=made.model_id, run_id=run_id, model_id=made.model_id
            ),
        )
    for cache in list(path.rglob("__pycache__")):
        shutil.rmtree(cache)


@contextlib.contextmanager
def _untraced() -> Iterator[None]:
    """Disable tracing: nobody asked for the answer to the example."""
    import mlflow

    mlflow.tracing.disable()
    try:
        yield
    finally:
        mlflow.tracing.enable()


def _example(layout: Layout) -> dict[str, Any]:
    """An example of a request: the first evaluation question."""
    first = next(question for question in load(Question, layout.questions) if question.split == "evaluation")
    return {
        "input": [{"role": "user", "content": first.text}],
        "custom_inputs": {"benchmark": first.benchmark},
    }


def _requirements(settings: parameters.Params, layout: Layout) -> list[str]:
    """The packages that this agent needs, pinned to the installed versions."""
    needed = list(_PACKAGES)
    if settings.index.retriever != "bm25":
        needed += ["sentence-transformers", "faiss-cpu"]
    if any(name.startswith("mcp:") for task in settings.tasks.values() for name in task.tools):
        needed.append("mcp")
    if is_adapter(layout.model(bundle.MODEL)):
        needed.append("peft")
    if points_to_gguf(layout.model(bundle.MODEL)):
        needed.append("gguf")
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in needed]


def _stored(client: MlflowClient, version: str) -> Outcomes:
    """The outcomes stored with a version. Raises what MLflow raises when there are none."""
    with tempfile.TemporaryDirectory(prefix="swirl-registry-") as place:
        found = load_json(_download(client, NAME, version, f"{_INSIDE}/{_OUTCOMES}", place))
    return Outcomes(found["questions"], found["correct"], found.get("samples", 0.0))


def _download(client: MlflowClient, name: str, version: str, path: str, place: str) -> Path:
    """A copy of a version's artifact, in the folder `place`.

    It is fetched by its storage address, because a models:/ URI would be resolved in the current folder's store, not in
    the client's.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow.artifacts import download_artifacts

    address = f"{client.get_model_version_download_uri(name, version).rstrip('/')}/{path}"
    return Path(download_artifacts(artifact_uri=address, dst_path=place, tracking_uri=client.tracking_uri))
