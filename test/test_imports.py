import ast
from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "nodulemc"
# From the bottom up; a module imports from its own line and those above it only. Entry points stand above all.
LAYERS = (
    "errors limits arrays columns ratings hardware geometry",
    "util",
    "program option_types usage",
    "ct",
    "patch points quality",
    "models",
    "ensemble",
    "prediction output",
    "measure",
    "report",
    "dicom_export",
    "grand_challenge",
    "data",
    "phantom",
    "training",
    "evaluation",
    "cohort",
    "options prior_options",
    "commands",
    "cli",
)
LAYER = {name: number for number, line in enumerate(LAYERS) for name in line.split()}


def imported(path: Path, *, for_types: bool = True) -> set[str]:
    tree = ast.parse(path.read_text())
    if not for_types:
        tree.body = [
            node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        ]
    nodes = [*ast.walk(tree)]
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


def test_imports_point_one_way():
    """Down the layers, lazy imports as well; the parts that are side by side may know each other."""
    modules = {path: path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py")}
    upwards = {
        ("/".join(parts), name)
        for path, parts in modules.items()
        if parts[-1] != "__main__" and parts != ("__init__",)
        for name in imported(path, for_types=False)
        if name.startswith("nodulemc.") and LAYER[name.split(".")[1]] > LAYER[parts[0]]
    }
    assert upwards == set()
