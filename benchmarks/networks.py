"""Table 1, networks: ours against the known architectures, one face a call.

Ours runs as the product runs it: uint8 in, uint8 out, ONNX Runtime. The others run as their users run them, under
Keras' predict(), and in ONNX Runtime, float32 and int8 by the same exporter as ours, on float input that is ready. So
every ratio leans their way.
"""

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.moving_face import frames
from benchmarks.timing import Figures, Plan, Times, in_turn, ratio, rows, spreads
from understudy.bundle import Bundle

Call = Callable[[], object]
Graphs = tuple[str, ...]
ROOT = Path(__file__).resolve().parent.parent
SHIPPED = "shipped_"
THREADS = (1, 2)


@dataclass(frozen=True, slots=True)
class Network:
    """A network and where its graphs lie.

    Attributes:
        model: for Keras' predict().
        float32: one graph, or encoder and decoder.
        int8: as float32.
    """

    model: Any
    float32: Graphs
    int8: Graphs

    @property
    def side(self) -> int:
        """Side of its input, px."""
        return int(self.model.inputs[0].shape[1])

    def calls(self, *, is_quick: bool) -> dict[str, Call]:
        """Give what to time: one face, every runtime; in short, without the slowest, float32 on one thread."""
        face = faces(self.side, 1).astype(np.float32) / 255
        calls: dict[str, Call] = {"keras_predict": lambda: self.model.predict(face, verbose=0)}
        for kind, graphs in (("float32", self.float32), ("int8", self.int8)):
            for threads in THREADS[is_quick and kind == "float32" :]:
                calls[f"ort_{kind}_{threads}_threads"] = chain(graphs, threads, face)
        return calls


def table(plan: Plan) -> Figures:
    """Measure every network; ours, as shipped, takes part in every other one's rounds."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from benchmarks import zoo

    bundle = Bundle.load(plan.bundle)
    shipped = _shipped(bundle)
    figures, ratios = Figures(), Figures()
    graphs: dict[str, tuple[int, Graphs]] = {}
    times: dict[str, Times] = {}
    for name, build in _builders(bundle, plan).items():
        network = build()
        calls = network.calls(is_quick=plan.is_quick) | shipped
        times[name] = in_turn(calls, plan.pick(4, 40), budget_s=plan.pick(2, 40))
        own = {way: values for way, values in times[name].items() if not way.startswith(SHIPPED)}
        size = {"params_m": network.model.count_params() / 1e6, "gmac": zoo.macs(network.model) / 1e9}
        figures |= rows(name, spreads(own) | size)
        ratios |= _ratios(name, times[name])
        graphs[name] = network.side, network.int8
    if "classic64" in times:
        ratios["ours224_to_classic64_same_runtime_fps"] = _same_runtime(times)
    everywhere: Times = {way: [ms for part in times.values() for ms in part[way]] for way in shipped}
    figures |= rows("ours", spreads({way.removeprefix(SHIPPED): values for way, values in everywhere.items()}))
    figures |= rows("ratio", ratios)
    return figures | {f"{name}.int8_memory_mib": value for name, value in memory_mib(graphs).items()}


def faces(side: int, count: int) -> NDArray[np.uint8]:
    """Give faces: uint8 [N, side, side, 3], BGR."""
    crops = [picture[40:320, 180:460] for picture in frames(None, 640, 360, count)]
    return np.stack([cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA) for crop in crops])


def session(path: str, threads: int) -> Any:
    """Load a graph into ONNX Runtime.

    Waiting threads do not spin, as in the product: they would spin into the next contestant's turn.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def chain(graphs: Graphs, threads: int, value: NDArray[np.float32]) -> Call:
    """Make a call that runs graphs, each on the answer of the one before."""
    sessions = [session(path, threads) for path in graphs]
    names = [each.get_inputs()[0].name for each in sessions]

    def run() -> NDArray[np.float32]:
        answer = value
        for each, name in zip(sessions, names, strict=True):
            answer = each.run(None, {name: answer})[0]
        return answer

    return run


