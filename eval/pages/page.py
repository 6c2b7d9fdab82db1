"""Self-contained HTML pages from the templates: one file with style and script inside, readable without a network.

Knows nothing of what a page says. A template extends `base.html`, which holds the look, the script and a content
security policy that forbids the browser to load anything else, and takes what several pages show from `parts.html`.
Values are escaped unless they are `Markup`.
"""

from __future__ import annotations

from pathlib import Path

from ...configs.progress import counted

TEMPLATES = Path(__file__).parent / "templates"


def page(template: str, **values) -> str:
    """The HTML text of a template. An undefined value is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = counted
    return environment.get_template(template).render(**values)
