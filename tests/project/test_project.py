"""The project's statements about itself: dependencies, pinned versions, citation, hooks."""

import ast
import re
import shlex
import subprocess
import sys
from importlib import metadata

import pytest
import yaml

from support.paths import ROOT

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PRODUCT = ("dspt_atlas", "trainers", "datasets")
NOT_DECLARED = {
    "dassl",  # upstream's or `./engine`, whichever the user has
    "setuptools",  # in [build-system]
}


def names_of(requirements):
    """The names of requirements, spelled as packages are compared."""
    return {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", line)[0]).lower() for line in requirements}


def engine_requirements():
    """The engine's requirements and those of its extras."""
    tree = ast.parse((ROOT / "engine" / "setup.py").read_text(encoding="utf-8"))
    keywords = {node.arg: node.value for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    extras = ast.literal_eval(keywords["extras_require"]).values()
    return names_of(ast.literal_eval(keywords["install_requires"])), names_of(
        line for lines in extras for line in lines
    )


REQUIRED = names_of(PROJECT["dependencies"])
EXTRAS = {name: names_of(lines) for name, lines in PROJECT["optional-dependencies"].items()}
ENGINE_REQUIRED, ENGINE_EXTRAS = engine_requirements()
OPTIONAL = set().union(*(names for extra, names in EXTRAS.items() if extra != "test"))


def imports_of(folder, inner=True):
    """The top-level names that a folder's files import from elsewhere, without those of functions unless `inner`."""
    files = sorted((ROOT / folder).rglob("*.py")) if (ROOT / folder).is_dir() else [ROOT / folder]
    found = set()
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        lazy = set() if inner else {child for function in functions for child in ast.walk(function)}
        for node in set(ast.walk(tree)) - lazy:
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            names = {module.partition(".")[0] for module in modules}
            found |= {name for name in names if not is_own(name, path)}
    return found


def is_own(name, path):
    """Whether a name is Python's, this repository's, or that of a file next to the importing one or above."""
    near = [folder / name for folder in path.parents if folder.is_relative_to(ROOT)]
    return (
        name in sys.stdlib_module_names | NOT_DECLARED
        or any(place.is_dir() or place.with_suffix(".py").is_file() for place in near)
        or bool(list(ROOT.glob(f"[!.]*/{name}.py")))  # benchmarks put on the path
    )


PACKAGES = metadata.packages_distributions()


def packages_of(name):
    """The packages that have a module; one that is not installed here is taken for a package of its name."""
    return names_of(PACKAGES.get(name, [name]))


def undeclared(imports, declared):
    """The imports that no declared package has."""
    return {name for name in imports if not packages_of(name) & declared}


@pytest.mark.parametrize("folder", PRODUCT)
def test_what_the_product_imports_is_declared(folder):
    own = {"support"}  # tests/support, which the engine's tests use too
    assert undeclared(imports_of(folder) - own, REQUIRED | OPTIONAL) == set()


@pytest.mark.parametrize("folder", PRODUCT)
def test_what_is_imported_with_a_module_is_no_extra(folder):
    assert undeclared(imports_of(folder, inner=False), REQUIRED) == set()


def test_what_is_declared_is_imported():
    imported = [name for folder in PRODUCT for name in imports_of(folder)]
    assert REQUIRED - set().union(*map(packages_of, imported)) == set()


def test_what_the_engine_imports_is_declared():
    assert undeclared(imports_of("engine/dassl"), ENGINE_REQUIRED | ENGINE_EXTRAS) == set()


@pytest.mark.parametrize("folder", ["tests", "engine/tests", "scripts", "benchmarks", ".ci", "train.py"])
def test_what_tests_and_scripts_import_is_declared(folder):
    own = {"support"}  # tests/support, which the engine's tests use too
    assert undeclared(imports_of(folder) - own, REQUIRED | OPTIONAL | EXTRAS["test"] | ENGINE_REQUIRED) == set()


def pin(path):
    command = [sys.executable, ROOT / ".ci" / "pin.py", path]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_every_requirement_is_pinned():
    pins = names_of(line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#"))
    assert set().union(REQUIRED, ENGINE_REQUIRED, *EXTRAS.values()) - pins == set()


def test_pins_become_what_is_installed_and_others_stay(tmp_path):
    path = tmp_path / "constraints.txt"
    path.write_text("# old\nyacs==0.0.1\nnot-installed-anywhere==1.2\npyyaml==1.0\n")
    done = pin(path)
    header, *lines = path.read_text().splitlines()
    pins = dict(line.split("==") for line in lines)
    assert header.startswith("# ") and lines == sorted(lines, key=str.lower)
    assert pins["not-installed-anywhere"] == "1.2" and "not-installed-anywhere" in done.stderr
    assert pins["yacs"] == metadata.version("yacs") and pins["pyyaml"] == metadata.version("PyYAML")
    assert len(names_of(pins)) == len(pins) and "+" not in path.read_text()
    before = path.read_bytes()
    pin(path)
    assert path.read_bytes() == before


def test_both_papers_can_be_cited():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    papers = citation["references"]
    assert {citation["cff-version"], citation["type"], citation["title"]} == {"1.2.0", "software", PROJECT["name"]}
    assert [paper["identifiers"][0]["value"] for paper in papers] == ["arXiv:2605.00591", "arXiv:2508.17846"]
    for entry in (citation, *papers):  # what the format asks of each
        assert entry["type"] and entry["title"] and all(author["name"] for author in entry["authors"])


def test_the_hooks_refuse_what_ruff_does_and_format(tmp_path):
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local" and {hook["language"] for hook in repository["hooks"]} == {"system"}
    checking, formatting = ([sys.executable, *shlex.split(hook["entry"])[1:]] for hook in repository["hooks"])
    path = tmp_path / "changed.py"
    for text, status in (("import os\n", 1), ("import os\n\nprint( os.sep)\n", 0)):
        path.write_text(text)
        assert subprocess.run([*checking, path], capture_output=True, check=False).returncode == status
    subprocess.run([*formatting, path], capture_output=True, check=True)
    assert path.read_text() == "import os\n\nprint(os.sep)\n"
