"""Windows on the machine: programs, files, loop devices, deadlines, systemd, network, system calls, kernels.

Nothing here knows of images and Docker. Imports from boot.
"""
