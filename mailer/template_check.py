"""Which variables a template needs, read from its syntax tree, so that a missing one is told to the caller.

The tree is followed through ``extends``, ``include`` and imports with context. A variable counts as needed
wherever its absence would stop the rendering. It does not under ``{% if x is defined %}`` or
``x | default(…)``, and what stands in a branch is needed only where the values given lead into it, as far
as a look at ``is defined``, plain truth, ``not``, ``and`` and ``or`` can tell. Under any other condition
it is asked for: a refused call is found in development, a failed mail by the person waiting for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from jinja2 import Environment, TemplateNotFound, Undefined, nodes

from mailer.secret import Secret

EACH: Final = "*"
"""In a path: every element of a list."""

Path = tuple[str, ...]
Fresh = Callable[[], bool]
_SCALARS = (str, int, float, bool, type(None), Secret)
_DEFAULTS = ("default", "d")


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition on a value: it is defined, or with ``truthy`` counts as true; ``negated``: it is not."""

    path: Path
    truthy: bool
    negated: bool


@dataclass(frozen=True, slots=True)
class Need:
    """A path such as ``("user", "name")`` that must lead to a value if all of ``when`` hold."""

    path: Path
    when: tuple[Guard, ...] = ()


def needs_of(environment: Environment, name: str, files: list[Fresh] | None = None) -> frozenset[Need]:
    """What the template asks of its context; what the environment's globals hold is left out.

    To ``files`` is added, for every file read, the function that tells whether it is still the same.
    Raises jinja2's TemplateError: the syntax is wrong, or a file that it extends or includes is missing.
    """
    reader = _Reader(environment, [] if files is None else files)
    reader.read(name, _Scope({"lang": None}))
    return frozenset(need for need in reader.needs if not is_global(environment, need.path[0]))


Tree = dict[str, "Tree"]
"""Paths, by their beginnings: what a value must have, and what each of these must have."""


def tree_of(needs: Iterable[Need]) -> Tree:
    """All paths of these needs, those that are needed only under a condition too."""
    root: Tree = {}
    for need in needs:
        branch = root
        for step in need.path:
            branch = branch.setdefault(step, {})
    return root


def has_all(tree: Tree, value: Any) -> bool:
    """Whether every path leads somewhere, as far as dictionaries and lists tell.

    Quicker than `missing`, which is exact, and which need not be asked where this is true.
    """
    if type(value) is dict:
        for key, inside in tree.items():
            if key not in value or (inside and not has_all(inside, value[key])):
                return False
        return True
    if type(value) is list and tree.keys() == {EACH}:
        inside = tree[EACH]
        return not inside or all(has_all(inside, item) for item in value)
    return False


def is_global(environment: Environment, name: str) -> bool:
    """Whether templates find the name without a context."""
    return name in environment.globals and not isinstance(environment.globals[name], Undefined)


def missing(needs: Iterable[Need], context: Mapping[str, Any], provided: Collection[str] = ()) -> list[str]:
    """The names that are not there, sorted, as they are written: ``user.name``, ``items[].amount``.

    ``provided`` names come later: they count as there, and as true.
    """
    gaps = set()
    for need in needs:
        if need.path[0] in provided:
            continue
        gap = _gap(need.path, context)
        if gap is not None and all(_holds(guard, context, provided) for guard in need.when):
            gaps.add(".".join(gap).replace(f".{EACH}", "[]"))
    return sorted(gaps)


def _gap(path: Path, value: Any, depth: int = 0) -> Path | None:
    """The shortest beginning of the path that leads nowhere, or None. Unknown objects are trusted."""
    for position in range(depth, len(path)):
        key = path[position]
        if type(value) is dict or isinstance(value, Mapping):  # asking the abstract class takes long
            if key in value:
                value = value[key]
            elif position and hasattr(value, key):
                return None
            else:
                return None if key == EACH else path[: position + 1]
        elif isinstance(value, list | tuple):
            if key != EACH:
                return None
            gaps = (_gap(path, item, position + 1) for item in value)
            return next((gap for gap in gaps if gap is not None), None)
        elif isinstance(value, _SCALARS):
            there = key == EACH or hasattr("" if isinstance(value, Secret) else value, key)
            return None if there else path[: position + 1]
        else:
            return None
    return None


def _holds(guard: Guard, context: Mapping[str, Any], provided: Collection[str]) -> bool:
    if guard.path[0] in provided:
        return not guard.negated
    there = _gap(guard.path, context) is None
    if there and guard.truthy:
        value: Any = context
        for key in guard.path:
            if not isinstance(value, Mapping):
                break
            value = value.get(key, True)
        there = bool(value)
    return there is not guard.negated


@dataclass(frozen=True, slots=True)
class _Scope:
    """What holds at a place: local names with the path they stand for, conditions, overriding blocks."""

    names: Mapping[str, Path | None] = field(default_factory=dict)
    guards: tuple[Guard, ...] = ()
    blocks: Mapping[str, list[nodes.Block]] = field(default_factory=dict)

    def with_names(self, names: Iterable[str]) -> _Scope:
        return replace(self, names={**self.names, **dict.fromkeys(names)})

    def under(self, guards: tuple[Guard, ...]) -> _Scope:
        return replace(self, guards=self.guards + guards)


