"""Our dataclasses are those of Python's library: each of the house's own is compared with one that that makes of it."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from rpinfs.boot import values
from rpinfs.lease.owner import Owner
from tests.support import TOP
from tests.unit.test_structure import modules


def kinds() -> list[type]:
    found = []
    for name in modules(TOP / "rpinfs"):
        module = importlib.import_module(f"rpinfs.{name}" if name != "__init__" else "rpinfs")
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if kind.__module__ == module.__name__ and values._FIELDS in vars(kind):
                found.append(kind)
    return found


KINDS = kinds()


def of_library(kind: Any) -> Any:  # noqa: ANN401
    """The same class, made by the library of what ours was made of."""
    fields = []
    for name, one in getattr(kind, values._FIELDS).items():
        how: dict[str, Any] = {"repr": one.in_repr, "compare": one.is_compared}
        if one.default is not values._MISSING:
            how["default"] = one.default
        if one.factory is not values._MISSING:
            how["default_factory"] = one.factory
        fields.append((name, object, dataclasses.field(**how)))
    more = {"__post_init__": kind.__post_init__} if hasattr(kind, "__post_init__") else {}
    frozen = vars(kind)["__dataclass_params__"].frozen
    made: Any = dataclasses.make_dataclass(kind.__name__, fields, namespace=more, frozen=frozen)
    made.__qualname__ = kind.__qualname__
    return made


def outcome(what: Callable[[], object]) -> object:
    try:
        return what()
    except Exception as error:  # noqa: BLE001
        return type(error), str(error) if isinstance(error, AttributeError) else ""


def test_all_of_them_are_compared() -> None:
    assert len(KINDS) > 80


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__.removeprefix('rpinfs.')}.{kind.__name__}")
def test_each_is_as_the_librarys(kind: Any) -> None:  # noqa: ANN401
    theirs = of_library(kind)
    names = list(getattr(kind, values._FIELDS))
    given: dict[str, object] = {name: f"a {name}" for name in names}
    needed = {field.name for field in dataclasses.fields(theirs) if is_needed(field)}
    own_repr, own_hash = "__repr__" in of_source(kind), "__hash__" in of_source(kind)
    calls: list[tuple[list[object], dict[str, object]]] = [
        ([], {}), (list(given.values()), {}), ([], given), ([], {name: given[name] for name in needed}),
        ([*given.values(), "one more"], {}), ([], {**given, "unknown": 1}), ([1] * bool(names), given),
    ]  # fmt: skip
    for args, kwargs in calls:
        ours, its = outcome(partial(kind, *args, **kwargs)), outcome(partial(theirs, *args, **kwargs))
        if isinstance(its, tuple):
            assert ours == its
            continue
        assert vars(ours) == vars(its) and list(vars(ours)) == list(vars(its))
        assert own_repr or repr(ours) == repr(its)
        assert own_hash or outcome(partial(hash, ours)) == outcome(partial(hash, its))
    one, same = kind(**given), kind(**given)
    assert one == same and one != object() and not one == theirs(**given)  # noqa: SIM201
    assert dataclasses.asdict(one) == dataclasses.asdict(theirs(**given)) and dataclasses.is_dataclass(kind)
    assert [field.name for field in dataclasses.fields(kind)] == names
    assert vars(kind)["__match_args__"] == vars(theirs)["__match_args__"]
    for name in names:
        of_one, of_its = values.replace(one, **{name: "other"}), dataclasses.replace(theirs(**given), **{name: "other"})
        assert vars(of_one) == vars(of_its) == vars(dataclasses.replace(one, **{name: "other"}))
        assert (of_one == one) == (of_its == theirs(**given))
        its = theirs(**given)
        assert outcome(partial(setattr, same, name, 1)) == outcome(partial(setattr, its, name, 1))
        assert outcome(partial(delattr, same, name)) == outcome(partial(delattr, its, name))
    assert copy.copy(one) == one and pickle.loads(pickle.dumps(one)) == one


def is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def of_source(kind: type) -> set[str]:
    """Methods that the class has of its own."""
    return {name for name, one in vars(kind).items() if getattr(one, "__module__", "") == kind.__module__}


def test_what_is_not_compared_and_not_shown() -> None:
    assert Owner("1", seen=1.0) == Owner("1", seen=2.0) and hash(Owner("1", seen=1.0)) == hash(Owner("1", seen=2.0))
    assert Owner("1") != Owner("2")


def test_what_the_library_asks_for_is_made_once() -> None:
    """Each time anew, a test that changes some ten thousand took longer than anything may take."""
    assert dataclasses.fields(Owner)[0] is dataclasses.fields(Owner)[0]


def test_each_has_a_list_of_its_own() -> None:
    @values.dataclass
    class Some:
        items: list[int] = values.field(default_factory=list)

    one, other = Some(), Some()
    one.items.append(1)
    assert other.items == [] and Some([2]).items == [2]
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def test_fields_of_a_base_come_first() -> None:
    @values.dataclass(frozen=True)
    class Base:
        first: int
        second: int = 2

    @values.dataclass(frozen=True)
    class Below(Base):
        third: int = 3

        def __repr__(self) -> str:
            return "of its own"

    assert vars(Below(1)) == {"first": 1, "second": 2, "third": 3} and repr(Below(1)) == "of its own"
    assert Below(1) != Base(1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'first'"):
        Below(1).first = 2  # type: ignore[misc]
