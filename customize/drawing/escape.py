"""Write text that strangers chose so that it stays text: in a terminal, Markdown, a command, code.

HTML is escaped by the standard library's `html.escape`, YAML and JSON by their own writers.
"""

from __future__ import annotations

import json
import re
import shlex
import unicodedata

# Controls, formats (they turn or hide text), surrogates, separators of lines, private use.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Co"})
_JOINERS = "\u200c\u200d"  # they shape letters in some scripts, and pictographs
_MARKED = re.compile(r"([\\`*_{}\[\]()#!|~<>&:@^$]|(?<=\bwww)\.)", re.IGNORECASE)
_START = re.compile(r"^(\d*)([-+=.])")  # of lists and underlined headings


def visible(text: str, *, keep: str = "") -> str:
    """Write what a terminal would obey instead of show as escapes, but the letters in `keep`.

    >>> visible("a\\x1b[2Jb\\n\\u202ec")
    'a\\\\x1b[2Jb\\\\n\\\\u202ec'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if letter in keep else _seen(letter) for letter in text)


def _seen(letter: str) -> str:
    if letter in _JOINERS or unicodedata.category(letter) not in _UNSEEN:
        return letter
    return letter.encode("unicode_escape").decode()


def markdown(text: str) -> str:
    """Write text for a paragraph, heading or table cell of Markdown: one line, no markup.

    Punctuation that means something to Markdown or HTML gets a backslash; so do the colon and the
    dot that make bare addresses links.

    >>> print(markdown("<b>[a](http://x) | #1"), markdown("- my-dog"))
    \\<b\\>\\[a\\]\\(http\\://x\\) \\| \\#1 \\- my-dog
    """
    return _START.sub(r"\1\\\2", _MARKED.sub(r"\\\1", _one_line(text)))


def code(text: str, *, cell: bool = False) -> str:
    """Write text as Markdown's inline code, between more backticks than it has in a row.

    In a table's `cell` pipes are escaped: they would end it, code or not.

    >>> print(code("a`b"), code("a | b", cell=True))
    ``a`b`` `a \\| b`
    """
    line = _one_line(text) or " "
    line = line.replace("|", r"\|") if cell else line
    longest = max((len(run) for run in re.findall(r"`+", line)), default=0)
    fence = "`" * (longest + 1)
    edge = " " if line.startswith(("`", " ")) or line.endswith(("`", " ")) else ""
    return f"{fence}{edge}{line}{edge}{fence}"


def fenced(text: str) -> str:
    """Write lines as a block of code that nothing in them can end.

    >>> fenced("a")
    '```\\na\\n```'
    """
    lines = visible(text, keep="\n")
    longest = max((len(run) for run in re.findall(r"`+", lines)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{lines}\n{fence}"


def command(*words: str) -> str:
    """Write a command that a shell takes word by word as given.

    >>> command("customize", "edit", "a b.png", "$(rm -r ~)")
    "customize edit 'a b.png' '$(rm -r ~)'"
    """
    return shlex.join(visible(word) for word in words)


def python(text: str) -> str:
    """Write a text as a literal of Python.

    >>> python('a"b')
    '"a\\\\"b"'
    """
    beyond = any(letter > "\uffff" for letter in text)  # JSON writes those as two halves
    return ascii(text) if beyond else json.dumps(text)


def plotted(text: str, most: int = 60) -> str:
    r"""Write a label for matplotlib, which would set what stands between dollars as a formula.

    >>> print(plotted("5$ or 6$"))
    5\$ or 6\$
    """
    line = _one_line(text)
    return (line if len(line) <= most else f"{line[: most - 3]}...").replace("$", r"\$")


def _one_line(text: str) -> str:
    """Join lines by spaces, and show what cannot be seen."""
    return visible(" ".join(text.split()))
