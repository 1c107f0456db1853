"""Table 1, networks: ours against the known architectures, one face a call.

Ours runs as the product runs it: uint8 in, uint8 out, ONNX Runtime. The others run as their users run them, under
Keras' predict(), and in every runtime that is installed, float32 and int8 by the same exporters as ours, on float input
that is ready. So every ratio leans their way.
"""

import hashlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.moving_face import frames
from benchmarks.harness.sent_faces import sent_faces
from benchmarks.harness.timing import Figures, Plan, Times, in_turn, ratio, rows, spreads
from benchmarks.tables.runtimes import Call, Graphs, chain, installed, write_litert
from understudy.bundle.bundle import Bundle
from understudy.swap.served import crop_model

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = "shipped_"
THREADS = (1, 2)
KINDS = ("float32", "int8")
_CODE_OF_GRAPHS = (
    "benchmarks/tables/zoo.py",
    "benchmarks/tables/runtimes.py",
    "training/network.py",
    "training/export.py",
)
_CONVERTER_BYTES = 220  # of memory for each weight; measured, TensorFlow to LiteRT in int8
_QUICK = ("classic64",)
_IN_TWO = ("rtm224",)  # converted in two parts, as ours is: whole it would take 31 GB
# A part of a network: name, model, and what gives it typical inputs.
Part = tuple[str, Any, Callable[[], NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Network:
    """A network and where its graphs lie.

    Attributes:
        model: for Keras' predict().
        graphs: by runtime and kind: one graph, or encoder and decoder.
    """

    model: Any
    graphs: Mapping[tuple[str, str], Graphs]

    @property
    def side(self) -> int:
        """Side of its input, px."""
        return int(self.model.inputs[0].shape[1])

    def calls(self, *, is_quick: bool) -> dict[str, Call]:
        """Return what to time: one face, every runtime; in short, ONNX Runtime, without float32 on one thread."""
        face = faces(self.side, 1).astype(np.float32) / 255
        calls: dict[str, Call] = {"keras_predict": lambda: self.model.predict(face, verbose=0)}
        for (runtime, kind), graphs in self.graphs.items():
            if not is_quick or runtime == "ort":
                for threads in THREADS[is_quick and kind == "float32" :]:
                    calls[f"{runtime}_{kind}_{threads}_threads"] = chain(graphs, threads, face, runtime)
        return calls


def table(plan: Plan) -> Figures:
    """Measure every network; ours, as shipped, takes part in every other one's rounds."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from benchmarks.tables import zoo

    bundle = Bundle.load(plan.bundle)
    shipped = _shipped(bundle)
    figures, ratios = Figures(), Figures()
    graphs: dict[str, tuple[int, Graphs]] = {}
    times: dict[str, Times] = {}
    for name in _names(plan):
        built = network(name, plan.cache, is_quick=plan.is_quick)
        calls = built.calls(is_quick=plan.is_quick) | shipped
        times[name] = in_turn(calls, plan.pick(4, 40), budget_s=plan.pick(2, 40))
        own = {way: values for way, values in times[name].items() if not way.startswith(SHIPPED)}
        size = {"params_m": built.model.count_params() / 1e6, "gmac": zoo.macs(built.model) / 1e9}
        figures |= rows(name, spreads(own) | size)
        ratios |= _ratios(name, times[name])
        if ("ort", "int8") in built.graphs:
            graphs[name] = built.side, built.graphs["ort", "int8"]
    if {"classic64", "ours128", "ours224"} <= graphs.keys():
        ratios |= _to_the_classic(times)
    everywhere: Times = {way: [ms for part in times.values() for ms in part[way]] for way in shipped}
    figures |= rows("ours", spreads({way.removeprefix(SHIPPED): values for way, values in everywhere.items()}))
    figures |= rows("ratio", ratios)
    memory = memory_mib(graphs) if graphs else {}
    return figures | {f"{name}.int8_memory_mib": value for name, value in memory.items()}


def faces(side: int, count: int) -> NDArray[np.uint8]:
    """Return faces: uint8 [N, side, side, 3], BGR."""
    crops = [picture[40:320, 180:460] for picture in frames(None, 640, 360, count)]
    return np.stack([cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA) for crop in crops])


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
    crop, tensors = sent_faces(bundle, 1)
    models = {threads: crop_model(bundle, bundle.personas[0].name, threads) for threads in THREADS}
    return {f"{SHIPPED}{n}_threads": lambda model=model: model.predict(crop, **tensors) for n, model in models.items()}


def _names(plan: Plan) -> list[str]:
    """Return whom to build: ours, and the known ones that were asked for."""
    from benchmarks.tables import zoo

    wanted = plan.known or (_QUICK if plan.is_quick else tuple(zoo.KNOWN))
    return ["ours224", "ours128", *(name for name in zoo.KNOWN if name in wanted)]


def build(name: str) -> tuple[Any, list[Part]]:
    """Build a network with weights that are always the same.

    Returns:
        The model, and the parts that run one after the other.
    """
    import keras

    from benchmarks.tables import zoo
    from training.network import NetworkSize

    keras.utils.set_random_seed(1)
    sizes = {"ours224": NetworkSize(), "ours128": NetworkSize(input_px=128, output_px=128)}
    if name in sizes:
        encoder, decoder, whole = zoo.ours(sizes[name])
    else:
        whole = zoo.KNOWN[name]()
        encoder, decoder = _halves(whole) if name in _IN_TWO else (whole, None)
    inputs = faces(int(whole.inputs[0].shape[1]), 4).astype(np.float32) / 255
    if decoder is None:
        return whole, [(name, whole, lambda: inputs)]

    def latents() -> NDArray[np.float32]:
        return np.asarray(encoder.predict(inputs, verbose=0))

    return whole, [(f"{name}-encoder", encoder, lambda: inputs), (f"{name}-decoder", decoder, latents)]


def _halves(whole: Any) -> tuple[Any, Any]:
    """Cut a network behind its dense code, where it becomes a picture again; returns both models."""
    import keras

    square = next(layer.output for layer in whole.layers if isinstance(layer, keras.layers.Reshape))
    return keras.Model(whole.inputs, square), keras.Model(square, whole.outputs)


def network(name: str, cache: Path, *, is_quick: bool = False) -> Network:
    """Return a network and its graphs, written now where the cache has none of this code; quick: only what it has."""
    code = hashlib.sha256(b"".join((ROOT / path).read_bytes() for path in _CODE_OF_GRAPHS)).hexdigest()[:8]
    whole, parts = build(name)
    sizes = ["-".join(str(side) for side in model.outputs[0].shape[1:]) for _, model, _ in parts]
    graphs: dict[tuple[str, str], Graphs] = {}
    left_out: list[str] = []
    is_convertible = not is_quick and all(_is_convertible(model) for _, model, _ in parts)
    for runtime in installed():
        suffix = "tflite" if runtime == "litert" else "onnx"
        for kind in KINDS:
            paths = [
                cache / f"{part}-{size}-{kind}-{code}.{suffix}" for (part, _, _), size in zip(parts, sizes, strict=True)
            ]
            missing = [index for index, path in enumerate(paths) if not path.is_file()]
            if missing and not is_convertible:
                left_out.append(f"{runtime} {kind}")
                continue
            for index in missing:
                # In a process of its own: for large networks converters take up to 19 GB, and keep them.
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    pool.submit(_write, name, index, kind, paths[index]).result()
            graphs[runtime, kind] = tuple(str(path) for path in paths)
    if left_out:
        if is_quick:
            why = "its graphs are not in the cache (a run without --quick makes them)"
        else:
            why = "it is too large to be converted in this machine's memory"
        print(f"{name}: {why}: {', '.join(left_out)}.", file=sys.stderr)
    return Network(whole, graphs)


def _is_convertible(model: Any) -> bool:
    """Whether this machine's memory is enough for the converters."""
    import psutil

    return model.count_params() * _CONVERTER_BYTES <= psutil.virtual_memory().total


def _write(name: str, index: int, kind: str, path: Path) -> None:
    """Write one of a network's parts into a file of one kind."""
    from training.export import write_graph

    _, model, inputs = build(name)[1][index]
    half = path.with_suffix(f".{os.getpid()}.half")
    write = write_litert if path.suffix == ".tflite" else write_graph
    write(model, half, inputs() if kind == "int8" else None)
    half.rename(path)


# ---- ratios ----------------------------------------------------------------------------------------------------


def _ratios(name: str, times: Times) -> Figures:
    """How many times as many faces a second ours gives as another network, both on two threads."""
    ours = times[f"{SHIPPED}2_threads"]
    keras = {f"ours_to_{name}_keras_fps": ratio(times["keras_predict"], ours)}
    if not any(_is_runtime(way) for way in times):
        return keras
    one = {way: values for way, values in times.items() if way.endswith("_1_threads")}
    return keras | {
        f"ours_to_{name}_best_fps": ratio(times[_best(times)], ours),
        f"ours_to_{name}_best_1_thread_fps": ratio(times[_best(one)], times[f"{SHIPPED}1_threads"]),
    }


def _is_runtime(way: str) -> bool:
    return not way.startswith((SHIPPED, "keras"))


def _best(times: Times) -> str:
    """Return the quickest runtime."""
    return min(filter(_is_runtime, times), key=lambda way: float(np.median(times[way])))


def _to_the_classic(times: Mapping[str, Times]) -> Figures:
    """How many times as many faces a second ours of 128 and 224 px gives as the classic of 64 px, on two threads."""
    classic, same = times["classic64"], "ort_int8_2_threads"

    def ours_fps(name: str, ours_way: str, way: str) -> float:
        """Both were measured in turn with ours as shipped, in rounds of their own."""
        shipped = f"{SHIPPED}2_threads"
        relative = ratio(classic[way], classic[shipped]) / ratio(times[name][ours_way], times[name][shipped])
        return float(f"{relative:.4g}")

    return {
        "ours128_to_classic64_keras_fps": ours_fps("ours128", _best(times["ours128"]), "keras_predict"),
        "ours128_to_classic64_best_fps": ours_fps("ours128", _best(times["ours128"]), _best(classic)),
        "ours224_to_classic64_same_runtime_fps": ours_fps("ours224", same, same),
    }
