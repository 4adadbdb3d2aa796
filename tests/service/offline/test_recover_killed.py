"""A recovery that is killed at any of its steps leaves the old directory or the new one, whole."""

import itertools
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_directories import data_directory
from sqlalchemy import Engine, event

from service.offline import recovery
from service.offline.directory import inspect

NEW_CLUSTER = "the-new-one"
STEPS_MIN = 15


def _recover(directory: Path, steps: int) -> None:
    """Recover in a process of its own that kills itself after so many steps: calls of the system that change something, and statements."""
    left = itertools.count(steps, -1)

    def step(*_arguments: Any, **_named: Any) -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*arguments: Any, **named: Any) -> Any:
            step()
            result = call(*arguments, **named)
            step()
            return result

        return stepping

    os.fsync = counted(os.fsync)
    shutil.copy2 = counted(shutil.copy2)
    Path.mkdir = counted(Path.mkdir)  # type: ignore[method-assign]  # to count its calls
    Path.rename = counted(Path.rename)  # type: ignore[method-assign]  # to count its calls
    event.listen(Engine, "before_cursor_execute", step)
    event.listen(Engine, "after_cursor_execute", step)
    recovery.carry_out(recovery.plan(inspect(directory), None, NEW_CLUSTER, "2026-01-01T00:00:00Z"))


@pytest.mark.processes
def test_killed_at_every_step(tmp_path: Path) -> None:
    """Whatever the step: the log, the hard state and the records are all the old ones or all the new ones, a copy under its name is whole, and
    a second attempt succeeds.
    """
    pristine = data_directory(tmp_path / "pristine")
    before = inspect(pristine)
    seen = []
    for steps in itertools.count():
        directory = tmp_path / f"step{steps}"
        shutil.copytree(pristine, directory)
        child = multiprocessing.get_context("fork").Process(target=_recover, args=(directory, steps))
        child.start()
        child.join(30)
        assert child.exitcode in {0, -signal.SIGKILL}, (steps, child.exitcode)
        found = inspect(directory)
        assert found.damages == [], steps
        assert found.cluster is not None
        new = found.cluster.cluster_id == NEW_CLUSTER
        seen.append(new)
        changed = (
            found.log.last_index,
            found.log.hard_state and found.log.hard_state.term,
            found.mark is not None,
            len(found.log.configuration.voters),
        )
        assert changed == ((6, 3, True, 1) if new else (5, 2, False, 3)), steps
        copy = directory / f"before-recovery-{NEW_CLUSTER}"
        assert copy.exists() or not new
        if copy.exists():
            assert inspect(copy).log == before.log
        if not new:
            recovery.carry_out(recovery.plan(found, None, "another-one", "2026-01-01T00:00:00Z"))
        if child.exitcode == 0:
            break
    assert seen == sorted(seen), "once it was the new one it stays so"
    assert seen.count(False) > STEPS_MIN
    assert seen.count(True) > 1
