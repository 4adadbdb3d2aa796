"""Assertions in the shipped suites explain themselves as those in test files do."""

import pytest

pytest.register_assert_rewrite("raft.testing.conformance")
