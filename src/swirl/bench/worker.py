"""One side of a benchmark in its own process: `python -m swirl.bench.worker JSON` prints JSON on its last line."""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    """Run the side and print what it measured."""
    import torch

    from swirl.bench import paper_scale, rl_step, synthesis

    side: dict[str, Any] = json.loads(sys.argv[1])
    torch.set_num_threads(int(side["threads"]))
    sides = {"rl-step": rl_step.run_side, "synthesis": synthesis.run_side, "paper-scale": paper_scale.run_side}
    print(json.dumps(sides[side["bench"]](side)))


if __name__ == "__main__":
    main()
