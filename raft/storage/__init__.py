"""Adapters for the storage ports: in memory, and real ones (SQLite through SQLAlchemy, files).

Import the adapters from their modules, so that those in memory need no database library:
:mod:`raft.storage.memory`, :mod:`raft.storage.sqlite`, :mod:`raft.storage.snapshots`, :mod:`raft.storage.directory`.
"""
