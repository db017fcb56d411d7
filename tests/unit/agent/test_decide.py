"""Every state of an image and every transition: the sentence and the one action; no threads, systemd or share."""

from __future__ import annotations

from dataclasses import is_dataclass, replace

import pytest

from rpinfs.agent import case as cases
from rpinfs.agent import picture, states
from rpinfs.agent.decide import decide, holds_up_boot, is_awaited, is_restless
from rpinfs.agent.picture import (
    Answer,
    Failed,
    Held,
    ImageFacts,
    Leased,
    LetGo,
    Picture,
    Ready,
    Refusal,
    ShareFacts,
)
from rpinfs.agent.states import FOLLOWS, Action, Decision, Do, Lock, Memory, Owed, ShareMemory, ShareState, State
from rpinfs.boot.config import Image, load
from rpinfs.boot.host import Host
from rpinfs.system.systemd import UnitState
from tests.support import make_pi

NOW = 1000.0
FILE = "/nfs/docker/docker.img"
MOUNT, KEPT = "var-lib-docker.mount", "var-lib-containerd.mount"
DOCKER, CONTAINERD, GATE = "docker.service", "containerd.service", "rpinfs-gate.service"
BOTH = (DOCKER, CONTAINERD)
# Made anew: what is compared by value is not the same object.
LOOP = "loop" + str(len(BOTH) + 1)
PLACE = ImageFacts(device=LOOP, over=f"/dev/{LOOP} (ext4)", binds=True, in_use=True)
GONE = ImageFacts(free=("/var/lib/docker", "/var/lib/containerd"))
SHARE = ShareMemory(ShareState.MOUNTED, 1.0, "mounted")
OTHER = Refusal(f"{FILE}: belongs to pi2 (serial 2)", "rpinfs adopt docker", by_other=True, again=15.0)
MOUNTED = Memory(
    State.MOUNTED, 1.0, "mounted at /var/lib/docker, direct I/O", loop="loop3", how=", direct I/O", published=True,
    lock=Lock.HELD, was_mounted=True,
)  # fmt: skip
ATTACHED = replace(MOUNTED, state=State.ATTACHED, since=NOW, message="attached", was_mounted=False)
UNMOUNTED = replace(MOUNTED, state=State.UNMOUNTED, gone=True)
LOST = replace(MOUNTED, state=State.LOST, gone=True, stopped=BOTH)
TAKEN = replace(MOUNTED, state=State.TAKEN, lock=Lock.NONE, published=False, trouble=("mounted here, but X", ""))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    root = make_pi(tmp_path_factory.mktemp("pi"), "[Image docker]\nFile=docker.img\n")
    return load(Host.read(str(root))).images[0]


def unit(name: str, active: str = "inactive", **more: object) -> UnitState:
    made = UnitState(name, "loaded", active, "", "success", "enabled", "", None, True)
    return replace(made, **more)  # type: ignore[arg-type]


def answer(*units: UnitState, system: str = "running", wanted: tuple[str, ...] = (), **refused: float) -> Answer:
    names = (MOUNT, *BOTH, "docker.socket", "containerd.socket", GATE)
    states = {name: unit(name) for name in names} | {one.name: one for one in units}
    return Answer(system, states, frozenset(wanted), {f"{name}.service": when for name, when in refused.items()})


def judge(
    image: Image, memory: Memory, facts: ImageFacts, *, share: ShareMemory = SHARE, now: float = NOW,
    ready_at: float | None = 10.0, worker: str = "",
) -> Decision:  # fmt: skip
    picture = Picture(now, ready_at, images={"docker": facts}, worker=worker)
    return decide(image, memory, share, picture, "look at the share")


def said(decision: Decision) -> tuple[State, str, str]:
    return decision.memory.state, decision.memory.message, decision.memory.remedy


# On its way to its place


def test_waiting_becomes_preparing_when_share_and_worker_are_there(image: Image) -> None:
    made = judge(image, Memory(), GONE)
    assert said(made) == (State.PREPARING, f"looking at {FILE}", "")
    assert made.action == Action(Do.PREPARE) and made.memory.working is Do.PREPARE
    for share, worker in ((replace(SHARE, state=state), "") for state in ShareState if state is not SHARE.state):
        assert judge(image, Memory(), GONE, share=share, worker=worker) == Decision(Memory())
    assert judge(image, Memory(), GONE, worker="data") == Decision(Memory())


def test_what_is_mounted_already_is_looked_at_by_the_worker(image: Image) -> None:
    made = judge(image, Memory(), PLACE)
    assert said(made) == (State.PREPARING, "looking at /dev/loop3 at /var/lib/docker", "")
    assert made.action == Action(Do.RECOGNISE, loop="loop3")


def test_what_is_mended_is_prepared_when_its_mount_is_started(image: Image) -> None:
    """Until then only a person can change anything, and the first to ask sees to it."""
    broken = Refusal(f"{FILE}: e2fsck -p leaves it unrepaired", "e2fsck -f docker.img")
    refused = judge(image, PREPARING, replace(GONE, result=broken)).memory
    assert judge(image, refused, GONE, now=NOW + 9999).action is None and not is_awaited(refused, GONE, SHARE)
    tried = judge(image, refused, replace(GONE, requested=True))
    assert tried.action == Action(Do.PREPARE) and said(tried)[0] is State.REFUSED
    assert is_awaited(tried.memory, replace(GONE, requested=True), SHARE), "who asked waits for what comes of it"
    again = judge(image, tried.memory, replace(GONE, requested=True, result=broken))
    assert not is_awaited(again.memory, GONE, SHARE) and said(again)[1] == broken.message
    ready = judge(image, tried.memory, replace(GONE, requested=True, result=Ready("loop3")))
    assert ready.action == Action(Do.PUBLISH) and ready.memory.look == "is verified", "others were refused, too"


