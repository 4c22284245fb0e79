"""Frames between the processes of a node and between the nodes of a fleet.

`frame` is the pure codec, `calls` the vocabulary, `link` the asyncio half. A frame knows
nothing of HTTP, tensors or routing.
"""
