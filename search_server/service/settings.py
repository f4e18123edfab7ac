"""What a service lets its users do: the file of `lossforge serve --config`, checked."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from losses.paths import detector_names
from search_server.errors import ServiceError, SpecError
from search_server.spec.data import PACKAGED, DataSpec, resolved
from search_server.spec.loading import read_yaml
from search_server.spec.places import CONTEXT, Places

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]", "::1")
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,99}$")]
Positive = Annotated[int, Field(ge=1, le=10**9)]


class Section(BaseModel):
    """A part of the file; a field that it does not have is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Runs(Section):
    """Where submitted searches run.

    Attributes:
        where: `here`, processes of this machine, or the address of a Ray cluster's Jobs API.
        at_once: how many of the jobs that were submitted here run at a time; the others wait.
        slots: trials at a time of a job that runs here; null: as many as the machine has room for.
        tries: how often the controller of a job is started again after it was lost.
    """

    where: Annotated[str, Field(pattern=r"^(here|https?://[^\s/@]+)$")] = "here"
    at_once: Annotated[int, Field(ge=1, le=1000)] = 1
    slots: Annotated[int, Field(ge=1, le=10_000)] | None = None
    tries: Annotated[int, Field(ge=0, le=100)] = 3


class Bounds(Section):
    """What one may ask for.

    Attributes:
        body_kib: largest body of a request, KiB.
        requests, changes: requests a minute of one caller; those of them that change something or
            have something worked out.
        streams, streams_each: event streams that are open at a time, in all and of one caller.
        waiting_jobs: jobs that were submitted here and have not begun.
    """

    body_kib: Annotated[int, Field(ge=1, le=10_240)] = 128
    requests: Positive = 1200
    changes: Positive = 120
    streams: Positive = 500
    streams_each: Positive = 20
    waiting_jobs: Positive = 100


class Most(Section):
    """What a submitted spec may ask for at most; null: as much as it likes.

    Attributes:
        cpus, gpus, memory_gb, threads, processes: of one trial, see `resources` of a spec.
        candidates: of a search.
        trial_steps: of one trial of any stage.
        job_hours: a spec has to say `limits.job_hours` then.
    """

    cpus: Annotated[float, Field(gt=0)] | None = None
    gpus: Annotated[float, Field(ge=0)] | None = None
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    threads: Positive | None = None
    processes: Positive | None = None
    candidates: Positive | None = None
    trial_steps: Positive | None = None
    job_hours: Annotated[float, Field(gt=0)] | None = None


class ServiceSettings(Section):
    """The whole file.

    Attributes:
        hosts: names under which people reach the service, beside those of this machine itself;
            without tokens a request that names another one is refused.
        https: people reach it by https, through a proxy: cookies are sent by nothing else.
        detectors: what a submitted spec may say as `detector`: names of packaged ones, or patterns
            such as `digits/*`; or a mapping of a name to a packaged one or to a config's path.
        data: what it may say as `data`: names, and what stands for each.
        runs, bounds, most: see there.
    """

    hosts: tuple[str, ...] = ()
    https: bool = False
    detectors: tuple[Name | Annotated[str, Field(max_length=100)], ...] | dict[Name, str] = (
        "digits/*",
    )
    data: dict[Name, Literal["digits"] | DataSpec] = Field(default={"digits": "digits"})
    runs: Runs = Runs()
    bounds: Bounds = Bounds()
    most: Most = Most()

    @field_validator("detectors")
    @classmethod
    def _configs(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, Mapping):
            return value
        for name, given in value.items():
            if not (PACKAGED.fullmatch(given) or given.endswith(".py")):
                raise ValueError(f"{name}: it must be a packaged detector, or a config (*.py)")
        return {
            name: given if PACKAGED.fullmatch(given) else resolved(given, info)
            for name, given in value.items()
        }

    @field_validator("data")
    @classmethod
    def _some(cls, value: dict[str, object]) -> dict[str, object]:
        if not value:
            raise ValueError("at least one data set must be named")
        return value

    def allowed_detectors(self) -> dict[str, str]:
        """Name in a submitted spec -> what a spec means by it: a packaged name, or a path."""
        if isinstance(self.detectors, Mapping):
            return dict(self.detectors)
        return {
            name: name
            for name in detector_names()
            if any(fnmatchcase(name, pattern) for pattern in self.detectors)
        }


def load_settings(path: Path) -> ServiceSettings:
    """The settings in a YAML file; relative paths in it are meant from its folder.

    Raises:
        ServiceError: it cannot be read, or says what no service can do; names the field.
    """
    try:
        data = read_yaml(path.read_bytes(), path)
        context = {CONTEXT: Places(path.absolute().parent)}
        return ServiceSettings.model_validate(data or {}, context=context)
    except OSError as error:
        raise ServiceError(f"{path}: cannot be read ({error.strerror})") from error
    except SpecError as error:
        raise ServiceError(str(error)) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise ServiceError(f"{path}: {field}: {first['msg']}") from None
