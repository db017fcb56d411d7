"""The boards that netboot, and what each of them asks for on the wire.

Sources: raspberrypi/documentation, computers/raspberry-pi/boot-net.adoc (the boot ROM of the 3B and 3B+) and
eeprom-bootloader.adoc (the bootloader in the EEPROM of all later boards); raspberrypi/rpi-eeprom, release notes.
"""

from __future__ import annotations

from dataclasses import dataclass

VENDOR_CLASS = b"PXEClient:Arch:00000:UNDI:002001"
"""Option 60 of every board: they all call themselves an x86 PC (option 93 = 0), whatever they are."""

OUIS = ("28:cd:c1", "2c:cf:67", "88:a2:9e", "b8:27:eb", "d8:3a:dd", "dc:a6:32", "e4:5f:01")
"""First halves of the MAC addresses of Raspberry Pi Ltd. New boards bring new ones: a list of them goes stale."""


@dataclass(frozen=True)
class Board:
    """A model of a board.

    Attributes:
        model: as people call it, and as the plan has it: "3B+", "4", "CM5".
        eeprom: whether its bootloader is in an EEPROM that can be updated and told what to do (boot.conf); else it is
            in the ROM of the chip, and is what it is.
        guid: first four bytes of option 97 behind its type byte, by which a DHCP server knows it; empty for the ROMs.
        starts: one of them must lie in the folder of a board, or the folder does not count.
        kernel: the kernel that its firmware looks for, where config.txt names none, on a 64-bit system.
    """

    model: str
    eeprom: bool
    guid: bytes
    starts: tuple[str, ...]
    kernel: str = "kernel8.img"

    @property
    def name(self) -> str:
        """The name in full."""
        return (
            f"Raspberry Pi {self.model}" if self.model[0].isdigit() else f"Raspberry Pi Compute Module {self.model[2:]}"
        )

    @property
    def needs_card(self) -> bool:
        """Whether it boots from the network reliably only with bootcode.bin on an SD card: the ROM of the 3B."""
        return self.model == "3B"


_ROM = ("start.elf",)
_EEPROM = ("start4.elf", "start.elf")

BOARDS = {
    board.model: board
    for board in (
        Board("3B", False, b"", _ROM),
        Board("3B+", False, b"", _ROM),
        Board("4", True, b"RPi4", _EEPROM),
        Board("400", True, b"RPi4", _EEPROM),
        Board("CM4", True, b"RPi4", _EEPROM),
        Board("5", True, b"RPi5", _EEPROM, "kernel_2712.img"),
        Board("500", True, b"RPi5", _EEPROM, "kernel_2712.img"),
        Board("CM5", True, b"RPi5", _EEPROM, "kernel_2712.img"),
    )
}


def folder_of(serial: str) -> str:
    """Name of the folder that a board asks for below the TFTP root: the low eight digits of its serial number.

    /proc/cpuinfo writes sixteen digits, 10000000 in front on newer boards; the firmware uses the low half alone.
    """
    return serial.lower().removeprefix("0x")[-8:].rjust(8, "0")
