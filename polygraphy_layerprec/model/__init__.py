"""Read a model: typed values, layers, topology, names, and weights on demand."""

from polygraphy_layerprec.model.digest import identify
from polygraphy_layerprec.model.errors import ModelError
from polygraphy_layerprec.model.graph import Graph, GraphInput, Node, build_graph
from polygraphy_layerprec.model.loading import load_graph
from polygraphy_layerprec.model.roles import Role
from polygraphy_layerprec.model.weights import Weight, WeightBuffer

__all__ = [
    "Graph",
    "GraphInput",
    "ModelError",
    "Node",
    "Role",
    "Weight",
    "WeightBuffer",
    "build_graph",
    "identify",
    "load_graph",
]
