"""ITK's own warnings, which can be switched only for the whole process."""

import threading
from types import TracebackType

import SimpleITK as sitk


class _Silence:
    """A context in which ITK prints no warnings. Several threads may be in it at the same time, each more than once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._shown = True

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._shown = sitk.ProcessObject.GetGlobalWarningDisplay()
                sitk.ProcessObject.SetGlobalWarningDisplay(False)
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                sitk.ProcessObject.SetGlobalWarningDisplay(self._shown)


itk_silence = _Silence()
