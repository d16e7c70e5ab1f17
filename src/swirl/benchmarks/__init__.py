"""The benchmarks: questions, golden answers, and the passages to search in."""
