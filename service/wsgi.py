"""The application that gunicorn loads, made from the environment: one for each worker process."""

import os

from service.api.app import create_app
from service.api.fastpath import FastPath
from service.ipc.client import AgentClient
from service.settings import load
from service.store.reader import Reader

settings = load(os.environ)
client = AgentClient(settings.socket_path)
application = FastPath(create_app(client, Reader(settings.data_dir), settings))
client.start()
