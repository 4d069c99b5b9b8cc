"""Where things lie on this machine: the data dir, the config file, and the files in the data dir.

Knows the search order and nothing of what the files say, except ``data_dir`` in the config.
Plain strings instead of ``pathlib`` and a lazy YAML import keep every command's start short.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from dicode_mcp.errors import Code, DicodeError

DATA_DIR_VARIABLE = "DICODE_DATA_DIR"
CONFIG_VARIABLE = "DICODE_CONFIG"


class Places(NamedTuple):
    """The paths a command works with; all absolute.

    ``named_config`` is the config file the user named with ``--config``, which a server started
    from here is told too; a config found by search is found by the server as well.
    """

    data_dir: str
    named_config: str | None = None

    @property
    def socket(self) -> str:
        """The server's local socket."""
        return os.path.join(self.data_dir, "dicode.sock")

    @property
    def lock(self) -> str:
        """The file whose flock the running server holds, with its pid inside."""
        return os.path.join(self.data_dir, "server.lock")

    @property
    def log(self) -> str:
        """Where a server in the background writes its own log."""
        return os.path.join(self.data_dir, "server.log")

    @property
    def arguments(self) -> str:
        """How the server was started last, for ``dicode restart``."""
        return os.path.join(self.data_dir, "server.args.json")

    @property
    def starting(self) -> str:
        """The file whose flock a client holds while it starts a server."""
        return os.path.join(self.data_dir, "server.starting")


def find_places(
    data_dir: str | None, config: str | None, env: Mapping[str, str], cwd: str
) -> Places:
    """Resolve the data dir: argument, ``$DICODE_DATA_DIR``, the config's ``data_dir``, default.

    Raises ``DicodeError(INVALID_CONFIG)`` when the config must be read and cannot be.
    """
    home = env.get("HOME") or os.path.expanduser("~")
    named = _absolute(config, home, cwd) if config else None
    if named is not None and not os.path.isfile(named):
        raise DicodeError(
            Code.INVALID_CONFIG,
            f"the config file {named} does not exist",
            hint="correct --config, or leave it out to use the search order",
        )
    chosen = data_dir or env.get(DATA_DIR_VARIABLE)
    if chosen:
        return Places(_absolute(chosen, home, cwd), named)
    found = named or find_config(env, home, cwd)
    configured = _configured_data_dir(found, home) if found else None
    return Places(configured or os.path.join(home, ".dicode"), named)


def find_config(env: Mapping[str, str], home: str, cwd: str) -> str | None:
    """Give the config file that is read when none is named; None when there is none."""
    from_env = env.get(CONFIG_VARIABLE)
    if from_env:
        return _absolute(from_env, home, cwd)
    candidates = (os.path.join(cwd, "dicode.yaml"), os.path.join(home, ".dicode", "dicode.yaml"))
    return next((path for path in candidates if os.path.isfile(path)), None)


def _configured_data_dir(config: str, home: str) -> str | None:
    document = _read_yaml(config)
    if not isinstance(document, dict):
        return None
    value = cast("dict[str, Any]", document).get("data_dir")
    if value is None:
        return None
    if not isinstance(value, str):
        raise DicodeError(
            Code.INVALID_CONFIG,
            f"{config}: data_dir must be a path in text form",
            hint="write it as `data_dir: ~/.dicode`",
        )
    folder = os.path.dirname(config)
    expanded = value.replace("${HOME}", home).replace("${CONFIGDIR}", folder)
    return _absolute(expanded, home, folder)


def _read_yaml(path: str) -> Any:
    # Only here, because a config file is rare and the import costs as much as a whole command.
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        with open(path, encoding="utf-8") as file:
            return yaml.load(file, Loader=loader)
    except OSError as error:
        raise DicodeError(
            Code.INVALID_CONFIG, f"cannot read the config file {path}: {error.strerror}"
        ) from None
    except UnicodeDecodeError:
        raise DicodeError(
            Code.INVALID_CONFIG, f"the config file {path} is not UTF-8 text"
        ) from None
    except yaml.YAMLError as error:
        mark: Any = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else path
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise DicodeError(
            Code.INVALID_CONFIG,
            f"{where}: {problem}",
            hint="mend the file, or pass --data-dir to do without it",
        ) from None


def _absolute(path: str, home: str, base: str) -> str:
    if path == "~" or path.startswith("~/"):
        path = home + path[1:]
    return os.path.normpath(os.path.join(base, path))
