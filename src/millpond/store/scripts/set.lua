#!lua
-- set: an org, one of its lanes and a flow are as told
--
-- Opens them or changes them; the next decision uses what is set here. What is known of used
-- limits and quota stays. A lane that was shut or paused is tried again, and so is a paused flow.
--
-- uses base flow
-- ARGV  4 org
--       5 quota      characters, or 'none'
--       6 lane
--       7 pool       whose workers make the lane's calls
--       8 counted    1 if the lane's characters count against the quota, else 0
--       9 limits     [[amount, window_ms], ...]
--      10 flow
--      11 attempts   failures that a job of the flow may have
--      12 crashes    deaths of a worker that a job of the flow may see
--
-- Replies  {'set'}

local org, quota, lane, pool, counted, limits, flow = unpack(arg, 1, 7)
local o, l, f = P .. 'o:' .. org, P .. 'l:' .. lane, P .. 'f:' .. flow

-- A window longer than what the lane remembers starts as full as its longest one allowed.
local old, since, assumed = unpack(redis.call('HMGET', l, 'limits', 'since', 'assumed'))
local keep = {}
if old then
  local known_ms, rate = 0, 0
  for _, limit in ipairs(cjson.decode(old)) do
    if limit[2] > known_ms then known_ms, rate = limit[2], limit[1] end
  end
  for _, limit in ipairs(cjson.decode(limits)) do
    local gap = now - known_ms - math.max(tonumber(since), now - limit[2])
    if limit[2] > known_ms and gap > 0 then
      local most = rate * math.ceil(gap / known_ms)
      keep[#keep + 1] = {limit[2], math.min(most, limit[1]), now - known_ms}
    end
  end
  for _, entry in ipairs(cjson.decode(assumed)) do
    if entry[3] > now - entry[1] then keep[#keep + 1] = entry end
  end
else
  redis.call('HSET', l, 'since', now, 'life', life, 'tag', 0, 'v', 0)
end

redis.call('HSET', o, 'quota', quota)
redis.call('HSET', l, 'org', org, 'pool', pool, 'counted', counted, 'limits', limits,
  'assumed', #keep > 0 and cjson.encode(keep) or '[]')
redis.call('HDEL', l, 'paused', 'shut_until', 'shut_reason', 'unreachable', 'unreachable_since')
local old_lane = redis.call('HGET', f, 'lane')
if old_lane and old_lane ~= lane then redis.call('ZREM', P .. 'l:' .. old_lane .. ':f', flow) end
redis.call('HSET', f, 'org', org, 'lane', lane, 'attempts', arg[8], 'crashes', arg[9])
redis.call('HDEL', f, 'paused')
redis.call('SADD', P .. 'flows', flow)
redis.call('SADD', P .. 'orgs', org)
redis.call('ZREM', P .. 'due', lane)
enter(flow)
look_again(flow, now)
look_at_parked(org)
return reply('set')
