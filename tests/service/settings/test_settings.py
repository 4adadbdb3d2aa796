"""The settings table, the loader and what follows from them."""

import os
import random
from dataclasses import fields
from pathlib import Path

import pytest

from raft import config as raft_config
from raft.errors import ConfigInvalid
from service.errors import SettingsInvalid
from service.settings import SETTINGS, Settings, load, load_with_origins, to_environ
from service.settings_text import TRADE_OFFS, print_config, reference

CLUSTER = "n1=http://10.0.0.1:8300,n2=http://10.0.0.2:8300,n3=http://10.0.0.3"


def problems_of(environ: dict[str, str], flags: dict[str, str] | None = None, file: Path | None = None) -> tuple[str, ...]:
    """Load what can't be used."""
    with pytest.raises(SettingsInvalid) as caught:
        load(environ, flags, file)
    return caught.value.problems


def test_defaults_make_a_cluster_of_one() -> None:
    """Without any setting a node is a cluster of its own on loopback."""
    settings = load({"PATH": "/bin"})
    assert [str(member.address) for member in settings.members] == ["127.0.0.1:8300"]
    assert settings.members[0].name == settings.name
    assert settings.socket_path == settings.data_dir / "agent.sock"
    assert settings.data_dir.is_absolute()


def test_flags_win_over_environment_over_file_over_default(tmp_path: Path) -> None:
    """The four sources are asked in the documented order."""
    file = tmp_path / "kvorum.toml"
    file.write_text('name = "from-file"\nworkers = 2\ndatacenter = "file"\n')
    environ = {"KVORUM_NAME": "from-environment", "KVORUM_WORKERS": "3"}
    settings = load(environ, {"name": "from-flag"}, file)
    assert (settings.name, settings.workers, settings.datacenter, settings.log_level) == ("from-flag", 3, "file", "info")


def test_whom_to_join() -> None:
    """Peers and URLs each get their port; a scheme that is none, a port that is none, and forming a cluster at the same time are refused."""
    assert load({"KVORUM_JOIN": "h1, h2:9, http://h3, https://h4:1/"}).join_targets == ("h1:8300", "h2:9", "http://h3:8500", "https://h4:1")
    assert load({}).join_targets == ()
    for value in ("ftp://h1", "h1:99999", "http://"):
        [problem] = problems_of({"KVORUM_JOIN": value})
        assert problem.startswith("join: ")
        assert value in problem
    [problem] = problems_of({"KVORUM_JOIN": "h1", "KVORUM_NAME": "n1", "KVORUM_INITIAL_CLUSTER": CLUSTER})
    assert problem == "join: 'h1' can't be given with initial_cluster; a node forms a cluster or joins one"


def test_every_problem_is_reported_at_once() -> None:
    """Several bad values end in one error that names each setting, its value and what is allowed."""
    problems = problems_of({"KVORUM_WORKERS": "none", "KVORUM_API_BIND": "h:99999", "KVORUM_LOG_LEVEL": "loud", "KVORUM_SPEED": "9"})
    assert len(problems) == 4
    for expected in ("workers: 'none'", "'99999'", "log_level: 'loud'", "KVORUM_SPEED: no such setting"):
        assert any(expected in problem for problem in problems), expected
    assert any("from 1 to 64" in problem for problem in problems)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KVORUM_WORKERS", "0"),
        ("KVORUM_WORKERS", "1e3"),
        ("KVORUM_WORKERS", "٣"),
        ("KVORUM_TIME_SCALE", "nan"),
        ("KVORUM_NAME", "a/b"),
        ("KVORUM_NAME", "-a"),
        ("KVORUM_DATACENTER", "dc 1"),
        ("KVORUM_API_BIND", "8500"),
        ("KVORUM_API_BIND", "127.0.0.1:"),
        ("KVORUM_API_BIND", "::1:8500"),
        ("KVORUM_PEER_ADVERTISE", "0.0.0.0:8300"),
        ("KVORUM_API_ADVERTISE", "[::]:8500"),
        ("KVORUM_WORKER_CLASS", "sync"),
        ("KVORUM_DATA_DIR", "a\nb"),
        ("KVORUM_PEER_BIND", "127.0.0.1:8500"),
        ("KVORUM_SOCKET_PATH", "/" + "a" * 120),
        ("KVORUM_KV_VALUE_BYTES_MAX", "1048576"),
        ("KVORUM_BLOCKING_QUERIES_MAX", "16000"),
        ("KVORUM_RAFT_TICK_MS", "30"),
        ("KVORUM_RAFT_HEARTBEAT_MS", "200"),
        ("KVORUM_TIME_SCALE", "60"),
    ],
)
def test_a_bad_value_is_named(variable: str, value: str) -> None:
    """One bad value is one problem (a broken rule may name its partner), with the value in it."""
    problems = problems_of({variable: value})
    assert any(value in problem or repr(value)[1:-1] in problem for problem in problems)


