"""Named values: finds in texts what a name before it, or its own form, shows to be a secret, and masks it.

A text may be anything: a log line, the `repr` of an object, a form, XML, or JSON that was quoted, escaped or cut. A
value ends where its quote or its bracket does. If that is not there, the text was cut, and nothing after it is shown.
"""

import re
from collections.abc import Iterator
from functools import partial

from rapids.redaction.hidden_names import Phrases, is_hidden, is_of_counts
from rapids.redaction.hidden_values import MASK

__all__ = ["without_named_values"]

MAX_WORD = 200

MAX_QUOTED = 4_096
"""Characters in which the end of a quoted value is looked for. Of a longer one, nothing after it is shown either."""

MAX_CALL = 200
"""Characters in which the end of `Name(...)` is looked for."""

MAX_IN_CALL = 10
"""Quotes and brackets in which the end of `Name(...)` is looked for. If there are more, all of them are hidden."""

PIECE = 64 * 1024
OVERLAP = 4_096
"""Characters of a text that are searched at a time, and how many beyond them: no other thread runs during a search, so
that one of two million characters would stop the event loop for half a second. A name that is longer than the overlap,
and at the end of a piece, is not found."""

MIN_INNER = 8
"""Characters of a quoted text inside a hidden value that is itself a hidden value."""

_QUOTE = r"(?:\\*+[\"'`]|&(?:quot|apos|#34|#39|#x27);|%(?:25)*2[27])"
_EQUALS = r"(?::?=(?:>|(?!=)|=+\s*(?=[\"'`]))|%(?:25)*3[Dd])"
"""Also a comparison, but only with a quoted text."""
_COLON = r"(?::|%(?:25)*3[Aa])"
_SPACE = r"(?:\s|%(?:25)*20)*+"
_PREFIX = r"(?:[bBuUrR]{1,2}(?=\\*[\"']))?"
"""Of a quoted text in Python."""

_named = re.compile(
    r"(?:(?<![\w.%\\-])|(?<=\\[nrt])|(?<=\\)(?![nrt])|(?<=%[0-9A-Fa-f]{2})|(?<=%)(?![0-9A-Fa-f]{2}))"
    r"(?P<name>[\w.-]++)(?:\]|%(?:25)*5[Dd])*"
    rf"(?:{_QUOTE}?{_SPACE}{_EQUALS}{_SPACE}|{_QUOTE}{_SPACE}{_COLON}{_SPACE}|\s*:\s*(?={_PREFIX}{_QUOTE})"
    rf"|(?P<pair>{_QUOTE}\s*,\s*(?={_PREFIX}{_QUOTE}))|(?P<bare>\s*:\s*)|(?P<flag>\s+))"
)
_prefix = re.compile(_PREFIX)
_quote = re.compile(_QUOTE)
_escaping = re.compile(r"(?:\\|%(?:25)?5[Cc])\Z")
"""Before a quote that is inside a text. With two of them, it may be the end, or a quote that was escaped twice."""
_opening = re.compile(r"[(\[]\s*[bBuU]?\\*[\"'`]\Z")
_closing = re.compile(r"\s*[)\]]")
_word = re.compile(r"[^\s\"',;&\\}\]<(]+")
_digit = re.compile(r"\d")
_nesting = re.compile(rf"(?P<quote>(?:(?<!\\)|(?!\\)){_QUOTE})|(?P<open>[(\[{{])|(?P<close>[)\]}}])")
"""Of many backslashes, only the first may be the beginning of a quote: from each, all others would be looked at."""
_inner = re.compile(rf"[\"']([^\"']{{{MIN_INNER},}})[\"']")
_element = re.compile(r"<(?P<name>[\w:.-]+)(?:\s[^<>]*)?(?<!/)>")

_token = re.compile(
    r"(?<![\w-])(?P<value>eyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)?|(?:gh[opsur]_|github_pat_|glpat-|xox[abeprs]-|[rs]k_live_)[\w-]{10,})"
)
"""A JSON Web Token, and tokens of services that begin with a name of their own."""
MIN_TOKEN = 10
"""Characters of the shortest of them."""
_token_signs = ("eyJ", "gho_", "ghp_", "ghs_", "ghu_", "ghr_", "github_pat_", "glpat-", "xox", "k_live_")
"""One of them is in every such token."""
_address = (
    re.compile(r"(?<=://)(?P<value>[^\s/?#\"'<>]*)(?=@)"),  # user and password in an address
    re.compile(r"(?<=://)[^\s/?#@:\"'<>]*+:(?P<value>(?!\d+[/?#])[^\s@\"'<>]{0,200}+)(?=@)"),  # with a slash in it
)
_always = (
    ("://", *_address),
    ("bearer", _scheme := re.compile(r"(?i)\b(?:bearer|basic)\s+(?P<value>[\w.~+/=-]{6,})")),
    ("basic", _scheme),
    (
        "authorization",
        re.compile(r"(?i)\bauthorization\\*[\"']?\s*[:=]\s*\\*[\"']?[a-z][\w-]*\s+(?P<value>(?=\S*\d)[^\s\"',;\\]+)"),
    ),
    ("cookie", re.compile(r"(?i)\bcookie2?\\*[\"']?\s*[:=]\s*\\*[\"']?(?P<value>[^\s=;:\"'\\]{1,200}+=[^\"'\r\n\\]*)")),
    ("private key-", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?P<value>.*?)(?=-----END|\Z)", re.DOTALL)),
)
"""What is always hidden, after a sign in lower case that every text has in which it is."""
_sign = re.compile(r"[:= ,>%]")
"""One of them is in all other texts that have something to hide."""
_no_secrets = frozenset({"none", "null", "true", "false", "nil", "undefined"})


