"""Pages from a known shape are, to the octet, what the inliner makes of the whole page."""

from __future__ import annotations

import jinja2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from mailer import inlining
from mailer.inlining import Inliner, RefusedAddress, UnreadableStyle, inlined
from mailer.template_env import pieces_of

STYLE = (
    "<style>p{color:red} a:hover{color:blue} td p{margin:0} .x{top:0} @media print{p{color:black}}</style>"
)

PAGES = [
    "<p>{{ a }}</p>",
    "<p>{{ a }}{{ b }}</p>",
    "<p>x{{ a }}y</p><p>{{ b }}",
    '<a href="https://x.test/{{ a }}?q={{ b }}" title="{{ a }}">{{ b }}</a>',
    "<a href='https://x.test/{{ a }}'>{{ b }}</a>",
    '<!doctype html><html lang="{{ a }}"><head><title>{{ b }}</title></head><body>{{ a }}</body></html>',
    f"<html><head>{STYLE}</head><body><p>{{{{ a }}}}</p><p>{{{{ b }}}}</p></body></html>",
    f'{STYLE}<p><a href="https://x.test/{{{{ a }}}}">{{{{ b }}}}</a></p>',
    '<style>[title="b"]{color:red}</style><p title="{{ a }}">{{ b }}</p>',
    '<style>.b{color:red}</style><p class="{{ a }}">{{ b }}</p>',
    '<style>p{color:red}</style><p style="top:{{ a }}">{{ b }}</p>',
    '<p style="color:{{ a }}" class="{{ b }}">x</p>',
    "<table><tr><td>{{ a }}</td></tr>{{ b }}</table>",
    "<table>{{ a }}<tr>{{ b }}<td></table>",
    "<head>{{ a }}<title>t</title></head>{{ b }}",
    "{{ a }}<html>{{ b }}",
    "<html>{{ a }}<head></head>{{ b }}<body></body>{{ a }}</html>{{ b }}",
    "<textarea>{{ a }}</textarea><pre>{{ b }}</pre>",
    "<pre>\n{{ a }}</pre><listing>{{ b }}</listing>",
    "<script>{{ a }}</script><style>{{ b }}</style>",
    "<!-- {{ a }} --><p>{{ b }}</p>",
    "<p {{ a }}>{{ b }}</p>",
    "<p title={{ a }}>{{ b }}</p>",
    "<p title={{ a }} lang=en>{{ b }}</p>",
    "<{{ a }}>{{ b }}</{{ a }}>",
    "<b title='{{ a }}'><p>x</b>y</p>{{ b }}",
    "<p>1 < {{ a }} & {{ b }}</p>",
    "<p>&{{ a }};</p><p>&am{{ b }}p;</p>",
    "<select><option value='{{ a }}'>{{ b }}</select>",
    "<svg><title>{{ a }}</title></svg><p>{{ b }}</p>",
    "<math><mi>{{ a }}</mi></math><p>{{ b }}</p>",
    "<noscript>{{ a }}</noscript><iframe>{{ b }}</iframe>",
    "<template><p>{{ a }}</p></template>{{ b }}",
    "<frameset>{{ a }}</frameset>{{ b }}",
    "<p>{{ a }}<!--</p>{{ b }}",
    '<p title="{{ a }}">{{ b }}</p><p title="{{ a }}',
    '<p a"b="{{ a }}">{{ b }}</p>',
    "<p a<b='{{ a }}'>{{ b }}</p>",
    "<ruby>{{ a }}<rt>{{ b }}</ruby>",
    "<img alt='{{ a }}' src='cid:{{ b }}'>",
    '<img srcset="https://x.test/{{ a }} 1x, https://x.test/{{ b }} 2x">',
    "{% for _ in range(3) %}<li>{{ a }}{% if loop.last %}{{ b }}{% endif %}</li>{% endfor %}",
    '<a href="{{ a }}">{{ b }}</a>',
    '<img x:srcset="https://x.test/{{ a }} 1x, {{ b }} 2x">',
    '<a href="{{ a }}{{ b }}">x</a><a href="javascript:{{ a }}">y</a>',
    '<p>href="javascript:{{ a }}"</p>',
    '<a href="#">{{ a }}</a><svg><a xlink:href="javascript:1">x</a></svg>{{ b }}',
    "{% macro m(x) %}{{ x }}&nbsp;EUR{% endmacro %}<p>{{ m(a) }}</p><i>{{ m(b) }}</i>",
    "{% macro m(x) %}<b>{{ x }}</b>{% endmacro %}<p>{{ m(a) }}</p><i>{{ m(b) }}</i>",
    "<plaintext>{{ a }}{{ b }}",
]

