"""Whose results are shown: the committed ones, yours, or stale ones; and where they come from.

None of it is in what DVC hashes. `note` keeps what is known of a run when it ends in `.swirl/provenance.json`, and
`write` puts it into `reports/provenance.js`, which git ignores, for the pages to load.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Container, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from swirl.config import presets
from swirl.config.yaml_text import read
from swirl.core import records
from swirl.core.checksums import checksum
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.pipeline.dvc_file import dvc_hash, read_stages
from swirl.pipeline.stages import STAGES
from swirl.reporting.browser.scripts import encoded, script
from swirl.reporting.format import duration

RESULTS = "reports/results.json"
GENERATED = (":!reports", ":!dvc.lock")
"""What a run itself changes, as git's pathspecs: it makes no difference to what the run was made with."""
NAMED = 3
"""How many reasons for being stale are given."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is kept of the run that ended with stage `report`."""

    results: str
    """The SHA-256 of its `reports/results.json`."""
    commit: str
    ended: float
    """Unix time."""
    preset: str
    seed: str
    seconds: float
    stages: int
    """How many stages `seconds` is the sum of: those that ran here, each the last time that it did."""
    mlflow: str
    """The address of its page in MLflow; empty when it has none."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What there is to say of the results on disk."""

    results: str
    """The SHA-256 of `reports/results.json`."""
    committed: bool
    """Whether git has the same `reports/results.json` in HEAD."""
    stale: tuple[str, ...]
    """Why they are stale, if they are."""
    run: Run | None
    """The run here that made them; None for results that came with git or DVC."""
    facts: tuple[tuple[str, str, str], ...]
    """(what, value, address or nothing), such as `("commit", "1a2b3c4", "")`."""

    @property
    def whose(self) -> str:
        """A sentence that says whose results these are."""
        if self.committed:
            same = ", and a run here gave the same" if self.run else ""
            words = f"These are the committed results{same}."
        else:
            words = "These are your own results, not committed ones."
        if not self.stale:
            return words
        more = f", and {len(self.stale) - NAMED} more" if len(self.stale) > NAMED else ""
        return f"{words} They are stale: {', '.join(self.stale[:NAMED])}{more}. `dvc repro` makes them anew."

    @property
    def parts(self) -> list[tuple[str, str, str]]:
        """The sentence, which has no name, and the facts."""
        return [("", self.whose, ""), *self.facts]


def found(layout: Layout) -> Provenance:
    """Say of `reports/results.json` whose it is, by three questions:

    - Committed or yours: is the file the same as in git's HEAD? Without git, it is yours.
    - Stale: does dvc.lock record this very file (by its MD5) as the output of `report`; has params.yaml still the
      values that dvc.lock has recorded of each stage; and has each stage read what the stage before it wrote last? If
      any is not so, then `dvc repro` would make other results, or may. Changes of the source are left to `dvc status`.
    - Which run: does `.swirl/provenance.json` hold the SHA-256 of this very file? Only then are date, duration and
      MLflow's page of that run shown; else commit and date are those at which git got the file.

    Raises `DataError` without `reports/results.json`.
    """
    digest, committed = checksum(layout.results).sha256, _committed(layout.root)
    run, lock = _run(layout, digest), _lock(layout.root)
    reasons = tuple(_stale(layout, lock))
    if run:
        facts = _facts_of_run(run)
    else:
        known = {key: value for stage in lock.values() for key, value in _params(stage).items()}
        facts = [*_facts_of_commit(layout.root, committed), *_facts_of_settings(*_settings(layout.root, known))]
    return Provenance(digest, committed, reasons, run, tuple(fact for fact in facts if fact[1]))


def stale(layout: Layout) -> tuple[str, ...]:
    """Why the answers in a project's folder are not of its params.yaml; none where dvc.lock does not know the results.

    What shapes no answer does not count: settings of the gates and of `report`, and stages that dvc.yaml has no more.
    """
    lock = _lock(layout.root)
    if not layout.results.exists() or _recorded(lock).get(RESULTS) != dvc_hash(layout.results):
        return ()
    there = read_stages(layout.root, read(layout.root / "params.yaml")) if (layout.root / "dvc.yaml").exists() else lock
    answering = {name for name in lock if name in there and name != "report" and not name.startswith("check_")}
    return tuple(_stale(layout, lock, answering))


def note(layout: Layout, mlflow: str = "") -> None:
    """Keep what is known of the run that has just written the results, and write it for the pages.

    Raises `DataError` when there are none.
    """
    made = just_made(layout, mlflow)
    assert made.run is not None
    records.save_json(asdict(made.run), _kept(layout))
    write(layout, made)


def just_made(layout: Layout, mlflow: str = "") -> Provenance:
    """Of results that a run has just written; they are not stale now: DVC writes dvc.lock only after this.

    Raises `DataError` when there are none.
    """
    times = [timing["seconds"] for timing in timings(layout).values()]
    tree = read(layout.root / "params.yaml")
    keys = {key for stage in read_stages(layout.root, tree).values() for key in stage.params}
    preset, seed = _settings(layout.root, {key: presets.at(tree, key) for key in keys})
    run = Run(
        results=checksum(layout.results).sha256,
        commit=_commit_at_work(layout.root),
        ended=datetime.now(UTC).timestamp(),
        preset=preset,
        seed=seed,
        seconds=sum(times),
        stages=len(times),
        mlflow=mlflow,
    )
    facts = tuple(fact for fact in _facts_of_run(run) if fact[1])
    return Provenance(run.results, _committed(layout.root), (), run, facts)


