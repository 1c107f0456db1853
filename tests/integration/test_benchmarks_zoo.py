"""The rebuilt networks have the sizes that their sources publish."""

from pathlib import Path

import numpy as np
import pytest

from training.network import NetworkSize

pytestmark = pytest.mark.slow  # imports TensorFlow and makes 100 million weights


def test_classic_network_has_its_published_size_and_cost() -> None:
    from benchmarks.tables import zoo

    classic = zoo.classic64()
    assert classic.count_params() == pytest.approx(75.9e6, rel=0.01)
    assert zoo.macs(classic) == pytest.approx(1.9e9, rel=0.05)
    assert classic.output_shape == (None, 64, 64, 3)


def test_lightweight_network_has_fewer_weights_and_a_dearer_decoder() -> None:
    from benchmarks.tables import zoo

    light, classic = zoo.light64(), zoo.classic64()
    assert light.output_shape == (None, 64, 64, 3)
    assert light.count_params() < 0.6 * classic.count_params()
    assert zoo.macs(light) == pytest.approx(3.3e9, rel=0.05)


@pytest.mark.parametrize(("name", "side"), [("quick96", 96), ("saehd128", 128), ("rtm224", 224)])
def test_deepfacelab_networks_give_face_and_mask_at_their_own_size(name: str, side: int) -> None:
    from benchmarks.tables import zoo

    model = zoo.KNOWN[name]()
    assert model.output_shape == (None, side, side, 4)
    assert model.layers[-1].name == "swap"


def test_multiplications_are_counted_through_nested_models() -> None:
    from benchmarks.tables import zoo

    encoder, decoder, whole = zoo.ours(NetworkSize(32, 32, 8, 8))
    assert zoo.macs(whole) == zoo.macs(encoder) + zoo.macs(decoder) > 0
    assert whole.output_shape == (None, 32, 32, 4)


def test_halves_of_a_network_give_its_answer_one_after_the_other() -> None:
    from benchmarks.tables import networks, zoo

    whole = zoo.KNOWN["quick96"]()
    first, second = networks._halves(whole)
    face = networks.faces(96, 1).astype(np.float32) / 255
    assert max(first.count_params(), second.count_params()) < 0.8 * whole.count_params()
    assert first.count_params() + second.count_params() == whole.count_params()
    np.testing.assert_allclose(second.predict(first.predict(face)), whole.predict(face), atol=1e-5)


def test_quick_run_converts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.tables import networks

    network = networks.network("ours128", tmp_path, is_quick=True)
    assert not network.graphs and not any(tmp_path.iterdir())
    assert list(network.calls(is_quick=True)) == ["keras_predict"]
    assert "a run without --quick makes them" in capsys.readouterr().err


@pytest.mark.timeout(300)  # four processes that import TensorFlow and convert
def test_every_runtime_gives_keras_answer(tmp_path: Path) -> None:
    from benchmarks.tables import networks

    network = networks.network("ours128", tmp_path)
    calls = network.calls(is_quick=False)
    assert set(calls) == {"keras_predict"} | {
        f"{runtime}_{kind}_{threads}_threads"
        for runtime in ("ort", "openvino", "litert")
        for kind in ("float32", "int8")
        for threads in (1, 2)
    }
    expected = np.asarray(calls["keras_predict"]())
    for name, call in calls.items():
        assert np.abs(np.asarray(call()) - expected).mean() < (0.03 if "int8" in name else 1e-3), name
