"""The Dockerfiles, as far as can be checked without building: what they start from, copy, run."""

import fnmatch
import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = ("Dockerfile", "Dockerfile.cuda")


@dataclass(frozen=True)
class Instruction:
    word: str
    text: str


def instructions(text: str) -> list[Instruction]:
    """What a Dockerfile says: comments left out, continued lines joined, ARGs of FROM filled in."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = [Instruction(*line.split(None, 1)) for line in joined.splitlines() if line.strip()]
    first = next(i for i, each in enumerate(found) if each.word == "FROM")
    given = dict(each.text.split("=", 1) for each in found[:first] if each.word == "ARG")
    filled = []
    for each in found:
        text = each.text
        if each.word == "FROM":
            text = re.sub(r"\$\{(\w+)\}", lambda match: given[match[1]], text)
        filled.append(Instruction(each.word, text))
    return filled


def read(name: str) -> list[Instruction]:
    return instructions((ROOT / "deploy" / name).read_text())


def locked(package: str) -> str:
    """The version of a package in the lock file."""
    found = re.search(rf"^{package}==([\w.]+)", (ROOT / "requirements.lock").read_text(), re.M)
    assert found is not None, package
    return found[1]


def copied(found: list[Instruction]) -> list[str]:
    """Paths of the build context that are copied."""
    words = [each.text.split() for each in found if each.word == "COPY"]
    return [path for each in words if not each[0].startswith("--from") for path in each[:-1]]


@pytest.mark.parametrize("name", FILES)
def test_bases_have_versions(name: str) -> None:
    stages: set[str] = set()
    for each in read(name):
        if each.word != "FROM":
            continue
        image, *rest = each.text.split()
        if image not in stages:
            tag = image.partition(":")[2]
            assert re.match(r"\d+\.\d+\.\d+", tag), f"{image} is not one version"
        stages |= set(rest[1:])


@pytest.mark.parametrize("name", FILES)
def test_python_is_the_locks(name: str) -> None:
    head = (ROOT / "requirements.lock").read_text().splitlines()[0]
    wanted = re.search(r"Python (\d+\.\d+)", head)
    assert wanted is not None
    images = [each.text.split()[0] for each in read(name) if each.word == "FROM"]
    pythons = [image for image in images if image.startswith("python:")]
    assert pythons
    assert all(image.startswith(f"python:{wanted[1]}.") for image in pythons)


@pytest.mark.parametrize("name", FILES)
def test_nobody_is_root_and_nothing_is_fetched_by_add(name: str) -> None:
    found = read(name)
    last = max(i for i, each in enumerate(found) if each.word == "FROM")
    users = [each.text for each in found[last:] if each.word == "USER"]
    assert users == ["10001:10001"], "Kubernetes checks runAsNonRoot by number"
    assert [each for each in found if each.word == "ADD"] == []
    runs = " ".join(each.text for each in found if each.word == "RUN")
    assert not re.search(r"\b(curl|wget|git clone)\b|https?://", runs)


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_is_there_and_whole(name: str) -> None:
    paths = copied(read(name))
    assert paths
    for path in paths:
        assert (ROOT / path).exists(), path
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    needed = {*wheel, "pyproject.toml", project["project"]["readme"], "requirements.lock"}
    assert needed | set(project["project"]["license-files"]) == set(paths)


def test_the_context_is_what_is_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    for name in FILES:
        assert set(copied(read(name))) == let_in
    assert not any(fnmatch.fnmatch(".venv", rule) for rule in let_in)


@pytest.mark.parametrize("name", FILES)
def test_packages_are_the_locks(name: str) -> None:
    runs = [each.text for each in read(name) if each.word == "RUN"]
    installs = [run for run in runs if "pip install" in run]
    assert any("-r requirements." in run for run in installs)
    for run in installs:
        words = shlex.split(run)
        assert "--no-deps" in words, f"{run}: the lock is complete, nothing else may come along"
        named = [word for word in words if "==" in word and word[0].isalnum()]
        assert all(re.fullmatch(r"[\w-]+==[\w.]+", word) for word in named)


def test_cuda_is_the_locks_torchs_and_mmcv_is_there_once() -> None:
    found = read("Dockerfile.cuda")
    release = ".".join(locked("cuda-toolkit").split(".")[:2])
    cuda = next(each.text for each in found if each.word == "FROM" and "nvidia/cuda" in each.text)
    assert cuda.startswith(f"nvidia/cuda:{release}.")
    text = (ROOT / "deploy/Dockerfile.cuda").read_text()
    assert set(re.findall(r"/usr/local/cuda-([\d.]+)", text)) == {release}
    runs = [each.text for each in found if each.word == "RUN"]
    lite = next(run for run in runs if "mmcv-lite" in run)
    assert lite.startswith("grep -v '^mmcv-lite==' requirements.lock")
    compiled = next(run for run in runs if "mmcv==" in run)
    assert f"mmcv=={locked('mmcv-lite')}" in compiled
    assert "MMCV_WITH_OPS=1" in compiled
    assert "-std=c++20" in compiled, "torch's headers refuse what mmcv asks for"
    unpacked = f"mmcv-{locked('mmcv-lite')}"
    assert compiled.endswith(f"/{unpacked}")
    assert f"{unpacked}.tar.gz" in compiled


def test_the_reader_of_dockerfiles_reads() -> None:
    text = "# c\nARG A=x:1\nFROM ${A} AS b\nRUN one \\\n    && two\nUSER 5\n"
    assert instructions(text) == [
        Instruction("ARG", "A=x:1"),
        Instruction("FROM", "x:1 AS b"),
        Instruction("RUN", "one  && two"),
        Instruction("USER", "5"),
    ]
