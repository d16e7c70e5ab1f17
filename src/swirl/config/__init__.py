"""params.yaml: its sections as strict types, reading and checking it, presets and overrides."""
