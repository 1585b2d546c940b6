"""Restoring the errors of processes that read samples from PyTorch's form of them."""

import re

from nodulemc import errors
from nodulemc.errors import NoduleMCError, ResourceError

# As torch.utils.data words them: the worker's traceback as text, and the end of a worker.
_RAISED = re.compile(r"^nodulemc\.errors\.(\w+): (.*)", re.MULTILINE)
_KILLED = re.compile(r"DataLoader worker \(pid.*(killed by signal|exited unexpectedly)")


def reading_error(error: RuntimeError, workers: int) -> NoduleMCError | None:
    """The user's error behind a DataLoader's, None where there is none.

    Args:
        error: raised by a DataLoader.
        workers: its number of processes.
    """
    raised = _RAISED.search(str(error))
    if raised:
        # Only the line is left of it, in which its three parts are joined so.
        found: NoduleMCError = getattr(errors, raised[1])(*raised[2].split(": ", 2))
        return found
    if _KILLED.search(str(error)):
        return ResourceError(
            "a process that reads samples has died",
            f"run.workers {workers}",
            "see the messages above; memory may be short: set fewer and go on with --resume",
        )
    return None
