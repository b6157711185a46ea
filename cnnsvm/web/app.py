"""The application: routes, and what ties them to the service."""

import hmac
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from jinja2 import Environment, PackageLoader
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from cnnsvm import __version__
from cnnsvm.report.judging import Judge
from cnnsvm.web.answers import Answer, Model, Problem
from cnnsvm.web.guard import Guard
from cnnsvm.web.judging import judge_uploads
from cnnsvm.web.limits import Limits, Refusal
from cnnsvm.web.metrics import Metrics
from cnnsvm.web.model import describe_model
from cnnsvm.web.service import Service
from cnnsvm.web.uploads import FILES, drain, read_uploads

PAGES = Path(__file__).parent / "pages"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_STATIC = ("page.css", "icon.svg", "page.js", "facts.js", "report.js", "server.js")
#: Statuses of ``POST /v1/predict``, for the documentation.
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": said}
    for status, said in {
        400: "not a form with images",
        401: "no token, or a wrong one",
        408: "the upload took too long",
        413: "too many bytes, images or pixels",
        415: "no image of a kind that is read here",
        422: "damaged, truncated or empty",
        503: "the model is being loaded, or too much is waiting: Retry-After says for how long",
        504: "not judged in time",
    }.items()
}
_FORM = {
    "type": "object",
    "required": [FILES],
    "properties": {FILES: {"type": "array", "items": {"type": "string", "format": "binary"}}},
}
_BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}}


def make_app(
    load: Callable[[], Judge],
    *,
    limits: Limits | None = None,
    token: str | None = None,
    hosts: Collection[str] = (),
    on_failure: Callable[[], None] = lambda: None,
) -> FastAPI:
    """Make the application.

    Parameters
    ----------
    load : callable
        Returns the `Judge`. It is called once the server runs, in a thread of its own.
    limits : Limits, optional
    token : str, optional
        Whoever asks the API must send it. By default no one needs one.
    hosts : collection of str
        Names by which the server may be asked, beside localhost and addresses; "*" is any.
    on_failure : callable
        Called if ``load`` fails; ``app.state.service.failure`` is why.
    """
    service = Service(load, limits or Limits())
    metrics = Metrics(service)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start(on_failure)
        yield
        service.close()

    app = FastAPI(
        title="cnnsvm",
        version=__version__,
        description="Was an image repainted or generated? What was seen, and how sure that is.",
        docs_url=None,  # FastAPI's page loads scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        exception_handlers={
            Refusal: _answer_refusal,
            HTTPException: _answer_http,
            RequestValidationError: _answer_invalid,
        },
    )
    app.state.service, app.state.metrics = service, metrics
    app.add_middleware(Guard, count=metrics.count_request, hosts=hosts)
    _add_pages(app)
    _add_health(app, service)
    known = [Depends(_asks_for(token))]
    _add_api(app, service, metrics, known)
    return app


def _add_api(app: FastAPI, service: Service, metrics: Metrics, known: list[Any]) -> None:
    said: dict[int | str, Any] = {status: _REFUSALS[status] for status in (401, 503)}

    @app.post(
        "/v1/predict",
        summary="Judge images",
        responses=_REFUSALS,
        openapi_extra=_BODY,
        dependencies=known,
        response_model_exclude_none=True,
    )
    async def predict(
        request: Request,
        heatmap: Annotated[bool, Query(description="an overlay of each image too")] = False,
    ) -> Answer:
        """Say of each image what was found. One that cannot be judged is an entry with `error`.

        If it is the only one, the status says so. Images are kept in memory until they are judged.
        """
        try:
            async with service.place() as run:
                service.ready()
                uploads, wishes = await read_uploads(request, service.limits)
                wanted = heatmap or wishes.get("heatmap", "").lower() in ("true", "1", "on")
                answer: Answer = await run(judge_uploads, service, uploads, wanted)
        except Refusal as refusal:
            if refusal.status != 408:
                await drain(request, service.limits)
            raise
        for judged in answer.files:
            metrics.count_image(judged)
        return answer

    @app.get("/v1/model", summary="What it knows", responses=said, dependencies=known)
    def model() -> Model:
        """Describe the detectors: classes, thresholds, engines of their training, limits."""
        return describe_model(service.ready(), service.limits)

    @app.get("/metrics", summary="Numbers for Prometheus", dependencies=known)
    def numbers() -> Response:
        """Count requests and images; nothing tells one image from another."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", summary="Whether the server runs")
    async def alive() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", summary="Whether the model is loaded", responses={503: _REFUSALS[503]})
    async def ready() -> dict[str, str]:
        service.ready()
        return {"status": "ready"}


def _add_pages(app: FastAPI) -> None:
    pages = Environment(loader=PackageLoader("cnnsvm.web", "pages"), autoescape=True)

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(PAGES / "index.html")

    @app.get("/docs", include_in_schema=False)
    def documentation() -> HTMLResponse:
        return HTMLResponse(pages.get_template("docs.html.j2").render(api=app.openapi()))

    for name in _STATIC:
        app.add_api_route(f"/{name}", _file(PAGES / name), include_in_schema=False)


def _file(path: Path) -> Callable[[], FileResponse]:
    def send() -> FileResponse:
        return FileResponse(path, media_type=_TYPES[path.suffix])

    return send


def _asks_for(token: str | None) -> Callable[..., None]:
    """Return the dependency that refuses whoever does not send the token."""
    scheme = HTTPBearer(auto_error=False, description="if the server asks for one")

    def check(sent: Annotated[HTTPAuthorizationCredentials | None, Depends(scheme)]) -> None:
        given = sent.credentials if sent else ""
        # in constant time: how long it takes must not tell how much of it is right
        if token is not None and not hmac.compare_digest(given.encode(), token.encode()):
            raise Refusal(
                401,
                "no token, or a wrong one. Send it as the header 'Authorization: Bearer TOKEN'.",
                {"WWW-Authenticate": "Bearer"},
            )

    return check


async def _answer_refusal(_: Request, error: Refusal) -> JSONResponse:
    return JSONResponse({"error": error.sentence}, error.status, error.headers)


async def _answer_http(_: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"error": f"{error.detail}."}, error.status_code, error.headers)


async def _answer_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    said = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
    return JSONResponse({"error": f"{said}."}, 400)
