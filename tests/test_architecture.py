"""The rules that keep the tree in shape: who imports whom, what loads torch, sizes, docstrings, files."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tokenize
import tomllib
from functools import cache, reduce
from pathlib import Path

import pytest

import kdiff_core as kd

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = sorted(path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").exists())
FILES = sorted(
    path for folder in ("kdiff_core", "plugins") for path in (ROOT / folder).rglob("*.py") if path.is_file()
)
LIGHT = (
    "protocols", "training", "lookup", "linear", "path", "grid", "plans", "registry", "numerics", "context",
    "sampler", "brownian", "entry", "names", "loading", "index", "building", "errors", "hookspecs",
)  # fmt: skip
TOP = {
    "kdiff_core", "plugins", "tests", "docs", "pyproject.toml", "mkdocs.yml", "README.md", ".ci", "LICENSE",
    ".gitignore",
}  # fmt: skip
LONGEST = 400


def relative(path):
    return path.relative_to(ROOT).as_posix()


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "plugins" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}
sources = pytest.mark.parametrize("path", FILES, ids=relative)


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def targets(node, path):
    """The modules that an import statement may load: ``from a import b`` gives a and a.b."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        package = module_name(path).split(".")
        up = node.level - (path.name == "__init__.py")
        base = ".".join([*package[: len(package) - up], *filter(None, [node.module])])
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]


def imports(path):
    """All modules that a file imports anywhere, and those that it names for an import by name."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += targets(node, path)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += re.findall(r"^(\w+)[.:][\w.:]+$", node.value)
    return found


def imports_at_once(path):
    """The modules that are loaded as soon as a file is: not in functions, not for type checkers."""
    found, todo = [], list(tree(path).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += targets(node, path)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            todo += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
    return found


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- who imports whom


@sources
def test_no_plugin_is_imported_from_outside_itself(path):
    """Core imports no plugin, a plugin no other plugin: not in functions, not for types, not by a string."""
    own = module_name(path).split(".")[0]
    found = {name.split(".")[0] for name in imports(path)} & set(PLUGINS)
    assert found <= {own}


MODULE_OF = {"pyyaml": "yaml", "pillow": "PIL", "scikit-learn": "sklearn"}


@cache
def declared(extra):
    """The modules that come with an extra, and with the extras that it includes; "" is every installation."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = set()
    for need in project["optional-dependencies"][extra] if extra else project["dependencies"]:
        name, more = re.match(r"([\w-]+)(?:\[([\w,]+)\])?", need).groups()
        if name == project["name"]:
            found = found.union(*map(declared, more.split(",")))
        else:
            found.add(MODULE_OF.get(name, name.replace("-", "_")))
    return found


@sources
def test_what_is_imported_is_declared(path):
    """What a module needs as soon as it is loaded comes with every installation, or with its part's extra."""
    parts = {"cli": "cli", "testing": "testing", "diffusers.py": "diffusers", "kdiff_train": "train"}
    extras = [extra for part, extra in parts.items() if part in path.parts]
    known = set().union(
        *map(declared, ["", *extras]), {"attr", "kdiff_core", *PLUGINS}, sys.stdlib_module_names
    )
    assert {name.split(".")[0] for name in imports_at_once(path)} <= known


@pytest.mark.parametrize("name", LIGHT)
def test_light_modules_need_no_torch(name):
    """Neither they nor what they import at once import torch."""
    seen, todo = set(), [f"kdiff_core.{name}"]
    while todo:
        module = todo.pop()
        assert module.split(".")[0] != "torch", f"kdiff_core.{name} loads torch"
        if module in MODULES and module not in seen:
            seen.add(module)
            todo += imports_at_once(MODULES[module])


def test_light_modules_load_no_torch():
    """The same, seen from outside."""
    loads = "; ".join(f"import kdiff_core.{name}" for name in LIGHT)
    assert run(f"import sys; {loads}; print('torch' in sys.modules)").strip() == "False"


def test_listing_and_planning_load_no_torch():
    """Listing everything there is, building a sampler and planning a run: no torch."""
    code = """
import sys
import kdiff_core as kd
for kind in ("samplers", "modifiers", "schedules", "processes", "noise", "denoisers", "models", "guidance"):
    getattr(kd, f"list_{kind}")(hosts=True)
sigmas = kd.get_schedule("karras")(10, sigma_min=0.03, sigma_max=14.6)
kd.get_sampler("dpmpp_sde").plan(sigmas).increments().table()
kd.plan("heun", sigmas).evaluations
print([name for name in ("torch", "scipy", "matplotlib") if name in sys.modules])
"""
    assert run(code).strip() == "[]"


