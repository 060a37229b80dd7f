"""Ends the process, as a crash would, when it opens a file whose name begins with "killer". Python imports this at its start."""

import os
import signal
import sys


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and os.path.basename(str(arguments[0])).startswith("killer"):
        os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(_watch)
