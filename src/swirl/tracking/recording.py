"""Turns a stage's files into operations in a journal. Knows nothing of MLflow, and needs no server."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from swirl.config.secrets import without_credentials
from swirl.core.layout import Layout
from swirl.core.records import load_json
from swirl.pipeline.dvc_file import DvcStage, dvc_hash, read_stages, upstream
from swirl.tracking.contents import flat, numbers, read_contents
from swirl.tracking.inputs import datasets, dependencies, dependency_tags, lock_hash, source_tags
from swirl.tracking.ledger import Ledger, open_ledger
from swirl.tracking.operations import (
    PARENT_RUN,
    Child,
    Close,
    End,
    File,
    Inputs,
    Log,
    Note,
    OneTrace,
    Operation,
    Parent,
    Promote,
    Settle,
    Text,
)
from swirl.tracking.outbox import Journal
from swirl.tracking.samples import read_samples, sampled_tokens, table_of, trace_of
from swirl.tracking.settings import read_settings
from swirl.tracking.summary import NOTE, about, changes, headline, results_text, run_name

CLOCK_TICK = 0.05
"""Seconds by which a file's modification time may lag behind the clock."""
TABLE = "samples/trajectories.json"


@dataclass(frozen=True, slots=True)
class StageRun:
    """The child run of a stage that is under way."""

    record: str
    stage: DvcStage
    started: float
    """Unix time."""
    made: str
    """The record of this invocation's `synthesize` run, which made what `judge` judges; empty when not known."""


