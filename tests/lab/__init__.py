"""The lab: a NAS and emulated Pis that really netboot from it.

    with Lab(deb=path) as lab:
        pi = lab.pi()                              # off; its root is a fresh copy, with the package installed
        pi.write("/etc/rpinfs/rpinfs.conf", "")    # from the NAS side
        pi.power_on()                              # DHCP, TFTP, kernel
        pi.wait_booted()                           # "running" or "degraded"
        pi.run("docker info")
        pi.power_off()
        image.is_clean(lab.nas.image_path("docker-b8-27-eb-77-00-01.img"))

`python3 -m tests.lab shell` does that by hand. lab.py has the lab, pi.py a Pi, nas.py the NAS, kernel_nas.py one that
speaks NFS 4.2, machine.py the boards, root.py how roots are made and kept (foreign.py: those of other processors),
bootrom.py and guest/ what stands in for a Pi's firmware and kernel.
"""

from .lab import Lab
from .nas import GaneshaNas, Nas
from .pi import CommandFailed, Pi
from .process import LabError

__all__ = ["CommandFailed", "GaneshaNas", "Lab", "LabError", "Nas", "Pi"]
