"""Numbers that are not known: NaN and infinities, which JSON does not have. It does not import torch."""

import math
from typing import Any


def finite(values: dict[str, float]) -> dict[str, float]:
    """Return the values that are finite: a curve has a gap where its value is not known."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def strict(content: Any) -> Any:
    """Return the content with None in the place of each float that is not finite, as strict JSON wants it."""
    if isinstance(content, dict):
        return {key: strict(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [strict(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
