"""Libraries of optional extras, imported when they are needed."""

from importlib import import_module
from types import ModuleType

from nodulemc.errors import ConfigError

# What commands check before their work, where it would fail in the middle.
_MODULES = {
    "cohort": ("blake3", "pyarrow.parquet"),
    "ray": ("ray",),
    "report": ("grand_challenge_metrics", "jinja2", "PIL", "scipy", "sklearn"),
    "serve": ("fastapi", "uvicorn"),
}


def import_extra(module: str, extra: str) -> ModuleType:
    """Import a module that comes with one of this package's extras.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{module} cannot be imported ({error})", extra, f"pip install 'nodulemc[{extra}]'"
        ) from error


def check_extra(extra: str) -> None:
    """Raise ConfigError where an extra is not installed."""
    for module in _MODULES[extra]:
        import_extra(module, extra)
