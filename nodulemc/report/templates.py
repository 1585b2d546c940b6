"""Rendering pages from templates, each as one file that needs nothing else."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import jinja2


def render(
    package: str,
    template: str,
    *,
    script: str | None = None,
    filters: Mapping[str, Callable[..., Any]] | None = None,
    **values: Any,
) -> str:
    """Return a page's HTML. All values are escaped.

    Args:
        package: The package with the template. It may include templates of this package.
        template: The template's file name.
        script: The file name of the package's script. The template gets it as ``script``, and as ``script_hash`` the
            hash for its content security policy, which lets no other script run.
        filters: Functions for the template.
        values: The values by the template's names.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name, ".") for name in (package, __package__)]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters or {}
    if script is not None:
        code = resources.files(package).joinpath(script).read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        values |= {"script": code, "script_hash": digest}
    return environment.get_template(template).render(values)
