"""Dataclasses, for whoever is on the way of the boot: as those of Python's library, from closures instead of exec().

The library's writes up to seven functions for each class and has them compiled, 3.4 million instructions a class, and
imports inspect and ten more files for it: together four fifths of what the agent took to be imported. What of it is
used here is used here only: positional and named fields, defaults, field(), frozen, replace(), flat asdict(), and
__post_init__(). A test compares both. The library's own functions take these for what they are.
"""

__all__ = ("asdict", "dataclass", "field", "replace")

TYPE_CHECKING = False

_MISSING = object()
_FIELDS = "__values__"


class _Field:
    """What field() says of one."""

    __slots__ = ("default", "factory", "in_repr", "is_compared")

    def __init__(self, default: object, factory: object, in_repr: bool, is_compared: bool) -> None:
        self.default = default
        self.factory = factory
        self.in_repr = in_repr
        self.is_compared = is_compared


class _Library:
    """An attribute of a class that the library's functions ask for: made when it is asked for first, and kept."""

    def __init__(self, name: str, frozen: bool) -> None:
        self._name = name
        self.frozen = frozen

    def __get__(self, _: object, owner: type) -> object:
        import dataclasses

        fields = []
        for name, one in getattr(owner, _FIELDS).items():
            told = {"repr": one.in_repr, "compare": one.is_compared}
            if one.factory is not _MISSING:
                told["default_factory"] = one.factory
            elif one.default is not _MISSING:
                told["default"] = one.default
            fields.append((name, object, dataclasses.field(**told)))
        made = dataclasses.make_dataclass(owner.__name__, fields, frozen=self.frozen)
        value: object = getattr(made, self._name)
        setattr(owner, self._name, value)
        return value


def _field(
    *, default: object = _MISSING, default_factory: object = _MISSING, repr: bool = True, compare: bool = True
) -> _Field:
    return _Field(default, default_factory, repr, compare)


def _dataclass(kind: "type | None" = None, *, frozen: bool = False) -> "type | Callable[[type], type]":
    return _made(kind, frozen) if kind is not None else lambda kind: _made(kind, frozen)


def _replace(one: object, **changes: object) -> object:
    return type(one)(**{**{name: getattr(one, name) for name in getattr(one, _FIELDS)}, **changes})


def _asdict(one: object) -> "dict[str, object]":
    """Fields and values; what is in a value stays as it is."""
    return {name: getattr(one, name) for name in getattr(one, _FIELDS)}


def _made(kind: type, frozen: bool) -> type:
    fields: dict[str, _Field] = {}
    for base in reversed(kind.__mro__[1:]):
        fields.update(base.__dict__.get(_FIELDS, {}))
    for name in kind.__annotations__:
        default = kind.__dict__.get(name, _MISSING)
        fields[name] = default if isinstance(default, _Field) else _Field(default, _MISSING, True, True)
        if isinstance(default, _Field):
            delattr(kind, name)
            if default.default is not _MISSING:
                setattr(kind, name, default.default)
    methods = {"__init__": _init(kind, fields), **_comparing(fields)}
    methods.update(_freezing(kind, fields) if frozen else {"__hash__": None})
    for name, method in methods.items():
        if name not in kind.__dict__ or (name == "__hash__" and kind.__dict__[name] is None):
            setattr(kind, name, method)
    told = {_FIELDS: fields, "__match_args__": tuple(fields)}
    library = ("__dataclass_fields__", "__dataclass_params__")
    for name, value in {**told, **{name: _Library(name, frozen) for name in library}}.items():
        setattr(kind, name, value)
    return kind


def _init(kind: type, fields: "dict[str, _Field]") -> object:
    names = tuple(fields)
    plain = {name: one.default for name, one in fields.items() if one.default is not _MISSING}
    made = {name: one.factory for name, one in fields.items() if one.factory is not _MISSING}
    after = getattr(kind, "__post_init__", None)

    def __init__(self: object, *args: object, **kwargs: object) -> None:  # noqa: N807
        given = dict(zip(names, args, strict=False))
        twice = len(args) > len(names) or not given.keys().isdisjoint(kwargs)
        given.update(kwargs)
        values = {**plain, **given}
        for name, factory in made.items():
            if name not in values:
                values[name] = factory()  # type: ignore[operator]
        if twice or len(values) != len(names) or not values.keys() >= set(names):
            raise TypeError(f"{kind.__qualname__}(): expected {', '.join(names)}; found {len(args)} and {list(kwargs)}")
        # In the order of the fields, which vars() and what is written from it show.
        self.__dict__.update((name, values[name]) for name in names)
        if after is not None:
            after(self)

    return __init__


def _comparing(fields: "dict[str, _Field]") -> "dict[str, object]":
    shown = tuple(name for name, one in fields.items() if one.in_repr)
    compared = tuple(name for name, one in fields.items() if one.is_compared)

    def __repr__(self: object) -> str:  # noqa: N807
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def __eq__(self: object, other: object) -> bool:  # noqa: N807
        if type(other) is not type(self):
            return NotImplemented
        return tuple(getattr(self, name) for name in compared) == tuple(getattr(other, name) for name in compared)

    return {"__repr__": __repr__, "__eq__": __eq__}


def _freezing(kind: type, fields: "dict[str, _Field]") -> "dict[str, object]":
    compared = tuple(name for name, one in fields.items() if one.is_compared)

    def refuse(self: object, name: str, what: str) -> None:
        if type(self) is kind or name in fields:
            from dataclasses import FrozenInstanceError

            raise FrozenInstanceError(f"cannot {what} field {name!r}")

    def __setattr__(self: object, name: str, value: object) -> None:  # noqa: N807
        refuse(self, name, "assign to")
        super(kind, self).__setattr__(name, value)  # type: ignore[arg-type]

    def __delattr__(self: object, name: str) -> None:  # noqa: N807
        refuse(self, name, "delete")
        super(kind, self).__delattr__(name)  # type: ignore[arg-type]

    def __hash__(self: object) -> int:  # noqa: N807
        return hash(tuple(getattr(self, name) for name in compared))

    return {"__setattr__": __setattr__, "__delattr__": __delattr__, "__hash__": __hash__}


if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import asdict, dataclass, field, replace
else:
    asdict, dataclass, field, replace = _asdict, _dataclass, _field, _replace
