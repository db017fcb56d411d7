"""Every remedy that rpinfs can print, collected from the source: what the tests of remedies go by.

A remedy is what the source passes for a parameter, or writes into a name or field, called `remedy`, by whatever
function or class of ours, and what a function returns that has `remedy` in its name. So those of new errors, findings
and sentences are seen without being named here. Sentences that are no remedies and have a dangerous command in them
count as well: people paste those too. What is filled in is shown as {}, or as {quoted} where that makes it one word.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import TOP

DANGEROUS = re.compile(
    r"\b(tune2fs|e2fsck|resize2fs|debugfs|xfs_repair|mkfs\.\w+|u?mount|losetup|swapoff|dd|rm|mv|truncate) [-^{/]"
    r"|\b(systemctl (stop|start|restart)|apt install|modprobe) "
)
"""A program with what it is to do, in a sentence."""

_DOCUMENTATION = ("explanation", "help", "epilog")
"""Arguments that are not printed beside a fault."""

SCRIPT = re.compile(r'["=]\$[0-9]')
"""What has positional parameters is run by a shell of ours: nobody sees it."""

_PARAMETERS = ("remedy", "write")
"""What a remedy is called where it is passed; `write` by the rules of netboot check."""

_LISTS = ("left", "steps")
"""Lists of what a person is to do, which netboot add and plan print."""

_DEEPEST = 6
"""A chain of names and calls that is longer is followed no further."""

Names = dict[str, list[ast.expr]]
"""What names stand for; several things where they are bound several times."""


@dataclass
class Source:
    """The package: its modules, the constants of each, its functions, and where their remedy stands in a call.

    Attributes:
        imports: by module and name the module that it comes from.
        positions: by the name of a function or class, and the module that it is in: several may share a name.
    """

    modules: dict[str, ast.Module] = field(default_factory=dict)
    constants: dict[str, Names] = field(default_factory=dict)
    functions: dict[str, list[tuple[str, ast.FunctionDef]]] = field(default_factory=dict)
    classes: dict[str, dict[str, ast.ClassDef]] = field(default_factory=dict)
    imports: dict[str, dict[str, str]] = field(default_factory=dict)
    positions: dict[str, dict[str, int]] = field(default_factory=dict)

    def positions_of(self, called: str, module: str) -> set[int]:
        """Where a remedy stands in a call of this name in a module."""
        found = self.positions.get(called, {})
        known = [one for one in (module, self.imports[module].get(called, "")) if one in found]
        return {found[known[0]]} if known else set(found.values())


def read(package: Path = TOP / "rpinfs") -> Source:
    """Read all modules of the package."""
    source = Source()
    for path in sorted(package.rglob("*.py")):
        name = str(path.relative_to(package))
        tree = source.modules[name] = ast.parse(path.read_text())
        source.constants[name] = _names(tree.body)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                source.functions.setdefault(node.name, []).append((name, node))
            elif isinstance(node, ast.ClassDef):
                source.classes.setdefault(node.name, {})[name] = node
        source.imports[name] = _imports(tree, package)
    for module, function in (one for several in source.functions.values() for one in several):
        arguments = [one.arg for one in function.args.args]
        if (index := _index(arguments)) is not None:
            source.positions.setdefault(function.name, {})[module] = index - (arguments[0] in ("self", "cls"))
    for called, places in source.classes.items():
        for module in places:
            if (position := _position_in_class(called, module, source)) is not None:
                source.positions.setdefault(called, {})[module] = position
    return source


def _imports(tree: ast.Module, package: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            path = node.module.partition(".")[2].replace(".", "/")
            module = f"{path}.py" if (package / f"{path}.py").exists() else f"{path}/__init__.py"
            found |= {one.asname or one.name: module for one in node.names}
    return found


def collect(source: Source) -> dict[str, set[str]]:
    """Templates of all remedies, each with the modules that it stands in."""
    found: dict[str, set[str]] = {}
    for module in source.modules:
        for text in _Collector(source, module).collect():
            found.setdefault(text, set()).add(module)
    return found


def _assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names that a node binds, with what they are bound to."""
    if isinstance(node, ast.AnnAssign | ast.NamedExpr) and isinstance(node.target, ast.Name) and node.value:
        yield node.target.id, node.value
    if not isinstance(node, ast.Assign):
        return
    for target in node.targets:
        if isinstance(target, ast.Name | ast.Attribute):
            yield _name_of(target), node.value
        elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from ((_name_of(one), value) for one, value in zip(target.elts, node.value.elts, strict=False))