def test_the_second_agent_of_a_boot_looks_for_what_was_held_back(image: Image) -> None:
    """Who mends an image starts the agent anew; what the gate has refused before waits for nothing any more."""
    second = replace(PREPARING, late=True)
    ready = judge(image, second, replace(GONE, result=Ready("loop3")), ready_at=None)
    assert ready.memory.late
    assert judge(image, ready.memory, GONE, now=NOW + 1).action == Action(Do.START, (MOUNT, KEPT))
    assert judge(image, ready.memory, PLACE).memory.look == "came late"
    first = judge(image, PREPARING, replace(GONE, result=Ready("loop3")), ready_at=None)
    assert judge(image, first.memory, PLACE).memory.look == "", "systemd is not asked at an ordinary boot"


def ask(image: Image, memory: Memory) -> Memory:
    """Ask systemd what came of an order to start the mounts, when it is time to."""
    assert judge(image, memory, GONE, now=memory.start_at - 0.1).action is None
    asked = judge(image, memory, GONE, now=memory.start_at)
    assert asked.action is not None and asked.action.do is Do.ASK and MOUNT in asked.action.units
    return asked.memory


def test_an_image_whose_mount_fails_is_let_go_of_after_some_tries(image: Image) -> None:
    failed = replace(answer(unit(MOUNT, "failed")), said={MOUNT: "bad superblock"})
    made = judge(image, ATTACHED, GONE, now=NOW + 15)
    for _ in range(2):
        assert made.action == Action(Do.START, (MOUNT, KEPT)) and said(made)[0] is State.ATTACHED
        asked = ask(image, made.memory)
        now = made.memory.start_at
        for still in (unit(MOUNT, "activating"), unit(MOUNT, "failed", job="start"), unit(MOUNT)):
            passing = judge(image, asked, replace(GONE, result=answer(still)), now=now)
            assert passing.action == made.action and passing.memory.tries == asked.tries, "it has not failed yet"
        made = judge(image, asked, replace(GONE, result=failed), now=now)
    asked = ask(image, made.memory)
    now = made.memory.start_at
    made = judge(image, asked, replace(GONE, result=failed), now=now)
    assert said(made) == (
        State.UNMOUNTED, f"{MOUNT} fails (bad superblock); the image is let go of until that is started",
        f"mend what it says, then: systemctl start {MOUNT}",
    )  # fmt: skip
    closed = judge(image, made.memory, GONE, now=now)
    assert closed.action == Action(Do.UNPUBLISH), "nobody is to find it"
    gone = judge(image, closed.memory, GONE, now=now)
    assert gone.action == Action(Do.LET_GO, loop="loop3")
    alone = judge(image, gone.memory, replace(GONE, result=LetGo(True)), now=now).memory
    assert judge(image, alone, GONE, now=now + 9999).action is None, "a person may be at work on the file"
    wanted = judge(image, alone, replace(GONE, requested=True), now=now + 9999)
    assert wanted.action == Action(Do.PREPARE)


@pytest.mark.parametrize("away", [ShareState.SILENT, ShareState.FAILING, ShareState.WAITING])
def test_a_mount_that_fails_with_the_nas_is_no_reason_to_let_go(image: Image, away: ShareState) -> None:
    """One mount hung until systemd gave it up; three orders had joined it, and Docker stayed down for ever."""
    share, memory, now = replace(SHARE, state=away), replace(ATTACHED, tries=2), NOW + 15
    for _ in range(400):
        made = judge(image, memory, GONE, share=share, now=now)
        memory, now = made.memory, now + 1
        if made.action is not None:
            assert away is not ShareState.SILENT, "what hangs is let be"
        if made.action is not None and made.action.do is Do.ASK:
            result = answer(unit(MOUNT, "failed"))
            memory = judge(image, memory, replace(GONE, result=result), share=share, now=now).memory
        assert memory.state is State.ATTACHED and memory.tries == 2
    back = judge(image, memory, GONE, share=replace(SHARE, returns=1), now=now + 20)
    assert back.action == Action(Do.START, (MOUNT, KEPT)) and back.memory.tries == 0, "all tries again"


def test_one_failure_is_not_seen_twice(image: Image) -> None:
    """The order after it never reached systemd, which still tells of the one before."""
    asked = ask(image, judge(image, ATTACHED, GONE, now=NOW + 15).memory)
    made = judge(image, asked, replace(GONE, result=answer(unit(MOUNT, "failed"))), now=NOW + 20)
    assert made.action == Action(Do.START, (MOUNT, KEPT)) and made.memory.tries == 1
    lost = judge(image, made.memory, replace(GONE, result=Failed("systemd does not answer")), now=NOW + 21).memory
    published = judge(image, lost, GONE, now=NOW + 26)
    assert published.action == Action(Do.PUBLISH)
    again = judge(image, published.memory, GONE, now=NOW + 27)
    assert again.action == Action(Do.START, (MOUNT, KEPT)) and again.memory.tries == 1


def test_what_an_earlier_agent_has_published_is_held_whatever_the_share_does(image: Image) -> None:
    silent = replace(SHARE, state=ShareState.SILENT)
    proven = replace(PLACE, proven="loop3")
    assert judge(image, Memory(), proven, share=silent).action == Action(Do.HOLD, loop="loop3")
    made = judge(image, Memory(recall="mounted"), replace(proven, result=Held("loop3", ", direct I/O")), share=silent)
    assert said(made) == (State.MOUNTED, "mounted at /var/lib/docker, direct I/O", "")
    assert made.memory.published and made.memory.lock is Lock.NONE and made.memory.look == "was found mounted"
    assert made.memory.recall == "", "by now it knows by itself"
    # Then its lease; and what was held back meanwhile.
    assert judge(image, made.memory, PLACE, share=silent).action is None
    assert judge(image, made.memory, PLACE).action == Action(Do.LEASE)


def test_what_cannot_be_held_is_refused_and_tried_again(image: Image) -> None:
    proven = replace(PLACE, proven="loop3")
    made = judge(image, Memory(), replace(proven, result=Failed("no /dev/loop3")))
    assert said(made) == (State.REFUSED, "no /dev/loop3", "rpinfs status")
    assert judge(image, made.memory, proven, now=NOW + 59).action is None
    assert judge(image, made.memory, proven, now=NOW + 60).action == Action(Do.HOLD, loop="loop3")


