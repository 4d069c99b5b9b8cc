"""How a forked process ends: as an interpreter does that was started for it, but quicker.

What the script has made is let go in Python's order; what was there before the fork stays as it
is, since taking it apart would take longer than most runs.
"""

from __future__ import annotations

import gc
import os
import sys
from itertools import islice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

_NO_FLUSH = 120
"""Python's exit code when the last output could not be written."""
_before = 0


def remember() -> None:
    """Note how many modules are there already; those of the script come after them."""
    global _before
    _before = len(sys.modules)


def end(run: Callable[[], None]) -> NoReturn:
    """Run something and end the process, whatever comes of it, with the code Python would give."""
    code = 0
    try:
        run()
    except SystemExit as error:
        code = _code_of(error)
    except BaseException as error:
        code = _show(error)
    code = _finish() or code
    os._exit(code)


def _code_of(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def _show(error: BaseException) -> int:
    sys.excepthook(type(error), error, error.__traceback__)
    if isinstance(error, KeyboardInterrupt):
        _finish()
        import signal

        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return 1


def _finish() -> int:
    threading = sys.modules.get("threading")
    if threading is not None:
        _quietly(threading._shutdown)  # waits for threads, as Python does
    import atexit

    _quietly(atexit._run_exitfuncs)  # pyright: ignore[reportPrivateUsage]
    code = _flush()
    _let_go()
    return _flush() or code


def _quietly(act: Callable[[], None]) -> None:
    try:
        act()
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)


def _let_go() -> None:
    """Let go of what the script has made, so that files are written and objects see their end."""
    if len(sys._current_frames()) > 1:  # pyright: ignore[reportPrivateUsage]
        # Threads that nobody waits for run on, and would stumble over names that are gone.
        _write_files()
        return
    main = sys.modules.pop("__main__", None)
    # Not by a look at each: to touch what is shared with the fork server is to copy it.
    own = list(islice(reversed(sys.modules), max(0, len(sys.modules) - _before)))
    modules = [main, *(sys.modules.pop(name) for name in own)]
    while modules:
        _empty(modules.pop(0))
    del main
    gc.collect()


def _empty(module: object) -> None:
    # Whatever a script has put among the modules: not all of it is one.
    names: dict[str, object] = vars(module) if isinstance(module, type(sys)) else {}
    for name in sorted(names, key=_is_public):
        if name not in _KEPT:
            names[name] = None


_KEPT = ("__builtins__", "__dicode_entry__")


def _is_public(name: str) -> bool:
    return not name.startswith("_") or name.startswith("__")


def _write_files() -> None:
    import io

    for each in gc.get_objects():
        if isinstance(each, (io.TextIOWrapper, io.BufferedWriter)):
            try:
                each.flush()
            except (OSError, ValueError):
                pass


def _flush() -> int:
    code = 0
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except (OSError, ValueError, AttributeError):
            code = _NO_FLUSH if stream is sys.stdout else code
    return code
