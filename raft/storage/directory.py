"""The data directory: made when needed, owned by exactly one process, its entries made durable."""

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from raft.errors import DirectoryLocked
from raft.storage.failures import from_os, sync

FILE_NAME = "LOCK"


class DirectoryLock:
    """Owns a directory from construction to :meth:`release`, or to the end of the process, however it ends.

    The lock belongs to the open file, not to the process: a second one in the same process is refused as well. The file stays where
    it is, since removing it would let two processes lock two files of one name; its text says who holds the lock, for people.

    :param path: the directory; made, readable by its owner alone, when absent.
    :raises DirectoryLocked: naming the directory and its holder.
    :raises StorageFailed: when the directory can't be made or written to.
    """

    def __init__(self, path: Path) -> None:
        self._file: int | None = None
        try:
            make_directory(path)
            file = os.open(path / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._acquire(file, path)
            except BaseException:
                os.close(file)
                raise
        except OSError as error:
            raise from_os("lock the data directory", error, path / FILE_NAME) from error
        self._file = file

    def release(self) -> None:
        """Give the directory up. Idempotent."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.release()

    @staticmethod
    def _acquire(file: int, path: Path) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(file, 256, 0).decode(errors="replace").strip() or "a process that has just started"
            raise DirectoryLocked("lock the data directory", f"{path} is in use by {holder}", "stop it first, or name another directory") from error
        text = f"process {os.getpid()} on {socket.gethostname()}\n".encode()
        os.ftruncate(file, 0)
        os.pwrite(file, text, 0)


def make_directory(path: Path) -> None:
    """Make a directory and its parents, each durable in the one above.

    :raises OSError: when that fails.
    """
    if path.is_dir():
        return
    if path.parent != path:
        make_directory(path.parent)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if not path.is_dir():
        raise NotADirectoryError(20, "Not a directory", str(path))
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make names that appeared in, moved within or vanished from a directory durable.

    :raises OSError: when that fails.
    """
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(file)
    finally:
        os.close(file)