@pytest.mark.parametrize(("recall", "state"), [("unmounted", State.UNMOUNTED), ("lost", State.LOST)])
def test_a_person_at_work_on_the_file_is_left_alone_by_the_next_agent(image: Image, recall: str, state: State) -> None:
    made = judge(image, Memory(recall=recall, message="as it was", remedy="do this"), GONE)
    assert said(made) == (state, "as it was", "do this") and made.action is None
    assert judge(image, made.memory, GONE).action is None


def test_what_was_lost_under_a_running_docker_is_prepared_by_the_next_agent(image: Image) -> None:
    for owed in (Owed(stopped=BOTH), Owed(look="came late")):
        recalled = Memory(recall="lost", **vars(owed))
        asked = judge(image, recalled, GONE).action
        assert asked is not None and asked.do is Do.ASK
        made = judge(image, recalled, replace(GONE, result=answer(BEHIND)))
        assert made.memory.owed == owed and judge(image, made.memory, GONE).action == Action(Do.PREPARE)
        # A person has unmounted what was left of it, and nobody has looked since.
        made = judge(image, recalled, replace(GONE, result=answer(REQUESTED)))
        assert said(made)[0] is State.UNMOUNTED and made.memory.owed == Owed()


def test_what_happened_while_no_agent_was_there_is_found_out(image: Image) -> None:
    recalled = Memory(recall="mounted")
    asked = judge(image, recalled, GONE)
    assert asked.action == Action(Do.ASK, (MOUNT, *BOTH))
    lost = answer(unit(MOUNT, left_active=5.0, became_inactive=5.0), unit(DOCKER, left_active=5.1, became_inactive=5.2))
    known = judge(image, recalled, replace(GONE, result=lost))
    assert known.memory.stopped == (DOCKER,) and known.notes == (
        "was unmounted behind systemd's back from /var/lib/docker; until it is back, docker.service stopped",
    )
    stopped = answer(unit(MOUNT, left_active=5.0, became_inactive=5.1))
    made = judge(image, recalled, replace(GONE, result=stopped))
    assert said(made) == (State.UNMOUNTED, "unmounted by systemd from /var/lib/docker", f"systemctl start {MOUNT}")
    # One that was only attached was never a person's to unmount.
    assert judge(image, Memory(recall="attached"), replace(GONE, result=stopped)).memory == Memory()
    failed = judge(image, recalled, replace(GONE, result=Failed("systemd is silent")))
    assert failed.notes == ("systemd is silent",) and failed.memory.recall == ""
    assert judge(image, Memory(recall="preparing"), GONE).memory.recall == ""


def test_what_another_pi_had_taken_is_not_taken_for_good_by_the_next_agent(image: Image) -> None:
    made = judge(image, Memory(recall="taken", message="mounted here, but X; docker stopped"), PLACE)
    assert said(made) == (State.TAKEN, "mounted here, but X", "shut one of the two Pis down now")
    assert judge(image, Memory(recall="taken"), GONE).memory == Memory()


PREPARING = Memory(State.PREPARING, 1.0, f"looking at {FILE}", working=Do.PREPARE)


def test_progress_is_the_sentence(image: Image) -> None:
    made = judge(image, PREPARING, replace(GONE, progress="checking"), worker="docker")
    assert said(made) == (State.PREPARING, "checking", "") and made.action is None
    assert said(judge(image, PREPARING, GONE, worker="docker")) == (State.PREPARING, f"looking at {FILE}", "")


@pytest.mark.parametrize(
    ("ready_at", "requested", "stopped", "late"),
    [(None, False, (), False), (10.0, False, (), True), (10.0, True, (), False), (None, False, BOTH, True)],
)
def test_prepared_is_attached_and_published(
    image: Image, ready_at: float | None, requested: bool, stopped: tuple[str, ...], late: bool
) -> None:
    facts = replace(GONE, requested=requested, result=Ready("loop3", ", direct I/O", ("made it",)))
    made = judge(image, replace(PREPARING, stopped=stopped), facts, ready_at=ready_at)
    assert said(made) == (State.ATTACHED, f"{FILE} is attached as /dev/loop3", "")
    assert made.action == Action(Do.PUBLISH) and made.notes == ("made it",)
    memory = made.memory
    assert (memory.loop, memory.published, memory.lock, memory.late) == ("loop3", True, Lock.HELD, late)
    assert memory.working is None and memory.look == ""


def test_what_is_recognised_may_have_been_held_back(image: Image) -> None:
    assert judge(image, PREPARING, replace(PLACE, result=Ready("loop3"))).memory.look == "is verified"


@pytest.mark.parametrize(
    ("refusal", "remedy", "retry"),
    [
        (Refusal("no", "do this", again=60.0), "do this", 60.0),
        (Refusal("no", "do this"), "do this; then: systemctl restart rpinfs-agent", None),
        (Refusal("no"), "systemctl restart rpinfs-agent", None),
        (Refusal("no", "x; systemctl restart rpinfs-agent"), "x; systemctl restart rpinfs-agent", None),
        (OTHER, "rpinfs adopt docker", 15.0),
        (Refusal("stale", again=60.0), "look at the share", 60.0),
    ],
)
def test_refused(image: Image, refusal: Refusal, remedy: str, retry: float | None) -> None:
    made = judge(image, PREPARING, replace(GONE, result=refusal))
    assert said(made) == (State.REFUSED, refusal.message, remedy) and made.action is None
    assert made.memory.retry_at == (retry and NOW + retry)
    later = judge(image, made.memory, GONE, now=NOW + 1e6)
    assert later.action == (Action(Do.PREPARE) if retry else None)
    if retry:
        assert judge(image, made.memory, GONE, now=NOW + retry - 1).action is None
        # Nothing has changed for anybody while it is tried again.
        assert said(later) == (State.REFUSED, refusal.message, remedy)
        tried = judge(image, later.memory, replace(GONE, progress="checking"), worker="docker")
        assert said(tried) == (State.REFUSED, refusal.message, remedy)
        assert said(judge(image, later.memory, replace(GONE, result=Ready("loop3"))))[0] is State.ATTACHED


