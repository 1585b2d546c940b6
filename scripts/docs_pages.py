"""Pages of the documentation site that are made from other files. MkDocs calls this module (see mkdocs.yml)."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = (
    "ct", "points", "ensemble", "output", "measure", "report", "dicom_export", "grand_challenge", "data", "models",
    "training", "evaluation", "cohort", "phantom",
)  # fmt: skip
TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages at the repository's top, and a page for each package."""
    for name, page in TOP.items():
        text = (REPOSITORY / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=re.sub(r"\]\(([^)]+)\)", _moved, text)))
    for package in PACKAGES:
        text = f"# nodulemc.{package}\n\n::: nodulemc.{package}\n    options:\n      show_submodules: true\n"
        files.append(File.generated(config, f"api/{package}.md", content=text))
    return files


def _moved(link: re.Match[str]) -> str:
    """Change a link of the repository's top to one of the site."""
    name, hash_, anchor = link[1].partition("#")
    return f"]({TOP.get(name, name.removeprefix('docs/'))}{hash_}{anchor})"
