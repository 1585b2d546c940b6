import re
import subprocess
import sys

import pytest
from ensembles import make_untrained_ensemble

from nodulemc import cli
from nodulemc.errors import CaseError


def test_help_lists_every_command():
    shown = subprocess.run([sys.executable, "-m", "nodulemc.cli", "--help"], capture_output=True, text=True, check=True)
    text = " ".join(shown.stdout.split())
    for name, summary in cli.COMMANDS.items():
        assert f"{name} {summary}" in text


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_help_shows_one_example(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert f"example:\n  nodulemc {name} " in capsys.readouterr().out


def test_help_does_not_import_torch():
    code = (
        "import sys\nfrom nodulemc.cli import main\n"
        "try: main(['predict', '--help'])\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_users_error_is_one_line_and_exit_code_2(capsys):
    def fail():
        raise CaseError("two\nlines", "here", "do this")

    assert cli.exit_code_of(fail) == 2
    assert capsys.readouterr().err == "error: two lines: here: do this\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.exit_code_of(lambda: 1 / 0)


def test_interruption_is_no_traceback(capsys):
    def interrupt():
        raise KeyboardInterrupt

    assert cli.exit_code_of(interrupt) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_bench_prints_seconds_per_nodule(tmp_path, capsys):
    make_untrained_ensemble(tmp_path)
    assert cli.main(["bench", "--nodules", "1", "--device", "cpu", "--resources", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    seconds, rate = re.search(r"nodule +([\d.]+) s \(([\d.]+) per second\)", shown).groups()
    assert float(seconds) > 0
    assert float(rate) == pytest.approx(1 / float(seconds), rel=0.1)
    assert "cpu, bf16, 1 seeds" in shown or "cpu, fp32, 1 seeds" in shown
    assert cli.main(["bench", "--nodules", "0"]) == 2