class _Reader:
    """Walks a template and all that it draws in; collects ``needs``."""

    def __init__(self, environment: Environment, files: list[Fresh]) -> None:
        self.needs: set[Need] = set()
        self._files = files
        self._environment = environment
        self._open: list[str] = []
        self._visitors: dict[type[nodes.Node], Callable[[Any, _Scope], None]] = {
            nodes.Name: self._path,
            nodes.Getattr: self._path,
            nodes.Getitem: self._path,
            nodes.Filter: self._filter,
            nodes.Test: self._test,
            nodes.And: self._and,
            nodes.Or: self._or,
            nodes.If: self._if,
            nodes.CondExpr: self._condition,
            nodes.For: self._for,
            nodes.Macro: self._macro,
            nodes.CallBlock: self._macro,
            nodes.With: self._with,
            nodes.Block: self._block,
            nodes.Include: self._include,
            nodes.Import: self._import,
            nodes.FromImport: self._import,
        }

    def read(self, name: str, scope: _Scope) -> None:
        """Read a template with those it extends; what a more derived block replaces is not read."""
        if name in self._open:  # an include of itself: the rendering decides when that ends
            return
        self._open.append(name)
        chain = list(self._chain(name))
        blocks: dict[str, list[nodes.Block]] = {}
        for tree in chain:
            for block in tree.find_all(nodes.Block):
                blocks.setdefault(block.name, []).append(block)
        scope = replace(scope, blocks=blocks).with_names(n for tree in chain for n in _assigned(tree))
        for tree in chain[:-1]:  # of a template that extends another only what is not output runs
            self._all((n for n in tree.body if not isinstance(n, nodes.Output | nodes.Block)), scope)
        self._all(chain[-1].body, scope)
        self._open.pop()

    def _chain(self, name: str) -> Iterator[nodes.Template]:
        seen = set()
        parent: str | None = name
        while parent is not None and parent not in seen:
            seen.add(parent)
            tree = self._parse(parent)
            yield tree
            extends = tree.find(nodes.Extends)
            parent = _constant(extends.template) if extends else None

    def _parse(self, name: str) -> nodes.Template:
        loader = self._environment.loader
        if loader is None:
            raise TemplateNotFound(name)
        source, filename, fresh = loader.get_source(self._environment, name)
        if fresh is not None:
            self._files.append(fresh)
        tree = self._environment.parse(source, name, filename)
        self._environment.compile(tree, name, filename, raw=True)  # finds filters that do not exist
        return self._environment.parse(source, name, filename)  # compiling may have changed the tree

    def _all(self, them: Iterable[nodes.Node], scope: _Scope) -> None:
        for node in them:
            self._visit(node, scope)

    def _visit(self, node: nodes.Node, scope: _Scope) -> None:
        visitor = self._visitors.get(type(node))
        if visitor is None:
            self._all(node.iter_child_nodes(), scope)
        else:
            visitor(node, scope)

    def _path(self, node: nodes.Expr, scope: _Scope) -> None:
        path = _path_of(node, scope)
        if path is not None:
            self._need(path, scope)
        elif not isinstance(node, nodes.Name):
            self._all(node.iter_child_nodes(), scope)

    def _need(self, path: Path, scope: _Scope) -> None:
        # A condition on one element of a list says nothing about the others: leave it to the rendering.
        if path and not any(EACH in guard.path or _proves(guard, path) for guard in scope.guards):
            self.needs.add(Need(path, scope.guards))

    def _filter(self, node: nodes.Filter, scope: _Scope) -> None:
        path = _path_of(node.node, scope) if node.name in _DEFAULTS and node.node else None
        if path is None:
            self._all(node.iter_child_nodes(), scope)
            return
        self._need(path[:-1], scope)
        boolean = len(node.args) > 1 or bool(node.kwargs)
        self._all([*node.args, *node.kwargs], scope.under((Guard(path, boolean, True),)))

    def _test(self, node: nodes.Test, scope: _Scope) -> None:
        path = _path_of(node.node, scope) if node.name in ("defined", "undefined") else None
        if path is None:
            self._all(node.iter_child_nodes(), scope)
        else:
            self._need(path[:-1], scope)

    def _and(self, node: nodes.And, scope: _Scope) -> None:
        self._visit(node.left, scope)
        self._visit(node.right, scope.under(_guards(node.left, True, scope)))

    def _or(self, node: nodes.Or, scope: _Scope) -> None:
        self._visit(node.left, scope)
        self._visit(node.right, scope.under(_guards(node.left, False, scope)))

    def _if(self, node: nodes.If, scope: _Scope) -> None:
        for branch in (node, *node.elif_):
            self._visit(branch.test, scope)
            self._all(branch.body, scope.under(_guards(branch.test, True, scope)))
            scope = scope.under(_guards(branch.test, False, scope))
        self._all(node.else_, scope)

    def _condition(self, node: nodes.CondExpr, scope: _Scope) -> None:
        self._visit(node.test, scope)
        self._visit(node.expr1, scope.under(_guards(node.test, True, scope)))
        if node.expr2 is not None:
            self._visit(node.expr2, scope.under(_guards(node.test, False, scope)))

    def _for(self, node: nodes.For, scope: _Scope) -> None:
        self._visit(node.iter, scope)
        source = _path_of(node.iter, scope)
        inner = scope.with_names([*_targets(node.target), "loop"])
        if source is not None and isinstance(node.target, nodes.Name):
            inner = replace(inner, names={**inner.names, node.target.name: (*source, EACH)})
        if node.test is not None:
            self._visit(node.test, inner)
            inner = inner.under(_guards(node.test, True, inner))
        self._all(node.body, inner)
        self._all(node.else_, scope)

    def _macro(self, node: nodes.Macro | nodes.CallBlock, scope: _Scope) -> None:
        if isinstance(node, nodes.CallBlock):
            self._visit(node.call, scope)
        self._all(node.defaults, scope)
        names = [argument.name for argument in node.args]
        self._all(node.body, scope.with_names([*names, "caller", "varargs", "kwargs"]))

    def _with(self, node: nodes.With, scope: _Scope) -> None:
        self._all(node.values, scope)
        self._all(node.body, scope.with_names(name for t in node.targets for name in _targets(t)))

    def _block(self, node: nodes.Block, scope: _Scope) -> None:
        for block in scope.blocks.get(node.name, [node]):  # the most derived first
            self._all(block.body, scope)
            calls = block.find_all(nodes.Call)
            if not any(isinstance(call.node, nodes.Name) and call.node.name == "super" for call in calls):
                return

    def _include(self, node: nodes.Include, scope: _Scope) -> None:
        self._visit(node.template, scope)
        name = _constant(node.template)
        if name is None or not node.with_context:
            return
        try:
            self.read(name, scope)
        except TemplateNotFound:
            if not node.ignore_missing:
                raise

    def _import(self, node: nodes.Import | nodes.FromImport, scope: _Scope) -> None:
        self._visit(node.template, scope)
        name = _constant(node.template)
        if name is not None and node.with_context:
            self.read(name, scope)


