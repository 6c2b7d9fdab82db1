"""Settings of Sphinx for the site that `build.py` makes; the pages themselves are Markdown (MyST)."""

import re

import understudy

project, author, copyright = "understudy", "understudy developers", "understudy developers, Apache-2.0"
version = release = understudy.__version__
root_doc = "README"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

myst_enable_extensions = ["fieldlist"]
myst_heading_anchors = 6  # as GitHub names them
default_role = "code"  # docstrings write `name`
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": True}
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

html_theme, html_title = "furo", f"understudy {version}"
html_copy_source, html_show_sphinx = False, False
html_theme_options = {"navigation_with_keys": True}

SECTION = re.compile(r"\s*(Args|Returns|Raises|Yields|Attributes|Examples?|Note|Notes):\s*$")


def setup(app):
    """Docstrings are plain text: an indented block after a blank line is code."""
    app.connect("autodoc-process-docstring", mark_code)


def mark_code(app, what, name, thing, options, lines):
    """Put `::` before indented blocks that no section head begins, in place."""
    marked, inside = [], False
    for number, line in enumerate(lines):
        blank, before = not line.strip(), lines[number - 1] if number else ""
        if SECTION.match(line):
            inside = True
        elif line and not line.startswith(" "):
            inside = False
        if not inside and line.startswith("    ") and not before.strip() and not _in_code(marked):
            marked += ["::", ""]
        marked.append("" if blank else line.replace("*", r"\*") if not line.startswith("    ") else line)
    lines[:] = marked


def _in_code(marked):
    """Whether the lines so far end in an indented block."""
    written = [line for line in marked if line.strip()]
    return bool(written) and written[-1].startswith("    ")
