#!lua
-- set: an org, one of its lanes and a flow are as told
--
-- Opens them or changes them; the next decision uses what is set here. What is known of used
-- limits and quota stays. A lane that was shut or paused is tried again, and so is a paused flow.
--
-- uses base flow window hold
-- ARGV  4 org
--       5 quota      characters, or 'none'
--       6 lane
--       7 pool       whose workers make the lane's calls
--       8 counted    1 if the lane's characters count against the quota, else 0
--       9 limits     [[amount, window_ms (0: at once), unit], ...]
--      10 flow
--      11 attempts   failures that a job of the flow may have
--      12 crashes    deaths of a worker that a job of the flow may see
--      13 common     what all jobs of the flow share; kept for workers as it is
--
-- Replies  {'set'}

local READY_MOST = 10000
-- A limit so large bounds nothing: it is there to count until the real one is known.
local COUNTS_ONLY = 1e9

local org, quota, lane, pool, counted, limits, flow = unpack(arg, 1, 7)
local o, l, f = P .. 'o:' .. org, P .. 'l:' .. lane, P .. 'f:' .. flow

local function longest(of)
  local window = 0
  for _, limit in ipairs(cjson.decode(of)) do window = math.max(window, limit[2]) end
  return window
end

-- Stamps are kept for the longest window. If there is to be a longer one, they are complete only
-- from some moment on: as many calls as were stamped before and are gone count as of that moment.
local old = redis.call('HGET', l, 'limits')
if not old then
  redis.call('HSET', l, 'life', life, 'tag', 0, 'v', 0, 'complete', now, 'before', 0)
elseif longest(limits) > longest(old) then
  local complete, ever = unpack(redis.call('HMGET', l, 'complete', 'ever'))
  redis.call('HSET', l, 'complete', math.max(tonumber(complete), now - longest(old)),
    'before', (tonumber(ever) or 0) - redis.call('ZCARD', l .. ':s'))
end

-- What the flow has let go and nobody has claimed yet would go with the old lane's key.
local function leave_lane(old_lane)
  redis.call('ZREM', P .. 'l:' .. old_lane .. ':f', flow)
  local ready = P .. 'ready:' .. redis.call('HGET', P .. 'l:' .. old_lane, 'pool')
  for _, id in ipairs(redis.call('LRANGE', ready, 0, READY_MOST)) do
    local call = read_call(id)
    if call and call.flow == flow and call.lane == old_lane then
      redis.call('LREM', ready, 0, id)
      unsend(call)
    end
  end
end

-- Of other units nothing is known before a limit counts them, so a lane that has made calls
-- starts as full as can be.
local kept = {}
for _, limit in ipairs(cjson.decode(limits)) do
  local r = ring(lane, limit)
  kept[r.key] = true
  if limit[3] ~= 'calls' and limit[2] > 0 and limit[1] < COUNTS_ONLY and redis.call('HEXISTS', l, r.base) == 0
    and redis.call('HEXISTS', l, 'ever') == 1 then ring_add(r, now, limit[1]) end
end
for _, limit in ipairs(cjson.decode(old or '[]')) do
  local r = ring(lane, limit)
  if not kept[r.key] then
    redis.call('DEL', r.key)
    redis.call('HDEL', l, r.base, r.total)
  end
end

redis.call('HSET', o, 'quota', quota)
redis.call('HSET', l, 'org', org, 'pool', pool, 'counted', counted, 'limits', limits)
redis.call('HDEL', l, 'share', 'share_at', 'paused', 'shut_until', 'shut_reason', 'unreachable', 'unreachable_since')
local old_lane, old_org = unpack(redis.call('HMGET', f, 'lane', 'org'))
if old_org and old_org ~= org and redis.call('SREM', P .. 'o:' .. old_org .. ':parked', flow) == 1 then
  redis.call('SADD', o .. ':parked', flow)
end
redis.call('HSET', f, 'org', org, 'lane', lane, 'attempts', arg[8], 'crashes', arg[9],
  'common', arg[10])
redis.call('HDEL', f, 'paused')
redis.call('SADD', P .. 'flows', flow)
redis.call('SADD', P .. 'orgs', org)
redis.call('ZREM', P .. 'due', lane)
if old_lane and old_lane ~= lane then leave_lane(old_lane) end
enter(flow)
look_again(flow, now)
look_at_parked(org)
return reply('set')
