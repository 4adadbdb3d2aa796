"""An HTTP/1.1 server for one gunicorn worker. It serves any WSGI application and knows nothing of what that does.

:mod:`~service.worker.parser` and :mod:`~service.worker.body` turn bytes into requests, :mod:`~service.worker.response` turns answers into bytes,
:mod:`~service.worker.connection` serves one client, :mod:`~service.worker.watch` looks after those who are slow or gone, and
:mod:`~service.worker.server` is the worker. :mod:`~service.worker.drain` is how a worker stops; :mod:`~service.worker.stock` is gunicorn's own
server with the same stop.
"""
