"""What a server counts, for Prometheus."""

from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from cnnsvm.web.answers import Judged
from cnnsvm.web.service import Service

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """Requests by path and status, their seconds, images by what was said of them.

    Nothing in it tells one image or sender from another.
    """

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        own: dict[str, Any] = {"namespace": "cnnsvm", "registry": self.registry}
        self._requests = Counter("requests", "Requests answered.", ["path", "status"], **own)
        self._seconds = Histogram(
            "request_seconds", "Until a request is answered.", ["path"], buckets=_SECONDS, **own
        )
        self._images = Counter("images", "Images, by what was said of them.", ["kind"], **own)
        held = Gauge("requests_held", "Requests that are worked on or wait.", **own)
        held.set_function(lambda: service.n_held)
        ready = Gauge("ready", "Whether the model is loaded.", **own)
        ready.set_function(lambda: service.judge is not None)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request of a route."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def count_image(self, judged: Judged) -> None:
        """Count an image by the kind of its verdict."""
        self._images.labels(judged.kind or "failed").inc()

    def text(self) -> bytes:
        """Write all numbers in the format of Prometheus."""
        return generate_latest(self.registry)
