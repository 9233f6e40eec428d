"""Imported first by the server that jobs are forked from, and by nothing else: it does not hear what a sweep is told.

Ctrl-C, a terminal that is closed and `timeout` signal all processes of a group. Without its server, a sweep would lose
sight of its jobs; when the sweep is gone, the server leaves by itself.
"""

import os
import signal
from contextlib import suppress

if hasattr(os, "setsid"):
    with suppress(PermissionError):  # it leads a session already
        os.setsid()
for _name in ("SIGINT", "SIGTERM", "SIGHUP"):
    if hasattr(signal, _name):
        signal.signal(getattr(signal, _name), signal.SIG_IGN)