def _names(nodes: list[ast.stmt] | Iterator[ast.AST]) -> Names:
    found: Names = {}
    for node in nodes:
        for name, value in _assigned(node):
            found.setdefault(name, []).append(value)
    return found


def _position_in_class(name: str, module: str, source: Source) -> int | None:
    """Where `remedy` stands in the call of a class: by its own __init__, its fields, or the class above."""
    places = source.classes.get(name, {})
    module = next((one for one in (module, source.imports[module].get(name, ""), *places) if one in places), "")
    if not module:
        return None
    body = places[module].body
    for one in body:
        if isinstance(one, ast.FunctionDef) and one.name == "__init__":
            return _index([argument.arg for argument in one.args.args[1:]])
    fields = [_name_of(one.target) for one in body if isinstance(one, ast.AnnAssign)]
    if _index(fields) is not None:
        return _index(fields)
    bases = places[module].bases if not fields else []
    found = (_position_in_class(_name_of(base), module, source) for base in bases)
    return next((one for one in found if one is not None), None)


def _index(names: list[str]) -> int | None:
    return next((names.index(name) for name in _PARAMETERS if name in names), None)


def _name_of(node: ast.expr) -> str:
    """The last word: `critical` of critical(...), `_becomes` of self._becomes(...)."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


class _Collector:
    """Goes through one module."""

    def __init__(self, source: Source, module: str) -> None:
        self._source, self._module = source, module
        self._ways: dict[type[ast.expr], Callable[..., Iterator[str]]] = {
            ast.Constant: self._constant_text,
            ast.JoinedStr: self._joined,
            ast.BinOp: self._added,
            ast.IfExp: lambda node, *more: self._all([node.body, node.orelse], *more),
            ast.BoolOp: lambda node, *more: self._all(node.values, *more),
            ast.List: lambda node, *more: self._all(node.elts, *more),
            ast.Dict: lambda node, *more: self._all(node.values, *more),
            ast.Tuple: lambda node, *more: self._all(node.elts, *more),
            ast.Subscript: lambda node, *more: self._all([node.value], *more),
            ast.Name: lambda node, names, depth: self._all(self._meant(node, names), names, depth),
            ast.Attribute: lambda node, names, depth: self._all(self._meant(node, {}), names, depth),
            ast.Call: self._called,
        }

    def collect(self) -> Iterator[str]:
        tree = self._source.modules[self._module]
        documentation = _documentation(tree)
        # What render makes are files.
        files = self._module.startswith("netboot/render/")
        for scope in (tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))):
            names = _names(ast.walk(scope))
            for node in _own(scope):
                texts = self._all(list(self._remedies(node, scope)), names, 0)
                # Nothing but what is filled in is the remedy of somebody else.
                yield from (text for text in texts if re.search("[a-z]", text))
                if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in documentation and not files:
                    yield from (
                        text
                        for text in self._texts(node, names, 0)
                        if DANGEROUS.search(text) and not SCRIPT.search(text)
                    )

    def _remedies(self, node: ast.AST, scope: ast.AST) -> Iterator[ast.expr]:
        """Expressions that are remedies."""
        if isinstance(node, ast.Call):
            for position in self._source.positions_of(_name_of(node.func), self._module):
                yield from node.args[position : position + 1]
            yield from (one.value for one in node.keywords if one.arg in _PARAMETERS)
            if isinstance(node.func, ast.Attribute) and node.func.attr == "append" and _is_list(node.func.value):
                yield from node.args
        if (
            isinstance(node, ast.Return)
            and isinstance(scope, ast.FunctionDef)
            and "remedy" in scope.name
            and node.value
        ):
            yield node.value
        yield from (value for name, value in _assigned(node) if _is_remedy(name))

    def _texts(self, node: ast.expr, names: Names, depth: int) -> Iterator[str]:
        """The templates that an expression can become."""
        way = self._ways.get(type(node))
        if way is not None and depth <= _DEEPEST:
            yield from way(node, names, depth + 1)

    def _all(self, nodes: list[ast.expr], names: Names, depth: int) -> Iterator[str]:
        for node in nodes:
            yield from self._texts(node, names, depth)

    def _constant_text(self, node: ast.Constant, _: Names, __: int) -> Iterator[str]:
        if isinstance(node.value, str):
            yield node.value

    def _added(self, node: ast.BinOp, names: Names, depth: int) -> Iterator[str]:
        rights = list(self._texts(node.right, names, depth)) or ["{}"]
        yield from (left + right for left in list(self._texts(node.left, names, depth)) or ["{}"] for right in rights)

    def _joined(self, node: ast.JoinedStr, names: Names, depth: int) -> Iterator[str]:
        texts = [""]
        for part in node.values:
            ways = [str(part.value)] if isinstance(part, ast.Constant) else []
            if isinstance(part, ast.FormattedValue):
                ways = sorted(set(self._filled_in(part.value, names, depth))) or [
                    _blank([part.value, *self._meant(part.value, names)])
                ]
            texts = [text + way for text in texts for way in ways]
        yield from texts

    def _filled_in(self, node: ast.expr, names: Names, depth: int) -> Iterator[str]:
        """Texts of the source that are put in: a command that many share, by its name or by what makes it."""
        for one in self._meant(node, names) if _name_of(node) != "remedy" else []:
            if isinstance(one, ast.Constant | ast.JoinedStr | ast.IfExp):
                yield from self._texts(one, names, depth)
        for one in [node, *self._meant(node, names)]:
            # Of a function, only what it has quoted for a shell: others make names and numbers.
            if isinstance(one, ast.Call):
                yield from (text for text in self._called(one, names, depth) if "{quoted}" in text)

    def _meant(self, node: ast.expr, names: Names) -> list[ast.expr]:
        """What a name stands for: here, as a constant of this module, or as one of the same name elsewhere."""
        name = _name_of(node)
        if isinstance(node, ast.Attribute) and not name.lstrip("_").isupper():
            return []
        places = [names, self._source.constants[self._module], *self._source.constants.values()]
        return next((place[name] for place in places if name in place), [])

    def _called(self, node: ast.Call, names: Names, depth: int) -> Iterator[str]:
        name = _name_of(node.func)
        if name == "command":
            # Words that are put together and quoted there.
            words = [str(one.value) if isinstance(one, ast.Constant) else "{quoted}" for one in node.args]
            yield re.sub(r"{quoted}( {quoted})+", "{quoted}", " ".join(words))
            return
        if name == "str":
            yield from self._all(node.args, names, depth)
        elif name == "get" and isinstance(node.func, ast.Attribute):
            yield from self._texts(node.func.value, names, depth)
        for module, function in self._source.functions.get(name, []):
            if name.startswith("_") and module != self._module:
                continue
            if "remedy" in name or (function.returns is not None and ast.unparse(function.returns).startswith("str")):
                inside, own = _Collector(self._source, module), _names(ast.walk(function))
                returned = [one.value for one in ast.walk(function) if isinstance(one, ast.Return) and one.value]
                yield from inside._all(returned, own, depth)


def _is_remedy(name: str) -> bool:
    return name.lower().endswith(("remedy", "remedies")) or name in (*_LISTS, *_PARAMETERS)


def _is_list(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in _LISTS


def _blank(filled_in: list[ast.expr]) -> str:
    """What stands for something that is filled in; what is quoted for a shell is told apart."""
    calls = {_name_of(one.func) for one in filled_in if isinstance(one, ast.Call)}
    return "{quoted}" if calls and calls <= {"quoted", "quote"} else "{}"


def _documentation(tree: ast.Module) -> set[int]:
    """Strings that are docstrings or documentation, and parts of other strings."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found.add(id(node.value))
        elif isinstance(node, ast.keyword) and node.arg in _DOCUMENTATION:
            found |= {id(one) for one in ast.walk(node.value)}
        elif isinstance(node, ast.JoinedStr):
            found |= {id(one) for one in node.values}
    return found


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """Nodes of a scope without those of the functions in it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef):
            yield child
            yield from _own(child)
