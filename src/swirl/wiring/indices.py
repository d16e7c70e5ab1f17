"""From params to the search tool's index of a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swirl.config.params import Params
from swirl.core.types import Passage
from swirl.pipeline.progress import SHORT, Progress
from swirl.tools.search import Embedding, build


def build_index(passages: Sequence[Passage], folder: Path, params: Params, root: Path) -> None:
    """Write the index of `passages` to `folder`, as section `index` says; a bar shows how far it is.

    `root` is where an embedding model's folder is looked for. Raises what `swirl.tools.search.build` raises.
    """
    settings, embedding = params.index, None
    if settings.embedding_model:
        revision = settings.embedding_revision or None
        embedding = Embedding(settings.embedding_model, revision, root, params.runtime.device)
    total = len(passages) * (2 if settings.retriever == "hybrid" else 1)
    with Progress(total, f"index {folder.name}, passages", after=SHORT) as bar:
        build(passages, folder, settings.stopwords, settings.retriever, embedding, bar.update)
