"""Names of hosts to addresses."""

import asyncio
import socket

Endpoint = tuple[str, int]


class Resolver:
    """Asks for a name anew each time, but never twice at once.

    A name server that does not answer holds a thread of the event loop for many seconds, longer than any dial. One question a name
    bounds that: the names of dead peers can't use up the threads that the names of living ones need.
    """

    def __init__(self) -> None:
        self._questions: dict[Endpoint, asyncio.Task[list[Endpoint]]] = {}

    async def resolve(self, host: str, port: int) -> list[Endpoint]:
        """Addresses of the host, at least one, in the order in which they should be tried.

        :raises OSError: when the name is not known.
        :raises UnicodeError: when it can't be a name.
        """
        key = (host, port)
        question = self._questions.get(key)
        if question is None:
            question = asyncio.get_running_loop().create_task(self._ask(host, port))
            self._questions[key] = question
            question.add_done_callback(lambda done: self._answered(key, done))
        await asyncio.wait((question,))  # unlike a shield it says nothing when nobody waits for a failure any more
        return question.result()

    async def stop(self) -> None:
        """Wait for no answer any more."""
        questions = tuple(self._questions.values())
        for question in questions:
            question.cancel()
        await asyncio.gather(*questions, return_exceptions=True)

    async def _ask(self, host: str, port: int) -> list[Endpoint]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys((str(address[0]), int(address[1])) for *_, address in found))

    def _answered(self, key: Endpoint, question: asyncio.Task[list[Endpoint]]) -> None:
        del self._questions[key]
        if not question.cancelled():
            question.exception()  # whoever asked may have given up: then nobody else looks at it
