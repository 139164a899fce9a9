"""What `robust-eval --list` and `--version` show."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def show_known() -> None:
    """Print the models, data, protocols, suites, attacks and certificates that there are."""
    from rich.table import Table

    from robustbench_c import zoo
    from robustbench_c.cli.attacks import SUITES
    from robustbench_c.cli.console import wide_console
    from robustbench_c.data.registry import REGISTRY
    from robustbench_c.evaluation.certifying import CASCADE, METHODS
    from robustbench_c.evaluation.protocols import known_protocols, load_protocol
    from robustbench_c.suites import known_suites, load_suite

    models = Table("model", "architecture", "data", "trained for", "clean", box=None)
    for name in zoo.names():
        card = zoo.card(name)
        threat = f"{card.threat.norm} {card.threat.eps:g}" if card.threat else "-"
        clean = f"{card.clean_accuracy.accuracy:.2%}" if card.clean_accuracy else "-"
        models.add_row(name, card.architecture, card.data or "-", threat, clean)
    sets = Table("data", "what it is", box=None)
    for name, entry in REGISTRY.items():
        sets.add_row(name, entry.description)
    protocols = Table("protocol", "what it is", box=None)
    for name in known_protocols():
        protocols.add_row(name, load_protocol(name).description)
    suites = Table("suite", "what it is", box=None)
    for name in known_suites():
        suite = load_suite(name)
        suites.add_row(name, f"{suite.description} {len(suite.jobs)} jobs.")
    names = [
        f"suites of attacks: {', '.join(SUITES)}",
        f"foolbox:NAME, with --set KEY=VALUE for its own settings: {_foolbox()}",
        f"certificates: {', '.join([*METHODS, CASCADE])}",
    ]
    console = wide_console()
    for part in (models, "", sets, "", protocols, "", suites, "", _attacks(), "", *names):
        console.print(part)


def _attacks() -> Table:
    """Each attack with what it is for, what it needs, and its settings."""
    from rich.table import Table

    from attacks.registry import KINDS, settings_of

    table = Table("attack", "norms", "knows", "settings and defaults (--set KEY=VALUE)", box=None)
    for name, kind in KINDS.items():
        if name != "foolbox":
            told = ", ".join(f"{key}={value}" for key, value in settings_of(kind).items())
            table.add_row(name, " ".join(kind.norms), kind.knowledge, told)
    return table


def _foolbox() -> str:
    from attacks.errors import AttackError
    from attacks.foolbox_config import foolbox_attacks

    try:
        return ", ".join(foolbox_attacks())
    except AttackError as error:
        return str(error)


def show_versions() -> None:
    """Print the version of this package and of those that results hang on."""
    import importlib.metadata

    import robustbench_c
    from certify.lirpa import notice

    print(f"robustbench-c {robustbench_c.__version__}")
    for name in ("torch", "numpy", "foolbox", "auto_LiRPA"):
        try:
            print(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"{name}: {(notice() or 'absent') if name == 'auto_LiRPA' else 'absent'}")