# Attached


def test_mounted_by_systemd(image: Image) -> None:
    made = judge(image, ATTACHED, PLACE)
    assert said(made) == (State.MOUNTED, "mounted at /var/lib/docker, direct I/O", "")
    assert made.action is None and made.memory.look == ""
    assert judge(image, replace(ATTACHED, late=True), PLACE).memory.look == "came late"


def test_systemd_has_its_time_to_mount(image: Image) -> None:
    assert judge(image, ATTACHED, GONE, now=NOW + 14.9).action is None
    assert judge(image, ATTACHED, GONE, now=NOW + 99, ready_at=None).action is None
    made = judge(image, ATTACHED, GONE, now=NOW + 15)
    assert made.action == Action(Do.START, (MOUNT, KEPT)) and made.memory.late
    # With growing patience.
    assert judge(image, made.memory, GONE, now=NOW + 19.9).action is None
    asked = ask(image, made.memory)
    again = judge(image, asked, replace(GONE, result=answer(unit(MOUNT))), now=NOW + 20)
    assert again.action == made.action
    assert (again.memory.start_at, again.memory.start_wait) == (NOW + 27.5, 11.25)
    assert judge(image, replace(ATTACHED, late=True), GONE).action == Action(Do.START, (MOUNT, KEPT))
    covered = replace(GONE, over="tmpfs (tmpfs)", free=())
    assert judge(image, ATTACHED, covered, now=NOW + 99).action is None


def test_only_the_image_is_mounted_and_not_its_folder(image: Image) -> None:
    """Its unmounting is noticed all the same."""
    half = replace(PLACE, binds=False, free=("/var/lib/containerd",))
    made = judge(image, ATTACHED, half)
    assert made.memory.state is State.ATTACHED and made.memory.was_mounted
    assert not judge(image, replace(ATTACHED, gone=True), half).memory.gone
    assert judge(image, made.memory, half, now=NOW + 15).action == Action(Do.START, (KEPT,))
    asked = judge(image, made.memory, GONE)
    assert asked.action == Action(Do.ASK, (MOUNT, *BOTH))
    gone = answer(unit(MOUNT, left_active=5.0, became_inactive=5.1))
    assert judge(image, asked.memory, replace(GONE, result=gone)).memory.state is State.UNMOUNTED


def test_what_could_not_be_published_is_published_again(image: Image) -> None:
    failed = judge(image, ATTACHED, replace(GONE, result=Failed("/run is full")))
    assert failed.notes == ("/run is full",) and not failed.memory.published and failed.action is None
    assert judge(image, failed.memory, GONE, now=NOW + 4).action is None
    again = judge(image, failed.memory, GONE, now=NOW + 5)
    assert again.action == Action(Do.PUBLISH) and again.memory.published


# In its place


def test_errors_of_the_file_system_are_said(image: Image) -> None:
    made = judge(image, MOUNTED, replace(PLACE, errors=3))
    assert made.memory.message == "mounted, but ext4 has recorded errors (3)"
    assert made.memory.remedy.startswith("systemctl stop docker.socket var-lib-docker.mount rpinfs-agent.service; ")


def test_a_lost_lock_is_taken_again(image: Image) -> None:
    lost = judge(image, MOUNTED, replace(PLACE, lock_lost="Input/output error"))
    message = "mounted here, but its lock on the NAS is lost (Input/output error); taking it again"
    assert said(lost) == (State.MOUNTED, message, "look at the share") and lost.action == Action(Do.LEASE)
    assert said(judge(image, lost.memory, PLACE, worker="docker"))[1] == message
    again = judge(image, lost.memory, replace(PLACE, result=Leased()))
    assert said(again) == (State.MOUNTED, "mounted at /var/lib/docker, direct I/O; its lock is held again", "")
    assert again.action is None and again.memory.lock is Lock.HELD
    refused = judge(image, lost.memory, replace(PLACE, result=Refusal("the share failed", "", again=60.0)))
    assert said(refused) == (State.MOUNTED, "mounted here, but the share failed", "look at the share")
    assert judge(image, refused.memory, PLACE, now=NOW + 14).action is None
    assert judge(image, refused.memory, PLACE, now=NOW + 15).action == Action(Do.LEASE)
    first = judge(image, replace(MOUNTED, lock=Lock.NONE), replace(PLACE, result=Leased()))
    assert said(first)[1] == "mounted at /var/lib/docker, direct I/O"


# Starting again


def passing(**more: object) -> UnitState:
    made = unit(GATE, left_inactive=500.0, became_inactive=501.0)
    return replace(made, **more)  # type: ignore[arg-type]


def refusing(active: str = "failed", **more: object) -> UnitState:
    return passing(active=active, **more)


@pytest.mark.parametrize(
    ("before", "share", "facts", "why"),
    [
        (MOUNTED, replace(SHARE, returns=1), PLACE, "can be reached again"),
        (replace(MOUNTED, frozen=True), SHARE, PLACE, "is not frozen any more"),
        (LOST, SHARE, PLACE, "is back"),
    ],
)
def test_what_the_gate_has_held_back_is_looked_for(
    image: Image, before: Memory, share: ShareMemory, facts: ImageFacts, why: str
) -> None:
    before = replace(before, stopped=())
    made = judge(image, before, facts, share=share)
    assert made.memory.look == why
    asked = judge(image, made.memory, facts, share=share, now=NOW + 10)
    assert asked.action == Action(Do.ASK, (MOUNT, *BOTH, "docker.socket", "containerd.socket", GATE))
    facts = replace(facts, result=answer(unit(DOCKER), unit(CONTAINERD, "active"), refusing()))
    started = judge(image, asked.memory, facts, share=share)
    assert started.action == Action(Do.START, (DOCKER,))
    assert started.notes == (f"image docker {why}; starting docker.service",)
    assert started.memory.stopped == (DOCKER,) and started.memory.starting and started.memory.look == ""


