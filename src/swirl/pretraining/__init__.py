"""How models/base and models/reward come to be, one module a `source` of params.yaml."""
