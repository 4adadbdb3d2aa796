"""A reload in the agent: all of it or nothing, one after the other, with a real Raft server underneath."""

import asyncio
import json
import logging
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from raft.config import RaftConfig
from raft.testing.servers import Servers
from service.agent.reloading import Reloading
from service.reloading import Sources
from service.settings import Settings

BRISK = {"raft_tick_ms": 5, "raft_heartbeat_ms": 20, "raft_election_timeout_ms": 100}


@pytest.fixture(autouse=True)
def same_level() -> Iterator[None]:
    """The level of the log is as it was, afterwards."""
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


class Agent:
    """The settings of an agent, and what was told of them."""

    def __init__(self, file: Path, report: int | None = None) -> None:
        self.file = file
        self.write()
        self.sources = Sources({}, {"KVORUM_NAME": "n1", "KVORUM_DATA_DIR": "/nowhere", "KVORUM_REDIS_URL": ""}, file)
        settings = self.sources.read()
        self.config = RaftConfig(**settings.raft_values)
        self.stopping = False
        self.reloading = Reloading(self.sources, settings, self.config, report, lambda: self.stopping)
        self.told: list[Settings] = []
        self.reloading.listeners.append(self.told.append)

    def write(self, **values: object) -> None:
        """Let the file hold these settings."""
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in {**BRISK, **values}.items()]
        self.file.write_text("".join(lines))


def run(file: Path, scenario: Callable[[Agent, Servers], Coroutine[Any, Any, None]], report: int | None = None) -> None:
    """Run a scenario with a cluster of one."""

    async def main() -> None:
        agent = Agent(file, report)
        async with Servers("a", config=agent.config) as servers:
            await servers.led()
            agent.reloading.attach(servers["a"])
            await scenario(agent, servers)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_what_was_read_is_in_force_everywhere(tmp_path: Path) -> None:
    """The library, the listeners and the log have the new settings; nothing to change is a success, too."""

    async def scenario(agent: Agent, servers: Servers) -> None:
        assert await agent.reloading.reload() == ()
        agent.write(raft_heartbeat_ms=30, raft_forwarding=0, log_level="error", stop_deadline_ms=500)
        assert await agent.reloading.reload() == ()
        in_force = agent.reloading.settings
        assert (in_force.raft_heartbeat_ms, in_force.log_level, in_force.stop_deadline_ms) == (30, "error", 500)
        assert agent.told[-1] is in_force
        config = servers["a"].driver.node.state.config
        assert (config, config.heartbeat_ms, config.forwarding) == (agent.reloading.config, 30, 0)
        assert logging.getLogger().level == logging.ERROR
        assert agent.reloading.numbers["config_reloads_total"] == 2

    run(tmp_path / "k.toml", scenario)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"log_level": "loud", "speed": 9, "workers": "x"}, ["log_level: 'loud'", "speed: no such setting", "workers: 'x'"]),
        ({"raft_heartbeat_ms": 50}, ["raft_election_timeout_ms: 100 must be at least three times raft_heartbeat_ms 50"]),
        ({"workers": 2, "raft_tick_ms": 10, "redis_url": "redis://:hunter2@h"}, ["redis_url: can't change", "workers: can't", "raft_tick_ms: can't"]),
        ({"raft_append_bytes_max": 67_108_864, "raft_inflight_bytes_max": 67_108_864}, []),
        ({"raft_uncommitted_bytes_max": 2_097_152}, ["raft_uncommitted_bytes_max: can't change from 67108864 to 2097152"]),
    ],
    ids=["unknown and unusable", "a rule", "needs a restart", "fits", "a limit of the library"],
)
def test_all_or_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture, values: dict[str, object], named: list[str]) -> None:
    """Beside a change that could be made: every problem is named, with the file where it stands there, no secret's value, and nothing has changed."""

    async def scenario(agent: Agent, servers: Servers) -> None:
        before = (agent.reloading.settings, agent.reloading.config, servers["a"].driver.node.state.config)
        agent.write(raft_disk_stall_ms=700, **values)
        problems = await agent.reloading.reload()
        assert [any(problem.startswith(beginning) for problem in problems) for beginning in named] == [True] * len(named), problems
        assert len(problems) == len(named)
        if named:
            assert (agent.reloading.settings, agent.reloading.config, servers["a"].driver.node.state.config) == before
            assert agent.told == []
            assert agent.reloading.numbers["config_last_reload_successful"] == 0
            assert all(beginning in caplog.text for beginning in named)
        assert "hunter2" not in caplog.text + "".join(problems)

    run(tmp_path / "k.toml", scenario)


def test_what_the_library_refuses_is_named_as_the_setting_is(tmp_path: Path) -> None:
    """An append may not outgrow what the transport was made for, which only the library knows."""

    async def scenario(agent: Agent, _servers: Servers) -> None:
        small = {"raft_uncommitted_bytes_max": 2_097_152}
        agent.write(**small)
        settings = agent.sources.read()
        reloading = Reloading(agent.sources, settings, RaftConfig(**settings.raft_values))
        agent.write(**small, raft_append_bytes_max=3_145_728)
        [problem] = await reloading.reload()
        assert problem.startswith("raft_append_bytes_max 3145728 is over uncommitted_bytes_max 2097152")
        assert reloading.settings is settings

    run(tmp_path / "k.toml", scenario)


