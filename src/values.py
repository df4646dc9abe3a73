"""`frozen`: immutable values that are cheap to define.

``dataclass(frozen=True, slots=True)`` costs about 1 ms a class and 8 ms for the import of `dataclasses`; the thirty
values on the path of `resolve` would take more than half of its budget (P4, docs/decisions/0004-values.md). A `frozen`
class behaves the same for its users: keyword and positional arguments, defaults, equality and hash by value,
`repr`, matching, pickling, `__post_init__`; `dataclasses.fields`, `replace` and `asdict` work on it too. Inheritance
of fields and default factories are not supported: a default is shared, so it must be immutable.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar, dataclass_transform

    T = TypeVar("T")

    @dataclass_transform(frozen_default=True)
    def frozen(cls: type[T]) -> type[T]:
        """Make an annotated class an immutable value with slots."""

else:

    def frozen(cls):
        """Make an annotated class an immutable value with slots."""
        names = tuple(cls.__annotations__)
        defaults = {name: cls.__dict__[name] for name in names if name in cls.__dict__}
        body = {
            key: value
            for key, value in cls.__dict__.items()
            if key not in defaults and key not in ("__dict__", "__weakref__")
        }
        body.update(__slots__=names, __match_args__=names, __init__=_first_init(names, defaults))
        for name, method in _METHODS.items():
            body.setdefault(name, method)
        made = type(cls)(cls.__name__, cls.__bases__, body)
        made.__dataclass_fields__ = _Fields(defaults)
        return made


def changed(value: T, **fields: Any) -> T:
    """Return a copy of a `frozen` value with some fields replaced (`dataclasses.replace` without the import)."""
    kept = {name: getattr(value, name) for name in value.__match_args__}  # type: ignore[attr-defined]  # every frozen class has it
    return type(value)(**{**kept, **fields})


def check_types(value: Any, where: str = "") -> None:
    """Check every field of a `frozen` value, and of those inside, against its annotation.

    For values made of documents that others may have written or damaged. Known are the plain types, `Any`, unions,
    ``tuple[X, ...]``, ``tuple[X, Y]``, ``Mapping[X, Y]``, ``frozenset[X]`` and other frozen classes by name.

    Raises:
        TypeError: names the field, what it is and what it should be.
    """
    for name, wanted in type(value).__annotations__.items():
        field = f"{where}.{name}" if where else name
        if not _fits(getattr(value, name), wanted, field):
            shown = ascii(getattr(value, name))
            shown = shown if len(shown) <= 60 else shown[:57] + "..."
            raise TypeError(f"{field} is {shown}, not {wanted}")


#: So many instances of a class take longer to set one by one than an ``__init__`` takes to compile.
_MANY = 20
_PLAIN: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (float, int),
    "None": (type(None),),
}


def _fits(value: Any, wanted: str, field: str) -> bool:
    """Return True when a value is of the annotated type; values inside are checked with it."""
    options = _split(wanted, "|")
    if len(options) > 1:
        return any(_fits(value, option, field) for option in options)
    if wanted == "Any":
        return True
    if wanted in _PLAIN:
        return type(value) in _PLAIN[wanted] and (type(value) is not float or value - value == 0)
    outer, _, inner = wanted.partition("[")
    parts = _split(inner[:-1], ",")
    if outer == "Mapping":
        return isinstance(value, dict) and all(
            _fits(key, parts[0], field) and _fits(each, parts[1], field) for key, each in value.items()
        )
    if outer in ("tuple", "frozenset"):
        if type(value).__name__ != outer:
            return False
        if outer == "tuple" and parts[-1] != "...":
            return len(value) == len(parts) and all(map(_fits, value, parts, [field] * len(parts)))
        return all(_fits(each, parts[0], field) for each in value)
    if type(value).__name__ != wanted or not hasattr(type(value), "__match_args__"):
        return False
    check_types(value, field)
    return True


def _split(text: str, sign: str) -> list[str]:
    """Split an annotation at a sign that is outside of all brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == sign and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def without_secrets(url: str) -> str:
    """Return a URL for people: no user and password, no query and fragment. A path stays as it is."""
    import re

    shown = re.sub(r"://[^/?#@]*@", "://", url)
    if re.search(
        r"://[^/:\[@]*:(?!\d{0,5}(?:/|$))[^@]*@", shown
    ):  # no port: a password with an unescaped / ? #
        shown = re.sub(r"://.*@", "://", shown, flags=re.S)
    return re.sub(r"(://[^?#]*)[?#].*", r"\1?...", shown, flags=re.S)


