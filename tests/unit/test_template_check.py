"""What a template needs is known before anything is stored (TP4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailer.secret import Secret
from mailer.template_check import EACH, Need, has_all, missing, needs_of, tree_of


def gaps(
    source: str | Mapping[str, str], context: Mapping[str, Any], provided: tuple[str, ...] = ()
) -> list[str]:
    files = {"t": source} if isinstance(source, str) else source
    environment = jinja2.Environment(loader=jinja2.DictLoader(dict(files)), undefined=jinja2.StrictUndefined)
    environment.globals["site"] = "here"
    needs = needs_of(environment, "t")
    found = missing(needs, context, provided)
    if not provided:
        assert bool(found) is _fails(environment, context)
    return found


def _fails(environment: jinja2.Environment, context: Mapping[str, Any]) -> bool:
    try:
        environment.get_template("t").render(context)
    except jinja2.UndefinedError:
        return True
    return False


@pytest.mark.parametrize(
    ("source", "context", "lacks"),
    [
        ("{{ name }}", {}, ["name"]),
        ("{{ name }} {{ link }}", {}, ["link", "name"]),
        ("{{ name }}", {"name": None}, []),
        ("{{ user.name }}", {}, ["user"]),
        ("{{ user.name }}", {"user": {}}, ["user.name"]),
        ("{{ user['name'] }}", {"user": {}}, ["user.name"]),
        ("{{ user.name.first }}", {"user": {"name": {}}}, ["user.name.first"]),
        ("{{ user.name }}", {"user": None}, ["user.name"]),
        ("{{ user.name }}", {"user": "Ada"}, ["user.name"]),
        ("{{ user.name() }}", {"user": {}}, ["user.name"]),
        ("{{ name.upper() }}", {"name": "Ada"}, []),
        ("{{ d.items() }}", {"d": {}}, []),
        ("{{ d[0] }}", {"d": [1]}, []),
        ("{{ name|upper }}", {}, ["name"]),
        ("{{ name|trim|default('x') }}", {}, ["name"]),
        ("{{ name|default('x') }}", {}, []),
        ("{{ name|d(nick) }}", {}, ["nick"]),
        ("{{ name|d(nick) }}", {"name": "Ada", "nick": ""}, []),
        ("{{ user.name|default('x') }}", {}, ["user"]),
        ("{{ user.name|default('x') }}", {"user": {}}, []),
        ("{% if name is defined %}{{ name }}{% endif %}", {}, []),
        ("{% if name is defined and name %}{{ name }}{% endif %}", {}, []),
        ("{% if name is not defined %}-{% else %}{{ name }}{% endif %}", {}, []),
        ("{% if name is undefined %}-{% else %}{{ name }}{% endif %}", {}, []),
        ("{% if not (name is defined) %}{{ nick }}{% endif %}", {}, ["nick"]),
        ("{% if a is defined %}{{ b }}{% endif %}", {}, []),
        ("{% if a is defined %}{{ b }}{% endif %}", {"a": 1}, ["b"]),
        ("{% if a is undefined or a.b %}x{% endif %}", {}, []),
        ("{% if user %}{{ user.name }}{% endif %}", {"user": None}, []),
        ("{% if user %}{{ user.name }}{% endif %}", {"user": {"id": 1}}, ["user.name"]),
        ("{% if user %}{{ user.name }}{% endif %}", {}, ["user"]),
        ("{% if paid %}{{ a }}{% else %}{{ b }}{% endif %}", {"paid": True, "a": 1}, []),
        ("{% if paid %}{{ a }}{% else %}{{ b }}{% endif %}", {"paid": False, "a": 1}, ["b"]),
        ("{% if x|d('') %}{{ x }}{{ y }}{% endif %}", {}, []),
        ("{% if x is defined %}-{% elif y is defined %}{{ y }}{% else %}{{ z }}{% endif %}", {}, ["z"]),
        ("{{ name if name is defined else nick }}", {}, ["nick"]),
        ("{{ name if name is defined }}", {}, []),
        ("{% for i in items %}{{ i }}{{ loop.index }}{% endfor %}", {}, ["items"]),
        ("{% for i in items %}{{ i.name }}{% endfor %}", {"items": [{"name": 1}]}, []),
        ("{% for i in items %}{{ i.name }}{% endfor %}", {"items": [{"name": 1}, {}]}, ["items[].name"]),
        ("{% for i in o.rows %}{{ i.name }}{% endfor %}", {"o": {"rows": [{}]}}, ["o.rows[].name"]),
        ("{% for i in items %}{% if i.x is defined %}{{ i.x }}{% endif %}{% endfor %}", {"items": [{}]}, []),
        ("{% for i in items %}{% if i.ok %}{{ i.y }}{% endif %}{% endfor %}", {"items": [{"ok": False}]}, []),
        (
            "{% for i in items %}{% if i.x is undefined %}{{ i.y }}{% endif %}{% endfor %}",
            {"items": [{"x": 1}, {"y": 1}]},
            [],
        ),
        ("{% for k, v in d.items() %}{{ k }}{{ v }}{% endfor %}", {"d": {"a": 1}}, []),
        ("{% for i in items if i.ok %}{{ i.ok }}{% else %}{{ no }}{% endfor %}", {"items": []}, ["no"]),
        ("{% set a = 1 %}{{ a }}", {}, []),
        ("{% set a %}x{% endset %}{{ a }}", {}, []),
        ("{% set ns = namespace(x=1) %}{% set ns.x = 2 %}{{ ns.x }}", {}, []),
        ("{% macro m(a, b=c) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}", {}, ["c"]),
        ("{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{{ x }}{% endcall %}", {}, ["x"]),
        ("{% with a = b %}{{ a }}{% endwith %}", {}, ["b"]),
        ("{{ site }} {{ range(2)|list }}", {}, []),
        ("{% filter upper %}{{ x }}{% endfilter %}", {}, ["x"]),
        ("{% block a %}{{ x }}{% endblock %}{{ self.a() }}", {}, ["x"]),
    ],
)
def test_needs_are_what_the_rendering_needs(source: str, context: dict[str, Any], lacks: list[str]) -> None:
    """TP4: a name is asked for exactly where Jinja would stumble over its absence, and is told in full."""
    assert gaps(source, context) == lacks


@pytest.mark.parametrize(
    ("files", "lacks"),
    [
        ({"t": "{% extends 'b' %}", "b": "{{ x }}"}, ["x"]),
        ({"t": "{% extends 'b' %}{{ gone }}{% block c %}{{ y }}{% endblock %}",
          "b": "{% block c %}{{ replaced }}{% endblock %}{{ x }}"}, ["x", "y"]),
        ({"t": "{% extends 'b' %}{% block c %}{{ super() }}{% endblock %}",
          "b": "{% block c %}{{ kept }}{% endblock %}"}, ["kept"]),
        ({"t": "{% extends 'm' %}{% block c %}1{% endblock %}", "m": "{% extends 'b' %}",
          "b": "{% block c %}{{ x }}{% endblock %}"}, []),
        ({"t": "{% extends 'b' %}{% set head = 'h' %}", "b": "{{ head }}"}, []),
        ({"t": "{% include 'i' %}", "i": "{{ x }}"}, ["x"]),
        ({"t": "{% for i in [1] %}{% include 'i' %}{% endfor %}", "i": "{{ i }}"}, []),
        ({"t": "{% if x is defined %}{% include 'i' %}{% endif %}", "i": "{{ x }}"}, []),
        ({"t": "{% include 'none' ignore missing %}"}, []),
        ({"t": "{% from 'm' import f %}{{ f(x) }}", "m": "{% macro f(a) %}{{ a }}{% endmacro %}"}, ["x"]),
        ({"t": "{% import 'm' as m with context %}{{ m.f() }}",
          "m": "{% macro f() %}{{ x }}{% endmacro %}"}, ["x"]),
    ],
)  # fmt: skip
def test_the_whole_chain_of_files_counts(files: dict[str, str], lacks: list[str]) -> None:
    """TP4: what layouts, includes and macros use is asked for; what an overridden block used is not."""
    assert gaps(files, {}) == lacks


def test_provided_names_come_later() -> None:
    """TP4: what a context provider adds is not asked of the caller, and branches on it are taken as true."""
    source = "{{ link }}{% if link %}{{ a }}{% else %}{{ b }}{% endif %}{{ link.host }}"
    assert gaps(source, {}, ("link",)) == ["a"]


def test_an_include_of_itself_ends() -> None:
    """A template that includes itself is read once."""
    assert gaps({"t": "{% if deep is defined %}{% include 't' %}{% endif %}"}, {}) == []


def test_a_secret_counts_as_the_text_it_is() -> None:
    """A `Secret` has what a text has: ``code.upper()`` is fine, ``code.value`` is not."""
    environment = jinja2.Environment(loader=jinja2.DictLoader({"t": "{{ c.upper() }}{{ c.value }}"}))
    assert missing(needs_of(environment, "t"), {"c": Secret("x")}) == ["c.value"]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_quick_look_never_finds_what_the_exact_one_misses(data):
    """MF20: where `has_all` is content, nothing is missing; whatever the values are."""
    steps = st.sampled_from(["a", "b", "items", EACH])
    needs = data.draw(
        st.sets(st.builds(Need, st.lists(steps, min_size=1, max_size=3).map(tuple)), max_size=4)
    )
    value = st.recursive(
        st.none() | st.text(max_size=2) | st.integers() | st.just(Secret("s")),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(steps, inner, max_size=4),
        max_leaves=12,
    )
    context = data.draw(st.dictionaries(steps, value, max_size=4))
    if has_all(tree_of(needs), context):
        assert missing(needs, context) == []


def test_the_quick_look_is_content_with_what_is_complete():
    needs = {Need(("user", "name")), Need(("items", EACH, "price")), Need(("items",))}
    tree = tree_of(needs)
    assert has_all(tree, {"user": {"name": "Ada"}, "items": [{"price": 1}, {"price": 2}]})
    assert not has_all(tree, {"user": {"name": "Ada"}, "items": [{"price": 1}, {}]})
    assert not has_all(tree, {"user": {}, "items": []})
