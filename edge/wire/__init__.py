"""Frames between the processes of a node and between the nodes of a fleet.

Pure: `frame` is the codec, `calls` the vocabulary, `failures` what an error says. Asyncio:
`channel`, `answering` and `link` are one connection from its bytes upwards, `exchange` what
its users hold, `dial` keeps one open. A frame knows nothing of HTTP, tensors or routing.
"""
