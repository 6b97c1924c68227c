#!lua
-- mint: an API key is a user's, or an operator's
--
-- What is kept of it is its mark, a keyed hash that callers make. Where somebody has as many keys as may be, the
-- oldest that is of no use any more makes room, once it is a day old: keys that come and go would fill the audit. Each has a row in the audit, of the org or of what belongs to none.
--
-- uses base audit
-- ARGV  4 by       who says so
--       5 why
--       6 org      '': it is an operator's
--       7 user     '': it is an operator's
--       8 key      its id
--       9 name     of the key; of the operator
--      10 master   the name of the master key that its mark is made with
--      11 mark
--      12 ms       that it is good for; 0: until it is revoked
--      13 most     keys that a user may have, or all operators together
--      14 first    'first': only if there never was an operator's key; else ''
--
-- Replies  {'minted', created, expires}
--          {'unknown', what}   org, or user
--          {'suspended'}       the user is
--          {'full'}            there are `most`, each good or of today
--          {'known'}           there is a key of this id
--          {'not_first'}

local by, why, org, user, key, name, master, mark, good_ms, most, first = unpack(arg, 1, 11)
local k, owner = P .. 'k:' .. key, P .. 'operators'
if org ~= '' then
  local u = P .. 'o:' .. org .. ':u:' .. user
  owner = u .. ':keys'
  if redis.call('EXISTS', P .. 'o:' .. org) == 0 then return reply('unknown', 'org') end
  local role, status = unpack(redis.call('HMGET', u, 'role', 'status'))
  if not role then return reply('unknown', 'user') end
  if status == 'suspended' then return reply('suspended') end
end
if redis.call('EXISTS', k) == 1 then return reply('known') end
if first ~= '' and redis.call('EXISTS', owner) == 1 then return reply('not_first') end

local DAY_MS = 86400000

local function is_over(other)
  local created, revoked, expires = unpack(redis.call('HMGET', P .. 'k:' .. other, 'created', 'revoked', 'expires'))
  local of_no_use = revoked ~= '0' or (expires ~= '0' and tonumber(expires) <= now)
  return of_no_use and tonumber(created) <= now - DAY_MS
end

local makes_room
if redis.call('ZCARD', owner) >= tonumber(most) then
  for _, other in ipairs(redis.call('ZRANGE', owner, 0, most - 1)) do
    if not makes_room and is_over(other) then makes_room = other end
  end
  if not makes_room then return reply('full') end
end

if makes_room then
  redis.call('DEL', P .. 'k:' .. makes_room)
  redis.call('ZREM', owner, makes_room)
end
local expires = tonumber(good_ms) > 0 and now + good_ms or 0
redis.call('HSET', k, 'kind', org == '' and 'mpo' or 'mpk', 'org', org, 'user', user, 'name', name, 'by', by,
  'created', now, 'expires', expires, 'revoked', 0, 'used', 0, 'master', master, 'mark', mark)
redis.call('ZADD', owner, now, key)
audit(org, by, why, {{'api key', key, 'name', '', name}, {'api key', key, 'user', '', user},
  {'api key', key, 'expires', '', string.format('%d', expires)}})
return reply('minted', now, expires)
