"""The application that gunicorn loads, made from the environment: one for each worker process."""

import os

from service.api.app import create_app
from service.api.fastpath import FastPath
from service.ipc.client import AgentClient
from service.settings import load
from service.store.reader import Reader

SETTINGS_SECONDS = 2.0
"""How long a new worker waits for the settings in force: those of the environment may have been replaced since the node was started. An agent
that does not answer for so long serves nobody anyway, and the worker must be there to say so."""

settings = load(os.environ)
client = AgentClient(settings.socket_path)
application = FastPath(create_app(client, Reader(settings.data_dir), settings))
client.start()
client.await_settings(SETTINGS_SECONDS)
