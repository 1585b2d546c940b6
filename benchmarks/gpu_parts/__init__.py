"""The parts of benchmarks/gpu.py: each module's ``rows`` yields what it measures, row after row."""
