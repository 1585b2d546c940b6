"""The same input gives the same bytes, whatever the surroundings; nothing else is touched."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ensembles import make_untrained_ensemble
from injection import PROGRAM

from nodulemc.output.multiple_points import OUTPUT_NAME

pytestmark = pytest.mark.heavy

# What a user's machine may set that must not matter; the proxies lead nowhere.
SURROUNDINGS = {
    "LC_ALL": "tr_TR.UTF-8", "LANG": "de_DE.UTF-8", "TZ": "Pacific/Kiritimati", "HOME": "/nonexistent", "TERM": "dumb",
    "PYTHONHASHSEED": "7", "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "COLUMNS": "20",
}  # fmt: skip


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resources")
    make_untrained_ensemble(folder, (1,))
    return folder


def test_a_repetition_in_other_surroundings_gives_the_same_bytes(tmp_path, resources):
    results = []
    for k, surroundings in enumerate([{}, {}, SURROUNDINGS, {"LC_ALL": "C"}]):
        output = tmp_path / str(k)
        output.mkdir()
        command = [*PROGRAM, "--output", str(output), "--resources", str(resources)]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | surroundings)
        results.append((output / OUTPUT_NAME).read_bytes())
    assert set(results) == {results[0]}
    assert len(json.loads(results[0])["points"]) == 2


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
def test_no_connection_is_tried_and_nothing_but_the_output_is_written(tmp_path, resources):
    output = tmp_path / "output"
    output.mkdir()
    calls = "connect,sendto,sendmsg,sendmmsg,open,openat,openat2,creat,mkdir,rename,renameat2,unlink,link,linkat"
    trace = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", str(tmp_path / "trace"), "-e", f"trace={calls}"]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}  # as in the image
    command = [*trace, *PROGRAM, "--output", str(output), "--resources", str(resources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if "Operation not permitted" in done.stderr or "Function not implemented" in done.stderr:
        pytest.skip("this process may not trace others")
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "trace").read_text().splitlines()
    reached = [call for call in calls if re.search(r"\bAF_INET6?\b|sendto|sendmsg|sendmmsg", call)]
    assert reached == []
    writing = [call for call in calls if re.search(r"O_WRONLY|O_RDWR|O_CREAT|creat\(|mkdir\(|rename|link", call)]
    allowed = (str(output), "/dev/null", "/dev/shm", "/proc/", "/tmp/")  # noqa: S108, what Grand-Challenge allows
    elsewhere = [call for call in writing if "ENOENT" not in call and not any(place in call for place in allowed)]
    assert elsewhere == []
    assert any(str(output) in call for call in writing)


def test_no_socket_is_opened_by_python(tmp_path, resources):
    hook = (
        "import runpy, sys\n"
        "def hook(event, arguments):\n"
        "    if event.startswith(('socket.', 'urllib.', 'http.', 'ftplib.', 'subprocess.', 'os.system')):\n"
        "        raise SystemExit(f'tried {event} {arguments}')\n"
        "sys.addaudithook(hook)\n"
        f"sys.argv = {[*PROGRAM[1:], '--output', str(tmp_path), '--resources', str(resources)]!r}\n"
        f"sys.path.insert(0, {str(Path(PROGRAM[1]).parent)!r})\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", hook], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / OUTPUT_NAME).is_file()
