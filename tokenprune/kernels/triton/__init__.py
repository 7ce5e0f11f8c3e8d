"""Triton versions of the kernels, a file for each file of references that has any.

Nothing here is imported until `kernels.switch` first asks for it, so Triton need not be there. Each function takes
what its reference takes and returns the same up to rounding, or NotImplemented where it does not cover the call.

All of them are tested against their references in Triton's interpreter and compiled ahead of time for sm_90. No run on
a GPU has confirmed them yet: neither results nor speed; `pytest -m gpu` does the former.
"""
