"""All 34 rules: each has a configuration that breaks it, in a test that asserts its number; the code has no others."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support import TOP
from tests.tools.netboot import test_nfs, test_wire
from tests.unit.netboot import test_rules

ALL = set(range(1, 35))
IN_TESTS_OF_THEIR_OWN: dict[int, Callable[..., None]] = {
    1: test_rules.test_an_interface_that_is_not_there,
    16: test_wire.test_two_tftp_roots,
    18: test_rules.test_files_that_the_server_does_not_give_out,
    30: test_nfs.test_a_root_that_is_not,
}


def test_every_rule_has_a_configuration_that_breaks_it() -> None:
    by_files = {rule for _, rule, _, _ in test_rules.CASES.values()}
    by_wire = {rule for rule, *_ in test_wire.WIRE.values()}
    assert by_files | by_wire | set(IN_TESTS_OF_THEIR_OWN) == ALL
    assert all(f"Rule {rule}" in (test.__doc__ or "") for rule, test in IN_TESTS_OF_THEIR_OWN.items())


def numbers(path: Path) -> Iterator[int]:
    """The rules that a module can name: the first argument of each finding and remark."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            first = node.args[0]
            if (
                node.func.id in ("Finding", "Remark", "_found")
                and isinstance(first, ast.Constant)
                and isinstance(first.value, int)
            ):
                yield first.value


def test_the_code_has_every_rule_and_no_other() -> None:
    """A rule that is in the table and nowhere in the code would be covered by nothing."""
    modules = sorted((TOP / "rpinfs/netboot").rglob("*.py"))
    assert {number for path in modules for number in numbers(path)} == ALL
