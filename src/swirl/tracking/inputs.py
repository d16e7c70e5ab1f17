"""What a stage was made from: commit, command and dvc.lock as tags, its tables as data sets."""

from __future__ import annotations

import contextlib
import getpass
import json
from typing import TYPE_CHECKING, Any

from swirl.core.layout import Layout
from swirl.pipeline.dvc_file import DvcStage, dvc_hash
from swirl.reporting.provenance import git

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

CONTEXTS = {"train": "training", "evaluate": "evaluation"}
GOLDEN = ("annotations", "derivations", "solutions", "support")
"""Tables of golden labels: training reads them for curves that it logs, and for nothing else."""
LOGGED = "log only"
"""The context of such a table in training."""
COLUMNS = {"int32": "integer", "int64": "long", "bool": "boolean"} | {one: one for one in ("string", "float", "double")}
"""MLflow's names of Arrow types; `object` stands for nested and all other ones."""


def source_tags(layout: Layout, command: str) -> dict[str, str]:
    """The tags that fill MLflow's columns Version, Source and User, and `dvc.lock`."""
    tags = {"mlflow.source.name": command, "mlflow.source.type": "LOCAL", **lock_hash(layout)}
    if commit := git(layout.root, "rev-parse", "HEAD"):
        tags["mlflow.source.git.commit"] = commit
    with contextlib.suppress(OSError, KeyError):  # a container in which the user has no name
        tags["mlflow.user"] = getpass.getuser()
    return tags


def lock_hash(layout: Layout) -> dict[str, str]:
    """The tag `dvc.lock`: the MD5 of that file; none without it."""
    path = layout.root / "dvc.lock"
    return {"dvc.lock": dvc_hash(path)} if path.exists() else {}


def datasets(stage: DvcStage, layout: Layout) -> list[DatasetInput]:
    """The Parquet files among the dependencies.

    What a stage learns from comes first, then passages and questions, then what training reads for the log alone.
    """
    import pyarrow.parquet as pq
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    usual = CONTEXTS.get(stage.name.partition("@")[0], "input")
    found: list[tuple[Any, DatasetInput]] = []
    for dep in stage.deps:
        path = layout.root / dep
        for file in [path] if path.suffix == ".parquet" else sorted(path.glob("*.parquet")):
            footer, name = pq.ParquetFile(file), file.relative_to(layout.root).as_posix().removesuffix(".parquet")
            kinds = {one.name: COLUMNS.get(str(one.type), "object") for one in footer.schema_arrow}
            columns = [{"type": kind, "name": column, "required": False} for column, kind in kinds.items()]
            schema, rows = json.dumps({"mlflow_colspec": columns}), json.dumps({"num_rows": footer.metadata.num_rows})
            place = json.dumps({"uri": str(file.resolve())})  # `mlflow.data.get_source` reads it as a local file
            context = LOGGED if usual == "training" and file.stem in GOLDEN else usual
            dataset = Dataset(name, dvc_hash(file), "local", place, schema, rows)
            order = (context == LOGGED, name.startswith(("data/corpus/", "data/questions/")), len(found))
            found.append((order, DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, context)])))
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]
