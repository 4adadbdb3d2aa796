"""The web server's log: its own lines, and none for a request."""

import pytest
from gunicorn import glogging
from gunicorn.config import Config


def test_no_record_is_made_of_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stock logger takes a ``logconfig_dict`` for a wish to log requests; ours does not, under the same settings."""
    monkeypatch.setenv("KVORUM_NAME", "n1")
    from service import gunicorn_conf  # noqa: PLC0415 - it reads the environment when it is imported

    settings = Config()
    settings.set("accesslog", gunicorn_conf.accesslog)
    settings.set("logconfig_dict", gunicorn_conf.logconfig_dict)
    settings.set("logger_class", gunicorn_conf.logger_class)
    monkeypatch.setattr(glogging, "dictConfig", lambda _config: None)  # the handlers of this process stay as they are
    assert glogging.Logger(settings).access_log_enabled
    assert not settings.logger_class(settings).access_log_enabled
