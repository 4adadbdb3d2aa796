"""House rules that no linter knows, held against every file that git tracks. Each failure names the file, the line and what to do instead."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from service.cli.main import cli

TOP = Path(__file__).resolve().parent.parent
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
CORE_FILE_LINES_MAX = 400
TEXT_SUFFIXES = {".py", ".md", ".sh", ".toml", ".yml", ".yaml", ".ini", ".lock", ""}
LIBRARY_AND_SERVICE = ("raft/", "service/")

MARKERS = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:root|work|home)/\w")
UNEXPLAINED = re.compile(r"#\s*(?:noqa(?::\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)?|type:\s*ignore(?:\[[\w, -]+\])?)\s*$")
LINK = re.compile(r"\]\(([^)\s]+)\)")
TOLD_PATH = re.compile(r"`((?:raft|service|tests|docs|docker|benchmarks|\.ci)/[\w./-]*)`")
TOLD_NAME = re.compile(r"`([A-Za-z_][\w.]*)` \(`((?:raft|service)/[\w/]+\.py)`")
TOLD_TARGET = re.compile(r"(?:`|^\s*)make ([a-z][a-z-]*)", re.MULTILINE)
TOLD_COMMAND = re.compile(r"(?:`|\.venv/bin/)kvorum ([a-z]+(?: [a-z]+)?)")

CORE_MODULES = {"abc", "bisect", "collections", "contextlib", "dataclasses", "enum", "functools", "itertools"}
CORE_MODULES |= {"json", "math", "operator", "types", "typing"}
"""All that the pure core may import besides itself: nothing that reads a clock, draws a number, does I/O or logs."""

BANNED_CALLS = {
    "time.sleep": "wait on a condition or an event with a time limit",
    "os.system": "subprocess.run with a list",
    "os.fork": "subprocess.Popen",
    "eval": "a parser",
    "exec": "an import",
    "pickle.loads": "msgspec",
    "pickle.dumps": "msgspec",
    "marshal.loads": "msgspec",
    "asyncio.get_event_loop": "asyncio.get_running_loop",
    "logging.basicConfig": "service.logs.configure",
    "datetime.datetime.now": "time.time_ns, in the runtime or in the agent",
    "datetime.datetime.utcnow": "time.time_ns, in the runtime or in the agent",
}
PRINTING = ("service/cli/", "raft/examples/", "raft/testing/run.py", "tests/", "benchmarks/", "docker/", "service/settings_text.py")
ASSERTING = ("raft/testing/", "tests/", "benchmarks/")
"""Where ``assert`` may decide something: what is shipped to run must not depend on it, for ``python -O`` removes it."""


@cache
def tracked() -> tuple[str, ...]:
    """The names of all files that git knows, relative to the top."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return tuple(name for name in listed.split("\0") if name and (TOP / name).is_file())


def python(*prefixes: str) -> list[str]:
    """The Python files below one of the folders; all of them when none is given."""
    return [name for name in tracked() if name.endswith(".py") and name.startswith(prefixes or "")]


@cache
def text(name: str) -> str:
    """What a file holds."""
    return (TOP / name).read_text(encoding="utf-8")


@cache
def tree(name: str) -> ast.Module:
    """A file's syntax."""
    return ast.parse(text(name), name)


def pages() -> list[str]:
    """The pages for people."""
    return [name for name in tracked() if name.endswith(".md")]


def calls(name: str) -> Iterator[tuple[int, str]]:
    """Line and full name of every call, as far as the imports of the file tell it."""
    known: dict[str, str] = {}
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            known |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            yield node.lineno, known.get(first, first) + dot + rest


def test_the_tree_is_there() -> None:
    """The rules below are held against something."""
    assert len(python("raft/core/")) > 10
    assert len(python("service/")) > 30
    assert len(pages()) > 5


