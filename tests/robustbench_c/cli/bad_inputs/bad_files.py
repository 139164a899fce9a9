"""The bad files, each by its name, which says what is wrong, and how to make it."""

from __future__ import annotations

from pathlib import Path

from bad_data_files import DATA_FILES
from bad_makers import Make, loop, text
from bad_model_files import MODEL_FILES
from bad_property_files import PROPERTY_FILES
from bad_record_files import RECORD_FILES
from bad_suite_files import SUITE_FILES
from bad_toml_files import TOML_FILES

FILES: dict[str, Make] = {
    "text.txt": text("mine\n"),
    "folder": Path.mkdir,
    "loop": loop,
    **DATA_FILES,
    **MODEL_FILES,
    **PROPERTY_FILES,
    **RECORD_FILES,
    **SUITE_FILES,
    **TOML_FILES,
}
