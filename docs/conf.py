"""How Sphinx builds these pages: ``make docs``."""

from __future__ import annotations

import sys
from pathlib import Path

from naevus import __version__

sys.path.insert(0, str(Path(__file__).with_name("extensions")))

project = "naevus"
release = __version__
copyright = "the naevus authors. Research use only, never a diagnosis"  # noqa: A001
language = "en"

extensions = [
    "api",
    "links",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["extensions"]
default_role = "py:obj"  # a name in a docstring becomes a link; anything else is set as code
smartquotes = False  # keeps --data

myst_heading_anchors = 4
nb_execution_mode = "force"  # output is always current
nb_execution_raise_on_error = True
nb_execution_timeout = 300

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
napoleon_attr_annotations = False  # "np.bool_" would become a link
napoleon_use_ivar = True  # documents attributes once
suppress_warnings = ["ref.python"]  # short names that two modules share

html_theme = "furo"
html_title = "naevus"
html_copy_source = False
html_show_search_summary = False  # needs fetching, which fails from disk
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#00695c", "color-brand-content": "#00695c"},
    "dark_css_variables": {"color-brand-primary": "#4db6ac", "color-brand-content": "#4db6ac"},
}
