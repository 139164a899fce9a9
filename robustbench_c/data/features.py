"""Features by what users call them."""

from __future__ import annotations

from collections.abc import Mapping

from robustbench_c.data.dataset import Dataset
from robustbench_c.errors import UsageError, did_you_mean

PROTECTED = "protected"


def feature_places(data: Dataset, text: str, option: str) -> tuple[int, ...]:
    """Return the places, in a flattened sample, of features given as `a,b,c`.

    Each is, in this order: the name of a feature (`sex=female`); that of an attribute, for all of
    its columns (`sex`); `protected`, for the columns of every protected attribute; a place, from 0.

    Args:
        data: Whose features they are.
        text: Their names, with commas between them.
        option: How errors call the text, such as `--immutable`.

    Returns:
        Ascending, each once.

    Raises:
        UsageError: Names the part that is none of these.
    """
    by_name = {name: (place,) for place, name in enumerate(data.feature_names)}
    by_attribute = {attribute.name: attribute.columns for attribute in data.attributes}
    groups = {PROTECTED: data.protected_columns} if data.protected_columns else {}
    known = groups | by_attribute | by_name
    size = data.x[0].numel()
    places: set[int] = set()
    for part in map(str.strip, text.split(",")):
        if part in known:
            places.update(known[part])
        elif part.isascii() and part.isdigit() and len(part) < 10 and int(part) < size:
            places.add(int(part))
        else:
            hint = _hint(part, groups | by_attribute, by_name, size)
            raise UsageError(f"{option}: no feature '{part}'; {hint}")
    return tuple(sorted(places))


def _hint(part: str, groups: Mapping[str, object], by_name: Mapping[str, object], size: int) -> str:
    if not (groups or by_name):
        return f"places go from 0 to {size - 1}"
    if within := [name for name in groups if part and part in name]:
        return f"did you mean '{within[0]}'?"
    near = did_you_mean(part, [*groups, *by_name])
    if near.startswith("known:") and groups:  # the names of all columns would be too many
        return f"known: {', '.join(groups)}"
    return near
