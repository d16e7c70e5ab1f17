"""The stages of a project and what each needs, as DVC's graph gives them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from swirl.core.errors import DataError
from swirl.core.suggestions import meant


def plan(project: Path, targets: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Stage -> the stages that it needs directly, for each stage that `dvc repro` would go through, in its order.

    `train` stands for `train@sft` and `train@swirl`, `sub/dvc.yaml:train` for a stage of another dvc.yaml. A frozen
    stage needs no other. Files that `dvc add` tracks are in DVC's graph, too, but have nothing to run. Targets are
    looked up here, because DVC looks them up from the current folder, which need not be the project. Raises `DataError`
    for an unknown target, when there are no stages, and for a project that DVC cannot open.
    """
    from dvc.repo.reproduce import get_active_graph, plan_repro
    from dvc.stage import PipelineStage

    with opened(project) as repo:
        graph = get_active_graph(repo.index.graph)
        known = {stage: _address(stage, project) for stage in graph if isinstance(stage, PipelineStage)}
        names = {name: {name, name.partition("@")[0]} for name in known.values()}
        accepted = [one for name in names for one in (name.partition("@")[0], name)]
        for target in targets:
            if target not in accepted:
                raise DataError(f"dvc.yaml has no stage {target!r}; it has {', '.join(names)}{meant(target, accepted)}")
        own = {name for name in names if ":" not in name}
        chosen = {name for name in names if names[name] & {*targets}} if targets else own
        if not chosen:
            raise DataError(f"{project / 'dvc.yaml'} has no stages")
        wanted = [stage for stage, name in known.items() if name in chosen]
        stages = [stage for stage in plan_repro(graph, wanted) if stage in known]
        return {known[stage]: [known[dep] for dep in graph.successors(stage) if dep in stages] for stage in stages}


@contextlib.contextmanager
def opened(project: Path) -> Iterator[Any]:
    """The project as DVC sees it. What DVC refuses in it is raised as a `DataError`."""
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo
    from dvc.scm import SCMError

    try:
        with Repo(str(project)) as repo:
            yield repo
    except SCMError as error:
        git = "say there: git init && git add -A && git commit -m swirl"
        raise DataError(f"{project} is no git repository, which DVC needs; {git} ({error})") from error
    except NotDvcRepoError as error:
        raise DataError(f"{project} is no DVC project; --project is the folder with dvc.yaml ({error})") from error
    except DvcException as error:
        raise DataError(f"DVC cannot read {project}: {error}") from error


def _address(stage: Any, project: Path) -> str:
    """DVC's name of a stage, as seen from the project: `train@sft`, or `sub/dvc.yaml:train@sft`."""
    path = os.path.relpath(os.path.realpath(stage.path), os.path.realpath(project))
    return str(stage.name) if path == "dvc.yaml" else f"{path}:{stage.name}"


def direct(needs: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The needs of each stage without those that another of its needs has, so that Prefect's graph can be read.

    Each stage stands after those it needs.
    """
    above: dict[str, set[str]] = {}
    for name, found in needs.items():
        above[name] = {*found}.union(*(above[need] for need in found))
    return {
        name: [need for need in found if not any(need in above[other] for other in found)]
        for name, found in needs.items()
    }
