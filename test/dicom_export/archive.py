"""A real archive on loopback: Orthanc, with DCMTK's clients (Debian: orthanc, orthanc-dicomweb, dcmtk)."""

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dicom_export.judges import program

_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_START_S = 60
# DCMTK waits 40 ms for each message's acknowledgement otherwise.
_ENVIRONMENT = os.environ | {"TCP_NODELAY": "1"}


@dataclass(frozen=True)
class Archive:
    """A running Orthanc.

    Attributes:
        http, dicom: its ports.
    """

    http: int
    dicom: int

    def store(self, *files: Path) -> None:
        """Send files by C-STORE."""
        self._client("storescu", "--required", *files)

    def fetch(self, folder: Path, study: str, series: str) -> None:
        """Get a series by C-GET."""
        folder.mkdir()
        keys = ("QueryRetrieveLevel=SERIES", f"StudyInstanceUID={study}", f"SeriesInstanceUID={series}")
        self._client("getscu", "-S", *(word for key in keys for word in ("-k", key)), "-od", folder)

    def _client(self, name: str, *words: object) -> None:
        command = [program(name, "dcmtk"), "-aec", "ORTHANC", "127.0.0.1", str(self.dicom), *map(str, words)]
        subprocess.run(command, check=True, capture_output=True, text=True, env=_ENVIRONMENT)

    def search(self, path: str, **keys: str) -> list[dict[str, Any]]:
        """QIDO-RS: the attributes that are found, by tag."""
        query = "&".join(f"{name}={value}" for name, value in keys.items())
        return json.loads(self._get(f"/dicom-web/{path}?{query}", "application/dicom+json"))

    def retrieve(self, study: str, series: str, instance: str) -> bytes:
        """WADO-RS: one instance's file."""
        path = f"/dicom-web/studies/{study}/series/{series}/instances/{instance}"
        answer = self._get(path, 'multipart/related; type="application/dicom"')
        rest = answer.partition(b"\r\n\r\n")[2]
        return rest[: rest.rindex(b"\r\n--")]

    def _get(self, path: str, accept: str) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return answer.read()


@contextmanager
def open_archive(folder: Path) -> Iterator[Archive]:
    """Orthanc with an empty storage in a folder; skips the test where it is not installed, except in CI."""
    orthanc = program("Orthanc", "orthanc")
    if not _PLUGIN.is_file():
        absent = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        absent("no DICOMweb plug-in: install orthanc-dicomweb")
    archive = Archive(*_free_ports())
    settings = {
        "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage"),
        "HttpPort": archive.http, "DicomPort": archive.dicom, "DicomAet": "ORTHANC", "RemoteAccessAllowed": False,
        "Plugins": [str(_PLUGIN)], "DicomWeb": {"Enable": True}, "DicomAlwaysAllowGet": True,
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("w") as log:
        process = subprocess.Popen([orthanc, folder / "orthanc.json"], stdout=log, stderr=log, env=_ENVIRONMENT)
    try:
        _wait(process, archive, folder / "orthanc.log")
        yield archive
    finally:
        process.kill()  # its storage goes with the test; to end by itself takes it seconds
        process.wait()


def _wait(process: subprocess.Popen, archive: Archive, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not _answers(archive):
        if time.monotonic() > deadline or process.poll() is not None:
            pytest.fail(f"Orthanc does not start: {log.read_text()[-2000:]}")
        time.sleep(0.1)


def _answers(archive: Archive) -> bool:
    try:
        return archive.search("studies") == []
    except OSError:
        return False


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]
