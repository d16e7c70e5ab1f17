"""Gate: the synthesised trajectories are complete, token-exact, on training questions, and rarely faulty."""

from __future__ import annotations

from pathlib import Path

from swirl.config.params import Params
from swirl.core.layout import Layout
from swirl.core.types import Question
from swirl.models.loading import load_native_chat, load_tokenizer
from swirl.quality import trajectories as gate
from swirl.quality.tables import read, read_trajectories
from swirl.quality.validation import publish


def run(params: Params, layout: Layout) -> None:
    """Check the trajectories against their questions and the base model's tokenizer; write the gate's report.

    Raises `GateError` naming what is violated and where, `DataError` when a file cannot be read, `ModelError` when
    the tokenizer cannot be loaded.
    """
    limits = params.check_trajectories
    report = gate.check(
        lambda: read_trajectories(layout.trajectories),
        read(Question, layout.questions),
        decode=_decoder(layout.model("base"), params.actions.format),
        max_steps={name: task.max_steps for name, task in params.tasks.items()},
        max_malformed_rate=limits.max_malformed_rate,
        max_cut_rate=limits.max_cut_rate,
        max_tool_error_rate=limits.max_tool_error_rate,
        max_failed_rate=limits.max_failed_rate,
        min_benchmark_share=limits.min_benchmark_share,
    )
    publish(report, layout)


def _decoder(folder: Path, written: str) -> gate.Decode:
    """A function that decodes token ids as synthesis did, in the format of actions `written`."""
    if written == "native":
        return load_native_chat(folder).so_far
    tokenizer = load_tokenizer(folder)

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    return decode
