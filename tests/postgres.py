"""A throw-away PostgreSQL server, started from the system's package for tests and benchmarks."""

from __future__ import annotations

import ctypes
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
HOW_TO_GET_IT = (
    "no PostgreSQL server program is installed, so its tests are skipped; get one "
    "(Debian: apt install postgresql), or name a server of yours: "
    "LOSSFORGE_TEST_POSTGRES=postgresql://user:password@host/database"
)
# Nothing here has to outlive a crash of the machine.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "max_wal_size": "4GB",
}
USER = "lossforge"
_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def programs() -> Path | None:
    """The folder of `initdb` and `postgres`, the newest where there are several."""
    found = [folder for place in PLACES for folder in Path("/").glob(place.lstrip("/"))]
    on_path = shutil.which("initdb")
    if on_path is not None:
        found.append(Path(on_path).resolve().parent)
    usable = [each for each in found if (each / "initdb").exists() and (each / "postgres").exists()]
    return max(usable, key=_version, default=None)


def _version(folder: Path) -> tuple[int, ...]:
    digits = "".join(char if char.isdigit() else " " for char in str(folder)).split()
    return tuple(map(int, digits))


class Server:
    """A PostgreSQL server of one's own, on a port of 127.0.0.1; it dies with its starter."""

    def __init__(self, folder: Path, port: int, password: str) -> None:
        self.folder = folder
        self.port = port
        self.password = password
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> URL:
        """Of its own database, as the owner of all."""
        return URL.create(
            "postgresql", USER, self.password, "127.0.0.1", self.port, database="postgres"
        )

    def start(self) -> None:
        """Start it, on the same port and with the same data as before.

        Raises:
            RuntimeError: it does not answer within 60 s; the message has what it said.
        """
        options = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        bin_folder = programs()
        assert bin_folder is not None
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [bin_folder / "postgres", "-D", self.folder / "data", f"-p{self.port}", *options],
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for the tests, which stop it in their time
                preexec_fn=_die_with_parent,
                **_other_user(),
            )
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        engine = create_engine(self.url, poolclass=NullPool)
        until = time.monotonic() + 60
        while True:
            try:
                engine.connect().close()
                return
            except OperationalError:
                assert self.process is not None
                if self.process.poll() is None and time.monotonic() < until:
                    time.sleep(0.05)
                    continue
                said = (self.folder / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"PostgreSQL did not start: {said}") from None

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it. SIGINT cuts connections and writes all down, SIGQUIT is like a crash."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None


def _die_with_parent() -> None:
    _LIBC.prctl(_PDEATHSIG, signal.SIGQUIT)


def _other_user() -> dict[str, object]:
    """Whom to run the server as: PostgreSQL refuses to be run by root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise RuntimeError("run by root, and there is neither a user postgres nor nobody")


@contextmanager
def running() -> Iterator[Server]:
    """A fresh server, gone with all its data when the block ends.

    Raises:
        RuntimeError: PostgreSQL is not installed, or does not start.
    """
    bin_folder = programs()
    if bin_folder is None:
        raise RuntimeError(HOW_TO_GET_IT)
    folder = Path(tempfile.mkdtemp(prefix="lossforge-pg-"))
    try:
        other = _other_user()
        server = Server(folder, _free_port(), secrets.token_hex(12))
        secret = folder / "password"
        secret.write_text(server.password)
        if other:
            for each in (folder, secret):
                os.chown(each, int(str(other["user"])), int(str(other["group"])))
        made = subprocess.run(
            [
                *(bin_folder / "initdb", "-D", folder / "data", "-U", USER, "-E", "UTF8"),
                *("--locale=C", "--no-sync", "--auth=scram-sha-256", f"--pwfile={secret}"),
            ],
            capture_output=True,
            text=True,
            cwd="/",
            **other,
        )
        if made.returncode:
            raise RuntimeError(f"initdb: {made.stderr.strip()}")
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def database(server: URL) -> Iterator[URL]:
    """An empty database of one's own on a server, gone when the block ends."""
    name = f"lossforge_test_{secrets.token_hex(6)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
    try:
        yield server.set(database=name)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
