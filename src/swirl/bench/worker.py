"""One side of a benchmark in its own process: `python -m swirl.bench.worker JSON` prints JSON on its last line."""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    """Run the side and print what it measured."""
    import torch

    from swirl.bench import paper_scale, rl_step, slow_tools, synthesis

    side: dict[str, Any] = json.loads(sys.argv[1])
    torch.set_num_threads(int(side["threads"]))
    benches = {"paper-scale": paper_scale, "rl-step": rl_step, "slow-tools": slow_tools, "synthesis": synthesis}
    print(json.dumps(benches[side["bench"]].run_side(side)))


if __name__ == "__main__":
    main()