@pytest.mark.parametrize("text", ["KVORUM_WORKERS_FILE", "KVORUM_NAME_FILE"])
def test_only_secrets_come_from_files_of_their_own(text: str) -> None:
    """A ``…_FILE`` variable of a plain setting is refused with the variable to use."""
    assert f"use {text.removesuffix('_FILE')}" in problems_of({text: "/x"})[0]


def test_a_secret_is_read_from_its_file_and_never_shown(tmp_path: Path) -> None:
    """The secret's file is read, and neither errors nor the printed settings hold its text."""
    file = tmp_path / "redis"
    file.write_text("redis://:hunter2@127.0.0.1:6379/0\n")
    settings = load({"KVORUM_REDIS_URL_FILE": str(file)})
    assert settings.redis_url == "redis://:hunter2@127.0.0.1:6379/0"
    printed = print_config(load_with_origins({"KVORUM_REDIS_URL_FILE": str(file)}))
    assert "hunter2" not in printed
    assert 'redis_url = "********"' in printed
    assert "# KVORUM_REDIS_URL_FILE\n" in printed
    assert not any("hunter2" in problem for problem in problems_of({"KVORUM_REDIS_URL": "hunter2"}))
    assert "can't be read" in problems_of({"KVORUM_REDIS_URL_FILE": str(tmp_path / "absent")})[0]
    assert "only one of them" in problems_of({"KVORUM_REDIS_URL_FILE": str(file), "KVORUM_REDIS_URL": "redis://h"})[0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("speed = 1\n", "speed: no such setting"),
        ("workers = true\n", "workers"),
        ("workers = [1]\n", "workers"),
        ("name = 5\n", "name"),
        ("workers = \n", "can't be read"),
        ("[raft]\ntick_ms = 1\n", "raft: no such setting"),
    ],
)
def test_a_bad_settings_file_is_an_error(tmp_path: Path, content: str, expected: str) -> None:
    """Unknown keys, wrong types and bad TOML are told with the file's name."""
    file = tmp_path / "kvorum.toml"
    file.write_text(content)
    problem = problems_of({}, file=file)[0]
    assert expected in problem
    assert "kvorum.toml" in problem


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    """A pipe (which would hold a reload up for ever), a directory, and what is too long or too deep for a settings file."""
    pipe, long, deep = tmp_path / "pipe", tmp_path / "long", tmp_path / "deep"
    os.mkfifo(pipe)
    long.write_text("#" * 2_000_000)
    deep.write_text("name = " + "[" * 100_000)
    for file, expected in ((pipe, "no regular file"), (tmp_path, "no regular file"), (long, "1048576 bytes"), (deep, "can't be read")):
        [problem] = problems_of({}, file=file)
        assert str(file) in problem
        assert expected in problem
    assert "no regular file" in problems_of({"KVORUM_REDIS_URL_FILE": str(pipe)})[0]


@pytest.mark.parametrize("number", ["9" * 5_000, "0x" + "f" * 5_000, '"' + "x" * 5_000 + '"'])
def test_huge_values_are_told_by_their_beginning(tmp_path: Path, number: str) -> None:
    """A number that Python does not even write down is a problem like any other, and no message has a length of thousands."""
    file = tmp_path / "kvorum.toml"
    file.write_text(f"workers = {number}\n")
    [problem] = problems_of({}, file=file)
    assert str(file) in problem
    assert len(problem) < 600


