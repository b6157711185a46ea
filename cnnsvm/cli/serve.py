"""Judge images on a local page, and for other programs by an HTTP API."""

import argparse
import logging
import os
import warnings
from typing import Any

from cnnsvm.cli.flags import add_backend_flags, machine_of

logger = logging.getLogger(__name__)

TOKEN = "CNNSVM_TOKEN"
_GRACE = 5  # seconds that requests have to end after an interruption
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm serve``."""
    add: Any = parser.add_argument
    add("--model", help="as for cnnsvm predict: a name, a folder or owner/name [all evidence]")
    add("--revision", help="commit, tag or branch of a model on the hub")
    add("--host", default="127.0.0.1", help="address to listen on [%(default)s: this machine]")
    add(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which this server is reached, such as that of a proxy; may be repeated; * "
        "is any [localhost, --host, and every address]",
    )
    add("--port", type=int, default=8000, help="[%(default)s; 0: any that is free]")
    add(
        "--token-env",
        default=TOKEN,
        metavar="NAME",
        help="environment variable that holds the token of the API [%(default)s; none, if not set]",
    )
    add("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    add_backend_flags(add)
    group: Any = parser.add_argument_group("limits")
    more: Any = group.add_argument
    more("--max-bytes", type=int, metavar="N", help="of a request [64,000,000]")
    more("--max-pixels", type=int, metavar="N", help="of an image [50,000,000]")
    more("--max-files", type=int, metavar="N", help="of a request [16]")
    more("--workers", type=int, metavar="N", help="requests that are worked on at once [2]")
    more("--queue", type=int, metavar="N", help="requests that may wait beside them [16]")
    more("--timeout", type=float, metavar="SECONDS", help="of an upload, and of an answer [120]")


def main(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    try:
        import uvicorn

        from cnnsvm.web.app import make_app
        from cnnsvm.web.limits import Limits
    except ImportError as error:
        raise ValueError(
            f"serve needs {error.name}, which is not installed: pip install 'cnnsvm[web]'."
        ) from error
    from cnnsvm.report.judging import Judge

    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port must be 0 to 65535, got {args.port}.")
    names = ("max_bytes", "max_pixels", "max_files", "workers", "queue", "timeout")
    limits = Limits(**{k: v for k in names if (v := getattr(args, k)) is not None})
    token = _token(args)

    def load() -> Judge:
        return Judge(args.model, revision=args.revision, **machine_of(args))

    def stop() -> None:
        server.should_exit = True

    app = make_app(
        load,
        limits=limits,
        token=token,
        hosts=[args.host, *args.allow_host],
        on_failure=stop,
    )
    # uvicorn would log whole addresses, which may hold names, and the parser bytes of a broken form
    warnings.filterwarnings("ignore", message=r"<\d+ bytes>: ")  # nothing of an image is logged
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    options: Any = {"access_log": False, "log_config": None, "server_header": False}
    config = uvicorn.Config(app, args.host, args.port, timeout_graceful_shutdown=_GRACE, **options)
    server = uvicorn.Server(config)
    try:
        server.run()
    except SystemExit:  # it has logged why
        raise ValueError(
            f"cannot listen on {args.host}, port {args.port}. Stop what does, or choose another "
            "--port (0: any that is free) or --host."
        ) from None
    if app.state.service.failure is not None:
        raise app.state.service.failure
    return 0


def _token(args: argparse.Namespace) -> str | None:
    """Read the token from the environment: in a command line everyone could read it."""
    token = os.environ.get(args.token_env, "").strip() or None
    if token is None and args.token_env != TOKEN:
        raise ValueError(f"--token-env {args.token_env}: no such variable, or it is empty. Set it.")
    if token is None and args.host not in _LOOPBACK:
        logger.warning(
            "Whoever reaches %s may use this server: there is no token. Set %s, and put a proxy "
            "with TLS before it.",
            *(args.host, TOKEN),
        )
    return token
