"""What runs inside the region's Redis: its keys, and one Lua script per change.

A script is atomic, so a blob's location, its node's list and the event that tells of both
appear together. Replies are msgpack in one string, of the shapes in edge.weights.replies. The
scripts trust nobody's data either: they measure a value before they read it, let only
plain names through, and remove a key of a wrong type that is in the way of the right one.

Keys, all under `wc:{region}:` (the braces are a cluster's hash tag):
  epoch              random; another one means that Redis was lost
  node:<n>           hash: boot, blobs (host:port of its blob server), bytes (on its disk)
  alive:<n>          string: boot; a node lives while it is there
  loc:<digest>       hash: node -> boot
  have:<n>           set of digests: the reverse of loc, to sweep a dead node
  lease:<digest>     string: node|boot|number
  lease:<digest>:by  hash: node -> boot, who asked for it in the last two lease times
  ev                 stream of {epoch, node, digest, state}

Pure text: knows no client, no socket and no clock.
"""

from typing import Final

#: About this many events are kept; a mirror that is further behind loads everything anew.
STREAM_EVENTS: Final = 10_000
#: So many are read at once.
EVENTS: Final = 500
MAX_NODES: Final = 512
#: So many askers of one lease are told of; beyond, they are gathered anew.
MAX_BESIDE: Final = 64
MAX_LEASE_MS: Final = 120_000
#: A sign of life that is good for longer was given before Redis' clock was set back: it is none.
MAX_ALIVE_MS: Final = 120_000


def prefix(region: str) -> str:
    """Before every key of a region."""
    return f"wc:{{{region}}}:"


_COMMON: Final = f"""
local function kind(key) return redis.call('TYPE', key).ok end
local function short(key, most)
  if kind(key) ~= 'string' then return false end
  local text = redis.call('GETRANGE', key, 0, most)
  return #text <= most and text
end
local function field(key, name)
  if kind(key) ~= 'hash' or redis.call('HSTRLEN', key, name) > 64 then return '' end
  local text = redis.call('HGET', key, name)
  return text and string.match(text, '^[%w%.:%-%[%]]+$') or ''
end
local function epoch_at(key)
  local text = short(key, 32)
  return text and #text == 32 and string.match(text, '^[0-9a-f]+$') or ''
end
local function living(key)
  if not short(key, 64) then return false end
  local left = redis.call('PTTL', key)
  return left > 0 and left <= {MAX_ALIVE_MS}
end
local function fit(key, wanted)
  local found = kind(key)
  if found ~= wanted and found ~= 'none' then redis.call('DEL', key) end
end
local function say(ev, epoch, node, digest, state)
  local function add(call)
    return call('XADD', ev, 'MAXLEN', '~', {STREAM_EVENTS}, '*',
      'epoch', epoch, 'node', node, 'digest', digest, 'state', state)
  end
  local made = add(redis.pcall)
  if type(made) == 'table' and made.err then
    if string.find(made.err, 'WRONGTYPE') or string.find(made.err, 'exhausted') then redis.call('DEL', ev) end
    add(redis.call)
  end
end
"""

HEARTBEAT: Final = (
    _COMMON
    + """
-- KEYS epoch node alive have ev; ARGV node boot blobs bytes alive_ms fresh_epoch
local epoch = epoch_at(KEYS[1])
if epoch == '' then
  epoch = ARGV[6]
  redis.call('SET', KEYS[1], epoch)
end
local known = living(KEYS[3]) and field(KEYS[2], 'boot') == ARGV[2] and field(KEYS[2], 'blobs') == ARGV[3]
fit(KEYS[2], 'hash')
fit(KEYS[4], 'set')
redis.call('HSET', KEYS[2], 'boot', ARGV[2], 'blobs', ARGV[3], 'bytes', ARGV[4])
redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[5])
if not known then say(KEYS[5], epoch, ARGV[1], '', 'node') end
return cmsgpack.pack({epoch, redis.call('SCARD', KEYS[4])})
"""
)
"""I live. Makes an epoch where there is none; says so when the node is new."""

