#!lua flags=allow-oom
-- promote: queued | released -> queued (first in line) | expired
--
-- Brings back what waited for a time (to be tried again) or for quota, when the time has come or
-- the quota has room. Jobs that wait when their deadline passes end. Smaller jobs come first, only as many as fit. Lanes that nobody has used for as
-- long as their windows are forget what they counted, and cost nothing.
--
-- uses base turn flow window hold
-- ARGV  4 most   jobs, at most 200
--
-- Replies  {'promoted', n, wait_ms}   wait_ms: until the next look, -1 if none is set

local IDLE_AGAIN_MS = 60000

local most = tonumber(arg[1])
local n = 0

-- The first of `jobs` comes to the head of the line.
local function bring(flow, jobs)
  for i = #jobs, 1, -1 do to_head(flow, jobs[i]) end
  n = n + #jobs
end

-- Parked jobs that the quota has room for. What they need is looked at anew: answers may have taught us since
-- that it is less (p99), or more; and a lane that was lost has forgotten it.
local function fitting_jobs(f, org, lane)
  local parked = n < most and redis.call('ZRANGE', f .. ':parked', 0, most - n - 1) or {}
  if #parked == 0 then return {} end
  local reserve = redis.call('HGET', P .. 'o:' .. org, 'reserve')
  local scale = scale_of(reserve, unpack(redis.call('HMGET', P .. 'l:' .. lane, 'bound', 'p99', 'answers')))
  local left, fitting = quota_left(org), {}
  for _, job in ipairs(parked) do
    local may_use, base = string.match(redis.call('HGET', P .. 'j:' .. job, 'entry') or '', '^(%d+)|[^|]+|%d+|(%d+)|')
    local need = may_use and scaled(scale, tonumber(may_use), tonumber(base)) or 0
    if need > left then
      redis.call('ZADD', f .. ':parked', need, job)
    else
      left = left - need
      redis.call('ZREM', f .. ':parked', job)
      fitting[#fitting + 1] = job
    end
  end
  return fitting
end

local function promote(flow)
  local f = P .. 'f:' .. flow
  local org, lane = unpack(redis.call('HMGET', f, 'org', 'lane'))
  if not org then return end
  local ripe = redis.call('ZRANGE', f .. ':later', '-inf', now, 'BYSCORE', 'LIMIT', 0, most - n)
  for _, job in ipairs(ripe) do redis.call('ZREM', f .. ':later', job) end
  bring(flow, ripe)
  local fitting = fitting_jobs(f, org, lane)
  bring(flow, fitting)
  note_parked(org, flow)
  if #fitting > 0 and redis.call('ZCARD', P .. 'o:' .. org .. ':parked') > LOOKED_AT then look_at_parked(org) end
  if redis.call('EXISTS', f .. ':q') == 1 then enter(flow) end   -- it may have waited for more of its pack
  local next_later = redis.call('ZRANGE', f .. ':later', 0, 0, 'WITHSCORES')[2]
  if n >= most then next_later = now end
  if next_later then look_again(flow, tonumber(next_later)) end
end

for _, job in ipairs(redis.call('ZRANGE', P .. 'until', '-inf', now, 'BYSCORE', 'LIMIT', 0, most)) do
  redis.call('ZREM', P .. 'until', job)
  local flow, state, id = unpack(redis.call('HMGET', P .. 'j:' .. job, 'flow', 'state', 'call'))
  local call = state == 'released' and all_reported() and read_call(id)
  if state == 'queued' then
    end_queued(flow, job, 'expired')
    n = n + 1
  elseif call and call.state == 'ready' then   -- (one that is running may still be answered)
    take_back(call)
    n = n + 1
  end
end

for _, flow in ipairs(redis.call('ZRANGE', P .. 'soon', '-inf', now, 'BYSCORE', 'LIMIT', 0, 50)) do
  if n >= most then break end
  redis.call('ZREM', P .. 'soon', flow)
  promote(flow)
end

-- Whether something of a lane still counts: then when to look again, else nil.
local function counts_until(lane, limits)
  local l = P .. 'l:' .. lane
  if redis.call('EXISTS', l .. ':flight', classes_level(lane)) > 0 then return now + IDLE_AGAIN_MS end
  local newest = redis.call('ZRANGE', l .. ':s', -1, -1, 'WITHSCORES')[2]
  local passes = newest and newest + kept_ms(limits) or 0
  for _, limit in ipairs(limits) do
    if limit[4] then
      local _, total = ring_now(ring(lane, limit))
      if total > 0 then passes = math.max(passes, now + math.max(IDLE_AGAIN_MS, limit[2] / 8)) end
    end
  end
  return passes > now and passes or nil
end

local function forget_windows(lane)
  local limits = limits_of(lane)
  local at = counts_until(lane, limits)
  if at then
    redis.call('ZADD', P .. 'idle', at, lane)
    return
  end
  local l = P .. 'l:' .. lane
  redis.call('DEL', l .. ':s')
  for _, limit in ipairs(limits) do
    local r = ring(lane, limit)
    redis.call('DEL', r.key)
    redis.call('HDEL', l, r.base, r.total)
  end
  redis.call('HDEL', l, 'bucket', 'bucket_at', 'chat_at')
end

for _, lane in ipairs(redis.call('ZRANGE', P .. 'idle', '-inf', now, 'BYSCORE', 'LIMIT', 0, 5)) do
  redis.call('ZREM', P .. 'idle', lane)
  if redis.call('EXISTS', P .. 'l:' .. lane) == 1 then forget_windows(lane) end
end

local next_look = math.min(lowest(P .. 'soon') or math.huge, lowest(P .. 'until') or math.huge)
return reply('promoted', n, next_look < math.huge and math.max(0, next_look - now) or -1)
