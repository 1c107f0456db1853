"""Look into an ONNX graph before anything runs it."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

from understudy.bundle.manifest import BundleError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

# ONNX Runtime carries all of these itself; any other domain would need a library loaded into the process.
ALLOWED_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
MAX_TENSOR_ITEMS = 32 << 20
MAX_NODES = 5000


def check_graph(model_bytes: bytes, name: str) -> None:
    """Refuse a graph that reaches outside its file, asks for foreign code, or allocates too much.

    Args:
        model_bytes: an ONNX model.
        name: how errors name it.

    Raises:
        BundleError: not ONNX; external data; an operator domain that is not built in; local functions;
            too many nodes; names that are no text; a tensor that is too large.
    """
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    model = ModelProto()
    try:
        model.ParseFromString(model_bytes)
    except DecodeError as error:
        raise BundleError(f"{name} must be an ONNX model, but cannot be parsed: {error}. Export it again.") from error
    if not model.graph.node:
        raise BundleError(f"{name} must be an ONNX model, but its graph is empty. Export it again.")
    _check_nodes(model, name)
    if not all(isinstance(text, str) for text in _names(model.graph)):  # protobuf gives what is no UTF-8 as bytes
        raise BundleError(f"{name} must name its nodes and tensors in UTF-8, but does not. Export it again.")
    for tensor in _tensors(model.graph):
        _check_tensor(tensor, name)


def _check_nodes(model: ModelProto, name: str) -> None:
    if len(model.functions) > 0:
        raise BundleError(f"{name} must hold no local functions, but has {len(model.functions)}. Inline them first.")
    nodes = list(_nodes(model.graph))
    if len(nodes) > MAX_NODES:
        raise BundleError(f"{name} must have at most {MAX_NODES} nodes, but has {len(nodes)}. Refused.")
    foreign = {node.domain for node in nodes} - ALLOWED_DOMAINS
    if foreign:
        raise BundleError(
            f"{name} must use operators of {sorted(ALLOWED_DOMAINS)} only, but uses {sorted(foreign)}. "
            "Export it without custom operators."
        )


def _check_tensor(tensor: TensorProto, name: str) -> None:
    from onnx import TensorProto as Proto

    if tensor.data_location == Proto.EXTERNAL or len(tensor.external_data) > 0:
        raise BundleError(f"{name} must hold its weights itself, but {tensor.name!r} is external data. Embed it.")
    if any(d < 0 for d in tensor.dims) or prod(tensor.dims) > MAX_TENSOR_ITEMS:
        raise BundleError(
            f"{name} must have tensors of at most {MAX_TENSOR_ITEMS} items, "
            f"but {tensor.name!r} is {list(tensor.dims)}. Refused."
        )


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node, those of nested graphs (If, Loop, Scan) included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for nested in (attribute.g, *attribute.graphs):
                yield from _nodes(nested)


def _names(graph: GraphProto) -> Iterator[object]:
    """Every name that a graph gives or refers to, at any depth."""
    yield graph.name
    for part in (graph.input, graph.output, graph.value_info, graph.initializer):
        yield from (item.name for item in part)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield attribute.name
            for nested in (attribute.g, *attribute.graphs):
                yield from _names(nested)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every stored tensor: initializers, sparse ones, and those in attributes, at any depth."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for nested in (attribute.g, *attribute.graphs):
                yield from _tensors(nested)