COMMIT: Final = (
    _COMMON
    + """
-- KEYS epoch have ev; ARGV node boot epoch prefix (+|-)digest...
if epoch_at(KEYS[1]) ~= ARGV[3] then return 0 end
fit(KEYS[2], 'set')
local function change(loc, sign)
  if sign == '+' then return redis.pcall('HSET', loc, ARGV[1], ARGV[2]) end
  return redis.pcall('HDEL', loc, ARGV[1])
end
local lists = {['+'] = {}, ['-'] = {}}
for at = 5, #ARGV do
  local sign, digest = string.sub(ARGV[at], 1, 1), string.sub(ARGV[at], 2)
  local loc = ARGV[4] .. 'loc:' .. digest
  local changed = change(loc, sign)
  if type(changed) == 'table' then
    fit(loc, 'hash')
    changed = change(loc, sign)
    if type(changed) == 'table' then return changed end
  end
  table.insert(lists[sign], digest)
  if changed == 1 then say(KEYS[3], ARGV[3], ARGV[1], digest, sign == '+' and 'here' or 'gone') end
end
if #lists['+'] > 0 then redis.call('SADD', KEYS[2], unpack(lists['+'])) end
if #lists['-'] > 0 then redis.call('SREM', KEYS[2], unpack(lists['-'])) end
return 1
"""
)
"""Blobs that came to or left this node's disk, all or none; 0 = another epoch has begun."""

PRUNE: Final = (
    _COMMON
    + """
-- KEYS epoch have ev; ARGV node boot epoch cursor prefix
if epoch_at(KEYS[1]) ~= ARGV[3] then return '' end
local page = redis.call('SSCAN', KEYS[2], ARGV[4], 'COUNT', 500)
for _, digest in ipairs(page[2]) do
  local loc = ARGV[5] .. 'loc:' .. digest
  if kind(loc) ~= 'hash' or redis.call('HGET', loc, ARGV[1]) ~= ARGV[2] then
    redis.call('SREM', KEYS[2], digest)
    if kind(loc) == 'hash' and redis.call('HDEL', loc, ARGV[1]) == 1 then
      say(KEYS[3], ARGV[3], ARGV[1], digest, 'gone')
    end
  end
end
return page[1]
"""
)
"""After a full registration: what an earlier boot of this node said and this one did not. Next cursor."""

SWEEP: Final = (
    _COMMON
    + """
-- KEYS have node ev epoch; ARGV node prefix (a node may write no sign of life but its own: not a KEY here)
if living(ARGV[2] .. 'alive:' .. ARGV[1]) then return -1 end
local epoch = epoch_at(KEYS[4])
fit(KEYS[1], 'set')
for _, digest in ipairs(redis.call('SPOP', KEYS[1], 250)) do
  local loc = ARGV[2] .. 'loc:' .. digest
  if kind(loc) == 'hash' and redis.call('HDEL', loc, ARGV[1]) == 1 then
    say(KEYS[3], epoch, ARGV[1], digest, 'gone')
  end
end
local left = redis.call('SCARD', KEYS[1])
if left == 0 then
  redis.call('DEL', KEYS[2])
  say(KEYS[3], epoch, ARGV[1], '', 'node')
end
return left
"""
)
"""Some locations of a dead node go; how many are left, or -1 when it lives after all."""

LEAVE: Final = (
    _COMMON
    + """
-- KEYS alive ev epoch; ARGV node boot
if short(KEYS[1], 64) == ARGV[2] then
  redis.call('DEL', KEYS[1])
  say(KEYS[2], epoch_at(KEYS[3]), ARGV[1], '', 'node')
end
return 1
"""
)
"""I stop. Locations stay for a while: a node that starts again still has its disk."""

LOOK: Final = (
    _COMMON
    + """
-- KEYS epoch ev (alive node)...; ARGV seen
local oldest, last, trimmed, kept, ends = '0-0', '0-0', false, false, false
if kind(KEYS[2]) == 'stream' then
  local facts, info = redis.call('XINFO', 'STREAM', KEYS[2]), {}
  for at = 1, #facts, 2 do info[facts[at]] = facts[at + 1] end
  last = info['last-generated-id']
  oldest = info['first-entry'] and info['first-entry'][1] or last
  trimmed = info['entries-added'] > info['length']
  kept = #redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1]) > 0
  ends = info['last-entry'] and info['last-entry'][1] == last or false
end
local nodes = {}
for at = 3, #KEYS, 2 do
  table.insert(nodes, {living(KEYS[at]), field(KEYS[at + 1], 'boot'), field(KEYS[at + 1], 'blobs')})
end
return cmsgpack.pack({epoch_at(KEYS[1]), oldest, last, trimmed, kept, ends, nodes})
"""
)
"""Reads only: the epoch, the ends of the Stream, whether the event seen last is in it, and some nodes."""

