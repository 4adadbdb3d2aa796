"""Where settings are read from again, what may change, and the object in force."""

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.errors import SettingsInvalid
from service.reloading import Live, Sources, changes, reloadable_values
from service.settings import SETTINGS, Setting, load

ENVIRON = {"KVORUM_NAME": "n1", "KVORUM_DATA_DIR": "/nowhere"}


@pytest.fixture(autouse=True)
def same_level() -> Iterator[None]:
    """The level of the log is as it was, afterwards."""
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


def test_sources_reach_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags, variables and file are found again, from whatever directory; variables of clients and of others are not among them."""
    (tmp_path / "k.toml").write_text("workers = 2\nlog_level = 'debug'\n")
    monkeypatch.chdir(tmp_path)
    environ = {**ENVIRON, "KVORUM_WORKERS": "3", "KVORUM_HTTP_TOKEN": "t", "KVORUM_CONFIG_FILE": "k.toml", "PATH": "/bin"}
    sources = Sources({"datacenter": "dc7"}, environ, Path("k.toml"))
    told = sources.to_environ()
    monkeypatch.chdir("/")
    again = Sources.from_environ({**os.environ, **told})
    assert again == Sources({"datacenter": "dc7"}, {**ENVIRON, "KVORUM_WORKERS": "3"}, tmp_path / "k.toml")
    settings = again.read()
    assert (settings.datacenter, settings.workers, settings.log_level) == ("dc7", 3, "debug")
    (tmp_path / "k.toml").write_text("log_level = 'error'\n")
    assert again.read().log_level == "error"
    assert load({**ENVIRON, **told}) == load(ENVIRON), "what a child gets is no setting"


def test_without_a_supervisor_the_variables_are_the_source() -> None:
    """An agent that was started by hand reads its own environment again."""
    assert Sources.from_environ({**ENVIRON, "KVORUM_HTTP_ADDR": "h", "HOME": "/"}) == Sources({}, ENVIRON)


def test_changes_are_told_in_words() -> None:
    """Each with its old and its new value; nothing for what is as it was."""
    old = load(ENVIRON)
    assert changes(old, load(ENVIRON)) == ()
    new = replace(old, log_level="debug", raft_heartbeat_ms=60)
    assert changes(old, new) == ("log_level: info -> debug", "raft_heartbeat_ms: 100 -> 60")


def test_what_needs_a_restart_is_named() -> None:
    """Every such setting with both values, beside others that could change; of a secret no value."""
    old = load({**ENVIRON, "KVORUM_REDIS_URL": "redis://:old@h"})
    new = replace(old, workers=4, datacenter="dc2", redis_url="redis://:new@h", log_level="debug", join="")
    with pytest.raises(SettingsInvalid) as raised:
        changes(old, new)
    assert raised.value.problems == (
        "datacenter: can't change from dc1 to dc2 while the node runs; it needs a restart",
        "workers: can't change from 1 to 4 while the node runs; it needs a restart",
        "redis_url: can't change while the node runs; it needs a restart",
    )
    with pytest.raises(SettingsInvalid, match="join: can't change from nothing to h:1 while"):
        changes(old, replace(old, join="h:1"))


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
def test_each_setting_is_reloadable_or_named(row: Setting) -> None:
    """The column decides, for every row; what other processes are told is exactly what may change."""
    old = load(ENVIRON)
    other: Any = "error" if row.name == "log_level" else {str: "other", int: 7, float: 7.0, Path: Path("/other")}[row.kind]
    new = replace(old, **{row.name: other})
    assert (row.name in reloadable_values(old)) == row.reloadable
    if row.reloadable:
        assert len(changes(old, new)) == 1
        live = Live(old)
        live.take(reloadable_values(new))
        assert live.now == new
    else:
        with pytest.raises(SettingsInvalid, match=row.name):
            changes(old, new)


def test_the_object_in_force_is_swapped_as_a_whole() -> None:
    """Whoever holds the old one keeps it; the level of the log follows."""
    live = Live(load(ENVIRON))
    held = live.now
    logging.getLogger().setLevel(logging.INFO)
    live.take({"log_level": "error", "raft_heartbeat_ms": 60})
    assert (held.log_level, held.raft_heartbeat_ms) == ("info", 100)
    assert (live.now.log_level, live.now.raft_heartbeat_ms) == ("error", 60)
    assert logging.getLogger().level == logging.ERROR
