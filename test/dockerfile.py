"""What the Dockerfile states."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def default_base_image() -> str:
    """The image that ours is built on unless another is given."""
    (image,) = re.findall(r"^ARG BASE_IMAGE=(\S+)$", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)
    return image