def test_a_rule_between_values_names_those_of_the_file(tmp_path: Path) -> None:
    """Two values that don't go together: which of them stands in the file is told."""
    file = tmp_path / "kvorum.toml"
    file.write_text("raft_heartbeat_ms = 200\nworkers = 2\n")
    [problem] = problems_of({"KVORUM_RAFT_ELECTION_TIMEOUT_MS": "520"}, file=file)
    assert problem == f"raft_election_timeout_ms: 520 must be at least three times raft_heartbeat_ms 200 (raft_heartbeat_ms from {file})"


def test_a_missing_settings_file_is_named(tmp_path: Path) -> None:
    """A file that does not exist is an error, not a silent default."""
    assert "absent.toml" in problems_of({}, file=tmp_path / "absent.toml")[0]


def test_an_unknown_flag_is_an_error() -> None:
    """The loader refuses a flag that is no setting."""
    assert "no such setting" in problems_of({}, {"speed": "1"})[0]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ("n1=http://a:1,n1=http://b:1", "the name 'n1' appears 2 times"),
        ("n1=http://a:1,n2=http://a:1", "the address a:1 belongs to both"),
        ("n1=http://a:99999", "'99999'"),
        ("n1=http://a:x", "'x'"),
        ("n2=http://a:1", "'n1' is not among the members n2"),
        ("n1=https://a:1", "'https'"),
        ("n1=http://a:1/path", "more than http://host:port"),
        ("n1=http://u@a:1", "more than http://host:port"),
        ("n1", "expected name=http://host:port"),
        ("n1=http://a:1,,n2=http://b:1", "''"),
        ("n1=http://", "no usable host"),
        ("n1=http://0.0.0.0:8300", "no address that others can reach"),
        ("n 1=http://a:1", "'n 1'"),
    ],
)
def test_bad_initial_members_are_named(members: str, expected: str) -> None:
    """A list of members that can't be used is refused, naming the value."""
    problems = problems_of({"KVORUM_NAME": "n1", "KVORUM_INITIAL_CLUSTER": members})
    assert any(expected in problem for problem in problems), problems


def test_addresses_are_derived_from_the_members() -> None:
    """A node bound to a wildcard is advertised by its own entry; a port left out is 8300."""
    environ = {"KVORUM_NAME": "n3", "KVORUM_INITIAL_CLUSTER": CLUSTER, "KVORUM_PEER_BIND": "0.0.0.0:8300", "KVORUM_API_BIND": "0.0.0.0:8500"}
    settings = load(environ)
    assert (settings.peer_advertise, settings.api_advertise) == ("10.0.0.3:8300", "10.0.0.3:8500")
    assert [(member.name, member.url) for member in settings.members][2] == ("n3", "http://10.0.0.3:8300")


def test_a_wildcard_without_members_is_advertised_by_the_hosts_name() -> None:
    """A single node in a container is reached by the container's name."""
    settings = load({"KVORUM_API_BIND": "[::]:8500", "KVORUM_PEER_BIND": "0.0.0.0:8300"})
    assert not settings.api_advertise.startswith(("0.", "["))
    assert settings.api_advertise.rpartition(":")[0] == settings.peer_advertise.rpartition(":")[0]


def test_a_long_directory_moves_the_socket_to_the_temp_directory(tmp_path: Path) -> None:
    """A Unix socket's path is short; two directories never share one."""
    long = tmp_path / ("d" * 100)
    first, second = load({"KVORUM_DATA_DIR": str(long)}), load({"KVORUM_DATA_DIR": str(long) + "2"})
    assert len(bytes(first.socket_path)) <= 100
    assert first.socket_path != second.socket_path
    assert first.socket_path == load({"KVORUM_DATA_DIR": str(long)}).socket_path


def test_environment_carries_every_setting_to_the_children() -> None:
    """What to_environ gives makes the same settings again, whatever they are."""
    environ = {
        "KVORUM_NAME": "n2",
        "KVORUM_INITIAL_CLUSTER": CLUSTER,
        "KVORUM_TIME_SCALE": "2.5",
        "KVORUM_REDIS_URL": "redis://h",
        "KVORUM_WORKERS": "4",
    }
    settings = load(environ)
    assert load(to_environ(settings)) == settings


def test_printed_settings_are_a_settings_file(tmp_path: Path) -> None:
    """The output of --print-config can be used as the file of the next start."""
    effective = load_with_origins({"KVORUM_NAME": "n2", "KVORUM_INITIAL_CLUSTER": CLUSTER, "KVORUM_DATA_DIR": '/tmp/a "b" \\c'})
    file = tmp_path / "printed.toml"
    file.write_text(print_config(effective))
    assert load({}, file=file) == effective.settings


