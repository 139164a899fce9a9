"""The columns of a shard: one row for each sample that a step was run on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from leaderboards.errors import RecordError
from leaderboards.lists import check_lists, check_order, list_bytes
from leaderboards.sample_ids import Ids
from leaderboards.verdicts import EXPLAINED_LEGAL, LEGAL, StepKind, Verdict

if TYPE_CHECKING:
    from leaderboards.manifest import Protocol

SHARD_SCHEMA = 2
MAX_DETAIL = 1000


@dataclass(frozen=True)
class Column:
    """A column of a shard: its name, Arrow type, whether it may be null, and what it says.

    A column of lists has their `length`.
    """

    name: str
    type: Any
    nullable: bool
    doc: str
    length: int | None = None


@dataclass(frozen=True)
class Layout:
    """The columns that the shards of a run have, in their order.

    Attributes:
        columns: The columns.
        explained: Whether the run is about explanations.
    """

    columns: tuple[Column, ...]
    explained: bool = False

    @cached_property
    def schema(self) -> Any:
        """The same as an Arrow schema."""
        return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in self.columns])

    @cached_property
    def lengths(self) -> dict[str, int]:
        """Length of the lists in the columns that hold some."""
        return {c.name: c.length for c in self.columns if c.length is not None}


COLUMNS = (
    Column("sample_id", pa.int64(), False, "position of the sample in the data set"),
    Column("label", pa.int64(), False, "true class, from 0"),
    Column("verdict", pa.string(), True, "what this step settled; null: still open after it"),
    Column("prediction", pa.int64(), True, "class at the point this row is about"),
    Column("margin", pa.float64(), True, "z_y - max of the others there, float32 evaluation"),
    Column("margin64", pa.float64(), True, "the same, evaluated in float64"),
    Column("distance", pa.float64(), True, "norm of the perturbation, measured in float64"),
    Column("restart", pa.int32(), True, "restart that found the point, from 0"),
    Column("iteration", pa.int32(), True, "iteration that found the point, from 0"),
    Column("bound", pa.float64(), True, "proven lower bound of the margin, rounding taken off"),
    Column("radius", pa.float64(), True, "certified radius, in the threat model's norm and unit"),
    Column("method", pa.string(), True, "certificate that proved it or gave the bound"),
    Column("work", pa.int64(), False, "subproblems this step bounded for the sample"),
    Column("votes", pa.int64(), True, "draws in which a smoothed classifier's base chose label"),
    Column("forwards", pa.int64(), False, "forward passes this step spent on the sample"),
    Column("backwards", pa.int64(), False, "backward passes this step spent on the sample"),
    Column("seconds", pa.float64(), False, "the sample's share of the time; not in any hash"),
    Column("detail", pa.string(), True, "one line on how it came about, such as `rounding`"),
)
DISTANCES = (
    Column("explanation_distance", pa.float64(), True, "criterion's distance there, float32"),
    Column("explanation_distance64", pa.float64(), True, "the same, evaluated in float64"),
)
"""Of attacks on explanations: how far the explanation is bent at the point of the row."""
CERTAINTIES = (
    Column("explanation_bound", pa.float64(), True, "proven upper bound of that distance"),
    Column("deviation_linf", pa.float64(), True, "proven: no entry differs more from the clean"),
    Column("deviation_mean", pa.float64(), True, "proven: nor do entries in the mean"),
    Column("deviation_l1", pa.float64(), True, "proven upper bound of the difference's L1 norm"),
    Column("deviation_l2", pa.float64(), True, "of its L2 norm"),
    Column("width_max", pa.float64(), True, "largest width of the box that holds it"),
    Column("width_mean", pa.float64(), True, "mean width of that box"),
    Column("cosine", pa.float64(), True, "proven lower bound of the cosine similarity"),
    Column("top_k", pa.float64(), True, "share of the k largest entries that surely stay so"),
    Column("sup_norm", pa.float64(), True, "proven: no entry is larger in absolute value"),
    Column("lipschitz", pa.float64(), True, "proven: its L1 norm is never larger"),
    Column("signs", pa.float64(), True, "share of entries whose sign cannot change"),
)
"""Of certificates of explanations: what the box that holds every explanation says."""
BY_CLASS = (
    Column("local_lipschitz_lower", pa.list_(pa.float64()), True, "steepest gradient found"),
    Column("local_lipschitz_upper", pa.list_(pa.float64()), True, "proven: none is steeper"),
)
"""Of certificates of runs that ask for them: local Lipschitz constants, one for each logit."""
METRICS = {
    "deviation_linf": "Largest change of an entry",
    "deviation_mean": "Mean change of the entries",
    "deviation_l1": "L1 norm of the change",
    "deviation_l2": "L2 norm of the change",
    "width_max": "Largest width of the box",
    "width_mean": "Mean width of the box",
    "cosine": "Cosine similarity",
    "top_k": "Share of the k largest that stay",
    "sup_norm": "Largest entry",
    "lipschitz": "L1 norm of the explanation",
    "signs": "Share of signs that stay",
    "local_lipschitz_lower": "Local Lipschitz constant found",
    "local_lipschitz_upper": "Local Lipschitz constant proved",
}
"""What people call them."""
BY_FEATURE = Column(
    "monotone",
    pa.list_(pa.int8()),
    True,
    "proven: the score rises with the feature (1), falls (-1), does not change (2); 0: unknown",
)
"""Of certificates of runs that ask for it: one for each feature that is asked for."""
UNDER_SEVERITIES = Column(
    "predictions",
    pa.list_(pa.int64()),
    True,
    "class predicted at each severity, ascending; null in it: by no finite logits",
)
"""Of runs about corruptions; null in `clean`."""
STRENGTHS = (
    Column("strength", pa.float64(), True, "of the weakest transformation that breaks it"),
    Column("strength_share", pa.float64(), True, "the same, as a share of the family's range"),
)
"""Of searches over transformations; of a mixture that of its strongest part."""
ON_OTHER_DRAWS = Column(
    "margin_other_draws",
    pa.float64(),
    True,
    "the margin of a random model on other draws: in `clean`, and of adversarial examples",
)
"""Of runs about the mean of a random model."""
PREDICTIONS = Layout(COLUMNS)
"""Of runs about predictions."""
EXPLANATIONS = Layout((*COLUMNS, *DISTANCES, *CERTAINTIES), explained=True)
"""Of runs about explanations that ask for no lists."""
SCHEMA = PREDICTIONS.schema
TIMING = "seconds"
"""The only column that differs when a run is repeated."""

_SIGNED = ("margin", "margin64", "bound", "cosine", "margin_other_draws")
_AT_MOST_ONE = ("cosine", "top_k", "signs")


def layout_of(protocol: Protocol, classes: int, averaged: bool = False) -> Layout:
    """Return the columns of a run.

    Args:
        protocol: The run's: about predictions, or what else.
        classes: Number of classes.
        averaged: Whether the model is the mean of a random one over draws.
    """
    if protocol.corruption is not None:
        severities = len(protocol.corruption.severities)
        return Layout((*COLUMNS, replace(UNDER_SEVERITIES, length=severities)))
    if protocol.transformation is not None:
        return Layout((*COLUMNS, *STRENGTHS))
    explanation = protocol.explanation
    if explanation is None:
        return Layout((*COLUMNS, ON_OTHER_DRAWS)) if averaged else PREDICTIONS
    lists: tuple[Column, ...] = ()
    if explanation.lipschitz_budget is not None:
        lists += tuple(replace(column, length=classes) for column in BY_CLASS)
    if explanation.monotone:
        lists += (replace(BY_FEATURE, length=len(explanation.monotone)),)
    return Layout((*EXPLANATIONS.columns, *lists), explained=True)


def to_table(frame: pd.DataFrame, layout: Layout = PREDICTIONS) -> Any:
    """Return a data frame as an Arrow table of a layout; NaN and None become null.

    Raises:
        RecordError: A column is missing, unknown, or not of its type.
    """
    check_names([str(name) for name in frame.columns], layout)
    for column in layout.columns:  # pyarrow would read numbers out of text
        if column.type != pa.string() and isinstance(frame[column.name].dtype, pd.StringDtype):
            raise RecordError(f"{column.name} is not of its type: text")
    try:
        return pa.Table.from_pandas(frame, schema=layout.schema, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise RecordError(f"a column is not of its type: {error}") from None


def to_frame(table: Any) -> pd.DataFrame:
    """Return a table of a shard's columns as a data frame ordered by sample.

    Nullable whole numbers are pandas' masked `Int64` and `Int32`, text is `string`, and a null
    margin, distance or radius is NaN.
    """
    ordered = _by_sample(table)
    return pd.DataFrame({f.name: _cells(f, ordered[f.name]) for f in ordered.schema})


def _cells(field: Any, column: Any) -> Any:
    """A column as pandas has it; one by one, as that is faster than the whole table."""
    if pa.types.is_string(field.type):
        text: Any = pd.StringDtype()
        return text.__from_arrow__(column)
    if pa.types.is_integer(field.type) and field.nullable:
        return _masked(column)
    return column.to_pandas() if pa.types.is_list(field.type) else column.to_numpy()


def _by_sample(table: Any) -> Any:
    """The table ordered by sample; it often is."""
    ids = table["sample_id"].to_numpy()
    return table if (np.diff(ids) > 0).all() else table.sort_by("sample_id")


def _masked(column: Any) -> Any:
    """Whole numbers that may be null, as pandas' `Int64` or `Int32`."""
    values = pc.fill_null(column, 0).to_numpy()
    return pd.arrays.IntegerArray(np.array(values), np.array(column.is_null().to_numpy()))


