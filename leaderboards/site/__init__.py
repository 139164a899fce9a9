"""A leaderboard as a static site: no network, no server, the same bytes from the same records."""

from leaderboards.site.building import BuildResult, build, build_of
from leaderboards.site.samples import sample_columns

__all__ = ["BuildResult", "build", "build_of", "sample_columns"]
