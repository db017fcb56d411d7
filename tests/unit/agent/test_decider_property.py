"""The decider in a world in which anything happens, in any order: what must hold in each step, and what in the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rpinfs.agent.picture import Refusal
from rpinfs.agent.states import State
from rpinfs.boot.config import Config, load
from rpinfs.boot.host import Host
from tests.support import make_pi, thorough
from tests.unit.agent.world import Place, World

CONFIG = "[Boot]\nExport=\n[Image docker]\nFile=docker.img\n[Image data]\nWhere=/srv/data\nBefore=data.service\n"
TROUBLES = [
    Refusal("docker.img: no room", "make some", again=60.0),
    Refusal("docker.img: expected an image, found what rpinfs does not understand: RecursionError", again=60.0),
    Refusal("docker.img: the NAS still keeps the lock of this Pi's own last boot", "wait", again=15.0),
]

Event = Callable[[World, Place], None]
EVENTS: dict[str, Event] = {
    "tick": lambda world, _: world.tick(5.0),
    "long": lambda world, _: world.tick(70.0),
    "work": lambda world, _: world.work(),
    "share goes": lambda world, _: world.share_goes(),
    "share comes": lambda world, _: world.share_comes(),
    "silence": lambda world, _: world.silence(),
    "answer": lambda world, _: world.share_answers(),
    "failure": lambda world, _: world.share_fails(),
    "unmounted by request": World.unmount_by_request,
    "mount restarted": lambda world, place: world.restart_mount(place, 2, told=True),
    "mount stopped and started": lambda world, place: world.restart_mount(place, 2, told=False),
    "started while it is unpublished": lambda world, place: world.restart_mount(place, 1, told=False),
    "silence in the middle": lambda world, _: world.silence_in_the_middle(),
    "unmounted lazily": World.unmount_lazily,
    "bind goes": World.bind_goes,
    "covered": World.cover,
    "uncovered": World.uncover,
    "lock lost": World.lock_is_lost,
    "other takes": World.taken_by_other,
    "other gives way": World.other_gives_way,
    "freeze": World.freeze,
    "thaw": World.thaw,
    "restart docker": World.restart_docker,
    "person stops": World.person_stops,
    "person starts": World.person_starts,
    "killed": lambda world, _: world.agent_dies(in_order=False),
    "restarted": lambda world, _: world.agent_dies(in_order=True),
    "no room": lambda _, place: setattr(place, "trouble", TROUBLES[0]),
    "hostile file": lambda _, place: setattr(place, "trouble", TROUBLES[1]),
    "damaged": lambda _, place: setattr(place, "broken", True),
    "mount fails": lambda _, place: setattr(place, "mount_fails", True),
    "mended": lambda _, place: setattr(place, "broken", False),
    "own lock": lambda _, place: setattr(place, "trouble", TROUBLES[2]),
}


@pytest.fixture(scope="module", params=["lease", "mmp"])
def config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Config:
    fence = "" if request.param == "lease" else CONFIG.replace("File=", "FileSystem=ext4\nFence=mmp\nFile=")
    return load(Host.read(str(make_pi(tmp_path_factory.mktemp("pi"), fence or CONFIG))))


events = st.lists(
    st.tuples(st.sampled_from(sorted(EVENTS)), st.sampled_from(["docker", "docker", "data"]), st.booleans()),
    max_size=25,
)


def boot(world: World) -> None:
    """A boot that goes well."""
    world.wait(15)
    for place in world.places.values():
        world.start_mount(place)
        place.bound = place.mounted
        world.settle()
        world.start_behind_gate(place, *place.units.values())
    world.wait(30)


def test_a_boot_that_goes_well_asks_systemd_nothing(config: Config) -> None:
    world = World(config)
    boot(world)
    assert [place.memory.state for place in world.places.values()] == [State.MOUNTED, State.MOUNTED]
    assert all(unit.active == "active" for place in world.places.values() for unit in place.units.values())
    assert [action.do.name for action in world.actions] == ["PREPARE", "PUBLISH", "PREPARE", "PUBLISH"]


@given(happened=events, early=st.booleans())
@settings(
    # The same ones each time, but where all that can be tried is: a rare one is not to fail somebody else's change.
    max_examples=3000 if thorough() else 150,
    derandomize=not thorough(),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_whatever_happens(config: Config, happened: list[tuple[str, str, bool]], early: bool) -> None:
    world = World(config)
    if early:
        # Docker is refused at the boot: the NAS was late, or slow.
        for place in world.places.values():
            world.start_behind_gate(place, *place.units.values())
    else:
        boot(world)
    for name, whose, at_once in happened:
        EVENTS[name](world, world.places[whose])
        if not at_once:
            world.settle()
            world.tick(1.0)
    world.settle()
    world.make_well()
    world.wait(480)
    world.actions.clear()
    world.wait(120)
    assert world.actions == [], f"never at rest: {world.actions[:5]}"
    for place in world.places.values():
        memory = place.memory
        wanted = [unit for unit in place.units.values() if unit.wanted and not unit.either]
        if wanted:
            assert memory.state is State.MOUNTED, memory
            assert [unit.name for unit in wanted if unit.active != "active"] == [], (memory, place)
        assert memory.state in (State.MOUNTED, State.UNMOUNTED, State.LOST), memory
        if memory.state is not State.MOUNTED and not place.in_use:
            assert not place.attached and not place.published, "a person may be at work on the file"
