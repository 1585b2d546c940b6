"""What runs the members: OpenVINO on CPUs, PyTorch on GPUs."""
