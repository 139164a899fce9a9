"""From templates to pages: everything is escaped, and every text of a record is one short line."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from leaderboards.site.words import count, number, percent, signed

LONGEST = 600
"""Characters of a text of a record that are shown."""


def _shown(value: Any) -> Any:
    """What an expression of a template gives: no line breaks, controls or marks of direction."""
    if isinstance(value, str) and not isinstance(value, Markup):
        if not value.isprintable():
            value = "".join(c if c.isprintable() else " " for c in value)
        return value if len(value) <= LONGEST else value[: LONGEST - 1] + "…"
    return value


def templates_of(package: str, **options: Any) -> Environment:
    """The templates of a package: all that they are given is escaped, and has to be there."""
    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )


@cache
def environment() -> Environment:
    """The templates of the site, with their filters."""
    made = templates_of("leaderboards.site", finalize=_shown)
    made.filters |= {"percent": percent, "number": number, "count": count, "signed": signed}
    return made


def render(template: str, **values: Any) -> bytes:
    """Return a page.

    Args:
        template: Name of its file.
        values: What it speaks of.
    """
    return (environment().get_template(template).render(**values).strip() + "\n").encode()