def test_functions_are_short() -> None:
    """No function is longer than 70 lines."""
    long = [
        f"{name}:{node.lineno} {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for name in python()
        for node in ast.walk(tree(name))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert long == []


def test_files_are_short() -> None:
    """No file of the core is longer than 400 lines, no other than 500."""
    limits = {name: CORE_FILE_LINES_MAX if name.startswith("raft/core/") else FILE_LINES_MAX for name in python()}
    assert [f"{name} has {text(name).count(chr(10))} lines" for name, limit in limits.items() if text(name).count("\n") > limit] == []


def test_modules_say_what_they_are_for() -> None:
    """Every module begins with a docstring; a package's empty file may be silent."""
    assert [name for name in python() if text(name).strip() and not ast.get_docstring(tree(name))] == []


def test_banned_calls() -> None:
    """What the library and the service call has no better replacement."""
    found = []
    for name in python(*LIBRARY_AND_SERVICE):
        found += [f"{name}:{line} {call}; use {BANNED_CALLS[call]}" for line, call in calls(name) if call in BANNED_CALLS]
    assert found == []


def test_printing() -> None:
    """Only programs for people print; everything else logs."""
    found = [
        f"{name}:{line} print; use logging" for name in python() if not name.startswith(PRINTING) for line, call in calls(name) if call == "print"
    ]
    assert found == []


def test_safety_does_not_rest_on_assertions() -> None:
    """The library and the service raise errors: ``python -O`` would remove assertions."""
    found = [
        f"{name}:{node.lineno} assert; raise an error with a text"
        for name in python()
        if not name.startswith(ASSERTING)
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_the_core_is_deterministic() -> None:
    """The core imports nothing but itself and a few modules without clock, chance and I/O, and neither hashes nor compares by identity."""
    found = []
    for name in [*python("raft/core/"), "raft/config.py", "raft/errors.py"]:
        for node in ast.walk(tree(name)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or "."]
            for module in modules:
                own = module.startswith(("raft.core", "raft.config", "raft.errors"))
                if not own and module.partition(".")[0] not in CORE_MODULES:
                    found.append(f"{name}:{node.lineno} imports {module}")
        found += [f"{name}:{line} {call}() differs from run to run" for line, call in calls(name) if call in {"hash", "id"}]
    assert found == []


def test_nothing_is_left_over() -> None:
    """No marker of unfinished work, and no path of somebody's machine."""
    found = []
    for name in tracked():
        if Path(name).suffix in TEXT_SUFFIXES and name != "tests/test_tidy.py":
            for number, line in enumerate(text(name).splitlines(), 1):
                found += [f"{name}:{number} {line.strip()[:80]}" for rule in (MARKERS, MACHINE_PATHS) if rule.search(line)]
    assert found == []


def test_exceptions_from_the_rules_say_why() -> None:
    """Whatever silences a linter or the type checker carries its reason on the same line."""
    found = [f"{name}:{number}" for name in python() for number, line in enumerate(text(name).splitlines(), 1) if UNEXPLAINED.search(line)]
    assert found == []


@pytest.mark.parametrize(("project", "folder"), [("pyproject.toml", "service"), ("raft/pyproject.toml", "raft")])
def test_package_lists_are_complete(project: str, folder: str) -> None:
    """Each distribution lists exactly the packages of its folder, so that a file is in one of them and in no other; it is marked as typed."""
    listed = tomllib.loads(text(project))["tool"]["setuptools"]["packages"]
    found = {str(Path(name).parent).replace("/", ".") for name in python(folder + "/")}
    assert set(listed) == found
    assert len(listed) == len(set(listed))
    assert (TOP / folder / "py.typed").exists()
    assert [package for package in listed if not (TOP / package.replace(".", "/") / "__init__.py").exists()] == []


def test_distributions_go_together() -> None:
    """The service depends on the library of the same version, and both support the same Pythons."""
    of_service, of_raft = (tomllib.loads(text(name))["project"] for name in ("pyproject.toml", "raft/pyproject.toml"))
    assert of_service["requires-python"] == of_raft["requires-python"]
    assert f"kvorum-raft[http,sqlite]=={of_raft['version']}" in of_service["dependencies"]


def test_links_lead_somewhere() -> None:
    """Every relative link of a page names a file that is there."""
    found = []
    for page in pages():
        for target in LINK.findall(text(page)):
            path = target.partition("#")[0]
            if path and "://" not in path and not path.startswith("mailto:") and not (TOP / page).parent.joinpath(path).exists():
                found.append(f"{page}: {target}")
    assert found == []


def test_told_paths_exist() -> None:
    """Files and folders that a page names in backquotes are there."""
    found = [f"{page}: {path}" for page in pages() for path in TOLD_PATH.findall(text(page)) if not (TOP / path).exists()]
    assert found == []


def test_told_names_exist() -> None:
    """Where a page names a function or class and its file, the file defines it."""
    found = []
    for page in pages():
        for name, path in TOLD_NAME.findall(text(page)):
            last = name.rpartition(".")[2]
            if not re.search(rf"^\s*(?:(?:async )?def|class) {last}\b|^\s*{last}\b.*=", text(path), re.MULTILINE):
                found.append(f"{page}: {name} is not in {path}")
    assert found == []


def test_told_commands_exist() -> None:
    """`make` targets and commands of `kvorum` that a page shows exist."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", text("Makefile"), re.MULTILINE))
    found = [f"{page}: make {target}" for page in pages() for target in TOLD_TARGET.findall(text(page)) if target not in targets]
    for page in pages():
        found += [f"{page}: kvorum {words}" for words in TOLD_COMMAND.findall(text(page)) if not _is_command(words.split())]
    assert found == []


def _is_command(words: list[str]) -> bool:
    command: click.Command = cli
    for word in words:
        if not isinstance(command, click.Group):
            return True
        found = command.get_command(click.Context(command), word)
        if found is None:
            return False
        command = found
    return True


def test_make_lists_every_target() -> None:
    """Each target has a line of help and is declared as one that makes no file."""
    makefile = text("Makefile")
    phony = set((re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE) or [""])[0].removeprefix(".PHONY:").split())
    targets = dict(re.findall(r"^([a-z][a-z-]*):(.*)$", makefile, re.MULTILINE))
    assert phony == set(targets)
    assert [name for name, rest in targets.items() if "## " not in rest] == []


def test_decisions_are_numbered() -> None:
    """Decisions are numbered without a gap, and each begins with its title."""
    names = [name for name in tracked() if re.fullmatch(r"docs/decisions/\d{4}-[a-z0-9-]+\.md", name)]
    assert [int(Path(name).name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert [name for name in names if not text(name).startswith("# ")] == []


def test_locks_name_no_index() -> None:
    """Lock files work with any package index: none is named in them."""
    locks = [name for name in tracked() if name.endswith(".lock")]
    assert locks
    assert [name for name in locks if re.search(r"^\s*--(?:extra-)?(?:index-url|find-links)|https?://", text(name), re.MULTILINE)] == []


def test_supported_pythons() -> None:
    """The tests run on a Python that the package says it supports."""
    wanted = tomllib.loads(text("pyproject.toml"))["project"]["requires-python"]
    low, high = (tuple(map(int, part.lstrip("<>=").split("."))) for part in wanted.split(","))
    assert low <= sys.version_info[:2] < high
