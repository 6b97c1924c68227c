#!lua
-- submit: -> queued
--
-- Single jobs enter their flows, all of them or none. Said again with the same idempotency key it changes
-- nothing and tells the same ids.
--
-- uses base turn flow single
-- ARGV  4 org
--       5 idem          digest of the idempotency key, or ''
--       6 print         digest of what is asked under it
--       7 idem_s        how long that is remembered
--       8 org_most      bytes of jobs that may wait: of the org
--       9 server_most   and of the partition
--       10 ...   per job, at most 500: id, flow, characters that it may use at most, tokens at most, characters of
--                those that are known beforehand, pack key ('': it shares no call), note (what its record says
--                of it), ms until its deadline (0: none), ms that it waits at least, 'end' if it is not to be asked
--                again when nobody knows whether it was answered (else ''), payload
--
-- Replies  {'submitted'}
--          {'again', ids}           with commas: they were submitted before, under the same key
--          {'differs'}              something else was, under the same key
--          {'suspended'}            the org
--          {'unknown', flow}        a flow that is not open
--          {'full', whose, bytes}   org or server: so many bytes wait already

local FIELDS = 11

local org, idem, print, idem_s, org_most, server_most = unpack(arg, 1, 6)
local o = P .. 'o:' .. org
local i = P .. 'i:' .. org .. ':' .. idem

if idem ~= '' then
  local before, ids = unpack(redis.call('HMGET', i, 'print', 'ids'))
  if before == print then return reply('again', ids) end
  if before then return reply('differs') end
end
local status, org_bytes = unpack(redis.call('HMGET', o, 'status', 'bytes'))
if status == 'suspended' then return reply('suspended') end
local size, ids, known = 0, {}, {}
for at = 7, #arg, FIELDS do
  local flow = arg[at + 1]
  if not known[flow] and redis.call('HGET', P .. 'f:' .. flow, 'org') ~= org then return reply('unknown', flow) end
  known[flow] = true
  ids[#ids + 1] = arg[at]
  size = size + #arg[at + 10]
end
org_bytes = tonumber(org_bytes) or 0
local server_bytes = tonumber(redis.call('HGET', M, 'bytes')) or 0
if org_bytes + size > tonumber(org_most) then return reply('full', 'org', org_bytes) end
if server_bytes + size > tonumber(server_most) then return reply('full', 'server', server_bytes) end

local came, in_line = {}, {}
for at = 7, #arg, FIELDS do
  local job, flow, need, tokens, base, pack, note, within_ms, wait_ms, on_unknown, payload = unpack(arg, at, at + 10)
  local j, f = P .. 'j:' .. job, P .. 'f:' .. flow
  local entry = need .. '|' .. job .. '|' .. tokens .. '|' .. base .. '|' .. pack
  redis.call('HSET', j, 'state', 'queued', 'flow', flow, 'entry', entry, 'note', note)
  redis.call('SET', P .. 'y:' .. job, payload)
  if on_unknown ~= '' then redis.call('HSET', j, 'on_unknown', on_unknown) end
  if tonumber(within_ms) ~= 0 then
    redis.call('HSET', j, 'deadline', now + within_ms)
    redis.call('ZADD', P .. 'until', now + within_ms, job)
  end
  join(job, org, #payload)
  if tonumber(wait_ms) > 0 then
    redis.call('ZADD', f .. ':later', now + wait_ms, job)
    look_again(flow, now + wait_ms)
  else
    redis.call('RPUSH', f .. ':q', entry)
    in_line[flow] = true
  end
  came[flow] = (came[flow] or 0) + 1
end
for flow, n in pairs(came) do
  local f = P .. 'f:' .. flow
  redis.call('HINCRBY', f, 'open', n)
  redis.call('HINCRBY', f, 'held', n)
  redis.call('HSET', f, 'fed_at', now)
  if in_line[flow] then enter(flow) end
end
if idem ~= '' then
  redis.call('HSET', i, 'print', print, 'ids', table.concat(ids, ','))
  redis.call('EXPIRE', i, idem_s)
end
return reply('submitted')
