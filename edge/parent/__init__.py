"""The parent of a node's processes: it opens the sockets, starts the children, and announces.

It knows no HTTP, no model and no route, and it starts no thread: whatever could make it
slow or make it fall lives in a child.
"""