def test_no_module_hides_a_public_name():
    """``kd.plan`` stays what it is when a module is loaded: no module of the core has a public name."""
    modules = {name.split(".")[1] for name in MODULES if name.startswith("kdiff_core.")}
    assert modules & set(dir(kd)) == set()


# -- what a file looks like


@sources
def test_modules_are_short(path):
    """A module is one thing, and can be read in one sitting."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def public(body, prefix=""):
    """The public functions and classes of a module, and their public methods."""
    for node in body:
        if isinstance(node, ast.If):
            yield from public([*node.body, *node.orelse], prefix)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            overloads = [ast.unparse(d) for d in node.decorator_list]
            if node.name.startswith("_") or "overload" in overloads:
                continue
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{prefix}{node.name}.")


def inherits(path, name):
    """Whether a method overrides another, whose docstring is then its own."""
    owner, _, method = name.rpartition(".")
    if not owner:
        return False
    made = reduce(getattr, owner.split("."), importlib.import_module(module_name(path)))
    return any(method in vars(base) for base in inspect.getmro(made)[1:])


@sources
def test_everything_public_has_a_docstring(path):
    """Modules, public classes, functions and methods say what they are; overrides what they override."""
    assert ast.get_docstring(tree(path))
    bare = [name for name, node in public(tree(path).body) if not ast.get_docstring(node)]
    assert [name for name in bare if not inherits(path, name)] == []


@pytest.mark.parametrize("entry", [e for e in kd.list_samplers() if e.plugin.builtin], ids=lambda e: e.name)
def test_samplers_cite_and_state_their_order(entry):
    """A sampler's docstring cites a paper or its author with the year, and states the order."""
    text = inspect.getdoc(entry.load()) or ""
    assert re.search(r"arXiv:\d{4}\.\d{4,5}|\b(19|20)\d\d\b", text), text
    assert re.search(r"\border\b", text, re.IGNORECASE), text
    assert entry.summary
    assert entry.reference


SAMPLERS = ROOT / "plugins/kdiff_samplers"
SERVED = [entry for entry in kd.list_samplers() if entry.plugin.builtin]


def code_lines(path):
    """Lines of code of a file: no comments, docstrings or blank lines."""
    text = [node.body[0] for node in ast.walk(tree(path)) if getattr(node, "body", None) and _docstring(node)]
    without = {line for each in text for line in range(each.lineno, each.end_lineno + 1)}
    layout = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    with path.open("rb") as file:
        tokens = [t for t in tokenize.tokenize(file.readline) if t.type not in {*layout, tokenize.ENCODING}]
    return len({line for t in tokens for line in range(t.start[0], t.end[0] + 1)} - without)


def _docstring(node):
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    return isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None


def test_samplers_are_short():
    """A sampler takes under 30 lines of code in the mean, all of the package counted or tableaux left out."""
    everything = sum(code_lines(path) for path in SAMPLERS.rglob("*.py"))
    assert everything / len(SERVED) < 30
    names = [entry for entry in SERVED if "runge_kutta" not in entry.factory]
    modules = {entry.factory.partition(":")[0].removeprefix("kdiff_samplers.") for entry in names}
    own = sum(code_lines(SAMPLERS / f"{module}.py") for module in modules)
    assert 0 < own / len(names) < 30


@pytest.mark.parametrize("path", sorted(SAMPLERS.glob("*.py")), ids=relative)
def test_no_sampler_loops_over_the_steps(path):
    """No step of a sampler loops over the levels of the run, and none loops until something happens."""
    for method in ast.walk(tree(path)):
        if isinstance(method, ast.FunctionDef) and method.name in ("step", "attempt"):
            assert not [node for node in ast.walk(method) if isinstance(node, ast.While)]
            loops = [node for node in ast.walk(method) if isinstance(node, ast.For | ast.comprehension)]
            assert not [node for node in loops if re.search(r"\bgrid\b|\bsteps\b", ast.unparse(node.iter))]


# -- the repository


@cache
def repository():
    """The files that belong to the repository, tracked or not, but no ignored ones."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_top_level():
    """Nothing lies at the top level that the design does not put there."""
    assert {relative(path).split("/")[0] for path in repository()} <= TOP


def test_no_machine_paths():
    """No file names a path of the machine it was written on."""
    machines = [f"/{first}/{second}".encode() for first, second in (("work", ""), ("tmp", "dev"))]
    named = [relative(p) for p in repository() if any(m in p.read_bytes() for m in machines)]
    assert named == []
