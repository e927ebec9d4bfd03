"""Which tensor has which width: one plan that is emulated, saved, scripted and verified."""

from __future__ import annotations

from polygraphy_layerprec.plan.kept_layers import KeptLayers
from polygraphy_layerprec.plan.planning import Planner
from polygraphy_layerprec.plan.widths import NodePlan, Plan, Target, Verdict, Width

__all__ = ["KeptLayers", "NodePlan", "Plan", "Planner", "Target", "Verdict", "Width"]
