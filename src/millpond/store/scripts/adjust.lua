#!lua flags=allow-oom
-- adjust: an org's used characters are put right by hand
--
-- Usage before us is entered, a call of unknown outcome is settled, or all of it is set to what the
-- provider says. Each is a row of the ledger that names who and why.
--
-- uses base turn flow window hold
-- ARGV  4 org
--       5 by, 6 why
--       7 how        add | call | total
--       8 characters  to add; of the call; used in all, by the provider's figure
--       9 call       its id
--
-- Replies  {'adjusted', used, estimated}
--          {'unknown', what}    org, or call: none of unknown outcome has this id
--          {'below', used}      more would be taken back than was ever used

local org, by, why, how, characters, id = unpack(arg, 1, 6)
local o = P .. 'o:' .. org
if redis.call('EXISTS', o) == 0 then return reply('unknown', 'org') end
local change, used = tonumber(characters), tonumber(redis.call('HGET', o, 'used')) or 0
if how == 'add' and used + change < 0 then return reply('below', used) end
if how == 'call' then
  local kept = redis.call('HGET', o .. ':unknown', id)
  if not kept then return reply('unknown', 'call') end
  redis.call('HDEL', o .. ':unknown', id)
  redis.call('HINCRBY', o, 'estimated', -kept)
elseif how == 'total' then
  change = change - used
  redis.call('HSET', o, 'estimated', 0)
  redis.call('DEL', o .. ':unknown')
end
redis.call('HINCRBY', o, 'used', change)
enter_ledger(org, ({add = 'entered', call = 'settled', total = 'corrected'})[how], change, 'call', id, 'by', by, 'why', why)
look_at_parked(org)
return reply('adjusted', unpack(redis.call('HMGET', o, 'used', 'estimated')))