def test_printed_settings_say_where_each_comes_from(tmp_path: Path) -> None:
    """A flag, a variable, the file, a default, or something else that it was derived from."""
    file = tmp_path / "kvorum.toml"
    file.write_text("workers = 2\nlog_level = 'debug'\n")
    printed = print_config(load_with_origins({"KVORUM_WORKERS": "3", "KVORUM_DATACENTER": "dc1"}, {"name": "n1"}, file))
    shown = dict(line.split(" = ", 1) for line in printed.splitlines())
    origins = {name: text.split("  # ")[-1] for name, text in shown.items()}
    expected = {"name": "--name", "workers": "KVORUM_WORKERS", "datacenter": "KVORUM_DATACENTER", "log_level": str(file), "join_as": "default"}
    assert origins | expected | {"api_advertise": "derived", "redis_url": "default"} == origins


def test_the_reference_page_is_up_to_date() -> None:
    """docs/settings.md is what the table makes; run ``python -m service.settings_text`` when this fails."""
    page = Path(__file__).parents[3] / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8") == reference()


def test_the_table_lists_every_field() -> None:
    """Each field of the dataclass is one row, with help and a scope."""
    assert [row.name for row in SETTINGS] == [entry.name for entry in fields(Settings)]
    assert all(row.help and row.scope in {"cluster", "node"} for row in SETTINGS)


def test_trade_offs_are_of_settings() -> None:
    """The page explains settings that exist, and every time of Raft's."""
    names = {row.name for row in SETTINGS}
    assert names >= TRADE_OFFS.keys()
    assert {name for name in names if name.startswith("raft_") and name.endswith("_ms")} <= TRADE_OFFS.keys()


def test_what_is_reloadable_agrees_with_the_library() -> None:
    """A setting of the library may change while the node runs exactly when the library allows it; no secret may."""
    ours = {row.name.removeprefix("raft_") for row in SETTINGS if row.name.startswith("raft_") and row.reloadable}
    assert ours == raft_config.RELOADABLE
    assert not any(row.secret for row in SETTINGS if row.reloadable)


def test_raft_rows_agree_with_the_library() -> None:
    """Defaults, units and ranges of raft_… are those of the library's own table."""
    ours = {row.name.removeprefix("raft_"): (row.default, row.unit, row.minimum, row.maximum) for row in SETTINGS if row.name.startswith("raft_")}
    assert ours == {row.name: (row.default, row.unit, row.minimum, row.maximum) for row in raft_config.SETTINGS}


def test_rules_between_raft_settings_agree_with_the_library() -> None:
    """On random values both sides say yes or both say no: what load accepts, the library accepts, and the reverse."""
    source = random.Random(20_261_121)
    names = ("tick_ms", "heartbeat_ms", "election_timeout_ms", "proposal_timeout_ms", "trailing_entries", "snapshot_threshold_entries")
    verdicts = set()
    for _round in range(300):
        values = dict(
            zip(
                names,
                (source.choice((10, 20, 30)), source.choice((50, 60, 90)), source.choice((150, 270, 300)), 7_000, 10, source.choice((5, 20))),
                strict=True,
            )
        )
        try:
            raft_config.RaftConfig(**values)
            accepted = True
        except ConfigInvalid:
            accepted = False
        try:
            load({"KVORUM_RAFT_" + name.upper(): str(value) for name, value in values.items()})
            ours = True
        except SettingsInvalid:
            ours = False
        assert ours == accepted, values
        verdicts.add(ours)
    assert verdicts == {True, False}


@pytest.mark.parametrize("scale", ["0.1", "0.5", "1", "1.7", "3.33", "50"])
def test_scaled_times_are_a_valid_configuration(scale: str) -> None:
    """time_scale keeps the two times whole multiples of the tick, so the library accepts the result."""
    values = load({"KVORUM_TIME_SCALE": scale, "KVORUM_RAFT_PROPOSAL_TIMEOUT_MS": "600000"}).raft_values
    built = raft_config.RaftConfig(**values)
    assert (built.heartbeat_ticks, built.election_ticks) == (5, 25)
