#!lua
-- again: a single job that ended without an answer becomes a new one -> queued
--
-- It asks the same under a new id, and names the job that it was, which stays as it is.
--
-- uses base turn flow single
-- ARGV  4 org
--       5 job   that ended
--       6 new   id
--       7 org_most, 8 server_most, 9 org_kept, 10 server_kept   as `submit` has them
--
-- Replies  {'again'}
--          {'unknown'}       no such job of the org
--          {'open', state}   it has not ended, or has its answer
--          {'gone'}          what it asked is kept no more
--          {'known'}         there is a job with the new id, which is this one asked again
--          {'suspended'}     the org
--          {'full', whose, bytes}   as `submit` has it

local org, job, new = arg[1], arg[2], arg[3]
local j = P .. 'j:' .. job
local of, state, flow, entry, note, tag, on_unknown =
  unpack(redis.call('HMGET', j, 'org', 'state', 'flow', 'entry', 'note', 'tag', 'on_unknown'))
if of ~= org then return reply('unknown') end
if redis.call('HGET', P .. 'j:' .. new, 'again_of') == job then return reply('known') end
if state ~= 'failed' and state ~= 'cancelled' and state ~= 'expired' then return reply('open', state) end
if redis.call('HGET', P .. 'o:' .. org, 'status') == 'suspended' then return reply('suspended') end
local payload, f = redis.call('GET', P .. 'y:' .. job), P .. 'f:' .. flow
if not payload or redis.call('EXISTS', f) == 0 then return reply('gone') end
tag = tag or ''
local size = size_of(payload, note, tag)
local whose, bytes = too_much(org, size, unpack(arg, 4, 7))
if whose then return reply('full', whose, bytes) end

local need, tokens, base, pack = string.match(entry, '^(%d+)|[^|]+|(%d+)|(%d+)|(.*)$')
entry = need .. '|' .. new .. '|' .. tokens .. '|' .. base .. '|' .. pack
redis.call('HSET', P .. 'j:' .. new, 'state', 'queued', 'flow', flow, 'entry', entry, 'note', note,
  'tag', tag, 'again_of', job)
if on_unknown then redis.call('HSET', P .. 'j:' .. new, 'on_unknown', on_unknown) end
redis.call('SET', P .. 'y:' .. new, payload)
admit(new, org, size)
redis.call('HINCRBY', P .. 'counts', 'submitted|' .. string.match(tag, '^[^|]*'), 1)
redis.call('RPUSH', f .. ':q', entry)
redis.call('HINCRBY', f, 'open', 1)
redis.call('HINCRBY', f, 'held', 1)
enter(flow)
return reply('again')
