"""The text of a region's redis.conf. Pure.

Redis is the region's index and nothing else: it forgets everything when it ends, evicts nothing,
listens on one mesh address, and knows nobody but its region's nodes and the lab. It refuses to
know how it is started (regions.py) and what the keys mean.
"""

import hashlib
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

#: The lab's own user, for tests and people: FLUSHALL, CONFIG, ACL.
ADMIN: Final = "lab"
#: The ACL below gives a user keys to read and others to write, which came with this version.
MIN_VERSION: Final = (7, 0)

# What a node needs for its index, and nothing else: it writes no other node's sign of life, and can
# neither list users nor change a setting. The braces are part of the keys: a cluster's hash tag.
_WRITTEN: Final = ("epoch", "ev", "loc:*", "lease:*", "have:*", "node:*", "alive:{node}")
_COMMANDS: Final = (
    "+eval +eval_ro +evalsha +evalsha_ro +scan +type +getrange +set +del +pexpire +pttl +hset +hget +hdel "
    "+hlen +hgetall +hstrlen +sadd +srem +scard +sscan +spop +xadd +xrange +xread +xinfo|stream"
)


def node_rules(region: str, node: str) -> str:
    """The rights of a node in its region's index. Source: Redis 7 documentation, "ACL"."""
    tag = f"wc:{{{region}}}:"
    written = " ".join(f"~{tag}{key.format(node=node)}" for key in _WRITTEN)
    return f"resetchannels %R~{tag}* {written} -@all {_COMMANDS}"


def redis_conf(region: str, listen: IPv4Address, port: int, home: Path, passwords: Mapping[str, str]) -> str:
    """redis.conf for a region; `passwords` are those of its nodes and of ADMIN, here as hashes only.

    Source: the redis.conf that Redis 7 ships.
    """
    rules = {name: node_rules(region, name) for name in passwords} | {ADMIN: "~* &* +@all"}
    users = "".join(
        f"user {name} on #{hashlib.sha256(password.encode()).hexdigest()} {rules[name]}\n"
        for name, password in passwords.items()
    )
    return f"""\
# The index of region {region}, written by poplab.
bind {listen}
port {port}
daemonize no
dir {home}
tcp-keepalive 15
maxclients 1024

# Disks are the truth: a Redis that starts is empty, and its nodes tell it again.
save ""
appendonly no
maxmemory 256mb
maxmemory-policy noeviction
# Nobody can store a value that takes longer to read than the nodes wait.
proto-max-bulk-len 1mb

# The users are the protection: nobody gets in without a name.
protected-mode no
user default off
{users}"""
