#!lua
-- accept: -> queued
--
-- Jobs enter their flow. A job that is known already stays as it is, so that a caller who had no
-- answer may ask again.
--
-- uses base turn flow
-- ARGV  4 flow
--       5 ...   per job, at most 200: id, characters that it may use at most, tokens at most, characters of
--               those that are known beforehand, pack key ('': it shares no call), note (told back with
--               its answer), ms until its deadline (0: none), 'end' if it is not to be asked again when nobody
--               knows whether it was answered (else ''), payload
--
-- Replies  {'accepted', new, held}   jobs that were new; jobs of the flow that are held now
--          {'unknown'}               no such flow

local flow = arg[1]
local f = P .. 'f:' .. flow
if redis.call('EXISTS', f) == 0 then return reply('unknown') end

local new = 0
for i = 2, #arg, 9 do
  local job, need, tokens, base, pack, note, within_ms, on_unknown, payload = unpack(arg, i, i + 8)
  if redis.call('EXISTS', P .. 'j:' .. job) == 0 then
    local entry = need .. '|' .. job .. '|' .. tokens .. '|' .. base .. '|' .. pack
    redis.call('HSET', P .. 'j:' .. job, 'state', 'queued', 'flow', flow, 'entry', entry, 'note', note)
    redis.call('SET', P .. 'y:' .. job, payload)
    if on_unknown ~= '' then redis.call('HSET', P .. 'j:' .. job, 'on_unknown', on_unknown) end
    if tonumber(within_ms) ~= 0 then
      redis.call('HSET', P .. 'j:' .. job, 'deadline', now + within_ms)
      redis.call('ZADD', P .. 'until', now + within_ms, job)
    end
    redis.call('RPUSH', f .. ':q', entry)
    new = new + 1
  end
end
if new > 0 then
  redis.call('HINCRBY', f, 'open', new)
  redis.call('HINCRBY', f, 'held', new)
  redis.call('HSET', f, 'fed_at', now)
  enter(flow)
end
return reply('accepted', new, tonumber(redis.call('HGET', f, 'held')) or 0)
