"""What Docker will do by its version and settings, and changing its settings.

Nothing here starts or stops Docker. Imports from boot and system.
"""
