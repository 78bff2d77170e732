"""Links to try cameras and rate control on: for benchmarks and tests, not part of the package."""