def check_names(names: list[str], layout: Layout) -> None:
    """Raise RecordError unless these are the columns of a shard, in any order."""
    known = layout.schema.names
    if missing := [n for n in known if n not in names]:
        raise RecordError(f"missing columns: {', '.join(missing)}")
    if unknown := [n for n in names if n not in known]:
        raise RecordError(f"unknown columns: {', '.join(unknown)}")
    if len(names) > len(known):
        raise RecordError("a column is there twice")


def check_rows(
    table: Any, kind: StepKind, classes: int, sample_ids: Ids, layout: Layout = PREDICTIONS
) -> None:
    """Check that rows can be what they say they are.

    Args:
        table: Rows in the schema of `layout`.
        kind: `clean`, `attack` or `certificate`: says which verdicts are legal.
        classes: Number of classes; labels and predictions lie below it.
        sample_ids: The run's samples; no others may appear.
        layout: Columns of the run's shards.

    Raises:
        RecordError: A null, negative, too large or non-finite value where there may be none, a
            verdict that a step of this kind cannot give, a sample of another run, or one twice.
    """
    for column in layout.columns:
        values = table[column.name]
        if not column.nullable and values.null_count:
            raise RecordError(f"{column.name} is null")
        if values.null_count == table.num_rows:
            continue
        if pa.types.is_floating(column.type) and pc.any(pc.invert(pc.is_finite(values))).as_py():
            raise RecordError(f"{column.name} is not finite")
        if column.name not in _SIGNED and pa.types.is_primitive(column.type):
            lowest = pc.min(values).as_py()
            if lowest is not None and lowest < 0:
                raise RecordError(f"{column.name} is negative")
    for name in ("label", "prediction"):
        highest = pc.max(table[name]).as_py()
        if highest is not None and highest >= classes:
            raise RecordError(f"{name} {highest}, but there are {classes} classes")
    if layout.explained:
        _check_explained(table, kind, layout)
    elif UNDER_SEVERITIES.name in layout.lengths:
        lists = table[UNDER_SEVERITIES.name].combine_chunks()
        length, entries = layout.lengths[UNDER_SEVERITIES.name], (*range(classes), None)
        check_lists(UNDER_SEVERITIES.name, lists, length, entries)
    given = set(pc.unique(table["verdict"]).to_pylist()) - {None}
    legal = (EXPLAINED_LEGAL if layout.explained else LEGAL)[kind]
    if bad := sorted(given - legal):
        raise RecordError(f"verdict '{bad[0]}' cannot come from a step of kind {kind}")
    if kind != "certificate":
        failed = pc.fill_null(pc.equal(table["verdict"], str(Verdict.ERROR)), False)
        for name in ("prediction", "margin"):
            if pc.any(pc.and_(pc.is_null(table[name]), pc.invert(failed))).as_py():
                raise RecordError(f"{name} is null in a row that is no error")
    ids = table["sample_id"].to_numpy()
    if np.unique(ids).size < ids.size:
        raise RecordError("one sample twice")
    strangers = ids[~np.isin(ids, sample_ids)]
    if strangers.size:
        raise RecordError(f"sample {strangers.min()} is not one of the run's")
    for name in ("method", "detail"):
        length = pc.max(pc.utf8_length(table[name])).as_py()
        if length is not None and length > MAX_DETAIL:
            raise RecordError(f"{name} of {length} characters; the limit is {MAX_DETAIL}")