@pytest.mark.parametrize("active", ["deactivating", "activating", "active"])
def test_a_gate_that_is_at_its_end_is_waited_for(image: Image, active: str) -> None:
    """The NAS is back, and the gate that was killed by its time-out has not ended."""
    looking = replace(MOUNTED, look="can be reached again")
    made = judge(image, looking, replace(PLACE, result=answer(refusing(active))))
    assert made.action is None and made.memory.look
    made = judge(image, looking, replace(PLACE, result=answer(refusing(job="start"))))
    assert made.action is None and made.memory.look


def test_nothing_is_started_that_would_be_refused_again(image: Image) -> None:
    looking = replace(MOUNTED, look="can be reached again")
    assert judge(image, looking, replace(PLACE, frozen=True)).action is None
    assert judge(image, looking, replace(PLACE, errors=1)).action is None
    for state in (ShareState.SILENT, ShareState.FAILING, ShareState.WAITING):
        assert judge(image, looking, PLACE, share=replace(SHARE, state=state)).action is None


def test_nothing_was_held_back(image: Image) -> None:
    looking = replace(MOUNTED, look="can be reached again")
    facts = replace(PLACE, result=answer(unit(DOCKER, "active"), unit(CONTAINERD, "active"), passing()))
    made = judge(image, looking, facts)
    assert made.action is None and made.memory.look == "" and made.memory.stopped == ()


BACK = replace(MOUNTED, stopped=BOTH)


def test_what_was_stopped_is_started(image: Image) -> None:
    asked = judge(image, BACK, PLACE)
    assert asked.action == Action(Do.ASK, (MOUNT, *BOTH, "docker.socket", "containerd.socket", GATE))
    made = judge(image, asked.memory, replace(PLACE, result=answer(passing())))
    assert made.action == Action(Do.START, BOTH)
    assert made.notes == ("image docker is back; starting docker.service containerd.service",)
    assert made.memory.owed_at == NOW and made.memory.ask_at == NOW + 5 and made.memory.start_wait == 5.0
    # They run, or are about to.
    running = answer(unit(DOCKER, "active"), unit(CONTAINERD, job="start"), passing())
    done = judge(image, made.memory, replace(PLACE, result=running))
    assert done.memory.stopped == () and not done.memory.starting and done.action is None


def test_as_long_as_the_gate_refuses_it_is_not_forgotten(image: Image) -> None:
    starting = replace(BACK, starting=True, start_wait=5.0)
    busy = judge(image, starting, replace(PLACE, result=answer(refusing("activating"))))
    assert busy.memory.stopped == BOTH and busy.action is None
    again = judge(image, starting, replace(PLACE, result=answer(refusing())))
    assert again.action == Action(Do.START, BOTH) and again.memory.start_wait == 7.5
    assert again.memory.ask_at == NOW + 7.5
    slow = judge(image, replace(starting, start_wait=60.0), replace(PLACE, result=answer(refusing())))
    assert slow.memory.start_wait == cases.SHARE_RETRY_SECONDS
    ended = judge(image, starting, replace(PLACE, result=answer(passing())))
    assert ended.action is None and ended.memory.stopped == (), "let in, and ended by itself"


def test_a_start_that_failed_is_done_again(image: Image) -> None:
    failed = judge(image, replace(BACK, starting=True), replace(PLACE, result=Failed("no systemd")))
    assert failed.notes == ("no systemd",) and failed.memory.stopped == BOTH and not failed.memory.starting
    assert judge(image, failed.memory, PLACE, now=NOW + 4).action is None
    assert judge(image, failed.memory, PLACE, now=NOW + 5).action is not None


# Out of its place


def test_why_it_is_gone_is_asked_at_once(image: Image) -> None:
    made = judge(image, replace(MOUNTED, ask_at=NOW + 100), GONE)
    assert made.action == Action(Do.ASK, (MOUNT, *BOTH)) and made.memory.state is State.MOUNTED
    assert judge(image, made.memory, GONE, now=NOW + 0.9).action is None
    assert judge(image, made.memory, GONE, now=NOW + 1).action == made.action
    failed = judge(image, made.memory, replace(GONE, result=Failed("no systemd")))
    assert failed.notes == ("was unmounted behind systemd's back from /var/lib/docker, and no systemd",)


REQUESTED = unit(MOUNT, left_active=5.0, became_inactive=5.1)
BEHIND = unit(MOUNT, left_active=5.0, became_inactive=5.0)


@pytest.mark.parametrize(("mount", "system"), [(REQUESTED, "running"), (BEHIND, "stopping")])
def test_unmounted_by_request(image: Image, mount: UnitState, system: str) -> None:
    facts = replace(GONE, result=answer(mount, system=system))
    made = judge(image, replace(MOUNTED, gone=True, stopped=BOTH, look="came late", late=True), facts)
    assert said(made) == (State.UNMOUNTED, "unmounted by systemd from /var/lib/docker", f"systemctl start {MOUNT}")
    assert not made.memory.late, "who starts it again has systemd mount it, and the agent gives that its time"
    assert made.action is None and made.memory.stopped == () and made.memory.look == ""


def test_a_mount_unit_that_is_restarted_keeps_its_device(image: Image) -> None:
    restarting = unit(MOUNT, job="start", left_active=5.0, became_inactive=5.1)
    made = judge(image, replace(MOUNTED, gone=True), replace(GONE, result=answer(restarting)))
    assert made.memory.state is State.MOUNTED and made.action is None


