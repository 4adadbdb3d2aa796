"""``python -m raft.testing.compiled sim --count 10000``: the simulator at twice its speed, every step the same.

The package is copied into a folder that is named after the hash of its sources, mypyc compiles the core and the hot modules of the simulator
there, and ``raft.testing.sim`` runs from that copy with the arguments that follow. ``compare --count 100`` runs the same schedules compiled and
interpreted, under different hash seeds, and compares the digests of all their steps. mypy (with mypyc), setuptools and a C compiler must be there;
the library needs none of them.
"""

import argparse
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import raft
from raft.testing.same_steps import differing, digests

PACKAGE = Path(raft.__file__).parent
SIMULATOR = (
    "checkers",
    "churn",
    "clients",
    "disk",
    "faults",
    "lease_attack",
    "machine",
    "markers",
    "nemesis",
    "network",
    "node",
    "trace",
    "world",
)
"""The modules of this package in which a schedule spends its time."""


def sources_hash() -> str:
    """A hash of every source file of the package, and of what compiles it."""
    digest = hashlib.blake2b(sys.version.encode(), digest_size=8)
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(PACKAGE)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def build(parent: Path) -> Path:
    """Compile, unless these very sources have been compiled before.

    :param parent: where such builds are kept.
    :returns: the folder to import ``raft`` from.
    :raises subprocess.CalledProcessError: when the compiler refuses; it has said why.
    """
    target = parent.absolute() / sources_hash()
    if target.exists():
        return target
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as work:
        copy = Path(work) / "copy"
        shutil.copytree(PACKAGE, copy / "raft", ignore=shutil.ignore_patterns("__pycache__", "build", "*.so"))
        argv = [sys.executable, "-c", "import sys; from mypyc.__main__ import main; sys.exit(main())", *_modules(copy)]
        subprocess.run(argv, cwd=copy, env=_environment(copy), stdout=subprocess.PIPE, check=True)
        shutil.rmtree(copy / "build", ignore_errors=True)
        copy.rename(target)
    return target


def run(folder: Path, arguments: list[str]) -> NoReturn:
    """Become the compiled simulator: a signal is for it then.

    :param arguments: those of ``python -m raft.testing.sim``.
    """
    os.execve(sys.executable, [sys.executable, "-m", "raft.testing.sim", *arguments], _environment(folder))  # noqa: S606 - no shell is wanted


def compare(folder: Path, start: int, count: int, jobs: int) -> list[int]:
    """Run schedules compiled and interpreted, each under a hash seed of its own.

    :returns: the seeds whose steps differ, or that failed in one of the two.
    """
    compiled = digests(start, count, jobs, _environment(folder) | {"PYTHONHASHSEED": "1"})
    interpreted = digests(start, count, jobs, _environment(PACKAGE.parent) | {"PYTHONHASHSEED": "4242"})
    return differing(range(start, start + count), compiled, interpreted)


def _modules(copy: Path) -> Iterator[str]:
    for path in sorted((copy / "raft" / "core").glob("[a-z]*.py")):
        yield str(path.relative_to(copy))
    yield from ("raft/config.py", "raft/errors.py", "raft/runtime/lease.py")
    yield from (f"raft/testing/{name}.py" for name in SIMULATOR)


def _environment(folder: Path) -> dict[str, str]:
    """Modules come from ``folder`` before anything installed, and never from the working directory."""
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m raft.testing.compiled", description="Run the simulator compiled.")
    parser.add_argument("--into", type=Path, default=Path("build/compiled"), help="where builds are kept (default build/compiled)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sim", help="run schedules; the arguments of raft.testing.sim follow", add_help=False)
    comparison = commands.add_parser("compare", help="run schedules compiled and interpreted, and compare their steps")
    comparison.add_argument("--count", type=int, default=100, help="how many schedules (default 100)")
    comparison.add_argument("--start", type=int, help="the first seed (default: a fresh one)")
    comparison.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    options, rest = parser.parse_known_args(arguments)
    try:
        folder = build(options.into)
    except subprocess.CalledProcessError as error:
        sys.stdout.write(error.stdout.decode(errors="replace"))
        return 1
    if options.command == "sim":
        run(folder, rest)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    start = options.start if options.start is not None else secrets.randbelow(1 << 40)
    different = compare(folder, start, options.count, options.jobs)
    sys.stdout.write(
        f"{options.count} schedules from seed {start} on, compiled and interpreted under different hash seeds; {len(different)} differ {different}\n"
    )
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
