"""Boards: runs of one protocol on the same samples, with the ranges of their ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from leaderboards.canonical import sha256_json
from leaderboards.entries import Entry
from leaderboards.errors import one_line
from leaderboards.manifest import DataInfo, Protocol
from leaderboards.ranks import rank_ranges
from leaderboards.rates import Rate

RATES = ("clean", "robust", "certified")
"""What models are ranked by, each on its own; of explanations `robust` is "not bent"."""
_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1", "l0": "L0"}
_NAMED_STEPS = 4
_LONGEST_NAME = 80

Key = tuple[str, str, str, str]
Range = tuple[int, int]


@dataclass(frozen=True)
class Row:
    """A run on its board.

    Attributes:
        entry: The run.
        rates: By rate, what it reaches; rates that are not known are not there.
        ranks: By rate, best and worst rank it may have, from 1; none where it is not ranked.
        not_ranked: Why it has no rank by any rate; None where nothing is against one.
    """

    entry: Entry
    rates: dict[str, Rate]
    ranks: dict[str, Range]
    not_ranked: str | None = None


@dataclass(frozen=True)
class Board:
    """Runs that may be compared: of one protocol, on the same samples with the same labels.

    Attributes:
        key: Hashes of the protocol, of the data, of the sample ids and of their labels.
        title: In words, such as `fashion-mnist-mini, Linf 0.1, 200 samples, pgd + crown`; no two
            boards that were made together share one.
        rows: Best first: by certified, robust and clean rate, then by name and hash.
        ranked: By rate, the number of models that have a rank: 0, or 2 and more.
    """

    key: Key
    title: str
    rows: tuple[Row, ...]
    ranked: dict[str, int]

    @property
    def slug(self) -> str:
        """A name for files and links, the same for the same key."""
        return f"board-{sha256_json(self.key)[:12]}"

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The runs, in the order of the rows."""
        return tuple(row.entry for row in self.rows)

    @property
    def protocol(self) -> Protocol:
        """The protocol that the runs share."""
        return self.rows[0].entry.manifest.protocol

    @property
    def data(self) -> DataInfo:
        """The data and the samples that the runs share."""
        return self.rows[0].entry.manifest.data


def boards_of(entries: Iterable[Entry]) -> tuple[Board, ...]:
    """Return the boards of runs: what is on them does not depend on the order of the runs.

    A record that is there twice (the same manifest, the same rows) counts once.
    """
    groups: dict[Key, dict[tuple[bytes, ...], Entry]] = {}
    for entry in entries:
        rows = (step.content_sha256.encode() for step in entry.summary.steps)
        same = (entry.manifest.to_bytes(), *rows)
        groups.setdefault(entry.board, {}).setdefault(same, entry)
    boards = [_board(key, [group[same] for same in sorted(group)]) for key, group in groups.items()]
    titles = Counter(board.title for board in boards)
    relabelled = Counter(board.key[:3] for board in boards)
    boards = [
        board
        if titles[board.title] == 1
        else replace(board, title=f"{board.title} ({_told_apart(board, relabelled)})")
        for board in boards
    ]
    return tuple(sorted(boards, key=lambda board: (board.title, board.key)))


def _told_apart(board: Board, relabelled: Counter[tuple[str, str, str]]) -> str:
    own = board.slug.removeprefix("board-")
    return own if relabelled[board.key[:3]] == 1 else f"{own}, labels or class names differ"


def title_of(entry: Entry) -> str:
    """Return the words for the board of a run: data, threat, samples, subject and steps."""
    data, protocol = entry.manifest.data, entry.manifest.protocol
    parts = [one_line(data.name, _LONGEST_NAME), threat_words(protocol), f"{data.samples} samples"]
    if (explanation := protocol.explanation) is not None:
        criterion = explanation.criterion
        bent = f"{criterion.measure} {criterion.threshold:g}"
        parts.append(f"{explanation.kind} of the {explanation.of} within {bent}")
    parts.append(protocol.name or _steps_words(protocol))
    return ", ".join(part for part in parts if part)


def threat_words(protocol: Protocol) -> str:
    """Return what the attacker may do in a word or two: `Linf 0.1`."""
    threat = protocol.threat
    if protocol.corruption is not None:
        return "corruptions"
    if protocol.transformation is not None:
        return "transformations"
    unit = " of each range" if threat.eps_unit == "range" else ""
    return f"{_NORMS[threat.norm]} {threat.eps:g}{unit}"


def _steps_words(protocol: Protocol) -> str:
    names = [step.name for step in protocol.steps]
    if len(names) > _NAMED_STEPS:
        names = [names[0], f"{len(names) - 2} more", names[-1]]
    return " + ".join(names) or "no attack"


def _rates(entry: Entry) -> dict[str, Rate]:
    """What a run reaches: of explanations the shares that were not bent, and cannot be."""
    summary, found = entry.summary, entry.summary.explanation
    robust, certified = summary.robust_accuracy, summary.certified_accuracy
    if found is not None:
        certified = found.certified
        held = entry.right.get("robust")
        robust = None if held is None else Rate.of(int(held.sum()), held.size)
    known = dict(zip(RATES, (summary.clean_accuracy, robust, certified), strict=True))
    return {name: rate for name, rate in known.items() if rate is not None}


def _not_ranked(entries: Sequence[Entry]) -> list[str | None]:
    """Why runs have no rank: of the good runs of a model the latest counts, the others repeat it.

    Copies of one model would beat others and widen all ranges more than once.
    """
    good = [entry for entry in entries if entry.not_ranked is None]
    latest: dict[str, Entry] = {}
    for entry in sorted(good, key=lambda entry: (entry.manifest.created, entry.manifest.run_id)):
        latest[entry.manifest.model.sha256] = entry
    return [
        f"repeat of {counts.manifest.run_id}"
        if entry.not_ranked is None and (counts := latest[entry.manifest.model.sha256]) is not entry
        else entry.not_ranked
        for entry in entries
    ]


def _has_rank(entry: Entry, rate: str) -> bool:
    """Attacks that failed say nothing of robustness: then only what is proved has a rank."""
    return rate in entry.right and (rate != "robust" or entry.summary.reliable is not False)


def _board(key: Key, entries: Sequence[Entry]) -> Board:
    rates, not_ranked = [_rates(entry) for entry in entries], _not_ranked(entries)

    def order(place: int) -> tuple[object, ...]:
        manifest, known = entries[place].manifest, rates[place]
        values = (known[name].value if name in known else -1.0 for name in reversed(RATES))
        return (
            *(-value for value in values),
            manifest.model.name,
            manifest.model.sha256,
            manifest.run_id,
        )

    places = sorted(range(len(entries)), key=order)
    ranks: list[dict[str, Range]] = [{} for _ in entries]
    ranked = {}
    for rate in RATES:
        those = [p for p in places if not_ranked[p] is None and _has_rank(entries[p], rate)]
        ranked[rate] = len(those) if len(those) > 1 else 0
        if ranked[rate]:
            right = np.stack([entries[place].right[rate] for place in those])
            for place, (best, worst) in zip(those, rank_ranges(right).tolist(), strict=True):
                ranks[place][rate] = (best, worst)
    rows = tuple(Row(entries[p], rates[p], ranks[p], not_ranked[p]) for p in places)
    return Board(key, title_of(rows[0].entry), rows, ranked)
