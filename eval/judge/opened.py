"""Opens the judges that are models: what answers a question, of their settings."""

from __future__ import annotations

from .judges import Answers, ModelJudge, VlmJudge


def open_model(config: ModelJudge) -> Answers:
    """What answers. Raises JudgeError."""
    if not isinstance(config, VlmJudge):
        return config.open()
    if config.url:
        from .endpoint import Endpoint

        return Endpoint(config)
    from .local import LocalModel

    return LocalModel(config)
