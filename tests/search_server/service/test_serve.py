"""`lossforge serve` as people start and stop it."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search_server.cli import run
from search_server.service.serving import listening, loopback
from search_server.service.settings import load_settings
from search_server.store import Store

COMMAND = (sys.executable, "-P", "-m", "search_server.cli", "serve", "--port", "0")


@pytest.fixture
def served(store_file: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service in a process of its own, and where it is."""
    process = subprocess.Popen(
        [*COMMAND, "--store", str(store_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"Lossforge at (http://127\.0\.0\.1:\d+)/\n", line)
    assert found is not None, (line, process.communicate())
    yield process, found[1]
    process.kill()
    process.communicate()


def test_it_serves_until_it_is_told_to_stop(
    served: tuple[subprocess.Popen[str], str], store: Store, new_job: Any
) -> None:
    process, url = served
    job = new_job()
    with urllib.request.urlopen(f"{url}/readyz", timeout=300) as answer:
        assert json.load(answer) == {"status": "ok"}
        assert answer.headers["server"] is None
    with urllib.request.urlopen(f"{url}/jobs", timeout=300) as answer:
        assert job in answer.read().decode()
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=300)
    for path in ("/jobs", f"/api/v1/jobs/{job}/events", "/static/base.css", "/readyz"):
        connection.request("HEAD", path)  # on one connection: nothing of a body is left on it
        with connection.getresponse() as answer:
            assert (answer.status, answer.read()) == (200, b""), path
    connection.close()
    with urllib.request.urlopen(f"{url}/api/v1/jobs/{job}/events", timeout=300) as stream:
        assert stream.readline() == b"event: progress\n"
        told = json.loads(stream.readline().removeprefix(b"data: "))
        assert told["state"] == "created"
        rest: list[bytes] = []
        reader = threading.Thread(target=lambda: rest.append(stream.read()))
        reader.start()
        store.set_job_state(job, "running")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=300)
        reader.join(30)
        assert not reader.is_alive()  # the stream was ended, not left open
    assert process.returncode == 0, err
    assert (out, err) == ("", "")


def test_who_would_let_others_in_without_a_token_is_refused(
    store_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--port", "0", "--store", str(store_file)]
    with Store.open(str(store_file)) as store:
        store.create_token("gone", "admin")
        store.revoke_token("gone")
    assert run(["serve", "--host", "0.0.0.0", *where]) == 2
    assert "lossforge token create" in capsys.readouterr().err
    assert run(["serve", "--tokens", *where]) == 2
    assert "--tokens wants a token" in capsys.readouterr().err
    config = store_file.with_name("service.yaml")
    config.write_text("https: true")
    assert run(["serve", "--config", str(config), *where]) == 2
    assert "`https: true`, by which others reach it, wants a token" in capsys.readouterr().err


def test_a_port_that_is_taken(store_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run(["serve", "--port", str(port), "--store", str(store_file)]) == 2
    said = capsys.readouterr().err
    assert f"nothing can listen on 127.0.0.1:{port}" in said
    assert "Traceback" not in said


def test_a_host_that_is_none(store_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--host", "no.such.host.invalid", "--store", str(store_file)]) == 2
    assert "is no address of this machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_what_this_machine_alone_can_reach(host: str, expected: bool) -> None:
    assert loopback(host) is expected


def test_a_socket_is_given_back() -> None:
    with listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
    with listening("127.0.0.1", port) as again:
        assert again.getsockname()[1] == port


def test_a_file_of_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(
        "detectors: {ours: conf/ours.py, fcos: digits/fcos}\n"
        "data:\n  street:\n"
        "    search_train: {annotations: a.json, images: images}\n"
        "    search_val: {annotations: /data/b.json, images: /data/images}\n"
        "runs: {where: 'http://head:8265', at_once: 3}\n"
    )
    found = load_settings(file)
    assert found.allowed_detectors() == {
        "ours": str(tmp_path / "conf/ours.py"),
        "fcos": "digits/fcos",
    }
    street: Any = found.data["street"]
    assert street.search_train.annotations == str(tmp_path / "a.json")
    assert street.search_val.annotations == "/data/b.json"
    for text, word in (
        ("bound: {}", "bound"),
        ("runs: {where: ftp://x}", "runs.where"),
        ("detectors: {a: x.txt}", "detectors"),
        ("data: {}", "data"),
        ("[", "YAML"),
    ):
        file.write_text(text)
        assert run(["serve", "--config", str(file), "--store", str(tmp_path / "s.db")]) == 2
        said = capsys.readouterr().err
        assert word in said
        assert "Traceback" not in said