class Recorder:
    """Writes what happens in one project to a journal."""

    def __init__(self, layout: Layout, params: dict[str, Any], journal: Journal) -> None:
        """`params` are nested plain values without secrets."""
        self.layout = layout
        self.params = params
        self.settings = read_settings(params)
        self.journal = journal
        self.stages = read_stages(layout.root, params)

    def open_parent(self, source: str, key: str, tags: Mapping[str, str], name: str = "") -> None:
        """Record a new parent run, to be found by `key`; without a `name` it is called by what changed."""
        with open_ledger(self.layout, time.time(), key) as ledger:
            self.journal.add(self._parent(ledger, source, name), Log(PARENT_RUN, tags=dict(tags)))

    def close_parent(self, run_id: str, error: str, killed: bool = False) -> None:
        """Record that the pipeline has ended, with `error` if it failed or was `killed`."""
        with open_ledger(self.layout, time.time(), run_id) as ledger:
            parent = self._parent(ledger, "pipeline")
        tags = {**lock_hash(self.layout), **({"error": without_credentials(error)} if error else {})}
        self.journal.add(parent, Log(PARENT_RUN, tags=tags), Close(bool(error), time.time(), killed))

    def log_cached(self, run_id: str, names: Collection[str]) -> None:
        """Record that stages (DVC names) did not have to run in this invocation."""
        with open_ledger(self.layout, time.time(), run_id) as ledger:
            self.journal.add(self._parent(ledger, "pipeline"))
            self._add_cached(ledger, names, ran=bool(ledger.stages))
        if "report" in ledger.cached and "report" in names:
            self._add_results()
            self._add_promotion()

    def start_stage(self, stage_id: str, started: float) -> StageRun:
        """Record the parent run, the cached stages that this one depends on, and the start of the stage's own run."""
        name = stage_id.replace("-", "@", 1)
        stage = self.stages.get(name, DvcStage(name, (), (), ()))
        with open_ledger(self.layout, started) as ledger:
            self.journal.add(self._parent(ledger, f"stage {stage_id}" if ledger.alone else "dvc repro"))
            if not ledger.alone and name in self.stages:
                self._add_cached(ledger, upstream(name, self.stages), ran=True)
            run = StageRun(uuid.uuid4().hex, stage, started, ledger.stages.get("synthesize", ""))
            ledger.stages[name] = run.record
        self.journal.add(*self._begin(run.record, stage, started, cached=False, locked=not ledger.alone))
        return run

    def end_stage(self, run: StageRun, end: dict[str, str], live: int) -> None:
        """Record what the stage wrote and how it ended; of its curves, only what follows step `live`."""
        error = end["error"]
        try:
            if end["status"] == "FINISHED":
                self._add_timing(run)
                self._add_files(run.record, run.stage, live=live, max_mb=self.settings.max_model_mb)
                self._add_samples(run)
            else:  # older files are not the work of this attempt, and an unfinished model is not worth a copy
                self._add_files(run.record, run.stage, since=run.started - CLOCK_TICK, live=live)
        finally:
            now = time.time()
            if error:
                self.journal.add(Log(run.record, tags={"error": without_credentials(error)}))
            self.journal.add(End(run.record, end["status"], now), Log(PARENT_RUN, tags=lock_hash(self.layout)))
            self.journal.add(
                Settle(end["status"], now, without_credentials(f"{run.stage.name}: {error}") if error else "")
            )
        if run.stage.name == "report" and end["status"] == "FINISHED":
            self._add_results()
            self._add_promotion()

    def _add_results(self) -> None:
        """Record in the parent run what the report says: its metrics, its table and its page."""
        now = int(time.time() * 1000)
        if self.layout.results.exists():
            found = headline(self.layout)
            self.journal.add(Log(PARENT_RUN, [(name, value, now, 0) for name, value in found.items()]))
            self.journal.add(Note("Results", results_text(self.layout)))
        if self.layout.page.exists():
            self.journal.add(File(PARENT_RUN, str(self.layout.page.resolve()), "report"))

    def _add_promotion(self) -> None:
        """Record that the tuned model, if there is one, is to be registered."""
        if self.layout.model("swirl").is_dir():
            self.journal.add(Promote(dvc_hash(self.layout.model("swirl"))))

    def _parent(self, ledger: Ledger, source: str, name: str = "") -> Parent:
        changed = changes(self.layout.root, self.params)
        if not name:
            name = source if changed is None else run_name(changed)
            name = f"{source}: {name}" if ledger.alone and changed is not None else name
        tags = {**source_tags(self.layout.root, source), **lock_hash(self.layout), NOTE: about(source, changed)}
        return Parent(ledger.given, ledger.key, name, ledger.started, tags, flat(self.params))

    def _add_cached(self, ledger: Ledger, names: Collection[str], ran: bool) -> None:
        """Record in the parent's tag `cached_stages` which stages were up to date, unless they lack an output.

        Where other stages `ran`, evaluations that were up to date get runs, too, from their files and tagged `cached`:
        they are what models are compared by.
        """
        known = {*ledger.stages, *ledger.cached}
        new = [
            stage
            for stage in self.stages.values()
            if stage.name in names and stage.name not in known and stage.outs
            if all((self.layout.root / out).exists() for out in stage.outs)
        ]
        if not new:
            return
        ledger.cached = [name for name in self.stages if name in ledger.cached or self.stages[name] in new]
        listed = ", ".join(ledger.cached)
        why = f"Not run again: {listed}." if ran else f"Nothing had to run: {listed}. The results are those of before."
        self.journal.add(Log(PARENT_RUN, tags={"cached_stages": listed}), Note("Up to date", why))
        for stage in new if ran else ():
            if stage.name.startswith("evaluate"):
                record = uuid.uuid4().hex
                self.journal.add(*self._begin(record, stage, time.time(), cached=True, locked=True))
                self._add_files(record, stage)
                self.journal.add(End(record, "FINISHED", time.time()))

    def _begin(self, record: str, stage: DvcStage, started: float, cached: bool, locked: bool) -> Iterator[Operation]:
        hashes = dependencies(stage, self.layout, locked)
        name, _, item = stage.name.partition("@")
        command = f"swirl stage {name}{f' --item {item}' if item else ''}"
        tags = {"stage": stage.name, "cached": str(cached).lower(), **({"item": item} if item else {})}
        tags |= {**source_tags(self.layout.root, command), **lock_hash(self.layout), **dependency_tags(hashes)}
        tags |= {NOTE: stage.desc} if stage.desc else {}
        yield Child(record, stage.name, started, tags, flat(self.params, stage.params))
        if hashes:
            lines = [f"{value}  {path}" for path, value in sorted(hashes.items())]
            yield Text(record, "dvc/deps.md5", "\n".join(lines) + "\n")
        if tables := datasets(stage, self.layout, hashes):
            yield Inputs(record, tables)

    def _add_files(self, record: str, stage: DvcStage, since: float = 0, live: int = -1, max_mb: float = -1) -> None:
        contents = read_contents(stage, self.layout, since, max_mb)
        now = int(time.time() * 1000)
        curves, last = {name for name, _, _ in contents.series}, int(contents.metrics.get("train/step", 0))
        points = [(name, value, now, last if name in curves else 0) for name, value in contents.metrics.items()]
        points += [(name, value, now, step) for name, value, step in contents.series if step > live]
        self.journal.add(Log(record, points, contents.tags))
        self.journal.add(*(File(record, str(path.resolve()), folder) for path, folder in contents.artifacts))
        self.journal.add(*(Text(record, name, text) for name, text in contents.texts))

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
        self.journal.add(Log(run.record, [(name, value, now, 0) for name, value in measured.items()], tags))

    def _sampled(self, stage: DvcStage) -> int:
        """The number of action tokens in the trajectories that a stage sampled."""
        paths = {"synthesize": self.layout.trajectories, "evaluate": self.layout.prediction_trajectories(stage.item)}
        path = paths.get(stage.name.partition("@")[0])
        return sampled_tokens(path) if path and path.exists() else 0

    def _add_samples(self, run: StageRun) -> None:
        samples = read_samples(run.stage.name, self.layout, self.settings.traces)
        if not samples:
            return
        self.journal.add(Text(run.record, TABLE, table_of(samples)))
        made = run.made if run.stage.name == "judge" else ""
        for sample in samples:
            trace = trace_of(sample, run.stage.name, run.record, run.started)
            self.journal.add(OneTrace(run.record, made, trace))
