"""vLLM's CPU runner loads models without asking whether they prune; seen in 0.32."""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models.interfaces import supports_multimodal_pruning

FLAG = "is_multimodal_pruning_enabled"


def mend_runner() -> None:
    """Let the CPU runner answer from its model, as the GPU runner does. Other platforms and a second call: nothing.

    A runner is at work when our model is built inside it, too late to wrap its `load_model`; a property of its class
    is looked up before what the instance says.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    if isinstance(CPUModelRunner.__dict__.get(FLAG), property):
        return

    def enabled(runner: Any) -> bool:
        config = runner.model_config.multimodal_config
        model = getattr(runner, "model", None)
        return (
            config is not None
            and supports_multimodal_pruning(model)
            and config.is_multimodal_pruning_enabled()
        )

    def ignored(runner: Any, value: bool) -> None:
        """What `__init__` sets before there is a model."""

    setattr(CPUModelRunner, FLAG, property(enabled, ignored))
