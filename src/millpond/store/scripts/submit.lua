#!lua
-- submit: -> queued
--
-- Single jobs enter their flows, all of them or none. Said again with the same idempotency key, of all or of one of
-- them, it adds nothing and tells the ids of then.
--
-- uses base turn flow single
-- ARGV  4 org
--       5 idem          digest of the idempotency key of all, or ''
--       6 print         digest of what is asked under it
--       7 idem_s        how long that is remembered
--       8 org_most      bytes of jobs that may wait: of the org
--       9 server_most   and of the partition
--       10 org_kept     bytes of jobs that are kept after their end: of the org
--       11 server_kept  and of the partition
--       12 ...   per job, at most 500: id, flow, characters that it may use at most, tokens at most, characters of
--                those that are known beforehand, pack key ('': it shares no call), note (what its record says
--                of it), tag (endpoint|user|model, for usage), ms until its deadline (0: none), ms that it waits at
--                least, 'end' if it is not to be asked again when nobody knows whether it was answered (else ''),
--                payload, digest of an idempotency key of its own ('': none), digest of what is asked under that
--
-- Replies  {'submitted', ids}       with commas; those of jobs that were submitted before are as they were
--          {'differs'}              something else was submitted under the same key
--          {'suspended'}            the org
--          {'unknown', flow}        a flow that is not open
--          {'full', whose, bytes}   org, server, org_kept or server_kept: so many bytes are there already

local FIELDS = 14

local FIRST = 9

local org, idem, print, idem_s = unpack(arg, 1, 4)
local o = P .. 'o:' .. org

-- Ids of what was submitted under a key, nil if nothing was; and whether that was something else.
local function before(key, print)
  if key == '' then return nil end
  local known, ids = unpack(redis.call('HMGET', P .. 'i:' .. org .. ':' .. key, 'print', 'ids'))
  return ids or nil, known and known ~= print
end

local function remember(key, print, ids)
  if key == '' then return end
  local i = P .. 'i:' .. org .. ':' .. key
  redis.call('HSET', i, 'print', print, 'ids', ids)
  redis.call('EXPIRE', i, idem_s)
end

local known, differs = before(idem, print)
if differs then return reply('differs') end
if known then return reply('submitted', known) end
if redis.call('HGET', o, 'status') == 'suspended' then return reply('suspended') end
local size, ids, new, open, under = 0, {}, {}, {}, {}
for at = FIRST, #arg, FIELDS do
  local job, flow = arg[at], arg[at + 1]
  if not open[flow] and redis.call('HGET', P .. 'f:' .. flow, 'org') ~= org then return reply('unknown', flow) end
  open[flow] = true
  local key, print_of = arg[at + 12], arg[at + 13]
  known, differs = before(key, print_of)
  if key ~= '' and under[key] then   -- earlier in the same list
    known, differs = under[key].id, under[key].print ~= print_of
  end
  if differs then return reply('differs') end
  ids[#ids + 1] = known or job
  if not known then
    new[#new + 1] = at
    under[key] = {id = job, print = print_of}
    size = size + size_of(arg[at + 11], arg[at + 6], arg[at + 7])
  end
end
local whose, bytes = too_much(org, size, unpack(arg, 5, 8))
if whose then return reply('full', whose, bytes) end

local came, in_line = {}, {}
for _, at in ipairs(new) do
  local job, flow, need, tokens, base, pack, note, tag, within_ms, wait_ms, on_unknown, payload, own_idem,
    own_print =
    unpack(arg, at, at + FIELDS - 1)
  local j, f = P .. 'j:' .. job, P .. 'f:' .. flow
  local entry = need .. '|' .. job .. '|' .. tokens .. '|' .. base .. '|' .. pack
  redis.call('HSET', j, 'state', 'queued', 'flow', flow, 'entry', entry, 'note', note, 'tag', tag)
  redis.call('SET', P .. 'y:' .. job, payload)
  if on_unknown ~= '' then redis.call('HSET', j, 'on_unknown', on_unknown) end
  if tonumber(within_ms) ~= 0 then
    redis.call('HSET', j, 'deadline', now + within_ms)
    redis.call('ZADD', P .. 'until', now + within_ms, job)
  end
  admit(job, org, size_of(payload, note, tag))
  redis.call('HINCRBY', P .. 'counts', 'submitted|' .. string.match(tag, '^[^|]*'), 1)
  if tonumber(wait_ms) > 0 then
    redis.call('ZADD', f .. ':later', now + wait_ms, job)
    look_again(flow, now + wait_ms)
  else
    redis.call('RPUSH', f .. ':q', entry)
    in_line[flow] = true
  end
  came[flow] = (came[flow] or 0) + 1
  remember(own_idem, own_print, job)
end
for flow, n in pairs(came) do
  local f = P .. 'f:' .. flow
  redis.call('HINCRBY', f, 'open', n)
  redis.call('HINCRBY', f, 'held', n)
  redis.call('HSET', f, 'fed_at', now)
  if in_line[flow] then enter(flow) end
end
ids = table.concat(ids, ',')
remember(idem, print, ids)
return reply('submitted', ids)
