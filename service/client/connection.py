"""Requests to one node over HTTP, and what became of each that did not succeed."""

import os
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn
from urllib.parse import urlencode, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError as TransportError
from urllib3.exceptions import MaxRetryError, NewConnectionError

from service.addresses import API_PORT
from service.client import answers
from service.client.addresses import base_url, checked, find_token
from service.client.errors import ClientError
from service.errors import REJECTED, UNKNOWN

CONNECT_SECONDS = 3.0

Body = bytes | Iterator[bytes]
"""What a request carries; an iterator is sent piece by piece."""
Parameters = Mapping[str, str | int | bytes]
Headers = Mapping[str, str]
NOTHING: Mapping[str, str] = {}


class Connection:
    """A node as a client reaches it; see :class:`service.client.Client` for the parameters.

    :ivar index: the newest log index that an answer to a write has told; 0 before there was one, and for ever where a Consul answers.
    """

    def __init__(self, address: str | None, token: str | None, *, answer_seconds: float, environ: Mapping[str, str] | None) -> None:
        variables = os.environ if environ is None else environ
        self.url = base_url(address or variables.get("KVORUM_HTTP_ADDR") or variables.get("CONSUL_HTTP_ADDR") or f"127.0.0.1:{API_PORT}")
        self.index = 0
        self._timeout = (CONNECT_SECONDS, answer_seconds)
        self._session = requests.Session()
        # Neither proxies nor ~/.netrc have a say in how a node is reached.
        self._session.trust_env = False
        found = checked(token or find_token(variables))
        if found:
            self._session.headers["X-Consul-Token"] = found

    def close(self) -> None:
        """Close the connections, now: closing a session alone leaves those that a response (kept by an error, say) still refers to."""
        adapter = self._session.get_adapter(self.url)
        if isinstance(adapter, HTTPAdapter):
            for key in list(adapter.poolmanager.pools.keys()):
                adapter.poolmanager.pools[key].close()
        self._session.close()

    def found(self, response: requests.Response) -> requests.Response:
        """The answer of a route that must be there."""
        if response.status_code == 404:
            raise ClientError(f"{self.url} does not know {urlsplit(response.url).path}", status=404)
        return response

    def request(
        self, method: str, path: str, parameters: Parameters = NOTHING, body: Body | None = None, *, headers: Headers = NOTHING, stream: bool = False
    ) -> requests.Response:
        """One request. Returns a 2xx answer, or a 404 to a GET; raises for everything else."""
        response = self.send(method, path, parameters, body, headers=headers, stream=stream)
        if response.ok or (response.status_code == 404 and method == "GET"):
            return response
        with response:
            raise self._refused(method, response)

    def send(
        self, method: str, path: str, parameters: Parameters = NOTHING, body: Body | None = None, *, headers: Headers = NOTHING, stream: bool = False
    ) -> requests.Response:
        """One request and its answer, whatever that is."""
        query = "&".join(name if value == "" else urlencode({name: value}) for name, value in parameters.items())
        request = self._session.prepare_request(requests.Request(method, self.url, headers=headers, data=body))
        # Set here, because preparing an address would fold "." and ".." of a key.
        request.url = self.url + path + ("?" + query if query else "")
        try:
            response = self._session.send(request, timeout=self._timeout, stream=stream, allow_redirects=False)
        except (requests.RequestException, TransportError) as error:
            self.unanswered(method, error)
        self.index = max(self.index, answers.index(response))
        return response

    def unanswered(self, method: str, error: Exception) -> NoReturn:
        """Say what became of a request without an answer."""
        never_left = _never_left(error)
        outcome = REJECTED if method == "GET" or never_left else UNKNOWN
        if never_left:
            hint = "is a node running there? --http-addr or KVORUM_HTTP_ADDR names another"
            raise ClientError(f"{self.url} can't be reached: {_cause(error)} ({hint})", outcome) from error
        if isinstance(error, requests.Timeout):
            raise ClientError(f"{self.url} did not answer within {self._timeout[1]:g} s", outcome) from error
        raise ClientError(f"the connection to {self.url} broke: {_cause(error)}", outcome) from error

    def _refused(self, method: str, response: requests.Response) -> ClientError:
        status = response.status_code
        told = response.headers.get(answers.OUTCOME_HEADER, "").lower()
        if told not in (REJECTED, UNKNOWN):
            told = REJECTED if method == "GET" or 300 <= status < 500 else UNKNOWN
        problem = answers.problem(response)
        text = problem.get("detail") or answers.text(response) or response.reason
        return ClientError(f"{self.url} answered {status}: {text}", told, status, problem)

    def verdict(self, response: requests.Response) -> bool:
        """What a write was answered."""
        text = answers.text(response)
        if text not in {"true", "false"}:
            raise ClientError(f"{self.url} answered {text!r} to a write; true or false was expected", UNKNOWN, response.status_code)
        return text == "true"

    def json(self, response: requests.Response, expected: type) -> Any:
        """The body, which must be of that type."""
        try:
            content = response.json()
        except ValueError as error:
            raise ClientError(f"{self.url} answered something that is no JSON", status=response.status_code) from error
        if not isinstance(content, expected):
            raise ClientError(f"{self.url} answered a JSON {type(content).__name__}; {expected.__name__} was expected", status=response.status_code)
        return content

    def stream(self, response: requests.Response) -> Iterator[Any]:
        """The items of a listing as they arrive."""
        try:
            yield from answers.array_items(answers.text_chunks(response))
        except (requests.RequestException, TransportError, OSError) as error:
            self.unanswered("GET", error)
        except ValueError as error:
            raise ClientError(f"{self.url} sent a listing that can't be read: {error}") from error


def _never_left(error: BaseException) -> bool:
    """Whether the request certainly never left: no connection was made."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    inner = error.args[0] if error.args else None
    return isinstance(inner, MaxRetryError) and isinstance(inner.reason, NewConnectionError)


def _cause(error: BaseException) -> str:
    """The system's own words, from below the layers of the HTTP library."""
    found: BaseException | None = error
    seen = []
    while found is not None and found not in seen:
        seen.append(found)
        if isinstance(found, OSError) and found.errno is not None and found.strerror:
            return found.strerror
        found = found.__cause__ or found.__context__
    return type(error).__name__
