"""Which of a room's dataclasses are no values."""

from __future__ import annotations

import dataclasses
import importlib
import inspect

from tests.support import TOP


def changeable(room: str) -> set[str]:
    """Module and name of each dataclass of a room that is not frozen."""
    return {
        f"{path.stem}.{name}"
        for path in (TOP / "rpinfs" / room).glob("*.py")
        for name, found in inspect.getmembers(importlib.import_module(f"rpinfs.{room}.{path.stem}"), inspect.isclass)
        if found.__module__ == f"rpinfs.{room}.{path.stem}"
        and dataclasses.is_dataclass(found)
        and not found.__dataclass_params__.frozen  # type: ignore[attr-defined]
    }
