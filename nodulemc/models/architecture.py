"""The description of a network, as in ``ensemble.json``. Needs no torch."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from nodulemc.errors import EnsembleError
from nodulemc.models.backbone import ATTRIBUTE_MAP, CENTRE_MAPS, CENTRE_PARTS, Backbone
from nodulemc.models.inception_i3d import InceptionI3d
from nodulemc.models.resnet_i3d import I3dR50
from nodulemc.ratings import ATTRIBUTES

BACKBONES: dict[str, Backbone] = {backbone.name: backbone for backbone in (InceptionI3d(), I3dR50())}
# "windows_2x2x2" is the LUNA25 baseline's pooling: the mean of the means of all windows of 2×2×2, stride 1.
POOLINGS = ("global", "windows_2x2x2", "centre")


@dataclass(frozen=True)
class Architecture:
    """The parts and sizes of one multi-task network.

    Attributes:
        backbone: One of ``BACKBONES``.
        head_widths: The hidden widths of the classification MLP. None of them gives the reference's single linear
            layer.
        decoder_widths: The output widths of the decoder's five stages. None for no decoder. If a width differs from the
            feature map it meets, a 1×1×1 convolution projects the map to it.
        pooling: What the heads read. "global": the mean of the coarsest feature map. "windows_2x2x2": the same, but
            voxels at the ends of a side count half, except on a side of two. "centre": means and maxima of the three
            finest maps over the central 12.5 and 6.25 mm.
        attributes: The readers' ratings that a second head predicts, in the order of its outputs. Empty for no such
            head.
    """

    backbone: str
    head_widths: tuple[int, ...] = ()
    decoder_widths: tuple[int, ...] | None = None
    pooling: str = POOLINGS[0]
    attributes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values that describe no network.

        Raises:
            EnsembleError: unknown backbone, pooling or attribute, or widths that are not positive integers, five for a
                decoder.
        """
        # A list of the names, as JSON's values may have no hash.
        if self.backbone not in [*BACKBONES]:
            raise EnsembleError(f"unknown backbone {self.backbone!r}", "architecture", f"use {' or '.join(BACKBONES)}")
        if self.pooling not in POOLINGS:
            raise EnsembleError(f"unknown pooling {self.pooling!r}", "architecture", f"use {' or '.join(POOLINGS)}")
        object.__setattr__(self, "head_widths", _widths(self.head_widths))
        if self.decoder_widths is not None:
            object.__setattr__(self, "decoder_widths", _widths(self.decoder_widths))
            if len(self.decoder_widths) != 5:
                raise EnsembleError(f"decoder widths {self.decoder_widths}", "architecture", "give five, one per stage")
        object.__setattr__(self, "attributes", _attributes(self.attributes))

    @property
    def head_features(self) -> int:
        """The number of features that the malignancy head reads."""
        channels = BACKBONES[self.backbone].channels
        if self.pooling == "centre":
            return 2 * len(CENTRE_PARTS) * sum(channels[k] for k in CENTRE_MAPS)
        return channels[-1]

    @property
    def attribute_features(self) -> int:
        """The number of features that the attribute head reads, see ``nodulemc.models.pooling.all_features``."""
        own = 0 if self.pooling == "centre" else BACKBONES[self.backbone].channels[ATTRIBUTE_MAP]
        return self.head_features + own

    @property
    def maps_read(self) -> int | None:
        """How many feature maps the heads need, from the finest on. None if they need all of them."""
        return max(CENTRE_MAPS) + 1 if self.pooling == "centre" else None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; those in ``_OPTIONAL`` only if they differ from it."""
        return {name: value for name, value in asdict(self).items() if (name, value) not in _OPTIONAL.items()}

    @classmethod
    def from_json(cls, content: Any) -> "Architecture":
        """Read the result of ``to_json``.

        Raises:
            EnsembleError: a field is missing, unknown or of no use.
        """
        needed = {field.name for field in fields(cls)} - _OPTIONAL.keys()
        if not isinstance(content, dict) or set(content) - _OPTIONAL.keys() != needed:
            raise EnsembleError(
                f"architecture {content!r}",
                "ensemble.json",
                f"give exactly {', '.join(sorted(needed))}, pooling where it is not global, and attributes, if any",
            )
        return cls(**content)


# The fields that may be left out, and their values then.
_OPTIONAL = {"pooling": POOLINGS[0], "attributes": ()}


def _attributes(names: Any) -> tuple[str, ...]:
    known = isinstance(names, (list, tuple)) and all(name in ATTRIBUTES for name in names)
    if not known or len(set(names)) < len(names):
        raise EnsembleError(f"attributes {names!r}", "architecture", f"give some of {', '.join(ATTRIBUTES)}, each once")
    return tuple(names)


def _widths(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (list, tuple)) or not all(type(v) is int and v > 0 for v in values):
        raise EnsembleError(f"widths {values!r}", "architecture", "give a list of positive integers")
    return tuple(values)
