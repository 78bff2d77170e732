"""Verbs take settings whole: each of their fields that has an `Option` becomes an option of the verb.

```python
@with_options
def label(output: Annotated[Path, typer.Option("-o")], settings: LabelSettings) -> None: ...
```

A field's name, type and default are the option's. Its unit says how it is written: `_bps` as 800k or 1.5M,
`_bytes` as 256M, `size_px` as 640x360, `frame_rate` as 30 or 30000/1001. A switch that is off by default has
no `--no-…`.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from enum import EnumType
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer

from accmpeg.errors import UsageError
from accmpeg.options import Option, parse_bitrate, parse_bytes, parse_rate, parse_size

__all__ = ["settings_from", "with_options"]

S = TypeVar("S")

_SEVERAL = (tuple, Sequence)
"""The kinds of fields whose option may repeat."""


@dataclass(frozen=True)
class _Written:
    """How quantities of one unit are read and shown."""

    read: Callable[[str, str], Any]
    show: Callable[[Any], str]


_WRITTEN = {
    "_bps": _Written(parse_bitrate, lambda bps: f"{bps / 1e6:g}M" if bps >= 1e6 else f"{bps / 1e3:g}k"),
    "_bytes": _Written(parse_bytes, lambda size: f"{size >> 20}M"),
    "size_px": _Written(parse_size, lambda size: "{}x{}".format(*size)),
    "frame_rate": _Written(parse_rate, str),
}


@dataclass(frozen=True)
class _Field:
    """A field of settings as a parameter of a verb, called `name` there."""

    field: str
    name: str
    kind: Any
    default: Any
    said: Option

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def written(self) -> _Written | None:
        return next((written for end, written in _WRITTEN.items() if self.field.endswith(end)), None)

    def parameter(self) -> inspect.Parameter:
        kind, default, said = self.kind, self.default, self.said
        if self.written is not None:
            kind = str | None if type(None) in get_args(kind) else str
            default = default if default is None else self.written.show(default)
        elif get_origin(kind) is Literal:
            kind, said = str, replace(said, metavar=f"<{'|'.join(get_args(kind))}>")
        elif get_origin(kind) in _SEVERAL:
            kind, default = list[get_args(kind)[0]], list(default)  # type: ignore[misc]
        return _parameter(self.name, kind, default, said)

    def value(self, given: Any) -> Any:
        """What the field becomes; the command line's context holds paths and members of enums as text."""
        if given is None:
            return None
        if self.written is not None:
            return self.written.read(given, self.flag)
        if get_origin(self.kind) is Literal and given not in (known := get_args(self.kind)):
            raise UsageError(f"{self.flag} {given}: give {' or '.join(known)}")
        if get_origin(self.kind) in _SEVERAL:
            return tuple(map(self._typed, given))
        return self._typed(given)

    def _typed(self, given: Any) -> Any:
        if isinstance(self.kind, EnumType):
            return self.kind(given)
        return Path(given) if isinstance(given, str) and _holds_a_path(self.kind) else given


def with_options(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb as Typer takes it, its dataclass parameters spread out into the options of their fields."""
    hints = get_type_hints(verb, include_extras=True)
    parameters: list[inspect.Parameter] = []
    taken: dict[str, type[Any]] = {}
    for name, parameter in inspect.signature(verb).parameters.items():
        hint = hints[name]
        if isinstance(hint, type) and is_dataclass(hint):
            taken[name] = hint
            parameters += [each.parameter() for each in _fields(hint)]
        elif (said := _said(hint)) is not None:
            parameters.append(_parameter(name, get_args(hint)[0], parameter.default, said))
        else:
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(verb)
    def run(**given: Any) -> None:
        for name, settings in taken.items():
            given[name] = settings_from(settings, given)
            for each in _fields(settings):
                del given[each.name]
        verb(**given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def settings_from(settings: type[S], options: Mapping[str, Any]) -> S:
    """Settings from options by their names on the command line. Raises UsageError for what can't be meant."""
    return settings(**{each.field: each.value(options[each.name]) for each in _fields(settings)})


def _fields(settings: Any) -> Iterator[_Field]:
    hints = get_type_hints(settings, include_extras=True)
    for field in fields(settings):
        said = _said(hints[field.name])
        if said is None:
            continue
        assert field.default is not MISSING, (
            f"{settings.__name__}.{field.name} is an option without a default"
        )
        name = said.name or field.name
        yield _Field(field.name, name, get_args(hints[field.name])[0], field.default, said)


def _said(hint: Any) -> Option | None:
    return next((each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Option)), None)


def _parameter(name: str, kind: Any, default: Any, said: Option) -> inspect.Parameter:
    flags = [f"--{name.replace('_', '-')}"] if kind is bool and not default else []
    option = typer.Option(
        *flags,
        help=said.help,
        min=said.min,
        max=said.max,
        metavar=said.metavar,
        show_default=said.default or True,
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def _holds_a_path(kind: Any) -> bool:
    return kind is Path or any(map(_holds_a_path, get_args(kind)))
