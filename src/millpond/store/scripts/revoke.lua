#!lua flags=allow-oom
-- revoke: an API key is good no more
--
-- Also while the server's memory is full. A key of another org, or of another user where one is named, is as
-- unknown as one that does not exist. The last operator's key that does not end stays: nobody could make another.
-- Each has a row in the audit, of the org or of what belongs to none.
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
--          {'last'}

local by, why, org, user, key = unpack(arg, 1, 5)
local k = P .. 'k:' .. key
local whose, whom, revoked = unpack(redis.call('HMGET', k, 'org', 'user', 'revoked'))
if whose ~= org or (user ~= '' and whom ~= user) then return reply('unknown') end
if revoked ~= '0' then return reply('revoked', revoked) end

local function lasts(one)
  local ended, expires = unpack(redis.call('HMGET', P .. 'k:' .. one, 'revoked', 'expires'))
  return ended == '0' and expires == '0'
end
local function others_last()
  for _, one in ipairs(redis.call('ZRANGE', P .. 'operators', 0, -1)) do   -- as many as `mint` allows
    if one ~= key and lasts(one) then return true end
  end
  return false
end
if org == '' and lasts(key) and not others_last() then return reply('last') end

redis.call('HSET', k, 'revoked', now)
audit(org, by, why, {{'api key', key, 'revoked', '', string.format('%d', now)}})
return reply('revoked', now)
