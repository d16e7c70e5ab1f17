"""What every stage speaks: records and their files, errors, seeds, journals, grading, places."""
