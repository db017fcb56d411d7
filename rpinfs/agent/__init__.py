"""The one daemon: what is known, what is decided, what is done, what is told; loss and shutdown.

Imports from the rooms above; at its start nothing from docker and health, for the boot pays for what it imports.
"""
