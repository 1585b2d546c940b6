"""The image as Grand-Challenge runs it, with a real Docker engine: no way out, read-only, no capabilities."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import tarfile
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from dockerfile import default_base_image
from ensembles import make_untrained_ensemble

from nodulemc.output.multiple_points import OUTPUT_NAME

pytestmark = [
    pytest.mark.container,
    pytest.mark.skipif(shutil.which("docker") is None, reason="no docker; scripts/container_test.sh says more"),
]

REPOSITORY = Path(__file__).resolve().parents[2]
INPUT = REPOSITORY / "test" / "input"
EXPECTED = REPOSITORY / "test" / "expected" / OUTPUT_NAME
CONFINED = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]  # noqa: S108, the container's
RESTRICTIONS = ["--network", "none", *CONFINED]
BASE_IMAGE = os.environ.get("BASE_IMAGE")


def docker(*arguments, check=True):
    return subprocess.run(["docker", *map(str, arguments)], capture_output=True, text=True, check=check)


def build(tag, *options):
    base = ["--base-image", BASE_IMAGE] if BASE_IMAGE else []
    command = [REPOSITORY / "build.sh", "--tag", tag, *base, *options, "--", "--network", "host"]
    built = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    return tag


@pytest.fixture(scope="session")
def image():
    tag = f"nodulemc-test:{uuid.uuid4().hex[:8]}"
    yield build(tag)
    docker("rmi", "--force", tag, check=False)


@pytest.fixture(scope="session")
def invoke_image():
    tag = f"nodulemc-test-invoke:{uuid.uuid4().hex[:8]}"
    yield build(tag, "--api-method", "invoke")
    docker("rmi", "--force", tag, check=False)


@pytest.fixture
def output(tmp_path):
    folder = tmp_path / "output"
    folder.mkdir()
    folder.chmod(0o777)  # the container's user is another one
    return folder


@pytest.fixture
def case(tmp_path):
    return Path(shutil.copytree(INPUT, tmp_path / "input"))


def run_image(image, case, output, *options, user="1001"):
    volumes = ["-v", f"{case}:/input:ro", "-v", f"{output}:/output"]
    return docker("run", "--rm", *RESTRICTIONS, "--user", user, *volumes, *options, image, check=False)


def assert_as_expected(output, tolerance=0.005):
    found = json.loads((output / OUTPUT_NAME).read_text())
    expected = json.loads(EXPECTED.read_text())
    for result, truth in zip(found["points"], expected["points"], strict=True):
        assert result.pop("probability") == pytest.approx(truth.pop("probability"), abs=tolerance)
    assert found == expected
    assert [path.name for path in output.iterdir()] == [OUTPUT_NAME]


@pytest.mark.parametrize("user", ["1001", "4321:4321"])
def test_grand_challenges_run_writes_the_right_json(image, output, user):
    done = run_image(image, INPUT, output, user=user)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert all(line.startswith("warning: ") for line in done.stderr.splitlines())
    assert_as_expected(output)


def test_image_says_what_it_is(image, invoke_image):
    config = json.loads(docker("inspect", image).stdout)[0]["Config"]
    assert config["User"] == "1001"
    assert config["Labels"]["org.grand-challenge.api-method"] == "exec"
    assert config["Labels"]["org.opencontainers.image.title"] == "NoduleMC"
    assert len(config["Labels"]["org.opencontainers.image.revision"]) >= 7
    manifest = (REPOSITORY / "resources" / "ensemble.json").read_bytes()
    assert config["Labels"]["nodulemc.model.sha256"] == hashlib.sha256(manifest).hexdigest()
    invoke = json.loads(docker("inspect", invoke_image).stdout)[0]["Config"]
    assert invoke["Labels"]["org.grand-challenge.api-method"] == "invoke"


@pytest.mark.usefixtures("image")  # whose layers are this build's, up to the unknown method
def test_an_unknown_api_method_is_not_built():
    command = [str(REPOSITORY / "build.sh"), "--tag", "nodulemc-test:none", "--api-method", "common"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "use exec or invoke" in refused.stderr
    base = ["--build-arg", f"BASE_IMAGE={BASE_IMAGE}"] if BASE_IMAGE else []
    options = ["--network", "host", *base, "--build-arg", "API_METHOD=common", "--tag", "nodulemc-test:none"]
    refused = docker("build", *options, REPOSITORY, check=False)
    assert refused.returncode != 0
    assert "FROM api-${API_METHOD}" in refused.stdout + refused.stderr


def test_the_base_images_torch_is_kept(image):
    base = BASE_IMAGE or default_base_image()
    print_version = ["--rm", "--network", "none", "--entrypoint", "python"]
    code = ["-c", "import torch; print(torch.__version__)"]
    assert docker("run", *print_version, image, *code).stdout == docker("run", *print_version, base, *code).stdout


def test_a_mounted_ensemble_wins(image, output, tmp_path):
    make_untrained_ensemble(tmp_path / "model", (77,))
    done = run_image(image, INPUT, output, "-v", f"{tmp_path / 'model'}:/opt/ml/model:ro")
    assert done.returncode == 0, done.stderr
    assert "/opt/ml/model: the weights are untrained" in done.stderr
    found = json.loads((output / OUTPUT_NAME).read_text())["points"]
    expected = json.loads(EXPECTED.read_text())["points"]
    assert all(abs(f["probability"] - e["probability"]) > 1e-4 for f, e in zip(found, expected, strict=True))


def test_a_mounted_ensemble_may_lie_one_folder_deep_and_is_never_passed_over(image, output, tmp_path):
    make_untrained_ensemble(tmp_path / "model" / "wrapped", (77,))
    mounted = ["-v", f"{tmp_path / 'model'}:/opt/ml/model:ro"]
    done = run_image(image, INPUT, output, *mounted)
    assert done.returncode == 0, done.stderr
    assert "/opt/ml/model: the weights are untrained" in done.stderr
    (tmp_path / "model" / "wrapped" / "ensemble.json").unlink()
    done = run_image(image, INPUT, output, *mounted)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: no ensemble.json in it or one folder below; it holds wrapped/: /opt/ml/model: ")
    assert list(output.iterdir()) == []


def no_ct(case):
    (case / "images" / "chest-ct" / "ct.mha").unlink()
    return "no CT"


def broken_points(case):
    (case / "nodule-locations.json").write_text("{")
    return "nodule-locations.json"


def far_point(case):
    points = [{"name": "far", "point": [0, 0, 5000]}]
    (case / "nodule-locations.json").write_text(json.dumps({"points": points}))
    return "mm outside the CT"


def truncated_ct(case):
    ct = case / "images" / "chest-ct" / "ct.mha"
    ct.write_bytes(ct.read_bytes()[:100_000])
    return "ct.mha"


DAMAGES = [no_ct, broken_points, far_point, truncated_ct]


@pytest.mark.parametrize("damage", DAMAGES)
def test_bad_input_is_exit_code_2_one_line_and_no_output(image, case, output, damage):
    named = damage(case)
    done = run_image(image, case, output)
    assert done.returncode == 2, done.stderr
    (error,) = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert error.startswith("error: ")
    assert named in error
    assert not list(output.iterdir())


def test_an_output_that_cannot_be_written_is_exit_code_2(image, output):
    output.chmod(0o755)
    done = run_image(image, INPUT, output)
    assert done.returncode == 2, done.stderr
    assert "Permission denied" in done.stderr.splitlines()[-1]


def test_a_read_only_output_is_exit_code_2(image, output):
    volumes = ["-v", f"{INPUT}:/input:ro", "-v", f"{output}:/output:ro"]
    done = docker("run", "--rm", *RESTRICTIONS, "--user", "1001", *volumes, image, check=False)
    assert done.returncode == 2, done.stderr
    assert "Read-only file system" in done.stderr.splitlines()[-1]


def test_a_full_output_is_exit_code_2(image):
    options = ["--tmpfs", "/output:size=4k", "-v", f"{INPUT}:/input:ro", "--entrypoint", "sh"]
    script = (
        "head -c 4096 /dev/zero >/output/filler; python inference.py; code=$?; "
        "rm /output/filler; ls -A /output; exit $code"
    )
    # A tmpfs over the image's folder takes its owner, root.
    done = docker("run", "--rm", *RESTRICTIONS, "--user", "0", *options, image, "-c", script, check=False)
    assert done.returncode == 2, done.stderr
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert done.stdout == ""


def test_too_little_memory_leaves_no_output(image, output):
    done = run_image(image, INPUT, output, "--memory", "250m", "--memory-swap", "250m")
    assert done.returncode in (2, 137), (done.returncode, done.stderr)  # told, or killed by the kernel
    assert not list(output.iterdir())


@pytest.mark.parametrize(("signal_name", "codes"), [("KILL", {0, 137}), ("TERM", {0, 143})])
def test_a_signal_at_a_random_moment_leaves_all_or_nothing(image, output, signal_name, codes):
    for k in range(3):
        volumes = ["-v", f"{INPUT}:/input:ro", "-v", f"{output}:/output"]
        container = docker("run", "--detach", *RESTRICTIONS, "--user", "1001", *volumes, image).stdout.strip()
        try:
            time.sleep(random.Random(k).uniform(0.5, 4))  # noqa: S311, no secret
            docker("kill", "--signal", signal_name, container, check=False)  # it may have ended
            assert int(docker("wait", container).stdout) in codes, docker("logs", container).stderr
        finally:
            docker("rm", "--force", container, check=False)
        left = [path.name for path in output.iterdir()]
        assert left in ([], [OUTPUT_NAME])
        if left:
            assert_as_expected(output)
            (output / OUTPUT_NAME).unlink()


# Arguments: host, method, path. Prints status and body, or null where the connection is refused or lost.
ASK = """
import json, sys, urllib.error, urllib.request
host, method, path = sys.argv[1:]
request = urllib.request.Request(f"http://{host}:4743{path}", method=method)
try:
    answer = urllib.request.urlopen(request, timeout=120)
