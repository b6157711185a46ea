"""Studies in a database that many hosts reach, and how one that went away is waited for.

Optuna and SQLAlchemy are imported where they are used: who judges an image needs none of them.
"""

import logging
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

HEARTBEAT = 30  # seconds between two signs of life of a running trial
MOST_TRIES = 4  # of one trial, after which it is an error
PATIENCE = 300.0  # seconds that a database which went away is waited for
CONNECTING = 10  # seconds
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


class DatabaseError(ConnectionError):
    """A database of studies that cannot be reached or used."""


class StudyMismatchError(ValueError):
    """A stored study was made from other data or settings, so it cannot be resumed."""


def is_url(storage: object) -> bool:
    """Tell whether a ``storage`` names a database rather than a journal file."""
    return isinstance(storage, str) and "://" in storage


def shown(url: str) -> str:
    """Return a database's address without its password."""
    from sqlalchemy.engine import make_url

    return make_url(url).render_as_string(hide_password=True)


def open_database(url: str) -> "RDBStorage":
    """Connect to a database, making Optuna's tables in an empty one.

    A trial without a sign of life for two :data:`HEARTBEAT` counts as lost.

    Raises
    ------
    ValueError
        If the address is not one.
    ImportError
        If the driver is not installed.
    DatabaseError
        If nothing answers there, or its tables are of another version of Optuna.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        address = make_url(url)
    except ArgumentError as error:
        raise ValueError(f"storage={url!r} is no database URL: {error}.") from error
    address = address.set(drivername=_DRIVERS.get(address.drivername, address.drivername))
    is_server = address.get_backend_name() in ("postgresql", "mysql", "mariadb")
    connecting = {"connect_timeout": CONNECTING} if is_server else {}
    try:
        return _connect(address.render_as_string(hide_password=False), connecting)
    except ImportError as error:
        raise ImportError(
            f"storage={shown(url)!r} needs a database driver that is not installed. For PostgreSQL "
            'install it by `pip install "cnnsvm[postgres]"`.'
        ) from error
    except ArgumentError as error:
        raise ValueError(
            f"storage={shown(url)!r}: {error}. Use postgresql://USER:PASSWORD@HOST/DATABASE."
        ) from error
    except RuntimeError as error:  # so Optuna calls tables of another version
        raise DatabaseError(
            f"storage={shown(url)!r} has tables of another version of Optuna ({error}). Use the "
            "same version on all hosts, or another database; `optuna storage upgrade` brings old "
            "tables up to date."
        ) from error
    except (SQLAlchemyError, StorageInternalError) as error:
        raise _unreachable(url, error) from error


def patiently(url: str, action: Callable[[], Result], patience: float = PATIENCE) -> Result:
    """Do something with a database; if it went away, wait for it and do that again.

    A DatabaseError is raised if it stays away for ``patience`` seconds.
    """
    until: float | None = None
    while True:
        try:
            return action()
        except Exception as error:
            if not _is_of_database(error):
                raise
            now = time.monotonic()
            if until is None:
                until = now + patience
                logger.warning(
                    "%s does not answer; it is waited for, %g s at most", shown(url), patience
                )
            if now >= until:
                raise _unreachable(url, error) from error
            time.sleep(min(5.0, max(0.1, patience / 20)))


def _connect(url: str, connecting: dict[str, int]) -> "RDBStorage":
    """Connect; another process may be making the same tables, so a second look may help."""
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import DBAPIError, OperationalError

    for is_last in (False, False, True):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return RDBStorage(
                    url,
                    engine_kwargs={"pool_pre_ping": True, "connect_args": connecting},
                    heartbeat_interval=HEARTBEAT,
                    grace_period=2 * HEARTBEAT,
                )
        except OperationalError:
            raise
        except DBAPIError:
            if is_last:
                raise
            time.sleep(0.5)
    raise AssertionError("unreachable")


def _is_of_database(error: BaseException | None) -> bool:
    """Tell whether an error comes from the database; Optuna may lose it on the way."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import DBAPIError

    while error is not None:
        if isinstance(error, StorageInternalError | DBAPIError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _unreachable(url: str, error: BaseException) -> DatabaseError:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    reason = " ".join(str(cause).split())
    return DatabaseError(
        f"storage={shown(url)!r} does not answer ({reason:.300}). Check that the server runs, its "
        "address, user and password. Finished trials stay there; the same command goes on."
    )
