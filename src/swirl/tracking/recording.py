"""Turns what happens in the pipeline, and what a stage's files say, into runs."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swirl.config.secrets import without_secret
from swirl.core.layout import Layout
from swirl.core.records import load_json
from swirl.mlflow_store.runs import LOCAL, NOTE, PARENT, Store, reason
from swirl.mlflow_store.settings import read_settings
from swirl.mlflow_store.stores import locked
from swirl.pipeline.dvc_file import DvcStage, dvc_hash, invocation, read_stages, upstream
from swirl.reporting import coverage, provenance
from swirl.reporting.provenance import Provenance
from swirl.traces.mlflow_traces import trace_of
from swirl.traces.samples import read_samples
from swirl.tracking.contents import flat, numbers, read_contents
from swirl.tracking.inputs import datasets, lock_hash, source_tags
from swirl.tracking.summary import about, changes, headline, run_name, traced

if TYPE_CHECKING:
    from mlflow.entities import Run

CLOCK_TICK = 0.05
"""Seconds by which a file's modification time may lag behind the clock."""
INVOCATION = "swirl.invocation"
"""The tag of a parent run by which the stages of one `dvc repro` find it."""
CLOSED = "swirl.closed"
"""The tag of a parent run whose flow has ended."""
COVERAGE = "coverage"
"""The tag of a parent run that says how much of the kept data each training saw: no comparison goes without it."""
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


