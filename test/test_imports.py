import ast
from pathlib import Path

TESTS = Path(__file__).parent


def imported(path: Path) -> set[str]:
    nodes = [*ast.walk(ast.parse(path.read_text()))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


def test_no_test_imports_another():
    """What tests share is in modules of its own, so that each file runs alone."""
    tests = {path.stem for path in TESTS.rglob("test_*.py")}
    assert {
        (str(path.relative_to(TESTS)), name)
        for path in TESTS.rglob("*.py")
        for name in imported(path)
        if tests & {*name.split(".")}
    } == set()
