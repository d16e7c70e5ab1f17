"""Code shared by all stages: records and their files, errors, seeds, journals, grading, paths."""
