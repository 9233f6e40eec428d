"""Times, as they are kept and as they are told."""

import time


def now() -> str:
    """This moment, as ISO 8601 has it, with the zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def duration(seconds: float) -> str:
    """M:SS or H:MM:SS."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def age(seconds: float) -> str:
    """3 min, 5 h or 2 days."""
    if seconds < 60:
        return "now"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"
