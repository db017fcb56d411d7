"""What is known of this machine, the table of checks on it, and the status document.

Nothing here changes anything. Imports from the rooms above: boot, system, lease, image, docker.
"""
