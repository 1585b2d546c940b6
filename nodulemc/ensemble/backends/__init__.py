"""What runs the seeds: OpenVINO on CPUs, PyTorch on GPUs."""
