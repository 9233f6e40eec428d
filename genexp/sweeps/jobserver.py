"""Imported first by the server that jobs are forked from, and by nothing else.

The server ignores what ends a sweep. Ctrl-C, a closed terminal and `timeout` signal all processes of a group; without
its server a sweep would lose sight of its jobs. When the sweep is gone, the server leaves by itself.
"""

import signal

from genexp.signals import lead_a_session

lead_a_session(signal.SIG_IGN, signal.SIG_IGN)