def _guards(test: nodes.Node, holds: bool, scope: _Scope) -> tuple[Guard, ...]:
    """What can be said about values where the test came out as ``holds``."""
    if isinstance(test, nodes.Not):
        return _guards(test.node, not holds, scope)
    if isinstance(test, nodes.And | nodes.Or):
        tells = holds is isinstance(test, nodes.And)
        return _guards(test.left, holds, scope) + _guards(test.right, holds, scope) if tells else ()
    if isinstance(test, nodes.Test) and test.name in ("defined", "undefined"):
        path = _path_of(test.node, scope)
        return () if path is None else (Guard(path, False, (test.name == "defined") is not holds),)
    if isinstance(test, nodes.Filter) and test.name in _DEFAULTS and test.node is not None:
        falsy = all(isinstance(a, nodes.Const) and not a.value for a in test.args[:1]) and not test.kwargs
        path = _path_of(test.node, scope) if falsy else None
    else:
        path = _path_of(test, scope)
    return () if path is None else (Guard(path, True, not holds),)


def _proves(guard: Guard, path: Path) -> bool:
    """Whether the path must be there where the guard holds."""
    return not guard.negated and guard.path[: len(path)] == path


def _path_of(node: nodes.Node, scope: _Scope) -> Path | None:
    """The path an expression like ``user.name`` or ``user["name"]`` walks in the context, or None."""
    if isinstance(node, nodes.Name):
        special = node.ctx != "load" or node.name in ("self", "super")
        return None if special else scope.names.get(node.name, (node.name,))
    if isinstance(node, nodes.Getattr):
        key: Any = node.attr
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        key = node.arg.value
    else:
        return None
    outer = _path_of(node.node, scope)
    return (*outer, key) if outer is not None and isinstance(key, str) else None


def _assigned(tree: nodes.Template) -> Iterator[str]:
    """Names that ``set`` and imports give a value somewhere in the template."""
    for node in tree.find_all((nodes.Assign, nodes.AssignBlock, nodes.Import, nodes.FromImport, nodes.Macro)):
        if isinstance(node, nodes.Assign | nodes.AssignBlock):
            yield from _targets(node.target)
        elif isinstance(node, nodes.Import):
            yield node.target
        elif isinstance(node, nodes.Macro):
            yield node.name
        elif isinstance(node, nodes.FromImport):
            yield from (name[1] if isinstance(name, tuple) else name for name in node.names)


def _targets(target: nodes.Node) -> Iterator[str]:
    if isinstance(target, nodes.Name):
        yield target.name
    yield from (name.name for name in target.find_all(nodes.Name))


def _constant(node: nodes.Expr) -> str | None:
    return node.value if isinstance(node, nodes.Const) and isinstance(node.value, str) else None
