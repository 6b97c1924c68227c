#!lua flags=allow-oom
-- forget: lost calls whose answer will not come any more
--
-- A lost call is remembered so that a late settle can still charge what it really used. After
-- `age_ms` none is expected; the reservation stays charged as an estimate.
--
-- uses base
-- ARGV  4 org
--       5 age_ms
--       6 most     at most 200
--
-- Replies  {'forgotten', n}

local lost = P .. 'o:' .. arg[1] .. ':lost'
local old = redis.call('ZRANGE', lost, '-inf', now - arg[2], 'BYSCORE', 'LIMIT', 0, arg[3])
for _, id in ipairs(old) do
  redis.call('ZREM', lost, id)
  redis.call('DEL', P .. 'c:' .. id)
end
return reply('forgotten', #old)
