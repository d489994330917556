"""What all programs written in Fortran or C have in common: names of modules, and templates."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2

from scimill.errors import ConfigError

NAME = re.compile(r"[a-z]\w{0,62}", re.ASCII | re.IGNORECASE)


def module_name(path: Path) -> str:
    """Return the name of the Fortran module that a file contains.

    Raises
    ------
    ConfigError : Fortran does not allow it.

    """
    module = path.stem.replace("-", "_")
    if not NAME.fullmatch(module):
        allowed = "at most 63 letters, digits and _, starting with a letter"
        what = f"'{module}' is not a valid name of a Fortran module"
        raise ConfigError(what, where=str(path), allowed=allowed, remedy="choose another file name")
    return module


def require_unused(module: str, text: str, path: Path) -> None:
    """Check that a module does not use its own name for something else.

    Raises
    ------
    ConfigError : it does.

    """
    code = re.sub(r'!.*|".*"', "", text)
    if len(re.findall(rf"\b{module}\b", code, re.IGNORECASE)) > 2:  # first and last line of the module
        what = f"the name {module} is already used inside the module"
        raise ConfigError(what, where=str(path), remedy="choose another file name")


def render(package: str, template: str, filters: Mapping[str, Callable[..., str]], values: Mapping[str, Any]) -> str:
    """Fill in a template of a package, with filters of the language."""
    loader = jinja2.PackageLoader(package, "templates")
    layout: Any = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, **layout)
    environment.filters |= filters
    return environment.get_template(template).render(values)
