"""The order of the calls of an actor that has a thread for each."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from fedray.executors import ServerRestarted


class Turns:
    """Numbered calls of an actor that has a thread for each compute one after another, by their numbers;
    while one does, the next one's arguments are fetched, and the last one's result is stored. A number that
    never comes, because what it waits for has failed, is waited for until the attempt is abandoned."""

    def __init__(self) -> None:
        self.changed = Condition()
        self.attempt = -1
        self.next = 0

    @contextmanager
    def begun(self, attempt: int) -> Iterator[None]:
        with self.changed:
            self.attempt = attempt
            self.next = 0
            yield
            self.changed.notify_all()

    @contextmanager
    def taken(self, attempt: int, number: int) -> Iterator[None]:
        with self.changed:
            self.changed.wait_for(lambda: self.attempt != attempt or self.next == number)
            if self.attempt != attempt:
                raise ServerRestarted("this attempt at the round is over, or the server was started anew")
            try:
                yield
            finally:
                self.next += 1
                self.changed.notify_all()
