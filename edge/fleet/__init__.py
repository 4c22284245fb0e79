"""Who else is there: mesh links to other nodes, and the snapshot that decisions read."""
