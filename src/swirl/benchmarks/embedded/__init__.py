"""The generated world that the embedded benchmarks are drawn from."""
