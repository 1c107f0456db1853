"""What the environment may set about a server, read once at its entry point."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from serving.server.batcher import BatchPolicy
from serving.server.exchange import ExchangePolicy


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """A server's settings.

    Attributes:
        bundle: the bundle to serve where AIP_STORAGE_URI is empty (`UNDERSTUDY_BUNDLE`).
        trust: the published keys and revocations that count, `gs://bucket/folder/trust.json` or a path; the operator's
            folder where empty (`UNDERSTUDY_TRUST`).
        model_threads: cores that one model call uses (`UNDERSTUDY_MODEL_THREADS`).
        workers: model calls at the same time (`UNDERSTUDY_WORKERS`; as many as the cores allow, where left out).
        max_batch: the most crops of several requests in one model call (`UNDERSTUDY_MAX_BATCH`). On a CPU a crop
            costs the same in any batch, so a small one answers sooner; a GPU wants 16.
        max_wait_ms: how long a crop waits for company (`UNDERSTUDY_MAX_WAIT_MS`).
        max_queue: the most crops that wait (`UNDERSTUDY_MAX_QUEUE`).
        deadline_ms: of a request that names none (`UNDERSTUDY_DEADLINE_MS`).
    """

    bundle: str = ""
    trust: str = ""
    model_threads: int = 1
    workers: int = 1
    max_batch: int = 4
    max_wait_ms: float = 3.0
    max_queue: int = 64
    deadline_ms: float = 1000.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the settings.

        Raises:
            ValueError: a variable holds no number where one is due.
        """
        variables = os.environ if environment is None else environment
        threads = max(1, int(_number(variables, "UNDERSTUDY_MODEL_THREADS", 1)))
        return cls(
            bundle=variables.get("UNDERSTUDY_BUNDLE", ""),
            trust=variables.get("UNDERSTUDY_TRUST", ""),
            model_threads=threads,
            workers=int(_number(variables, "UNDERSTUDY_WORKERS", max(1, (os.cpu_count() or 1) // threads))),
            max_batch=int(_number(variables, "UNDERSTUDY_MAX_BATCH", 4)),
            max_wait_ms=_number(variables, "UNDERSTUDY_MAX_WAIT_MS", 3.0),
            max_queue=int(_number(variables, "UNDERSTUDY_MAX_QUEUE", 64)),
            deadline_ms=_number(variables, "UNDERSTUDY_DEADLINE_MS", 1000.0),
        )

    def policy(self) -> ExchangePolicy:
        """Return the exchange's policy."""
        batching = BatchPolicy(self.max_batch, self.max_wait_ms / 1e3, self.max_queue, self.workers)
        return ExchangePolicy(batching=batching, deadline_s=self.deadline_ms / 1e3)


def _number(variables: Mapping[str, str], name: str, default: float) -> float:
    text = variables.get(name, "")
    try:
        return float(text) if text else default
    except ValueError as error:
        raise ValueError(f"{name} must be a number, but is {text!r}. Correct or unset it.") from error
