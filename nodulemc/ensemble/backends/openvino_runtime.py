"""OpenVINO without its model converter, whose import takes longer than all the rest and brings a telemetry client."""

import sys

_CONVERTER = "openvino.tools.ovc"

# The package imports the converter only if that is possible. None in sys.modules marks it as impossible.
_loaded = sys.modules.get(_CONVERTER)
sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # Python accepts None here, typeshed only modules
try:
    import openvino
    from openvino import opset13 as ops
finally:
    del sys.modules[_CONVERTER]
    if _loaded is not None:
        sys.modules[_CONVERTER] = _loaded

__all__ = ["openvino", "ops"]