class Recorder:
    """Records what happens in one project. Every method raises what `Store` raises."""

    def __init__(self, layout: Layout, params: dict[str, Any], store: Store) -> None:
        """`params` are nested plain values without secrets."""
        self.layout = layout
        self.params = params
        self.settings = read_settings(params)
        self.store = store
        self.stages = read_stages(layout.root, params)

    def open_parent(self, source: str, tags: Mapping[str, str], name: str = "", started: float = 0) -> str:
        """Create a parent run, and return its id; without a `name` it is called by what changed.

        `started` is in Unix time; 0: now.
        """
        changed = changes(self.layout.root, self.params)
        told = source if changed is None else run_name(changed)
        if changed is not None and source.startswith("stage "):  # by itself
            told = f"{source}: {told}"
        given = {**source_tags(self.layout, source), NOTE: about(source, changed), **tags}
        parent = self.store.create(name or told, started or time.time(), given)
        self.store.log(parent, params=flat(self.params))
        return parent

    def close_parent(self, run_id: str, error: str, killed: bool, cached: Collection[str]) -> str:
        """End the parent run, with `error` if the pipeline failed or was `killed`, and return its id.

        Runs below it that have not ended become killed. `cached` are the stages that did not have to run. On success,
        the tag `error` of an earlier try is removed.
        """
        with locked(self.layout, "recording"):
            parent, now = self._parent(run_id, "pipeline", time.time()), time.time()
            below = self.store.children(parent)
            if "report" in self._add_cached(parent, cached, ran=bool(below)):
                self._add_results(parent, provenance.found)
            for child in below:
                if child.info.status == "RUNNING":
                    self.store.end(child.info.run_id, "KILLED", now)
            self.store.log(parent, tags={CLOSED: "true", **lock_hash(self.layout)})
            self.store.log_error(self.store.client.get_run(parent), without_secret(error))
            self.store.end(parent, "KILLED" if killed else "FAILED" if error else "FINISHED", now)
        self._settle(parent)
        return parent

    def start_stage(self, stage_id: str, started: float) -> StageRun:
        """Record the parent run, the cached stages that this one depends on, and the start of the stage's own run."""
        name = stage_id.replace("-", "@", 1)
        stage = self.stages.get(name, DvcStage(name, (), (), ()))
        found = os.environ.get("SWIRL_RUN_ID", "") or invocation()
        with locked(self.layout, "recording"):
            parent = self._parent(found, "dvc repro" if found else f"stage {stage_id}", started)
            if found and name in self.stages:
                self._add_cached(parent, upstream(name, self.stages), ran=True)
        run_id = self._begin(parent, stage, started, cached=False)
        self._settle(parent)
        return StageRun(run_id, parent, stage, started)

    def end_stage(self, run: StageRun, end: Mapping[str, str], live: int) -> None:
        """Record what the stage wrote and how it ended; of its curves, only what follows step `live`."""
        error, well = without_secret(end["error"]), end["status"] == "FINISHED"
        try:
            if well:
                timing = self.layout.timing(run.stage.id)
                measured = numbers(load_json(timing)) if timing.exists() else {}
                if measured.get("started", 0.0) >= run.started - CLOCK_TICK:  # else an earlier attempt's
                    self._add_metrics(run.id, {name: measured[name] for name in measured if name != "started"})
                self._add_files(run.id, run.stage, live=live, max_mb=self.settings.max_model_mb)
                self._add_traces(run)
            else:  # older files are not the work of this attempt, and an unfinished model is not worth a copy
                self._add_files(run.id, run.stage, since=run.started - CLOCK_TICK, live=live)
            if well and run.stage.name == "report":
                self._add_results(run.parent, provenance.just_made)
        finally:
            self.store.log(run.id, tags={"error": error} if error else {})
            self.store.end(run.id, end["status"], time.time())
            self.store.log(run.parent, tags=lock_hash(self.layout))
            self._settle(run.parent)

    def _parent(self, named: str, source: str, started: float) -> str:
        """The id of the parent run that has `named` as its id or key, which is created if need be."""
        for key in ("attributes.run_id", f"tags.`{INVOCATION}`") if named else ():
            if run := self.store.find(key, named):
                return str(run.info.run_id)
        return self.open_parent(source, {INVOCATION: named} if named else {}, started=started)

    def _settle(self, parent: str) -> None:
        """List the runs below a parent in its description and, unless its flow has ended it, give it their state.

        That is the state of each stage's last try: while one runs it is running, and else killed or failed if one is.
        So it has ended whenever no stage runs: nobody knows which is the last.
        """
        with locked(self.layout, "recording"):
            lines: list[str] = []
            last: dict[str, Run] = {}
            for run in self.store.children(parent):
                last[run.data.tags.get("stage", run.info.run_id)] = run
                said = {"FAILED": " (failed)", "KILLED": " (killed)"}.get(run.info.status, "")
                said += " (up to date)" if run.data.tags.get("cached") == "true" else ""
                page = f"#/experiments/{self.store.experiment}/runs/{run.info.run_id}"
                lines.append(f"- [{run.info.run_name}]({page}){said}")
            top = self.store.client.get_run(parent)
            note = top.data.tags.get(NOTE, "").partition("\n\n### ")[0]
            if seen := top.data.tags.get(COVERAGE):
                note += f"\n\n### Data\n\n{seen}"
            if lines:
                note += "\n\n### Runs\n\n" + "\n".join(lines)
            if cached := top.data.tags.get("cached_stages"):
                why = "Not run again" if lines else "Nothing had to run; the results are those of before"
                note += f"\n\n### Up to date\n\n{why}: {cached}."
            self.store.log(parent, tags={NOTE: note})
            if CLOSED in top.data.tags:
                return
            errors = [f"{stage}: {run.data.tags['error']}" for stage, run in last.items() if "error" in run.data.tags]
            self.store.log_error(top, errors[0] if errors else "")
            states = {run.info.status for run in last.values()}
            state = next((one for one in ("RUNNING", "KILLED", "FAILED") if one in states), "FINISHED")
            self.store.end(parent, state, time.time())

    def _add_results(self, parent: str, origin: Callable[[Layout], Provenance]) -> None:
        """Record in the parent run what the report says: its metrics and its page, with what `origin` tells of them.

        The tuned model, if there is one, is to be registered.
        """
        if self.layout.results.exists():
            self._add_metrics(parent, headline(self.layout))
            seen = coverage.loaded(load_json(self.layout.results).get("coverage", {}))
            self.store.log(parent, tags={COVERAGE: coverage.sentence(seen)})
        if self.layout.page.exists():
            with tempfile.TemporaryDirectory(prefix="swirl-report-") as folder:
                path = Path(folder) / self.layout.page.name
                path.write_text(self._page(origin), encoding="utf-8")
                self.store.log_file(parent, path, "report")
        if self.layout.model("swirl").is_dir():
            self.store.log(parent, tags={TO_REGISTER: dvc_hash(self.layout.model("swirl"))})

    def _page(self, origin: Callable[[Layout], Provenance]) -> str:
        """The report's page, which stands alone in MLflow; as it is where its provenance cannot be told."""
        from swirl.reporting.page import alone

        page = self.layout.page.read_text(encoding="utf-8")
        try:
            return alone(page, origin(self.layout))
        except Exception as error:  # the page is worth having without it
            self.store.refused.append(f"the report's page does not say whose results it shows: {reason(error)}")
            return page

    def _add_cached(self, parent: str, names: Collection[str], ran: bool) -> list[str]:
        """Record in the parent's tag `cached_stages` which stages were up to date, unless they lack an output.

        Where other stages `ran`, evaluations that were up to date get runs, too, from their files and tagged `cached`:
        they are what models are compared by. Returns the names that were not recorded before.
        """
        tag = self.store.client.get_run(parent).data.tags.get("cached_stages", "")
        cached = tag.split(", ") if tag else []
        known = {*cached, *(run.data.tags.get("stage", "") for run in self.store.children(parent))}
        new = [
            stage
            for stage in self.stages.values()
            if stage.name in names and stage.name not in known and stage.outs
            if all((self.layout.root / out).exists() for out in stage.outs)
        ]
        if not new:
            return []
        cached = [name for name in self.stages if name in cached or self.stages[name] in new]
        self.store.log(parent, tags={"cached_stages": ", ".join(cached)})
        for stage in new if ran else ():
            if stage.name.startswith("evaluate"):
                run = self._begin(parent, stage, time.time(), cached=True)
                self._add_files(run, stage)
                self.store.end(run, "FINISHED", time.time())
        return [stage.name for stage in new]

    def _begin(self, parent: str, stage: DvcStage, started: float, cached: bool) -> str:
        """Create the run of a stage with what it was made from, and return its id."""
        facts = {"stage": stage.name, "item": stage.item, "cached": str(cached).lower(), NOTE: stage.desc}
        tags = {PARENT: parent, **{name: value for name, value in facts.items() if value}}
        tags |= source_tags(self.layout, f"swirl stage {stage.name.replace('@', ' --item ')}")
        inputs = datasets(stage, self.layout)  # before there is a run: a table may be unreadable
        run = self.store.create(stage.name, started, tags)
        self.store.log(run, params=flat(self.params, stage.params))
        self.store.log_inputs(run, inputs)
        return run

    def _add_metrics(self, run: str, metrics: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self.store.log(run, points=[(name, value, now, 0) for name, value in metrics.items()])

    def _add_traces(self, run: StageRun) -> None:
        """Log a sample of the stage's trajectories as traces, and say in the run's description how many they are."""
        name, experiment, logged = run.stage.name, self.store.experiment, 0
        samples = read_samples(name, self.layout, self.settings.traces)
        for sample in samples:
            logged += self.store.log_trace(trace_of(sample, name, run.id, experiment, run.started))
        if logged:
            note = f"{run.stage.desc}\n\n{traced(logged, samples[0].total)}"
            self.store.log(run.id, tags={NOTE: note.strip()})

    def _add_files(self, run: str, stage: DvcStage, since: float = 0, live: int = -1, max_mb: float = -1) -> None:
        contents = read_contents(stage, self.layout, since, max_mb)
        now = int(time.time() * 1000)
        curves, last = {name for name, _, _ in contents.series}, int(contents.metrics.get("train/step", 0))
        points = [(name, value, now, last if name in curves else 0) for name, value in contents.metrics.items()]
        points += [(name, value, now, step) for name, value, step in contents.series if step > live]
        self.store.log(run, points=points, tags=contents.tags)
        for path, folder in contents.artifacts:
            self.store.log_file(run, path.resolve(), folder)
