#!lua
-- seal: an org's provider key is kept sealed, sealed anew, or removed
--
-- Callers seal it and open it. Here is its ciphertext, and its mark: a keyed hash by which the same key is
-- known again, so that no two orgs have one. Each change has a version, a row in the audit and an event.
--
-- uses base
-- ARGV  4 by      who says so
--       5 org
--       6 how     keep: in place of any other | again: in place of the ciphertext `was` | remove
--       7 was     ''; again: what was read
--       8 master  the name of the master key that it is sealed with; remove: ''
--       9 mark    under that master key; remove: ''
--      10 sealed  the ciphertext; remove: ''
--      11 marks   JSON: the key's mark under each master key that the caller has
--
-- Replies  {'sealed', version}
--          {'unknown', 'org'}
--          {'none'}           there is no key to remove, or no longer this one to seal anew
--          {'taken', org}     another org has this key
--          {'hidden', names}  master keys that the caller has not, and keys of other orgs are sealed with:
--                             nobody can tell whether one of them is the same

local EVENTS_MOST, AUDIT_MOST = 1000, 10000

local by, org, how, was, master, mark, sealed = unpack(arg, 1, 7)
local marks = cjson.decode(arg[8])
local o = P .. 'o:' .. org
local key = o .. ':key'
if redis.call('EXISTS', o) == 0 then return reply('unknown', 'org') end
local old_master, old_mark, old_sealed = unpack(redis.call('HMGET', key, 'master', 'mark', 'sealed'))
if (how == 'remove' and not old_sealed) or (how == 'again' and old_sealed ~= was) then return reply('none') end
local version = redis.call('HGET', o, 'version') or '0'
if how == 'keep' then
  for name, one in pairs(marks) do
    local owner = redis.call('HGET', P .. 'marks', name .. ':' .. one)
    if owner and owner ~= org then return reply('taken', owner) end
  end
  local hidden = {}
  local used = redis.call('HGETALL', P .. 'masters')   -- a handful, however many orgs there are
  for i = 1, #used, 2 do
    local others = tonumber(used[i + 1]) - (used[i] == old_master and 1 or 0)
    if others > 0 and not marks[used[i]] then hidden[#hidden + 1] = used[i] end
  end
  if #hidden > 0 then return reply('hidden', table.concat(hidden, ',')) end
  if old_master == master and old_mark == mark then return reply('sealed', version) end
end

if old_sealed then
  redis.call('HDEL', P .. 'marks', old_master .. ':' .. old_mark)
  if redis.call('HINCRBY', P .. 'masters', old_master, -1) == 0 then redis.call('HDEL', P .. 'masters', old_master) end
end
redis.call('DEL', key)
if how == 'remove' then
  redis.call('HSET', key, 'removed', 1, 'by', by, 'at', now)
else
  redis.call('HSET', key, 'master', master, 'mark', mark, 'sealed', sealed, 'by', by, 'at', now)
  redis.call('HSET', P .. 'marks', master .. ':' .. mark, org)
  redis.call('HINCRBY', P .. 'masters', master, 1)
end
version = redis.call('HINCRBY', o, 'version', 1)
local changes = {{'key', org, 'fingerprint', old_mark or '', mark}}
if (old_master or '') ~= master then changes[2] = {'key', org, 'master', old_master or '', master} end
redis.call('XADD', o .. ':audit', 'MAXLEN', '~', AUDIT_MOST, '*', 'at', now, 'by', by, 'version', version,
  'changes', cjson.encode(changes))
redis.call('XADD', o .. ':ev', 'MAXLEN', '~', EVENTS_MOST, '*', 'at', now, 'event', 'key',
  'change', ({keep = 'set', again = 'sealed anew', remove = 'removed'})[how], 'by', by,
  'fingerprint', how == 'remove' and old_mark or mark, 'master', how == 'remove' and old_master or master)
return reply('sealed', version)
