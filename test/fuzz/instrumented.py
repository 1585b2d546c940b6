"""The targets, with this package's coverage counted."""

import io
from contextlib import redirect_stderr

import atheris

# It names every module.
with redirect_stderr(io.StringIO()), atheris.instrument_imports(include=["nodulemc"]):
    import targets

__all__ = ["targets"]
