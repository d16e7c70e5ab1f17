"""How models/base comes to be, one module a `source` of params.yaml, and pointers to models made elsewhere."""
