"""The drawing in docs/design.md as assertions: who imports whom, how long a stage is, that every module is tested."""

import ast
import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from amenable.rl.options import OnlineOptions

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "amenable"

# lower numbers are further down; a package imports only packages below it
LAYERS = {
    "files": -1,
    "seeds": -1,
    "renamed_options": -1,
    "model_folder": -1,
    "completion": -1,
    "ranks": -1,
    "processes": 0,
    "hash_cache": 0,
    "yaml_options": 0,
    "http_client": -1,
    "functional": 0,
    "models": 1,
    "text": 1,
    "data": 1,
    "generation": 2,
    "feedback": 2,
    "world": 2,
    "train": 2,
    "rewards": 3,
    "evaluation": 4,
    "rl": 5,
    "control": 5,
    "stages": 6,
    "serve": 6,
    "claims": 6,
    "recipes": 7,
    "launcher": 6,
    "cluster": 7,
    "cli": 8,
    "library": 9,
    "__main__": 9,
}
SIBLINGS = {("text", "data"), ("feedback", "data"), ("recipes", "stages")}
"""the few imports within a layer: a conversation is made of data's messages"""

READ_BY = {field.name for field in dataclasses.fields(OnlineOptions)}
READ_BY |= {"optimizer", "save_steps", "max_kl", "out", "validation_split"}
"""options that a stage repeats with another default: the code that all stages share reads them"""

UNUSED: dict[str, str] = {}
"""functions of functional/ that no command uses yet, and what they are for"""

QUESTION = re.compile(r"(What|Whether|Which|How|Who|Whose|Where|When|Why|Of)\b")
FORBIDDEN = {"told", "said", "asked", "seen", "found", "made", "kept", "one", "place"}
FORBIDDEN |= {"how", "what", "who", "beside", "borne"}
"""names that do not say what they name; only InputError's documented what and how, in errors.py, are allowed"""

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
SOURCES = [path for path in MODULES if path.parent.name in ("stages",)]


@pytest.fixture(autouse=True, scope="module")
def parsed_once() -> Iterator[None]:
    """Syntax trees are kept while these tests run."""
    yield
    nodes_of.cache_clear()


@functools.cache
def nodes_of(path: Path) -> list[ast.AST]:
    """Every node of a module's syntax tree, the module first."""
    return list(ast.walk(ast.parse(path.read_text("utf-8"))))


def tree_of(path: Path) -> ast.Module:
    module = nodes_of(path)[0]
    assert isinstance(module, ast.Module)
    return module


