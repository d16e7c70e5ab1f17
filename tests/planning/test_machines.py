"""`swirl plan --machine`: hours on a machine that is not here, by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from swirl.config import presets
from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core.errors import ParamsError
from swirl.planning.machines import Machine, lines, parsed, speeds_of

ROOT = Path(__file__).parents[2]
WEIGHTS = 27_226_275_840


def params(**changes: object) -> Params:
    return validate(laid_over(presets.tree(ROOT, "gemma-2-27b"), changes), "gemma-2-27b")


def test_a_machine_is_read() -> None:
    machine = parsed("gb=80,flops=4e14,served=9000")
    assert (machine.free, machine.flops, machine.served) == (80e9, 4e14, 9000)
    assert math.isnan(machine.bandwidth)
    assert parsed("").free is None
    with pytest.raises(ParamsError, match="--machine: 'ram=80' is not NAME=NUMBER above 0, with NAME one of gb,"):
        parsed("ram=80")
    with pytest.raises(ParamsError, match="'flops=much' is not"):
        parsed("gb=80,flops=much")
    for value in ("nan", "inf", "-1"):
        with pytest.raises(ParamsError, match=f"'gb={value}' is not NAME=NUMBER above 0"):
            parsed(f"gb={value}")


def test_speeds_by_hand() -> None:
    machine = Machine(flops=4e14, bandwidth=2e12, served=9000)
    found = speeds_of(params(), ROOT, machine, 8, 16.0)
    assert found.read == pytest.approx(4e14 / (2 * WEIGHTS))
    assert found.tuned == pytest.approx(4e14 / (6 * WEIGHTS))  # an adapter: forward twice, and back to the inputs
    kept = 2048 * 376_832 / 2e12  # a conversation that is half as long as the context
    assert found.alone == pytest.approx(2 * WEIGHTS / 2e12 + kept)
    assert found.full == pytest.approx(2 * WEIGHTS / 2e12 + 8 * kept)
    whole = speeds_of(params(train={"lora": None, "gradient_checkpointing": False}), ROOT, machine, 8, 16.0)
    assert whole.tuned == pytest.approx(4e14 / (6 * WEIGHTS))  # forward, and back to inputs and weights


def hours(said: list[str], stage: str) -> float:
    value, unit = next(line.split()[1:] for line in said if line.split()[:1] == [stage])
    return float(value) / (1 if unit == "h" else 60)


def test_the_papers_run_by_hand() -> None:
    said = lines(params(), ROOT, parsed("gb=80,flops=4e14,bandwidth=2e12,served=9000"))
    assert "; 4 to 8 conversations in flight in process:" in said[1]
    # 50,000 trajectories of three actions and 37,365 of 4.3, each of a third of 256 tokens
    actions = 50_000 * 3 + 37_365 * 4.3
    assert hours(said, "synthesize") == pytest.approx((60 + actions * 256 / 3 / 9000) / 3600, abs=0.06)
    # a verdict for each and a grade for each trajectory, at the 1,000 requests a minute of `clients`
    assert hours(said, "judge") == pytest.approx((60 + (actions + 87_365) / (1000 / 60)) / 3600, abs=0.06)
    # of 1,500 questions with searches and 1,319 with calculations, and the 1,500 once more, closed-book
    evaluated, closed = 1500 * 3 + 1319 * 4.3, 1500
    read = 1500 * (40 + 2 * 405) + 1319 * (40 + 3.3 * 17) + 1500 * 40
    passes = 256 / 3 * (evaluated / 2819 * (2819 / 8 + 1) + 1500 / 8 + 1)  # eight at a time
    kept = 2048 * 376_832 / 2e12
    drawn = passes * (2 * WEIGHTS / 2e12 + kept) + 256 / 3 * (evaluated + closed) * kept
    asked = (evaluated + closed + 2819 + 1500) / (1000 / 60)
    evaluation = (60 + read * 2 * WEIGHTS / 4e14 + drawn + asked) / 3600
    assert hours(said, "evaluate@base") == pytest.approx(evaluation, abs=0.001)
    four = lines(params(runtime={"processes": 4}), ROOT, parsed("gb=80,flops=4e14,bandwidth=2e12,served=9000"))
    assert hours(four, "train@sft") == pytest.approx((hours(said, "train@sft") - 1 / 60) / 4, rel=0.2)
    assert hours(four, "train@swirl") > hours(said, "train@swirl") / 4  # the judge answers no faster
    dealt = params(runtime={"processes": 8, "sharding": "full"})
    other = lines(dealt, ROOT, parsed("gb=80,flops=4e14,bandwidth=2e12,served=9000"))
    assert "; 2 to 8 conversations in flight in process, 8 processes that train:" in other[1]
    assert hours(other, "evaluate@base") == hours(said, "evaluate@base")  # it is dealt out in training alone
    assert lines(params(), ROOT, parsed("gb=80")) == []
    unknown = lines(params(), ROOT, parsed("served=9000"))
    assert "; 256 conversations in flight in process:" in unknown[1]
    assert next(line for line in unknown if "train@swirl" in line).split() == ["train@swirl", "?"]