except urllib.error.HTTPError as error:
    answer = error
except OSError:
    print("null")
    sys.exit()
print(json.dumps([answer.status, answer.read().decode()]))
"""

# Argument: host. Prints when a connection was first accepted and when each health request was answered how.
WATCH = """
import http.client, json, socket, sys, time
while True:
    try:
        socket.create_connection((sys.argv[1], 4743)).close()
        break
    except ConnectionRefusedError:
        time.sleep(0.005)
opened = time.time()
answers = []
while not answers or answers[-1][0] != 200:
    connection = http.client.HTTPConnection(sys.argv[1], 4743, timeout=60)
    connection.request("GET", "/health")
    answers.append((connection.getresponse().status, time.time()))
    time.sleep(0.05)
print(json.dumps([opened, answers]))
"""


@pytest.fixture
def network():
    """A network without a way out, as Grand-Challenge's, on which the containers meet."""
    name = f"nodulemc-test-{uuid.uuid4().hex[:8]}"
    docker("network", "create", "--internal", name)
    yield name
    docker("network", "rm", name)


@contextmanager
def container_of(image, *options, command=()):
    container = docker("run", "--detach", *options, image, *command).stdout.strip()
    try:
        yield container
    finally:
        docker("rm", "--force", container, check=False)


def waiting(image, network):
    """A container on the network in which nothing happens by itself."""
    return container_of(image, "--network", network, "--entrypoint", "sleep", command=["infinity"])


