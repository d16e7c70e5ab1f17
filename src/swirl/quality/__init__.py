"""Quality gates: what must hold of the data between two stages, checked with Great Expectations.

`tables` reads Parquet so that nulls survive; `expect` names what may be expected; `questions`, `trajectories`
and `steps` say what each gate expects; `validation` runs it, reports it, and stops the pipeline.
"""