def _first_init(names: tuple[str, ...], defaults: dict[str, Any]) -> Any:
    """Return an ``__init__`` that makes the real one at last: most classes get few instances in a short run (P4)."""
    number, known = 0, frozenset(names)

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal number
        number += 1
        values = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
        fits = (
            values.keys() == known
            and len(args) <= len(names)
            and kwargs.keys().isdisjoint(names[: len(args)])
        )
        if number >= _MANY or not fits:  # the real one says what does not fit
            made = type(self).__init__ = _make_init(type(self), names, defaults)
            made(self, *args, **kwargs)
            return
        for name in names:
            object.__setattr__(self, name, values[name])
        if hasattr(self, "__post_init__"):
            self.__post_init__()

    return __init__


def _make_init(cls: type, names: tuple[str, ...], defaults: dict[str, Any]) -> Any:
    """Return the only method that is made for each class: one compilation in place of six.

    It sets the slots by their descriptors, which takes two thirds of the time of `object.__setattr__`.
    """
    arguments = "".join(
        f", {name}=_defaults[{name!r}]" if name in defaults else f", {name}" for name in names
    )
    lines = "".join(f"\n    _set_{name}(self, {name})" for name in names) or "\n    pass"
    if hasattr(cls, "__post_init__"):
        lines += "\n    self.__post_init__()"
    scope: dict[str, Any] = {"_defaults": defaults}
    scope.update((f"_set_{name}", getattr(cls, name).__set__) for name in names)
    exec(f"def __init__(self{arguments}):{lines}", scope)  # noqa: S102 -- names are identifiers of our own classes
    return scope["__init__"]


def _values(self: Any) -> tuple[Any, ...]:
    return tuple([getattr(self, name) for name in self.__match_args__])


def _eq(self: Any, other: object) -> bool:
    return _values(self) == _values(other) if type(self) is type(other) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _repr(self: Any) -> str:
    fields = ", ".join(f"{name}={_shown(getattr(self, name))}" for name in self.__match_args__)
    return f"{type(self).__name__}({fields})"


def _shown(value: Any) -> str:
    return repr(without_secrets(value) if isinstance(value, str) and "://" in value else value)


def _setattr(self: Any, name: str, value: object) -> None:  # noqa: ARG001 -- Python's signature
    raise AttributeError(f"{type(self).__name__}.{name} cannot be assigned: the value is frozen")


def _delattr(self: Any, name: str) -> None:
    raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted: the value is frozen")


def _reduce(self: Any) -> tuple[Any, ...]:
    return type(self), _values(self)


_METHODS = {
    "__eq__": _eq,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _setattr,
    "__delattr__": _delattr,
    "__reduce__": _reduce,
}


class _Fields:
    """``__dataclass_fields__``, made when somebody asks: `dataclasses` then works on the class."""

    def __init__(self, defaults: dict[str, Any]) -> None:
        self._defaults = defaults

    def __get__(self, instance: object, owner: type) -> Any:
        import dataclasses

        kinds = owner.__annotations__
        fields = [
            (name, kinds[name], _shared(self._defaults[name]))
            if name in self._defaults
            else (name, kinds[name])
            for name in owner.__match_args__  # type: ignore[attr-defined]  # every frozen class has it
        ]
        twin = dataclasses.make_dataclass(owner.__name__, fields, frozen=True)
        found = {field.name: field for field in dataclasses.fields(twin)}
        owner.__dataclass_fields__ = found  # type: ignore[attr-defined]  # `frozen` gives every class one
        return found


def _shared(default: Any) -> Any:
    """Return the field for a default; a factory, because `dataclasses` refuses a dict that it could not share."""
    import dataclasses

    return dataclasses.field(default_factory=lambda: default)
