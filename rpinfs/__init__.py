"""Docker storage on a netbooted Raspberry Pi: an image on NFS, made, checked, guarded and watched."""

__version__ = "0.1.0"
