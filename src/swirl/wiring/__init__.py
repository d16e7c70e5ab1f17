"""From params.yaml to policies, tools, judges and attempts: the one place that turns settings into objects."""