def test_unmounted_is_let_go_of_and_then_prepared_when_it_is_wanted(image: Image) -> None:
    """A person works on the file: nothing of ours has it open."""
    assert judge(image, UNMOUNTED, replace(GONE, in_use=True)).action is None, "its file system lives on"
    closing = judge(image, UNMOUNTED, GONE)
    assert closing.action == Action(Do.UNPUBLISH) and not closing.memory.published
    letting = judge(image, closing.memory, GONE)
    assert letting.action == Action(Do.LET_GO, loop="loop3") and letting.memory.working is Do.LET_GO
    assert judge(image, closing.memory, GONE, worker="data").action is None
    assert judge(image, closing.memory, GONE, share=replace(SHARE, state=ShareState.SILENT)).action is None
    again = judge(image, letting.memory, replace(GONE, result=LetGo(False)))
    assert again.action is None and judge(image, again.memory, GONE, now=NOW + 0.9).action is None
    assert judge(image, again.memory, GONE, now=NOW + 1).action == letting.action
    alone = judge(image, letting.memory, replace(GONE, result=LetGo(True)))
    assert alone.memory.loop == "" and alone.memory.lock is Lock.NONE and alone.memory.state is State.UNMOUNTED
    assert judge(image, alone.memory, GONE, now=NOW + 1e6).action is None
    wanted = judge(image, alone.memory, replace(GONE, requested=True))
    assert wanted.action == Action(Do.PREPARE) and wanted.memory.state is State.PREPARING
    # Asked for while the NAS was away: as soon as it is back.
    late = judge(image, alone.memory, replace(GONE, requested=True), share=replace(SHARE, state=ShareState.WAITING))
    assert late.action is None and judge(image, late.memory, GONE).action == Action(Do.PREPARE)
    assert judge(image, alone.memory, PLACE).action == Action(Do.RECOGNISE, loop="loop3")


def test_who_asks_for_what_is_in_its_place_asks_for_nothing_later(image: Image) -> None:
    """A mount unit that is restarted asks the agent; that is answered, and no word against a later unmounting."""
    made = judge(image, MOUNTED, replace(PLACE, requested=True))
    assert made.memory.state is State.MOUNTED and not made.memory.asked


def test_what_cannot_be_unpublished_is_not_let_go_of(image: Image) -> None:
    closing = judge(image, UNMOUNTED, GONE)
    failed = judge(image, closing.memory, replace(GONE, result=Failed("/run is full")))
    assert failed.notes == ("/run is full",) and failed.memory.published
    assert judge(image, failed.memory, GONE, now=NOW + 4).action is None
    assert judge(image, failed.memory, GONE, now=NOW + 5).action == Action(Do.UNPUBLISH)


def test_mounted_again_before_it_was_let_go_of(image: Image) -> None:
    assert said(judge(image, UNMOUNTED, PLACE)) == (State.MOUNTED, "mounted at /var/lib/docker, direct I/O", "")
    half = judge(image, UNMOUNTED, replace(PLACE, binds=False))
    assert said(half) == (State.ATTACHED, f"{FILE} is attached as /dev/loop3", "") and half.memory.was_mounted


COVERED = replace(GONE, over="tmpfs (tmpfs)", in_use=True, free=())


@pytest.mark.parametrize(
    ("facts", "why", "remedy"),
    [
        (GONE, "was unmounted behind systemd's back from /var/lib/docker", f"systemctl start {MOUNT} {KEPT}"),
        (COVERED, "tmpfs (tmpfs) was mounted over /var/lib/docker", "umount /var/lib/docker"),
        (replace(GONE, hidden=True), "something was mounted over a folder above /var/lib/docker",
         f"systemctl start {MOUNT} {KEPT}"),
        (replace(PLACE, binds=False), "a folder that it keeps was unmounted: /var/lib/containerd",
         f"systemctl start {MOUNT} {KEPT}"),
    ],
)  # fmt: skip
def test_lost_behind_systemds_back(image: Image, facts: ImageFacts, why: str, remedy: str) -> None:
    running = answer(BEHIND, unit(DOCKER, "active"), unit(CONTAINERD, left_active=5.1, became_inactive=5.2))
    made = judge(image, replace(MOUNTED, gone=True), replace(facts, result=running))
    stopped = "; until it is back, docker.service containerd.service stopped"
    assert said(made) == (State.LOST, why + stopped, remedy)
    assert made.action == Action(Do.STOP, (DOCKER,)) and made.memory.stopped == BOTH
    quiet = judge(image, replace(MOUNTED, gone=True), replace(facts, result=answer(BEHIND)))
    assert said(quiet) == (State.LOST, why, remedy) and quiet.action is None, "a person at work is left alone"


def test_what_was_just_let_in_and_stopped_again_is_a_persons(image: Image) -> None:
    starting = replace(MOUNTED, gone=True, stopped=BOTH, starting=True, owed_at=500.0)
    behind = unit(MOUNT, left_active=510.0, became_inactive=510.0)
    ran = unit(DOCKER, left_inactive=500.0, left_active=501.0, became_inactive=501.1)
    refused = unit(CONTAINERD, left_inactive=499.9, left_active=500.1, became_inactive=500.2)
    made = judge(image, starting, replace(GONE, result=answer(behind, ran, refused)))
    assert made.memory.stopped == (CONTAINERD,)
    # Likewise where the image stays in its place; the gate may have refused somebody else since.
    made = judge(image, starting, replace(PLACE, result=answer(ran, refused, refusing())))
    assert made.action == Action(Do.START, (CONTAINERD,)) and made.memory.owed_at == NOW
    made = judge(image, starting, replace(PLACE, result=answer(ran, replace(ran, name=CONTAINERD), refusing())))
    assert made.action is None and made.memory.stopped == () and not made.memory.starting
    # By a person, before the agent could.
    made = judge(image, replace(starting, starting=False), replace(PLACE, result=answer(ran, passing())))
    assert made.action == Action(Do.START, (CONTAINERD,))
    # Let in, restarted and refused.
    again = answer(ran, refused, refusing(), docker=501.2)
    assert judge(image, starting, replace(PLACE, result=again)).action == Action(Do.START, BOTH)


