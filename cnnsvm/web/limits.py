"""What a server gives to one request, and how it says no."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """What one request, and all together, may take.

    Parameters
    ----------
    max_bytes : int, default=64_000_000
        Of a request, all its images together.
    max_pixels : int, default=50_000_000
        Of one image.
    max_files : int, default=16
        Of a request.
    workers : int, default=2
        Requests that are worked on at once: decoded, that is. A device judges one image at a time.
    queue : int, default=16
        Further requests that may wait.
    timeout : float, default=120.0
        Seconds that the upload may take, and then the answer.

    Raises
    ------
    ValueError
        If one of them is out of range.
    """

    max_bytes: int = 64_000_000
    max_pixels: int = 50_000_000
    max_files: int = 16
    workers: int = 2
    queue: int = 16
    timeout: float = 120.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value, least = getattr(self, each.name), 0 if each.name == "queue" else 1
            if each.name == "timeout":
                if not 0 < value < math.inf:
                    raise ValueError(f"timeout must be above 0 and finite, got {value}.")
            elif value < least:
                raise ValueError(f"{each.name} must be at least {least}, got {value}.")


class Refusal(Exception):
    """A request that is not answered: a status of HTTP and a sentence for whoever sent it."""

    def __init__(
        self, status: int, sentence: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, dict(headers or {})


def busy(sentence: str, seconds: int = 2) -> Refusal:
    """Refuse for now: 503, and when to ask again."""
    return Refusal(503, f"{sentence} Try again in {seconds} s.", {"Retry-After": str(seconds)})
