"""Settings of Sphinx for the manual, which ``make docs`` builds without a network connection."""

import dataclasses
import os
import re
import shutil
from pathlib import Path

from docutils.nodes import SkipNode, math_block
from latex2mathml.converter import convert
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import pristina
from pristina.methods import METHODS
from pristina.settings import Settings, field_types, range_in_words

os.environ.setdefault("OMP_NUM_THREADS", "1")
DOCS = Path(__file__).parent
PAGES = {".md", ".png", ".webp"}
USE_OF_THE_FORM = {
    "never": "not used",
    "size": "only for the size of the picture",
    "optional": "optional",
    "required": "required",
}

project = "pristina"
author = copyright = "The pristina developers"
version = release = pristina.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/*.py", "gallery/*.ipynb"]

html_theme = "furo"
html_title = "pristina"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["style"]
html_css_files = ["manual.css"]
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Glossary", "params_style"), "Source", "About"]

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "ignore_pattern": r"demo\.py$",
    "download_all_examples": False,
    "write_computation_times": False,
    "capture_repr": (),
    "show_signature": False,
    "show_memory": False,
    "min_reported_time": 1e9,
    "reset_modules": (),
}


class MethodReference(SphinxDirective):
    """Write what the table of methods and the method's own module say about it."""

    required_arguments = 1

    def run(self):
        """Return the nodes of facts, settings, presets, function and source."""
        entry = METHODS[self.arguments[0]]
        module = f"pristina.methods.{entry.name}"
        lines = ["## Facts", "", *self.facts(entry), "", "## Settings", ""]
        lines += as_rst(f".. autoclass:: pristina.methods::{entry.settings_name}")
        if entry.presets:
            lines += ["## Presets", "", *self.presets(entry, module), ""]
        lines += ["## Function", "", *as_rst(f".. autofunction:: pristina.methods::{entry.name}")]
        lines += ["## Source and differences", ""]
        lines += as_rst(f".. automodule:: {module}\n   :no-index:")
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)

    def presets(self, entry, module):
        """Return the rows of a table of presets: what is said of each, and what it changes."""
        said = ModuleAnalyzer.for_module(module).find_attr_docs()
        plain = dataclasses.asdict(entry.settings())
        yield from (
            "| preset | what it is | settings other than the defaults |",
            "| --- | --- | --- |",
        )
        for name in entry.presets:
            about = " ".join(said.get(("", name.upper()), [])).replace("``", "`").strip()
            changed = dataclasses.asdict(entry.make_settings(name)).items() - plain.items()
            words = ", ".join(f"`{key}={value}`" for key, value in sorted(changed))
            yield f"| `{name}` | {about} | {words} |"

    def facts(self, entry):
        """Return the rows of a table."""
        weights = ["none" if entry.prior == "none" else f"{entry.prior} prior"]
        weights += [f"{kind} (`{name}`)" for name, kind in entry.extra_weights.items()]
        presets = {"default": None, **{f"`{name}`": name for name in entry.presets}}
        yield from ("| | |", "| --- | --- |", f"| weights | {', '.join(weights)} |")
        yield f"| form of the damage | {USE_OF_THE_FORM[entry.operator]} |"
        yield f"| needs what a blind method cannot know | {'yes' if entry.oracle else 'no'} |"
        for title, preset in presets.items():
            calls = entry.calls(entry.make_settings(preset))
            most = "at most " if calls.may_stop else ""
            backward = f", {calls.backward} of them differentiated" if calls.backward else ""
            yield f"| network calls, {title} | {most}{calls.forward}{backward} |"


def as_rst(directive):
    """Return the lines that embed a directive of reStructuredText in Markdown."""
    return ["```{eval-rst}", directive, "```", ""]


class TableOfMethods(SphinxDirective):
    """Write the table of methods."""

    def run(self):
        """Return the nodes of the table."""
        rows = [
            "| method | what it does | weights | form of the damage |",
            "| --- | --- | --- | --- |",
        ]
        for name, entry in METHODS.items():
            form = USE_OF_THE_FORM[entry.operator]
            rows.append(f"| [`{name}`]({name}.md) | {entry.title} | {entry.prior} | {form} |")
        return self.parse_text_to_nodes("\n".join(rows))


def add_tables():
    """Copy the tables of measurements, so that they are pages of the manual."""
    (DOCS / "benchmarks").mkdir(exist_ok=True)
    for path in (DOCS.parent / "benchmarks").iterdir():
        if path.suffix in PAGES:
            name = "index.md" if path.name == "README.md" else path.name
            shutil.copy2(path, DOCS / "benchmarks" / name)


def adapt_links(app, page, source):
    """Change links that suit the repository into links that suit the manual."""
    if page.startswith("benchmarks/"):
        text = source[0].replace("](../", "](../../").replace("](../../docs/", "](../")
        source[0] = text.replace("](README.md", "](index.md")
        if page == "benchmarks/index":
            source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n*\n```\n"
    else:
        source[0] = re.sub(r"\]\(((?:\.\./)*)\.\./benchmarks/", r"](\1benchmarks/", source[0])


def add_ranges(app, what, name, obj, options, lines):
    """Add the range of each setting to what the docstring of its class says about it."""
    if what != "class" or not issubclass(obj, Settings) or "Attributes:" not in lines:
        return
    kinds, found, words = field_types(obj), [], ""
    inside = False
    for line in [*lines, ""]:
        starts = re.match(r" {4}(\w+): ", line) if inside else None
        if words and (starts or not line.startswith(" " * 8)):
            found[-1] += f" {words}"
            words = ""
        if starts:
            words = range_in_words(kinds[starts[1]])
        inside = line == "Attributes:" or (inside and line.startswith(" " * 4))
        found.append(line)
    lines[:] = found


def write_math(writer, node):
    """Write a formula as MathML, which browsers show without a script."""
    block = isinstance(node, math_block)
    formula = convert(node.astext(), display="block" if block else "inline")
    if "\\" in formula:
        logging.getLogger(__name__).warning("unknown command in %r", node.astext(), location=node)
    writer.body.append(f"<div class='math'>{formula}</div>" if block else formula)
    raise SkipNode


def setup(app):
    """Set up what the manual adds to Sphinx."""
    add_tables()
    app.add_directive("method-reference", MethodReference)
    app.add_directive("table-of-methods", TableOfMethods)
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))
    app.connect("source-read", adapt_links)
    app.connect("autodoc-process-docstring", add_ranges, priority=100)  # Before napoleon.
