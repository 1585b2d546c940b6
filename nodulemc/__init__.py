"""NoduleMC reads a chest CT and says how likely each lung nodule in it is to be malignant.

The names below are the public interface. Each is loaded when it is first used, so ``import nodulemc`` itself imports
neither PyTorch nor NumPy.

Examples:
    >>> from nodulemc import Ensemble, predict
    >>> predictions = predict("test/input/images/chest-ct/ct.mha", [(-110.6, -44.7, -217.8)], Ensemble.load())
    >>> f"{predictions[0].probability:.2f}"
    '0.10'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nodulemc.ct.volume import Volume, read_volume
    from nodulemc.ensemble.ensemble import Ensemble
    from nodulemc.errors import (
        CaseError,
        ConfigError,
        EnsembleError,
        FileError,
        ImageError,
        NoduleMCError,
        PointsError,
        ResourceError,
        TableError,
        TrainingError,
    )
    from nodulemc.points.nodules import Nodule
    from nodulemc.prediction import NodulePrediction, predict

__all__ = [
    "CaseError",
    "ConfigError",
    "Ensemble",
    "EnsembleError",
    "FileError",
    "ImageError",
    "Nodule",
    "NoduleMCError",
    "NodulePrediction",
    "PointsError",
    "ResourceError",
    "TableError",
    "TrainingError",
    "Volume",
    "predict",
    "read_volume",
]
__version__ = "0.1.0"
_HOMES = {
    "Ensemble": "nodulemc.ensemble.ensemble",
    "Nodule": "nodulemc.points.nodules",
    "NodulePrediction": "nodulemc.prediction",
    "Volume": "nodulemc.ct.volume",
    "predict": "nodulemc.prediction",
    "read_volume": "nodulemc.ct.volume",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that commands which need no network do not pay for importing torch.
    if name in __all__:
        return getattr(import_module(_HOMES.get(name, "nodulemc.errors")), name)
    raise AttributeError(f"module 'nodulemc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
