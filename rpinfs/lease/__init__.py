"""One Pi, one image: the lock on the share, with what its holder says of itself, and the owner record beside the image.

Nothing here knows what is in an image. Imports from boot and system.
"""
