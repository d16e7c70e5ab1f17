"""Quality gates: what must hold of the data between two stages, checked with Great Expectations.

`tables` reads Parquet without losing nulls; `expect` defines the kinds of expectation; `questions`, `trajectories`
and `steps` say what each gate expects; `validation` evaluates that, writes the report, and stops the pipeline.
"""
