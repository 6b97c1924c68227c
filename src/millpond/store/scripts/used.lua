#!lua
-- used: an API key was good: which day that was, and its mark under the newest master key
--
-- A new mark has a row in the audit, of the org or of what belongs to none.
--
-- uses base audit
-- ARGV  4 key     its id
--       5 was     the mark that was read and compared with
--       6 master  the name of the newest master key
--       7 mark    under that one; it may be the same
--
-- Replies  {'noted'}
--          {'changed'}   there is no such key any more, or its mark is another

local DAY_MS = 86400000

local key, was, master, mark = unpack(arg, 1, 4)
local k = P .. 'k:' .. key
local org, old_master, old_mark = unpack(redis.call('HMGET', k, 'org', 'master', 'mark'))
if old_mark ~= was then return reply('changed') end

redis.call('HSET', k, 'used', now - now % DAY_MS, 'master', master, 'mark', mark)
if mark ~= was then audit(org, 'rotation', '', {{'api key', key, 'master', old_master, master}}) end
return reply('noted')
