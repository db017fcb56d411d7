"""The lab: a NAS and emulated Pis that really netboot from it. See lab.py for what it offers, README.md for how."""

from .lab import Lab
from .nas import GaneshaNas, Nas
from .pi import CommandFailed, Pi
from .process import LabError

__all__ = ["CommandFailed", "GaneshaNas", "Lab", "LabError", "Nas", "Pi"]
