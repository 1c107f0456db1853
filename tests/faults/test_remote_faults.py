"""A remote endpoint that refuses, talks nonsense, hangs or hangs up: no raw face is shown."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.ports import free_port
from benchmarks.harness.serving_process import ROOT, running
from liveframe.breaker import BreakerPolicy
from liveframe.gate import ShownState
from liveframe.policy import PipelinePolicy
from liveframe.remote.client import RemoteClient, RemotePolicy
from liveframe.remote.fallback import FallbackModel, FallbackPolicy
from tests.faults.conftest import Script
from tests.faults.remote import Front, Misbehave, front_of, garbage, hangs, refuses, resets
from tests.faults.stage import Stage, bursts, recovery_s
from understudy.bundle.bundle import Bundle
from understudy.swap.swapper import FaceSwapper, SwapSettings

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
Play = Callable[[str, object, Script], Stage]
Remote = Callable[[RemotePolicy], RemoteClient]

REMOTE_FAULTS: dict[str, Misbehave] = {
    "remote answers 429": refuses(429, "0.1"),
    "remote answers 503": refuses(503, "0.1"),
    "remote answers garbage": garbage,
    "remote hangs": hangs,
    "remote resets": resets,
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remote")
    return build_consented_bundle(folder / "tiny", {"ada": "Ada"}, folder / "trust")


@pytest.fixture(scope="module")
def front(bundle: Path) -> Iterator[Front]:
    """The local server, in a process, and the front before it."""
    port = free_port()
    command = [sys.executable, "-m", "serving.local_server", str(bundle), "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "UNDERSTUDY_HOME": str(bundle.parent / "trust")}
    with running(command, f"http://127.0.0.1:{port}", environment) as url, front_of(url) as opened:
        yield opened


@pytest.fixture
def remote(front: Front, bundle: Path) -> Iterator[Remote]:
    """A client of the first persona, far away."""
    spec = Bundle.load(bundle).swap_model("ada").spec
    with ExitStack() as stack:
        yield lambda policy: stack.enter_context(RemoteClient(front.url, spec, policy, parameters={"variant": "ada"}))


def far_swapper(client: RemoteClient | FallbackModel) -> FaceSwapper:
    """A swapper whose persona is that client's."""
    model = FaceSwapper(settings=SwapSettings("ada"), renderers={"ada": client})
    model.warm_up()
    return model


def patient(policy: PipelinePolicy) -> RemotePolicy:
    """Limits of the client in proportion to those of the pipeline."""
    return RemotePolicy(deadline_s=policy.deadline_s, breaker=BreakerPolicy(errors=5, open_s=policy.deadline_s / 2))


@pytest.mark.parametrize("fault", REMOTE_FAULTS)
def test_remote_that_fails_is_covered(
    fault: str, play: Play, front: Front, remote: Remote, policy: PipelinePolicy
) -> None:
    model = far_swapper(remote(patient(policy)))
    before = front.misbehaved
    failing, is_waiting = (lambda: front.failing(REMOTE_FAULTS[fault])), fault == "remote hangs"
    stage = play(fault, model, lambda stage: bursts(stage, failing, is_waiting=is_waiting))
    assert stage.states[ShownState.COVERED] > 0
    assert front.misbehaved > before


@pytest.mark.parametrize("fault", REMOTE_FAULTS)
def test_cover_comes_within_half_a_second_and_the_swap_returns_within_three(
    fault: str, stage: Callable[..., Stage], front: Front, remote: Remote, pace_s: float, soon_s: float
) -> None:
    """With the limits that the app has; the server asks for a second's peace."""
    limits = {**REMOTE_FAULTS, "remote answers 429": refuses(429, "1"), "remote answers 503": refuses(503, "1")}
    opened = stage(fault, far_swapper(remote(RemotePolicy(deadline_s=max(0.2, 6 * pace_s)))))
    assert recovery_s(opened, lambda: front.failing(limits[fault])) <= soon_s
    assert opened.judge.raw == []


def test_embedded_model_takes_over_while_the_remote_one_is_gone(
    play: Play, front: Front, remote: Remote, bundle: Path, policy: PipelinePolicy
) -> None:
    """Swapping goes on through the fault: nothing to cover, and nothing raw."""
    embedded = Bundle.load(bundle).swap_model("ada")
    limits = FallbackPolicy(deadline_s=policy.deadline_s, probe_s=policy.deadline_s, good_probes=1)
    with FallbackModel(remote(patient(policy)), embedded, limits) as model:
        swapper = far_swapper(model)
        stage = play(
            "remote resets, embedded model", swapper, lambda stage: bursts(stage, lambda: front.failing(resets))
        )
        assert model.stats().local_calls > 0
    assert stage.states[ShownState.SWAPPED] > stage.states[ShownState.COVERED]
