"""A leaderboard as a static site: no network, no server, the same bytes from the same records."""

from leaderboards.site.building import BuildResult, build, build_of

__all__ = ["BuildResult", "build", "build_of"]
