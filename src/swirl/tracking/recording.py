"""Turns what happens in the pipeline, and what a stage's files say, into runs."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from swirl.config.secrets import without_credentials
from swirl.core.layout import Layout
from swirl.core.records import load_json
from swirl.mlflow_store.copying import LOCAL, MADE_IN
from swirl.mlflow_store.mlflow_runs import PARENT, Runs, dataset_inputs
from swirl.mlflow_store.settings import read_settings
from swirl.mlflow_store.stores import NOTE, locked
from swirl.pipeline.dvc_file import DvcStage, dvc_hash, invocation, read_stages, upstream
from swirl.traces.mlflow_traces import trace_info, trace_spans
from swirl.traces.samples import read_samples, sampled_tokens, table_of, trace_of
from swirl.tracking.contents import flat, numbers, read_contents
from swirl.tracking.inputs import datasets, dependencies, dependency_tags, lock_hash, source_tags
from swirl.tracking.summary import about, changes, headline, results_text, run_name

CLOCK_TICK = 0.05
"""Seconds by which a file's modification time may lag behind the clock."""
TABLE = "samples/trajectories.json"
INVOCATION = "swirl.invocation"
"""The tag of a parent run by which the stages of one `dvc repro` find it."""
CLOSED = "swirl.closed"
"""The tag of a parent run whose flow has ended."""
TO_REGISTER = f"{LOCAL}to_register"
"""The tag of a parent run whose tuned model is to be registered: DVC's hash of the model."""


@dataclass(frozen=True, slots=True)
class StageRun:
    """The run of a stage that is under way."""

    id: str
    parent: str
    """The id of the run above it."""
    stage: DvcStage
    started: float
    """Unix time."""
    made_in: str
    """The id of this invocation's `synthesize` run, which made what `judge` judges; empty when not known."""


