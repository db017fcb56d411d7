"""Images: what is in a file, making, checking, growing, copying, snapshots, freezing, trimming; the way to a device.

Nothing here knows of Docker, or decides when something is done. Imports from boot, system and lease.
"""
