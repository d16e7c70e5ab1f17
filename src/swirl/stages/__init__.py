"""One module per stage, with its name and `run(params, layout)`; stages with items have `run(params, layout, item)`."""
