"""Sections of a node.yaml, for tests of what is read of one."""

GOOD = """\
node: iad-a
pop: iad
region: us
run_dir: /run/edgepop/iad-a
public:
  listen: ["127.0.0.1:8080"]
weights:
  store: /var/lib/edgepop
  origin: http://127.0.0.1:9000/
"""
MESH = "mesh:\n  listen: 10.0.0.1:7443\n  ca: /a\n  certificate: /b\n  key: /c\n"
PEER = MESH + "  peers:\n    - {node: iad-b, address: '10.0.0.2:7443'}\n"
DISCOVER = MESH + "  discover: {name: _mesh._tcp.edge.internal}\n"
INDEX = "  index:\n    url: redis://10.0.0.9:6379\n"
ANNOUNCE = "announce:\n  interface: ann0\n  addresses: [127.0.0.1]\n"
