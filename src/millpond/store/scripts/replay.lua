#!lua
-- replay: a dead letter becomes a new job -> queued
--
-- It asks the same under a new id, and names the job that it was. The letter leaves.
--
-- uses base turn flow single
-- ARGV  4 org
--       5 job   that died
--       6 new   id
--
-- Replies  {'replayed'}
--          {'unknown', what}   letter, or flow: nobody would take its answer
--          {'known'}           there is a job with the new id

local org, job, new = arg[1], arg[2], arg[3]
local x = P .. 'x:' .. job
local flow, entry, note, payload, tag = unpack(redis.call('HMGET', x, 'flow', 'entry', 'note', 'payload', 'tag'))
if not flow or not redis.call('ZSCORE', P .. 'o:' .. org .. ':dead', job) then return reply('unknown', 'letter') end
local f = P .. 'f:' .. flow
if redis.call('EXISTS', f) == 0 then return reply('unknown', 'flow') end
if redis.call('EXISTS', P .. 'j:' .. new) == 1 then return reply('known') end

local need, tokens, base = string.match(entry, '^(%d+)|[^|]+|(%d+)|(%d+)|')
entry = need .. '|' .. new .. '|' .. tokens .. '|' .. base .. '|'
redis.call('HSET', P .. 'j:' .. new, 'state', 'queued', 'flow', flow, 'entry', entry, 'note', note, 'replays', job)
redis.call('SET', P .. 'y:' .. new, payload)
if redis.call('HEXISTS', f, 'single') == 1 then
  redis.call('HSET', P .. 'j:' .. new, 'tag', tag or '')
  admit(new, org, size_of(payload, note, tag or ''))
end
redis.call('RPUSH', f .. ':q', entry)
redis.call('HINCRBY', f, 'open', 1)
redis.call('HINCRBY', f, 'held', 1)
redis.call('ZREM', P .. 'o:' .. org .. ':dead', job)
redis.call('DEL', x)
enter(flow)
return reply('replayed')
