"""Making models/base: one module for each `source` in params.yaml, and pointers to models made elsewhere."""