def without_named_values(text: str, names: Phrases, values: set[str]) -> str:
    """The text with the mask in place of what a name or its form shows to be a secret. That is added to `values`."""
    if len(text) >= MIN_TOKEN and any(sign in text for sign in _token_signs):
        text = _token.sub(partial(_masked, values), text)
    if not _sign.search(text):
        return text
    small = text.lower() if text.isascii() else None  # in other texts, a sign may be written with other letters
    for sign, *patterns in _always:
        for pattern in patterns if small is None or sign in small else ():
            text = pattern.sub(partial(_masked, values), text)
    if "</" in text or text[:MAX_WORD].lstrip()[:1] == "<":
        text = _without(text, elements_in(text, names), values)
    return _without(text, pairs_in(text, names), values)


def _masked(values: set[str], match: re.Match[str]) -> str:
    value = match["value"]
    values.update(filter(None, (value, value.partition(":")[2])))
    start = match.start("value") - match.start()
    return f"{match[0][:start]}{MASK}{match[0][start + len(value) :]}" if value else match[0]


def _without(text: str, spans: Iterator[tuple[int, int]], values: set[str]) -> str:
    shown: list[str] = []
    done = 0
    for start, end in spans:
        value = text[start:end]
        if start < done or not value or value.startswith(MASK[:-1]) or value.casefold() in _no_secrets:
            continue
        values.add(value)
        values.update(match[1] for match in _inner.finditer(value))
        shown += [text[done:start], MASK]
        done = end
    return "".join((*shown, text[done:]))


def matches_in(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """What `finditer` finds, in pieces of the text."""
    at, size = 0, len(text)
    if size <= PIECE:
        yield from pattern.finditer(text)
        return
    while at < size:
        end = at + PIECE
        match = pattern.search(text, at, end + OVERLAP)
        if match is None or match.start() >= end:
            at = end
            continue
        if match.end() == end + OVERLAP:  # it may go on
            match = pattern.match(text, match.start()) or match
        yield match
        at = match.end()


def elements_in(text: str, names: Phrases) -> Iterator[tuple[int, int]]:
    """The contents of elements of XML with hidden names."""
    done = 0
    for match in matches_in(_element, text):
        if match.start() >= done and is_hidden(match["name"], names):
            end = text.find(f"</{match['name']}", match.end())
            done = end if end >= 0 else len(text)
            yield match.end(), done


def pairs_in(text: str, names: Phrases) -> Iterator[tuple[int, int]]:
    """The values after hidden names."""
    done = 0
    for match in matches_in(_named, text):
        if match["flag"] is not None and not match["name"].startswith("--"):
            continue
        if match.start() < done or not is_hidden(match["name"], names):
            continue
        if match["bare"] is not None:
            word = _word.match(text, match.end(), match.end() + MAX_WORD)
            if word is None or not _digit.search(word[0]):
                continue  # a word after a colon, as in "password: too short"
        start, end, done = value_at(text, match.end())
        if is_of_counts(match["name"]) and text[start:end].isdigit():
            continue
        if match["pair"] is not None and not match["name"].startswith("-"):  # of a list with nothing else in it
            before = match.start("name")
            if not (
                _opening.search(text, max(before - 10, 0), before) and (_closing.match(text, done) or done == len(text))
            ):
                done = 0
                continue
        yield start, end


def value_at(text: str, at: int) -> tuple[int, int, int]:
    """Where a value begins and ends, and where the text after it does."""
    at = prefix.end() if (prefix := _prefix.match(text, at)) else at
    if quote := _quote.match(text, at):
        end, after = _end_of_quoted(text, quote.end(), quote[0])
        if text[at - 1 : at] == "=" and quote[0][0] == "%" and (rest := _word.match(text, after)):
            return at, rest.end(), rest.end()  # in a form, such quotes are part of the value
        return quote.end(), end, after
    if text[at : at + 1] in ("[", "{", "("):
        end = _end_of_nested(text, at, len(text), len(text))
        end = len(text) if end is None else end
        return at, end, end
    word = _word.match(text, at)
    end = word.end() if word else at
    if text[end : end + 1] == "(":
        inside = _end_of_nested(text, end, min(end + MAX_CALL, len(text)), MAX_IN_CALL)
        rest = _word.match(text, end + 1)
        end = inside if inside is not None else rest.end() if rest else end + 1
    return at, end, end


def _end_of_quoted(text: str, at: int, quote: str) -> tuple[int, int]:
    """Where a quoted text ends, and where its closing quote does."""
    place = text.find(quote, at, at + MAX_QUOTED)
    while place >= 0:
        if not _escaping.search(text, max(place - 5, at), place):
            return place, place + len(quote)
        place = text.find(quote, place + 1, at + MAX_QUOTED)
    return len(text), len(text)  # it was cut, or it is too far away: what is not known to be shown is hidden


def _end_of_nested(text: str, at: int, limit: int, most: int) -> int | None:
    """Where a bracket is closed; None if it is not. After `most` quotes and brackets, it counts as closed at the
    `limit`, so that a text of such beginnings takes no longer than others."""
    depth = 0
    while match := _nesting.search(text, at, limit):
        if (most := most - 1) < 0:
            return limit
        at = match.end()
        if match["quote"]:
            _, at = _end_of_quoted(text, at, match["quote"])
            continue
        depth += 1 if match["open"] else -1
        if depth == 0:
            return at
    return None
