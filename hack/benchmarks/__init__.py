"""What `hack/bench` measures, on a real cluster of its own: see docs/benchmarks.md."""
