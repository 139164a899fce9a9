"""The columns of boards: one list for the site, for tables, for files and for data frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from leaderboards import column_values as of
from leaderboards.boards import Board, Row
from leaderboards.column_values import Get, Value, of_explanation, of_manifest, of_size, of_summary
from leaderboards.columns import BY_CLASS, CERTAINTIES, METRICS
from leaderboards.rates import Rate

Kind = Literal["text", "rate", "number", "count", "flag", "date"]
"""`rate`: a share (of a gap: a difference of shares), at most 1; `count`: a whole number; `flag`:
true or false; `date`: a time with its zone."""
Better = Literal["larger", "smaller"]


@dataclass(frozen=True)
class BoardColumn:
    """A column of boards.

    Attributes:
        key: Its name in files and data frames.
        title: Its name for people.
        kind: Of its values.
        about: What it says, in a sentence.
        value: Of a row; null where it is not known, never 0.
        of: Key of the column that it belongs to, as the ends of an interval or of a rank do.
        better: Which values are better; None where neither is.
        short: Whether it is in tables for people, where there is no room for all.
    """

    key: str
    title: str
    kind: Kind
    about: str
    value: Get
    of: str | None = None
    better: Better | None = None
    short: bool = False


def shown_columns(board: Board, short: bool = False) -> tuple[BoardColumn, ...]:
    """Return the columns in which some row of a board has a value.

    Args:
        board: The board.
        short: Whether only those of tables for people are wanted.
    """
    return tuple(
        column
        for column in COLUMNS
        if (column.short or not short)
        and any(
            column.value(row) not in (None, "") or not_looked(column, row) for row in board.rows
        )
    )


def not_looked(column: BoardColumn, row: Row) -> bool:
    """Whether a cell is empty because nobody looked if the attacks failed."""
    return column.key in ("flags", "reliable") and row.entry.undiagnosed


def _rate(
    key: str,
    title: str,
    about: str,
    get: Callable[[Row], Rate | None],
    ranked_by: str | None = None,
) -> Iterator[BoardColumn]:
    """A rate, the ends of its interval, and those of its rank."""
    better: Better = "smaller" if key == "bent" else "larger"

    def end(name: str) -> Get:
        def value(row: Row) -> Value:
            rate = get(row)
            return None if rate is None else float(getattr(rate, name))

        return value

    def rank(place: int) -> Get:
        def value(row: Row) -> Value:
            there = ranked_by in row.ranks and get(row) is not None
            return row.ranks[str(ranked_by)][place] if there else None

        return value

    yield BoardColumn(key, title, "rate", about, end("value"), better=better, short=True)
    for name in ("lower", "upper"):
        told = f"{name.capitalize()} end of the exact 95% interval of `{key}` (Clopper-Pearson)."
        yield BoardColumn(f"{key}_{name}", f"{title}, {name}", "rate", told, end(name), of=key)
    if ranked_by is not None:
        told = f"1 + the number of models that are significantly better in `{key}`."
        name = f"{key}_rank_best"
        yield BoardColumn(name, f"{title}, best rank", "count", told, rank(0), key, "smaller")
        told = f"Models that have a rank in `{key}`, less those that are significantly worse."
        name = f"{key}_rank_worst"
        yield BoardColumn(name, f"{title}, worst rank", "count", told, rank(1), key, "smaller")


def _metrics() -> Iterator[BoardColumn]:
    """What boxes certify of explanations, in the middle."""

    def metric(name: str) -> Get:
        return of_explanation(lambda found: found.metrics.get(name))

    for column in (*CERTAINTIES, *BY_CLASS):
        if column.name != "explanation_bound":
            title = f"{METRICS[column.name]}, median"
            told = f"Median over the samples of `{column.name}` in the records."
            yield BoardColumn(f"median_{column.name}", title, "number", told, metric(column.name))


_C = BoardColumn
COLUMNS: tuple[BoardColumn, ...] = (
    _C("model", "Model", "text", "Name of the model, as the record gives it.",
       of_manifest(lambda m: of.line(m.model.name)), short=True),
    _C("training", "Training", "text", "How it was trained, as its card says (not checked).",
       of_manifest(of.training)),
    _C("architecture", "Architecture", "text", "Architecture and its arguments.",
       of_manifest(lambda m: of.line(m.model.architecture))),
    *_rate("clean", "Clean", "Share of samples that are classified rightly without an attack.",
           lambda row: row.rates.get("clean"), "clean"),
    *_rate("robust", "Robust (empirical)", "Share that no attack broke: an upper bound of the true "
           "robust accuracy.", of.rate_of("robust", False), "robust"),
    _C("attacks", "Attacks", "text", "The attacks of the protocol.", of_manifest(of.attacks)),
    *_rate("certified", "Certified", "Share that is proved robust: a lower bound of the true "
           "robust accuracy.", of.rate_of("certified", False), "certified"),
    *_rate("unbent", "Explanation not bent", "Share whose explanation no attack bent: an upper "
           "bound.", of.rate_of("robust", True), "robust"),
    *_rate("explained", "Explanation certified", "Share whose explanation is proved to stay: a "
           "lower bound.", of.rate_of("certified", True), "certified"),
    _C("verifier", "Proved by", "text", "The methods that prove, in the order they run.",
       of_manifest(of.verifier), short=True),
    _C("gap", "Gap", "rate", "What attacks left less what is proved: the share of which neither is "
       "known.", of.gap, better="smaller", short=True),
    *_rate("bent", "Explanation bent", "Share whose explanation an attack bent beyond the "
           "threshold.", of.bent),
    _C("attack_median", "Bent by, median", "number", "Median of the largest distance from the "
       "clean explanation that an attack found.", of_explanation(lambda e: of.median(e.attack)),
       better="smaller", short=True),
    _C("certificate_median", "Bent at most, median", "number", "Median of the smallest proven "
       "bound of that distance.", of_explanation(lambda e: of.median(e.certificate)),
       better="smaller", short=True),
    _C("ratio_median", "Certificate / attack, median", "number", "Median of how many times the "
       "bound is what was found.", of_explanation(lambda e: of.median(e.ratio)), better="smaller"),
    *_metrics(),
    _C("distance_median", "Nearest example, median", "number", "Median distance of the nearest "
       "adversarial example that was found, in the norm and unit of eps.",
       of_summary(lambda s: None if s.distance is None else s.distance.median), better="larger",
       short=True),
    _C("radius_median", "Certified radius, median", "number", "Median certified radius of the "
       "samples that have one, in the norm and unit of eps.",
       of_summary(lambda s: None if s.radius is None else s.radius.median), better="larger",
       short=True),
    _C("corruption_mean", "Mean over corruptions", "rate", "Accuracy under corruptions, the mean "
       "over kinds and severities.",
       of_summary(lambda s: None if s.corruption is None else s.corruption.mean_accuracy),
       better="larger", short=True),
    _C("corruption_worst", "Worst corruption", "text", "The kind of corruption that costs most.",
       of_summary(lambda s: None if s.corruption is None else s.corruption.worst_kind)),
    _C("sparsity", "Sparsity", "rate", "Share of zeros among the weights of linear and convolution "
       "layers, as the record says.", of_size(of.sparsity), short=True),
    _C("parameters", "Parameters", "count", "Number of parameters, as the record says.",
       of_manifest(lambda m: m.model.parameters), short=True),
    _C("nonzero_parameters", "Parameters not 0", "count", "Parameters that are not 0, as the "
       "record says.",
       of_size(lambda s: s.nonzero_parameters)),
    _C("macs", "MACs", "count", "Multiply-adds of one sample, as the record says.",
       of_size(lambda s: s.macs)),
    _C("nonzero_macs", "MACs not 0", "count", "Multiply-adds with the weights that are not 0, as "
       "the record says.", of_size(lambda s: s.nonzero_macs)),
    _C("forwards", "Forwards", "number", "Forward passes that the run spent, per sample.",
       of_summary(lambda s: s.cost.forwards_per_sample), better="smaller"),
    _C("backwards", "Backwards", "number", "Backward passes that the run spent, per sample.",
       of_summary(lambda s: s.cost.backwards_per_sample), better="smaller"),
    _C("seconds", "Seconds", "number", "Time that the run took in all.",
       of_summary(lambda s: s.cost.seconds), better="smaller", short=True),
    _C("n", "Samples", "count", "Samples of the run.", of_summary(lambda s: s.samples)),
    _C("dataset", "Data", "text", "Name of the data set.",
       of_manifest(lambda m: of.line(m.data.name))),
    _C("split", "Split", "text", "Its split.", of_manifest(lambda m: of.line(m.data.split))),
    _C("subject", "About", "text", "What the run is about: prediction, explanation, corruption or "
       "transformation.", of_manifest(lambda m: of.subject(m.protocol))),
    _C("norm", "Norm", "text", "Norm of the perturbation.",
       of_manifest(lambda m: m.protocol.threat.norm)),
    _C("eps", "Eps", "number", "Largest perturbation, in units of `eps_unit`.",
       of_manifest(lambda m: m.protocol.threat.eps)),
    _C("eps_unit", "Unit of eps", "text", "`input`: the data's own units; `range`: fractions of "
       "each feature's range.", of_manifest(lambda m: m.protocol.threat.eps_unit)),
    _C("flags", "Red flags", "text", "Signs that the attacks failed; empty if there is none, null "
       "if nobody looked.", of_summary(of.flags), short=True),
    _C("reliable", "Reliable", "flag", "Whether no flag is red: false means that `robust` cannot "
       "be trusted, and has no rank.", of_summary(lambda s: s.reliable)),
    _C("complete", "Complete", "flag", "Whether the run came to its end; without, it has no rank.",
       of_summary(lambda s: s.complete)),
    _C("reproducible", "Reproducible", "flag", "False if the result depends on speed; then it has "
       "no rank.", of_manifest(lambda m: m.reproducible)),
    _C("not_ranked", "Not ranked", "text", "Why the run has no rank.",
       lambda row: row.not_ranked, short=True),
    _C("date", "Date", "date", "When the run was begun.", of_manifest(lambda m: m.created)),
    _C("tool_version", "Version", "text", "Version of robustbench-c that made the run.",
       of_manifest(lambda m: of.line(m.tool_version))),
    _C("device", "Device", "text", "Where it ran.", of_manifest(lambda m: of.line(m.device_name))),
    _C("protocol", "Protocol", "text", "Name of the protocol; null if it was made up on the spot.",
       of_manifest(lambda m: m.protocol.name)),
    _C("protocol_sha256", "Protocol hash", "text", "Hash of the protocol: the same on a board.",
       of_manifest(lambda m: m.protocol_sha256)),
    _C("model_sha256", "Model hash", "text", "Hash of the weights.",
       of_manifest(lambda m: m.model.sha256)),
    _C("run_id", "Run", "text", "Name of the run.", of_manifest(lambda m: m.run_id)),
)  # fmt: skip
"""Every column, in its order. `value` is null where nothing is known; never 0 for that."""
