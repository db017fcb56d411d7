"""What holds for every module of the room."""

from __future__ import annotations

import ast

from tests.support import TOP

MODULES = sorted((TOP / "rpinfs/image").glob("*.py"))
ONLY_LOOK = {("check", "program"), ("signature", "'blkid'"), ("signature", "'wipefs'")}
"""Modules, and programs that they start: these change nothing."""


def test_no_program_outlives_us() -> None:
    """When we are killed, the lease goes: what still worked on the image then would do it without."""
    loose = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "run":
                tied = {"die_with_us": "True"}.items() <= {(one.arg, ast.unparse(one.value)) for one in node.keywords}
                program = node.args[0].elts[0] if isinstance(node.args[0], ast.List) else node.args[0]
                loose |= set() if tied else {(path.stem, ast.unparse(program))}
    assert loose == ONLY_LOOK