def memory_mib(graphs: Mapping[str, tuple[int, Graphs]]) -> Figures:
    """Measure what each network adds to a fresh process that loads one after the other and runs it once.

    Args:
        graphs: side of the input, px, and graphs, by name.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_memory_in_child, dict(graphs)).result()


def _memory_in_child(graphs: dict[str, tuple[int, Graphs]]) -> Figures:
    import psutil

    process, kept, figures = psutil.Process(), list[Call](), Figures()
    first = next(iter(graphs))
    for name in (first, *graphs):  # the first one twice: the runtime's own memory is nobody's
        side, paths = graphs[name]
        before = process.memory_info().rss
        kept.append(chain(paths, 1, np.zeros((1, side, side, 3), np.float32)))
        kept[-1]()
        figures[name] = round((process.memory_info().rss - before) / 2**20, 1)
    return figures


# ---- what is built ---------------------------------------------------------------------------------------------


def _shipped(bundle: Bundle) -> dict[str, Call]:
    """Calls of the bundle's first persona, through the product's own code."""
    crop = faces(bundle.manifest.input_shape[0], 1)
    models = {threads: bundle.swap_model(bundle.personas[0].name, threads) for threads in THREADS}
    return {f"{SHIPPED}{n}_threads": lambda model=model: model.predict(crop) for n, model in models.items()}


def _builders(bundle: Bundle, plan: Plan) -> dict[str, Callable[[], Network]]:
    from benchmarks import zoo
    from understudy.network import FAST, NetworkSize

    sizes = {"ours224": NetworkSize(), "ours128": FAST}
    ours = {name: partial(_ours, name, size, plan.cache) for name, size in sizes.items()}
    known = {name: build for name, build in zoo.KNOWN.items() if not plan.known or name in plan.known}
    return ours | {name: partial(_known, name, build, plan.cache) for name, build in known.items()}


def _ours(name: str, size: Any, cache: Path) -> Network:
    from benchmarks import zoo

    encoder, decoder, whole = zoo.ours(size)
    inputs = faces(size.input_px, 4).astype(np.float32) / 255

    def latents() -> NDArray[np.float32]:
        return np.asarray(encoder.predict(inputs, verbose=0))

    parts = [(f"{name}-encoder", encoder, lambda: inputs), (f"{name}-decoder", decoder, latents)]
    return Network(whole, *(tuple(_graph(*part, cache, is_int8=k) for part in parts) for k in (False, True)))


def _known(name: str, build: Callable[[], Any], cache: Path) -> Network:
    model = build()
    side = int(model.inputs[0].shape[1])
    inputs = faces(side, 4).astype(np.float32) / 255
    return Network(model, *((_graph(name, model, lambda: inputs, cache, is_int8=k),) for k in (False, True)))


def _graph(name: str, model: Any, inputs: Callable[[], NDArray[np.float32]], cache: Path, *, is_int8: bool) -> str:
    """Give the path of a model's graph, written now where the cache has none of this code."""
    code = b"".join((ROOT / path).read_bytes() for path in ("benchmarks/zoo.py", "understudy/network.py"))
    sizes = "-".join(str(side) for side in model.outputs[0].shape[1:])
    kind = "int8" if is_int8 else "float32"
    path = cache / f"{name}-{sizes}-{kind}-{hashlib.sha256(code).hexdigest()[:8]}.onnx"
    if not path.is_file():
        from training.export import write_graph

        half = path.with_suffix(f".{os.getpid()}.half")
        write_graph(model, half, inputs() if is_int8 else None)
        half.rename(path)
    return str(path)


# ---- ratios ----------------------------------------------------------------------------------------------------


def _ratios(name: str, times: Times) -> Figures:
    """How many times as many faces a second ours gives as another network, both on two threads."""
    ours = times[f"{SHIPPED}2_threads"]
    best = min((way for way in times if way.startswith("ort_")), key=lambda way: float(np.median(times[way])))
    one = min((way for way in times if way.endswith("_1_threads") and "ort" in way), key=lambda w: np.median(times[w]))
    return {
        f"ours_to_{name}_keras_fps": ratio(times["keras_predict"], ours),
        f"ours_to_{name}_best_fps": ratio(times[best], ours),
        f"ours_to_{name}_best_1_thread_fps": ratio(times[one], times[f"{SHIPPED}1_threads"]),
    }


def _same_runtime(times: Mapping[str, Times]) -> float:
    """Ours at 224 px to the classic at 64 px, both int8 on two threads, each measured against ours as shipped."""
    relative = {
        name: ratio(times[name]["ort_int8_2_threads"], times[name][f"{SHIPPED}2_threads"])
        for name in ("classic64", "ours224")
    }
    return round(relative["classic64"] / relative["ours224"], 3)
