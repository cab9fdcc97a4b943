"""Locks on files, so that two processes do not write to one folder."""

from __future__ import annotations

from typing import IO


def held_by_another(lock: IO[str]) -> bool:
    """Take a lock, and return whether another process holds it; a killed one's is free."""
    try:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False  # Windows, and disks without locks
    return False
