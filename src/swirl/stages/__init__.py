"""One module a stage, named like it: `run(params, layout)`, or `run(params, layout, item)` for stages with items."""
