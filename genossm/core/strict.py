"""Turn mappings (YAML, JSON) into frozen dataclasses, strictly.

An unknown key is an error that names the nearest known one; a value of the wrong type names the key's
full path, what came and what was wanted. Nothing is coerced but int to float and list to tuple.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from genossm.core.errors import ConfigError, InputFileError

T = TypeVar("T")


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises: InputFileError if it is missing, unreadable or no YAML; ConfigError if the top level is no mapping or a
    key stands twice.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise InputFileError(f"No configuration file at {path}. Check the path; examples stand in configs/.")
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_repeated_keys(yaml.compose(text, Loader=yaml.SafeLoader), path)
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first_line = " ".join(str(error).split())
        raise InputFileError(f"{path} is not valid YAML: {first_line}. Correct the line it names.") from error
    except OSError as error:
        raise InputFileError(f"Cannot read {path}: {error.strerror}.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: got {type(content).__name__} at the top level, wanted `key: value` lines.")
    return content


def from_mapping(cls: type[T], mapping: Mapping[str, Any], *, where: str = "") -> T:
    """Build the dataclass `cls` from `mapping`; nested dataclasses, Literal, unions, tuples and dicts follow.

    where: prefix for key paths in messages, a file name for instance.
    Raises: ConfigError for an unknown or missing key or a value of the wrong type, naming the key. Errors that
    the dataclass raises itself in `__post_init__` as ConfigError pass through with the key path in front.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{where or cls.__name__}: got {_show(mapping)}, wanted a mapping of {_known(cls)}.")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in mapping:
        if key not in fields:
            raise ConfigError(_unknown_key_message(cls, str(key), where))
    values: dict[str, Any] = {}
    for name, field in fields.items():
        path = f"{where}.{name}" if where else name
        if name in mapping:
            values[name] = _convert(hints[name], mapping[name], path)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{path} is missing. {cls.__name__} needs it.")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from error


def to_mapping(instance: Any) -> dict[str, Any]:
    """The inverse of `from_mapping`: plain dicts, lists and scalars, ready for JSON or YAML."""
    return typing.cast(dict[str, Any], _plain(dataclasses.asdict(instance)))


def nearest(name: str, known: typing.Iterable[str]) -> str | None:
    """The known name closest to `name`, or None if none is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def require_positive(section: Any, *names: str) -> None:
    """For `__post_init__`: raise ConfigError if one of these fields is neither None nor above 0."""
    known = {field.name for field in dataclasses.fields(section)}
    for name in names:
        assert name in known
        value = getattr(section, name)
        if value is not None and not value > 0:
            raise ConfigError(f"{name} is {value}; wanted more than 0.")


def _refuse_repeated_keys(node: Any, path: Path) -> None:
    """YAML keeps the last of two equal keys in silence; here that is an error."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise ConfigError(f"{path}, line {key.start_mark.line + 1}: {name} stands there twice. Remove one.")
            seen.add(name)
            _refuse_repeated_keys(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(item, path)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def _known(cls: type) -> str:
    return ", ".join(field.name for field in dataclasses.fields(cls) if field.init)


def _unknown_key_message(cls: type, key: str, where: str) -> str:
    path = f"{where}.{key}" if where else key
    names = [field.name for field in dataclasses.fields(cls) if field.init]
    close = nearest(key, names)
    hint = f"Did you mean {close!r}?" if close else f"Known keys: {', '.join(names)}."
    return f"{path} is not a key of {cls.__name__}. {hint}"


def _show(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is typing.Literal:
        return _convert_literal(arguments, value, path)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, path)
    if origin is tuple:
        return _convert_tuple(arguments, value, path)
    if origin is dict:
        return _convert_dict(arguments, value, path)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_mapping(typing.cast(type, hint), value, where=path)  # type: ignore[arg-type]
    return _convert_scalar(hint, value, path)


def _convert_literal(choices: tuple[Any, ...], value: Any, path: str) -> Any:
    for choice in choices:
        if value == choice and type(value) is type(choice):
            return value
    close = nearest(value, [c for c in choices if isinstance(c, str)]) if isinstance(value, str) else None
    hint = f" Did you mean {close!r}?" if close else ""
    raise ConfigError(f"{path}: got {_show(value)}, wanted one of {', '.join(map(repr, choices))}.{hint}")


def _convert_union(options: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in options:
        return None
    errors = []
    for option in options:
        if option is type(None):
            continue
        try:
            return _convert(option, value, path)
        except ConfigError as error:
            errors.append(error)
    # A single real option carries the most precise message (an unknown key inside it, say).
    if len(errors) == 1 or (isinstance(value, Mapping) and errors):
        raise errors[-1]
    wanted = " or ".join(_name(option) for option in options)
    raise ConfigError(f"{path}: got {_show(value)}, wanted {wanted}.")


def _convert_tuple(arguments: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{path}: got {_show(value)}, wanted a list.")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_convert(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if len(value) != len(arguments):
        raise ConfigError(f"{path}: got {len(value)} items, wanted {len(arguments)}.")
    return tuple(_convert(hint, item, f"{path}[{i}]") for i, (hint, item) in enumerate(zip(arguments, value)))


def _convert_dict(arguments: tuple[Any, ...], value: Any, path: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: got {_show(value)}, wanted a mapping.")
    key_hint, item_hint = arguments
    return {_convert(key_hint, k, path): _convert(item_hint, v, f"{path}.{k}") for k, v in value.items()}


def _convert_scalar(hint: Any, value: Any, path: str) -> Any:
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is a subclass of int: `n_layer: true` must not read as 1.
    if type(value) is hint:
        return value
    extra = ""
    if hint is float and isinstance(value, str):
        extra = " YAML reads 1e-3 as text: write 1.0e-3."
    raise ConfigError(f"{path}: got {_show(value)}, wanted {_name(hint)}.{extra}")


def _name(hint: Any) -> str:
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))
