"""Reads a job spec from YAML; whatever is wrong with it becomes a `SpecError`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import Tag, ValidationError
from pydantic_core import ErrorDetails

from search_server.errors import SpecError
from search_server.spec.budgets import Misfit
from search_server.spec.models import JobSpec
from search_server.spec.places import CONTEXT, Places

MAX_BYTES = 64 * 1024
MAX_DEPTH = 32
MAX_BITS = 1024


def load_spec(path: str | Path) -> JobSpec:
    """The job spec in a YAML file; relative paths in it are meant from the file's folder.

    Raises:
        SpecError: cannot be read, is no YAML, or is no job spec.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SpecError(path, "", f"{path.stat().st_size} bytes", f"at most {MAX_BYTES} bytes")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SpecError(path, "", reason, "give the path of a job spec, a YAML file") from error
    return parse_spec(content, source=path, folder=path.absolute().parent)


def parse_spec(
    content: str | bytes, source: object = "spec", folder: Path | None = None
) -> JobSpec:
    """The job spec in a YAML text; `source` names it in errors.

    Raises:
        SpecError: is no YAML, or is no job spec.
    """
    size = len(content)
    if size > MAX_BYTES:
        raise SpecError(source, "", f"{size} characters", f"at most {MAX_BYTES} are read")
    data = read_yaml(content, source)
    if not isinstance(data, dict):
        raise SpecError(
            source, "", data, "a job spec is a mapping of fields, such as `name: first`"
        )
    return check_spec(data, source, folder)


def check_spec(data: Mapping[str, Any], source: object, folder: Path | None = None) -> JobSpec:
    """The job spec in plain data.

    Raises:
        SpecError: for the first thing that is wrong; more of them are counted.
    """
    found = spec_or_problems(data, source, Places(folder))
    if isinstance(found, JobSpec):
        return found
    first = found[0]
    raise SpecError(source, first.field, first.value, first.allowed + _and(len(found) - 1))


def spec_or_problems(
    data: Mapping[str, Any], source: object, places: Places
) -> JobSpec | list[SpecError]:
    """The job spec in plain data, or all that is wrong with it, at least one.

    Fields that do not fit each other are looked for once every field is right by itself.

    Args:
        places: which files it may name.
    """
    try:
        return JobSpec.model_validate(dict(data), context={CONTEXT: places})
    except ValidationError as error:
        details = error.errors(include_url=False)
        return [explained(detail, source) for detail in details if not _follows(detail, details)]


def _follows(detail: ErrorDetails, all_of_them: Sequence[ErrorDetails]) -> bool:
    """Whether something is wrong only because something else is: a value that would follow from
    another one, a list that is too short without its wrong items."""
    place = detail["loc"]
    return detail["type"] == "default_factory_not_called" or (
        detail["type"] == "too_short"
        and any(len(e["loc"]) > len(place) and e["loc"][: len(place)] == place for e in all_of_them)
    )


def read_yaml(content: str | bytes, source: object) -> object:
    """Plain data of one YAML document without aliases, duplicate keys or deep nesting."""
    try:
        loader = _Loader(content)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join(filter(None, (error.context, error.problem)))
        raise SpecError(source, where, problem, "it must be YAML") from None
    except yaml.reader.ReaderError as error:
        found = f"character {error.character!r} at position {error.position}: {error.reason}"
        raise SpecError(source, "", found, "it must be YAML in UTF-8") from None
    except _BROKEN_VALUES as error:
        found = f"{type(error).__name__}: {error}"
        raise SpecError(source, "", found, "it must be YAML with plain values") from None


# What PyYAML's constructors let out for values such as `!!int x` and `!!bool x`.
_BROKEN_VALUES = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    RecursionError,
    yaml.YAMLError,
)


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, less what makes small files expensive or ambiguous."""

    def __init__(self, content: str | bytes) -> None:
        super().__init__(content)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases, which multiply, and nesting without end."""
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(None, None, "aliases are not read", event.start_mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, f"nested over {MAX_DEPTH} deep", mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Refuse a key that is given twice: the second would win silently."""
        seen: set[object] = set()
        for key_node, _ in getattr(node, "value", ()):
            key = getattr(key_node, "value", None)
            if isinstance(key, str):
                if key in seen:
                    problem = f"key {key!r} is given twice"
                    raise yaml.constructor.ConstructorError(
                        None, None, problem, key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


def _whole_number(loader: yaml.SafeLoader, node: Any) -> int:
    """Refuse a number of more digits than Python would write: no error could show it."""
    value = int(loader.construct_yaml_int(node))
    if value.bit_length() > MAX_BITS:
        raise yaml.constructor.ConstructorError(
            None, None, f"a number of more than {MAX_BITS} bits", node.start_mark
        )
    return value


# A date is text here; sets, ordered maps and binaries are not read.
_PREFIX = "tag:yaml.org,2002:"
_PLAIN = (f"{_PREFIX}{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map"))
_Loader.yaml_constructors = {
    **{tag: yaml.SafeLoader.yaml_constructors[tag] for tag in (None, *_PLAIN)},
    f"{_PREFIX}int": _whole_number,
    f"{_PREFIX}timestamp": yaml.SafeLoader.construct_yaml_str,
}


def explained(error: ErrorDetails, source: object, more: int = 0) -> SpecError:
    """pydantic's finding in the words of a spec: file, field, value, what is allowed."""
    cause = error.get("ctx", {}).get("error")
    field = ".".join(str(part) for part in error["loc"] if not _is_variant(part))
    value: object = error.get("input")
    allowed = error["msg"].removeprefix("Value error, ")
    if isinstance(cause, Misfit):
        field, value, allowed = cause.field, cause.value, cause.allowed
    elif error["type"] == "extra_forbidden":
        allowed = f"there is no such field{_similar(error['loc'])}"
    elif error["type"] == "missing":
        value, allowed = "nothing", f"the field {field} must be given"
    return SpecError(source, field, value, allowed + _and(more))


def _and(more: int) -> str:
    return f" (and {more} more {'problem' if more == 1 else 'problems'})" if more > 0 else ""


def _is_variant(part: int | str) -> bool:
    """Whether pydantic put the name of a union's member into the place of an error."""
    return isinstance(part, str) and (part in {"str", "dict[str,any]"} or "[" in part)


def _similar(loc: tuple[int | str, ...]) -> str:
    """The fields that exist at a place, the most similar first."""
    models: dict[str, Any] = {"": JobSpec}
    others: dict[str, Any] = {}
    for part in loc[:-1]:
        if part in models:  # the tag of a union's member
            others = {tag: model for tag, model in models.items() if tag != part}
            models = {"": models[str(part)]}
            continue
        others = {}
        fields = getattr(next(iter(models.values()), None), "model_fields", {})
        if part not in fields:
            return ""
        models = dict(_models_of(fields[part].annotation))
    for tag, other in others.items():
        if loc[-1] in other.model_fields:
            return f" here: it goes with {tag.strip('[]')}"
    names = list(getattr(next(iter(models.values()), None), "model_fields", {}))
    close = difflib.get_close_matches(str(loc[-1]), names, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(names)}"


def _models_of(annotation: Any, tag: str = "") -> Iterator[tuple[str, Any]]:
    """The models in an annotation such as `Simulate | None`, each with its tag in the union."""
    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        yield tag, annotation
    for extra in getattr(annotation, "__metadata__", ()):
        tag = extra.tag if isinstance(extra, Tag) else tag
    for member in get_args(annotation):
        yield from _models_of(member, tag)
