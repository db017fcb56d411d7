"""Images of a configuration, for tests and for the children of tests: what those import has no pytest."""

from rpinfs.boot.config import Image

SIZE = 512 << 20


def image_at(where: str) -> Image:
    """An image of the configuration; of it, trim() wants to know the name and the mount point."""
    return Image(
        name="docker", file="docker.img", path="/nowhere/docker.img", size=SIZE, size_is_set=False, filesystem="ext4",
        filesystem_is_set=False, where=where, options=[], bind=[], before=[], direct_io=True, fence="lease",
    )  # fmt: skip
