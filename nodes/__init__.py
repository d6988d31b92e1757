"""Reusable nodes. Each module offers functions that make a node from what a graph decides: which fields, which rules,
which state keys. A node takes the graph's state as a mapping and returns an update of plain values.

Nodes import `control.sdk` and no other part of the control plane, so they also run under LangGraph alone.
"""
