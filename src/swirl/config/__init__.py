"""params.yaml: its sections as strict types, how it is read and what is wrong with it, presets and overrides."""
