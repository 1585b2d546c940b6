"""The last line of `scripts/container_test.sh`."""


def pytest_unconfigure(config):
    if config.option.markexpr != "container":
        return
    stats = config.pluginmanager.get_plugin("terminalreporter").stats
    passed, failed, broken = (len(stats.get(key, [])) for key in ("passed", "failed", "error"))
    print(f"{passed} passed, {failed + broken} failed")
