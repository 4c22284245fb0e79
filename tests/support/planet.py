"""A planet of two POPs as a user would write it."""

GOOD = """\
name: two
pops:
  iad:
    region: us
    nodes: {iad-a: {ingress: true, workers: 1}, iad-b: {}}
  fra:
    region: eu
    nodes: {fra-a: {ingress: true}}
rtt_ms: {fra-iad: 90}
cities:
  nyc: {pop: iad, rtt_ms: 6}
  ber: {pop: fra, rtt_ms: 8.5}
"""