@pytest.fixture
def client(invoke_image, network):
    with waiting(invoke_image, network) as container:
        yield container


def address_of(container):
    (network,) = json.loads(docker("inspect", container).stdout)[0]["NetworkSettings"]["Networks"].values()
    return network["IPAddress"]


def in_client(client, code, *arguments):
    command = ["docker", "exec", client, "python", "-c", code, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def answer_of(process):
    printed, _ = process.communicate(timeout=180)
    return json.loads(printed)


def ask(client, server, method, path):
    """Status and body of a request from one container to another."""
    return answer_of(in_client(client, ASK, address_of(server), method, path))


def wait_until_ready(client, server):
    return answer_of(in_client(client, WATCH, address_of(server)))


def exit_code_after_stop(container):
    """0 where SIGTERM ended the container, 137 where only the SIGKILL after it did."""
    docker("stop", "--time", "5", container)  # as Grand-Challenge's runner does
    return json.loads(docker("inspect", container).stdout)[0]["State"]["ExitCode"]


def handles_sigterm(container):
    """Whether the container's first process, for which SIGTERM does nothing by default, has a handler for it."""
    status = docker("exec", container, "cat", "/proc/1/status").stdout
    (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def test_invoke_ends_on_sigterm_while_it_loads(invoke_image):
    with container_of(invoke_image, *RESTRICTIONS, "--tmpfs", "/output:uid=1001") as container:
        while not handles_sigterm(container):
            time.sleep(0.05)
        assert exit_code_after_stop(container) == 0
        assert docker("logs", container).stdout == ""


def test_invoke_ends_on_sigterm_with_a_case_in_hand(invoke_image, network, client, case, output):
    first = json.loads((case / "nodule-locations.json").read_text())["points"][0]["point"]
    points = [{"name": str(k), "point": [first[0] + 0.01 * k, *first[1:]]} for k in range(500)]
    (case / "nodule-locations.json").write_text(json.dumps({"points": points}))
    volumes = ["-v", f"{case}:/input:ro", "-v", f"{output}:/output"]
    with container_of(invoke_image, "--network", network, *CONFINED, *volumes) as server:
        wait_until_ready(client, server)
        invoked = in_client(client, ASK, address_of(server), "POST", "/invoke")
        time.sleep(3)
        assert invoked.poll() is None
        start = time.monotonic()
        assert exit_code_after_stop(server) == 0
        assert time.monotonic() - start < 5
        assert answer_of(invoked) is None
        assert docker("logs", server).stderr == ""
    assert not list(output.iterdir())


def test_the_port_is_open_within_a_second_and_health_is_503_until_the_ensemble_is_loaded(invoke_image, network, client):
    # The server joins a network stack that is already there, where connections are refused until it listens.
    with waiting(invoke_image, network) as stack:
        watched = in_client(client, WATCH, address_of(stack))
        time.sleep(1)
        options = ["--network", f"container:{stack}", *CONFINED, "--tmpfs", "/output:uid=1001"]
        with container_of(invoke_image, *options) as server:
            opened, answers = answer_of(watched)
            started = json.loads(docker("inspect", server).stdout)[0]["State"]["StartedAt"]
    assert opened - np.datetime64(started.rstrip("Z"), "us").astype(int) / 1e6 < 1
    statuses = [status for status, _ in answers]
    assert statuses[0] == 503
    assert statuses == [503] * (len(statuses) - 1) + [200]


def test_invoke_serves_good_and_bad_cases_in_turn(invoke_image, network, client, case, output):
    volumes = ["-v", f"{case}:/input:ro", "-v", f"{output}:/output"]
    with container_of(invoke_image, "--network", network, *CONFINED, "--user", "1001", *volumes) as server:
        wait_until_ready(client, server)
        points = (case / "nodule-locations.json").read_text()
        for _ in range(2):
            status, body = ask(client, server, "POST", "/invoke")
            assert (status, json.loads(body)) == (201, {"nodules": 2})
            assert_as_expected(output)
            (case / "nodule-locations.json").write_text("{")
            status, body = ask(client, server, "POST", "/invoke")
            assert status == 422
            assert "nodule-locations.json" in json.loads(body)["error"]
            assert not list(output.iterdir())
            (case / "nodule-locations.json").write_text(points)
        assert exit_code_after_stop(server) == 0


def test_invoke_follows_the_link_that_input_is_to_another_case(invoke_image, network, client, case, output):
    other = Path(shutil.copytree(case, case.parent / "other"))
    content = json.loads((other / "nodule-locations.json").read_text())
    del content["points"][0]
    (other / "nodule-locations.json").write_text(json.dumps(content))
    volumes = ["-v", f"{case.parent}:/cases:ro", "-v", f"{output}:/output"]
    start = "rmdir /input && ln -s /cases/input /input && exec python -m nodulemc.grand_challenge"
    # Who makes links in the root folder is root.
    options = ["--network", network, "--cap-drop", "ALL", "--user", "0", *volumes, "--entrypoint", "sh"]
    with container_of(invoke_image, *options, command=["-c", start]) as server:
        wait_until_ready(client, server)
        assert ask(client, server, "POST", "/invoke")[0] == 201
        assert_as_expected(output)
        docker("exec", server, "sh", "-c", "rm /input && ln -s /cases/other /input")
        assert ask(client, server, "POST", "/invoke")[0] == 201
    found = json.loads((output / OUTPUT_NAME).read_text())["points"]
    (expected,) = json.loads(EXPECTED.read_text())["points"][1:]
    assert found == [expected | {"probability": pytest.approx(expected["probability"], abs=0.005)}]
    assert [path.name for path in output.iterdir()] == [OUTPUT_NAME]


def test_exported_archives_load_and_run(image, output, tmp_path):
    command = [REPOSITORY / "export.sh", "--tag", image, "--output", tmp_path / "dist"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    name = image.replace(":", "-")
    archives = [f"{name}-image.tar.gz", f"{name}-model.tar.gz"]
    for archive in archives:
        checked = subprocess.run(
            ["sha256sum", "-c", f"{archive}.sha256"], cwd=tmp_path / "dist", capture_output=True, text=True, check=True
        )
        assert checked.stdout == f"{archive}: OK\n"
    docker("rmi", "--force", image)
    assert image in docker("load", "--input", tmp_path / "dist" / archives[0]).stdout
    model = tmp_path / "dist" / archives[1]
    with tarfile.open(model) as archive:
        members = archive.getmembers()
        archive.extractall(tmp_path / "model")  # noqa: S202 (written by export.sh; no filter before Python 3.11.4)
    assert (tmp_path / "model" / "ensemble.json").is_file()
    # Reproducible: nothing in the archive depends on when, where or by whom it was made.
    assert [member.name for member in members] == sorted(member.name for member in members)
    assert {(m.mtime, m.uid, m.gid, m.mode & 0o022) for m in members} == {(0, 0, 0, 0)}
    assert model.read_bytes()[4:8] == bytes(4)  # gzip's time stamp
    done = run_image(image, INPUT, output, "-v", f"{tmp_path / 'model'}:/opt/ml/model:ro")
    assert done.returncode == 0, done.stderr
    assert_as_expected(output)
