"""The one daemon: what is known, what is decided, what is done, what is told; loss and shutdown.

Imports from boot, system, lease and image; never at its start from health, which costs the boot what it imports.
"""
