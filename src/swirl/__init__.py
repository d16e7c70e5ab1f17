"""SWiRL: step-wise reinforcement learning for multi-step reasoning and tool use (arXiv 2504.04736)."""
