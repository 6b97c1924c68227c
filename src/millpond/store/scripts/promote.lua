#!lua flags=allow-oom
-- promote: queued -> queued, first in line
--
-- Brings back what waited for a time (to be tried again) or for quota, when the time has come or
-- the quota has room. Smaller jobs come first, only as many as fit.
--
-- uses base flow
-- ARGV  4 most   jobs, at most 200
--
-- Replies  {'promoted', n, wait_ms}   wait_ms: until the next look, -1 if none is set

local most = tonumber(arg[1])
local n = 0

-- The first of `jobs` comes to the head of the line.
local function bring(flow, jobs)
  for i = #jobs, 1, -1 do to_head(flow, jobs[i]) end
  n = n + #jobs
end

local function promote(flow)
  local f = P .. 'f:' .. flow
  local org = redis.call('HGET', f, 'org')
  if not org then return end
  local ripe = redis.call('ZRANGE', f .. ':later', '-inf', now, 'BYSCORE', 'LIMIT', 0, most - n)
  for _, job in ipairs(ripe) do redis.call('ZREM', f .. ':later', job) end
  bring(flow, ripe)
  local left, fitting = quota_left(org), {}
  local parked = n < most and redis.call('ZRANGE', f .. ':parked', 0, most - n - 1, 'WITHSCORES') or {}
  for i = 1, #parked, 2 do
    left = left - parked[i + 1]
    if left < 0 then break end
    redis.call('ZREM', f .. ':parked', parked[i])
    fitting[#fitting + 1] = parked[i]
  end
  bring(flow, fitting)
  if redis.call('EXISTS', f .. ':parked') == 0 then redis.call('SREM', P .. 'o:' .. org .. ':parked', flow) end
  local next_later = redis.call('ZRANGE', f .. ':later', 0, 0, 'WITHSCORES')[2]
  if n >= most then next_later = now end
  if next_later then look_again(flow, tonumber(next_later)) end
end

for _, flow in ipairs(redis.call('ZRANGE', P .. 'soon', '-inf', now, 'BYSCORE', 'LIMIT', 0, 50)) do
  if n >= most then break end
  redis.call('ZREM', P .. 'soon', flow)
  promote(flow)
end
local next_soon = redis.call('ZRANGE', P .. 'soon', 0, 0, 'WITHSCORES')[2]
return reply('promoted', n, next_soon and math.max(0, next_soon - now) or -1)