def timings(layout: Layout) -> dict[str, Any]:
    """What is known of each stage's last run here, in the pipeline's order; a stage's items are apart: `train-sft`."""
    ids = [f"{name}-{item}" if item else name for name, stage in STAGES.items() for item in stage.items or ("",)]
    return {one: records.load_json(path) for one in ids if (path := layout.timing(one)).exists()}


def write(layout: Layout, provenance: Provenance) -> None:
    """Write `reports/provenance.js`, which the report's page and the trajectory browser load if it is there."""
    path = layout.page.with_name("provenance.js")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(as_script(provenance), encoding="utf-8")
    os.replace(partial, path)


def as_script(provenance: Provenance) -> str:
    """The script that shows it on a page of these results."""
    show = files("swirl.reporting").joinpath("provenance.js").read_text(encoding="utf-8").strip()
    return script(show, encoded({"results": provenance.results, "parts": provenance.parts}))


def _settings(root: Path, made_with: Mapping[str, Any]) -> tuple[str, str]:
    """The preset that differs least from these values but for the seed, with the number of other keys; and the seed.

    `made_with` are keys of params.yaml that a stage depends on, such as `train.swirl`, and their values.
    """
    nearest, others = presets.nearest(root, {key: value for key, value in made_with.items() if key != "seed"})
    changed = f" with {len(others)} key{'s' * (len(others) != 1)} changed" if others else ""
    return nearest + changed, str(made_with.get("seed", ""))


def _kept(layout: Layout) -> Path:
    return layout.root / ".swirl/provenance.json"


def _run(layout: Layout, digest: str) -> Run | None:
    """The run that made these results, if it is the last one here."""
    path = _kept(layout)
    try:
        run = records.from_dict(Run, records.load_json(path)) if path.exists() else None
    except (TypeError, ValueError, DataError):  # of another version, or cut short: as if there were none
        return None
    return run if run and run.results == digest else None


def _facts_of_run(run: Run) -> list[tuple[str, str, str]]:
    spent = f"{duration(run.seconds)} in {run.stages} stage{'s' * (run.stages != 1)}" if run.stages else ""
    return [
        ("commit", run.commit, ""),
        ("made", _date(datetime.fromtimestamp(run.ended, UTC)), ""),
        *_facts_of_settings(run.preset, run.seed),
        ("duration", spent, ""),
        ("MLflow", run.mlflow and "this run", run.mlflow),
    ]


def _facts_of_settings(preset: str, seed: str) -> list[tuple[str, str, str]]:
    return [("preset", preset, ""), ("seed", seed, "")]


def _facts_of_commit(root: Path, committed: bool) -> Iterator[tuple[str, str, str]]:
    """The commit that brought the results, if they are the committed ones."""
    said = git(root, "log", "-1", "--format=%h %cI", "--", RESULTS) if committed else None
    if said:
        commit, when = said.split()
        yield ("commit", commit, "")
        yield ("committed", _date(datetime.fromisoformat(when).astimezone(UTC)), "")


def _stale(layout: Layout, lock: Mapping[str, Any], some: Container[str] | None = None) -> Iterator[str]:
    """Why the results are stale; see `found`. With `some`, only these stages are looked at."""
    made = _recorded(lock)
    if made.get(RESULTS) != dvc_hash(layout.results):
        yield "dvc.lock does not record them"
        return
    params = read(layout.root / "params.yaml")
    looked_at = {name: entry for name, entry in lock.items() if some is None or name in some}
    changes = (
        change
        for stage in looked_at.values()
        for key, old in _params(stage).items()
        for change in presets.differences(old, presets.at(params, key), key)
    )
    said = (f"{name} is {_value(now)} in params.yaml and was {_value(old)}" for name, old, now in changes)
    yield from dict.fromkeys(said)  # stages share keys
    for stage, entry in looked_at.items():
        for dep in entry.get("deps", ()):
            if made.get(dep["path"], dep.get("md5")) != dep.get("md5"):
                yield f"{stage} has not read the present {dep['path']}"


def _value(value: Any) -> str:
    return "not set" if value is None else str(value)


def _lock(root: Path) -> dict[str, Any]:
    """The stages of dvc.lock; empty without one."""
    path = root / "dvc.lock"
    return dict((read(path) or {}).get("stages") or {}) if path.exists() else {}


def _recorded(lock: Mapping[str, Any]) -> dict[str, str | None]:
    """What the stages wrote, by path, with its MD5."""
    return {out["path"]: out.get("md5") for stage in lock.values() for out in stage.get("outs", ())}


def _params(stage: Mapping[str, Any]) -> dict[str, Any]:
    return dict((stage.get("params") or {}).get("params.yaml") or {})


def _committed(root: Path) -> bool:
    """Whether git's HEAD has the results as they are on disk."""
    return bool(git(root, "ls-files", "--", RESULTS)) and git(root, "status", "--porcelain", "--", RESULTS) == ""


def _commit_at_work(root: Path) -> str:
    """The commit that is checked out, and whether more than a run's own outputs differs from it; empty without git."""
    commit = git(root, "rev-parse", "--short", "HEAD")
    changed = commit and git(root, "status", "--porcelain", "-uno", "--", ".", *GENERATED)
    return f"{commit} and uncommitted changes" if changed else commit or ""


def git(root: Path, *arguments: str) -> str | None:
    """What git says; None where it is not there, or the project is in no repository with a commit."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _date(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"