VALUES = st.one_of(
    st.sampled_from(
        ["", " ", "b", "0", "a b", " a", "a ", "<", "a<b>c", '"', "'", "&", "&amp;", "&lt", "\xa0", "a\xa0"]
        + ["\n", "\na", "a\r\nb", "\x00", "a\x0bb", "\ufeff", "x\u2028y", "é", "😀", "red", "color:red"]
        + ["javascript:alert(1)", "https://evil.test/", "//x", "/relative", "-->", "</p>", "]]>", "{{ a }}"]
    ),
    st.text(max_size=8),
)

ENVIRONMENT = jinja2.Environment(autoescape=True)
TEMPLATES = [ENVIRONMENT.from_string(page) for page in PAGES]
INLINER = Inliner()


def outcome(make) -> str:
    try:
        return make()
    except (RefusedAddress, UnreadableStyle) as exc:
        return type(exc).__name__


@pytest.mark.parametrize("number", range(len(PAGES)), ids=PAGES)
@settings(max_examples=40, deadline=None)
@given(first=VALUES, second=VALUES)
@example(first="b", second="b")
def test_a_filled_shape_is_the_inlined_page(number, first, second):
    """Whatever the template and the values: the page, or that an address in it was refused."""
    pieces = pieces_of(TEMPLATES[number], {"a": first, "b": second})
    whole = outcome(lambda: inlined("".join(pieces)))
    for _ in range(2):  # a shape that is new, and one that is known
        assert outcome(lambda: INLINER.finish(PAGES[number], pieces)) == whole


def shapes_of(page: str, *values: dict[str, str]) -> Inliner:
    inliner = Inliner()
    for value in values:
        inliner.finish(page, pieces_of(ENVIRONMENT.from_string(page), value))
    return inliner


def test_the_inliner_reads_a_shape_once(monkeypatch):
    """A thousand receipts of one template cost one inlining (issue 4: "inlined CSS cached")."""
    template = ENVIRONMENT.from_string(
        f'{STYLE}<p title="x"><a href="https://x.test/{{{{ a }}}}">{{{{ b }}}}</a>'
    )
    read = []
    monkeypatch.setattr(inlining, "_INLINER", _Counting(read))
    inliner = Inliner()
    pages = {inliner.finish("t", pieces_of(template, {"a": n, "b": f"Ada & {n}"})) for n in range(1_000)}
    assert len(pages) == 1_000
    assert len(read) == 1
    assert all('style="color: red' in page and "Ada &amp; " in page for page in pages)


class _Counting:
    def __init__(self, read: list[str]) -> None:
        self._inliner, self._read = inlining._INLINER, read

    def inline(self, page: str) -> str:
        self._read.append(page)
        return self._inliner.inline(page)


def test_no_value_is_kept():
    """What is remembered of a page is what its template says: links and names are people's secrets."""
    page = '<p>{{ a }}</p><a href="https://x.test/{{ b }}">{{ b }}</a>{{ c }}'
    inliner = shapes_of(
        page, {"a": "Ada", "b": "t0ken", "c": Markup("<b>s3cret</b>")}, {"a": "Eve", "b": "0ther"}
    )
    assert inliner._shapes
    kept = repr(inliner._shapes)
    assert not any(word in kept for word in ("Ada", "t0ken", "s3cret", "Eve", "0ther"))


def test_an_address_made_of_values_is_looked_at_each_time():
    page = '<a href="{{ a }}">x</a>'
    inliner = shapes_of(page, {"a": "https://x.test/"})
    with pytest.raises(RefusedAddress, match="none of http, https"):
        inliner.finish(page, pieces_of(ENVIRONMENT.from_string(page), {"a": "javascript:alert(1)"}))


def test_a_template_of_ever_new_shapes_is_given_up():
    """Then its pages cost one inlining each, and not two; and what is kept does not grow."""
    page = "{% for _ in range(a) %}<p>{{ a }}</p>{% endfor %}"
    inliner = shapes_of(page, *({"a": n} for n in range(1, 100)))
    assert len(inliner._shapes) == inlining.PATIENCE