def _check_explained(table: Any, kind: StepKind, layout: Layout) -> None:
    """Check what only runs about explanations have: what a step cannot know is null."""
    lists = tuple(column for column in layout.columns if column.length is not None)
    foreign: dict[StepKind, tuple[Column, ...]] = {
        "clean": (*DISTANCES, *CERTAINTIES, *lists),
        "attack": (*CERTAINTIES, *lists),
        "certificate": DISTANCES,
    }
    for column in foreign[kind]:
        if table[column.name].null_count < table.num_rows:
            raise RecordError(f"{column.name} cannot come from a step of kind {kind}")
    for name in _AT_MOST_ONE:
        values = table[name]
        if pc.any(pc.greater(pc.abs(values), 1.0)).as_py():
            raise RecordError(f"{name} is beyond 1")
    held = {name: table[name].combine_chunks() for name in layout.lengths}
    for name, values in held.items():
        signs = (-1, 0, 1, 2) if name == BY_FEATURE.name else None
        check_lists(name, values, layout.lengths[name], signs)
    if (names := (BY_CLASS[0].name, BY_CLASS[1].name))[0] in held:
        check_order(names, held[names[0]], held[names[1]])


def content_sha256(table: Any) -> str:
    """Return the hash of a step's results: of every column but the time, ordered by sample.

    Row order, shards, batches and resumes leave it as it is.
    """
    ordered = _by_sample(table)
    digest = hashlib.sha256(f"shard schema {SHARD_SCHEMA}".encode())
    for column in ordered.schema:  # a layout's, in its order
        if column.name == TIMING:
            continue
        values = ordered[column.name].combine_chunks()
        digest.update(f"\n{column.name}:{column.type}:{len(values)}\n".encode())
        if pa.types.is_string(column.type):
            digest.update(_json_of(values).encode())
            continue
        digest.update(np.asarray(values.is_valid(), dtype=np.bool_).tobytes())
        if pa.types.is_list(column.type):
            digest.update(list_bytes(values))
            continue
        numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
        digest.update(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _json_of(words: Any) -> str:
    """The canonical `json.dumps` of a column of text, each word worked out once."""
    coded = words.dictionary_encode()
    known = [json.dumps(word) for word in (*coded.dictionary.to_pylist(), None)]
    places = coded.indices.fill_null(len(known) - 1).to_pylist()
    return f"[{', '.join([known[place] for place in places])}]"