def imports(path: Path) -> set[str]:
    """Every module a file imports, at the top or inside a function."""
    found: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def package_of(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "amenable" and len(parts) > 1 else None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "errors":
        assert not [name for name in imports(path) if name.startswith("amenable")]
        return
    for name in imports(path):
        other = package_of(name)
        if other in (None, "errors", "__version__", own):
            continue
        assert LAYERS[other] < LAYERS[own] or (own, other) in SIBLINGS, f"{own} imports {name}"


def test_functional_knows_tensors_only() -> None:
    for path in (PACKAGE / "functional").glob("*.py"):
        for name in imports(path):
            top = name.split(".")[0]
            assert top in {"torch", "math", "__future__", "collections", "typing", "itertools", "dataclasses"} or (
                name.startswith("amenable.functional")
            ), f"{path.name} imports {name}"
        assert not re.search(r"\bconfig\b", path.read_text("utf-8"), re.IGNORECASE), f"{path.name} speaks of a config"


def test_functional_holds_what_is_used_or_said_to_come() -> None:
    """Used by another package, or by a function of functional/ that is; no name stands in UNUSED that is used."""

    def names(nodes: list[ast.AST]) -> set[str]:
        plain = {node.id for node in nodes if isinstance(node, ast.Name)}
        return plain | {node.attr for node in nodes if isinstance(node, ast.Attribute)}

    functional = [path for path in MODULES if path.parent.name == "functional"]
    bodies = {
        node.name: names(list(ast.walk(node)))
        for path in functional
        for node in tree_of(path).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    used = set(bodies) & set().union(*(names(nodes_of(path)) for path in MODULES if path not in functional))
    while more := {name for name in bodies if any(name in bodies[user] for user in used)} - used:
        used |= more
    assert set(bodies) - used == set(UNUSED)


def test_stages_import_no_stage() -> None:
    for path in (PACKAGE / "stages").glob("*.py"):
        assert not [name for name in imports(path) if name.startswith("amenable.stages")], path.name


def test_stages_are_short() -> None:
    for path in (PACKAGE / "stages").glob("*.py"):
        assert len(path.read_text("utf-8").splitlines()) <= 200, f"{path.name} is too long for one idea"


def test_no_file_is_long() -> None:
    long = {path.name: len(path.read_text("utf-8").splitlines()) for path in MODULES}
    assert not {name: lines for name, lines in long.items() if lines > 400}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_stage_has_config_and_run_in_order(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    names = [node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    assert ast.get_docstring(tree), "a stage opens with what it does, its equations and papers"
    assert names.index("Config") < names.index("run")
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert functions[0] == "run", "run comes first, its helpers below in the order it calls them"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_has_its_test(path: Path) -> None:
    if path.name == "__main__.py":
        return
    relative = path.relative_to(PACKAGE)
    if relative.parent == Path("models/families"):
        relative = Path("models/families.py")  # one test goes over all of them
    assert (ROOT / "tests" / relative.parent / f"test_{relative.name}").exists(), f"no test of {relative}"


def test_answers_end_wherever_their_tokenizer_says() -> None:
    """A tokenizer's eos ends documents; an answer ends at any of its stop_ids."""
    for path in (*MODULES, *(ROOT / "benchmarks").glob("*.py")):
        found = re.findall(r"eos_id=\S*tokenizer\.eos_id|decode, \S*tokenizer\.eos_id", path.read_text("utf-8"))
        assert not found, f"{path.name} ends answers at the end of a document: {found}"


def test_nothing_imports_cuda_or_does_work_at_import() -> None:
    for path in MODULES:
        for node in tree_of(path).body:
            assert isinstance(
                node,
                (
                    ast.Import,
                    ast.ImportFrom,
                    ast.Assign,
                    ast.AnnAssign,
                    ast.ClassDef,
                    ast.FunctionDef,
                    ast.AsyncFunctionDef,
                    ast.Expr,
                    ast.If,
                ),
            ), f"{path.name} does something when imported (line {node.lineno})"
            if isinstance(node, ast.If):
                condition = ast.unparse(node.test)
                assert condition in ("__name__ == '__main__'", "TYPE_CHECKING"), f"{path.name} line {node.lineno}"
            if isinstance(node, ast.Expr):
                assert isinstance(node.value, ast.Constant), f"{path.name} line {node.lineno} calls something"


def test_every_path_in_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    named = set(re.findall(r"`((?:amenable|tests|docs|benchmarks)/[\w./-]+)`", text))
    named |= {path for path in re.findall(r"\]\(([\w./-]+)\)", text) if not path.startswith("http")}
    assert named, "the README names the files that do the work"
    for path in named:
        assert (ROOT / path).exists(), f"README names {path}"


def test_every_configuration_field_is_read() -> None:
    """A documented option that nothing reads is a lie."""
    for path in (PACKAGE / "stages").glob("[a-z]*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        config = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Config"), None)
        if config is None:
            continue
        fields = [node.target.id for node in config.body if isinstance(node, ast.AnnAssign)]
        text = path.read_text("utf-8")
        for name in set(fields) - READ_BY:
            assert re.search(rf"(config|self)\.{name}\b", text), f"{path.name}: nothing reads '{name}'"


def docstrings(path: Path) -> list[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in nodes_of(path) if isinstance(node, documented))
    return [docstring for docstring in found if docstring]


def test_docstrings_open_with_a_verb_or_a_noun() -> None:
    """Fewer than 2 % may open with a question word, as at rlax, nanochat and starlette."""
    every = [docstring for path in MODULES for docstring in docstrings(path)]
    questions = [docstring.splitlines()[0] for docstring in every if QUESTION.match(docstring)]
    assert len(every) > 1000 and len(questions) < 0.02 * len(every), questions


def assigned(path: Path) -> set[str]:
    """Names of variables, attributes, parameters, functions and classes that a module defines."""
    names: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_names_say_what_they_name(path: Path) -> None:
    names = assigned(path) & FORBIDDEN
    assert names == ({"what", "how"} if path.name == "errors.py" and path.parent == PACKAGE else set())
