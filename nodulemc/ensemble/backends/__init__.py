"""The libraries that run the members: OpenVINO on CPUs, PyTorch on GPUs."""
