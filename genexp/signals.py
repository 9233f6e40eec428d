"""The signals by which a person, a scheduler or a closed terminal says that a program is to end."""

import signal

LEAVE = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has one of them
INTERRUPTING = [signal.SIGINT, *LEAVE]


def heard() -> list[int]:
    """Those that were not to be ignored when this program was begun, as SIGHUP is by nohup; SIGINT always is heard."""
    return [number for number in INTERRUPTING if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
