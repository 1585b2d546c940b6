"""The errors that a user can cause. Each states the problem, its place, and a remedy.

Commands print them as one line on stderr, ``error: <what>: <where>: <what to do>``, and end with the error's exit code.
Every other exception is a bug and keeps its traceback.
"""

import re

_NO_MEMORY = re.compile(
    r"can't alloc|bad.?alloc|not enough memory|(failed|unable|cannot) to (re)?alloc|cannot allocate|"
    r"failed to map segment|can't start new thread|resource temporarily unavailable|out of memory|_ALLOC_FAILED|"
    # PyTorch's words if no algorithm of cuDNN found enough room to work (pytorch issue 108645).
    r"unable to find an engine to execute",
    re.IGNORECASE,
)


def printable(text: str) -> str:
    """Return a text from a file with its control characters escaped, because a terminal would obey them."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class NoduleMCError(Exception):
    """An error that the user can do something about. All errors of this package are of this class.

    Args:
        what: What is wrong, with the offending value.
        where: The file, row or nodule that it concerns.
        remedy: What to do about it.

    Examples:
        >>> from nodulemc import NoduleMCError, read_volume
        >>> try:
        ...     read_volume("missing.nii.gz")
        ... except NoduleMCError as error:
        ...     print(error)
        no such CT: missing.nii.gz: check the path
    """

    exit_code = 2

    def __init__(self, what: str, where: object, remedy: str) -> None:
        super().__init__(what, where, remedy)
        self.what = what
        self.where = str(where)
        self.remedy = remedy

    def __str__(self) -> str:
        # File readers put line breaks into messages, and file names may hold anything, but the error is to be one line.
        line = ": ".join(" ".join(part.split()) for part in (self.what, self.where, self.remedy))
        return printable(line)


class FileError(NoduleMCError):
    """A file cannot be read, is too large or malformed, or a file or folder cannot be written."""


class CaseError(NoduleMCError):
    """A case's inputs or its clinical information cannot be used, or one output would replace another or an input."""


class ImageError(NoduleMCError):
    """A CT, mask or its geometry cannot be used."""


class PointsError(NoduleMCError):
    """Nodule coordinates cannot be used."""


class EnsembleError(NoduleMCError):
    """An ensemble folder or a checkpoint cannot be used."""


class TableError(NoduleMCError):
    """A table of nodules or predictions cannot be used."""


class ConfigError(NoduleMCError):
    """A configuration file or option cannot be used."""


class TrainingError(NoduleMCError):
    """A training run cannot continue."""


class ResourceError(NoduleMCError):
    """The machine has too little of something."""


def out_of_memory(error: BaseException) -> bool:
    """Return whether an exception reports a lack of memory. Libraries in C++ report it only in words."""
    return isinstance(error, MemoryError) or (
        isinstance(error, (RuntimeError, OSError, ImportError)) and _NO_MEMORY.search(str(error)) is not None
    )
