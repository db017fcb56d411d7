"""The emulated board: of the host's own architecture, so that nothing is slower than it must be, or of another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from .foreign import native_architecture
from .process import LabError

AGENT_SOCKET = "agent.sock"
MONITOR_SOCKET = "monitor.sock"


@dataclass(frozen=True)
class Machine:
    """What differs between the architectures that the lab knows.

    Attributes:
        architecture: that of its programs, as Debian calls it.
        modules: what its kernel needs for its network card.
        compiler: what compiles for it, on any machine.
        patience: times that anything may take longer on it.
    """

    architecture: str
    kernel_package: str
    qemu: tuple[str, ...]
    serial_console: str
    compiler: str
    modules: tuple[str, ...] = ("virtio_pci", "virtio_net")
    patience: float = 1.0

    def argv(self, boot: tuple[Path, Path, str], port: str, mac: str, memory: int, folder: Path) -> list[str | Path]:
        """QEMU's arguments for a machine with a network card, the lab's agent and a monitor.

        boot is kernel, initramfs and command line; port is a tap device; memory is in MiB. The sockets of agent and
        monitor are in folder.
        """
        kernel, initramfs, cmdline = boot
        return [
            *self.qemu,
            *("-accel", "tcg,thread=multi,tb-size=512", "-m", str(memory)),
            *("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"),
            # A reboot must pass through the boot ROM again: Pi.reboot() does that.
            "-no-reboot",
            *("-kernel", kernel, "-initrd", initramfs, "-append", cmdline),
            *("-netdev", f"tap,id=cable,ifname={port},script=no,downscript=no"),
            *("-device", f"virtio-net-pci,netdev=cable,mac={mac},romfile="),
            *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=agent,path={folder / AGENT_SOCKET}"),
            *("-device", "virtserialport,chardev=agent,name=rpinfs.lab"),
            *("-chardev", f"socket,id=monitor,path={folder / MONITOR_SOCKET}"),
            *("-mon", "chardev=monitor,mode=control"),
        ]


ARM64 = Machine(
    architecture="arm64",
    kernel_package="linux-image-cloud-arm64",
    # A Raspberry Pi 3's processor; it has no pointer authentication, which would be dear to emulate.
    qemu=("qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a53"),
    serial_console="ttyAMA0",
    compiler="aarch64-linux-gnu-gcc",
    patience=3.0,
)
MACHINES = {
    "amd64": Machine(
        architecture="amd64",
        kernel_package="linux-image-cloud-amd64",
        # Left out: what would only make udev load drivers and ciphers (that halves the processor time of a boot); and
        # five-level page tables, with which, but without SVM, the initramfs never ended: four times of four, QEMU 7.2.
        qemu=(
            "qemu-system-x86_64",
            *("-machine", "q35,sata=off,smbus=off,i8042=off"),
            *("-cpu", "max,-svm,-la57,-aes,-pclmulqdq,-sha-ni"),
        ),
        serial_console="ttyS0",
        compiler="x86_64-linux-gnu-gcc",
    ),
    "arm64": ARM64,
    # Raspberry Pi OS in 32 bits has a kernel in 64 bits, on all boards that can run one.
    "armhf": replace(
        ARM64,
        architecture="armhf",
        kernel_package="linux-image-cloud-arm64:arm64",
        compiler="arm-linux-gnueabihf-gcc",
    ),
    # A Raspberry Pi 5, and a kernel like that of its own: with pages of 16 KiB, which the boards before it cannot have.
    "arm64-16k": replace(
        ARM64,
        kernel_package="linux-image-arm64-16k",
        qemu=("qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a76"),
    ),
    # With the drivers of real boards, such as that of a card on USB.
    "arm64-full": replace(
        ARM64, kernel_package="linux-image-arm64", modules=("virtio_pci", "virtio_net", "dwc2", "rndis_host")
    ),
}


def native_machine() -> Machine:
    """The machine of the host's architecture."""
    return machine_of("")


def machine_of(architecture: str) -> Machine:
    """The machine of an architecture, of the host's where none is named."""
    architecture = architecture or native_architecture()
    if architecture not in MACHINES:
        raise LabError(f"architecture {architecture}: the lab emulates {', '.join(MACHINES)}")
    return MACHINES[architecture]