def test_reloads_at_the_same_time_happen_one_after_the_other(tmp_path: Path) -> None:
    """Each reads the file when it is its turn, and none sees another's half: the listeners hear whole objects, in order."""

    async def scenario(agent: Agent, _servers: Servers) -> None:
        agent.write(log_level="error", stop_deadline_ms=501)
        async with agent.reloading.held_off():
            asked = [asyncio.create_task(agent.reloading.reload()) for _ in range(5)]
            agent.reloading.on_signal()
            await asyncio.sleep(0)
            assert agent.told == []
            agent.write(log_level="warning", stop_deadline_ms=502)
        assert await asyncio.gather(*asked) == [()] * 5
        while len(agent.told) < 6:  # noqa: ASYNC110 - the one of the signal is nobody's
            await asyncio.sleep(0.001)
        assert {(told.log_level, told.stop_deadline_ms) for told in agent.told} == {("warning", 502)}

    run(tmp_path / "k.toml", scenario)


def test_readers_never_see_half(tmp_path: Path) -> None:
    """While the file goes back and forth between two settings, who looks at any moment sees the one or the other, in the library and here."""
    pairs = {(30, 700), (20, 800)}

    async def scenario(agent: Agent, servers: Servers) -> None:
        agent.write(raft_heartbeat_ms=30, raft_disk_stall_ms=700)
        await agent.reloading.reload()
        done = False
        seen = set()

        async def look() -> None:
            while not done:
                settings, config = agent.reloading.settings, servers["a"].driver.node.state.config
                assert (config.heartbeat_ms, config.disk_stall_ms) == (settings.raft_heartbeat_ms, settings.raft_disk_stall_ms)
                seen.add((config.heartbeat_ms, config.disk_stall_ms))
                await asyncio.sleep(0)

        looking = asyncio.create_task(look())
        for turn in range(40):
            heartbeat_ms, stall_ms = sorted(pairs)[turn % 2]
            agent.write(raft_heartbeat_ms=heartbeat_ms, raft_disk_stall_ms=stall_ms)
            assert await agent.reloading.reload() == ()
        done = True
        await looking
        assert seen == pairs

    run(tmp_path / "k.toml", scenario)


def test_a_stopping_node_reloads_nothing(tmp_path: Path) -> None:
    """Once the node is to stop, or the library has stopped, the answer says so and nothing changes."""

    async def scenario(agent: Agent, servers: Servers) -> None:
        agent.write(log_level="error")
        agent.stopping = True
        assert await agent.reloading.reload() == ("the node is stopping",)
        agent.stopping = False
        await servers["a"].stop()
        assert await agent.reloading.reload() == ("the node is not running",)
        assert agent.told == []
        agent.reloading.detach()
        assert await agent.reloading.reload() == ()
        assert agent.told[-1].log_level == "error"

    run(tmp_path / "k.toml", scenario)


def test_a_server_that_was_made_with_older_settings_goes_on_with_those_in_force(tmp_path: Path) -> None:
    """A node starts anew within its agent (its disk was full) after a reload: what it was made with is replaced when it runs."""

    async def scenario(agent: Agent, servers: Servers) -> None:
        agent.reloading.detach()
        agent.write(raft_heartbeat_ms=30)
        assert await agent.reloading.reload() == ()
        assert servers["a"].driver.node.state.config.heartbeat_ms == 20
        agent.reloading.attach(servers["a"])
        assert servers["a"].driver.node.state.config.heartbeat_ms == 30

    run(tmp_path / "k.toml", scenario)


def test_the_supervisor_is_told(tmp_path: Path) -> None:
    """A line of JSON with what may change, before anything has changed; a supervisor that can't be told leaves everything as it was."""
    outlet, inlet = os.pipe()
    os.set_blocking(inlet, False)

    async def scenario(agent: Agent, servers: Servers) -> None:
        agent.write(raft_heartbeat_ms=30, stop_deadline_ms=500)
        assert await agent.reloading.reload() == ()
        told = json.loads(os.read(outlet, 65_536))
        assert (told["stop_deadline_ms"], told["log_level"], "redis_url" in told) == (500, "info", False)
        with suppress(BlockingIOError):
            while os.write(inlet, b"x" * 4_096):
                pass
        agent.write(raft_heartbeat_ms=25, stop_deadline_ms=600)
        [problem] = await agent.reloading.reload()
        assert problem.startswith("the supervisor of this node can't be told: ")
        assert (agent.reloading.settings.stop_deadline_ms, servers["a"].driver.node.state.config.heartbeat_ms) == (500, 30)
        assert len(agent.told) == 1

    try:
        run(tmp_path / "k.toml", scenario, inlet)
    finally:
        os.close(outlet)
        os.close(inlet)
