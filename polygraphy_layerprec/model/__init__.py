"""Read a model: layers, topology, names, and weights on demand."""

from polygraphy_layerprec.model.errors import ModelError
from polygraphy_layerprec.model.graph import Graph, GraphInput, Node, Role
from polygraphy_layerprec.model.loading import identify, load_graph
from polygraphy_layerprec.model.weights import Weight, WeightBuffer

__all__ = [
    "Graph",
    "GraphInput",
    "ModelError",
    "Node",
    "Role",
    "Weight",
    "WeightBuffer",
    "identify",
    "load_graph",
]
