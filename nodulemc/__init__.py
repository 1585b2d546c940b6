"""NoduleMC: how likely is each lung nodule in a chest CT to be malignant?"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nodulemc.ensemble.ensemble import Ensemble
    from nodulemc.prediction import predict

__all__ = ["Ensemble", "predict"]
__version__ = "0.1.0"
_HOMES = {"Ensemble": "nodulemc.ensemble.ensemble", "predict": "nodulemc.prediction"}


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that commands which need no network do not pay for importing torch.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'nodulemc' has no attribute {name!r}")
