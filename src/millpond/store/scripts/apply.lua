#!lua
-- apply: an org accepts the usage guidelines, and with them may apply for full access
--
-- One application of an org is open or asked at a time; those before it are kept, the latest hundred. The same
-- said again while it is open is the same application. Each has a version and a row in the org's audit.
--
-- uses base audit review
-- ARGV  4 by          who says so
--       5 org
--       6 guidelines  the version that is accepted
--       7 use_case    '': it does not apply, it accepts the guidelines only
--       8 risks
--
-- Replies  {'applied', number}   of the application; '0' where there is none
--          {'unknown', 'org'}
--          {'approved'}          it has full access
--          {'waiting', number}   another application is open or asked

local KEPT = 100

local by, org, guidelines, use_case, risks = unpack(arg, 1, 5)
local o = P .. 'o:' .. org
if redis.call('EXISTS', o) == 0 then return reply('unknown', 'org') end
local accepted, mode, number = unpack(redis.call('HMGET', o, 'guidelines', 'mode', 'application'))
local applies = use_case ~= ''
if applies then
  if mode == 'full' then return reply('approved') end
  local stage, last = unpack(redis.call('HMGET', application(org, number or 0), 'stage', 'last'))
  if stage == 'open' and last == cjson.encode({'apply', by, use_case, risks}) then return reply('applied', number) end
  if stage == 'open' or stage == 'asked' then return reply('waiting', number) end
end

local changes = {}
if accepted ~= guidelines then
  redis.call('HSET', o, 'guidelines', guidelines, 'guidelines_by', by, 'guidelines_at', now)
  changes[1] = {'org', org, 'guidelines', accepted or '', guidelines}
end
if applies then
  number = redis.call('HINCRBY', o, 'application', 1)
  redis.call('HSET', application(org, number), 'stage', 'open', 'use_case', use_case, 'risks', risks,
    'guidelines', guidelines, 'by', by, 'at', now, 'last', cjson.encode({'apply', by, use_case, risks}))
  redis.call('ZADD', desk('open'), 0, place(org, number, now))
  redis.call('DEL', application(org, number - KEPT), application(org, number - KEPT) .. ':talk')
  changes[#changes + 1] = {'application', tostring(number), 'stage', '', 'open'}
end
if #changes > 0 then audit(org, by, '', changes) end
return reply('applied', tostring(number or 0))
