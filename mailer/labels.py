"""What a message is marked with, for those who look for it later: tags, and metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mailer.errors import InvalidMessage
from mailer.headers import check_header_text, kind_of

MAX_TAGS, MAX_TAG = 20, 64  # tags, characters each
MAX_METADATA, MAX_METADATA_KEY, MAX_METADATA_VALUE = 50, 64, 500  # entries, characters, characters


def checked_tags(tags: object) -> tuple[str, ...]:
    """Each once, in their order; a set is sorted. Raises InvalidMessage."""
    if isinstance(tags, str):
        tags = (tags,)
    if tags is None or not isinstance(tags, Iterable) or isinstance(tags, bytes | Mapping):
        raise InvalidMessage("tags", f"is {kind_of(tags)}; give a list of texts")
    ordered = sorted(tags, key=str) if isinstance(tags, set | frozenset) else tags
    checked = tuple(dict.fromkeys(check_header_text(tag, "tags", MAX_TAG) for tag in ordered))
    if len(checked) > MAX_TAGS:
        raise InvalidMessage("tags", f"has {len(checked)} entries; at most {MAX_TAGS} are allowed")
    if not all(tag.strip() for tag in checked):
        raise InvalidMessage("tags", "has an empty entry; leave it out")
    return checked


def checked_metadata(metadata: object) -> dict[str, str]:
    """A copy; None is none. Raises InvalidMessage."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise InvalidMessage("metadata", f"is {kind_of(metadata)}; give a mapping of text to text")
    if len(metadata) > MAX_METADATA:
        problem = f"has {len(metadata)} entries; at most {MAX_METADATA} are allowed"
        raise InvalidMessage("metadata", problem)
    checked = {
        check_header_text(key, "metadata", MAX_METADATA_KEY): check_header_text(
            value, "metadata", MAX_METADATA_VALUE
        )
        for key, value in metadata.items()
    }
    if "" in checked:
        raise InvalidMessage("metadata", "has an empty name; give one")
    return checked
