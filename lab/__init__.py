"""Pods as network namespaces around a real API server, in a closed world: for demo, tests and benchmarks."""
