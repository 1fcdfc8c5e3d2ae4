"""Hooks that make `TascProposer` run in vLLM's second model runner (V2), where the user asks for that runner.

    VLLM_USE_V2_MODEL_RUNNER=1 TASC_INDEX=task.tasc vllm serve MODEL --speculative-config '{"method": "custom_class",
        "model": "tasc.adapters.vllm.TascProposer", "num_speculative_tokens": 12}'

vLLM itself runs proposers in its first model runner only. Its list of what the second one lacks names `custom_class`,
and `init_speculator` knows no such method. Both are wrapped here, in the versions of vLLM that this was written for:
0.32 and 0.33. Nothing else of vLLM is changed, and nothing is where VLLM_USE_V2_MODEL_RUNNER is not set.
"""

from __future__ import annotations

import logging
import sys
from types import ModuleType
from typing import Any

from tasc.adapters.vllm_requests import wrap_once

KNOWN = ((0, 32), (0, 33))
"""Versions of vLLM whose second model runner takes our speculator."""

PROPOSER = "tasc.adapters.vllm.TascProposer"

_RUNNER = "vllm.v1.worker.gpu.model_runner"

_log = logging.getLogger(__name__)


def watch_second_runner() -> None:
    """Wrap the classes of the installed vLLM, if its version is known and VLLM_USE_V2_MODEL_RUNNER is set."""
    try:
        from vllm import __version__, __version_tuple__, envs
    except ImportError:
        return
    if not envs.VLLM_USE_V2_MODEL_RUNNER:
        return
    if tuple(__version_tuple__[:2]) not in KNOWN:
        known = ", ".join(f"{major}.{minor}" for major, minor in KNOWN)
        _log.warning("tasc knows the second model runner of vLLM %s, but this is vLLM %s", known, __version__)
        return
    from vllm.config import VllmConfig
    from vllm.v1.worker.gpu import spec_decode

    allow_proposer(VllmConfig)
    make_speculator(spec_decode)
    if _RUNNER in sys.modules:  # it has the function under a name of its own
        make_speculator(sys.modules[_RUNNER])


def allow_proposer(config: type) -> None:
    """Wrap `_get_v2_model_runner_unsupported_features` of vLLM's configuration, once: it allows `TascProposer`."""

    def wrap(original: Any) -> Any:
        def unsupported(self: Any) -> list[str]:
            ours = is_ours(self.speculative_config)
            return [one for one in original(self) if not (ours and one == "speculative method 'custom_class'")]

        return unsupported

    wrap_once(config, "_get_v2_model_runner_unsupported_features", wrap)


def make_speculator(module: ModuleType) -> None:
    """Wrap `init_speculator` of a module, once: it makes a `TascSpeculator` where `TascProposer` is configured."""

    def wrap(original: Any) -> Any:
        def init_speculator(vllm_config: Any, device: Any, req_states: Any) -> Any:
            if not is_ours(vllm_config.speculative_config):
                return original(vllm_config, device, req_states)
            from tasc.adapters.vllm_speculator import TascSpeculator

            return TascSpeculator(vllm_config, device, req_states)

        return init_speculator

    wrap_once(module, "init_speculator", wrap)


def is_ours(speculative_config: Any) -> bool:
    """Whether a speculative configuration, or None, names `TascProposer`."""
    return (
        speculative_config is not None
        and speculative_config.method == "custom_class"
        and speculative_config.model == PROPOSER
    )
