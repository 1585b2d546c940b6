"""The parts of benchmarks/gpu.py. The function ``rows`` of each module yields its measurements, row by row."""
