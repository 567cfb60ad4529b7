"""One writer thread for an SQLite database: everything that arrives during a commit goes into the next one."""

import logging
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class QueueError(Exception):
    """The store cannot be used; one line says why. `full` when the disk is."""

    def __init__(self, reason: str, *, full: bool = False) -> None:
        super().__init__(reason)
        self.full = full


class GroupCommit:
    """Runs operations on `database` in transactions; a future is done when its operation is on disk.

    Operations run in the order they were given. When a transaction fails, none of its operations happened and all
    their futures hold QueueError.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self.commits = 0
        self._database = database
        self._waiting: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="queue", daemon=True)
        self._thread.start()

    def submit(self, operation: Callable[[], T]) -> "Future[T]":
        """Run `operation` in the next transaction."""
        done: Future[T] = Future()
        done.set_running_or_notify_cancel()  # what was handed over is written, even if nobody waits for it any more
        with self._wake:
            if self._closing:
                done.set_exception(QueueError("the store is closed"))
            else:
                self._waiting.append((operation, done))
                self._wake.notify()
        return done

    def close(self) -> None:
        """Commit what waits, and end."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                batch, self._waiting = self._waiting, []
            if not batch:
                return
            try:
                results = self._commit([operation for operation, _ in batch])
            except Exception as error:
                log.exception("commit failed")
                failure = _failure(error)
                for _, done in batch:
                    done.set_exception(failure)
            else:
                for (_, done), result in zip(batch, results, strict=True):
                    done.set_result(result)

    def _commit(self, operations: list[Callable[[], Any]]) -> list[Any]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            results = [operation() for operation in operations]
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise
        self.commits += 1
        return results


def _failure(error: Exception) -> QueueError:
    full = isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return QueueError(f"the store failed: {error}", full=full)
