"""What the agent says of the image `docker`, in /run/rpinfs/agent.json."""

from __future__ import annotations

import json

from .pi import Pi

SAID = "/run/rpinfs/agent.json"


def image_state(pi: Pi) -> dict[str, str]:
    """Its "state", and the "message" and "remedy" to it."""
    found: dict[str, str] = json.loads(pi.run(f"cat {SAID}"))["images"]["docker"]
    return found


def wait_for_state(pi: Pi, *states: str, timeout: float = 600) -> str:
    """Wait for one of these states; returns which."""
    said = f'"docker": ."state": "({"|".join(states)})"'
    pi.run(f"until grep -q -E '{said}' {SAID}; do sleep 1; done", timeout=timeout)
    return image_state(pi)["state"]


def boot_until_settled(pi: Pi) -> str:
    """Boot until it is decided whether it has its image: "mounted" or "refused"."""
    pi.power_on()
    pi.wait_agent()
    return wait_for_state(pi, "mounted", "refused")
