"""Settings -> engine."""

from __future__ import annotations

from data_tools.engine.base import Engine
from data_tools.settings import EngineSettings


def open_engine(settings: EngineSettings) -> Engine:
    """The engine that was asked for; nothing is started yet.

    Raises:
        UserError: Ray is not installed.
    """
    if settings.kind == "ray":
        from data_tools.engine.ray import RayEngine

        return RayEngine(settings.workers, settings.memory_mib, settings.address)
    from data_tools.engine.local import LocalEngine

    return LocalEngine(settings.workers, settings.memory_mib)
