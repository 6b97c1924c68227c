#!lua flags=allow-oom
-- revoke: an API key is good no more
--
-- Also while the server's memory is full. A key of another org, or of another user where one is named, is as
-- unknown as one that does not exist. Each has a row in the audit, of the org or of what belongs to none.
--
-- uses base audit
-- ARGV  4 by    who says so
--       5 why
--       6 org   '': it is an operator's
--       7 user  '': whoever of the org has it
--       8 key   its id
--
-- Replies  {'revoked', at}   now, or before
--          {'unknown'}

local by, why, org, user, key = unpack(arg, 1, 5)
local k = P .. 'k:' .. key
local whose, whom, revoked = unpack(redis.call('HMGET', k, 'org', 'user', 'revoked'))
if whose ~= org or (user ~= '' and whom ~= user) then return reply('unknown') end
if revoked ~= '0' then return reply('revoked', revoked) end

redis.call('HSET', k, 'revoked', now)
audit(org, by, why, {{'api key', key, 'revoked', '', string.format('%d', now)}})
return reply('revoked', now)
