"""Locks on files, so that two processes do not write to one folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from credibly.errors import RunBusyError


class Lock:
    """A hidden file in a folder, which one process at a time holds; one that is killed lets go of it.

    Args:
        folder: whose lock it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / ".lock"
        self._is_held = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock, or go on with it where it is held through this object already.

        Raises:
            RunBusyError: another process holds it.
        """
        if self._is_held:
            yield
            return
        with self._taken():
            self._is_held = True
            try:
                yield
            finally:
                self._is_held = False
                with suppress(OSError):  # Windows removes no file that is open
                    self.file.unlink()

    def _taken(self) -> IO[str]:
        """Open and take the file, anew where the process that held it has removed it meanwhile."""
        while True:
            handle = self.file.open("a")
            if _held_by_another(handle):
                handle.close()
                raise RunBusyError(
                    f"another process works on {self.folder}; wait for it, or stop it, "
                    "or give another --output"
                )
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle.fileno()), self.file.stat()):
                    return handle
            handle.close()


def _held_by_another(handle: IO[str]) -> bool:
    """Take a lock, and return whether another process holds it."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False  # Windows, and disks without locks
    return False
