"""What is looked at, decided and told is a value in every room: nobody changes it behind another's back."""

from __future__ import annotations

import dataclasses
import importlib
import inspect

import pytest

from tests.support import TOP
from tests.unit.test_structure import ROOMS

CHANGEABLE = {
    "lease": {"lock.Lease"},
    "image": {"prepare.Prepared", "publish.Temporary", "takeover_text.Imported"},
    "health": {"facts.Facts"},
    "netboot": {
        *("add.boards.Known", "add.make._Made", "add.record.Record", "add.survey.Survey"),
        *("doctor.Diagnosis", "read.isc.Statement", "seen.Seen", "watch._Seen", "wire.Heard"),
    },
}
"""The dataclasses of a room that are changed while they are worked on."""


def changeable(room: str) -> set[str]:
    """Module and name of each dataclass of a room that is not frozen."""
    names = [
        ".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__")
        for path in (TOP / "rpinfs" / room).rglob("*.py")
    ]
    return {
        f"{name.removeprefix(f'rpinfs.{room}.')}.{found.__name__}"
        for name in names
        for _, found in inspect.getmembers(importlib.import_module(name), inspect.isclass)
        if found.__module__ == name
        and dataclasses.is_dataclass(found)
        and not vars(found)["__dataclass_params__"].frozen
    }


@pytest.mark.parametrize("room", ROOMS)
def test_what_can_be_changed_is_known(room: str) -> None:
    assert changeable(room) == CHANGEABLE.get(room, set())
