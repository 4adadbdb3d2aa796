"""The settings as text: the page ``docs/settings.md`` (``python -m service.settings_text`` prints it) and what ``--print-config`` shows."""

import sys
from pathlib import Path

from service.settings import SETTINGS, Setting, Settings


def print_config(settings: Settings) -> str:
    """The effective settings as the text of a settings file, secrets masked."""
    lines = []
    for row in SETTINGS:
        value = getattr(settings, row.name)
        if row.kind in (int, float):
            text = str(value)
        elif row.secret and value:
            text = '"********"'
        else:
            text = '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
        lines.append(f"{row.name} = {text}")
    return "\n".join(lines) + "\n"


def reference() -> str:
    """The text of ``docs/settings.md``."""
    head = (
        "# Settings\n\n"
        "This page is made from the table in `service/settings.py` by `python -m service.settings_text`;\n"
        "a test fails when it differs.\n\n"
        "Each setting can be given as a flag of `kvorum server` (`--data-dir`), in the environment (`KVORUM_DATA_DIR`) or in a TOML file\n"
        "(`data_dir = …`; `--config PATH` or `KVORUM_CONFIG`). A flag wins over the environment, the environment over the file, the file over the\n"
        "default. An unknown name is an error, an empty variable counts as not set. A secret can also be read from a file named by\n"
        "`KVORUM_…_FILE`. `kvorum server --print-config` shows what is in effect, secrets masked. A change takes effect at the next start.\n"
        "Scope *cluster*: give it alike on every node.\n\n"
        "| setting | default | unit | allowed | scope | meaning |\n| --- | --- | --- | --- | --- | --- |\n"
    )
    return head + "".join(_reference_line(row) for row in SETTINGS)


def _reference_line(row: Setting) -> str:
    empty = row.default in ("", Path())
    default = row.derived if empty and row.derived else "empty" if empty else f"`{row.default}`"
    note = " Secret." if row.secret else ""
    return f"| `{row.name}` | {default} | {row.unit} | {row.allowed} | {row.scope} | {row.help}{note} |\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
