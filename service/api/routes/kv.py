"""``/v1/kv/``: the Flask view of :mod:`service.api.kv`."""

from service.api.errors import Answer
from service.api.kv import METHODS, Environ, KeyValue
from service.api.params import parse
from service.api.paths import KEY
from service.api.routing import Route


def routes(kv: KeyValue) -> list[Route]:
    """The routes of this module."""

    def view(environ: Environ) -> Answer:
        key, params = environ[KEY], parse(environ["QUERY_STRING"])
        match environ["REQUEST_METHOD"]:
            case "GET":
                return kv.get_many(key, params, environ) if params.keys or params.recurse else kv.get_one(key, params, environ)
            case "PUT":
                return kv.put_one(key, params, environ)
            case _:
                return kv.delete(key, params, environ)

    return [Route("/v1/kv/", METHODS, view)]
