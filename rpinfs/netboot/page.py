"""The one page that a person follows: which box needs which change, which needs none, and what each step proves."""

from __future__ import annotations

from rpinfs.errors import quoted
from rpinfs.netboot.boards import folder_of
from rpinfs.netboot.model import Plan
from rpinfs.netboot.render.board import boot_folder, root_source
from rpinfs.netboot.render.router import has_words
from rpinfs.netboot.topology import NAMES

Step = tuple[str, str]
"""What to do, and what proves it."""


def page(plan: Plan, file: str) -> str:
    """The page as text."""
    lines = [f"Netboot, way {plan.topology}: {NAMES[plan.topology]}", "", "Who does what:"]
    lines += [f"  {who:10} {what}" for who, what in _roles(plan)]
    lines += ["", "Steps, each with what proves it:"]
    for number, (what, proof) in enumerate(_steps(plan, file), 1):
        lines += [f"  {number}. {what}", f"     proof: {proof}"]
    if notes := _notes(plan):
        lines += ["", "Mind:", *(f"  - {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def _roles(plan: Plan) -> list[Step]:
    nas = f"serves the roots from {plan.nas.root} and the images from {plan.nas.share} by NFS {plan.nas.version}"
    tftp = f"serves {plan.nas.boot} by TFTP"
    proxy = 'says "boot from here" (dnsmasq as a proxy beside the router\'s DHCP)'
    router = {
        "A": "stays as it is",
        "B": "gives addresses, and options 43, 60 and 66 to Pis",
        "C": "stays as it is",
        "D": "stays as it is" if plan.network.dhcp != "box" else "gives no addresses any more: its DHCP server is off",
    }[plan.topology]
    roles = [("router", router)]
    if plan.topology == "D":
        speaks = proxy if plan.network.dhcp != "box" else "gives addresses, and options 43, 60 and 66 to Pis"
        return [*roles, ("Linux box", f"{speaks}, and {tftp}"), ("NAS", nas)]
    return [*roles, ("NAS", f"{nas}; {tftp}" + (f"; {proxy}, in a container" if plan.topology == "A" else ""))]


def _steps(plan: Plan, file: str) -> list[Step]:
    nas = plan.nas.address
    steps = [
        (f"rpinfs netboot render {quoted(file)} --output netboot", "the files and pages for each box lie in netboot/"),
        (
            f"on the NAS: export {plan.nas.root}, {plan.nas.boot}, {plan.nas.share} as netboot/ says",
            f"the three are listed by: showmount -e {quoted(nas)}",
        ),
    ]
    if plan.topology == "D":
        steps += _on_the_box(plan, file)
    else:
        steps.append(
            (
                f"on the NAS: TFTP of {plan.nas.boot}",
                f"once a board is added, its file can be fetched: tftp {quoted(nas)} -c get {quoted(_fetched(plan))}",
            )
        )
    if plan.topology == "A":
        steps.append(
            ("on the NAS, in the folder with netboot/'s three files: docker compose up -d", "its log says: proxy")
        )
    if plan.topology == "B":
        steps.append(
            (
                "on the router: the options, as netboot/ says",
                "each board is told where to boot from, says rpinfs netboot doctor"
                if has_words(plan)
                else "nothing is found in its files by rpinfs netboot check",
            )
        )
    for pi in plan.pis:
        where = f"{boot_folder(plan, pi)} and {root_source(plan, pi)}"
        adding = f"rpinfs netboot add IMAGE --name {quoted(pi.name)} --plan {quoted(file)}"
        adding += " --user U --ssh-key FILE --deb FILE --docker"
        steps.append(
            (f"{pi.name}, to {where}: {adding}", f"no fault is named by: rpinfs netboot check --plan {quoted(file)}")
        )
        if pi.board.eeprom:
            steps.append((f"on {pi.name}, once, from an SD card: rpi-eeprom-config --apply boot.conf",
                          "BOOT_ORDER=0xf2 is shown by: rpi-eeprom-config"))  # fmt: skip
        elif pi.board.needs_card:
            steps.append((f"{pi.name}: bootcode.bin alone on an SD card", "its activity light blinks when it asks"))
    steps.append(
        (
            "ask the wire by rpinfs netboot doctor, as root, and power the boards beside rpinfs netboot watch",
            'doctor says of each that it boots, and watch that it "is up"',
        )
    )
    return steps


def _fetched(plan: Plan) -> str:
    """A file that is there: the top of a TFTP root has none of its own."""
    return f"{folder_of(plan.pis[0].serial) if plan.pis and plan.pis[0].serial else 'SERIAL'}/config.txt"


def _on_the_box(plan: Plan, file: str) -> list[Step]:
    nas = plan.nas
    steps: list[Step] = []
    if plan.box and plan.box.address != nas.address:
        source = f"{nas.address}:{nas.boot}"
        mounting = f"mkdir -p {quoted(nas.boot)}; mount -t nfs -o vers={nas.version} {quoted(source, nas.boot)}"
        steps.append(
            (f"on the Linux box, and in its fstab too: {mounting}", f"it is there: findmnt {quoted(nas.boot)}")
        )
    service = "enable --now rpi-netboot" if plan.network.dhcp != "box" else "restart dnsmasq"
    putting = f"rpinfs netboot render {quoted(file)} --apply 'the Linux box'; systemctl {service}"
    steps.append((f"on the Linux box, with dnsmasq installed: {putting}", f"its log says: TFTP root is {nas.boot}"))
    return steps


def _notes(plan: Plan) -> list[str]:
    notes = []
    if any(pi.board.needs_card for pi in plan.pis):
        notes.append("a 3B gives up after five requests in 25 s: no spanning tree on its switch port, no relay")
    if unknown := [pi.name for pi in plan.pis if not pi.serial]:
        notes.append(
            f"the serial number of {', '.join(unknown)} is not known: the folder must be called by its last 8 digits"
        )
    if plan.nas.version == "3":
        notes.append("NFS 3 has no lock that dies with a Pi: images need multi-mount protection (Fence=mmp)")
    notes.append("IPv4 only: the boards' IPv6 boot breaks behind relays (firmware#1938)")
    return notes
