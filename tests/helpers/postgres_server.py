"""A PostgreSQL server of a test's own, on loopback, in a temporary folder."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path


def find_binaries():
    """Return the folder of initdb and postgres, None where PostgreSQL is not installed."""
    places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which("initdb")
    if found:
        places.append(Path(found).resolve().parent)
    return next((p for p in places if (p / "initdb").exists() and (p / "postgres").exists()), None)


def find_user():
    """Return who runs the server, which refuses root: (uid, gid), or None."""
    if os.getuid() != 0:
        return os.getuid(), os.getgid()
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    return None


class Server:
    """A cluster in a folder that the server's user may enter, and its process."""

    def __init__(self, folder, binaries, user):
        self.folder, self.binaries, self.user = Path(folder), binaries, user
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"postgresql://tests@127.0.0.1:{self.port}/postgres"
        os.chown(self.folder, *user)
        self._run(
            "initdb", "-D", "data", "-U", "tests", "--auth=trust", "--encoding=UTF8", "--no-sync"
        )
        self.start()

    def start(self):
        """Start the server and wait until it answers."""
        settings = {
            "fsync": "off",
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
        }
        flags = [f"--{name}={value}" for name, value in settings.items()]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [self.binaries / "postgres", "-D", "data", "-p", str(self.port), *flags],
                stdout=log,
                stderr=log,
                **self._as_user(),
            )
        import psycopg

        for _ in range(300):
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
            except psycopg.OperationalError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError((self.folder / "log").read_text())

    def kill(self):
        """End the server at once: its own "immediate" mode, as after a crash."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30)

    def _run(self, name, *args):
        command = [self.binaries / name, *args]
        subprocess.run(command, check=True, capture_output=True, **self._as_user())

    def _as_user(self):
        own = (
            {} if os.getuid() else {"user": self.user[0], "group": self.user[1], "extra_groups": []}
        )
        return own | {"cwd": self.folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}}