class Recorder:
    """Records what happens in one project. Every method raises what `Runs` raises."""

    def __init__(self, layout: Layout, params: dict[str, Any], runs: Runs) -> None:
        """`params` are nested plain values without secrets."""
        self.layout = layout
        self.params = params
        self.settings = read_settings(params)
        self.runs = runs
        self.stages = read_stages(layout.root, params)

    def open_parent(self, source: str, tags: Mapping[str, str], name: str = "") -> str:
        """Create a parent run, and return its id; without a `name` it is called by what changed."""
        return self._create_parent(source, time.time(), tags, name)

    def close_parent(self, run_id: str, error: str, killed: bool = False) -> str:
        """End the parent run, with `error` if the pipeline failed or was `killed`, and return its id.

        Runs below it that have not ended become killed. On success, the tag `error` of an earlier try is removed.
        """
        parent, now = self._parent(run_id, "pipeline", time.time()), time.time()
        for child in self.runs.children(parent):
            if child.info.status == "RUNNING":
                self.runs.end(child.info.run_id, "KILLED", now)
        self._list_children(parent)
        self.runs.log(
            parent, tags={**lock_hash(self.layout), **({"error": without_credentials(error)} if error else {})}
        )
        if not error and "error" in self.runs.client.get_run(parent).data.tags:  # left by a stage that then succeeded
            self.runs.client.delete_tag(parent, "error")
        self.runs.end(parent, "KILLED" if killed else "FAILED" if error else "FINISHED", now)
        self.runs.log(parent, tags={CLOSED: "true"})
        return parent

    def log_cached(self, run_id: str, names: Collection[str]) -> str:
        """Record in the parent run that stages (DVC names) did not have to run, and return its id."""
        with locked(self.layout, "recording"):
            parent = self._parent(run_id, "pipeline", time.time())
            new = self._add_cached(parent, names, ran=bool(self.runs.children(parent)))
        if "report" in new:
            self._add_results(parent)
        return parent

    def start_stage(self, stage_id: str, started: float) -> StageRun:
        """Record the parent run, the cached stages that this one depends on, and the start of the stage's own run."""
        name = stage_id.replace("-", "@", 1)
        stage = self.stages.get(name, DvcStage(name, (), (), ()))
        named = os.environ.get("SWIRL_RUN_ID", "")
        found = named or invocation()
        with locked(self.layout, "recording"):
            parent = self._parent(found, "dvc repro" if found else f"stage {stage_id}", started, of_flow=bool(named))
            if found and name in self.stages:
                self._add_cached(parent, upstream(name, self.stages), ran=True)
        made = [run for run in self.runs.children(parent) if run.data.tags.get("stage") == "synthesize"]
        made_in = str(made[-1].info.run_id) if made and name == "judge" else ""
        run_id = self._begin(parent, stage, started, {MADE_IN: made_in} if made_in else {}, by_dvc=bool(found))
        return StageRun(run_id, parent, stage, started, made_in)

    def end_stage(self, run: StageRun, end: dict[str, str], live: int) -> None:
        """Record what the stage wrote and how it ended; of its curves, only what follows step `live`."""
        error, well = without_credentials(end["error"]), end["status"] == "FINISHED"
        try:
            if well:
                self._add_timing(run)
                self._add_files(run.id, run.stage, live=live, max_mb=self.settings.max_model_mb)
                self._add_samples(run)
            else:  # older files are not the work of this attempt, and an unfinished model is not worth a copy
                self._add_files(run.id, run.stage, since=run.started - CLOCK_TICK, live=live)
            if well and run.stage.name == "report":
                self._add_results(run.parent)
        finally:
            now = time.time()
            self.runs.log(run.id, tags={"error": error} if error else {})
            self.runs.end(run.id, end["status"], now)
            self.runs.log(run.parent, tags=lock_hash(self.layout))
            self._settle(run.parent, end["status"], now, f"{run.stage.name}: {error}" if error else "")

    def _settle(self, parent: str, status: str, now: float, error: str) -> None:
        """End the parent, too: nobody knows which stage is the last, so the next one lets it run again.

        It stays running when the stage finished well and another one still runs. A parent that its flow has closed is
        left as it is.
        """
        self._list_children(parent)
        run = self.runs.client.get_run(parent)
        if CLOSED in run.data.tags:
            return
        if error:
            self.runs.log(parent, tags={"error": error})
        others = any(child.info.status == "RUNNING" for child in self.runs.children(parent))
        if status != "FINISHED" or (run.info.status == "RUNNING" and not others):
            self.runs.end(parent, status, now)

    def _parent(self, named: str, source: str, started: float, of_flow: bool = True) -> str:
        """The id of the parent run that has `named` as its id or key, which is created if need be.

        One that has finished is set to running again, and so is that of a flow (`of_flow`) that failed or was killed,
        because a flow may retry a stage. A run that its flow has closed is left as it is.
        """
        run = (self.runs.get(named) or self.runs.find(INVOCATION, named)) if named else None
        if run is None:
            return self._create_parent(source, started, {INVOCATION: named} if named else {}, alone=not named)
        over = ("FINISHED", "FAILED", "KILLED") if of_flow else ("FINISHED",)
        if run.info.status in over and CLOSED not in run.data.tags:
            self.runs.resume(run.info.run_id)
        return str(run.info.run_id)

    def _create_parent(
        self, source: str, started: float, tags: Mapping[str, str], name: str = "", alone: bool = False
    ) -> str:
        """Create a parent run; `alone`: of one stage that was started by itself."""
        changed = changes(self.layout.root, self.params)
        if not name:
            name = source if changed is None else run_name(changed)
            name = f"{source}: {name}" if alone and changed is not None else name
        given = {**source_tags(self.layout.root, source), **lock_hash(self.layout), NOTE: about(source, changed)}
        parent = self.runs.create(name, started, {**given, **tags})
        self.runs.log(parent, flat(self.params))
        return parent

    def _list_children(self, parent: str) -> None:
        """Link the runs below a parent in its description, in the order in which they began."""
        lines = []
        for run in self.runs.children(parent):
            said = {"FAILED": " (failed)", "KILLED": " (killed)"}.get(run.info.status, "")
            said += " (up to date)" if run.data.tags.get("cached") == "true" else ""
            page = f"#/experiments/{self.runs.store.experiment}/runs/{run.info.run_id}"
            lines.append(f"- [{run.info.run_name}]({page}){said}")
        if lines:
            self.runs.log_note(parent, "Runs", "\n".join(lines))

    def _add_results(self, parent: str) -> None:
        """Record in the parent run what the report says: its metrics, its table and its page.

        The tuned model, if there is one, is to be registered.
        """
        now = int(time.time() * 1000)
        if self.layout.results.exists():
            self.runs.log(parent, points=[(name, value, now, 0) for name, value in headline(self.layout).items()])
            self.runs.log_note(parent, "Results", results_text(self.layout))
        if self.layout.page.exists():
            self.runs.log_file(parent, self.layout.page.resolve(), "report")
        if self.layout.model("swirl").is_dir():
            self.runs.log(parent, tags={TO_REGISTER: dvc_hash(self.layout.model("swirl"))})

    def _add_cached(self, parent: str, names: Collection[str], ran: bool) -> list[str]:
        """Record in the parent's tag `cached_stages` which stages were up to date, unless they lack an output.

        Where other stages `ran`, evaluations that were up to date get runs, too, from their files and tagged `cached`:
        they are what models are compared by. Returns the names that were not recorded before.
        """
        tag = self.runs.client.get_run(parent).data.tags.get("cached_stages", "")
        cached = tag.split(", ") if tag else []
        known = {*cached, *(run.data.tags.get("stage", "") for run in self.runs.children(parent))}
        new = [
            stage
            for stage in self.stages.values()
            if stage.name in names and stage.name not in known and stage.outs
            if all((self.layout.root / out).exists() for out in stage.outs)
        ]
        if not new:
            return []
        cached = [name for name in self.stages if name in cached or self.stages[name] in new]
        listed = ", ".join(cached)
        why = f"Not run again: {listed}." if ran else f"Nothing had to run: {listed}. The results are those of before."
        self.runs.log(parent, tags={"cached_stages": listed})
        self.runs.log_note(parent, "Up to date", why)
        for stage in new if ran else ():
            if stage.name.startswith("evaluate"):
                run = self._begin(parent, stage, time.time(), {"cached": "true"}, by_dvc=True)
                self._add_files(run, stage)
                self.runs.end(run, "FINISHED", time.time())
        return [stage.name for stage in new]

    def _begin(self, parent: str, stage: DvcStage, started: float, more: Mapping[str, str], by_dvc: bool) -> str:
        """Create the run of a stage with what it was made from, and return its id; `by_dvc`: DVC runs it."""
        hashes = dependencies(stage, self.layout, locked=by_dvc)
        name, _, item = stage.name.partition("@")
        command = f"swirl stage {name}{f' --item {item}' if item else ''}"
        tags = {PARENT: parent, "stage": stage.name, "cached": "false", **({"item": item} if item else {}), **more}
        tags |= {**source_tags(self.layout.root, command), **lock_hash(self.layout), **dependency_tags(hashes)}
        tags |= {NOTE: stage.desc} if stage.desc else {}
        run = self.runs.create(stage.name, started, tags)
        self.runs.log(run, flat(self.params, stage.params))
        if hashes:
            lines = [f"{value}  {path}" for path, value in sorted(hashes.items())]
            self.runs.log_text(run, "dvc/deps.md5", "\n".join(lines) + "\n")
        self.runs.log_inputs(run, dataset_inputs(datasets(stage, self.layout, hashes)))
        return run

    def _add_files(self, run: str, stage: DvcStage, since: float = 0, live: int = -1, max_mb: float = -1) -> None:
        contents = read_contents(stage, self.layout, since, max_mb)
        now = int(time.time() * 1000)
        curves, last = {name for name, _, _ in contents.series}, int(contents.metrics.get("train/step", 0))
        points = [(name, value, now, last if name in curves else 0) for name, value in contents.metrics.items()]
        points += [(name, value, now, step) for name, value, step in contents.series if step > live]
        self.runs.log(run, points=points, tags=contents.tags)
        for path, folder in contents.artifacts:
            self.runs.log_file(run, path.resolve(), folder)
        for name, text in contents.texts:
            self.runs.log_text(run, name, text)

    def _add_timing(self, run: StageRun) -> None:
        path = self.layout.timing(run.stage.id)
        if not path.exists() or path.stat().st_mtime < run.started - CLOCK_TICK:
            return
        measured = {name: value for name, value in numbers(load_json(path)).items() if name != "started"}
        tags = {name: f"{value:.1f}" for name, value in measured.items()}
        made = self._sampled(run.stage)
        if made and measured.get("seconds"):
            measured["tokens_per_second"] = made / measured["seconds"]
        now = int(time.time() * 1000)
        self.runs.log(run.id, points=[(name, value, now, 0) for name, value in measured.items()], tags=tags)

    def _sampled(self, stage: DvcStage) -> int:
        """The number of action tokens in the trajectories that a stage sampled."""
        paths = {"synthesize": self.layout.trajectories, "evaluate": self.layout.prediction_trajectories(stage.item)}
        path = paths.get(stage.name.partition("@")[0])
        return sampled_tokens(path) if path and path.exists() else 0

    def _add_samples(self, run: StageRun) -> None:
        samples = read_samples(run.stage.name, self.layout, self.settings.traces)
        if not samples:
            return
        self.runs.log_text(run.id, TABLE, table_of(samples))
        for sample in samples:
            trace = trace_of(sample, run.stage.name, run.id, run.started)
            info = trace_info(trace, self.runs.store.experiment, run.id)
            self.runs.log_trace(info, trace_spans(trace), run.made_in)
