"""Making models/reward: one module for each `source` in params.yaml, and how a judge is taught."""
