"""The one thread in which the model answers, and the queue in front of it.

One process serves one device, and one request is answered at a time with all of its
cores: an answer does not depend on other callers, and equals that of a local box to the
last bit. Accounts take turns, so that nobody waits for all requests of another account.
With `join`, requests that wait together and differ only in their rows (contexts of
the same classes, images) are answered in one product, which suits many small requests
to a GPU; the last bits of an answer then depend on what it was joined with.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch


class Busy(RuntimeError):
    """The queue is full."""


@dataclass(eq=False)
class Question:
    """A request. rows: a tensor with one entry of the answer per row. ask: rows → answer. kind: equal for requests
    that differ only in their rows; None for one that cannot be joined."""

    rows: torch.Tensor
    ask: Callable[[torch.Tensor], torch.Tensor]
    kind: tuple | None = None
    answer: asyncio.Future = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Worker:
    """Answers requests, one after another (see the module's docstring).

    waiting: how many may wait; `join`: the largest number of rows joined into one product, 0 for none.
    """

    def __init__(self, waiting: int, join: int = 0):
        self.waiting, self.join = waiting, join
        self.queues: OrderedDict[str, deque[Question]] = OrderedDict()  # account → its requests; the next turn first
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.task: asyncio.Task | None = None  # answers the queue; None while it is empty

    def reserve(self) -> None:
        """Raise `Busy` if the queue is full."""
        if sum(map(len, self.queues.values())) >= self.waiting:
            raise Busy

    async def ask(self, account: str, question: Question) -> torch.Tensor:
        """The answer, when its turn comes. Raises what the model raises."""
        self.queues.setdefault(account, deque()).append(question)
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._answer_all())
        return await question.answer

    async def _answer_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self.queues:
            questions = self._next()
            try:
                answer = await loop.run_in_executor(self.thread, _asked, questions)
            except Exception as error:
                answer = error
            for question, part in zip(questions, _parts(questions, answer)):
                if not question.answer.done():  # the caller has disconnected
                    question.answer.set_exception(part) if isinstance(part, Exception) else question.answer.set_result(part)
        self.task = None

    def _next(self) -> list[Question]:
        """The request whose turn it is, with those that can be joined to it."""
        account, queue = self.queues.popitem(last=False)
        first = queue.popleft()
        if queue:
            self.queues[account] = queue  # its next turn comes after all other accounts
        if not self.join or first.kind is None:
            return [first]
        joined, count = [first], len(first.rows)
        for name, others in list(self.queues.items()):
            for question in [other for other in others if other.kind == first.kind]:
                if count + len(question.rows) <= self.join:
                    others.remove(question)
                    joined.append(question)
                    count += len(question.rows)
            if not others:
                del self.queues[name]
        return joined


def _asked(questions: list[Question]) -> torch.Tensor:
    first, *others = questions
    return first.ask(torch.cat([question.rows for question in questions]) if others else first.rows)


def _parts(questions: list[Question], answer) -> list:
    """Each request's part of a joined answer; an error goes to all."""
    if len(questions) == 1 or isinstance(answer, Exception):
        return [answer] * len(questions)
    return answer.split([len(question.rows) for question in questions])
