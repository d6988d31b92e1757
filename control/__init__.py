"""A control plane for LangGraph agents.

LangGraph moves the work; this makes it safe to leave alone. `core` holds the rules as pure functions over frozen
values, `store` the facts in PostgreSQL, `runtime` the workers and the commands, `sdk` what the author of a graph
imports, `cli` what an operator types. Imports point inward: cli to runtime, runtime to store and sdk, all of them to
core.
"""
