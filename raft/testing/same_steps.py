"""Runs of the same schedules in different processes, compared step by step: by a digest of each schedule's trace."""

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping


def compare_twice(start: int, count: int, jobs: int) -> list[int]:
    """Run every schedule in two processes with different hash seeds.

    :returns: the seeds whose digests differ, or that failed in one of the two runs.
    """
    one, other = (digests(start, count, jobs, {"PYTHONHASHSEED": hash_seed}) for hash_seed in ("1", "4242"))
    return differing(range(start, start + count), one, other)


def digests(start: int, count: int, jobs: int, environ: Mapping[str, str]) -> dict[int, str]:
    """Run schedules in a process of their own.

    :param environ: what its environment has besides that of this process.
    :returns: the digest of all steps of each seed that held.
    """
    argv = [sys.executable, "-m", "raft.testing.sim", "--start", str(start), "--count", str(count), "--jobs", str(jobs), "--digests"]
    done = subprocess.run(argv, env={**os.environ, **environ}, stdout=subprocess.PIPE, text=True, check=False)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("digest ")]
    return {int(seed): digest for _, seed, digest in lines}


def differing(seeds: Iterable[int], one: Mapping[int, str], other: Mapping[int, str]) -> list[int]:
    """The seeds whose digests differ between two runs, or that failed in one of them."""
    return [seed for seed in seeds if one.get(seed) is None or one.get(seed) != other.get(seed)]
