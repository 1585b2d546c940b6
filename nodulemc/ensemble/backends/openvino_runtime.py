"""OpenVINO without its model converter, whose import takes longer than all the rest and brings a telemetry client."""

import sys

_CONVERTER = "openvino.tools.ovc"

# The package imports it only where it can be imported; None in sys.modules says that it cannot.
_loaded = sys.modules.get(_CONVERTER)
sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # Python takes None here, typeshed knows modules only
try:
    import openvino
    from openvino import opset13 as ops
finally:
    del sys.modules[_CONVERTER]
    if _loaded is not None:
        sys.modules[_CONVERTER] = _loaded

__all__ = ["openvino", "ops"]
