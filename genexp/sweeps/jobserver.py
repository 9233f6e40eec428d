"""Imported first by the server that jobs are forked from, and by nothing else.

The server ignores what ends a sweep. Ctrl-C, a closed terminal and `timeout` signal all processes of a group; without
its server a sweep would lose sight of its jobs. When the sweep is gone, the server leaves by itself.

The first job need not wait for all that jobs import: the server imports the rest beside it, and then starts others.
"""

import importlib
import os
import signal
import threading
from contextlib import suppress

from genexp.signals import lead_a_session

REST = "GENEXP_JOBSERVER_REST"  # environment variable: the modules that are imported behind the first job's start


class Rest:
    """The modules that this process imports once it has forked for the first time, in a thread of their own.

    A process that was forked during an import could wait for it forever, so a fork waits until the thread has ended.
    """

    def __init__(self, modules: list[str]) -> None:
        self.modules = modules
        self.thread = threading.Thread(target=self._import, daemon=True)
        os.register_at_fork(before=self.wait, after_in_parent=self.begin, after_in_child=self.modules.clear)

    def begin(self) -> None:
        if self.modules and self.thread.ident is None:
            self.thread.start()

    def wait(self) -> None:
        if self.thread.is_alive():
            self.thread.join()

    def _import(self) -> None:
        for module in self.modules:
            with suppress(ImportError):
                importlib.import_module(module)


lead_a_session(signal.SIG_IGN, signal.SIG_IGN)
Rest(os.environ.pop(REST, "").split())
