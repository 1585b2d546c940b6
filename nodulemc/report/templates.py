"""Pages from templates: one file each that needs nothing else, whatever the names in it."""

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
    """A page's HTML; all values are escaped.

    Args:
        package: which holds the template; those of this package can be included in it.
        template: its file name.
        script: the file name of the package's script, which the template has as ``script``, and the hash by which its
            content security policy lets no other run as ``script_hash``.
        filters: functions for the template.
        values: by the template's names.
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
