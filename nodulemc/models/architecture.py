"""What a network is made of, as ``ensemble.json`` states it. Needs no torch."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from nodulemc.errors import EnsembleError

BACKBONES = ("inception_i3d", "i3d_r50")
# "windows_2x2x2" is the LUNA25 baseline's: the mean over all windows of 2×2×2, stride 1, of each one's mean.
POOLINGS = ("global", "windows_2x2x2")


@dataclass(frozen=True)
class Architecture:
    """How to build one multi-task network.

    Attributes:
        backbone: "inception_i3d" or "i3d_r50".
        head_widths: hidden widths of the classification MLP; none gives the reference's single linear layer.
        decoder_widths: output widths of the decoder's five stages; None for no decoder. Where a width
            differs from the tap it meets, the tap is projected to it by a 1×1×1 convolution.
        pooling: how the head reads the coarsest tap: "global", its mean, or "windows_2x2x2", in which voxels at the
            ends of a side count half, and those of a side of two fully.
    """

    backbone: str
    head_widths: tuple[int, ...] = ()
    decoder_widths: tuple[int, ...] | None = None
    pooling: str = POOLINGS[0]

    def __post_init__(self) -> None:
        """Refuse values that name no network.

        Raises:
            EnsembleError: unknown backbone or pooling, or widths that are not positive integers, five for a decoder.
        """
        if self.backbone not in BACKBONES:
            raise EnsembleError(f"unknown backbone {self.backbone!r}", "architecture", f"use {' or '.join(BACKBONES)}")
        if self.pooling not in POOLINGS:
            raise EnsembleError(f"unknown pooling {self.pooling!r}", "architecture", f"use {' or '.join(POOLINGS)}")
        object.__setattr__(self, "head_widths", _widths(self.head_widths))
        if self.decoder_widths is not None:
            object.__setattr__(self, "decoder_widths", _widths(self.decoder_widths))
            if len(self.decoder_widths) != 5:
                raise EnsembleError(f"decoder widths {self.decoder_widths}", "architecture", "give five, one per stage")

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, the pooling only where it is not global."""
        content = asdict(self)
        if self.pooling == POOLINGS[0]:
            del content["pooling"]
        return content

    @classmethod
    def from_json(cls, content: Any) -> "Architecture":
        """Read back what ``to_json`` gave.

        Raises:
            EnsembleError: a field is missing, unknown or of no use.
        """
        optional = {"pooling"}
        needed = {field.name for field in fields(cls)} - optional
        if not isinstance(content, dict) or set(content) - optional != needed:
            raise EnsembleError(
                f"architecture {content!r}",
                "ensemble.json",
                f"give exactly {', '.join(sorted(needed))}, and pooling where it is not global",
            )
        return cls(**content)


def _widths(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (list, tuple)) or not all(type(v) is int and v > 0 for v in values):
        raise EnsembleError(f"widths {values!r}", "architecture", "give a list of positive integers")
    return tuple(values)
