"""Example workflows: one file each, with its story in the docstring. They import `nodes` and `control.sdk`."""
