"""Libraries of optional extras, imported when they are needed."""

from importlib import import_module
from types import ModuleType

from nodulemc.errors import ConfigError


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