def test_an_unmounting_by_request_of_what_is_lost_is_a_persons_too(image: Image) -> None:
    """A folder that it keeps is gone, or it is covered; then a person stops its mount unit."""
    for unit_, system in ((REQUESTED, "running"), (BEHIND, "stopping")):
        made = judge(image, replace(LOST, look="x", starting=True), replace(GONE, result=answer(unit_, system=system)))
        assert said(made)[0] is State.UNMOUNTED and made.action is None
        assert made.memory.owed == Owed()
    restarting = replace(REQUESTED, job="start")
    made = judge(image, LOST, replace(GONE, result=answer(restarting)))
    assert made.memory.state is State.LOST and made.memory.stopped == BOTH and made.action is None


@pytest.mark.parametrize("before", [UNMOUNTED, replace(LOST, stopped=())], ids=["unmounted", "lost"])
@pytest.mark.parametrize("result", [None, LetGo(False)], ids=["before it was closed", "behind our back"])
def test_mounted_in_the_moment_in_which_it_is_unpublished(image: Image, before: Memory, result: LetGo | None) -> None:
    """systemd had looked at the link already: without a second look it is mounted for ever, and the gate closed."""
    closing = judge(image, before, GONE)
    assert closing.action == Action(Do.UNPUBLISH)
    held = replace(PLACE, in_use=True, result=result)
    if result is not None:
        # What came of letting go is taken in first.
        closing = judge(image, closing.memory, held)
        held = replace(held, result=None)
    again = judge(image, closing.memory, held)
    assert again.action == Action(Do.PUBLISH) and again.memory.published
    assert said(judge(image, again.memory, PLACE))[0] is State.MOUNTED
    assert again.memory.look == "is back", "who was started with it met the gate closed"
    unknown = replace(closing.memory, lock=Lock.NONE)
    assert judge(image, unknown, held).action == Action(Do.LEASE), "without the lock nothing is verified"
    assert judge(image, unknown, replace(held, result=Leased())).action == Action(Do.PUBLISH)
    assert judge(image, unknown, replace(held, result=OTHER)).memory.state is State.TAKEN
    refused = judge(image, unknown, replace(held, result=Refusal("the share failed", again=60.0)))
    assert refused.action is None and judge(image, refused.memory, held, now=NOW + 14).action is None
    assert judge(image, refused.memory, held, now=NOW + 15).action == Action(Do.LEASE)


def test_whose_mount_goes_again_before_it_was_leased_has_it_prepared(image: Image) -> None:
    """He has asked for it by mounting it; umount -l while the lease was pending is no word against that."""
    found = replace(UNMOUNTED, published=False, lock=Lock.NONE)
    asking = judge(image, found, PLACE)
    assert asking.action == Action(Do.LEASE)
    leased = judge(image, asking.memory, replace(GONE, result=Leased()))
    assert leased.action == Action(Do.LET_GO, loop="loop3")
    free = judge(image, leased.memory, replace(GONE, result=LetGo(True)))
    assert judge(image, free.memory, GONE).action == Action(Do.PREPARE)


def test_a_lost_image_is_brought_back_when_nothing_runs_any_more(image: Image) -> None:
    assert judge(image, LOST, GONE).action == Action(Do.ASK, (MOUNT, *BOTH))
    assert judge(image, replace(LOST, ask_at=NOW + 1), GONE).action is None
    started = judge(image, LOST, replace(GONE, result=answer(unit(DOCKER, "active"))))
    assert started.action == Action(Do.STOP, (DOCKER,)), "somebody has started it meanwhile"
    assert judge(image, LOST, replace(GONE, result=answer(unit(DOCKER, "deactivating")))).action is None
    lives = judge(image, LOST, replace(GONE, in_use=True, result=answer()))
    assert lives.action == Action(Do.START, (MOUNT, KEPT)), "its file system lives on: the same device"
    assert judge(image, lives.memory, replace(GONE, in_use=True, result=answer()), now=NOW + 4).action is None
    anew = judge(image, LOST, replace(GONE, result=answer()))
    assert anew.action == Action(Do.UNPUBLISH)
    assert judge(image, replace(LOST, loop="", published=False), GONE).action == Action(Do.PREPARE)
    failed = judge(image, LOST, replace(GONE, result=Failed("no systemd")))
    assert failed.notes == ("no systemd",) and failed.memory.stopped == BOTH
    assert said(judge(image, LOST, PLACE))[0] is State.MOUNTED


def test_a_lost_image_that_nobody_misses_is_let_go_of(image: Image) -> None:
    quiet = replace(LOST, stopped=())
    assert judge(image, quiet, GONE).action == Action(Do.UNPUBLISH)
    assert judge(image, quiet, COVERED).action is None
    alone = replace(quiet, loop="", published=False)
    assert judge(image, alone, GONE).action is None
    assert judge(image, alone, replace(GONE, requested=True)).action == Action(Do.PREPARE)
    held_back = replace(quiet, look="came late")
    assert judge(image, held_back, replace(GONE, in_use=True)).action == Action(Do.START, (MOUNT, KEPT))
    assert judge(image, held_back, GONE).action == Action(Do.UNPUBLISH)
    assert judge(image, replace(alone, look="came late"), GONE).action == Action(Do.PREPARE)


# Another Pi has it


@pytest.mark.parametrize("by", ["lease", "pulse"])
@pytest.mark.parametrize(("memory", "facts", "how"), [(MOUNTED, PLACE, "mounted"), (ATTACHED, GONE, "attached")])
def test_another_pi_has_it(image: Image, memory: Memory, facts: ImageFacts, how: str, by: str) -> None:
    """The gate closes first, then what writes is stopped."""
    told = replace(facts, result=OTHER) if by == "lease" else replace(facts, lock_taken=OTHER)
    made = judge(image, memory, told)
    message = f"{how} here, but {FILE}: belongs to pi2 (serial 2)"
    assert said(made) == (State.TAKEN, message, "shut one of the two Pis down now")
    assert made.action == Action(Do.UNPUBLISH) and not made.memory.published and made.memory.lock is Lock.NONE