NEWS: Final = (
    _COMMON
    + f"""
-- KEYS ev; ARGV after
local events, last = {{}}, ''
if kind(KEYS[1]) ~= 'stream' then return cmsgpack.pack({{'', false, events}}) end
local entries = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', {EVENTS} + 1)
local kept = entries[1] and entries[1][1] == ARGV[1] or false
if kept then table.remove(entries, 1) end
for _, entry in ipairs(entries) do
  local found, facts = {{epoch = '', node = '', digest = '', state = ''}}, entry[2]
  for at = 1, #facts, 2 do
    local name, text = facts[at], facts[at + 1]
    if found[name] and #text <= 64 then found[name] = text end
  end
  local event = {{found.epoch, found.node, found.digest, found.state}}
  local plain = string.match(table.concat(event), '^[%w%-]+$')
  table.insert(events, plain and event or {{'', '', '', ''}})
  last = entry[1]
end
return cmsgpack.pack({{last, kept, events}})
"""
)
"""Reads only: the next events, at most one more than EVENTS.

In one string: the client needs 0.3 ms to parse an event of a plain reply.
"""

PAGE: Final = (
    _COMMON
    + f"""
-- KEYS epoch; ARGV cursor prefix
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2] .. '*', 'COUNT', 500)
local refused, nodes, locations, torn = 0, {{}}, {{}}, {{}}
local other = {{alive = true, have = true, lease = true}}
local function is_node(name) return #name <= 32 and string.match(name, '^[a-z0-9%-]+$') end
local function location(key, digest)
  if #digest ~= 64 or not string.match(digest, '^[0-9a-f]+$') then return false end
  if kind(key) ~= 'hash' or redis.call('HLEN', key) > {MAX_NODES} then
    table.insert(torn, digest)
    return false
  end
  local holders, whole, facts = {{}}, true, redis.call('HGETALL', key)
  for at = 1, #facts, 2 do
    local node, boot = facts[at], facts[at + 1]
    if is_node(node) and #boot <= 64 and string.match(boot, '^[%w%-]+$') then
      table.insert(holders, node)
    else
      whole = false
    end
  end
  table.insert(locations, {{digest, holders}})
  if not whole then table.insert(torn, digest) end
  return whole
end
local function take(key)
  local rest = string.sub(key, #ARGV[2] + 1)
  if rest == 'epoch' or rest == 'ev' then return true end
  if #rest > 128 then return false end
  local class, name = string.match(rest, '^(%l+):(.+)$')
  if class == 'loc' then return location(key, name) end
  if class == 'node' then
    if not is_node(name) then return false end
    local alive = living(ARGV[2] .. 'alive:' .. name)
    table.insert(nodes, {{name, alive, field(key, 'boot'), field(key, 'blobs')}})
    return true
  end
  return other[class] or false
end
for _, key in ipairs(page[2]) do
  if not take(key) then refused = refused + 1 end
end
return cmsgpack.pack({{page[1], refused, nodes, locations, torn}})
"""
)
"""Reads only: some of the region's keys, each checked; the caller goes on with the cursor until "0"."""

LEASE: Final = (
    _COMMON
    + f"""
-- KEYS lease by; ARGV owner lease_ms node boot
fit(KEYS[2], 'hash')
if redis.call('HLEN', KEYS[2]) >= {MAX_BESIDE} then redis.call('DEL', KEYS[2]) end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
redis.call('PEXPIRE', KEYS[2], 2 * ARGV[2])
local beside, facts = {{}}, redis.call('HGETALL', KEYS[2])
for at = 1, #facts, 2 do
  local name = facts[at]
  local plain = #name <= 32 and string.match(name, '^[a-z0-9%-]+$')
  if plain and name ~= ARGV[3] then table.insert(beside, name) end
end
local held = short(KEYS[1], 128)
local left = held and redis.call('PTTL', KEYS[1]) or 0
local node, boot = string.match(held or '', '^([a-z0-9%-]+)|([%w%-]+)|%d+$')
local mine_of_before = node == ARGV[3] and boot ~= ARGV[4]
if node and left > 0 and left <= {MAX_LEASE_MS} and not mine_of_before then
  return cmsgpack.pack({{held, left, beside}})
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return cmsgpack.pack({{'', 0, beside}})
"""
)
"""SET NX PX that also passes over what is no lease: no owner, no end, or this node's own before it died."""

RENEW: Final = (
    _COMMON
    + """
-- KEYS lease; ARGV owner lease_ms
if short(KEYS[1], 128) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
)

RELEASE: Final = (
    _COMMON
    + """
-- KEYS lease ev epoch; ARGV owner node digest
if short(KEYS[1], 128) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
say(KEYS[2], epoch_at(KEYS[3]), ARGV[2], ARGV[3], 'free')
return 1
"""
)

READING: Final = frozenset({LOOK, NEWS, PAGE})
"""These write nothing: sent as read-only scripts (Redis 7), they run where nothing may be written."""
