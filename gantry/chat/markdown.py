"""Markdown of answers to HTML that is safe to show, whole or while it is still being written."""

from __future__ import annotations

from functools import lru_cache

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

_HIGHLIGHT_CHARACTERS = 20_000  # longer code is shown plain: colouring it would hold up everybody else's page
_TAGS = {
    *("p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a", "span"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
}
_ATTRIBUTES = {"a": {"href"}, "span": {"class"}, "code": {"class"}, "ol": {"start"}}


def render_markdown(text: str) -> SafeString:
    """A whole text as HTML: no raw HTML, no images, links that tell the other side nothing."""
    return _render(text)


@lru_cache(maxsize=1024)
def _render(text: str) -> SafeString:
    return _clean(_colouring.render(text))


def _clean(html: str) -> SafeString:
    cleaned = nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )
    return mark_safe(cleaned)  # noqa: S308 - this is the one place where an answer becomes HTML, and it was just cleaned


def _colour(code: str, language: str, _attributes: str) -> str:
    """Code with spans for Pygments' token classes; "" lets the renderer show it plain."""
    if not language or len(code) > _HIGHLIGHT_CHARACTERS:
        return ""
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        return ""
    return highlight(code, lexer, HtmlFormatter(nowrap=True, classprefix="hl-"))


def _parser(*, is_coloured: bool) -> MarkdownIt:
    options = {"html": False, "breaks": True, "highlight": _colour if is_coloured else None}
    # Without the image rule, ![alt](address) is a "!" and a link: nothing is fetched from outside.
    return MarkdownIt("commonmark", options).enable(["table", "strikethrough"]).disable("image")


_colouring = _parser(is_coloured=True)
_plain = _parser(is_coloured=False)


class GrowingMarkdown:
    """A text that only grows, as finished blocks and the block that is still being written.

    A paragraph, list or code block is finished when the next one has begun; only the last one is rendered again at each step, so that
    the work does not grow with the text and what has been read stays where it is.
    """

    def __init__(self) -> None:
        self.blocks: list[SafeString] = []  # HTML of the finished blocks
        self.tail = SafeString("")  # HTML of the last one
        self._text = ""
        self._done_characters = 0

    def feed(self, text: str) -> None:
        """Take the whole text as it stands now. A shorter text than before (an event out of order) changes nothing."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")  # as the parser does, so that its lines are ours
        if len(text) <= len(self._text):
            return
        self._text = text
        rest = text[self._done_characters :]
        start = _last_block_start(rest)
        if start:
            self.blocks.append(render_markdown(rest[:start]))
            self._done_characters += start
        self.tail = _clean(_plain.render(rest[start:]))


def _last_block_start(text: str) -> int:
    """Where the last top-level block begins, in characters; 0 when there is only one."""
    starts = [token.map[0] for token in _plain.parse(text) if token.level == 0 and token.map and token.nesting >= 0]
    if len(starts) < 2:
        return 0
    return sum(len(line) + 1 for line in text.split("\n")[: starts[-1]])
