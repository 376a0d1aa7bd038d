"""The README and the pages under docs: their code runs, and prints what they say it prints.

A page's ``python`` blocks run in order, in one namespace and an empty folder; of a ``bash`` block the lines
that begin with ``kdiff`` run. A ``text`` block right behind either is what it prints, with ``...`` for what
varies.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest

import kdiff_core as kd

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SNIPPET = re.compile(r'^--8<-- "([^"]+)"$', re.MULTILINE)
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND = "import sys; from kdiff_core.cli import main; sys.argv[0] = 'kdiff'; main()"
HOW = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def included(text):
    """The text with the files that it includes, as pymdownx.snippets puts them in."""
    return SNIPPET.sub(lambda found: (ROOT / found[1]).read_text(encoding="utf-8").rstrip(), text)


def blocks(page):
    """The code blocks: language, text, the line it begins on, whether only blanks part it from the last."""
    text, end = page.read_text(encoding="utf-8"), 0
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield found[1], included(found[2]), line, not text[end : found.start()].strip()
        end = found.end()


def run_python(code, module, where):
    # As many empty lines as stand above it, so that a traceback has the page's line.
    program = compile("\n" * where[1] + code, str(where[0]), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(program, vars(module))
    return printed.getvalue()


def run_commands(code):
    printed = []
    for line in code.splitlines():
        if line.startswith("kdiff "):
            done = subprocess.run(
                [sys.executable, "-c", COMMAND, *shlex.split(line, comments=True)[1:]],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
                timeout=120,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            printed.append(done.stdout)
    return "".join(printed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_code_runs(page, tmp_path, monkeypatch):
    """Every block of code runs, and what a page says it prints is what it prints."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType(f"page_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    printed = None
    for language, code, line, follows in blocks(page):
        if language == "text" and follows and printed is not None:
            checker, example = doctest.OutputChecker(), doctest.Example("", code)
            assert checker.check_output(example.want, printed, HOW), (
                f"{page.name}:{line}\n{checker.output_difference(example, printed, HOW)}"
            )
        printed = None
        if language == "python":
            printed = run_python(code, module, (page, line))
        elif language == "bash":
            printed = run_commands(code)


def test_the_readmes_plugin_is_tested():
    """The plugin in the README is the one that tests/packaging installs."""
    plugin = (ROOT / "tests/packaging/tenliner/kdiff_tenliner/__init__.py").read_text(encoding="utf-8")
    assert plugin in README


@pytest.mark.parametrize(
    "kind",
    ["modifiers", "schedules", "processes", "noise", "denoisers", "models", "guidance"],
)
def test_the_readme_lists_what_is_in(kind):
    """Every built-in but samplers, which have their families, is in the README by its name."""
    names = {entry.name for entry in getattr(kd, f"list_{kind}")() if entry.plugin.builtin}
    assert names - set(re.findall(r"`([^`\n]+)`", README)) == set()


def test_the_readmes_links_lead_somewhere():
    """Relative links of the README are files."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_page_is_reachable():
    """Every page is in the navigation."""
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    names = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:]]
    assert [name for name in names if f" {name}\n" not in config] == []


@pytest.fixture
def families(monkeypatch):
    """The hook that makes the pages of the families."""
    monkeypatch.syspath_prepend(str(ROOT / "docs/_hooks"))
    yield importlib.import_module("families")
    for name in ("families", "tables"):
        sys.modules.pop(name, None)


def test_every_sampler_is_in_one_family(families):
    """Each built-in bare name is in the table of one family's page; one of an unknown module is refused."""
    listed = [entry.name for slug in families.FAMILIES for entry in families._members()[slug]]
    assert sorted(listed) == sorted(entry.name for entry in kd.list_samplers() if entry.plugin.builtin)
    with pytest.raises(KeyError, match="'new': no family takes 'somewhere:New'; add its module"):
        families.family_of(kd.Entry("new", "kdiff_samplers.somewhere:New"))


def test_every_family_has_a_page_with_its_tables_and_picture(families):
    """The page has the members, the parameters and, where one is drawn, the picture; no page is left over."""
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (ROOT / "docs/families").glob("*.md")}
    index = pages.pop("index")
    assert pages.keys() == families.FAMILIES.keys()
    for slug, family in families.FAMILIES.items():
        for made in (f"<!-- members: {slug} -->", f"<!-- parameters: {slug} -->", "## When to choose"):
            assert pages[slug].count(made) == 1, (slug, made)
        assert (f"(../pictures/family_{slug}.svg)" in pages[slug]) == bool(family.curves)
        assert f"({slug}.md)" in index


def test_what_a_family_shows_is_there(families):
    """The samplers of the pictures resolve, and every parameter of a class in a family is described."""
    for family in families.FAMILIES.values():
        assert all(kd.get_sampler(name) for name in family.curves)
    undescribed = [
        row
        for slug in families.FAMILIES
        for row in families.parameters(slug).splitlines()
        if row.endswith("|  |")
    ]
    assert undescribed == []
