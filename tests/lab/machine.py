"""The emulated board: the host's own architecture, so that nothing is slower than it must be."""

from __future__ import annotations

from dataclasses import dataclass

from .process import LabError, run


@dataclass(frozen=True)
class Machine:
    """What differs between the architectures that the lab knows."""

    architecture: str
    kernel_package: str
    qemu: tuple[str, ...]
    serial_console: str


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
    ),
    "arm64": Machine(
        architecture="arm64",
        kernel_package="linux-image-cloud-arm64",
        # QEMU's own pointer authentication is many times cheaper to emulate than the architected algorithm.
        qemu=("qemu-system-aarch64", "-machine", "virt", "-cpu", "max,pauth-impdef=on"),
        serial_console="ttyAMA0",
    ),
}


def native_machine() -> Machine:
    """The machine of the host's architecture."""
    architecture = run(["dpkg", "--print-architecture"]).strip()
    if architecture not in MACHINES:
        raise LabError(f"architecture {architecture}: the lab emulates {' and '.join(MACHINES)}")
    return MACHINES[architecture]
