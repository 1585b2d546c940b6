"""Libraries of optional extras, imported when they are needed."""

from importlib import import_module
from types import ModuleType

from nodulemc.errors import ConfigError

# The modules that come with each extra.
MODULES = {
    "cohort": ("blake3", "pyarrow"),
    "cpu": ("openvino",),
    "dicom": ("highdicom",),
    "ray": ("ray",),
    "report": ("grand_challenge_metrics", "jinja2", "markupsafe", "PIL", "scipy", "sklearn"),
    "serve": ("fastapi", "uvicorn"),
    "train": (
        "accelerate",
        "defusedxml",
        "pyarrow",
        "pydantic",
        "scipy",
        "sklearn",
        "tensorboard",
        "threadpoolctl",
        "yaml",
    ),
}


def import_extra(module: str, extra: str) -> ModuleType:
    """Import a module that comes with one of this package's extras.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        # The missing module may be one that the wanted module itself imports.
        raise _missing(error.name or module, error, extra) from error


def check_extra(extra: str, *modules: str) -> None:
    """Before any work, raise ConfigError if an extra, or one of these modules of it, is not installed."""
    for module in modules or MODULES[extra]:
        import_extra(module, extra)


def missing_extra(error: ImportError) -> ConfigError | None:
    """Return the error for a failed import. None if the module is in no extra, which is a bug."""
    name = error.name or ""
    extra = next((extra for extra, modules in MODULES.items() if _package(name) in modules), None)
    return _missing(name, error, extra) if extra else None


def _missing(name: str, error: ImportError, extra: str) -> ConfigError:
    return ConfigError(f"{_package(name)} cannot be imported ({error})", extra, f"pip install 'nodulemc[{extra}]'")


def _package(name: str) -> str:
    return name.partition(".")[0]