def test_mounted_by_hand_while_another_pi_has_it(image: Image) -> None:
    looking = replace(PREPARING, working=Do.RECOGNISE)
    made = judge(image, looking, replace(PLACE, result=OTHER))
    assert said(made)[0] is State.TAKEN and made.action == Action(Do.UNPUBLISH) and made.memory.loop == ""
    asked = judge(image, made.memory, PLACE)
    assert asked.action == Action(Do.ASK, (MOUNT, *BOTH))
    assert judge(image, asked.memory, PLACE, now=NOW + 15).action == Action(Do.RECOGNISE, loop="loop3")


def test_what_writes_is_stopped(image: Image) -> None:
    made = judge(image, TAKEN, replace(PLACE, result=answer(unit(DOCKER, "active"))))
    message = "mounted here, but X; docker.service stopped: two writers destroy it"
    assert said(made) == (State.TAKEN, message, "shut one of the two Pis down now")
    assert made.action == Action(Do.STOP, (DOCKER,)) and made.memory.stopped == (DOCKER,)
    quiet = judge(image, TAKEN, replace(PLACE, result=answer()))
    assert said(quiet)[1] == "mounted here, but X" and quiet.action is None
    failed = judge(image, TAKEN, replace(PLACE, result=Failed("no systemd")))
    assert failed.notes == ("no systemd",) and not failed.memory.published


def test_what_writes_to_a_file_system_that_lives_on_is_stopped_too(image: Image) -> None:
    """umount -l while another Pi has it."""
    lazily = replace(GONE, in_use=True)
    waiting = replace(TAKEN, lease_at=NOW + 1)
    assert judge(image, waiting, lazily).action == Action(Do.ASK, (MOUNT, *BOTH))
    made = judge(image, TAKEN, replace(lazily, result=answer(unit(DOCKER, "active"))))
    assert made.action == Action(Do.STOP, (DOCKER,))


def test_it_is_mounted_anew_when_it_is_this_pis_again(image: Image) -> None:
    """What was mounted meanwhile is not what is on the share any more."""
    waiting = replace(TAKEN, lease_at=NOW + 15, ask_at=NOW + 1e6, stopped=BOTH)
    assert judge(image, waiting, PLACE).action is None
    asked = judge(image, waiting, PLACE, now=NOW + 15)
    assert asked.action == Action(Do.LEASE)
    refused = judge(image, asked.memory, replace(PLACE, result=OTHER), now=NOW + 16)
    assert refused.memory.lease_at == NOW + 31 and refused.memory.state is State.TAKEN
    ours = judge(image, replace(asked.memory, ask_at=0.0), replace(PLACE, result=Leased()))
    assert ours.memory.lock is Lock.HELD and ours.action == Action(Do.ASK, (MOUNT, *BOTH))
    down = judge(image, ours.memory, replace(PLACE, result=answer()))
    assert down.action == Action(Do.STOP, (KEPT, MOUNT))
    assert down.memory.ask_at == NOW + 5.0, "systemd has that long before it is asked again"
    assert down.memory.message == "this Pi's again; unmounted from /var/lib/docker, checked and mounted anew"
    assert judge(image, ours.memory, replace(PLACE, result=answer(unit(DOCKER, "deactivating")))).action is None
    assert judge(image, down.memory, GONE).action == Action(Do.LET_GO, loop="loop3")
    free = judge(image, replace(down.memory, loop=""), GONE)
    assert free.memory.state is State.WAITING and free.memory.late and free.memory.stopped == BOTH
    assert judge(image, free.memory, GONE).action == Action(Do.PREPARE)
    recognised = judge(image, replace(TAKEN, loop="", ask_at=NOW + 1e6), replace(PLACE, result=Ready("loop3")))
    assert recognised.memory.loop == "loop3" and recognised.memory.lock is Lock.HELD


# Who waits


@pytest.mark.parametrize("state", list(State))
def test_who_waits_for_it(state: State) -> None:
    memory = Memory(state)
    undecided = state in (State.WAITING, State.PREPARING)
    assert holds_up_boot(memory, SHARE) is undecided
    assert is_awaited(memory, GONE, SHARE) is (undecided or state in (State.UNMOUNTED, State.LOST))
    for other in ShareState:
        if other is not ShareState.MOUNTED:
            # A NAS that falls silent in the middle does not hold the boot up.
            assert not holds_up_boot(memory, replace(SHARE, state=other))
            assert not is_awaited(memory, GONE, replace(SHARE, state=other))
    if state is State.UNMOUNTED:
        assert not is_awaited(memory, replace(GONE, in_use=True), SHARE)


def test_who_cannot_wait_for_the_next_tick() -> None:
    for memory in (UNMOUNTED, LOST, TAKEN, BACK, replace(MOUNTED, look="came late")):
        assert is_restless(memory)
    for memory in (MOUNTED, ATTACHED, PREPARING, replace(UNMOUNTED, loop="")):
        assert not is_restless(memory)


def test_nothing_is_known_and_remembered_at_first() -> None:
    for made in (Memory(), ShareMemory(), ImageFacts(), ShareFacts(), Owed(), Picture(0.0), Action(Do.ASK)):
        others = ("state", "lock", "trouble", "share", "do")
        assert not any(value for name, value in vars(made).items() if name not in others), made
    assert (Memory().state, Memory().lock, Memory().trouble) == (State.WAITING, Lock.NONE, ("", ""))
    assert Refusal("no") == Refusal("no", "", by_other=False, again=None)


def test_what_is_known_and_decided_cannot_be_changed() -> None:
    """One picture, made in one place: nobody changes it on its way."""
    for module in (picture, states, cases):
        kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and is_dataclass(kind)]
        assert kinds and all(kind.__dataclass_params__.frozen for kind in kinds)  # type: ignore[attr-defined]


def test_no_state_follows_that_is_not_in_the_table() -> None:
    assert set(FOLLOWS) == set(State)
    for state in State:
        for other in set(State) - {state} - set(FOLLOWS[state]):
            with pytest.raises(AssertionError, match=f"{state} cannot be followed by {other}"):
                Memory(state).become(other, "", "", NOW)
    assert all(reason for followers in FOLLOWS.values() for reason in followers.values())
