"""Anycast on one machine: routers, cities, delays and nodes in network namespaces."""
